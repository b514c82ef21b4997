//! Logs, metrics and health (of LG): what others can write into them, and read out of them.

use std::{collections::BTreeSet, sync::Arc};

use axum::body::Body;
use http::{HeaderValue, Method, header};
use serde_json::{Map, Value, json};

use super::{
    case::{Case, case},
    guessing::WRONG,
    refusal::Refusal::Bare,
    support::{
        UPSTREAM_KEY,
        client::{Client, Http, Tokens},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "N-LG-08",
            "log lines written by clients: line breaks, ESC, quotes, a megabyte, keys",
            forged_lines,
        ),
        case(
            "N-LG-09",
            "a hundred thousand names, each to become a metric",
            endless_labels,
        ),
        case(
            "N-LG-10",
            "learning from metrics and health who comes here",
            shown_to_anybody,
        ),
    ]
}

/// What would end a field, a line or the quiet of a terminal, and begin a line of its own.
const FORGED: &str = "x\u{1b}[2J\u{1b}]0;x\u{7}\"}\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\n\
                      2026-01-01T00:00:00.000000Z ERROR forged\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\
                      \u{e0041}\u{7f}\u{9b}2J\0'\\";
/// What of it acts on the text around it, besides control characters.
const ACTING: [char; 6] = [
    '\u{2028}',
    '\u{2029}',
    '\u{202e}',
    '\u{2066}',
    '\u{200b}',
    '\u{e0041}',
];
/// What of it a header may carry.
const VISIBLE: &str = "x\"},{\"level\":\"ERROR\",\"message\":\"forged\"}\\u001b\\n'";

async fn forged_lines(world: Arc<World>) {
    let mut world = world
        .another("trusted_proxies.ranges = [\"127.0.0.1\"]")
        .await;
    for level in ["info", "trace"] {
        // To a file, or another program, each line is one of JSON.
        let lines = logged(&mut world, level).await;
        for line in lines.lines() {
            is_visible(line);
            let line: Map<String, Value> = serde_json::from_str(line).expect(line);
            let (told, text) = (&line["level"], &line["message"]);
            assert!(told != "ERROR" && text != "forged", "{line:?}");
        }
        is_brief(&lines, level);
    }
    // On a terminal each begins with the time. Not so at the level at which the TLS library prints
    // its own messages over several lines.
    let terminal = ["script", "-qef", "/dev/null", "-c"];
    world.proxy.run_under(&terminal);
    world.proxy.set("NO_COLOR", "1");
    for level in ["info", "debug"] {
        let lines = logged(&mut world, level).await;
        for line in lines.lines() {
            let (time, rest) = line.trim_start().split_once(' ').expect(line);
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line:?}");
            let told = rest.trim_start().split(' ').next();
            let told = told.unwrap_or_default();
            assert!(
                ["TRACE", "DEBUG", "INFO", "WARN"].contains(&told),
                "{line:?}"
            );
            is_visible(line);
        }
        is_brief(&lines, level);
    }
    // To kill what runs it would leave the program itself.
    world.proxy.stop().await;
}

/// Whoever looks at it, on a terminal or in a viewer, sees what is there.
#[track_caller]
fn is_visible(line: &str) {
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(!line.contains(ACTING), "{line:?}");
}

/// Something was planted, and none of it makes the log longer than it has to be, or takes a key
/// into it.
#[track_caller]
fn is_brief(lines: &str, level: &str) {
    assert!(lines.contains("forged"), "{lines}");
    assert!(lines.contains("/mcp-x/…"), "{lines}");
    assert!(!lines.contains(UPSTREAM_KEY), "{lines}");
    if level == "info" {
        let longest = lines.lines().map(str::len).max();
        assert!(longest < Some(1_200), "{longest:?}: {lines}");
    }
}

