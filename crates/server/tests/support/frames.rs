//! A client of HTTP/2 on which the test decides every frame.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::task::TaskTracker;

/// Longer than a server takes to answer, or to have had enough.
const PATIENCE: Duration = Duration::from_secs(20);

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A client that writes what it likes.
pub struct Raw(pub TcpStream);

impl Raw {
    /// A connection on which HTTP/2 has begun.
    pub async fn begin(stream: TcpStream) -> Self {
        let mut raw = Self(stream);
        raw.send(PREFACE).await;
        raw.frame(SETTINGS, 0, 0, &[]).await;
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, content: &[u8]) {
        self.send(&frame(kind, flags, stream, content)).await;
    }

    /// The next frame: its kind, flags, stream and content. `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let reading = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [high, middle, low, kind, flags, stream @ ..] = head;
            let mut content = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.0.read_exact(&mut content).await.ok()?;
            Some((kind, flags, u32::from_be_bytes(stream), content))
        };
        timeout(PATIENCE, reading).await.expect("nothing comes")
    }

    /// Frames of one kind, all others passed over.
    pub async fn next_of(&mut self, wanted: u8) -> (u8, u32, Vec<u8>) {
        loop {
            let (kind, flags, stream, content) = self.next().await.expect("the connection ended");
            if kind == wanted {
                return (flags, stream, content);
            }
        }
    }

    pub async fn is_closed(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Sends these frames until the server has had enough: how many it took.
    pub async fn flood(self, frames: impl Iterator<Item = Vec<u8>>) -> usize {
        let (mut read, mut write) = self.0.into_split();
        let reading = TaskTracker::new().spawn(async move {
            let mut scrap = vec![0; 64 * 1024];
            while read.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
        });
        let mut sent = 0;
        for frame in frames {
            let writing = timeout(PATIENCE, write.write_all(&frame)).await;
            if writing.expect("it is not read").is_err() {
                break;
            }
            sent += 1;
        }
        timeout(PATIENCE, reading)
            .await
            .expect("the connection stays open")
            .unwrap();
        sent
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(content);
    frame
}

/// A header as HPACK writes one that neither side is to remember (RFC 7541 §6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        // An integer with a prefix of 7 bits (RFC 7541 §5.1).
        let mut length = text.len();
        if length < 127 {
            field.push(u8::try_from(length).unwrap());
        } else {
            field.push(127);
            length -= 127;
            while length >= 128 {
                field.push(u8::try_from(length % 128).unwrap() | 128);
                length /= 128;
            }
            field.push(u8::try_from(length).unwrap());
        }
        field.extend(text.as_bytes());
    }
    field
}

pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}
