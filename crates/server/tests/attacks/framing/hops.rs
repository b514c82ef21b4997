//! What is for one hop, and requests behind requests (N-HD-16 to N-HD-19).

use std::sync::Arc;

use super::with_all;
use crate::{support::UPSTREAM_KEY, world::World};

pub async fn strips_credential(world: Arc<World>) {
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

pub async fn strips_framing(world: Arc<World>) {
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

pub async fn upgrades(world: Arc<World>) {
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

pub async fn unread_bodies(world: Arc<World>) {
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
