//! Event streams end with the grant that opened them.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::time::Duration;

use axum::body::Body;
use http::{Response, header};
use http_body_util::BodyExt;
use support::{
    HOME, ISSUER, TestServer,
    client::{McpClient, Tokens},
    in_time, policy,
};

/// A stream that the upstream never ends by itself.
async fn open_stream(client: &McpClient, tokens: &Tokens) -> Body {
    let server = &client.server;
    server.upstream.answers(
        Response::builder()
            .header(header::CONTENT_TYPE, "text/event-stream")
            .body(Body::from_stream(futures_util::stream::pending::<
                Result<bytes::Bytes, std::io::Error>,
            >()))
            .unwrap(),
    );
    let answer = in_time(server.front.answer(client.call_request(tokens), HOME)).await;
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

/// Whether the stream ends, cleanly, without waiting for anything.
async fn has_ended(stream: &mut Body) -> bool {
    tokio::select! {
        biased;
        frame = stream.frame() => frame.is_none(),
        () = tokio::task::yield_now() => false,
    }
}

/// RV-04, N-RV-10, N-RS-14
#[tokio::test]
async fn a_revocation_ends_the_streams_of_its_grant_and_no_others() {
    let server = TestServer::new();
    let (client, other) = (server.mcp_client().await, server.mcp_client().await);
    let (tokens, others) = (client.sign_in().await, other.sign_in().await);
    let mut first = open_stream(&client, &tokens).await;
    let mut second = open_stream(&client, &tokens).await;
    let mut foreign = open_stream(&other, &others).await;
    assert!(!has_ended(&mut first).await);

    // One that somebody waits for is woken.
    let revocation = client.revoke(&tokens.refresh_token);
    let (end, revoked) = in_time(async { tokio::join!(first.frame(), revocation) }).await;
    assert!(end.is_none());
    let _ = revoked.expect(200);
    assert!(has_ended(&mut second).await);
    assert!(!has_ended(&mut foreign).await);
}

/// RV-04
#[tokio::test]
async fn a_grant_that_expires_ends_its_streams() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut stream = open_stream(&client, &client.sign_in().await).await;
    server.clock.advance(Duration::from_hours(24 * 29));
    server.app.end_streams_of_ended_grants().await;
    assert!(!has_ended(&mut stream).await);
    server.clock.advance(Duration::from_hours(24));
    server.app.end_streams_of_ended_grants().await;
    assert!(has_ended(&mut stream).await);
}

/// RV-04: within five seconds, on whatever process the stream is.
#[tokio::test]
async fn a_revocation_on_another_process_ends_the_streams_here() {
    let shared = || {
        let mut policy = policy(&[("one", "/mcp")]);
        policy.grant_freshness = Some(Duration::from_secs(3));
        policy
    };
    let here = TestServer::with(shared());
    let there = here.another(shared());
    let client = here.mcp_client().await;
    assert_eq!(client.resource(), format!("{ISSUER}/mcp"));
    let tokens = client.sign_in().await;
    let mut stream = open_stream(&client, &tokens).await;

    let _ = client
        .on(&there)
        .revoke(&tokens.refresh_token)
        .await
        .expect(200);
    here.app.end_streams_of_ended_grants().await;
    assert!(
        !has_ended(&mut stream).await,
        "what was just read is believed"
    );
    here.clock.advance(Duration::from_secs(3));
    here.store.set_down(true);
    here.app.end_streams_of_ended_grants().await;
    assert!(
        !has_ended(&mut stream).await,
        "a store in trouble ends nothing"
    );
    here.store.set_down(false);
    here.app.end_streams_of_ended_grants().await;
    assert!(has_ended(&mut stream).await);
}
