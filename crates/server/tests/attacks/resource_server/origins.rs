//! Pages and names that are not ours (N-RS-15 to N-RS-18).

use std::sync::Arc;

use http::{HeaderName, Method};

use super::{by, head, with, without_token};
use crate::{
    refusal::Refusal::{OAuth, Page},
    support::{PASSPHRASE, wire::Wire},
    world::World,
};

pub async fn foreign_origins(world: Arc<World>) {
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
    at_a_public_address(&world).await;
}

/// There the token decides, which no browser adds by itself: a page that has none gets the challenge,
/// and nothing that a browser does add stands in for it.
async fn at_a_public_address(world: &World) {
    let public = world.another("public_url = \"https://gw.example\"").await;
    let client = public.client().await;
    let authorization = client.authorization();
    let authorization = authorization.with("resource", "https://gw.example/mcp");
    let tokens = client.sign_in_with(&authorization).await;
    public.passes(client.call_request(&tokens)).await;
    for origin in ["https://evil.example", "null", "chrome-extension://x"] {
        let from_page = |request| with(request, "origin", origin);
        let cookie = format!("access_token={}", tokens.access_token);
        for (request, error) in [
            (without_token(client.call_request(&tokens)), "unauthorized"),
            (public.call_saying("Bearer x"), "invalid_token"),
            (public.call_saying("Basic eDp5"), "invalid_token"),
            (
                with(
                    without_token(client.call_request(&tokens)),
                    "cookie",
                    &cookie,
                ),
                "unauthorized",
            ),
        ] {
            let refusal = OAuth(401, error);
            let answer = public.refusal_of(from_page(request), &refusal).await;
            assert!(answer.headers.contains_key("www-authenticate"));
            let credentials = "access-control-allow-credentials";
            assert!(!answer.headers.contains_key(credentials));
        }
        // Where a person decides, a foreign page does not. What has no origin may be our own page,
        // which has no referrer; there the cookie decides.
        if origin != "null" {
            let page = client.opens_consent_with(&authorization).await;
            let form = from_page(page.answer(&public.http, PASSPHRASE, "approve"));
            public.refused(form, &Page(403)).await;
        }

        public.passes(from_page(client.call_request(&tokens))).await;
    }
}

pub async fn foreign_hosts(world: Arc<World>) {
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
pub async fn foreign_authority(world: Arc<World>) {
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

pub async fn rebinding(world: Arc<World>) {
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
