//! Z20: whatever bytes come in, the server lives, fails at nothing, and answers the next request.
#![no_main]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use fuzz::{judge, patient_server};
use libfuzzer_sys::fuzz_target;
use server::listen::{self, ConnectionLimits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Runtime,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Far more than any answer takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it is waited for the answer to bytes that may be no whole request.
const GLANCE: Duration = Duration::from_millis(2);

const NEXT: &[u8] = b"GET /health HTTP/1.1\r\nHost: gw.example\r\nConnection: close\r\n\r\n";

static RUNNING: OnceLock<(Runtime, SocketAddr)> = OnceLock::new();

fn start() -> (Runtime, SocketAddr) {
    let runtime = Runtime::new().expect("the runtime starts");
    let address = runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let front = patient_server(&[("one", "/mcp")]).front;
        let answer = move |request, peer| {
            let front = front.clone();
            async move {
                let response = front.answer(request, peer).await;
                // Ends the process, on whatever thread.
                assert!(!response.status().is_server_error(), "{response:?}");
                response
            }
        };
        tokio::spawn(listen::serve(
            listener,
            ConnectionLimits::default(),
            Arc::new(|_| {}),
            CancellationToken::new(),
            answer,
        ));
        address
    });
    (runtime, address)
}

async fn connect(server: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind((from, 0).into())
        .expect("any loopback address is ours");
    socket.connect(server).await.expect("the server accepts")
}

fuzz_target!(|bytes: &[u8]| {
    let (runtime, server) = RUNNING.get_or_init(start);
    // Each input has an address of its own, so that ports do not run out.
    let hash = bytes.iter().fold(1_u32, |hash, byte| {
        hash.wrapping_mul(16_777_619) ^ u32::from(*byte)
    });
    let [a, b, c, _] = hash.to_be_bytes();
    let from = Ipv4Addr::new(127, a, b, c.clamp(2, 254));
    judge(|| {
        runtime.block_on(async {
            let mut stream = connect(*server, from).await;
            let mut answer = Vec::new();
            // It may have hung up by now, or wait for more.
            let _ = stream.write_all(bytes).await;
            let _ = timeout(GLANCE, stream.read_to_end(&mut answer)).await;
            let is_failure = answer.windows(10).any(|part| part == b"HTTP/1.1 5");
            assert!(!is_failure, "{}", String::from_utf8_lossy(&answer));

            let mut next = connect(*server, from).await;
            next.write_all(NEXT).await.expect("the server reads");
            let mut answer = Vec::new();
            timeout(PATIENCE, next.read_to_end(&mut answer))
                .await
                .expect("the next request is answered in time")
                .expect("the answer has an end");
            assert!(
                answer.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
        });
    });
});
