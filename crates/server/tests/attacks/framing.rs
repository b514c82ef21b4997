//! HTTP framing and hop-by-hop headers (HD).

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Method, Request, header};
use tokio::time::timeout;

use super::{
    case::{Case, case},
    refusal::Refusal::{Bare, OAuth},
    support::{
        PASSPHRASE, UPSTREAM_KEY,
        client::{Answer, Client, Http, Tokens},
        frames::{
            CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw,
            SETTINGS, WINDOW_UPDATE, field, fields, frame,
        },
        wire::Wire,
    },
    world::World,
};

/// Longer than the proxy takes to drop a connection.
const PATIENCE: Duration = Duration::from_mins(1);

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-HD-01", "`Content-Length` and then `Transfer-Encoding`", length_first),
        case("N-HD-02", "`Transfer-Encoding` and then `Content-Length`", coding_first),
        case("N-HD-04", "`chunked` with blanks, in another case, or with more to it", odd_chunked),
        case("N-HD-05", "`Transfer-Encoding` twice", two_codings),
        case("N-HD-08", "`Transfer-Encoding` in HTTP/1.0", old_and_chunked),
        case("N-HD-09", "broken chunks, endless extensions, credentials in trailers", odd_chunks),
        case("N-HD-11", "101 headers, 64 KiB of them, one of 32 KiB", large_heads),
        case("N-HD-12", "a request line of 64 KiB", long_line),
        case("N-HD-13", "no `Host`", no_host),
        case("N-HD-14", "two `Host` headers", two_hosts),
        case("N-HD-15", "header names with `_`, which others take for `-`", underscores),
        case("N-HD-16", "`Connection` that names the upstream's credential", strips_credential),
        case("N-HD-17", "`Connection` that names what frames a request", strips_framing),
        case("N-HD-18", "upgrades, and other headers for one hop", upgrades),
        case("N-HD-19", "a request hidden in a body that nobody reads", unread_bodies),
        case("N-HD-20", "HTTP/2 requests that are malformed", odd_http2),
        case("N-HD-21", "HTTP/2: headers that never end", |world| floods(world, ENDLESS_HEADERS)),
        case("N-HD-22", "HTTP/2: streams opened and reset without end, or made to be", |world| floods(world, RESETS)),
        case("N-HD-23", "HTTP/2: floods of empty and small frames, and a reader without room", floods_bombs_and_no_room),
        case("N-HD-24", "a client that claims other addresses, to be counted as many", claimed_addresses),
        case("N-HD-25", "the PROXY protocol, which nobody asked for", proxy_protocol),
        case("N-HD-26", "internal, debug and metrics paths on the public port", internal_paths),
        case("N-HD-27", "headers that make other servers change method, path or mode", magic_headers),
        case("N-HD-28", "ranges, conditions and caches", ranges_and_caches),
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

/// With both, it is chunked, and the last of its connection (RFC 9112 §6.1).
async fn both_framings(world: &World, lines: &str) {
    let (client, tokens) = world.connected().await;
    let hidden = world.call_bytes(&tokens, "x-hidden: 1\r\ncontent-length: 0\r\n", "");
    let content = format!("{CHUNKED}{hidden}");
    for length in [0, 5, CHUNKED.len(), content.len()] {
        let before = world.upstream.begun();
        let lines = lines.replace("{}", &length.to_string());
        let answers = world
            .answers_to(world.call_bytes(&tokens, &lines, &content), 2)
            .await;
        assert!(
            matches!(&answers[..], [Some(one), None] if one.status == 200),
            "{answers:#?}"
        );
        assert_eq!(world.upstream.begun(), before + 1);
        assert_eq!(world.upstream.last().body(), "abc");
        assert!(
            !world
                .upstream
                .last()
                .headers()
                .contains_key("content-length")
        );
    }
    world.serves(&client, &tokens).await;
}