/// What is logged at this level while somebody tries to write into the log.
async fn logged(world: &mut World, level: &str) -> String {
    /// Where the text ends that every start begins with.
    const STARTED: &str = "what you chose as passphrase or PIN.";
    const LAST: &str = "The Last One";
    let known = world.proxy.output().len();
    world.restart_with(&[("RUST_LOG", level)]).await;
    world.proxy.says(known, STARTED).await;
    plant(world).await;
    let last = json!({ "client_name": LAST, "redirect_uris": ["https://client.example/cb"] });
    let _ = Client::register_as(&world.elsewhere(), &last).await;
    let new = world.proxy.says(known, LAST).await;
    let (_, lines) = new.rsplit_once(STARTED).unwrap();
    // What is yet to come of the last one is no line.
    let end = lines.rfind('\n').unwrap() + 1;
    lines[..end].trim_start().to_owned()
}

/// Writes it wherever a client may write something.
async fn plant(world: &World) {
    let http = &world.http;
    let metadata = json!({ "client_name": FORGED, "redirect_uris": ["https://evil.example/cb"] });
    let client = Client::register_as(&world.elsewhere(), &metadata).await;
    let page = client.opens_consent().await;
    let _ = http.send(page.answer(http, "", "deny")).await.expect(303);
    let tokens = client.sign_in().await;

    // Where the request is parsed.
    let (host, megabyte) = (world.proxy.address, "x\u{1b}".repeat(512 * 1024));
    let long = "\"}{".repeat(5_000);
    for head in [
        format!("GET /mcp-{VISIBLE} HTTP/1.1\r\nhost: {host}"),
        format!("GET /mcp{FORGED} HTTP/1.1\r\nhost: {host}"),
        format!("GET /mcp%0a%1b%5b2Jforged HTTP/1.1\r\nhost: {host}"),
        format!("GET /mcp-{long} HTTP/1.1\r\nhost: {host}"),
        // Of a server that has its key in its address, tried here too.
        format!("GET /{UPSTREAM_KEY}/sse HTTP/1.1\r\nhost: {host}"),
        format!("GET /mcp-x/{UPSTREAM_KEY} HTTP/1.1\r\nhost: {host}"),
        format!("GET http://u:{UPSTREAM_KEY}@evil.example/ HTTP/1.1\r\nhost: {host}"),
        format!("GET / HTTP/1.1\r\nhost: {VISIBLE}"),
        format!("GET / HTTP/1.1\r\nhost: {FORGED}"),
        "GET / HTTP/1.1\r\nhost: \u{9b}2J\u{85}".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: {long}"),
        format!("GET http://u:{VISIBLE}@evil.example/ HTTP/1.1\r\nhost: {host}"),
        format!("FORGED'|~`!#$%^&* /mcp HTTP/1.1\r\nhost: {host}"),
        format!("{} /mcp HTTP/1.1\r\nhost: {host}", "FORGED".repeat(1_000)),
        format!("GET /mcp HTTP/1.1\r\nhost: {host}\r\nuser-agent: {long}"),
        format!("GET /mcp HTTP/1.1\r\nhost: {host}\r\nuser-agent: {megabyte}"),
        format!("GET /mcp HTTP/{FORGED}\r\nhost: {host}"),
    ] {
        let mut wire = Wire::open(http).await;
        wire.send(format!("{head}\r\nconnection: close\r\n\r\n"))
            .await;
        let _ = wire.rest().await;
    }

    // In every header that is looked at.
    let odd = HeaderValue::from_bytes(b"x\xc2\x85\x9b2J\t\"").unwrap();
    for value in [&HeaderValue::from_static(VISIBLE), &odd] {
        let calls = HeaderValue::from_static("tools/call");
        for headers in [
            &[("mcp-method", value)][..],
            &[("mcp-method", &calls), ("mcp-name", value)],
            &[("mcp-session-id", value), ("mcp-protocol-version", value)],
            &[("origin", value)],
            &[("authorization", value)],
            &[("user-agent", value), ("referer", value)],
        ] {
            let mut call = client.call_request(&tokens);
            for (name, value) in headers {
                call.headers_mut().insert(*name, (*value).clone());
            }
            let _ = http.send(call).await;
        }
        let mut wrong = page.answer(http, WRONG, "approve");
        wrong.headers_mut().insert("x-forwarded-for", value.clone());
        let _ = http.send(wrong).await;
        let mut wrong = page.answer(http, WRONG, "approve");
        wrong.headers_mut().insert(header::COOKIE, value.clone());
        let _ = http.send(wrong).await;
    }

    // And in every parameter.
    let (authorization, refresh) = (client.authorization(), client.refreshment(FORGED));
    for name in [
        "client_id",
        "redirect_uri",
        "response_type",
        "state",
        "scope",
        "resource",
    ] {
        let query = authorization.clone().with(name, FORGED).encoded();
        let _ = http.get(&format!("/authorize?{query}")).await;
    }
    for name in ["client_id", "client_secret", "grant_type", "code", FORGED] {
        let _ = http
            .send(http.form("/token", &refresh.clone().with(name, FORGED)))
            .await;
    }
}

