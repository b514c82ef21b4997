//! Clients that are slow, stop reading, or vanish.

use std::time::Duration;

use axum::body::Body;
use http::{Response, header};
use http_body_util::BodyExt;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    World,
    invariants::{Footprint, is_bounded, session_is_whole},
};

/// Clients of each kind at the same time.
const CLIENTS: usize = 40;
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// FI-12: those who take nothing cost neither memory nor anybody's time, and are forgotten when
/// they go. How long they may stay is in the tests of the listener.
#[tokio::test]
async fn fi_12_clients_that_stall_hold_up_nobody_and_leave_nothing_behind() {
    let world = World::on_sqlite().await;
    let before = Footprint::of(&world.proxy);

    let mut heads = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(world.proxy.address).await.unwrap();
        stream
            .write_all(b"POST /token HTTP/1.1\r\nho")
            .await
            .unwrap();
        heads.push(stream);
    }
    let mut bodies = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(world.proxy.address).await.unwrap();
        let head = format!(
            "POST /token HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\ngrant",
            world.proxy.address
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        bodies.push(stream);
    }
    // Answers of 64 MiB that nobody reads: all of them would not fit.
    let mut answers = Vec::new();
    for _ in 0..CLIENTS {
        world.upstream.answers(async {
            Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(vec![b' '; 64 << 20]))
                .unwrap()
        });
        let call = world.client.call_request(&world.tokens);
        let mut answer = world.client.http.open(call).await.unwrap().into_body();
        assert!(answer.frame().await.unwrap().is_ok());
        answers.push(answer);
    }
    sleep(Duration::from_millis(500)).await;
    is_bounded_while_stalled(&world, before);

    for _ in 0..20 {
        let served = timeout(Duration::from_secs(5), world.client.call(&world.tokens));
        let _ = served.await.expect("held up").expect(200);
    }
    let over = Instant::now();
    drop((heads, bodies, answers));
    is_bounded(&world.proxy, before, GONE_WITHIN).await;
    assert!(over.elapsed() < GONE_WITHIN);
    session_is_whole(&world.client, &world.tokens).await;
    world.end().await;
}

fn is_bounded_while_stalled(world: &World, before: Footprint) {
    // Of the 64 MiB that wait for each.
    const EACH_KIB: u64 = 2 * 1024;
    let now = Footprint::of(&world.proxy);
    let stalled = u64::try_from(CLIENTS).unwrap() * EACH_KIB;
    assert!(
        now.resident_kib < before.resident_kib + stalled,
        "I8, stalled clients cost memory: {before:?}, {now:?}"
    );
}