async fn length_first(world: Arc<World>) {
    both_framings(
        &world,
        "content-length: {}\r\ntransfer-encoding: chunked\r\n",
    )
    .await;
}

async fn coding_first(world: Arc<World>) {
    both_framings(
        &world,
        "transfer-encoding: chunked\r\ncontent-length: {}\r\n",
    )
    .await;
}

async fn odd_chunked(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for value in [
        "chunked\u{b}",
        "\u{b}chunked",
        "chunked;x",
        "chun ked",
        "\"chunked\"",
        "chunked,",
        "chunked\r\n ,x",
    ] {
        let bytes = world.call_bytes(&tokens, &format!("transfer-encoding: {value}\r\n"), CHUNKED);
        world.refused_bytes(bytes, &Bare(400)).await;
    }
    // Blanks around a value and its case say nothing.
    for value in ["  chunked", "\tchunked", "chunked  ", "Chunked", "CHUNKED"] {
        let bytes = world.call_bytes(&tokens, &format!("transfer-encoding:{value}\r\n"), CHUNKED);
        let answers = world.answers_to(bytes, 1).await;
        assert!(
            matches!(&answers[..], [Some(one)] if one.status == 200),
            "{answers:#?}"
        );
        assert_eq!(world.upstream.last().body(), "abc");
    }
    world.serves(&client, &tokens).await;
}

async fn two_codings(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for (first, second) in [
        ("chunked", "identity"),
        ("chunked", "x"),
        ("chunked", ""),
        ("chunked", "gzip"),
        ("identity", "identity"),
        ("chunked", "chunked, identity"),
    ] {
        let lines = format!("transfer-encoding: {first}\r\ntransfer-encoding: {second}\r\n");
        world
            .refused_bytes(world.call_bytes(&tokens, &lines, CHUNKED), &Bare(400))
            .await;
    }
    // With `chunked` at the end there is content, and whoever is in front may see it end elsewhere:
    // nothing behind it is taken for a request.
    let hidden = world.call_bytes(&tokens, "content-length: 0\r\n", "");
    let content = format!("{CHUNKED}{hidden}");
    for codings in ["chunked", "identity", "gzip", "x", "", ",", "chunked;x"]
        .into_iter()
        .flat_map(|first| {
            let name = "transfer-encoding: ";
            [
                format!("{name}{first}\r\n{name}chunked\r\n"),
                format!("{name}{first}\r\n{name}CHUNKED\r\n"),
                format!("{name}{first}\r\nx: y\r\n{name}chunked\r\n"),
                format!("{name}{first}, chunked\r\n"),
                format!("{name}{first},,\tchunked\r\n"),
                format!("{name}{first}\r\n{name}{first}\r\n{name}chunked\r\n"),
            ]
        })
    {
        let bytes = world.call_bytes(&tokens, &codings, &content);
        let answers = world.unchanged(world.answers_to(bytes, 2)).await;
        let [Some(refused), None] = &answers[..] else {
            panic!("{codings:?}: {answers:#?}");
        };
        OAuth(400, "invalid_request").check(refused, &world.issuer);
    }
    // The twin: once.
    let bytes = world.call_bytes(&tokens, "transfer-encoding: chunked\r\n", CHUNKED);
    let answers = world.answers_to(bytes, 1).await;
    assert!(matches!(&answers[..], [Some(one)] if one.status == 200));
    assert_eq!(world.upstream.last().body(), "abc");
    world.serves(&client, &tokens).await;
}

async fn old_and_chunked(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = |lines, content| {
        let bytes = world.call_bytes(&tokens, lines, content);
        bytes.replacen("HTTP/1.1", "HTTP/1.0", 1)
    };
    for lines in [
        "transfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\nconnection: keep-alive\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
    ] {
        world.refused_bytes(call(lines, CHUNKED), &Bare(400)).await;
    }
    let answers = world
        .answers_to(call("content-length: 3\r\n", "abc"), 2)
        .await;
    assert!(
        matches!(&answers[..], [Some(one), None] if one.status == 200),
        "{answers:#?}"
    );
    world.serves(&client, &tokens).await;
}

