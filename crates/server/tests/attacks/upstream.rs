//! An upstream that is hostile or broken (UP).

mod loops;
mod names;
mod slow;
mod tls;

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};

use super::{
    case::{Case, case},
    puppet::{Ending, Puppet},
    refusal::Refusal::JsonRpc,
    support::{
        UPSTREAM_KEY,
        client::{Answer, Client, Failed, Tokens},
        upstream::USUAL,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "N-UP-01",
            "the upstream demands a sign-in of its own",
            demands_sign_in,
        ),
        case("N-UP-02", "the upstream sets cookies", sets_cookies),
        case(
            "N-UP-03",
            "the upstream sends headers that browsers obey",
            commands_browsers,
        ),
        case("N-UP-04", "the upstream sends a page", sends_page),
        case("N-UP-05", "the upstream sends its key back", echoes_key),
        case(
            "N-UP-06",
            "answers that are none, and odd statuses",
            no_answer,
        ),
        case("N-UP-07", "the upstream redirects", redirects),
        case("N-UP-08", "an answer of nothing but headers", only_headers),
        case("N-UP-09", "an answer without an end", endless_body),
        case("N-UP-10", "events without an end", endless_events),
        case(
            "N-UP-11",
            "the upstream resets the connection at every point",
            resets,
        ),
        case("N-UP-12", "the upstream never answers", slow::never_answers),
        case("N-UP-13", "the upstream takes nothing", slow::never_reads),
        case(
            "N-UP-14",
            "the upstream answers one byte a second",
            slow::drips,
        ),
        case(
            "N-UP-15",
            "the upstream closes cleanly before its answer is whole",
            closes_early,
        ),
        case(
            "N-UP-16",
            "the upstream cannot prove who it is",
            tls::is_demanded,
        ),
        case(
            "N-UP-17",
            "the name of the upstream leads nowhere, elsewhere, or is slow to be found",
            names::trouble_passes,
        ),
        case(
            "N-UP-18",
            "the address of the upstream leads back to the proxy",
            loops::are_detected,
        ),
        case("N-UP-19", "an answer that is compressed", compressed),
    ]
}

/// What the upstream's own words begin with, none of which may arrive.
const EVIL: &str = "evil";

async fn demands_sign_in(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world.serves(&client, &tokens).await;
    let before = world.records().await;
    for status in [401, 403] {
        let challenge = "Bearer resource_metadata=\"https://evil.example/\"";
        let answer = Response::builder().status(status);
        let answer = answer.header("www-authenticate", challenge);
        world
            .upstream
            .answers(async { answer.body(Body::from(EVIL)).unwrap() });
        let answer = client.call(&tokens).await;
        JsonRpc(502).check(&answer, &world.issuer);
        assert!(!answer.headers.contains_key("www-authenticate"));
        assert!(!answer.text().contains(EVIL));
    }
    assert_eq!(world.records().await, before);
    world.serves(&client, &tokens).await;
}

/// What comes of a call that the upstream answers with these headers and this content.
async fn answered_with(
    world: &World,
    headers: &[(&'static str, &'static str)],
    content: &'static [u8],
) -> Answer {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let mut response = Response::builder();
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let response = response.body(Body::from(content)).unwrap();
    world.upstream.answers(async { response });
    let answer = client.call(&tokens).await;
    world.serves(&client, &tokens).await;
    answer
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// Insists that none of these headers arrives, and all of the rest does.
async fn are_removed(world: &World, headers: &[(&'static str, &'static str)]) {
    let with_type = [&[JSON], headers].concat();
    let answer = answered_with(world, &with_type, USUAL.as_bytes()).await;
    let answer = answer.expect(200);
    assert_eq!(answer.text(), USUAL);
    assert_eq!(answer.header(JSON.0), JSON.1);
    for (name, _) in headers {
        assert!(!answer.headers.contains_key(*name), "{name}: {answer:#?}");
    }
}

async fn sets_cookies(world: Arc<World>) {
    let cookies = [
        ("set-cookie", "__Host-consent=x; Path=/; Secure"),
        ("set-cookie", "x=y; Domain=127.0.0.1"),
        ("set-cookie2", "x=y"),
    ];
    are_removed(&world, &cookies).await;
}

async fn commands_browsers(world: Arc<World>) {
    let commands = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "*"),
        ("clear-site-data", "\"*\""),
        ("strict-transport-security", "max-age=63072000"),
        ("alt-svc", "h3=\"evil.example:443\""),
        ("refresh", "0; url=https://evil.example/"),
        ("link", "<https://evil.example/>; rel=preload"),
        ("service-worker-allowed", "/"),
        ("location", "https://evil.example/"),
        ("www-authenticate", "Basic"),
        ("public-key-pins", "x"),
        ("nel", "{}"),
    ];
    are_removed(&world, &commands).await;
}

