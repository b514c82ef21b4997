//! Clients that take their time on purpose, by the hundred, in front of the real program: each is
//! dropped, and nobody else notices.
//!
//! `SLOW_CONNECTIONS` makes it that many, for a minute, with the limits that are the default;
//! otherwise there are a few hundred, and the limits are short.

#![expect(clippy::panic, clippy::unwrap_used, reason = "all of this is a test")]

#[expect(dead_code, reason = "this needs a part of it")]
mod support;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use support::{
    client::{Client, Http, Tokens},
    proxy::Proxy,
    say,
    upstream::Upstream,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

/// How often an attacker sends or takes its byte.
const SIP: Duration = Duration::from_millis(500);

/// Connections of one address, so that its limit is not what stops them.
const OF_ONE_ADDRESS: usize = 100;

/// How much slower than its limit a loaded machine may be.
const SLACK: Duration = Duration::from_secs(10);

/// How much of it, and what it may come to.
struct Load {
    connections: usize,
    time: Duration,
    /// The longest that an attacking connection may live, without slack.
    life: Duration,
    /// The 99th percentile of a normal client's calls.
    p99: Duration,
    /// Lines of the configuration.
    limits: &'static str,
}

impl Load {
    fn chosen() -> Self {
        match std::env::var("SLOW_CONNECTIONS") {
            Ok(connections) => Self {
                connections: connections.parse().unwrap(),
                time: Duration::from_mins(1),
                life: Duration::from_secs(30),
                p99: Duration::from_millis(100),
                limits: "",
            },
            Err(_) => Self {
                connections: 300,
                time: Duration::from_secs(8),
                life: Duration::from_secs(3),
                p99: Duration::from_secs(2),
                limits: "limits.header_timeout = \"2s\"\n\
                         limits.body_timeout = \"3s\"\n\
                         limits.write_timeout = \"3s\"\n",
            },
        }
    }
}

/// What one attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    /// It connects and says nothing.
    Silent,
    /// A head that drips in.
    Head,
    /// A body that drips in: to an endpoint that anybody may use, and to one for which it has a
    /// token.
    TokenBody,
    CallBody,
    /// It asks again and again, and takes a byte of the answers now and then.
    Reader,
    /// With HTTP/2: headers that drip in, and answers for which it leaves no room.
    Http2Head,
    Http2Window,
}

const ATTACKS: [Attack; 7] = [
    Attack::Silent,
    Attack::Head,
    Attack::TokenBody,
    Attack::CallBody,
    Attack::Reader,
    Attack::Http2Head,
    Attack::Http2Window,
];

