//! What a start finds out about its MCP servers, while it serves already.

use axum::body::Body;
use http::Response;
use serde_json::Value;
use tokio::sync::oneshot;

use super::support::{
    client::{Client, Http},
    proxy::Proxy,
    upstream::Upstream,
};

/// The one line about a trial in what the log has gained.
fn told(log: &str) -> Value {
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut told = lines.filter(|line| line["upstream"] == "one");
    let one = told.next().unwrap();
    assert!(told.next().is_none(), "{log}");
    one
}

#[tokio::test]
async fn a_start_says_whether_each_server_answers() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::in_front_of(upstream.address).await;
    let line = told(&proxy.output());
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["message"], "the upstream answers");
    proxy.stop().await;

    let known = proxy.output().len();
    let good = format!("http://{}/mcp", upstream.address);
    let wrong = format!("https://{}/mcp", upstream.address);
    proxy.reconfigure(&good, &wrong);
    proxy.start().await;
    let line = told(&proxy.output()[known..]);
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["why"], "no_tls");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("does not speak TLS there"), "{message}");
    // What failed is no reason to end, and nothing that anybody called.
    assert!(!proxy.has_ended());
    assert!(upstream.received().is_empty());
}

/// A server that takes its time keeps nobody waiting: neither the start nor who comes, nor the end.
#[tokio::test]
async fn a_trial_delays_nothing() {
    let upstream = Upstream::start().await;
    let (asked, is_asked) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    upstream.answers_trial(async {
        asked.send(()).unwrap();
        answered.await.unwrap_or_default()
    });
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    proxy.spawn();
    proxy.listens().await;
    is_asked.await.unwrap();
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
    assert!(!proxy.output().contains("the upstream answers"));
    proxy.stop().await;
    drop::<oneshot::Sender<Response<Body>>>(answer);
}
