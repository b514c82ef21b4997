//! Headers that must not reach the upstream (N-RS-41, N-RS-42).

use std::sync::Arc;

use super::with;
use crate::{support::UPSTREAM_KEY, world::World};

pub async fn credentials(world: Arc<World>) {
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

pub async fn claims(world: Arc<World>) {
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
