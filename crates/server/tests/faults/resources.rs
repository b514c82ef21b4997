//! Too little of what the operating system gives.

use std::{net::Ipv4Addr, process::Command, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    World, have,
    invariants::{Footprint, session_is_whole},
    is_root,
    support::client::Http,
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

/// FI-17: other programs can take what this one counted on, so accepting itself may fail.
#[tokio::test]
async fn fi_17_accepting_outlives_a_want_of_files() {
    const CROWD: usize = 30;
    if !have("prlimit") || !is_root() {
        return;
    }
    let mut world = World::on_sqlite().await;
    let mut kept = TcpStream::connect(world.proxy.address).await.unwrap();
    is_served(&mut kept).await;
    let open = Footprint::of(&world.proxy).files;
    let limit = |files: usize| {
        let id = world.proxy.id().to_string();
        let limit = format!("--nofile={files}:");
        let set = Command::new("prlimit")
            .args(["--pid", &id, &limit])
            .status();
        assert!(set.unwrap().success());
    };
    limit(open + 5);
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        crowd.push(connect_from(number, world.proxy.address).await);
    }
    let told = "new connections have to wait";
    let _ = timeout(PATIENCE, world.proxy.says(0, told))
        .await
        .expect(told);
    is_served(&mut kept).await;

    limit(open + 10 * CROWD);
    let http = Http::to(world.proxy.address);
    let _ = timeout(PATIENCE, http.get("/health"))
        .await
        .expect("no new connection")
        .expect(200);
    let page = Http::to(world.proxy.metrics)
        .get("/metrics")
        .await
        .expect(200);
    let counted = "mcp_oauth_proxy_limited_total{limit=\"open_files\"} ";
    assert!(page.text().contains(counted), "{}", page.text());
    drop(crowd);
    session_is_whole(&world.client, &world.tokens).await;
    world.proxy.stop().await;
}

/// Whether a request on this connection is answered.
async fn is_served(stream: &mut TcpStream) {
    let request = format!(
        "GET /health HTTP/1.1\r\nhost: {}\r\n\r\n",
        stream.peer_addr().unwrap()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await;
    let length = read.expect("no answer").unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
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