const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Attack {
    /// What it says first.
    fn opening(self, to: SocketAddr, token: &str) -> Vec<u8> {
        let http2 = |frames: &[&[u8]]| [&[HTTP2][..], frames].concat().concat();
        match self {
            Self::Silent => Vec::new(),
            Self::Head => format!("GET /health HTTP/1.1\r\nhost: {to}\r\nx: ").into(),
            Self::TokenBody => format!(
                "POST /token HTTP/1.1\r\nhost: {to}\r\ncontent-length: 60000\r\n\
                 content-type: application/x-www-form-urlencoded\r\n\r\ngrant_type="
            )
            .into(),
            Self::CallBody => format!(
                "POST /mcp HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            .into(),
            Self::Reader => {
                let path = "/.well-known/oauth-authorization-server";
                format!("GET {path} HTTP/1.1\r\nhost: {to}\r\n\r\n")
                    .repeat(2000)
                    .into()
            }
            // No settings; headers that end in another frame, which does not come.
            Self::Http2Head => http2(&[
                &[0, 0, 0, 4, 0, 0, 0, 0, 0],
                &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82],
            ]),
            // An initial window of 0; a GET of something with content.
            Self::Http2Window => {
                let text = |name, value: &str| {
                    let length = u8::try_from(value.len()).unwrap();
                    [&[name, length], value.as_bytes()].concat()
                };
                // GET and http are in HPACK's table whole, the other two by name.
                let authority = text(1, &to.to_string());
                let path = text(4, "/.well-known/oauth-authorization-server");
                let block = [&[0x82, 0x86][..], &authority, &path].concat();
                let length = u8::try_from(block.len()).unwrap();
                http2(&[
                    &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0],
                    &[0, 0, length, 1, 5, 0, 0, 0, 1],
                    &block,
                ])
            }
        }
    }

    /// What it says from then on.
    fn drip(self) -> &'static [u8] {
        match self {
            Self::Silent | Self::Reader | Self::Http2Head => b"",
            Self::Head | Self::TokenBody => b"x",
            Self::CallBody => b"1\r\nx\r\n",
            // A ping: it is there, it just does not read.
            Self::Http2Window => &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        }
    }

    /// Holds one connection for as long as the server lets it. `None`: it was let go on until
    /// `end`.
    async fn run(
        self,
        from: IpAddr,
        to: SocketAddr,
        token: &str,
        end: Instant,
    ) -> Option<Duration> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        let begun = Instant::now();
        let opening = self.opening(to, token);
        // A server that waits for its answers to be read takes no more questions.
        if let Ok(Err(_)) = timeout(SIP, stream.write_all(&opening)).await {
            return Some(begun.elapsed());
        }
        while Instant::now() < end {
            if self.is_over(&stream) {
                return Some(begun.elapsed());
            }
            sleep(SIP).await;
        }
        None
    }

    /// Sends and takes its byte. `true`: the server has closed.
    fn is_over(self, stream: &TcpStream) -> bool {
        let mut scrap = [0; 4096];
        let sip = match self {
            Self::Reader => 1,
            _ => scrap.len(),
        };
        let read = stream.try_read(&mut scrap[..sip]);
        let written = stream.try_write(self.drip());
        let failed = |outcome: &std::io::Result<usize>| {
            outcome
                .as_ref()
                .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        };
        matches!(read, Ok(0)) || failed(&read) || failed(&written)
    }
}

/// Attackers that come again as soon as they are dropped, until `end`. Returns how long each was
/// let go on.
async fn attackers(
    load: &Load,
    to: SocketAddr,
    tokens: &Tokens,
    from: impl Fn(usize) -> IpAddr,
    end: Instant,
) -> Vec<(Attack, Duration)> {
    let tasks = TaskTracker::new();
    let running: Vec<_> = (0..load.connections)
        .map(|number| {
            let attack = ATTACKS[number % ATTACKS.len()];
            let (from, token) = (from(number), tokens.access_token.clone());
            tasks.spawn(async move {
                let mut lives = Vec::new();
                while let Some(life) = attack.run(from, to, &token, end).await {
                    lives.push((attack, life));
                    // Being turned away at once is no reason to spin.
                    sleep(SIP).await;
                }
                lives
            })
        })
        .collect();
    let mut lives = Vec::new();
    for attackers in running {
        lives.extend(attackers.await.unwrap());
    }
    lives
}

/// Calls one after the other until `end`; how long each took, sorted.
async fn calls(client: &Client, tokens: &Tokens, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let begun = Instant::now();
        let _ = client.call(tokens).await.expect(200);
        took.push(begun.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    took.sort();
    took
}

/// A number of kibibytes that the kernel keeps about a process.
fn kibibytes(process: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

fn open_files(process: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{process}/fd")).ok()?.count())
}

/// FI-17: requests are turned away while memory is short, and only as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_runs_out_is_answered_with_503_until_there_is_some_again() {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let upstream = Upstream::start().await;
    let limits =
        "limits.memory = \"64MiB\"\nlimits.header_timeout = \"1m\"\nlimits.connections = 4000";
    let proxy = Proxy::with(upstream.address, limits).await;
    let http = Http::to(proxy.address);
    let client = Client::register(&http).await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);

    // Heads that are nearly as long as they may be, and do not end.
    let head = format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(31_000));
    let mut waiting = Vec::new();
    let refused = loop {
        let host = u8::try_from(waiting.len() / OF_ONE_ADDRESS + 1).unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind((Ipv4Addr::new(127, 3, 0, host), 0).into())
            .unwrap();
        let mut stream = socket.connect(proxy.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        waiting.push(stream);
        if waiting.len() % 10 == 0 {
            // Not faster than it is looked at: what comes between two looks is let in.
            sleep(Duration::from_millis(100)).await;
            let answer = client.call(&tokens).await;
            if answer.status != 200 {
                break answer.expect(503);
            }
        }
    };
    assert_eq!(refused.header("retry-after"), "5");
    let _ = http.get("/health").await.expect(200);
    let page = Http::to(proxy.metrics)
        .get("/metrics")
        .await
        .expect(200)
        .text();
    assert!(
        page.contains("mcp_oauth_proxy_limited_total{limit=\"memory\"} "),
        "{page}"
    );
    say(&format!(
        "shed: 503 with {} connections, RSS in KiB {:?}",
        waiting.len(),
        kibibytes(proxy.id(), "VmRSS:")
    ));

    drop(waiting);
    let begun = Instant::now();
    while client.call(&tokens).await.status != 200 {
        let resident = kibibytes(proxy.id(), "VmRSS:");
        // A minute, should so much have come between two looks that there is danger.
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "RSS in KiB {resident:?}"
        );
        sleep(SIP).await;
    }
    say(&format!(
        "shed: served again after {:?}, RSS in KiB {:?}",
        begun.elapsed(),
        kibibytes(proxy.id(), "VmRSS:")
    ));
}

