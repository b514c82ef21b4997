//! The program behind nginx, set up as the README says.
//!
//! `STREAM_SECONDS=150 cargo test --test fronts` takes real times: a stream of that length, through
//! an nginx that ends what is silent for 60 s.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use support::{
    client::{Client, Http, Tokens},
    nginx::Nginx,
    proxy::{Proxy, free_address},
    say,
    upstream::Upstream,
};
use tokio::time::{Instant, timeout};

const COMMENT: &str = ": keep-alive\n\n";

/// An address that nobody has.
const MADE_UP: &str = "203.0.113.50";

/// How long things take.
struct Times {
    /// What nginx lets be silent.
    silence: &'static str,
    /// What the proxy does.
    keep_alive: &'static str,
    stream: Duration,
}

impl Times {
    fn chosen() -> Self {
        match std::env::var("STREAM_SECONDS") {
            Ok(seconds) => Self {
                silence: "60s",
                keep_alive: "20s",
                stream: Duration::from_secs(seconds.parse().unwrap()),
            },
            Err(_) => Self {
                silence: "2s",
                keep_alive: "1s",
                stream: Duration::from_secs(5),
            },
        }
    }
}

/// A client behind nginx.
struct World {
    upstream: Upstream,
    proxy: Proxy,
    client: Client,
    tokens: Tokens,
    #[expect(dead_code, reason = "it ends with this")]
    nginx: Nginx,
}

impl World {
    async fn new(keep_alive: &str, silence: &str) -> Option<Self> {
        let upstream = Upstream::start().await;
        let front = free_address();
        let proxy = Proxy::with(
            upstream.address,
            &format!(
                "public_url = \"http://{front}\"\n\
                 trusted_proxies.ranges = [\"127.0.0.1\"]\n\
                 limits.stream_keep_alive = \"{keep_alive}\""
            ),
        )
        .await;
        let changes = [
            ("127.0.0.1:8080", &*proxy.address.to_string()),
            (
                "proxy_read_timeout 320s;",
                &format!("proxy_read_timeout {silence};"),
            ),
        ];
        let nginx = Nginx::start(front, &changes).await?;
        let client = Client::register(&Http::to(front)).await;
        let tokens = client.sign_in().await;
        Some(Self {
            upstream,
            proxy,
            client,
            tokens,
            nginx,
        })
    }

    fn ask(&self, method: Method) -> Request<Body> {
        let mut request = self.client.call_request(&self.tokens);
        if method == Method::GET {
            *request.body_mut() = Body::empty();
            let accept = "text/event-stream".parse().unwrap();
            request.headers_mut().insert(header::ACCEPT, accept);
        }
        *request.method_mut() = method;
        request
    }
}

/// What comes within that time, and whether that was the end.
async fn heard(body: &mut Incoming, within: Duration) -> (String, bool) {
    let until = Instant::now() + within;
    let mut heard = String::new();
    loop {
        match tokio::time::timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                heard += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
            }
            Ok(_) => return (heard, true),
            Err(_) => return (heard, false),
        }
    }
}

/// Case 14: a stream with nothing to say, and a slow tool that answers as one.
#[tokio::test]
async fn a_silent_stream_outlives_what_nginx_lets_be_silent() {
    let times = Times::chosen();
    let Some(world) = World::new(times.keep_alive, times.silence).await else {
        return;
    };
    let streams = [Method::GET, Method::POST].map(async |method| {
        let events = world.upstream.streams();
        let begun = Instant::now();
        let mut stream = world
            .client
            .http
            .open(world.ask(method.clone()))
            .await
            .unwrap();
        assert_eq!(stream.status(), 200);
        let (first, is_over) = heard(stream.body_mut(), Duration::from_millis(900)).await;
        assert_eq!((&*first, is_over), (COMMENT, false), "at once");
        let (silence, is_over) = heard(stream.body_mut(), times.stream).await;
        assert!(!is_over, "it was cut after {:?}", begun.elapsed());
        let comments = silence.matches(COMMENT).count();
        assert_eq!(silence, COMMENT.repeat(comments));
        assert!(comments >= 3, "{comments} comments");
        events.send("data: 1\n\n".into()).unwrap();
        let (event, _) = heard(stream.body_mut(), Duration::from_millis(500)).await;
        assert!(event.ends_with("data: 1\n\n"), "{event:?}");
        say(&format!(
            "fronts: {method}: a silent stream lived {:?} behind nginx with proxy_read_timeout {}, \
             with {} comments",
            begun.elapsed(),
            times.silence,
            comments + 1
        ));
    });
    let [get, post] = streams;
    // One after the other is queued at the upstream, so one after the other is asked.
    get.await;
    post.await;
}

/// Case 14, the twin: without the comments it is cut, as before.
#[tokio::test]
async fn without_comments_nginx_cuts_a_silent_stream() {
    let Some(world) = World::new("off", "2s").await else {
        return;
    };
    let events = world.upstream.streams();
    let mut stream = world
        .client
        .http
        .open(world.ask(Method::GET))
        .await
        .unwrap();
    events.send(COMMENT.into()).unwrap();
    let (first, is_over) = heard(stream.body_mut(), Duration::from_secs(1)).await;
    assert_eq!((&*first, is_over), (COMMENT, false));
    let (silence, is_over) = heard(stream.body_mut(), Duration::from_secs(4)).await;
    assert_eq!((&*silence, is_over), ("", true));
}

/// Case 12, and the traps of an operator: what nginx alone would refuse, and whom it would have the
/// proxy believe.
#[tokio::test]
async fn the_block_in_the_readme_lets_large_calls_in_and_no_made_up_address() {
    let Some(world) = World::new("20s", "320s").await else {
        return;
    };
    let mut large = world.ask(Method::POST);
    let padding = "x".repeat(2 * 1024 * 1024);
    *large.body_mut() = Body::from(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":"{padding}"}}"#
    ));
    let _ = world.client.http.send(large).await.expect(200);

    // A request without any User-Agent is none of anybody's business, with or without a token.
    let request = world.client.http.request(Method::POST, "/mcp");
    let bare = request.body(Body::empty()).unwrap();
    assert!(!bare.headers().contains_key(header::USER_AGENT));
    let challenge = world.client.http.send(bare).await.expect(401);
    assert!(challenge.headers.contains_key(header::WWW_AUTHENTICATE));

    for _ in 0..100 {
        let mut wrong = world.ask(Method::POST);
        let headers = wrong.headers_mut();
        headers.insert("x-forwarded-for", MADE_UP.parse().unwrap());
        headers.insert(header::AUTHORIZATION, "Bearer mopa_x".parse().unwrap());
        if world.client.http.send(wrong).await.status == 429 {
            break;
        }
    }
    let told = timeout(Duration::from_secs(10), world.proxy.says(0, "wrong_tokens"));
    let told = told.await.unwrap();
    assert!(
        !told.contains(MADE_UP) && told.contains("127.0.0.1"),
        "{told}"
    );
}
