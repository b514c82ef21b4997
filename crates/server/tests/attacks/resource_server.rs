//! The MCP endpoint (RS).

use std::{
    collections::HashSet,
    convert::Infallible,
    io::Write,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    case::{Case, Missing, case},
    refusal::Refusal::OAuth,
    support::{
        UPSTREAM_KEY,
        client::{Client, Tokens},
        upstream::usual,
        wire::Wire,
    },
    world::World,
};

/// How soon what happens elsewhere must be noticed here.
const SOON: Duration = Duration::from_secs(5);

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-RS-04", "the scheme in another case, which is allowed", any_case),
        case("N-RS-05", "two `Authorization` headers", two_headers),
        case("N-RS-09", "every spelling of a guarded path, without a token", spellings),
        case("N-RS-10", "the token in the query, the body or a cookie", elsewhere),
        case("N-RS-11", "a token for one MCP server at another", other_route),
        case("N-RS-12", "MCP servers whose paths begin alike", alike_paths),
        case("N-RS-13", "a token that expires while the body is on its way", expires_on_the_way),
        case("N-RS-14", "a token that is revoked while its stream is open", revoked_on_the_way),
        case("N-RS-15", "pages of other origins", foreign_origins),
        case("N-RS-16", "another `Host`, none, and two", foreign_hosts),
        case("N-RS-17", "another host in the request line", foreign_authority),
        case("N-RS-18", "DNS rebinding: a page whose name leads here", rebinding),
        case("N-RS-19", "methods that no MCP server has", odd_methods),
        case("N-RS-20", "GET where the upstream has no streams", no_streams),
        case("N-RS-22", "a body beyond the limit, declared and not", too_large),
        case("N-RS-36", "a session that is foreign, guessed, enormous or broken", foreign_sessions),
        case("N-RS-37", "ending a session of somebody else", ends_foreign_session),
        case("N-RS-38", "going on with somebody else's stream", foreign_events),
        case("N-RS-39", "a thousand calls with the same JSON-RPC id at once", same_id),
        case("N-RS-40", "a reader that takes nothing of its stream", slow_reader),
        case("N-RS-41", "credentials of the client, to see them reach the upstream", credentials),
        case("N-RS-24", "bodies that are no JSON, nest 10,000 deep or have a million keys", passes_unparsed),
        case("N-RS-42", "cookies, keys and addresses that a client claims", claims),
    ];
    cases.extend(
        AUTHORIZATIONS
            .iter()
            .map(|(id, tried, wrong)| case(id, tried, |world| wrong_authorization(world, wrong))),
    );
    cases.extend(
        BODIES
            .iter()
            .map(|(id, tried, bodies)| case(id, tried, |world| passes_as_it_is(world, bodies))),
    );
    cases.extend(
        HEADERS
            .iter()
            .map(|(id, tried, headers)| case(id, tried, |world| headers_pass(world, headers))),
    );
    cases
}