/// F13, FI-12
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_dropped_and_nobody_else_notices() {
    let load = Load::chosen();
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let upstream = Upstream::start().await;
    let proxy = Proxy::with(upstream.address, load.limits).await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    let process = proxy.id();
    let before = (kibibytes(process, "VmRSS:"), open_files(process));

    let many = |number: usize| {
        let host = u8::try_from(number / OF_ONE_ADDRESS + 1).unwrap();
        IpAddr::from(Ipv4Addr::new(127, 1, 0, host))
    };
    let one = |_| IpAddr::from(Ipv4Addr::new(127, 2, 0, 1));
    for (from, addresses) in [
        (&many as &(dyn Fn(usize) -> IpAddr + Sync), "many addresses"),
        (&one, "one address"),
    ] {
        let end = Instant::now() + load.time;
        let middle = async {
            sleep(load.time / 2).await;
            (kibibytes(process, "VmRSS:"), open_files(process))
        };
        let (lives, took, during) = tokio::join!(
            attackers(&load, proxy.address, &tokens, from, end),
            calls(&client, &tokens, end),
            middle,
        );
        let percentile = |percent: usize| took[(took.len() - 1) * percent / 100];
        let (p50, p99) = (percentile(50), percentile(99));
        say(&format!(
            "slow: {} connections from {addresses} for {:?}: {} calls, p50 {p50:?}, p99 {p99:?}, \
             slowest {:?}; RSS in KiB and open files before {before:?}, during {during:?}",
            load.connections,
            load.time,
            took.len(),
            took.last().unwrap(),
        ));
        for attack in ATTACKS {
            let of_it = lives.iter().filter(|(kind, _)| *kind == attack);
            let longest = of_it.clone().map(|(_, life)| *life).max();
            say(&format!(
                "slow: {attack:?}: {} dropped, longest life {longest:?}",
                of_it.count()
            ));
            let longest = longest.expect("nobody was dropped");
            assert!(longest < load.life + SLACK, "{attack:?}: {longest:?}");
        }
        assert!(p99 < load.p99, "{p99:?}");
    }

    let page = Http::to(proxy.metrics)
        .get("/metrics")
        .await
        .expect(200)
        .text();
    for limit in ["slow_head", "slow_body", "slow_reader"] {
        let line = format!("mcp_oauth_proxy_limited_total{{limit=\"{limit}\"}} ");
        assert!(page.contains(&line), "{line}: {page}");
    }
    let gone = async {
        while open_files(process) > before.1.map(|files| files + 20) {
            sleep(SIP).await;
        }
    };
    timeout(load.life + SLACK, gone)
        .await
        .expect("open files stay");
    let peak = kibibytes(process, "VmHWM:");
    say(&format!(
        "slow: peak RSS in KiB {peak:?}, after all {:?}",
        kibibytes(process, "VmRSS:")
    ));
}