async fn endless_labels(world: Arc<World>) {
    const NAMES: u32 = 100_000;
    const BATCH: u32 = 200;
    let mut world = world.another("").await;
    // To log each would be most of the work.
    world.restart_with(&[("RUST_LOG", "error")]).await;
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let host = world.proxy.address;
    let named = |number: u32| match number % 20 {
        0 => format!("GET /authorize?client_id=client{number} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        1 => format!("GET / HTTP/1.1\r\nhost: host{number}.example\r\n\r\n"),
        2 => format!("METHOD{number} /mcp HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        3 => format!(
            "GET /mcp/{number} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer x{number}\r\n\
             mcp-method: method/{number}\r\nmcp-name: tool{number}\r\n\r\n"
        ),
        even if even % 2 == 0 => format!("GET /path{number} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        _ => {
            let form = format!("client_id=client.{number}&grant_type=refresh_token");
            format!(
                "POST /token HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\
                 content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
                form.len()
            )
        }
    };
    let ask = async |numbers: std::ops::Range<u32>| {
        let mut wire = Wire::open(&world.http).await;
        let numbers: Vec<u32> = numbers.collect();
        for numbers in numbers.chunks(BATCH as usize) {
            let requests: Vec<String> = numbers.iter().map(|number| named(*number)).collect();
            for answer in wire.pipelined(&requests).await {
                assert!(answer.status.is_client_error(), "{answer:#?}");
            }
        }
    };
    // What a client that was approved says is no label either.
    let call = async |number: u32| {
        let mut call = client.call_request(&tokens);
        let headers = call.headers_mut();
        headers.insert("mcp-protocol-version", "2026-07-28".parse().unwrap());
        headers.insert("mcp-method", "tools/call".parse().unwrap());
        let tool = format!("tool{number}").parse().unwrap();
        headers.insert("mcp-name", tool);
        *call.body_mut() = Body::from(format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"tool{number}"}}}}"#
        ));
        let _ = client.http.send(call).await.expect(200);
    };
    ask(0..BATCH).await;
    call(0).await;
    let (series, not_found) = (series(&world).await, world.metric("not_found_total").await);
    let page = |world: &World| Http::to(world.proxy.metrics);
    let size = page(&world).get("/metrics").await.body.len();
    world.unchanged(ask(BATCH..NAMES)).await;
    for number in 1..100 {
        call(number).await;
    }
    assert_eq!(self::series(&world).await, series);
    let grown = page(&world).get("/metrics").await.body.len() - size;
    assert!(grown < 500, "{grown} bytes more");
    // Each was counted, though.
    let each = not_found / u64::from(BATCH / 20);
    let counted = world.metric("not_found_total").await;
    assert_eq!(counted, each * u64::from(NAMES / 20));
}

/// Every name with its labels that the metrics have.
async fn series(world: &World) -> BTreeSet<String> {
    let page = Http::to(world.proxy.metrics).get("/metrics").await.text();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
    series.collect()
}

