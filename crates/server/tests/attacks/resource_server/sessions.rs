//! Sessions, streams and calls side by side (N-RS-36 to N-RS-40).

use std::{collections::HashSet, sync::Arc};

use axum::body::Body;
use http::{HeaderValue, Method};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{SOON, by, head, with, without_token};
use crate::{
    refusal::Refusal::JsonRpc,
    support::client::{Client, Tokens},
    world::World,
};

pub async fn foreign_sessions(world: Arc<World>) {
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
            world.refused(by(method, request), &JsonRpc(404)).await;
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

pub async fn ends_foreign_session(world: Arc<World>) {
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
            .refused(end(&client, &tokens, session), &JsonRpc(404))
            .await;
    }
    let bare = without_token(end(&theirs, &their_tokens, foreign));
    world.challenges(bare, 401, "unauthorized").await;
    let got = world.passes(end(&theirs, &their_tokens, foreign)).await;
    assert_eq!(got.headers()["mcp-session-id"], "s-2");
}

pub async fn foreign_events(world: Arc<World>) {
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
        .refused(resume(Some(&foreign), "2025-11-25"), &JsonRpc(404))
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

pub async fn same_id(world: Arc<World>) {
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

pub async fn slow_reader(world: Arc<World>) {
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