async fn sends_page(world: Arc<World>) {
    let script = b"<script>alert(1)</script>";
    // A page for people is no answer at all.
    let page = answered_with(&world, &[("content-type", "text/html")], script).await;
    JsonRpc(502).check(&page, &world.issuer);
    assert!(!page.text().contains("alert"));
    for kind in ["image/svg+xml", "text/xml", "application/json, text/html"] {
        let headers = [
            ("content-type", kind),
            ("content-security-policy", "default-src *"),
        ];
        let answer = answered_with(&world, &headers, script).await;
        let policies = answer.headers.get_all("content-security-policy");
        let policies: Vec<_> = policies.iter().collect();
        assert_eq!(policies, ["default-src 'none'; sandbox"], "{kind}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

/// The client gets the bytes as they are; nobody else gets the key.
async fn echoes_key(world: Arc<World>) {
    let echo: &str = UPSTREAM_KEY;
    let headers = [JSON, ("x-echo", echo), ("authorization", echo)];
    let answer = answered_with(&world, &headers, echo.as_bytes()).await;
    assert_eq!(answer.text(), echo);
    for name in ["x-echo", "authorization"] {
        assert!(!answer.headers.contains_key(name), "{answer:#?}");
    }
    let client = world.client().await;
    let tokens = client.sign_in().await;
    for status in [302, 401, 500, 600] {
        let refusal = Response::builder().status(status);
        let refusal = refusal.header("location", echo);
        let refusal = refusal.header("www-authenticate", echo);
        let refusal = refusal.body(Body::from(echo)).unwrap();
        world.upstream.answers(async { refusal });
        let answer = client.call(&tokens).await;
        assert!(answer.status.is_server_error(), "{answer:#?}");
        assert!(!format!("{answer:?}").contains(echo), "{answer:#?}");
    }
    assert_eq!(world.leaks().await, Vec::<String>::new());
    world.serves(&client, &tokens).await;
}

/// A world with a puppet for its second upstream, and a client that is signed in there.
struct Stage {
    world: World,
    puppet: Puppet,
    client: Client,
    tokens: Tokens,
}

impl Stage {
    /// With these lines on top of the configuration.
    async fn set(world: &World, lines: &str) -> Self {
        let puppet = Puppet::start().await;
        let lines = format!(
            "{lines}\n\
             upstream.puppet.url = \"http://{}/mcp\"\n\
             upstream.puppet.credential = {{ header = \"X-API-Key\", value = \"wsk-of-the-puppet\" }}",
            puppet.address,
        );
        let world = world.another(&lines).await;
        let client = world.client().await;
        let resource = format!("{}/mcp/puppet", world.issuer);
        let authorization = client.authorization().with("resource", &resource);
        let tokens = client.sign_in_with(&authorization).await;
        let stage = Self {
            world,
            puppet,
            client,
            tokens,
        };
        // The first call with a token leaves a note of it in the grant.
        stage.serves().await;
        stage
    }

    fn call(&self) -> Request<Body> {
        let mut call = self.client.call_request(&self.tokens);
        *call.uri_mut() = "/mcp/puppet".parse().unwrap();
        call
    }

    /// What comes of a call that is answered with these bytes.
    async fn call_answered(
        &self,
        bytes: impl Into<Vec<u8>>,
        ending: Ending,
    ) -> Result<Answer, Failed> {
        self.puppet.plays(bytes, ending);
        let call = self.client.http.try_send(self.call());
        self.world.unchanged(call).await
    }

    /// Insists on a bad gateway that repeats nothing of the upstream's.
    async fn is_bad_gateway(&self, bytes: impl Into<Vec<u8>>, ending: Ending) {
        let bytes = bytes.into();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let answer = self.call_answered(bytes, ending).await;
        let answer = answer.unwrap_or_else(|error| panic!("{shown}: {error}"));
        JsonRpc(502).check(&answer, &self.world.issuer);
        assert!(!format!("{answer:?}").contains(EVIL), "{answer:#?}");
    }

    /// The twin: the same upstream, when it behaves.
    async fn serves(&self) {
        let answer = self.client.http.send(self.call()).await.expect(200);
        assert_eq!(answer.text(), USUAL);
    }
}

async fn no_answer(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    for bytes in [
        "",
        "evil\r\n\r\n",
        "<html>evil HTTP/0.9</html>",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 -20 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: </evil>\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: evil\r\n\r\nevil",
        "HTTP/1.1 999 Evil\r\nconnection: close\r\ncontent-length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\nx evil\r\n\r\n",
    ] {
        stage.is_bad_gateway(bytes, Ending::Close).await;
    }
    // These have no content, whatever follows them.
    for status in [204, 304] {
        let bytes = format!("HTTP/1.1 {status} X\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil");
        let answer = stage.call_answered(bytes, Ending::Close).await;
        let answer = answer.unwrap().expect(status);
        assert!(answer.body.is_empty(), "{answer:#?}");
        // Nor does it become the answer to another call, which may find the connection closing.
        let other = stage.client.http.send(stage.call()).await;
        assert!(matches!(other.status.as_u16(), 200 | 502), "{other:#?}");
        assert!(!format!("{other:?}").contains(EVIL), "{other:#?}");
    }
    let bare = stage.call_answered("HTTP/1.1 200 OK\r\n\r\n", Ending::Close);
    let bare = bare.await.unwrap().expect(200);
    assert!(bare.body.is_empty(), "{bare:#?}");
    stage.serves().await;
}

async fn redirects(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    let decoy = stage.world.decoy.address;
    let to_decoy = format!("http://{decoy}/evil");
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for location in [
            &*to_decoy,
            &format!("https://{decoy}/evil"),
            &format!("//{decoy}/evil"),
            &format!("{}/evil", stage.world.issuer),
            "http://169.254.169.254/evil",
            "/evil",
        ] {
            let is_kept_here = location == "/evil" && status >= 307;
            if is_kept_here {
                continue;
            }
            let played = stage.puppet.played();
            let bytes = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\nlocation: {location}\r\n\
                 content-length: 4\r\n\r\nevil"
            );
            stage.is_bad_gateway(bytes, Ending::Close).await;
            assert_eq!(stage.puppet.played(), played + 1, "{location}");
        }
    }
    // Within its own origin, and with method and body, it is followed once.
    for status in [307, 308] {
        let played = stage.puppet.played();
        let bytes = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\nlocation: /evil\r\n\
             content-length: 4\r\n\r\nevil"
        );
        stage.puppet.plays(bytes, Ending::Close);
        let _ = stage.client.http.send(stage.call()).await.expect(200);
        assert_eq!(stage.puppet.played(), played + 2);
    }
    stage.serves().await;
}

