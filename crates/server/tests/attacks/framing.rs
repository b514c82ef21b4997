//! HTTP framing and hop-by-hop headers (HD).

mod claims;
mod heads;
mod hops;
mod http2;
mod lengths;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request};

use super::{
    case::{Case, case},
    refusal::Refusal::Bare,
    support::{
        UPSTREAM_KEY,
        client::{Answer, Client, Tokens},
        wire::Wire,
    },
    world::World,
};

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-HD-01", "`Content-Length` and then `Transfer-Encoding`", lengths::length_first),
        case("N-HD-02", "`Transfer-Encoding` and then `Content-Length`", lengths::coding_first),
        case("N-HD-04", "`chunked` with blanks, in another case, or with more to it", lengths::odd_chunked),
        case("N-HD-05", "`Transfer-Encoding` twice", lengths::two_codings),
        case("N-HD-08", "`Transfer-Encoding` in HTTP/1.0", lengths::old_and_chunked),
        case("N-HD-09", "broken chunks, endless extensions, credentials in trailers", lengths::odd_chunks),
        case("N-HD-11", "101 headers, 64 KiB of them, one of 32 KiB", heads::large_heads),
        case("N-HD-12", "a request line of 64 KiB", heads::long_line),
        case("N-HD-13", "no `Host`", heads::no_host),
        case("N-HD-14", "two `Host` headers", heads::two_hosts),
        case("N-HD-15", "header names with `_`, which others take for `-`", heads::underscores),
        case("N-HD-16", "`Connection` that names the upstream's credential", hops::strips_credential),
        case("N-HD-17", "`Connection` that names what frames a request", hops::strips_framing),
        case("N-HD-18", "hops::upgrades, and other headers for one hop", hops::upgrades),
        case("N-HD-19", "a request hidden in a body that nobody reads", hops::unread_bodies),
        case("N-HD-20", "HTTP/2 requests that are malformed", http2::odd_http2),
        case("N-HD-21", "HTTP/2: headers that never end", |world| http2::floods(world, http2::ENDLESS_HEADERS)),
        case("N-HD-22", "HTTP/2: streams opened and reset without end, or made to be", |world| http2::floods(world, http2::RESETS)),
        case("N-HD-23", "HTTP/2: floods of empty and small frames, and a reader without room", http2::floods_bombs_and_no_room),
        case("N-HD-24", "a client that claims other addresses, to be counted as many", claims::claimed_addresses),
        case("N-HD-25", "the PROXY protocol, which nobody asked for", claims::proxy_protocol),
        case("N-HD-26", "internal, debug and metrics paths on the public port", claims::internal_paths),
        case("N-HD-27", "headers that make other servers change method, path or mode", claims::magic_headers),
        case("N-HD-28", "ranges, conditions and caches", claims::ranges_and_caches),
    ];
    cases.extend(
        HEADS
            .iter()
            .map(|(id, tried, heads)| case(id, tried, |world| refused_heads(world, heads))),
    );
    cases
}

type Lines = &'static [&'static str];

const CHUNKED: &str = "3\r\nabc\r\n0\r\n\r\n";

/// Id, what is tried, and lines of a head each of which makes it one that is refused.
#[rustfmt::skip]
const HEADS: &[(&str, &str, Lines)] = &[
    ("N-HD-03", "a `Transfer-Encoding` that does not end in `chunked`", &[
        "transfer-encoding: chunked, identity", "transfer-encoding: identity", "transfer-encoding: chunked, gzip",
        "transfer-encoding: xchunked", "transfer-encoding: ", "transfer-encoding: cow",
    ]),
    ("N-HD-06", "`Content-Length` twice with different values", &[
        "content-length: 3\r\ncontent-length: 4", "content-length: 4\r\ncontent-length: 3", "content-length: 3, 4",
    ]),
    ("N-HD-07", "a `Content-Length` that is no number of bytes", &[
        "content-length: +5", "content-length: 0x5", "content-length: 5,5", "content-length: -1", "content-length: 5.0",
        "content-length: 18446744073709551616", "content-length: ", "content-length: 5 5", "content-length: five",
    ]),
    ("N-HD-10", "headers with blanks, folds, CR, LF or NUL where none belong", &[
        "content-length : 3", "x\t: y", "x y: z", "x: a\r\n b: c", "x: a\r\n\tb", " x: y", "x: a\rb", "x: a\0b", "x\0: y", ": y",
        "x", "x: \u{7f}", "x: a\r\n\0\r\n",
    ]),
];

impl World {
    /// A call as bytes, with these lines in its head.
    fn call_bytes(&self, tokens: &Tokens, lines: &str, content: &str) -> String {
        let (host, token) = (self.proxy.address, &tokens.access_token);
        format!(
            "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             {lines}\r\n{content}"
        )
    }

    /// What each of the requests in these bytes is answered with, until the connection is closed
    /// or as many are answered; `None` stands for the close.
    async fn answers_to(&self, bytes: impl AsRef<[u8]>, most: usize) -> Vec<Option<Answer>> {
        let mut wire = Wire::open(&self.http).await;
        wire.send(bytes).await;
        let mut answers = Vec::new();
        while answers.len() < most && !matches!(answers.last(), Some(None)) {
            answers.push(wire.answer().await);
        }
        answers
    }

    /// The call arrives with these headers on top; this is what arrived.
    async fn arrives(
        &self,
        client: &Client,
        tokens: &Tokens,
        headers: &[(&str, &str)],
    ) -> Request<bytes::Bytes> {
        let before = self.upstream.begun();
        let request = with_all(client.call_request(tokens), headers);
        let _ = self.http.send(request).await.expect(200);
        assert_eq!(self.upstream.begun(), before + 1);
        let got = self.upstream.last();
        assert_eq!(
            got.headers()["authorization"],
            format!("Bearer {UPSTREAM_KEY}")
        );
        got
    }
}

fn with_all(mut request: Request<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request
            .headers_mut()
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    request
}

async fn refused_heads(world: Arc<World>, heads: Lines) {
    let (client, tokens) = world.connected().await;
    for lines in heads {
        let bytes = world.call_bytes(&tokens, &format!("{lines}\r\n"), CHUNKED);
        world.refused_bytes(bytes, &Bare(400)).await;
    }
    for (lines, content) in [
        ("transfer-encoding: chunked\r\n", CHUNKED),
        ("content-length: 3\r\n", "abc"),
    ] {
        let bytes = world.call_bytes(&tokens, lines, content);
        let _ = world.answers_to(bytes, 1).await;
        assert_eq!(world.upstream.last().body(), "abc");
    }
    world.serves(&client, &tokens).await;
}
