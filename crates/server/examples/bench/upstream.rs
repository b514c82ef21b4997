//! The MCP server behind every target: as little work as an honest answer allows, on a thread
//! and a runtime of its own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime,
};
use tokio_util::task::TaskTracker;

/// Bytes in the body of a call.
const CALL_LENGTH: usize = 200;
/// Bytes in the body of the small answer.
pub(crate) const SMALL_ANSWER: usize = 300;
/// Bytes in the body of the large answer.
pub(crate) const LARGE_ANSWER: usize = 1024 * 1024;
/// The one event that each stream carries.
pub(crate) const EVENT: &str =
    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";

/// Room for the head and the body of one request.
const REQUEST_BUFFER: usize = 16 * 1024;
const MOST_HEADERS: usize = 64;

/// The body of a call that is answered with [`SMALL_ANSWER`] bytes.
pub(crate) fn small_call() -> Vec<u8> {
    padded(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"small","arguments":{"text":""#,
        r#""}}}"#,
        CALL_LENGTH,
    )
}

/// The body of a call that is answered with [`LARGE_ANSWER`] bytes.
pub(crate) fn large_call() -> Vec<u8> {
    padded(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"large","arguments":{"text":""#,
        r#""}}}"#,
        CALL_LENGTH,
    )
}

fn padded(start: &str, end: &str, length: usize) -> Vec<u8> {
    let padding = "x".repeat(length - start.len() - end.len());
    [start, &padding, end].concat().into_bytes()
}

fn json_answer(length: usize) -> Vec<u8> {
    let body = padded(
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""#,
        r#""}],"isError":false}}"#,
        length,
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.into_bytes(), body].concat()
}

fn refusal(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

/// Starts the server on a free port of 127.0.0.1. It demands `key` as the bearer token and ends
/// with this process.
pub(crate) fn start(key: &str) -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the upstream")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let replies = Arc::new(Replies::new(key));
    thread::Builder::new()
        .name("upstream".into())
        .spawn(move || runtime.block_on(serve(listener, replies)))
        .context("no thread for the upstream")?;
    Ok(address)
}

async fn serve(listener: TcpListener, replies: Arc<Replies>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let replies = Arc::clone(&replies);
        connections.spawn(async move {
            // A proxy may end its connection at any time; what that does to a call, the load sees.
            let _ = answer_requests(stream, &replies).await;
        });
    }
}

/// Every answer, made once.
struct Replies {
    authorization: String,
    small_call: Vec<u8>,
    large_call: Vec<u8>,
    small: Vec<u8>,
    large: Vec<u8>,
    stream: Vec<u8>,
    unauthorized: Vec<u8>,
    length_required: Vec<u8>,
    bad_request: Vec<u8>,
}

impl Replies {
    fn new(key: &str) -> Self {
        let stream = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
             Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{EVENT}\r\n",
            EVENT.len()
        );
        Self {
            authorization: format!("Bearer {key}"),
            small_call: small_call(),
            large_call: large_call(),
            small: json_answer(SMALL_ANSWER),
            large: json_answer(LARGE_ANSWER),
            stream: stream.into_bytes(),
            unauthorized: refusal("401 Unauthorized"),
            length_required: refusal("411 Length Required"),
            bad_request: refusal("400 Bad Request"),
        }
    }

    /// The answer to one request. What a proxy must not have changed or forgotten is checked
    /// here, so that a call which arrives wrong counts as an error and not as a fast one.
    fn to(&self, head: &Head, body: &[u8]) -> &[u8] {
        if !head.authorized {
            &self.unauthorized
        } else if head.is_get {
            &self.stream
        } else if head.body.is_none() {
            &self.length_required
        } else if body == self.small_call {
            &self.small
        } else if body == self.large_call {
            &self.large
        } else {
            &self.bad_request
        }
    }
}

/// What one request's head says.
struct Head {
    length: usize,
    is_get: bool,
    authorized: bool,
    body: Option<usize>,
}

impl Head {
    /// `None`: the head is not complete.
    fn parse(received: &[u8], authorization: &str) -> io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) =
            request.parse(received).map_err(io::Error::other)?
        else {
            return Ok(None);
        };
        let mut head = Self {
            length,
            is_get: request.method == Some("GET"),
            authorized: false,
            body: None,
        };
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("authorization") {
                head.authorized = header.value == authorization.as_bytes();
            } else if header.name.eq_ignore_ascii_case("content-length") {
                let text = str::from_utf8(header.value).map_err(io::Error::other)?;
                head.body = Some(text.trim().parse().map_err(io::Error::other)?);
            }
        }
        Ok(Some(head))
    }
}

async fn answer_requests(mut stream: TcpStream, replies: &Replies) -> io::Result<()> {
    let mut buffer = vec![0; REQUEST_BUFFER];
    let mut filled = 0;
    loop {
        let request = Head::parse(&buffer[..filled], &replies.authorization)?
            .map(|head| (head.length + head.body.unwrap_or(0), head))
            .filter(|(end, _)| *end <= filled);
        if let Some((end, head)) = request {
            let body = &buffer[head.length..end];
            stream.write_all(replies.to(&head, body)).await?;
            buffer.copy_within(end..filled, 0);
            filled -= end;
        } else {
            // An idle stream waits here too: its connection carries nothing more.
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                received => filled += received,
            }
        }
    }
}