async fn only_headers(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    let begun = "HTTP/1.1 200 OK\r\n";
    let many = format!("{begun}{}\r\n", "x: evil\r\n".repeat(10_000));
    stage.is_bad_gateway(many, Ending::Close).await;
    let before = stage.world.proxy.resident_kib();
    for line in ["x: evil\r\n".repeat(1000), "evil".repeat(4096)] {
        let flood = Ending::Flood(line.into_bytes());
        stage.is_bad_gateway(format!("{begun}x: y"), flood).await;
    }
    let grown = stage.world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    stage.serves().await;
}

/// A client that stops reading holds up the upstream and fills no memory; when it leaves, the
/// upstream is let go.
async fn is_held_up(stage: &Stage, kind: &str, chunk: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n");
    stage.puppet.plays(head, Ending::Flood(chunk.to_vec()));
    let before = stage.world.proxy.resident_kib();
    let answer = stage.client.http.open(stage.call()).await.unwrap();
    assert_eq!(answer.status(), 200);
    stage.puppet.is_held_up().await;
    let grown = stage.world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{kind}: {grown} KiB more");
    // The twin: others are served all the while.
    stage.serves().await;
    drop(answer);
    stage.puppet.is_let_go().await;
}

async fn endless_body(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    is_held_up(&stage, "application/json", &[b' '; 16 * 1024]).await;
    is_held_up(&stage, "text/plain", &[b'x'; 16 * 1024]).await;
}

async fn endless_events(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    let (tiny, line) = ("data: x\n\n".repeat(1000), "x".repeat(16 * 1024));
    is_held_up(&stage, "text/event-stream", tiny.as_bytes()).await;
    // One event, in which no line ever ends.
    is_held_up(&stage, "text/event-stream", line.as_bytes()).await;
}

const HALF_A_BODY: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
     content-length: 100000\r\n\r\n{\"jsonrpc\":";
const HALF_AN_EVENT: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
     transfer-encoding: chunked\r\n\r\n12\r\ndata: one\n\ndata: t";
const NO_LAST_CHUNK: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
     transfer-encoding: chunked\r\n\r\nb\r\ndata: one\n\n\r\n";

async fn resets(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    for bytes in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\ncontent-ty"] {
        stage.is_bad_gateway(bytes, Ending::Reset).await;
    }
    for bytes in [HALF_A_BODY, HALF_AN_EVENT, NO_LAST_CHUNK] {
        let answer = stage.call_answered(bytes, Ending::Reset).await;
        assert!(answer.is_err(), "{bytes:?}: {answer:#?}");
    }
    stage.serves().await;
}

async fn closes_early(world: Arc<World>) {
    let stage = Stage::set(&world, "").await;
    for bytes in [HALF_A_BODY, HALF_AN_EVENT, NO_LAST_CHUNK] {
        let answer = stage.call_answered(bytes, Ending::Close).await;
        assert!(answer.is_err(), "{bytes:?}: {answer:#?}");
    }
    let whole = HALF_A_BODY.replace("100000", "11\r\nconnection: close");
    let answer = stage.call_answered(whole, Ending::Close).await;
    assert_eq!(answer.unwrap().expect(200).text(), "{\"jsonrpc\":");
    stage.serves().await;
}

async fn compressed(world: Arc<World>) {
    // Also what is no gzip at all: it is not looked at.
    for content in [
        &b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"[..],
        b"evil",
    ] {
        let headers = [
            JSON,
            ("content-encoding", "gzip"),
            ("vary", "Accept-Encoding"),
        ];
        let answer = answered_with(&world, &headers, content).await.expect(200);
        assert_eq!(&answer.body[..], content);
        for (name, value) in headers {
            assert_eq!(answer.header(name), value);
        }
    }
}
