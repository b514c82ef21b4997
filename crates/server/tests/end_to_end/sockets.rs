//! Requests that no HTTP library would send.

use tokio::time::Instant;

use super::{World, support::wire::Wire};

impl World {
    /// Sends `bytes` as they are, and reads until the proxy closes.
    async fn raw(&self, bytes: &str) -> String {
        let mut wire = Wire::open(&self.client.http).await;
        wire.send(bytes).await;
        wire.rest().await
    }

    /// A call with a good token, these header lines, and this after the head. The connection is to
    /// close after it.
    fn call(&self, lines: &str, content: &str) -> String {
        let (host, token) = (self.proxy.address, &self.tokens.access_token);
        format!(
            "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
             connection: close\r\n{lines}\r\n{content}"
        )
    }

    fn calls(&self) -> usize {
        self.upstream.received().len()
    }
}

#[track_caller]
fn status(answer: &str) -> u16 {
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    let status = status.and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

/// RS-26, N-RS-05
#[tokio::test]
async fn two_authorization_lines_are_refused() {
    let world = World::new().await;
    let second = format!("Authorization: Bearer {}\r\n", world.tokens.access_token);
    for second in [second.as_str(), "AUTHORIZATION: Basic eDp5\r\n"] {
        assert_eq!(status(&world.raw(&world.call(second, "")).await), 400);
    }
    assert_eq!(world.calls(), 0);

    assert_eq!(status(&world.raw(&world.call("", "")).await), 200);
    assert_eq!(world.calls(), 1);
}

/// PX-04, N-HD-01, N-HD-02: one request is one request, whatever is said about its length.
#[tokio::test]
async fn a_request_with_two_lengths_is_read_as_chunked_and_the_last_of_its_connection() {
    let world = World::new().await;
    let hidden = world.call("x-hidden: 1\r\ncontent-length: 0\r\n", "");
    let content = format!("3\r\nabc\r\n0\r\n\r\n{hidden}");
    for (number, lines) in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    ]
    .iter()
    .enumerate()
    {
        let open = world
            .call(lines, &content)
            .replacen("connection: close\r\n", "", 1);
        let answer = world.raw(&open).await;
        assert_eq!(status(&answer), 200);
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert_eq!(world.calls(), number + 1);
        let got = world.upstream.last();
        assert_eq!(got.body(), "abc");
        // Framed anew: what the client said of its length is gone.
        assert_eq!(got.headers()["content-length"], "3");
    }
}

/// PX-04, N-HD-03, N-HD-06, N-HD-07, N-HD-08
#[tokio::test]
async fn lengths_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let chunked = "3\r\nabc\r\n0\r\n\r\n";
    for (lines, content) in [
        ("transfer-encoding: chunked, identity\r\n", chunked),
        ("transfer-encoding: identity\r\n", chunked),
        ("transfer-encoding: xchunked\r\n", chunked),
        ("content-length: 3\r\ncontent-length: 4\r\n", "abc"),
        ("content-length: +3\r\n", "abc"),
        ("content-length: 0x3\r\n", "abc"),
        ("content-length: 3,4\r\n", "abc"),
        ("content-length: -1\r\n", "abc"),
        ("content-length: 18446744073709551616\r\n", "abc"),
        ("content-length : 3\r\n", "abc"),
        ("x: a\r\n b: c\r\n", ""),
        ("x: a\u{0}b\r\n", ""),
        ("x: a\rb\r\n", ""),
    ] {
        let answer = world.raw(&world.call(lines, content)).await;
        assert_eq!(status(&answer), 400, "{lines:?}");
    }
    assert_eq!(world.calls(), 0);

    for (lines, content) in [
        ("transfer-encoding: chunked\r\n", chunked),
        ("content-length: 3\r\n", "abc"),
    ] {
        assert_eq!(status(&world.raw(&world.call(lines, content)).await), 200);
        assert_eq!(world.upstream.last().body(), "abc");
    }
}

