//! Limits of the program as it is run: their keys, their metrics, and what is left behind.

use serde_json::json;
use sqlx::{AnyConnection, Connection, raw_sql};

use super::{
    World,
    support::{
        client::{Client, Http},
        proxy::Proxy,
        say,
        upstream::Upstream,
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
        http.request(http::Method::POST, "/register")
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
        ("RegistrationsPerAddress", 3),
        ("CallsPerGrant", 1),
        ("WrongTokens", 1),
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
