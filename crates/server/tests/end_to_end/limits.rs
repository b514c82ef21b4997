//! Limits of the program as it is run: their keys, their metrics, and what is left behind.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::body::Body;
use http::{Method, Response};
use serde_json::json;
use sqlx::{AnyConnection, Connection, raw_sql};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;

use super::{
    World,
    support::{
        client::{Client, Http, Tokens},
        frames::{DATA, END_HEADERS, HEADERS, Raw, WINDOW_UPDATE, fields},
        proxy::Proxy,
        say,
        upstream::{USUAL, Upstream, is_trial},
        wire::Wire,
    },
};

/// Open authorization requests in a normal run; `PENDING` asks for another number.
const PENDING: u64 = 10_000;

/// N-AZ-55: open requests are kept in the browser alone, so there is nothing to bound. If the
/// program kept each, that would be a kilobyte and more for each.
#[tokio::test]
async fn open_authorization_requests_take_no_memory_and_no_disk() {
    let pending = std::env::var("PENDING").map_or(PENDING, |number| number.parse().unwrap());
    let world = World::new().await;
    let query = world.client.authorization().encoded();
    let path = format!("/authorize?{query}");
    let open = async |number: u64| {
        for _ in 0..number {
            let _ = world.client.http.get(&path).await.expect(200);
        }
    };
    open(pending / 5).await;
    let records = size_of_records(&world.proxy);
    let before = world.proxy.resident();
    open(pending).await;
    let grown = world.proxy.resident().saturating_sub(before);
    say(&format!(
        "{pending} open authorization requests: {} KiB more memory",
        grown / 1024
    ));
    assert!(grown < pending * 512, "{grown} bytes more");
    assert_eq!(size_of_records(&world.proxy), records);
    let _ = world.client.sign_in().await;
}

fn size_of_records(proxy: &Proxy) -> u64 {
    let sizes = ["records.sqlite", "records.sqlite-wal"].map(|name| {
        let file = std::fs::metadata(proxy.data_dir().join(name));
        file.map_or(0, |file| file.len())
    });
    sizes.iter().sum()
}

