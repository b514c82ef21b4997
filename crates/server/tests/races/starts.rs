//! Processes that start at the same moment.

use super::{
    ROUNDS,
    support::{
        client::{Client, Http, Tokens},
        postgres::Schema,
        proxy::Proxy,
        say,
        upstream::Upstream,
    },
};

#[tokio::test]
async fn rc_12_three_processes_on_an_empty_database_set_it_up_once() {
    let rounds = std::env::var("STARTS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let upstream = Upstream::start().await;
    for _ in 0..rounds {
        let Some(schema) = Schema::new("rc_12").await else {
            return;
        };
        let store = format!("store = \"{}\"", schema.url);
        let mut proxies: Vec<Proxy> = Vec::new();
        for _ in 0..3 {
            let mut proxy = Proxy::prepared(upstream.address, &store);
            match proxies.first() {
                None => std::fs::create_dir(proxy.data_dir()).unwrap(),
                Some(first) => {
                    proxy.share_data_dir_of(first);
                    proxy.set("PUBLIC_URL", &format!("http://{}", first.address));
                }
            }
            proxies.push(proxy);
        }
        for proxy in &mut proxies {
            proxy.spawn();
        }
        for proxy in &mut proxies {
            proxy.listens().await;
        }
        let client = Client::register(&Http::to(proxies[0].address)).await;
        let tokens = client.sign_in().await;
        for proxy in &proxies {
            let elsewhere = Http::to(proxy.address);
            let called = elsewhere.send(client.call_request(&tokens)).await;
            let _ = called.expect(200);
        }
        let _ = Tokens::of(&client.refresh(&tokens).await.expect(200));
        for proxy in &mut proxies {
            proxy.stop().await;
        }
        schema.remove().await;
    }
    say(&format!("RC-12: {rounds} rounds"));
}