/// A body that breaks may have begun to reach the upstream, but never does as a whole.
async fn odd_chunks(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let hidden = world.call_bytes(&tokens, "content-length: 0\r\n", "");
    let extension = "x".repeat(1 << 20);
    for content in [
        format!("3;{extension}\r\nabc\r\n0\r\n\r\n"),
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n".to_owned(),
        "-3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "0x3\r\nabc\r\n0\r\n\r\n".to_owned(),
        "3\nabc\n0\n\n".to_owned(),
        "3\rabc\r0\r\r".to_owned(),
        "\r\nabc\r\n0\r\n\r\n".to_owned(),
        "2\r\nabc\r\n0\r\n\r\n".to_owned(),
        "3\r\nabcd\r\n0\r\n\r\n".to_owned(),
        "3\r\nabc0\r\n\r\n".to_owned(),
        format!("3\r\nabc\r\n0\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
    ] {
        let before = world.upstream.received().len();
        let bytes = world.call_bytes(
            &tokens,
            "transfer-encoding: chunked\r\n",
            &format!("{content}{hidden}"),
        );
        let answers = world.answers_to(bytes, 2).await;
        let shown = &content[..content.len().min(40)];
        let good = answers.iter().flatten().any(|answer| answer.status == 200);
        assert!(
            !good && matches!(answers.last(), Some(None)),
            "{shown:?}: {answers:#?}"
        );
        assert_eq!(world.upstream.received().len(), before, "{shown:?}");
    }
    // Nothing of a trailer becomes a header.
    let content = "3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nx-evil: 1\r\nmcp-name: evil\r\n\r\n";
    let lines = "transfer-encoding: chunked\r\ntrailer: authorization\r\n";
    let answers = world
        .answers_to(world.call_bytes(&tokens, lines, content), 1)
        .await;
    assert!(
        matches!(&answers[..], [Some(one)] if one.status == 200),
        "{answers:#?}"
    );
    let got = world.upstream.last();
    assert_eq!(
        got.headers()["authorization"],
        format!("Bearer {UPSTREAM_KEY}")
    );
    for name in ["x-evil", "mcp-name", "trailer"] {
        assert!(!got.headers().contains_key(name), "{name}");
    }
    world.serves(&client, &tokens).await;
}

async fn large_heads(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let line = |length| format!("x: {}\r\n", "y".repeat(length));
    for lines in [
        line(1).repeat(101),
        line(1000).repeat(64),
        line(64 * 1024),
        line(32 * 1024),
    ] {
        let bytes = world.call_bytes(&tokens, &lines, "");
        world.refused_bytes(bytes, &Bare(431)).await;
    }
    for lines in [line(1).repeat(90), line(16 * 1024)] {
        let answers = world
            .answers_to(world.call_bytes(&tokens, &lines, ""), 1)
            .await;
        assert!(
            matches!(&answers[..], [Some(one)] if one.status == 200),
            "{answers:#?}"
        );
    }
    world.serves(&client, &tokens).await;
}

async fn long_line(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = |length| {
        let bytes = world.call_bytes(&tokens, "", "");
        bytes.replacen("/mcp", &format!("/mcp?{}", "x".repeat(length)), 1)
    };
    for length in [64 * 1024, 1 << 20] {
        let status = world.status_of(call(length)).await;
        assert!(matches!(status, 414 | 431), "{status}");
    }
    let answers = world.answers_to(call(4 * 1024), 1).await;
    assert!(
        matches!(&answers[..], [Some(one)] if one.status == 200),
        "{answers:#?}"
    );
    world.serves(&client, &tokens).await;
}

async fn no_host(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let host = format!("host: {}\r\n", world.proxy.address);
    for path in [
        "/mcp",
        "/",
        "/token",
        "/.well-known/oauth-authorization-server",
    ] {
        let bytes = world.call_bytes(&tokens, "content-length: 0\r\n", "");
        let bytes = bytes.replacen(&host, "", 1).replacen("/mcp", path, 1);
        world
            .refused_bytes(bytes, &OAuth(400, "invalid_request"))
            .await;
    }
    world.serves(&client, &tokens).await;
}

async fn two_hosts(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let own = format!("host: {}\r\n", world.proxy.address);
    for second in [&*own, "Host: evil.example\r\n", "HOST: \r\n"] {
        for lines in [format!("{own}{second}"), format!("{second}{own}")] {
            let bytes = world.call_bytes(&tokens, "content-length: 0\r\n", "");
            let bytes = bytes.replacen(&own, &lines, 1);
            world
                .refused_bytes(bytes, &OAuth(400, "invalid_request"))
                .await;
        }
    }
    world.serves(&client, &tokens).await;
}

async fn underscores(world: Arc<World>) {
    const NAMES: [&str; 6] = [
        "x_forwarded_for",
        "authorization_",
        "mcp_session_id",
        "content_length",
        "_authorization",
        "last_event_id",
    ];
    let (client, tokens) = world.connected().await;
    let headers = NAMES.map(|name| (name, "evil"));
    let got = world.arrives(&client, &tokens, &headers).await;
    assert!(!format!("{got:?}").contains("evil"));
    world.serves(&client, &tokens).await;
}

async fn strips_credential(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for options in [
        "authorization",
        "close, Authorization, x-upstream-key",
        "AUTHORIZATION,authorization",
        "x, authorization ,y",
    ] {
        let headers = [("connection", options), ("x-upstream-key", "evil")];
        let got = world.arrives(&client, &tokens, &headers).await;
        assert!(!got.headers().contains_key("x-upstream-key"));
    }
    // In a header of its own name as well.
    let lines = "upstream.keyed.url = \"http://{}/mcp\"\n\
                 upstream.keyed.credential = { header = \"X-Upstream-Key\", value = { env = \"UPSTREAM_KEY\" } }";
    let keyed = world
        .another(&lines.replace("{}", &world.upstream.address.to_string()))
        .await;
    let client = keyed.client().await;
    let resource = format!("{}/mcp/keyed", keyed.issuer);
    let tokens = client
        .sign_in_with(&client.authorization().with("resource", &resource))
        .await;
    let call = client.call_at("/mcp/keyed", &tokens);
    let call = with_all(
        call,
        &[("connection", "x-upstream-key"), ("x-upstream-key", "evil")],
    );
    let _ = keyed.http.send(call).await.expect(200);
    let got = world.upstream.last();
    let keys: Vec<_> = got.headers().get_all("x-upstream-key").iter().collect();
    assert_eq!(keys, [UPSTREAM_KEY]);
    assert!(!got.headers().contains_key("authorization"));
}

async fn strips_framing(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for options in [
        "close, host",
        "content-length",
        "content-type, content-length, host",
    ] {
        let got = world
            .arrives(&client, &tokens, &[("connection", options)])
            .await;
        assert_eq!(got.headers()["host"], world.upstream.address.to_string());
        assert_eq!(got.headers()["content-type"], "application/json");
        assert_eq!(
            got.headers()["content-length"],
            got.body().len().to_string()
        );
    }
    world.serves(&client, &tokens).await;
}

async fn upgrades(world: Arc<World>) {
    const HOP: [(&str, &str); 7] = [
        ("keep-alive", "timeout=600"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ("proxy-connection", "keep-alive"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let (client, tokens) = world.connected().await;
    let (host, token) = (world.proxy.address, &tokens.access_token);
    let lines = HOP
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    let bytes = format!(
        "GET /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         connection: upgrade, http2-settings, keep-alive\r\n{lines}\r\n\0\x01bytes after it"
    );
    let before = world.upstream.begun();
    let answers = world.answers_to(bytes, 3).await;
    assert!(
        matches!(&answers[..], [Some(one), Some(two), None] if one.status == 200 && two.status == 400),
        "{answers:#?}"
    );
    assert_eq!(world.upstream.begun(), before + 1);
    let got = world.upstream.last();
    assert!(got.body().is_empty());
    for (name, _) in HOP.iter().chain(&[("connection", "")]) {
        assert!(!got.headers().contains_key(*name), "{name}");
    }
    world.serves(&client, &tokens).await;
}

async fn unread_bodies(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let hidden = world.call_bytes(&tokens, "content-length: 0\r\n", "");
    let host = world.proxy.address;
    for (path, lines, status) in [
        ("/mcp", "", 401),
        ("/mcp", "authorization: Bearer x\r\n", 401),
        ("/mcp", "origin: https://evil.example\r\n", 403),
        ("/nothing", "", 404),
        ("/health", "", 405),
        ("/register", "content-type: text/plain\r\n", 400),
    ] {
        let length = hidden.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\n{lines}content-length: {length}\r\n\r\n"
        );
        let bytes = format!("{head}{hidden}");
        let answers = world.unchanged(world.answers_to(bytes, 1)).await;
        assert!(
            matches!(&answers[..], [Some(one)] if one.status == status),
            "{path}: {answers:#?}"
        );
        // What comes after the body is a request again, if it is anything.
        let before = world.upstream.begun();
        let answers = world.answers_to(format!("{head}{hidden}{hidden}"), 2).await;
        let served = answers
            .iter()
            .flatten()
            .filter(|answer| answer.status == 200)
            .count();
        assert_eq!(world.upstream.begun(), before + served);
        assert!(answers[1].is_none() || served == 1, "{path}: {answers:#?}");
    }
    let large = format!(
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-length: 5000000\r\n\r\n{hidden}",
        tokens.access_token
    );
    let answers = world.unchanged(world.answers_to(large, 1)).await;
    assert!(
        matches!(&answers[..], [Some(one)] if one.status == 413),
        "{answers:#?}"
    );
    // An error leaves the connection for the next.
    let pipelined = format!("GET /nothing HTTP/1.1\r\nhost: {host}\r\n\r\n{hidden}");
    let answers = world.answers_to(pipelined, 2).await;
    let statuses: Vec<u16> = answers
        .iter()
        .flatten()
        .map(|answer| answer.status.as_u16())
        .collect();
    assert_eq!(statuses, [404, 200]);
    world.serves(&client, &tokens).await;
}

/// A call over HTTP/2 as header fields.
fn http2_call(world: &World, tokens: &Tokens, more: &[(&str, &str)]) -> Vec<u8> {
    let authority = world.proxy.address.to_string();
    let bearer = format!("Bearer {}", tokens.access_token);
    let all = [
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", &authority),
            (":path", "/mcp"),
            ("authorization", &bearer),
        ],
        more,
    ];
    fields(&all.concat())
}

async fn http2_connection(http: &Http) -> Raw {
    Raw::begin(http.connect().await.unwrap()).await
}

async fn odd_http2(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let host = world.proxy.address.to_string();
    for more in [
        ("host", "evil.example"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x\r\ny", "z"),
        ("X-Upper", "x"),
        ("x y", "z"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("keep-alive", "x"),
        ("proxy-connection", "x"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        (":path", "/other"),
        (":authority", "evil.example"),
        (":other", "x"),
    ] {
        let attempt = async {
            let mut raw = http2_connection(&world.http).await;
            let block = http2_call(&world, &tokens, &[("y", "z"), more]);
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
                .await;
            loop {
                match raw.next().await {
                    // Not 200, which is one byte (RFC 7541, appendix A).
                    Some((HEADERS, _, 1, block)) => break assert_ne!(block[0], 0x88, "{more:?}"),
                    Some((RST_STREAM | GOAWAY, ..)) | None => break,
                    Some(_) => {}
                }
            }
        };
        world.unchanged(attempt).await;
    }
    for more in [&[][..], &[("host", &*host)], &[("te", "trailers")]] {
        let mut raw = http2_connection(&world.http).await;
        let block = http2_call(&world, &tokens, more);
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            .await;
        assert_eq!(raw.next_of(HEADERS).await.2[0], 0x88, "{more:?}");
        let got = world.upstream.last();
        assert_eq!(
            got.headers()["authorization"],
            format!("Bearer {UPSTREAM_KEY}")
        );
    }
    world.serves(&client, &tokens).await;
}

/// What a flood begins with and what it repeats, given a block of headers and how often that was.
struct Flood {
    opening: fn(&[u8]) -> Vec<u8>,
    repeated: fn(&[u8], u32) -> Vec<u8>,
}

const ENDLESS_HEADERS: &[Flood] = &[
    Flood {
        opening: |block| frame(HEADERS, 0, 1, block),
        repeated: |_, _| frame(CONTINUATION, 0, 1, &[]),
    },
    Flood {
        opening: |block| frame(HEADERS, 0, 1, block),
        repeated: |_, _| frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(1000))])),
    },
];

const RESETS: &[Flood] = &[
    Flood {
        opening: |_| Vec::new(),
        repeated: |block, number| {
            let stream = number * 2 + 1;
            let whole = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            [whole, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        },
    },
    // The server is made to reset, by a window that grows by nothing.
    Flood {
        opening: |_| Vec::new(),
        repeated: |block, number| {
            let stream = number * 2 + 1;
            let whole = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            [whole, frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
        },
    },
];

const SMALL_FRAMES: &[Flood] = &[
    Flood {
        opening: |_| Vec::new(),
        repeated: |_, _| frame(PING, 0, 0, &[0; 8]),
    },
    Flood {
        opening: |_| Vec::new(),
        repeated: |_, _| frame(SETTINGS, 0, 0, &[]),
    },
    Flood {
        opening: |block| frame(HEADERS, END_HEADERS, 1, block),
        repeated: |_, _| frame(DATA, 0, 1, &[]),
    },
    Flood {
        opening: |block| frame(HEADERS, END_HEADERS, 1, block),
        repeated: |_, _| frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
    },
];

/// Each flood is of requests without a token, so none of them may reach anybody.
async fn floods(world: Arc<World>, floods: &'static [Flood]) {
    // More than the kernel would hold for a server that reads no more.
    const TIMES: u32 = 1_000_000;
    let (client, tokens) = world.connected().await;
    let block = http2_call(&world, &tokens, &[]);
    let authorized = "authorization".len() + 2 + "Bearer ".len() + 1 + tokens.access_token.len();
    let block = &block[..block.len() - authorized];
    let before = world.proxy.resident_kib();
    for (number, Flood { opening, repeated }) in floods.iter().enumerate() {
        let attempt = async {
            let mut raw = http2_connection(&world.http).await;
            raw.send(&opening(block)).await;
            let frames = (0..TIMES).map(|times| repeated(block, times));
            timeout(PATIENCE, raw.flood(frames)).await.unwrap()
        };
        let sent = world.unchanged(attempt).await;
        assert!(sent < TIMES as usize, "flood {number} went on");
        world.serves(&client, &tokens).await;
    }
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more");
}

async fn floods_bombs_and_no_room(world: Arc<World>) {
    floods(Arc::clone(&world), SMALL_FRAMES).await;
    let (client, tokens) = world.connected().await;
    let before = world.proxy.resident_kib();
    // One large header that is remembered, and a byte for each time it is there again.
    let mut bomb = http2_call(&world, &tokens, &[]);
    let remembered = field("x", &"y".repeat(3_500));
    bomb.extend([&[0x40], &remembered[1..], &[0xbe; 10_000]].concat());
    let attempt = async {
        let mut raw = http2_connection(&world.http).await;
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb).await;
        loop {
            match raw.next().await {
                Some((HEADERS, _, 1, block)) => break assert_ne!(block[0], 0x88),
                Some((RST_STREAM | GOAWAY, ..)) | None => break,
                Some(_) => {}
            }
        }
    };
    world.unchanged(attempt).await;
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    world.serves(&client, &tokens).await;

    let world = world.another("limits.write_timeout = \"2s\"").await;
    let (client, tokens) = world.connected().await;
    let mut raw = http2_connection(&world.http).await;
    // Not a byte of any answer may be sent.
    raw.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let block = http2_call(&world, &tokens, &[]);
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
        .await;
    loop {
        match raw.next().await {
            Some((RST_STREAM, _, 1, _) | (GOAWAY, ..)) | None => break,
            Some((kind, ..)) => assert_ne!(kind, DATA),
        }
    }
    world.serves(&client, &tokens).await;
}

/// Tries wrong passphrases, each with one of these claims, until the next must wait.
async fn attempts_left(http: &Http, claims: impl Iterator<Item = String>) -> Option<usize> {
    let client = Client::register(http).await;
    for (number, claim) in claims.enumerate() {
        let consent = client.opens_consent().await;
        let request = consent.answer(http, "wrong", "approve");
        let answer = http
            .send(with_all(request, &[("x-forwarded-for", &claim)]))
            .await;
        if answer.status == 429 {
            return Some(number);
        }
        let _ = answer.expect(401);
    }
    None
}

async fn claimed_addresses(world: Arc<World>) {
    const ATTEMPTS: usize = 5;
    // Whoever is no trusted proxy is itself, whatever it says.
    let http = world.elsewhere();
    let left = attempts_left(&http, (0..20).map(|n| format!("198.51.100.{n}"))).await;
    assert_eq!(left, Some(ATTEMPTS));
    let client = world.client().await;
    world.lets_in(&client, &client.authorization()).await;

    // Of what a trusted one says, the right-most address counts that is not one of them. Each row
    // in a world of its own: wrong attempts of all addresses together are limited too.
    let trusting = "trusted_proxies.ranges = [\"127.0.0.0/8\"]";
    let long = "6.6.6.6, ".repeat(1_000);
    for [first, second] in [
        [
            "{n}.6.6.6, 198.51.100.1",
            "6.6.{n}.6,198.51.100.1,127.0.0.9",
        ],
        [
            "x{n}, 198.51.100.1",
            "fe80::1%eth{n}, 198.51.100.1, 127.0.0.9",
        ],
        [&format!("{long}198.51.100.1"), "198.51.100.1"],
        ["::ffff:198.51.100.1", "{n}.6.6.6, 198.51.100.1"],
        // Who writes what is no address is the proxy that passed it on.
        ["198.51.100.{n}, unknown", "fe80::1%eth{n}"],
    ] {
        let world = world.another(trusting).await;
        let claims = (0..20).map(|n| {
            let claim = if n % 2 == 0 { first } else { second };
            claim.replace("{n}", &n.to_string())
        });
        let left = attempts_left(&world.http, claims).await;
        assert_eq!(left, Some(ATTEMPTS), "{second}");
        // Who has not tried yet may.
        let client = Client::register(&world.http).await;
        let consent = client.opens_consent().await;
        let right = consent.answer(&world.http, PASSPHRASE, "approve");
        let right = with_all(right, &[("x-forwarded-for", "198.51.100.77")]);
        let _ = world.http.send(right).await.expect(303);
    }
}

async fn proxy_protocol(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let call = world.call_bytes(&tokens, "content-length: 0\r\n", "");
    let version_2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02";
    for first in [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".as_slice(),
        b"PROXY UNKNOWN\r\n",
        version_2,
    ] {
        let status = world.status_of([first, call.as_bytes()].concat()).await;
        assert_eq!(status, 400);
    }
    world.serves(&client, &tokens).await;
}

async fn internal_paths(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for path in [
        "/metrics",
        "/admin",
        "/admin/",
        "/debug",
        "/debug/pprof/",
        "/internal",
        "/status",
        "/server-status",
        "/config",
        "/.env",
        "/.git/config",
        "/healthz",
        "/actuator",
        "/console",
        "/introspect",
        "/key",
        "/records.sqlite",
        "/api",
    ] {
        for method in [Method::GET, Method::POST] {
            let request = with_all(client.call_at(path, &tokens), &[]);
            let (mut parts, body) = request.into_parts();
            parts.method = method;
            let answer = world
                .unchanged(world.http.send(Request::from_parts(parts, body)))
                .await;
            let _ = answer.expect(404);
        }
    }
    let _ = world.http.get("/health").await.expect(200);
    let _ = Http::to(world.proxy.metrics)
        .get("/metrics")
        .await
        .expect(200);
}

async fn magic_headers(world: Arc<World>) {
    const MAGIC: [(&str, &str); 12] = [
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "DELETE"),
        ("x-method-override", "DELETE"),
        ("x-original-url", "/metrics"),
        ("x-rewrite-url", "/metrics"),
        ("x-debug", "1"),
        ("x-override-auth", "1"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-prefix", "/evil"),
        ("x-internal", "1"),
        ("x-upstream-url", "http://evil.example/"),
    ];
    let (client, tokens) = world.connected().await;
    for path in [
        "/mcp",
        "/health",
        "/nothing",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource/mcp",
    ] {
        let plain = || {
            world
                .http
                .request(Method::GET, path)
                .body(Body::empty())
                .unwrap()
        };
        let expected = world.http.send(plain()).await;
        let answer = world
            .unchanged(world.http.send(with_all(plain(), &MAGIC)))
            .await;
        assert_eq!(
            (answer.status, &answer.body),
            (expected.status, &expected.body),
            "{path}"
        );
        let challenge = header::WWW_AUTHENTICATE;
        assert_eq!(
            answer.headers.get(&challenge),
            expected.headers.get(&challenge)
        );
    }
    let got = world.arrives(&client, &tokens, &MAGIC).await;
    assert_eq!((got.method(), got.uri().path()), (&Method::POST, "/mcp"));
    for (name, _) in MAGIC {
        assert!(!got.headers().contains_key(name), "{name}");
    }
    world.serves(&client, &tokens).await;
}

async fn ranges_and_caches(world: Arc<World>) {
    const CONDITIONS: [(&str, &str); 7] = [
        ("range", "bytes=0-1"),
        ("if-range", "\"x\""),
        ("if-match", "\"x\""),
        ("if-none-match", "*"),
        ("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT"),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("expect", "x"),
    ];
    let (client, tokens) = world.connected().await;
    for repeat in 0..2 {
        let encoding = [("accept-encoding", "gzip, br;q=0.5")];
        let got = world
            .arrives(
                &client,
                &tokens,
                &[&encoding[..], &CONDITIONS[..6]].concat(),
            )
            .await;
        for (name, _) in CONDITIONS {
            assert!(!got.headers().contains_key(name), "{name} {repeat}");
        }
        assert_eq!(got.headers()["accept-encoding"], "gzip, br;q=0.5");
    }
    // Nor is an answer kept for the next, whatever it says of itself.
    let body = "{\"first\":1}";
    world.upstream.answers(async move {
        let answer = http::Response::builder()
            .header("cache-control", "public, max-age=86400, immutable")
            .header("etag", "\"x\"")
            .header("age", "1");
        answer.body(Body::from(body)).unwrap()
    });
    let first = client.call(&tokens).await.expect(200);
    assert_eq!(first.text(), body);
    assert_eq!(first.header("cache-control"), "no-store, no-transform");
    assert!(!first.headers.contains_key("etag"));
    world.serves(&client, &tokens).await;
}