/// N-RG-38, N-LG-03, N-LG-05, N-LG-09
#[tokio::test]
async fn the_keys_of_limits_are_obeyed_and_their_refusals_counted() {
    let upstream = Upstream::start().await;
    let lines = "limits.registrations_per_address = \"2/d\"\n\
                 limits.calls_per_grant = \"3/h\"\n\
                 limits.wrong_tokens_per_address = \"1/h\"";
    let proxy = Proxy::with(upstream.address, lines).await;
    let http = Http::to(proxy.address);
    let client = Client::register(&http).await;
    let tokens = client.sign_in().await;
    let _ = Client::register(&http).await;

    let metadata = json!({ "redirect_uris": ["https://client.example/cb"] });
    let register = || {
        http.request(Method::POST, "/register")
            .header("content-type", "application/json")
            .body(metadata.to_string().into())
            .unwrap()
    };
    for _ in 0..3 {
        let refused = http.send(register()).await.expect(429);
        assert_eq!(refused.json()["error"], "too_many_requests");
        assert!(refused.header("retry-after").parse::<u32>().unwrap() > 40_000);
    }
    let elsewhere = Http::to(proxy.address).from([127, 0, 0, 9].into());
    let _ = elsewhere.send(register()).await.expect(201);

    for _ in 0..3 {
        let _ = client.call(&tokens).await.expect(200);
    }
    let _ = client.call(&tokens).await.expect(429);
    let _ = client.try_refresh("mopr_x").await.unwrap().expect(400);
    let _ = client.try_refresh("mopr_x").await.unwrap().expect(429);
    let _ = client.refresh(&tokens).await.expect(200);

    let metrics = Http::to(proxy.metrics).get("/metrics").await.text();
    for (limit, count) in [
        ("registrations_per_address", 3),
        ("calls_per_grant", 1),
        ("wrong_tokens_per_address", 1),
    ] {
        let line = format!("mcp_oauth_proxy_limited_total{{limit=\"{limit}\"}} {count}\n");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

/// FI-06: another process holds the database, for longer than a write waits.
#[tokio::test]
async fn while_another_process_locks_the_database_calls_go_on_and_readiness_says_so() {
    let world = World::new().await;
    let (client, tokens) = (&world.client, &world.tokens);
    let _ = client.call(tokens).await.expect(200);
    sqlx::any::install_default_drivers();
    let file = world.proxy.data_dir().join("records.sqlite");
    let url = format!("sqlite://{}", file.display());
    let mut other = AnyConnection::connect(&url).await.unwrap();
    raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();

    let (ready, refreshed) = tokio::join!(
        async {
            // The look before the lock may still be believed.
            loop {
                let answer = client.http.get("/ready").await;
                if answer.status == 503 {
                    return answer;
                }
            }
        },
        client.refresh(tokens),
    );
    assert_eq!(ready.json()["error"], "temporarily_unavailable");
    assert_eq!(
        refreshed.expect(503).json()["error"],
        "temporarily_unavailable"
    );
    let _ = client.call(tokens).await.expect(200);

    raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let _ = client.refresh(tokens).await.expect(200);
    while client.http.get("/ready").await.status != 200 {}
}

/// Connections of one attacker, the requests on each, and the bytes of each request.
const FLOODERS: u32 = 12;
const STREAMS: u32 = 100;
const HEAD: usize = 15_000;
const BODY: usize = 60_000;

/// A connection with as many requests to `/token` as it may have, each without its end.
async fn flood(http: &Http, from: &str) -> Raw {
    let mut raw = Raw::begin(http.connect().await.unwrap()).await;
    let request = http.request(Method::GET, "/");
    let host = request.headers_ref().unwrap()["host"].to_str().unwrap();
    let head = fields(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", host),
        (":path", "/token"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("x-forwarded-for", from),
        ("x-long", &"x".repeat(HEAD)),
    ]);
    // What the server lets us send: of each stream at first 64 KiB, of the connection less.
    let mut window = 65_535;
    for stream in (0..STREAMS).map(|n| 2 * n + 1) {
        raw.frame(HEADERS, END_HEADERS, stream, &head).await;
        for piece in vec![b'x'; BODY].chunks(15_000) {
            while window < piece.len() {
                let (_, stream, more) = raw.next_of(WINDOW_UPDATE).await;
                if stream == 0 {
                    window += u32::from_be_bytes(more.try_into().unwrap()) as usize;
                }
            }
            raw.frame(DATA, 0, stream, piece).await;
            window -= piece.len();
        }
    }
    raw
}

/// Whoever sends requests without their end, even through a trusted proxy, which is not
/// held to a number of connections, fills no memory and stands in nobody's way.
#[tokio::test]
async fn http2_requests_without_an_end_take_little_memory_and_hold_nobody_up() {
    let upstream = Upstream::start().await;
    let lines = "trusted_proxies.ranges = [\"127.0.0.1\"]";
    let proxy = Proxy::with(upstream.address, lines).await;
    let http = Http::to(proxy.address);
    let client = Client::register(&http).await;
    let tokens = client.sign_in().await;
    let before = proxy.resident();

    let mut held = Vec::new();
    for _ in 0..FLOODERS {
        held.push(flood(&http, "203.0.113.1").await);
    }

    let grown = proxy.resident().saturating_sub(before);
    let sent = u64::from(FLOODERS * STREAMS) * (HEAD + BODY) as u64;
    say(&format!(
        "{} KiB of requests without an end: {} KiB more memory",
        sent / 1024,
        grown / 1024
    ));
    assert!(grown < sent / 2, "{grown} bytes more");
    let tokens = client.refresh(&tokens).await.expect(200);
    let _ = client.call(&Tokens::of(&tokens)).await.expect(200);
    let _ = client.sign_in().await;
    let metrics = Http::to(proxy.metrics).get("/metrics").await.text();
    let line = "mcp_oauth_proxy_limited_total{limit=\"waiting_requests\"} ";
    assert!(metrics.contains(line), "{metrics}");
    drop(held);
}

/// The number that a metric has, none if it was never counted.
async fn metric(proxy: &Proxy, name: &str) -> u64 {
    let page = Http::to(proxy.metrics).get("/metrics").await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |number| number.trim().parse().unwrap())
}

/// Case 25: the server's stream ends at once, and its client asks again as fast as it can.
#[tokio::test]
async fn streams_that_end_at_once_are_asked_for_less_and_less() {
    let world = World::new().await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        world.upstream.answers(async {
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(Body::empty())
                .unwrap()
        });
        let mut get = world.client.call_request(&world.tokens);
        *get.method_mut() = Method::GET;
        *get.body_mut() = Body::empty();
        answers.push(world.client.http.send(get).await);
    }
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|it| it.status == 200);
    // A minute gives six of them back.
    assert!((6..=8).contains(&served.len()), "{}", served.len());
    assert_eq!(world.upstream.received().len(), served.len());
    for answer in refused {
        let answer = answer.expect(429);
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
    }
    let limited = "mcp_oauth_proxy_limited_total{limit=\"brief_streams_per_grant\"}";
    assert_eq!(
        metric(&world.proxy, limited).await,
        50 - u64::try_from(served.len()).unwrap()
    );
}

