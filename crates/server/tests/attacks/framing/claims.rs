//! What a client says of itself, or wants a server to do (N-HD-24 to N-HD-28).

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, header};

use super::with_all;
use crate::{
    support::{
        PASSPHRASE,
        client::{Client, Http},
    },
    world::World,
};

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

pub async fn claimed_addresses(world: Arc<World>) {
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

pub async fn proxy_protocol(world: Arc<World>) {
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

pub async fn internal_paths(world: Arc<World>) {
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

pub async fn magic_headers(world: Arc<World>) {
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

pub async fn ranges_and_caches(world: Arc<World>) {
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