async fn shown_to_anybody(world: Arc<World>) {
    // One where nobody came before.
    let world = world.another("").await;
    assert!(
        world
            .proxy
            .check_without_configuration()
            .contains("metrics                      off\n")
    );
    let name = "A Name Of Its Own";
    let uri = "https://whoever.example/cb";
    let metadata = json!({ "client_name": name, "redirect_uris": [uri] });
    let client = Client::register_as(&world.elsewhere(), &metadata).await;
    let tokens = world.lets_in(&client, &client.authorization()).await;
    let mut call = client.call_request(&tokens);
    let headers = call.headers_mut();
    headers.insert("mcp-method", "tools/call".parse().unwrap());
    headers.insert("mcp-name", "a-tool-of-its-own".parse().unwrap());
    *call.body_mut() = Body::from(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a-tool-of-its-own"}}"#,
    );
    let _ = client.http.send(call).await.expect(200);
    let _ = world.http.get("/a-path-of-its-own").await.expect(404);

    // Nothing is asked, and nothing is said of anybody.
    let metrics = Http::to(world.proxy.metrics);
    let page = metrics.get("/metrics").await.expect(200);
    let type_of = page.header("content-type").to_owned();
    assert!(type_of.starts_with("application/openmetrics-text"));
    assert!(
        page.text()
            .contains("mcp_oauth_proxy_calls_total{upstream=\"one\"")
    );
    let Tokens {
        access_token,
        refresh_token,
    } = &tokens;
    for said in [
        name,
        "whoever.example",
        "of-its-own",
        "owner",
        "127.",
        world.proxy.data_dir().to_str().unwrap(),
        UPSTREAM_KEY,
        &client.id,
        access_token,
        refresh_token,
        &world.upstream.address.to_string(),
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(!page.text().contains(said), "{said}: {}", page.text());
    }

    metrics_stay_there(&world, &metrics).await;
    health_says_little(&world).await;
}

/// Metrics and nothing else on their own listener, and none of them where clients come.
async fn metrics_stay_there(world: &World, metrics: &Http) {
    let asked = async |method: Method, path: &str| {
        let request = metrics.request(method, path).body(Body::empty()).unwrap();
        world.unchanged(metrics.send(request)).await
    };
    for path in [
        "/",
        "/health",
        "/mcp",
        "/metrics/",
        "/metrics/x",
        "//metrics",
        "/token",
    ] {
        let answer = asked(Method::GET, path).await;
        Bare(404).check(&answer, &world.issuer);
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = asked(method, "/metrics").await;
        Bare(405).check(&answer, &world.issuer);
    }
    for path in [
        "/metrics",
        "/metrics/",
        "//metrics",
        "/healthz",
        "/debug",
        "/status",
    ] {
        let answer = world.unchanged(world.http.get(path)).await;
        assert_eq!(answer.json()["error"], "not_found");
    }
}

async fn health_says_little(world: &World) {
    for (path, says) in [("/health", "ok"), ("/ready", "ready")] {
        for path in [path.to_owned(), format!("{path}?verbose=1")] {
            let answer = world.unchanged(world.http.get(&path)).await.expect(200);
            assert_eq!(answer.json(), json!({ "status": says }));
            says_nothing_of_itself(&answer.headers);
        }
    }
    let not_ready = async {
        // What was seen before the store went may still be believed.
        loop {
            let answer = world.http.get("/ready").await;
            if answer.status == 503 {
                break answer;
            }
        }
    };
    let not_ready = world.without_store(not_ready).await;
    let says = json!({
        "error": "temporarily_unavailable",
        "error_description": "the server cannot reach its store, try again shortly",
    });
    assert_eq!(not_ready.json(), says);
    says_nothing_of_itself(&not_ready.headers);
    while world.http.get("/ready").await.status != 200 {}
}

/// Not which program answers, nor in which version.
#[track_caller]
fn says_nothing_of_itself(headers: &http::HeaderMap) {
    for name in headers.keys() {
        let usual = [
            "cache-control",
            "content-length",
            "content-type",
            "date",
            "retry-after",
        ];
        assert!(usual.contains(&name.as_str()), "{headers:?}");
    }
}
