//! A connection on which the test decides every byte, for what no HTTP library would send.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::client::{Answer, Http};

/// Longer than a proxy takes to answer, or to lose its patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection, from its first byte.
pub struct Wire {
    stream: TcpStream,
    unread: BytesMut,
}

impl Wire {
    pub async fn open(http: &Http) -> Self {
        Self {
            stream: http.connect().await.unwrap(),
            unread: BytesMut::new(),
        }
    }

    /// Sends `bytes` as they are, as far as the other side takes them: one that has refused
    /// already may close while the rest is on its way.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// The next whole answer on this connection; `None` when it is closed instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some((mut answer, framing)) = self.head() {
                answer.body = self.content(framing).await;
                // What comes before the answer proper (RFC 9110 §15.2).
                if !answer.status.is_informational() {
                    return Some(answer);
                }
            } else if !self.read_more().await {
                assert!(self.unread.is_empty(), "half an answer: {:?}", self.unread);
                return None;
            }
        }
    }

    /// Waits until the body of a request with `Expect: 100-continue` is asked for.
    pub async fn body_is_asked_for(&mut self) {
        loop {
            if let Some((answer, _)) = self.head() {
                assert_eq!(answer.status, StatusCode::CONTINUE);
                return;
            }
            assert!(self.read_more().await, "half an answer: {:?}", self.unread);
        }
    }

    /// Sends all these requests before it looks for an answer to the first.
    pub async fn pipelined(&mut self, requests: &[String]) -> Vec<Answer> {
        self.send(requests.concat()).await;
        let mut answers = Vec::new();
        for _ in requests {
            answers.push(self.answer().await.expect("an answer, not a close"));
        }
        answers
    }

    /// Everything until the other side closes.
    pub async fn rest(&mut self) -> String {
        while self.read_more().await {}
        String::from_utf8_lossy(&self.unread.split()).into_owned()
    }

    /// Whether the other side closes without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.read_more().await
    }

    /// Whether there was more before the end.
    async fn read_more(&mut self) -> bool {
        let reading = self.stream.read_buf(&mut self.unread);
        let read = timeout(PATIENCE, reading).await;
        // A close with bytes of ours unread arrives as a reset.
        read.expect("the connection stays open").unwrap_or(0) > 0
    }

    fn head(&mut self) -> Option<(Answer, Framing)> {
        let mut space = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut space);
        let httparse::Status::Complete(length) = parsed.parse(&self.unread).unwrap() else {
            return None;
        };
        let headers: HeaderMap = parsed
            .headers
            .iter()
            .map(|header| {
                let name: HeaderName = header.name.parse().unwrap();
                (name, HeaderValue::from_bytes(header.value).unwrap())
            })
            .collect();
        let status = StatusCode::from_u16(parsed.code.unwrap()).unwrap();
        self.unread.advance(length);
        let framing = Framing::of(status, &headers);
        let answer = Answer {
            to: "bytes".to_owned(),
            status,
            headers,
            body: Bytes::new(),
        };
        Some((answer, framing))
    }

    async fn content(&mut self, framing: Framing) -> Bytes {
        match framing {
            Framing::Length(length) => self.take(length).await,
            Framing::Close => {
                while self.read_more().await {}
                self.unread.split().freeze()
            }
            Framing::Chunked => {
                let mut content = BytesMut::new();
                loop {
                    let line = self.line().await;
                    let size = usize::from_str_radix(&line, 16).expect("a size of a chunk");
                    if size == 0 {
                        while !self.line().await.is_empty() {}
                        return content.freeze();
                    }
                    content.extend(self.take(size).await);
                    assert_eq!(self.line().await, "", "a chunk is longer than its size");
                }
            }
        }
    }

    async fn take(&mut self, length: usize) -> Bytes {
        while self.unread.len() < length {
            assert!(self.read_more().await, "half an answer: {:?}", self.unread);
        }
        self.unread.split_to(length).freeze()
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.unread.split_to(end + 2);
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.read_more().await, "half an answer: {:?}", self.unread);
        }
    }
}

/// Where an answer ends (RFC 9112 §6.3; none here is to a HEAD or CONNECT).
enum Framing {
    Length(usize),
    Chunked,
    Close,
}

impl Framing {
    fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if status.is_informational() || matches!(status.as_u16(), 204 | 304) {
            return Self::Length(0);
        }
        if headers.contains_key("transfer-encoding") {
            return Self::Chunked;
        }
        match headers.get("content-length") {
            Some(length) => Self::Length(length.to_str().unwrap().parse().unwrap()),
            None => Self::Close,
        }
    }
}
