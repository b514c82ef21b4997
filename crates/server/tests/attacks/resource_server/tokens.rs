//! Tokens that are not good, or not good here (N-RS-01 to N-RS-14).

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{SOON, by, with, without_token};
use crate::{
    case::Missing,
    refusal::Refusal::OAuth,
    support::{
        UPSTREAM_KEY,
        client::{Client, Tokens},
        wire::Wire,
    },
    world::World,
};

pub type Texts = &'static [&'static str];

/// `{}` is a good token.
#[rustfmt::skip]
pub const AUTHORIZATIONS: &[(&str, &str, Texts)] = &[
    ("N-RS-01", "no `Authorization` at all", &[]),
    ("N-RS-02", "an `Authorization` with nothing in it", &["", "Bearer", "Bearer "]),
    ("N-RS-03", "another scheme", &["Basic {}", "Basic eDp5", "Digest {}", "DPoP {}", "BearerX {}", "Token {}", "{}"]),
    ("N-RS-06", "two tokens in one header", &["Bearer {}, Bearer {}", "Bearer {},Bearer x", "Bearer x, Bearer {}", "Bearer {},", "Basic eDp5, Bearer {}", "Bearer {} {}"]),
    ("N-RS-07", "tabs and blanks where one blank belongs", &["Bearer\t{}", "Bearer  {}", "Bearer \t{}", "Bearer\u{a0}{}", "Bearer{}", "Bearer:{}", "Bearer={}"]),
    ("N-RS-08", "a token that is no ASCII", &["Bearer é{}", "Bearer {}é", "Bearer {}\u{200b}", "Ｂearer {}", "Bearer ｍopa"]),
];

pub async fn wrong_authorization(world: Arc<World>, wrong: Texts) {
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

pub async fn any_case(world: Arc<World>) {
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

pub async fn two_headers(world: Arc<World>) {
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

pub async fn spellings(world: Arc<World>) {
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

pub async fn elsewhere(world: Arc<World>) {
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

pub async fn other_route(world: Arc<World>) {
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

pub async fn alike_paths(world: Arc<World>) {
    let (world, second) = world.with_two_upstreams().await;
    let (client, tokens) = world.connected_at("/mcp/one").await;
    for path in ["/mcp/ones", "/mcp/ones/"] {
        let request = client.call_at(path, &tokens);
        world.challenges(request, 401, "invalid_token").await;
    }
    for path in [
        "/mcp/on",
        "/mcp/onesx",
        "/mcp/one%73",
        "/mcp/one/s",
        "/mcp/ones/one",
        "/mcp",
        "/mcp/",
        "/",
    ] {
        let request = client.call_at(path, &tokens);
        for request in [without_token(client.call_at(path, &tokens)), request] {
            let answer = world.unchanged(world.http.send(request)).await.expect(404);
            // No challenge, since no token leads to anything there.
            assert!(!answer.headers.contains_key("www-authenticate"));
        }
    }
    assert_eq!(second.begun(), 0);
    world.passes(client.call_at("/mcp/one", &tokens)).await;
}

/// What counts is the moment at which the request arrived: within a session, where the body passes
/// as it comes, and outside one, where it is read first.
pub async fn expires_on_the_way(world: Arc<World>) -> Result<(), Missing> {
    let (world, time) = world.with_a_clock().await?;
    let (client, tokens) = world.connected().await;
    let (host, token) = (world.proxy.address, &tokens.access_token);
    let session = world.starts_session(&client, &tokens, "s-1").await;
    let session = session.to_str().unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         content-length: 4\r\nexpect: 100-continue\r\n"
    );
    let before = world.upstream.begun();
    let mut outside = Wire::open(&world.http).await;
    outside.send(format!("{head}\r\n")).await;
    outside.body_is_asked_for().await;
    let mut wire = Wire::open(&world.http).await;
    wire.send(format!("{head}mcp-session-id: {session}\r\n\r\n"))
        .await;
    wire.body_is_asked_for().await;
    wire.send("{").await;
    timeout(SOON, async {
        while world.upstream.begun() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    time.is_off_by(3_601);
    for (wire, rest) in [(&mut wire, "  }"), (&mut outside, "{  }")] {
        wire.send(rest).await;
        let _ = wire.answer().await.unwrap().expect(200);
        assert_eq!(world.upstream.last().body(), "{  }");
    }
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

pub async fn revoked_on_the_way(world: Arc<World>) {
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
