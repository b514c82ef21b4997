//! The program as it is run: a process with a configuration file, real ports on both sides, and a
//! store on disk.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

mod addresses;
mod keys;
mod limits;
mod releases;
mod secrets;
mod sockets;
mod streams;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;
mod trials;

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use support::{
    PASSPHRASE, UPSTREAM_KEY,
    client::{Client, Http, Tokens},
    postgres::Schema,
    proxy::Proxy,
    upstream::{USUAL, Upstream, usual},
};

/// An upstream, a proxy in front of it, and a client that is signed in.
struct World {
    upstream: Upstream,
    proxy: Proxy,
    client: Client,
    tokens: Tokens,
}

impl World {
    async fn new() -> Self {
        let upstream = Upstream::start().await;
        let proxy = Proxy::in_front_of(upstream.address).await;
        let client = Client::register(&Http::to(proxy.address)).await;
        let tokens = client.sign_in().await;
        Self {
            upstream,
            proxy,
            client,
            tokens,
        }
    }
}

/// S1-01, S1-02, S2-05, PX-01
#[tokio::test]
async fn a_client_signs_in_over_tcp_and_calls_with_the_operators_key() {
    let world = World::new().await;

    let answer = world.client.call(&world.tokens).await.expect(200);

    assert_eq!(answer.text(), USUAL);
    let got = world.upstream.last();
    assert_eq!(got.method(), Method::POST);
    assert_eq!(got.uri(), "/mcp");
    let headers = got.headers();
    assert_eq!(headers["authorization"], format!("Bearer {UPSTREAM_KEY}"));
    assert_eq!(headers["host"], world.upstream.address.to_string());
    assert_eq!(
        got.body(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#
    );

    let mut stranger = world.client.call_request(&world.tokens);
    stranger.headers_mut().remove(header::AUTHORIZATION);
    let _ = world.client.http.send(stranger).await.expect(401);
    assert_eq!(world.upstream.received().len(), 1);
}

/// MD-16: clients wait ten seconds for discovery, and a first start is part of that.
#[tokio::test]
async fn discovery_answers_well_within_ten_seconds_of_a_first_start() {
    let upstream = Upstream::start().await;
    let begun = Instant::now();
    let proxy = Proxy::in_front_of(upstream.address).await;
    let http = Http::to(proxy.address);
    for document in ["oauth-protected-resource/mcp", "oauth-authorization-server"] {
        let _ = http
            .get(&format!("/.well-known/{document}"))
            .await
            .expect(200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

/// S1-17, TK-15
#[tokio::test]
async fn client_and_tokens_survive_a_restart() {
    let mut world = World::new().await;
    for orderly in [true, false] {
        if orderly {
            world.proxy.stop().await;
        } else {
            world.proxy.kill().await;
        }
        world.proxy.start().await;
        let _ = world.client.call(&world.tokens).await.expect(200);
        let refreshed = world.client.refresh(&world.tokens).await.expect(200);
        world.tokens = Tokens::of(&refreshed);
        let _ = world.client.call(&world.tokens).await.expect(200);
        let _ = world.client.sign_in().await;
    }
    assert!(world.proxy.data_dir().join("records.sqlite").exists());
}

/// S2-14
#[tokio::test]
async fn another_passphrase_is_asked_of_new_approvals_and_ends_no_old_one() {
    const OTHER: &str = "wrong donkey capacitor pin";
    let mut world = World::new().await;
    world.proxy.stop().await;
    world.proxy.set("PASSPHRASE", OTHER);
    world.proxy.start().await;

    let _ = world.client.call(&world.tokens).await.expect(200);
    let _ = world.client.refresh(&world.tokens).await.expect(200);
    let consent = world.client.opens_consent().await;
    let refused = world.client.approve(&consent, PASSPHRASE).await.expect(401);
    assert!(!refused.headers.contains_key(header::LOCATION));
    let redirect = world.client.approve(&consent, OTHER).await.expect(303);
    let code = Client::code(&redirect);
    let _ = world.client.redeem(&code).await.expect(200);
}

/// A stop lets requests finish, ends streams, and is no failure.
#[tokio::test]
async fn a_stop_finishes_requests_in_flight_and_ends_streams() {
    let mut world = World::new().await;
    let (arrived, in_flight) = oneshot::channel();
    let (release, released) = oneshot::channel();
    world.upstream.answers(async {
        arrived.send(()).unwrap();
        released.await.unwrap();
        usual()
    });
    let call = world.client.call(&world.tokens);
    let stop = async {
        in_flight.await.unwrap();
        let events = world.upstream.streams();
        let mut request = world.client.call_request(&world.tokens);
        *request.method_mut() = Method::GET;
        *request.body_mut() = Body::empty();
        request.headers_mut().remove(header::CONTENT_LENGTH);
        let mut stream = world.client.http.open(request).await.unwrap().into_body();
        events.send("data: 1\n\n".into()).unwrap();
        assert_eq!(streams::next_chunk(&mut stream).await, "data: 1\n\n");

        let asked = Instant::now();
        world.proxy.terminate();
        assert!(streams::ended_cleanly(&mut stream).await);
        events.closed().await;
        // Whoever comes now is not let in.
        let http = &world.client.http;
        let late = http.request(Method::GET, "/health");
        let late = late.body(Body::empty()).unwrap();
        assert!(http.try_send(late).await.is_err());
        release.send(()).unwrap();
        asked
    };
    let (answer, asked) = tokio::join!(call, stop);
    assert_eq!(answer.expect(200).text(), USUAL);
    let status = world.proxy.ended().await;
    assert_eq!(status.code(), Some(0), "{}", world.proxy.output());
    assert!(asked.elapsed() < Duration::from_secs(5));
}

/// The store belongs to one process, and a second one says so.
#[tokio::test]
async fn a_second_process_on_the_same_data_directory_is_refused() {
    let mut world = World::new().await;
    let mut second = Proxy::prepared(world.upstream.address, "store = \"sqlite\"");
    second.share_data_dir_of(&world.proxy);
    second.spawn();

    let status = second.ended().await;

    assert_eq!(status.code(), Some(1));
    let output = second.output();
    for part in ["records.sqlite", "is in use by another process", "data_dir"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    let _ = world.client.call(&world.tokens).await.expect(200);

    world.proxy.stop().await;
    second.start().await;
    second.stop().await;
}

/// PX-16: who called what is in the log once, until the operator leaves it out; refusals stay.
#[tokio::test]
async fn each_call_is_one_line_of_the_log_that_can_be_left_out() {
    let mut world = World::new().await;
    let call = |method: &'static str, tool: &'static str| {
        let mut request = world.client.call_request(&world.tokens);
        let headers = request.headers_mut();
        headers.insert("mcp-method", HeaderValue::from_static(method));
        headers.insert("mcp-name", HeaderValue::from_static(tool));
        let params = json!({ "name": tool, "arguments": {} });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        *request.body_mut() = Body::from(message.to_string());
        request
    };
    let (first, second) = (
        call("tools/call", "look_up"),
        call("tools/call", "left_out"),
    );
    let mut foreign = call("tools/call", "refused");
    let session = HeaderValue::from_static("made up");
    foreign.headers_mut().insert("mcp-session-id", session);
    let http = world.client.http.clone();
    let _ = http.send(first).await.expect(200);
    world.proxy.stop().await;

    let output = world.proxy.output();
    let lines: Vec<serde_json::Value> = output
        .lines()
        .filter(|line| line.contains("look_up"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [line] = &lines[..] else {
        panic!("{output}")
    };
    for (field, value) in [
        ("level", json!("INFO")),
        ("message", json!("a call was forwarded")),
        ("upstream", json!("one")),
        ("subject", json!("owner")),
        ("client", json!(world.client.id)),
        ("method", json!("POST")),
        ("rpc_method", json!("tools/call")),
        ("tool", json!("look_up")),
        ("status", json!(200)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }

    world.proxy.set("RUST_LOG", "info,calls=off");
    world.proxy.start().await;
    let _ = http.send(second).await.expect(200);
    let _ = http.send(foreign).await.expect(404);
    world.proxy.stop().await;
    let output = world.proxy.output();
    assert!(!output.contains("left_out"), "{output}");
    assert!(output.contains("refused"), "{output}");
}

/// PX-19: two processes on one PostgreSQL database and with one key file are one proxy, whichever
/// of them the client gets.
#[tokio::test]
async fn two_processes_on_postgresql_take_turns_in_one_flow() {
    let Some(schema) = Schema::new("turns").await else {
        return;
    };
    let upstream = Upstream::start().await;
    let store = format!("store = \"{}\"", schema.url);
    let one = Proxy::with(upstream.address, &store).await;
    let mut two = Proxy::prepared(upstream.address, &store);
    two.set("PUBLIC_URL", &format!("http://{}", one.address));
    two.share_data_dir_of(&one);
    two.start().await;
    let first = Client::register(&Http::to(one.address)).await;
    let asked = first.authorization();
    let client_at = |address| Client {
        http: Http::to(address),
        ..first.clone()
    };
    let proxies = [client_at(one.address), client_at(two.address)];
    for (here, there) in [(0, 1), (1, 0)].map(|(a, b)| (&proxies[a], &proxies[b])) {
        let consent = here.opens_consent_with(&asked).await;
        let redirect = there.approve(&consent, PASSPHRASE).await.expect(303);
        let code = Client::code(&redirect);
        let mut tokens = Tokens::of(&here.redeem(&code).await.expect(200));
        for at in [there, here, there] {
            let _ = at.call(&tokens).await.expect(200);
            tokens = Tokens::of(&at.refresh(&tokens).await.expect(200));
        }
        let _ = there.redeem(&code).await.expect(400);
    }
    drop((one, two));
    schema.remove().await;
}

/// TM-15: the eras take turns on one connection, and nothing is remembered of it.
#[tokio::test]
async fn both_eras_take_turns_on_one_connection() {
    let world = World::new().await;
    let stream = TcpStream::connect(world.proxy.address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = TaskTracker::new().spawn(connection);
    for round in 0..4 {
        let is_modern = round % 2 == 1;
        let mut request = world.client.call_request(&world.tokens);
        if is_modern {
            let version = HeaderValue::from_static("2026-07-28");
            request
                .headers_mut()
                .insert("mcp-protocol-version", version);
        }
        let mut started = usual();
        let session = HeaderValue::from_static("s-1");
        started.headers_mut().insert("mcp-session-id", session);
        world.upstream.answers(async { started });
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let has_session = response.headers().contains_key("mcp-session-id");
        assert_eq!(has_session, !is_modern, "{round}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, USUAL);
    }
    assert!(!connection.is_finished());
}

/// TL-18: four mebibytes pass, five do not.
#[tokio::test]
async fn a_body_beyond_four_mebibytes_is_refused() {
    let world = World::new().await;
    for (mebibytes, status) in [(5, 413), (4, 200)] {
        let mut request = world.client.call_request(&world.tokens);
        *request.body_mut() = Body::from(vec![b'x'; mebibytes << 20]);
        let _ = world.client.http.send(request).await.expect(status);
    }
    let received = world.upstream.received();
    let lengths: Vec<_> = received.iter().map(|it| it.body().len()).collect();
    assert_eq!(lengths, [4 << 20]);
}

/// Metrics are on a port of their own.
#[tokio::test]
async fn the_metrics_listener_counts_what_happens_and_the_public_one_has_no_metrics() {
    let world = World::new().await;
    let _ = world.client.call(&world.tokens).await.expect(200);
    let _ = world.client.http.get("/mcp").await.expect(401);
    let _ = world.client.refresh(&world.tokens).await.expect(200);

    let metrics = Http::to(world.proxy.metrics);
    let page = metrics.get("/metrics").await.expect(200).text();
    for line in [
        "mcp_oauth_proxy_calls_total{upstream=\"one\",era=\"legacy\",status=\"2xx\"} 1",
        "mcp_oauth_proxy_registrations_total 1",
        "mcp_oauth_proxy_approvals_total{upstream=\"one\"} 1",
        "mcp_oauth_proxy_codes_redeemed_total 1",
        "mcp_oauth_proxy_refresh_rotated_total 1",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert!(page.contains("why=\"no_token\"} 1"), "{page}");
    let _ = world.client.http.get("/metrics").await.expect(404);
    let _ = metrics.get("/mcp").await.expect(404);

    // Not for a page elsewhere that points a name of its own at this computer.
    for (host, status) in [("rebound.example", 421), ("localhost:1", 200)] {
        let mut request = metrics.request(Method::GET, "/metrics");
        let host = HeaderValue::from_static(host);
        request.headers_mut().unwrap().insert(header::HOST, host);
        let answer = metrics.send(request.body(Body::empty()).unwrap()).await;
        let shown = answer.expect(status).text();
        assert_eq!(shown.contains("calls_total"), status == 200, "{shown}");
    }
}

/// S5-22
#[tokio::test]
async fn a_running_proxy_is_alive_and_ready() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::in_front_of(upstream.address).await;
    let http = Http::to(proxy.address);
    let _ = http.get("/health").await.expect(200);
    let _ = http.get("/ready").await.expect(200);
}

/// S5-21, PX-17: a configuration that would not be safe is not run, and every mistake is named.
#[tokio::test]
async fn a_bad_configuration_is_refused_at_the_start() {
    let upstream = Upstream::start().await;
    for (variable, value, key, reason) in [
        (
            "PUBLIC_URL",
            "http://mcp.example.com",
            "PUBLIC_URL",
            "https://",
        ),
        (
            "PUBLIC_URL",
            "https://mcp.example.com/mcp",
            "PUBLIC_URL",
            "path",
        ),
        (
            "PUBLIC_URL",
            "ftp://mcp.example.com",
            "PUBLIC_URL",
            "https://",
        ),
        ("PASSPHRASE", "short", "PASSPHRASE", "12 characters"),
        ("UPSTREAM_KEY", "", "one.credential.bearer", "UPSTREAM_KEY"),
        (
            "UPSTREAM_KEY",
            "a\nb",
            "one.credential.bearer",
            "line break",
        ),
    ] {
        let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
        proxy.set(variable, value);
        proxy.spawn();
        let status = proxy.ended().await;
        let output = proxy.output();
        assert_eq!(status.code(), Some(2), "{output}");
        assert!(output.contains(key) && output.contains(reason), "{output}");
        assert!(!output.contains("listens on"), "{output}");
    }
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    proxy.start().await;
    proxy.stop().await;
}

/// PX-18, case 21: nobody is turned away for the name of their software, here or by a firewall
/// behind.
#[tokio::test]
async fn the_user_agents_of_hosted_clients_are_served_like_any() {
    let world = World::new().await;
    for agent in ["Claude-User", "python-httpx/0.28.1", "curl/8.0", ""] {
        for (method, path, status) in [
            (
                Method::GET,
                "/.well-known/oauth-protected-resource/mcp",
                200,
            ),
            (Method::GET, "/.well-known/oauth-authorization-server", 200),
            (Method::POST, "/register", 400),
            (Method::POST, "/token", 400),
            (Method::POST, "/mcp", 401),
        ] {
            let request = world.client.http.request(method, path);
            let request = request.header(header::USER_AGENT, agent);
            let request = request.body(Body::empty()).unwrap();
            let _ = world.client.http.send(request).await.expect(status);
        }
        let mut request = world.client.call_request(&world.tokens);
        let value = agent.parse().unwrap();
        request.headers_mut().insert(header::USER_AGENT, value);
        let _ = world.client.http.send(request).await.expect(200);
        let own = concat!("mcp-oauth-proxy/", env!("CARGO_PKG_VERSION"));
        assert_eq!(world.upstream.last().headers()["user-agent"], own);
    }
}

/// Line ends, escape sequences and quotes stay within the field that they are in.
#[tokio::test]
async fn nothing_that_a_client_says_becomes_a_line_of_the_log() {
    let mut world = World::new().await;
    let hostile = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\n\u{1b}[2J\u{2028}\u{85}\"}";
    let metadata = json!({
        "client_name": hostile,
        "redirect_uris": ["https://claude.ai/api/mcp/auth_callback"],
    });
    let http = world.client.http.clone();
    let registration = http
        .request(Method::POST, "/register")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(metadata.to_string()))
        .unwrap();
    let _ = http.send(registration).await.expect(201);
    let mut call = world.client.call_request(&world.tokens);
    let name = HeaderValue::from_str("\"},{\"message\":\"forged").unwrap();
    call.headers_mut().insert("mcp-name", name);
    let _ = http.send(call).await.expect(200);
    world.proxy.stop().await;

    let output = world.proxy.output();
    assert!(
        output.contains("forged"),
        "nothing of it was logged: {output}"
    );
    assert!(!output.contains('\u{1b}'));
    for line in output.lines().filter(|line| line.contains("forged")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_ne!(line["message"], "forged");
    }
}
