//! Upstreams that take their time, or all of it (N-UP-12, N-UP-13, N-UP-14).

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::Stage;
use crate::{puppet::Ending, refusal::Refusal::JsonRpc, support::client::Answer, world::World};

/// A second for the head of an answer, which is the shortest that can be configured.
const HEAD: Duration = Duration::from_secs(1);
const LINES: &str = "limits.response_timeout = \"1s\"";

/// Far less than the default, and enough on a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

/// Insists that the client was told in time that the upstream was not.
fn is_timeout(stage: &Stage, answer: &Answer, began: Instant) {
    JsonRpc(504).check(answer, &stage.world.issuer);
    let took = began.elapsed();
    assert!((HEAD..IN_TIME).contains(&took), "{took:?}");
}

pub async fn never_answers(world: Arc<World>) {
    let stage = Stage::set(&world, LINES).await;
    for bytes in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",
    ] {
        let began = Instant::now();
        let answer = stage.call_answered(bytes, Ending::Silence).await.unwrap();
        is_timeout(&stage, &answer, began);
        stage.puppet.is_let_go().await;
    }
    stage.serves().await;
}

/// Neither a small call nor one that no buffer on the way takes.
pub async fn never_reads(world: Arc<World>) {
    let stage = Stage::set(&world, LINES).await;
    let before = stage.world.proxy.resident_kib();
    for length in [0, 4_000_000] {
        stage.puppet.plays("", Ending::Deafness);
        let mut call = stage.call();
        *call.body_mut() = Body::from(vec![b' '; length]);
        let began = Instant::now();
        let call = stage.client.http.try_send(call);
        let answer = stage.world.unchanged(call).await.unwrap();
        is_timeout(&stage, &answer, began);
    }
    let grown = stage.world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    stage.serves().await;
}

/// A head that takes too long is none; content may take as long as it likes, and each byte of it
/// arrives when it comes.
pub async fn drips(world: Arc<World>) {
    let stage = Stage::set(&world, LINES).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let began = Instant::now();
    let dripping = Ending::Drip(head.into());
    let answer = stage.call_answered("", dripping).await.unwrap();
    is_timeout(&stage, &answer, began);
    stage.puppet.is_let_go().await;

    let content = "data: 1\n\n";
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    stage.puppet.plays(head, Ending::Drip(content.into()));
    let began = Instant::now();
    let answer = stage.client.http.open(stage.call()).await.unwrap();
    let mut body = answer.into_body();
    let mut arrived = String::new();
    while let Some(piece) = body.frame().await {
        let piece = piece.unwrap().into_data().unwrap();
        assert_eq!(piece.len(), 1, "waited for more");
        arrived.extend(piece.iter().map(|byte| char::from(*byte)));
        // The twin: others are served all the while.
        stage.serves().await;
    }
    assert_eq!(arrived, content);
    assert!(began.elapsed() > HEAD);
}