type Texts = &'static [&'static str];
/// Id, what is tried, and bodies.
type Bodies = (&'static str, &'static str, &'static [fn() -> Vec<u8>]);
/// Id, what is tried, and headers, each in a call of its own.
type Headers = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// `{}` is a good token.
#[rustfmt::skip]
const AUTHORIZATIONS: &[(&str, &str, Texts)] = &[
    ("N-RS-01", "no `Authorization` at all", &[]),
    ("N-RS-02", "an `Authorization` with nothing in it", &["", "Bearer", "Bearer "]),
    ("N-RS-03", "another scheme", &["Basic {}", "Basic eDp5", "Digest {}", "DPoP {}", "BearerX {}", "Token {}", "{}"]),
    ("N-RS-06", "two tokens in one header", &["Bearer {}, Bearer {}", "Bearer {},Bearer x", "Bearer x, Bearer {}", "Bearer {},", "Basic eDp5, Bearer {}", "Bearer {} {}"]),
    ("N-RS-07", "tabs and blanks where one blank belongs", &["Bearer\t{}", "Bearer  {}", "Bearer \t{}", "Bearer\u{a0}{}", "Bearer{}", "Bearer:{}", "Bearer={}"]),
    ("N-RS-08", "a token that is no ASCII", &["Bearer é{}", "Bearer {}é", "Bearer {}\u{200b}", "Ｂearer {}", "Bearer ｍopa"]),
];

/// What goes to the upstream as it came: nothing here reads a body, so nothing can be read in two ways.
#[rustfmt::skip]
const BODIES: &[Bodies] = &[
    ("N-RS-21", "an empty body", &[Vec::new]),
    ("N-RS-23", "a body that says it is compressed, and would not open", &[|| b"\x1f\x8b\x08 and no more".into(), || vec![0x1f, 0x8b]]),
    ("N-RS-28", "several messages in one body", &[|| br#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"},{"jsonrpc":"2.0","id":2,"method":"tools/call"}]"#.into(), || b"[]".into()]),
    ("N-RS-29", "a body that is an answer", &[|| br#"{"jsonrpc":"2.0","id":1,"result":{"x":1}}"#.into(), || br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#.into()]),
    ("N-RS-30", "JSON with a key twice", &[|| br#"{"method":"ping","method":"tools/call","params":{"name":"a","name":"b"}}"#.into()]),
    ("N-RS-31", "JSON with keys in another case", &[|| br#"{"Method":"tools/call","METHOD":"ping","Params":{"Name":"a"}}"#.into()]),
    ("N-RS-32", "JSON with escapes in keys", &[|| br#"{"\u006dethod":"tools/call","params":{"\u006eame":"a"}}"#.into()]),
    ("N-RS-33", "JSON with BOM, NUL, comments, commas too many or in UTF-16", &[|| b"\xef\xbb\xbf{}".into(), || b"{}\0".into(), || b"{/* x */}//".into(), || b"{\"a\":1,}".into(), || b"\xff\xfe{\0}\0".into()]),
    ("N-RS-34", "two JSON texts in one body", &[|| b"{} {}".into(), || b"{\"method\":\"ping\"}\n{\"method\":\"tools/call\"}".into()]),
];

/// Headers that speak of the body, for the upstream to compare.
#[rustfmt::skip]
const HEADERS: &[Headers] = &[
    ("N-RS-25", "`Mcp-Method` and `Mcp-Name` that say something else than the body", &[("mcp-method", "tools/call"), ("mcp-name", "harmless")]),
    ("N-RS-26", "`Mcp-Name` in base64, well-formed or not", &[("mcp-name", "=?base64?4pyT?="), ("mcp-name", "=?base64?!?="), ("mcp-name", "=?base64??="), ("mcp-name", "=?BASE64?4pyT?=")]),
    ("N-RS-27", "a protocol version that nobody knows", &[("mcp-protocol-version", "1999-01-01"), ("mcp-protocol-version", "9999-99-99"), ("mcp-protocol-version", "latest"), ("mcp-protocol-version", "2025-06-18;x")]),
];

const HARD_TO_PARSE: &[fn() -> Vec<u8>] = &[
    || b"<xml/>".into(),
    || b"{".into(),
    || "[".repeat(10_000).into(),
];

async fn passes_unparsed(world: Arc<World>) {
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

impl World {
    /// The request is refused for want of a good token, with a challenge that says so.
    async fn challenges(&self, request: Request<Body>, status: u16, error: &'static str) {
        let answer = self.refusal_of(request, &OAuth(status, error)).await;
        let challenge = answer.header("www-authenticate");
        let metadata = format!("resource_metadata=\"{}/.well-known/", self.issuer);
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        assert!(challenge.contains(&metadata), "{challenge}");
        let says = challenge.contains("error=");
        assert_eq!(says, error != "unauthorized", "{challenge}");
    }

    /// The request arrives at the upstream; this is what arrived.
    async fn passes(&self, request: Request<Body>) -> Request<Bytes> {
        let before = self.upstream.begun();
        let _ = self.http.send(request).await.expect(200);
        assert_eq!(self.upstream.begun(), before + 1);
        self.upstream.last()
    }

    /// The session that this client is given when the upstream starts one called `id`.
    async fn starts_session(
        &self,
        client: &Client,
        tokens: &Tokens,
        id: &'static str,
    ) -> HeaderValue {
        let mut started = usual();
        let value = HeaderValue::from_static(id);
        started.headers_mut().insert("mcp-session-id", value);
        self.upstream.answers(async { started });
        let answer = client.call(tokens).await.expect(200);
        answer.headers["mcp-session-id"].clone()
    }

    /// Status of what these bytes are answered with; nothing comes of them.
    pub async fn status_of(&self, bytes: impl AsRef<[u8]>) -> u16 {
        let attempt = async {
            let mut wire = Wire::open(&self.http).await;
            wire.send(bytes).await;
            wire.answer().await.unwrap().status.as_u16()
        };
        self.unchanged(attempt).await
    }
}

/// The request with this header on top.
fn with(mut request: Request<Body>, name: &str, value: &str) -> Request<Body> {
    let name: HeaderName = name.parse().unwrap();
    let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
    request.headers_mut().append(name, value);
    request
}

/// The request as one of this method.
fn by(method: Method, mut request: Request<Body>) -> Request<Body> {
    *request.method_mut() = method;
    request
}

/// The request without its token.
fn without_token(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove(header::AUTHORIZATION);
    request
}

async fn wrong_authorization(world: Arc<World>, wrong: Texts) {
    let (client, tokens) = world.connected().await;
    for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
        let bare = without_token(by(method, client.call_request(&tokens)));
        if wrong.is_empty() {
            world.challenges(bare, 401, "unauthorized").await;
            continue;
        }
        for text in wrong {
            let text = text.replace("{}", &tokens.access_token);
            let mut request = world.call_saying(&text);
            *request.method_mut() = bare.method().clone();
            world.challenges(request, 401, "invalid_token").await;
        }
    }
    world.serves(&client, &tokens).await;
}

async fn any_case(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let text = format!("{scheme} {}", tokens.access_token);
        let got = world.passes(world.call_saying(&text)).await;
        let key = format!("Bearer {UPSTREAM_KEY}");
        assert_eq!(got.headers()["authorization"], key);
        let wrong = world.call_saying(&format!("{scheme} x"));
        world.challenges(wrong, 401, "invalid_token").await;
    }
    world.serves(&client, &tokens).await;
}

async fn two_headers(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let good = format!("Bearer {}", tokens.access_token);
    for (first, second) in [
        (&*good, &*good),
        (&good, "Bearer x"),
        ("Bearer x", &good),
        (&good, ""),
        ("Basic eDp5", &good),
    ] {
        let twice = with(world.call_saying(first), "authorization", second);
        world.challenges(twice, 400, "invalid_request").await;
    }
    world.serves(&client, &tokens).await;
}

async fn spellings(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let (host, token) = (world.proxy.address, &tokens.access_token);
    for path in [
        "/mcp",
        "/mcp/",
        "//mcp",
        "/mcp//",
        "/./mcp",
        "/mcp/.",
        "/mcp/..",
        "/mcp/../mcp",
        "/x/../mcp",
        "/mcp%2e",
        "/%6dcp",
        "/mcp%2f",
        "/mcp/%2e%2e/x",
        "/%2e/mcp",
        "/mcp;x",
        "/mcp;x=/mcp",
        "/MCP",
        "/Mcp",
        "/mcp.css",
        "/mcp/style.css",
        "/mcp\0",
        "/mcp%00",
        "/mcp/%00",
        "/mcp?",
        "/mcp?x",
        "/mcp#",
        "/mcp#x",
        "/mcp/@evil.example",
        "/mcp/https://evil.example",
        "/mcp\\x",
        "\\mcp",
        "mcp",
        "/mcp%",
        "/mcp%zz",
        "/mcp/%c0%ae%c0%ae/x",
        "/mcp\u{fc}",
        "/mcp?x#y",
        "/mcp ",
        " /mcp",
    ] {
        for method in ["GET", "POST"] {
            let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
            let status = world.status_of(format!("{head}\r\n")).await;
            // 421: without a slash, it is the name of a host.
            assert!(
                matches!(status, 400 | 401 | 404 | 421),
                "{status} for {path:?}"
            );
            // With a token, too, only the path itself leads on.
            if matches!(path.split(['?', '#']).next(), Some("/mcp" | "/mcp/")) {
                assert_eq!(status, 401, "{path:?}");
                continue;
            }
            let bytes = format!("{head}authorization: Bearer {token}\r\n\r\n");
            let status = world.status_of(bytes).await;
            assert!(matches!(status, 400 | 404 | 421), "{status} for {path:?}");
        }
    }
    for path in ["/mcp", "/mcp/", "/mcp?x=/../y"] {
        world.passes(client.call_at(path, &tokens)).await;
    }
    world.serves(&client, &tokens).await;
}

async fn elsewhere(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let token = &tokens.access_token;
    let bare = || without_token(client.call_request(&tokens));
    for name in ["access_token", "access%5Ftoken", "token", "authorization"] {
        let mut request = bare();
        *request.uri_mut() = format!("/mcp?{name}={token}").parse().unwrap();
        world.challenges(request, 401, "unauthorized").await;
    }
    for (name, value) in [
        ("cookie", format!("access_token={token}")),
        ("cookie", format!("authorization=Bearer {token}")),
        ("proxy-authorization", format!("Bearer {token}")),
        ("x-authorization", format!("Bearer {token}")),
        ("authorization_", format!("Bearer {token}")),
        ("x-api-key", token.clone()),
    ] {
        let request = with(bare(), name, &value);
        world.challenges(request, 401, "unauthorized").await;
    }
    let mut form = bare();
    *form.body_mut() = Body::from(format!("access_token={token}"));
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    form.headers_mut().insert(header::CONTENT_TYPE, kind);
    world.challenges(form, 401, "unauthorized").await;
    // Nor beside the one that counts.
    let both = client.call_at(&format!("/mcp?access_token={token}"), &tokens);
    world.challenges(both, 400, "invalid_request").await;
    world.serves(&client, &tokens).await;
}

async fn other_route(world: Arc<World>) {
    let (world, second) = world.with_two_upstreams().await;
    let (one, of_one) = world.connected_at("/mcp/one").await;
    let (ones, of_ones) = world.connected_at("/mcp/ones").await;
    let before = second.begun();
    for (client, tokens, path) in [(&one, &of_one, "/mcp/ones"), (&ones, &of_ones, "/mcp/one")] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let request = by(method, client.call_at(path, tokens));
            world.challenges(request, 401, "invalid_token").await;
        }
    }
    assert_eq!(second.begun(), before);
    world.passes(one.call_at("/mcp/one", &of_one)).await;
    let _ = world
        .http
        .send(ones.call_at("/mcp/ones", &of_ones))
        .await
        .expect(200);
    assert_eq!(second.begun(), before + 1);
    // Nor does the key of the first go to the second, which has none.
    assert!(!second.last().headers().contains_key("authorization"));
}

async fn alike_paths(world: Arc<World>) {
    let (world, second) = world.with_two_upstreams().await;
    let (client, tokens) = world.connected_at("/mcp/one").await;
    for path in ["/mcp/ones", "/mcp/ones/", "/mcp/ones/one"] {
        let request = client.call_at(path, &tokens);
        world.challenges(request, 401, "invalid_token").await;
    }
    for path in [
        "/mcp/on",
        "/mcp/onesx",
        "/mcp/one%73",
        "/mcp/one/s",
        "/mcp",
        "/mcp/",
    ] {
        let request = client.call_at(path, &tokens);
        let answer = world.unchanged(world.http.send(request)).await;
        let _ = answer.expect(404);
    }
    assert_eq!(second.begun(), 0);
    world.passes(client.call_at("/mcp/one", &tokens)).await;
}

/// What counts is the moment at which the request arrived.
async fn expires_on_the_way(world: Arc<World>) -> Result<(), Missing> {
    let (world, time) = world.with_a_clock().await?;
    let (_, tokens) = world.connected().await;
    let (host, token) = (world.proxy.address, &tokens.access_token);
    let before = world.upstream.begun();
    let mut wire = Wire::open(&world.http).await;
    wire.send(format!(
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         content-length: 4\r\n\r\n{{"
    ))
    .await;
    timeout(SOON, async {
        while world.upstream.begun() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    time.is_off_by(3_601);
    wire.send("  }").await;
    let _ = wire.answer().await.unwrap().expect(200);
    assert_eq!(world.upstream.last().body(), "{  }");
    // The next on the same connection is too late.
    let late = async {
        wire.send(format!(
            "GET /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
        wire.answer().await.unwrap()
    };
    let late = world.unchanged(late).await;
    OAuth(401, "invalid_token").check(&late, &world.issuer);
    Ok(())
}

async fn revoked_on_the_way(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let (witness, witnessed) = world.connected().await;
    let open = async |client: &Client, tokens: &Tokens| {
        let events = world.upstream.streams();
        let request = by(Method::GET, client.call_request(tokens));
        let mut stream = world.http.open(request).await.unwrap();
        events.send("data: 1\n\n".into()).unwrap();
        let first = stream.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "data: 1\n\n");
        (events, stream)
    };
    let (events, mut stream) = open(&client, &tokens).await;
    let (others, mut other) = open(&witness, &witnessed).await;
    let _ = world
        .revoke(&client.revocation(&tokens.refresh_token))
        .await
        .expect(200);
    let end = timeout(SOON, stream.body_mut().frame()).await.unwrap();
    assert!(end.is_none_or(|end| end.is_err()));
    timeout(SOON, events.closed()).await.unwrap();
    world.turns_away(&tokens.access_token).await;
    others.send("data: 2\n\n".into()).unwrap();
    let second = other.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(second.into_data().unwrap(), "data: 2\n\n");
}

async fn foreign_origins(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let issuer = &world.issuer;
    for origin in [
        "https://evil.example",
        "null",
        "",
        "x",
        "file://",
        &issuer.to_uppercase(),
        &format!("{issuer}/"),
        &format!("{issuer}/mcp"),
        &format!("{issuer}.evil.example"),
        &format!("{issuer}, https://evil.example"),
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://LOCALHOST",
        "http://127.0.0.1.evil.example",
        "http://192.168.1.7",
        "chrome-extension://x",
        "http://é",
    ] {
        for request in [
            client.call_request(&tokens),
            by(Method::OPTIONS, without_token(client.call_request(&tokens))),
        ] {
            let request = with(request, "origin", origin);
            let request = with(request, "access-control-request-method", "POST");
            let answer = world.refusal_of(request, &OAuth(403, "forbidden")).await;
            let mut names = answer.headers.keys().map(HeaderName::as_str);
            assert!(!names.any(|name| name.starts_with("access-control-")));
        }
    }
    for origin in [&**issuer, "http://localhost:6274"] {
        world
            .passes(with(client.call_request(&tokens), "origin", origin))
            .await;
    }
}

/// The head of a call with a good token, whose `Host` lines are `hosts`.
fn head(hosts: &str, tokens: &Tokens) -> String {
    let token = &tokens.access_token;
    format!("GET /mcp HTTP/1.1\r\n{hosts}authorization: Bearer {token}\r\n\r\n")
}

async fn foreign_hosts(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let own = format!("host: {}\r\n", world.proxy.address);
    for (hosts, expected) in [
        ("host: evil.example\r\n", 421),
        ("host: 192.168.1.7\r\n", 421),
        ("host: 127.0.0.1.evil.example\r\n", 421),
        ("host: 127.0.0.1:80@evil.example\r\n", 421),
        ("host: localhost.\r\n", 421),
        ("host: [::ffff:7f00:1]\r\n", 421),
        ("host: \r\n", 421),
        ("", 400),
        (&own.repeat(2), 400),
        (&format!("{own}host: evil.example\r\n"), 400),
        (&format!("host: evil.example\r\n{own}"), 400),
    ] {
        let status = world.status_of(head(hosts, &tokens)).await;
        assert_eq!(status, expected, "{hosts:?}");
        // And of who would have to sign in first.
        let status = world
            .status_of(head(hosts, &tokens).replace("Bearer", ""))
            .await;
        assert_eq!(status, expected, "{hosts:?}");
    }
    world.serves(&client, &tokens).await;
}

/// With the whole URL in the request line, that is what is asked for (RFC 9112 §3.2.2).
async fn foreign_authority(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let host = world.proxy.address;
    let call = |target: &str| {
        let head = head(&format!("host: {host}\r\n"), &tokens);
        head.replacen("/mcp", target, 1)
    };
    for target in [
        "http://evil.example/mcp",
        "https://evil.example:8080/mcp",
        "http://evil.example:80/mcp?x",
        "http://x@evil.example/mcp",
    ] {
        let status = world.status_of(call(target)).await;
        assert!(matches!(status, 400 | 421), "{status} for {target}");
    }
    let mut wire = Wire::open(&world.http).await;
    wire.send(call(&format!("http://{host}/mcp"))).await;
    let _ = wire.answer().await.unwrap().expect(200);
    world.serves(&client, &tokens).await;
}

async fn rebinding(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let port = world.proxy.address.port();
    let own = world.proxy.address.to_string();
    for (host, origin, expected) in [
        (
            format!("evil.example:{port}"),
            Some(format!("http://evil.example:{port}")),
            421,
        ),
        (format!("evil.example:{port}"), None, 421),
        (
            format!("evil.example:{port}"),
            Some(world.issuer.clone()),
            421,
        ),
        (
            own.clone(),
            Some(format!("http://evil.example:{port}")),
            403,
        ),
    ] {
        for path in [
            "/mcp",
            "/",
            "/authorize",
            "/register",
            "/.well-known/oauth-authorization-server",
        ] {
            let origin = origin
                .as_ref()
                .map(|origin| format!("origin: {origin}\r\n"));
            // Discovery and registration are for pages of any origin; only the name must be ours.
            if expected == 403 && path != "/mcp" {
                continue;
            }
            let lines = format!("host: {host}\r\n{}", origin.unwrap_or_default());
            let head = head(&lines, &tokens).replacen("/mcp", path, 1);
            assert_eq!(world.status_of(head).await, expected, "{lines:?} {path}");
        }
    }
    world.serves(&client, &tokens).await;
}

async fn odd_methods(world: Arc<World>) {
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

async fn no_streams(world: Arc<World>) {
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

async fn too_large(world: Arc<World>) {
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
    world
        .refused(declared, &OAuth(413, "invalid_request"))
        .await;
    // Of what is not declared, the upstream may have a part, but not the whole.
    let before = world.upstream.received().len();
    let answer = world.http.send(call(LIMIT + 1, false)).await;
    OAuth(413, "invalid_request").check(&answer, &world.issuer);
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

async fn passes_as_it_is(world: Arc<World>, bodies: &'static [fn() -> Vec<u8>]) {
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

async fn headers_pass(world: Arc<World>, headers: &'static [(&'static str, &'static str)]) {
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
        world.refused(twice, &OAuth(400, "invalid_request")).await;
    }
    world.serves(&client, &tokens).await;
}

async fn foreign_sessions(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let (theirs, their_tokens) = world.connected().await;
    let mine = world.starts_session(&client, &tokens, "s-1").await;
    let foreign = world.starts_session(&theirs, &their_tokens, "s-2").await;
    let (mine, foreign) = (mine.to_str().unwrap(), foreign.to_str().unwrap());
    for session in [
        foreign,
        "s-1",
        "s-2",
        "",
        "1",
        "../s-1",
        &mine[1..],
        &mine[..mine.len() - 1],
        &format!("{mine}A"),
        &format!("{mine}, {foreign}"),
        &mine.to_uppercase(),
        &"A".repeat(10 * 1024),
        "é",
    ] {
        for method in [Method::POST, Method::GET] {
            let request = with(client.call_request(&tokens), "mcp-session-id", session);
            world
                .refused(by(method, request), &OAuth(404, "not_found"))
                .await;
        }
    }
    let good = head(&format!("host: {}\r\n", world.proxy.address), &tokens);
    for broken in ["\rx-y: z", "\0", "\r x", "\n\n"] {
        let line = format!("mcp-session-id: {mine}{broken}\r\nauthorization");
        let status = world
            .status_of(good.replacen("authorization", &line, 1))
            .await;
        assert!(matches!(status, 400 | 401), "{status} for {broken:?}");
    }
    let got = with(client.call_request(&tokens), "mcp-session-id", mine);
    assert_eq!(world.passes(got).await.headers()["mcp-session-id"], "s-1");
}

async fn ends_foreign_session(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let (theirs, their_tokens) = world.connected().await;
    let foreign = world.starts_session(&theirs, &their_tokens, "s-2").await;
    let foreign = foreign.to_str().unwrap();
    let end = |client: &Client, tokens: &Tokens, session: &str| {
        by(
            Method::DELETE,
            with(client.call_request(tokens), "mcp-session-id", session),
        )
    };
    for session in [foreign, "s-2"] {
        world
            .refused(end(&client, &tokens, session), &OAuth(404, "not_found"))
            .await;
    }
    let bare = without_token(end(&theirs, &their_tokens, foreign));
    world.challenges(bare, 401, "unauthorized").await;
    let got = world.passes(end(&theirs, &their_tokens, foreign)).await;
    assert_eq!(got.headers()["mcp-session-id"], "s-2");
}

async fn foreign_events(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let (theirs, their_tokens) = world.connected().await;
    let mine = world.starts_session(&client, &tokens, "s-1").await;
    let foreign = world.starts_session(&theirs, &their_tokens, "s-2").await;
    let resume = |session: Option<&HeaderValue>, version: &str| {
        let request = by(Method::GET, client.call_request(&tokens));
        let request = with(request, "last-event-id", "s-2:7");
        let mut request = with(request, "mcp-protocol-version", version);
        if let Some(session) = session {
            request
                .headers_mut()
                .insert("mcp-session-id", session.clone());
        }
        request
    };
    world
        .refused(
            resume(Some(&foreign), "2025-11-25"),
            &OAuth(404, "not_found"),
        )
        .await;
    // Without a session nothing says whose events they are, so nothing is gone on with.
    for version in ["2025-11-25", "2026-07-28"] {
        let got = world.passes(resume(None, version)).await;
        assert!(!got.headers().contains_key("last-event-id"));
    }
    let got = world.passes(resume(Some(&mine), "2025-11-25")).await;
    assert_eq!(got.headers()["last-event-id"], "s-2:7");
    assert_eq!(got.headers()["mcp-session-id"], "s-1");
}

async fn same_id(world: Arc<World>) {
    const CLIENTS: u32 = 10;
    const CALLS: u32 = 100;
    let world = world.another("upstream.demo.builtin = \"demo\"").await;
    let tasks = TaskTracker::new();
    let mut calling = Vec::new();
    for number in 0..CLIENTS {
        let client = world.client().await;
        let resource = format!("{}/mcp/demo", world.issuer);
        let authorization = client.authorization().with("resource", &resource);
        let tokens = client.sign_in_with(&authorization).await;
        for call in 0..CALLS {
            let wanted = number * CALLS + call;
            let message = json!({
                "jsonrpc": "2.0", "id": 0, "method": "tools/call",
                "params": {
                    "name": "calculate",
                    "arguments": { "operation": "add", "a": wanted, "b": 0 },
                },
            });
            let mut request = client.call_at("/mcp/demo", &tokens);
            *request.body_mut() = Body::from(message.to_string());
            let request = with(request, "mcp-protocol-version", "2025-11-25");
            let http = client.http.clone();
            calling.push(tasks.spawn(async move {
                let answer = http.send(request).await.expect(200).json();
                assert_eq!(answer["id"], 0);
                let result = &answer["result"]["structuredContent"]["result"];
                assert_eq!(result, wanted, "{answer}");
                wanted
            }));
        }
    }
    let mut answered = HashSet::new();
    for call in calling {
        answered.insert(call.await.unwrap());
    }
    assert_eq!(answered.len(), (CLIENTS * CALLS) as usize);
}

async fn slow_reader(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let events = world.upstream.streams();
    let request = by(Method::GET, client.call_request(&tokens));
    let stream = world.http.open(request).await.unwrap();
    let before = world.proxy.resident_kib();
    for _ in 0..512 {
        events.send(vec![b'x'; 128 * 1024].into()).unwrap();
    }
    for _ in 0..20 {
        let served = timeout(SOON, world.serves(&client, &tokens)).await;
        assert!(served.is_ok(), "one reader holds up the others");
    }
    // It waits upstream, not in here.
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more");
    drop(stream);
}

async fn credentials(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let token = &tokens.access_token;
    for (name, value) in [
        ("proxy-authorization", format!("Bearer {token}")),
        ("x-authorization", format!("Bearer {token}")),
        ("cookie", format!("token={token}")),
    ] {
        let got = world
            .passes(with(client.call_request(&tokens), name, &value))
            .await;
        let mut keys = got.headers().get_all("authorization").iter();
        assert_eq!(keys.next().unwrap(), &format!("Bearer {UPSTREAM_KEY}"));
        assert!(keys.next().is_none());
        let all = format!("{got:?}");
        assert!(!all.contains(token) && !all.contains(&tokens.refresh_token));
    }
    world.serves(&client, &tokens).await;
}

async fn claims(world: Arc<World>) {
    const CLAIMS: [&str; 22] = [
        "cookie",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-prefix",
        "forwarded",
        "via",
        "x-real-ip",
        "true-client-ip",
        "x-client-ip",
        "cf-connecting-ip",
        "cf-ray",
        "cf-access-jwt-assertion",
        "proxy-authorization",
        "proxy-authenticate",
        "x-api-key",
        "x-forwarded-user",
        "x-remote-user",
        "x-original-url",
        "x-rewrite-url",
        "referer",
        "from",
    ];
    let (client, tokens) = world.connected().await;
    let mut request = client.call_request(&tokens);
    for name in CLAIMS {
        request = with(request, name, "evil");
    }
    request = with(request, "mcp-param-kept", "1");
    let got = world.passes(request).await;
    for name in CLAIMS {
        assert!(!got.headers().contains_key(name), "{name}");
    }
    assert!(!format!("{got:?}").contains("evil"));
    assert_eq!(got.headers()["mcp-param-kept"], "1");
}
