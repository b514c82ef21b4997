//! Too little of what the operating system gives.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    World, have,
    invariants::{Footprint, session_is_whole},
};

/// Longer than a connection may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(30);

/// FI-17
#[tokio::test]
async fn fi_17_256_open_files_and_one_processor_are_enough_to_go_on_with() {
    const CONNECTIONS: usize = 400;
    if !have("prlimit") || !have("taskset") {
        return;
    }
    let world = World::prepared(None, |proxy| {
        proxy.run_under(&["prlimit", "--nofile=256", "taskset", "--cpu-list", "0"]);
    })
    .await;
    let mut crowd = Vec::new();
    for number in 0..CONNECTIONS {
        crowd.push(connect_from(number, world.proxy.address).await);
    }
    assert!(Footprint::of(&world.proxy).files <= 256);
    // Who says nothing has to make room in time.
    let served = timeout(PATIENCE, async {
        loop {
            let call = world.client.call_request(&world.tokens);
            if let Ok(answer) = world.client.http.try_send(call).await
                && answer.status == 200
            {
                return;
            }
        }
    });
    served.await.expect("nobody is served any more");
    drop(crowd);
    session_is_whole(&world.client, &world.tokens).await;
    let mut world = world;
    world.proxy.stop().await;
}

/// Connects and begins a request that never ends.
async fn connect_from(number: usize, address: std::net::SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let host = u8::try_from(2 + number / 100).unwrap();
    socket
        .bind((Ipv4Addr::new(127, 0, 0, host), 0).into())
        .unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    // Refused at once is as good.
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
    stream
}