/// An upstream that answers the first request of each connection, and closes at the second without a
/// byte. It counts what it gets.
async fn forgetful() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&seen);
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Arc::clone(&counter);
            tasks.spawn(async move {
                for number in 0..2 {
                    let mut request = Vec::new();
                    // Each ends like that, and has it nowhere else.
                    while !request.ends_with(b"}}") {
                        if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                            return;
                        }
                    }
                    let length = USUAL.len();
                    let answer = |more| {
                        format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{more}\
                             content-length: {length}\r\n\r\n{USUAL}"
                        )
                    };
                    if is_trial(&request) {
                        let answer = answer("connection: close\r\n");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        return;
                    }
                    seen.fetch_add(1, Ordering::SeqCst);
                    if number == 0 {
                        let answer = answer("");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (address, seen)
}

/// Case 16: `ping`, then another request on the connection that the server closes.
#[tokio::test]
async fn a_connection_that_the_server_closes_costs_no_call_that_can_be_made_again() {
    for (method, status, requests) in [("tools/list", 200, 3), ("tools/call", 502, 2)] {
        let (address, seen) = forgetful().await;
        let proxy = Proxy::in_front_of(address).await;
        let client = Client::register(&Http::to(proxy.address)).await;
        let tokens = client.sign_in().await;
        let call = async |method: &str| {
            let mut request = client.call_request(&tokens);
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#);
            *request.body_mut() = Body::from(body);
            client.http.send(request).await
        };
        let _ = call("ping").await.expect(200);
        let _ = call(method).await.expect(status);
        // A tool is never run twice.
        assert_eq!(seen.load(Ordering::SeqCst), requests, "{method}");
        let repeated = metric(&proxy, "mcp_oauth_proxy_requests_repeated_total").await;
        assert_eq!(repeated, u64::from(status == 200), "{method}");
    }
}

/// Case 15: those that are idle keep nobody out, however long they may be.
#[tokio::test]
async fn idle_connections_give_way_when_all_are_taken() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with(upstream.address, "limits.connections = 3").await;
    let health = format!("GET /health HTTP/1.1\r\nhost: {}\r\n\r\n", proxy.address);
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::open(&Http::to(proxy.address)).await;
        wire.send(&health).await;
        let _ = wire.answer().await.unwrap().expect(200);
        idle.push(wire);
    }
    let limited = |limit| format!("mcp_oauth_proxy_limited_total{{limit=\"{limit}\"}}");
    assert_eq!(metric(&proxy, &limited("gave_way")).await, 7);
    assert_eq!(metric(&proxy, &limited("connections")).await, 7);
}
