//! What a head may hold (N-HD-11 to N-HD-15).

use std::sync::Arc;

use crate::{
    refusal::Refusal::{Bare, OAuth},
    world::World,
};

pub async fn large_heads(world: Arc<World>) {
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

pub async fn long_line(world: Arc<World>) {
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

pub async fn no_host(world: Arc<World>) {
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

pub async fn two_hosts(world: Arc<World>) {
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

pub async fn underscores(world: Arc<World>) {
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
