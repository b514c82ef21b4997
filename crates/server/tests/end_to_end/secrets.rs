//! Secrets stay where they belong.

use std::fs;

use http::header;

use super::support::{
    PASSPHRASE, UPSTREAM_KEY,
    canary::Canary,
    client::{Answer, Client, Http, Tokens, VERIFIER},
    proxy::Proxy,
    upstream::Upstream,
};

/// Every response, by what it answers, with all that the other side can read.
fn read_by_the_client(answer: &Answer) -> (String, Vec<u8>) {
    let mut text = format!("{:?}\n", answer.headers).into_bytes();
    // Once more as they are, since `Debug` escapes.
    for value in answer.headers.values() {
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(&answer.body);
    (answer.to.clone(), text)
}

/// S1-02, S1-16, S5-19, TK-24, PX-02, PX-16: the whole flow at the most talkative level, then a
/// search of everything that was written or sent.
#[tokio::test]
async fn no_secret_is_in_logs_metrics_store_or_answers_that_it_is_not_for() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    proxy.set("RUST_LOG", "trace");
    proxy.start().await;
    let http = Http::to(proxy.address);
    let client = Client::register(&http).await;

    let consent = client.opens_consent().await;
    let _ = client
        .approve(&consent, "not the passphrase")
        .await
        .expect(401);
    let redirect = client.approve(&consent, PASSPHRASE).await.expect(303);
    let code = Client::code(&redirect);
    let first = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.redeem(&code).await.expect(400);
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = client.refresh(&first).await.expect(200);
    for tokens in [&first, &second] {
        let _ = client.call(tokens).await.expect(200);
    }
    let mut by_query = client.call_request(&second);
    let query = format!("/mcp?access_token={}", second.access_token);
    *by_query.uri_mut() = query.parse().unwrap();
    by_query.headers_mut().remove(header::AUTHORIZATION);
    let _ = http.send(by_query).await.expect(401);
    let metrics = Http::to(proxy.metrics).get("/metrics").await.expect(200);

    let cookie = consent.cookie.split_once('=').unwrap().1;
    // Each secret, and the answers that bring it to the one it is for.
    let canaries = [
        (Canary::new("the upstream's key", UPSTREAM_KEY), ""),
        (Canary::new("the passphrase", PASSPHRASE), ""),
        (Canary::new("the verifier", VERIFIER), ""),
        (Canary::new("the cookie", cookie), "GET /authorize"),
        (Canary::new("the code", &code), "POST /consent"),
        (
            Canary::new("the client's secret", client.secret.as_deref().unwrap()),
            "POST /register",
        ),
        (
            Canary::new("the first access token", &first.access_token),
            "POST /token",
        ),
        (
            Canary::new("the first refresh token", &first.refresh_token),
            "POST /token",
        ),
        (
            Canary::new("the second access token", &second.access_token),
            "POST /token",
        ),
        (
            Canary::new("the second refresh token", &second.refresh_token),
            "POST /token",
        ),
    ];

    let answers: Vec<_> = http.seen().iter().map(read_by_the_client).collect();
    for (canary, brought_by) in &canaries {
        for (to, text) in &answers {
            if to != brought_by {
                canary.is_not_in(&format!("the answer to {to}"), text);
            }
        }
        let is_found = answers
            .iter()
            .any(|(to, text)| to == brought_by && canary.found_in(text).is_some());
        assert_eq!(is_found, !brought_by.is_empty(), "{}", canary.name);
        canary.is_not_in("the metrics", &metrics.body);
        for (name, content) in files(&proxy) {
            canary.is_not_in(&name, &content);
        }
    }
    assert!(metrics.text().contains("mcp_oauth_proxy_calls_total"));

    proxy.stop().await;
    let output = proxy.output();
    assert!(output.contains("TRACE") && output.contains("a code was redeemed"));
    for (canary, _) in &canaries {
        canary.is_not_in("the output", output.as_bytes());
        for (name, content) in files(&proxy) {
            canary.is_not_in(&name, &content);
        }
    }
}

/// The files of the data directory: the store, its log, and whatever else is there.
fn files(proxy: &Proxy) -> Vec<(String, Vec<u8>)> {
    let files: Vec<_> = fs::read_dir(proxy.data_dir())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(path).unwrap())
        })
        .collect();
    let store = files.iter().find(|(name, _)| name.ends_with(".sqlite"));
    assert!(store.is_some_and(|(_, content)| !content.is_empty()));
    files
}