/// N-RS-16, N-HD-13, N-HD-14 (RFC 9112 §3.2)
#[tokio::test]
async fn a_request_without_exactly_one_host_is_refused() {
    let world = World::new().await;
    let one = format!("host: {}\r\n", world.proxy.address);
    let good = world.call("", "");
    assert_eq!(status(&world.raw(&good).await), 200);
    for bad in [
        good.replacen(&one, "", 1),
        good.replacen(&one, &one.repeat(2), 1),
    ] {
        assert_eq!(status(&world.raw(&bad).await), 400, "{bad}");
    }
    let elsewhere = good.replacen(&one, "host: evil.example\r\n", 1);
    assert_eq!(status(&world.raw(&elsewhere).await), 421);
    assert_eq!(world.calls(), 1);
}

/// N-RS-09, N-RS-17, N-RS-19, PX-05
#[tokio::test]
async fn odd_request_lines_lead_nowhere_else() {
    let world = World::new().await;
    let good = world.call("", "");
    for (line, expected) in [
        ("POST /mcp\u{0} HTTP/1.1", 400),
        ("POST /mcp HTTP/9.9", 400),
        ("POST  /mcp HTTP/1.1", 400),
        ("POST mcp HTTP/1.1", 421),
        ("POST /mcp/../x HTTP/1.1", 404),
        ("POST //mcp HTTP/1.1", 404),
        ("TRACE /mcp HTTP/1.1", 405),
    ] {
        let bad = good.replacen("POST /mcp HTTP/1.1", line, 1);
        assert_eq!(status(&world.raw(&bad).await), expected, "{line:?}");
    }
    let elsewhere = good.replacen("/mcp", "http://evil.example/mcp", 1);
    assert_eq!(status(&world.raw(&elsewhere).await), 421);
    assert_eq!(world.calls(), 0);

    let here = format!("http://{}/mcp", world.proxy.address);
    let absolute = good.replacen("/mcp", &here, 1);
    assert_eq!(status(&world.raw(&absolute).await), 200);
    let got = world.upstream.last();
    assert_eq!(got.headers()["host"], world.upstream.address.to_string());
}

/// PX-04, N-HD-18: the connection is not handed over to another protocol.
#[tokio::test]
async fn an_upgrade_is_not_passed_on() {
    let world = World::new().await;
    let lines =
        "upgrade: websocket\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nte: trailers\r\n";
    let request = world.call(lines, "bytes after it").replacen(
        "connection: close",
        "connection: upgrade, close, http2-settings",
        1,
    );
    assert_eq!(status(&world.raw(&request).await), 200);
    let got = world.upstream.last();
    for name in ["upgrade", "connection", "http2-settings", "te"] {
        assert!(!got.headers().contains_key(name), "{name}");
    }
    assert_eq!(got.body(), "");
}

/// N-HD-11
#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let world = World::new().await;
    let long = format!("x: {}\r\n", "x".repeat(64 * 1024));
    let many = "x: y\r\n".repeat(200);
    for lines in [&long, &many] {
        assert_eq!(status(&world.raw(&world.call(lines, "")).await), 431);
    }
    assert_eq!(world.calls(), 0);
    let fair = format!("x: {}\r\n", "x".repeat(8 * 1024));
    assert_eq!(status(&world.raw(&world.call(&fair, "")).await), 200);
}

/// A connection that never gets to the point is closed.
#[tokio::test]
async fn half_a_head_is_waited_for_ten_seconds() {
    let world = World::new().await;
    let started = Instant::now();
    let half = world.call("", "");
    let answer = world.raw(&half[..half.len() - 4]).await;
    let took = started.elapsed();
    assert!(answer.is_empty() || status(&answer) == 408, "{answer}");
    assert!((8..=14).contains(&took.as_secs()), "closed after {took:?}");
    assert_eq!(world.calls(), 0);
}
