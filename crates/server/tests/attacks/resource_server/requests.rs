//! Methods, bodies, and headers that speak of them (N-RS-19 to N-RS-34).

use std::{
    convert::Infallible,
    io::Write,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Response};
use http_body::Frame;

use super::{by, head, with, without_token};
use crate::{refusal::Refusal::JsonRpc, world::World};

/// Id, what is tried, and bodies.
pub type Bodies = (&'static str, &'static str, &'static [fn() -> Vec<u8>]);
/// Id, what is tried, and headers, each in a call of its own.
pub type Headers = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// What goes to the upstream as it came: nothing here reads a body, so nothing can be read in two ways.
#[rustfmt::skip]
pub const BODIES: &[Bodies] = &[
    ("N-RS-21", "an empty body", &[Vec::new]),
    ("N-RS-23", "a body that says it is compressed, and would not open", &[|| b"\x1f\x8b\x08 and no more".into(), || vec![0x1f, 0x8b]]),
    ("N-RS-28", "several messages in one body", &[|| br#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"tools/call"}]"#.into(), || b"[]".into()]),
    ("N-RS-29", "a body that is an answer", &[|| br#"{"jsonrpc":"2.0","id":1,"result":{"x":1}}"#.into(), || br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#.into()]),
    ("N-RS-31", "JSON with keys in another case", &[|| br#"{"Method":"tools/call","METHOD":"ping","Params":{"Name":"a"}}"#.into()]),
    ("N-RS-32", "JSON with escapes in keys", &[|| br#"{"\u006dethod":"tools/call","params":{"\u006eame":"a"}}"#.into()]),
    ("N-RS-33", "JSON with BOM, NUL, comments, commas too many or in UTF-16", &[|| b"\xef\xbb\xbf{}".into(), || b"{}\0".into(), || b"{/* x */}//".into(), || b"{\"a\":1,}".into(), || b"\xff\xfe{\0}\0".into()]),
    ("N-RS-34", "two JSON texts in one body", &[|| b"{} {}".into(), || b"{\"method\":\"ping\"}\n{\"method\":\"tools/call\"}".into()]),
];

/// Headers that speak of the body, for the upstream to compare.
#[rustfmt::skip]
pub const HEADERS: &[Headers] = &[
    ("N-RS-26", "`Mcp-Name` in base64, well-formed or not", &[("mcp-name", "=?base64?4pyT?="), ("mcp-name", "=?base64?!?="), ("mcp-name", "=?base64??="), ("mcp-name", "=?BASE64?4pyT?=")]),
    ("N-RS-27", "a protocol version that nobody knows", &[("mcp-protocol-version", "1999-01-01"), ("mcp-protocol-version", "9999-99-99"), ("mcp-protocol-version", "latest"), ("mcp-protocol-version", "2025-06-18;x")]),
];

const HARD_TO_PARSE: &[fn() -> Vec<u8>] = &[
    || b"<xml/>".into(),
    || b"{".into(),
    || "[".repeat(10_000).into(),
];

pub async fn passes_unparsed(world: Arc<World>) {
    // A million keys need more room than bodies have by default.
    let roomy = world.another("limits.mcp_body = \"16MiB\"").await;
    passes_as_it_is(world, HARD_TO_PARSE).await;
    let (client, tokens) = roomy.connected().await;
    let mut request = client.call_request(&tokens);
    let body = million_keys();
    *request.body_mut() = Body::from(body.clone());
    let got = roomy.passes(request).await;
    assert!(*got.body() == body, "it arrived as something else");
    roomy.serves(&client, &tokens).await;
}

fn million_keys() -> Vec<u8> {
    let mut text = b"{\"k0\":0".to_vec();
    for number in 1..1_000_000 {
        write!(text, ",\"k{number}\":0").unwrap();
    }
    text.push(b'}');
    text
}

pub async fn odd_methods(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let long = "X".repeat(1024);
    let good = head(&format!("host: {}\r\n", world.proxy.address), &tokens);
    for method in [
        "TRACE", "PROPFIND", "CONNECT", "post", "Post", "LINK", &long, "P(ST", "", "PO\0ST",
    ] {
        let bytes = good.replacen("GET", method, 1);
        let status = world.status_of(bytes).await;
        assert!(matches!(status, 400 | 405), "{status} for {method:?}");
    }
    let tunnel = good.replacen("GET /mcp", "CONNECT evil.example:443", 1);
    let status = world.status_of(tunnel).await;
    assert!(matches!(status, 400 | 404 | 405 | 421), "{status}");
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let got = world
            .passes(by(method.clone(), client.call_request(&tokens)))
            .await;
        assert_eq!(got.method(), method);
    }
}

pub async fn no_streams(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let answer = Response::builder().status(405).header("allow", "POST");
    world
        .upstream
        .answers(async { answer.body(Body::empty()).unwrap() });
    let request = with(
        client.call_request(&tokens),
        "mcp-protocol-version",
        "2026-07-28",
    );
    let answer = world.http.send(by(Method::GET, request)).await.expect(405);
    assert_eq!(answer.header("allow"), "POST");
    let bare = by(Method::GET, without_token(client.call_request(&tokens)));
    world.challenges(bare, 401, "unauthorized").await;
    world.serves(&client, &tokens).await;
}

const LIMIT: usize = 4 << 20;

/// A body that does not say how long it is.
struct Undeclared(Bytes);

impl http_body::Body for Undeclared {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.0.len().min(64 * 1024);
        let part = self.0.split_to(length);
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }
}

pub async fn too_large(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = |length: usize, declared: bool| {
        let mut request = client.call_request(&tokens);
        let content = Bytes::from(vec![b' '; length]);
        *request.body_mut() = if declared {
            Body::from(content)
        } else {
            Body::new(Undeclared(content))
        };
        request
    };
    let declared = call(LIMIT + 1, true);
    world.refused(declared, &JsonRpc(413)).await;
    // Of what is not declared, the upstream may have a part, but not the whole.
    let before = world.upstream.received().len();
    let answer = world.http.send(call(LIMIT + 1, false)).await;
    JsonRpc(413).check(&answer, &world.issuer);
    assert_eq!(world.upstream.received().len(), before);
    let lies = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        world.proxy.address,
        tokens.access_token,
        u64::MAX / 2
    );
    assert_eq!(world.status_of(lies).await, 413);
    for declared in [true, false] {
        let got = world.passes(call(LIMIT, declared)).await;
        assert_eq!(got.body().len(), LIMIT);
    }
}

pub async fn passes_as_it_is(world: Arc<World>, bodies: &'static [fn() -> Vec<u8>]) {
    let (client, tokens) = world.connected().await;
    for body in bodies {
        let body = body();
        let mut request = client.call_request(&tokens);
        if body.starts_with(b"\x1f\x8b") {
            request = with(request, "content-encoding", "gzip");
        }
        *request.body_mut() = Body::from(body.clone());
        let got = world.passes(request).await;
        assert_eq!(*got.body(), body);
        let mut bare = without_token(client.call_request(&tokens));
        *bare.body_mut() = Body::from(body);
        world.challenges(bare, 401, "unauthorized").await;
    }
    world.serves(&client, &tokens).await;
}

/// What stands in front goes by the headers, and the server behind by the body.
pub async fn contradictions(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = |headers: &[(&str, &str)]| {
        let mut request = client.call_request(&tokens);
        *request.body_mut() = Body::from(
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"harmful"}}"#,
        );
        let headers = headers.iter();
        headers.fold(request, |request, (name, value)| with(request, name, value))
    };
    for version in ["2025-11-25", "2026-07-28"] {
        for contradiction in [("mcp-method", "tools/list"), ("mcp-name", "harmless")] {
            let headers = [("mcp-protocol-version", version), contradiction];
            world.refused(call(&headers), &JsonRpc(400)).await;
        }
        let same = [
            ("mcp-protocol-version", version),
            ("mcp-method", "tools/call"),
            ("mcp-name", "harmful"),
        ];
        let _ = world.passes(call(&same)).await;
    }
}

/// A server behind may go by the other one of two.
pub async fn members_twice(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = |body: &'static str| {
        let mut request = client.call_request(&tokens);
        *request.body_mut() = Body::from(body);
        request
    };
    for twice in [
        r#"{"method":"ping","method":"tools/call"}"#,
        r#"{"method":"ping","\u006dethod":"tools/call"}"#,
        r#"{"method":"tools/call","params":{"name":"a","name":"b"}}"#,
        r#"{"id":1,"id":2,"method":"ping"}"#,
    ] {
        world.refused(call(twice), &JsonRpc(400)).await;
    }
    // What decides nothing here is for the server to judge.
    let other =
        r#"{"x":1,"x":2,"method":"tools/call","params":{"arguments":{"name":"a","name":"b"}}}"#;
    assert_eq!(*world.passes(call(other)).await.body(), other);
}

pub async fn headers_pass(world: Arc<World>, headers: &'static [(&'static str, &'static str)]) {
    let (client, tokens) = world.connected().await;
    for (name, value) in headers {
        let request = with(client.call_request(&tokens), name, value);
        let got = world.passes(request).await;
        assert_eq!(got.headers()[*name], value);
        assert_eq!(
            got.body(),
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#
        );
        // Two of them could be read in two ways.
        let twice = with(client.call_request(&tokens), name, value);
        let twice = with(twice, name, "x");
        world.refused(twice, &JsonRpc(400)).await;
    }
    world.serves(&client, &tokens).await;
}
