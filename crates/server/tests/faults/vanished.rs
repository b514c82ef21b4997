//! Clients that vanish: their machine sleeps, their network is gone, and nobody says goodbye.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddrV4},
    process::Command,
    time::Duration,
};

use axum::body::Body;
use http::{Response, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use super::{World, have};

/// Says that this runs where the network is the test's own.
const INSIDE: &str = "FAULTS_INSIDE";

/// Where clients are before they vanish.
const THERE: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);
/// Of each kind.
const CLIENTS: usize = 10;

/// What is promised, and what a loaded machine may take on top.
const GONE_WITHIN: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_secs(5);

/// FI-12, N-UP-06: whoever waits for a request, listens to a silent stream, or is in the middle of
/// an answer is given up within half a minute, and with it what was asked of the upstream.
#[tokio::test]
async fn fi_12_clients_that_vanish_are_given_up_within_half_a_minute() {
    if env::var_os(INSIDE).is_none() {
        run_inside("vanished::fi_12_clients_that_vanish_are_given_up_within_half_a_minute").await;
        return;
    }
    let world = World::on_sqlite().await;
    let mut clients = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let mut idle = connect(&world).await;
        idle.write_all(request(&world, "GET", "/health").as_bytes())
            .await
            .unwrap();
        clients.push(begun(idle).await);

        let events = world.upstream.streams();
        events.send("data: x\n\n".into()).unwrap();
        streams.push(events);
        let mut listening = connect(&world).await;
        listening
            .write_all(request(&world, "GET", "/mcp").as_bytes())
            .await
            .unwrap();
        clients.push(begun(listening).await);

        world.upstream.answers(async {
            Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(vec![b' '; 64 << 20]))
                .unwrap()
        });
        let mut reading = connect(&world).await;
        reading
            .write_all(request(&world, "POST", "/mcp").as_bytes())
            .await
            .unwrap();
        clients.push(begun(reading).await);
    }
    assert_eq!(connections(&world), 3 * CLIENTS);

    // What is sent there goes nowhere from now on.
    ip(&[
        "route",
        "add",
        "blackhole",
        &THERE.to_string(),
        "table",
        "local",
    ]);
    let vanished = Instant::now();
    while connections(&world) > 0 {
        assert!(
            vanished.elapsed() < GONE_WITHIN + SLACK,
            "{} connections are kept",
            connections(&world)
        );
        let served = timeout(Duration::from_secs(5), world.client.call(&world.tokens));
        let _ = served.await.expect("held up").expect(200);
        sleep(Duration::from_millis(250)).await;
    }
    for events in streams {
        timeout(SLACK, events.closed()).await.expect("kept");
    }
    drop(clients);
    world.end().await;
}

/// Runs the test of this name once more, with a network of its own.
async fn run_inside(test: &str) {
    if !(have("ip") && have("unshare")) {
        return;
    }
    let enter = "ip link set lo up && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c", enter, "sh"]);
    command.arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command.env(INSIDE, "1");
    let output = spawn_blocking(move || command.output()).await.unwrap();
    let output = output.unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn ip(arguments: &[&str]) {
    assert!(
        Command::new("ip")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

async fn connect(world: &World) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((THERE, 0).into()).unwrap();
    socket.connect(world.proxy.address).await.unwrap()
}

fn request(world: &World, method: &str, path: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         accept: text/event-stream, application/json\r\n\r\n",
        world.proxy.address, world.tokens.access_token
    )
}

/// A client that has seen the beginning of its answer, and reads no further.
async fn begun(mut stream: TcpStream) -> TcpStream {
    let mut status = [0; 12];
    let read = timeout(Duration::from_secs(10), stream.read_exact(&mut status));
    read.await.expect("no answer").unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

/// The connections with clients that the kernel still has for the proxy.
fn connections(world: &World) -> usize {
    let end = |address: Ipv4Addr| format!("{:08X}:", u32::from_ne_bytes(address.octets()));
    let proxy = SocketAddrV4::new(Ipv4Addr::LOCALHOST, world.proxy.address.port());
    let here = format!("{}{:04X}", end(*proxy.ip()), proxy.port());
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    table
        .lines()
        .filter(|line| {
            let mut columns = line.split_whitespace().skip(1);
            columns.next() == Some(&here)
                && columns
                    .next()
                    .is_some_and(|peer| peer.starts_with(&end(THERE)))
        })
        .count()
}
