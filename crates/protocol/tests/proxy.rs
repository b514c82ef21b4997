//! What crosses the proxy in each direction, and what stays on its side.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use protocol::{
    forward::{credential::Credential, upstream_headers::UpstreamHeaders},
    policy::{Destination, Policy},
    ports::UpstreamError,
};
use support::{
    Answer, HOME, TestServer, UPSTREAM_KEY,
    client::{McpClient, Tokens},
    in_time, policy,
};
use tokio::sync::mpsc;

/// One upstream at `/mcp`, and a client that is signed in to it.
async fn signed_in() -> (McpClient, Tokens) {
    signed_in_to(&TestServer::new()).await
}

async fn signed_in_to(server: &TestServer) -> (McpClient, Tokens) {
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    (client, tokens)
}

/// One upstream at `/mcp`, which is at `endpoint` and demands `credential`.
fn in_front_of(endpoint: &str, credential: Credential) -> Policy {
    let mut policy = policy(&[("one", "/mcp")]);
    let upstream = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    upstream.destination = Destination::Remote {
        endpoint: endpoint.parse().unwrap(),
        credential,
    };
    policy
}

/// A call with a good token and these headers beside the usual ones.
fn call(client: &McpClient, tokens: &Tokens, headers: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = client.call_request(tokens);
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// The same to another path or query, with another method.
fn call_at(client: &McpClient, tokens: &Tokens, method: Method, uri: &str) -> Request<Body> {
    let mut request = client.call_request(tokens);
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    request
}

fn response(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body)).unwrap()
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(header::HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

/// The values of a header, however many there are.
fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

/// A body of what comes through a channel, and ends with it.
struct Live(mpsc::UnboundedReceiver<&'static str>);

impl Live {
    fn body() -> (mpsc::UnboundedSender<&'static str>, Body) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Body::new(Self(receiver)))
    }
}

impl http_body::Body for Live {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let chunk = self.0.poll_recv(cx);
        chunk.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk.into()))))
    }
}

async fn next_chunk(body: &mut Body) -> Bytes {
    let frame = in_time(body.frame()).await.unwrap().unwrap();
    frame.into_data().unwrap()
}

/// PX-01, S1-01, S2-18, N-RS-41, N-RS-42, N-HD-15, N-HD-27
#[tokio::test]
async fn the_upstream_gets_the_listed_headers_and_the_operators_key_and_nothing_else() {
    let (client, tokens) = signed_in().await;
    let token = tokens.access_token.as_str();
    let request = call(
        &client,
        &tokens,
        &[
            ("accept-language", "de"),
            ("cookie", "session=1"),
            ("proxy-authorization", "Basic eDp5"),
            ("x-api-key", token),
            ("x-access-token", token),
            ("x_forwarded_for", "192.0.2.9"),
            ("authorization_", "Bearer x"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/admin"),
            ("forwarded", "for=192.0.2.9"),
            ("x-real-ip", "192.0.2.9"),
            ("cf-connecting-ip", "192.0.2.9"),
            ("cf-ray", "1"),
            ("cf-visitor", "{}"),
            ("cf-ipcountry", "DE"),
            ("cdn-loop", "x"),
            ("via", "1.1 x"),
            ("referer", "https://gw.example"),
            ("sec-fetch-site", "cross-site"),
            ("expect", "100-continue"),
        ],
    );
    let _ = client.server.send(request).await.expect(200);

    let got = client.server.upstream.last();
    assert_eq!(
        names(got.headers()),
        [
            "accept",
            "accept-language",
            "authorization",
            "cdn-loop",
            "content-type",
            "user-agent"
        ]
    );
    let key = format!("Bearer {UPSTREAM_KEY}");
    assert_eq!(values(got.headers(), "authorization"), [key]);
    let everything = format!("{} {:?} {:?}", got.uri(), got.headers(), got.body());
    assert!(!everything.contains(token));
}

/// PX-03, S1-01: each kind of credential arrives once, and what the client put in its place does
/// not arrive at all.
#[tokio::test]
async fn each_kind_of_credential_arrives_once_and_the_clients_own_never() {
    let basic = format!("Basic {}", BASE64_STANDARD.encode("me:pass:word"));
    let cases = [
        (
            Credential::bearer(UPSTREAM_KEY).unwrap(),
            ("authorization", Some(format!("Bearer {UPSTREAM_KEY}"))),
            "a=b&key=mine&%6bey=mine&z",
        ),
        (
            Credential::header("X-API-Key", UPSTREAM_KEY).unwrap(),
            ("x-api-key", Some(UPSTREAM_KEY.to_owned())),
            "a=b&key=mine&%6bey=mine&z",
        ),
        (
            Credential::basic("me", "pass:word").unwrap(),
            ("authorization", Some(basic)),
            "a=b&key=mine&%6bey=mine&z",
        ),
        (
            Credential::query("key", "s3cret&more").unwrap(),
            ("authorization", None),
            "a=b&z&key=s3cret%26more",
        ),
        (
            Credential::None,
            ("authorization", None),
            "a=b&key=mine&%6bey=mine&z",
        ),
    ];
    for (credential, (name, value), query) in cases {
        let server = TestServer::with(in_front_of("https://up.example/mcp", credential));
        let (client, tokens) = signed_in_to(&server).await;
        let mut request = call(
            &client,
            &tokens,
            &[
                ("x-api-key", "mine"),
                ("x-api-key", "mine too"),
                ("connection", "authorization, x-api-key"),
            ],
        );
        *request.uri_mut() = "/mcp?a=b&key=mine&%6bey=mine&z".parse().unwrap();

        let _ = server.send(request).await.expect(200);

        let got = server.upstream.last();
        let expected: Vec<&str> = value.as_deref().into_iter().collect();
        assert_eq!(values(got.headers(), name), expected);
        let credentials = got
            .headers()
            .keys()
            .filter(|name| ["authorization", "x-api-key", "cookie"].contains(&name.as_str()));
        assert_eq!(credentials.count(), expected.len(), "{got:?}");
        assert_eq!(got.uri().query(), Some(query));
        let text = format!("{:?}", got.headers());
        assert!(!text.contains(&tokens.access_token) && !text.contains("mine"));
    }
}

/// PX-03: the same where the client's own header would cross.
#[tokio::test]
async fn a_credential_replaces_a_header_that_would_cross() {
    let credential = Credential::header("User-Agent", UPSTREAM_KEY).unwrap();
    let server = TestServer::with(in_front_of("https://up.example/mcp", credential));
    let (client, tokens) = signed_in_to(&server).await;
    let headers = [("user-agent", "mine"), ("user-agent", "mine too")];

    let _ = server
        .send(call(&client, &tokens, &headers))
        .await
        .expect(200);

    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "user-agent"), [UPSTREAM_KEY]);
}

/// One upstream at `/mcp` that wants these headers.
fn with_headers(credential: Credential, headers: UpstreamHeaders) -> Policy {
    let mut policy = in_front_of("https://up.example/mcp", credential);
    let upstream = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    upstream.headers = headers;
    policy
}

/// Case 26: a tenant and a key beside the credential. The neighbour: no client can take them off or
/// put its own beside them, by their names or by `Connection`.
#[tokio::test]
async fn fixed_headers_arrive_once_and_the_clients_own_never() {
    let mut headers = UpstreamHeaders::default();
    headers.fix("X-Tenant", "7").unwrap();
    headers.fix("X-API-Key", "s3cret").unwrap();
    let credential = Credential::bearer(UPSTREAM_KEY).unwrap();
    let server = TestServer::with(with_headers(credential, headers));
    let (client, tokens) = signed_in_to(&server).await;
    let sent = [
        ("x-tenant", "8"),
        ("x-tenant", "9"),
        ("x_tenant", "10"),
        ("x-api-key", "mine"),
        ("connection", "x-tenant, x-api-key"),
    ];

    let _ = server.send(call(&client, &tokens, &sent)).await.expect(200);

    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "x-tenant"), ["7"]);
    assert_eq!(values(got.headers(), "x-api-key"), ["s3cret"]);
    let key = format!("Bearer {UPSTREAM_KEY}");
    assert_eq!(values(got.headers(), "authorization"), [key]);
    assert!(!got.headers().contains_key("x_tenant"));
}

/// Case 27: a header that the client sets reaches the server that reads it, and no other.
#[tokio::test]
async fn a_header_that_is_let_through_reaches_its_upstream_alone() {
    let mut policy = policy(&[("a", "/mcp/a"), ("b", "/mcp/b")]);
    let upstream = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    upstream.headers.pass("X-MCP-Toolsets", None).unwrap();
    let server = TestServer::with(policy);
    for (name, expected) in [("a", &["repos"][..]), ("b", &[])] {
        let client = server.mcp_client().await.at(&format!("/mcp/{name}"));
        let tokens = client.sign_in().await;
        let sent = [("x-mcp-toolsets", "repos"), ("x-org-id", "7")];
        let _ = server.send(call(&client, &tokens, &sent)).await.expect(200);
        let got = server.upstream.last();
        assert_eq!(values(got.headers(), "x-mcp-toolsets"), expected);
        assert!(!got.headers().contains_key("x-org-id"));
    }
}

/// Case 21: a firewall that dislikes the client's `User-Agent`, or none, sees that of the proxy, or
/// one from the configuration. The neighbour: an operator who wants the client's gets it, and the
/// proxy's where the client sends none.
#[tokio::test]
async fn the_upstream_always_gets_a_user_agent() {
    let own = concat!("mcp-oauth-proxy/", env!("CARGO_PKG_VERSION"));
    let clients = [("user-agent", "python-httpx/0.28")];
    let (mut chosen, mut passed) = (UpstreamHeaders::default(), UpstreamHeaders::default());
    chosen.fix_user_agent("curl/8.14").unwrap();
    passed.pass("User-Agent", None).unwrap();
    for (headers, with, without) in [
        (UpstreamHeaders::default(), own, own),
        (chosen, "curl/8.14", "curl/8.14"),
        (passed, "python-httpx/0.28", own),
    ] {
        let server = TestServer::with(with_headers(Credential::None, headers));
        let (client, tokens) = signed_in_to(&server).await;
        for (sent, expected) in [(&clients[..], with), (&[], without)] {
            let _ = server.send(call(&client, &tokens, sent)).await.expect(200);
            let got = server.upstream.last();
            assert_eq!(values(got.headers(), "user-agent"), [expected]);
        }
    }
}

/// Case 18: a server that goes by `Host` is called by the name that it knows.
#[tokio::test]
async fn the_host_that_an_upstream_is_called_by_can_be_chosen() {
    let mut headers = UpstreamHeaders::default();
    headers.fix_host("localhost:8000").unwrap();
    let server = TestServer::with(with_headers(Credential::None, headers));
    let (client, tokens) = signed_in_to(&server).await;

    let _ = client.call(&tokens).await.expect(200);

    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "host"), ["localhost:8000"]);
    assert_eq!(got.uri().host(), Some("up.example"));
}

/// S2-01, S2-02: another server is another address and another key.
#[tokio::test]
async fn what_is_behind_the_proxy_is_a_matter_of_configuration() {
    for (endpoint, key) in [
        ("https://api.githubcopilot.com/mcp/", "github_pat_4711"),
        ("https://mcp.example:8443/v2/mcp", "pat-4712"),
        ("http://127.0.0.1:3000/", "pat-4713"),
    ] {
        let credential = Credential::bearer(key).unwrap();
        let server = TestServer::with(in_front_of(endpoint, credential));
        let (client, tokens) = signed_in_to(&server).await;

        let _ = client.call(&tokens).await.expect(200);

        let got = server.upstream.last();
        assert_eq!(got.uri(), endpoint);
        assert_eq!(
            values(got.headers(), "authorization"),
            [format!("Bearer {key}")]
        );
    }
}

/// S5-01: one proxy, two upstreams, each with its own address and key.
#[tokio::test]
async fn each_upstream_gets_its_own_calls() {
    let server = TestServer::with_two_upstreams();
    for name in ["a", "b"] {
        let client = server.mcp_client().await.at(&format!("/mcp/{name}"));
        let tokens = client.sign_in().await;
        let _ = client.call(&tokens).await.expect(200);
        let host = format!("{name}.upstream.example");
        assert_eq!(server.upstream.last().uri().host(), Some(host.as_str()));
    }
}

/// S2-17
#[tokio::test]
async fn methods_and_queries_arrive_as_they_were_sent() {
    let (client, tokens) = signed_in().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for query in ["a=b", "a=b&a=c&%C3%A9=%2F", "x", "=&&", "q=a+b%20c"] {
            let method: Method = method.parse().unwrap();
            let mut request = call_at(&client, &tokens, method.clone(), &format!("/mcp?{query}"));
            let json = "application/json".parse().unwrap();
            request.headers_mut().insert(header::ACCEPT, json);
            let _ = client.server.send(request).await.expect(200);
            let got = client.server.upstream.last();
            assert_eq!(got.method(), method);
            assert_eq!(got.uri().query(), Some(query));
        }
    }
}

/// PX-05: whatever the query says, it stays a query.
#[tokio::test]
async fn no_query_leads_to_another_address() {
    let endpoint = "https://up.example/base/mcp?v=1";
    let credential = Credential::bearer(UPSTREAM_KEY).unwrap();
    let server = TestServer::with(in_front_of(endpoint, credential));
    let (client, tokens) = signed_in_to(&server).await;
    for query in [
        "/../../x",
        "//evil.example/",
        "@evil.example",
        "https://evil.example",
        "?",
        "%23x",
        "a=b%0d%0ax",
    ] {
        let request = call_at(&client, &tokens, Method::POST, &format!("/mcp?{query}"));
        let _ = server.send(request).await.expect(200);
        let expected = format!("{endpoint}&{query}");
        assert_eq!(server.upstream.last().uri(), expected.as_str());
    }
    // What the operator wrote stays.
    let request = call_at(&client, &tokens, Method::POST, "/mcp?V=2&a=b&v[]=3");
    let _ = server.send(request).await.expect(200);
    let expected = format!("{endpoint}&a=b");
    assert_eq!(server.upstream.last().uri(), expected.as_str());
    // An absolute request line names another place, and is not asked.
    let request = call_at(
        &client,
        &tokens,
        Method::POST,
        "http://evil.example/mcp?a=b",
    );
    let _ = server.send(request).await.expect(200);
    let got = server.upstream.last();
    assert_eq!(got.uri(), "https://up.example/base/mcp?v=1&a=b");
}

/// N-UP-18: before its token is looked at, and wherever it comes back to.
#[tokio::test]
async fn a_call_that_comes_back_goes_no_further() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let _ = client.call(&tokens).await.expect(200);
    let mark = server.upstream.last().headers()["cdn-loop"].clone();
    let back = mark.to_str().unwrap();
    for (path, token) in [("/mcp", Some(&tokens)), ("/mcp", None), ("/token", None)] {
        let mut request = match token {
            Some(tokens) => call(&client, tokens, &[]),
            None => support::request(Method::POST, path)
                .body(Body::empty())
                .unwrap(),
        };
        request
            .headers_mut()
            .insert("cdn-loop", back.parse().unwrap());
        let answer = server.send(request).await.expect(508);
        assert!(answer.text().contains("leads back to it"), "{answer:?}");
    }
    assert_eq!(server.upstream.received().len(), 1);

    // The one before tells its client so, which is no reason to sign in again.
    server.upstream.answers(response(508, &[], "{}"));
    let answer = client.call(&tokens).await.expect(508);
    assert!(
        answer.text().contains("leads back to the proxy"),
        "{answer:?}"
    );
    let _ = server
        .send(call(&client, &tokens, &[("cdn-loop", "x")]))
        .await
        .expect(200);
    assert_eq!(server.upstream.last().headers()["cdn-loop"], mark);
}

/// PX-04, N-HD-16, N-HD-18: what is for one hop ends there, and nobody can strip the credential.
#[tokio::test]
async fn headers_of_one_hop_stay_there_and_cannot_take_others_with_them() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    server.upstream.answers(response(
        200,
        &[
            ("connection", "keep-alive, Mcp-Param-B"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("mcp-param-a", "crosses"),
            ("mcp-param-b", "stays"),
            ("content-type", "application/json"),
        ],
        "{}",
    ));
    let request = call(
        &client,
        &tokens,
        &[
            ("connection", "Authorization, content-type, MCP-Name"),
            ("connection", "close, host"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "websocket"),
            ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
            ("proxy-connection", "close"),
            ("mcp-name", "stays"),
            ("mcp-method", "tools/list"),
        ],
    );

    let answer = server.send(request).await.expect(200);

    let got = server.upstream.last();
    assert_eq!(
        names(got.headers()),
        [
            "accept",
            "authorization",
            "cdn-loop",
            "content-type",
            "mcp-method",
            "user-agent"
        ]
    );
    let key = format!("Bearer {UPSTREAM_KEY}");
    assert_eq!(values(got.headers(), "authorization"), [key]);
    assert_eq!(
        names(&answer.headers),
        [
            "cache-control",
            "content-type",
            "mcp-param-a",
            "x-content-type-options"
        ]
    );
}

/// PX-07, N-UP-02, N-UP-03, S1-02: the client gets the listed headers and nothing of the
/// upstream's own authorization, cookies, CORS and browser settings.
#[tokio::test]
async fn the_client_gets_the_listed_headers_of_the_answer_and_nothing_else() {
    let (client, tokens) = signed_in().await;
    let echo = format!("Bearer {UPSTREAM_KEY}");
    client.server.upstream.answers(response(
        200,
        &[
            (
                "www-authenticate",
                "Bearer resource_metadata=\"https://up\"",
            ),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("clear-site-data", "\"*\""),
            ("strict-transport-security", "max-age=1"),
            ("alt-svc", "h3=\":443\""),
            ("refresh", "0; https://evil.example"),
            ("link", "<https://evil.example>"),
            ("location", "https://evil.example"),
            ("content-location", "/other"),
            ("service-worker-allowed", "/"),
            ("server", "secret/1.0"),
            ("authorization", &echo),
            ("x-echo", &echo),
            ("content-type", "application/json"),
            ("cache-control", "private"),
            ("etag", "\"1\""),
            ("mcp-param-x", "1"),
        ],
        "{}",
    ));

    let answer = client.call(&tokens).await.expect(200);

    assert_eq!(
        names(&answer.headers),
        [
            "cache-control",
            "content-type",
            "mcp-param-x",
            "x-content-type-options"
        ]
    );
    assert!(!answer.everything().contains(UPSTREAM_KEY));
}

/// S1-02, S1-23, PX-02: an upstream that throws its request back in an error tells the client
/// nothing.
#[tokio::test]
async fn the_key_never_reaches_the_client_even_when_the_upstream_throws_it_back() {
    const ECHO: &str = "you sent Authorization: Bearer upstream-key-4711 to one.upstream.example";
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for status in [301, 401, 403, 407, 500, 502, 503, 504] {
        let headers = [("location", ECHO), ("www-authenticate", ECHO)];
        server.upstream.answers(response(status, &headers, ECHO));
    }
    for error in [
        UpstreamError::Unreachable(ECHO.into()),
        UpstreamError::Broken(ECHO.into()),
        UpstreamError::RequestBody(ECHO.into()),
        UpstreamError::TimedOut,
    ] {
        server.upstream.fails(error);
    }
    let mut seen = String::new();
    for _ in 0..12 {
        let answer = client.call(&tokens).await;
        assert!(answer.status.as_u16() >= 400, "{answer:#?}");
        seen.push_str(&answer.everything());
    }
    seen.push_str(&server.get("/mcp").await.expect(401).everything());
    assert!(!seen.contains("4711") && !seen.contains("upstream.example"));

    // What the upstream says in an answer that is passed on is its own affair.
    server.upstream.answers(response(200, &[], ECHO));
    let answer = client.call(&tokens).await.expect(200);
    assert_eq!(answer.text(), ECHO);
}

/// PX-06, PX-07, PX-09, N-UP-01, N-UP-06, N-UP-07, S5-17, S5-18
#[tokio::test]
async fn statuses_are_passed_on_unless_they_would_mislead_the_client() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for (upstream, here) in [
        (200, 200),
        (201, 201),
        (202, 202),
        (204, 204),
        (299, 299),
        (304, 304),
        (400, 400),
        (402, 402),
        (404, 404),
        (405, 405),
        (406, 406),
        (409, 409),
        (410, 410),
        (413, 413),
        (415, 415),
        (422, 422),
        (429, 429),
        (499, 499),
        // It would send the client to sign in again.
        (401, 502),
        (403, 502),
        (407, 502),
        // It is our own word for a name that is not ours.
        (421, 502),
        // It would send the client, or the key, elsewhere.
        (300, 502),
        (301, 502),
        (302, 502),
        (303, 502),
        (307, 502),
        (308, 502),
        // It is the upstream that failed.
        (500, 502),
        (501, 502),
        (502, 502),
        (503, 502),
        (504, 504),
        (599, 502),
        // It is nothing at all.
        (101, 502),
        (600, 502),
        (999, 502),
    ] {
        let headers = [
            ("location", "https://evil.example/"),
            ("www-authenticate", "Bearer"),
            ("retry-after", "7"),
            ("allow", "POST"),
        ];
        server
            .upstream
            .answers(response(upstream, &headers, "theirs"));
        let before = server.upstream.received().len();

        let answer = client.call(&tokens).await.expect(here);

        assert!(!answer.headers.contains_key(header::LOCATION));
        assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
        assert_eq!(answer.header("retry-after"), "7");
        let calls = server.upstream.received().len() - before;
        assert_eq!(calls, 1, "{upstream} was followed or tried again");
        if upstream == here && upstream != 502 && upstream != 504 {
            assert_eq!(answer.text(), "theirs");
            assert_eq!(answer.header("allow"), "POST");
        } else {
            assert_eq!(answer.json()["error"]["code"], -32000, "{upstream}");
            assert!(!answer.text().contains("theirs"));
            let reason = match upstream {
                // It was taken a moment ago.
                401 | 403 | 407 => "refused this call",
                421 => "does not accept the host name one.upstream.example",
                300..=399 => "redirects elsewhere",
                504 => "did not answer in time",
                500..=599 => "failed",
                _ => "an invalid HTTP response",
            };
            assert!(answer.text().contains(reason), "{answer:#?}");
        }
    }
}

/// PX-09, S5-18, S1-23
#[tokio::test]
async fn an_upstream_without_an_answer_is_a_bad_gateway_with_a_reason() {
    let (client, tokens) = signed_in().await;
    let fails_with = async |error, status| {
        client.server.upstream.fails(error);
        let answer = client.call(&tokens).await.expect(status);
        let message = answer.json()["error"]["message"].clone();
        message.as_str().unwrap().to_owned()
    };
    let unreachable = UpstreamError::Unreachable("no route".into());
    let message = fails_with(unreachable, 502).await;
    assert!(message.contains("cannot be reached"), "{message}");
    let message = fails_with(UpstreamError::Broken("reset".into()), 502).await;
    assert!(message.contains("broke off"), "{message}");
    let message = fails_with(UpstreamError::TimedOut, 504).await;
    assert!(message.contains("in time"), "{message}");

    let _ = client.call(&tokens).await.expect(200);
}

/// N-UP-01: the operator is told, since nobody else can help.
#[tokio::test]
async fn a_refused_credential_is_in_the_journal() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    server.upstream.answers(response(401, &[], ""));
    let _ = client.call(&tokens).await.expect(502);
    assert_eq!(server.journal.count("UpstreamFailed"), 1);
    let events = server.journal.all().join("\n");
    assert!(events.contains("CredentialRefused"), "{events}");
    assert!(events.contains("upstream_status: Some(401)"), "{events}");

    let _ = client.call(&tokens).await.expect(200);
    assert_eq!(server.journal.count("UpstreamFailed"), 1);
}

/// S5-17, N-RS-23, N-RS-24, PX-14: bytes are bytes, JSON or not, in both directions.
#[tokio::test]
async fn bodies_pass_unmodified() {
    let (client, tokens) = signed_in().await;
    let deep = "[".repeat(10_000);
    let all_bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for (kind, encoding, content) in [
        (
            "application/json",
            None,
            b"{\"a\" : 1,\"a\":2 }\r\n".to_vec(),
        ),
        (
            "application/json",
            None,
            b"[{\"id\":0},{\"id\":0}]".to_vec(),
        ),
        ("application/json", None, "\u{feff}{\"é\":\"\u{0}\"}".into()),
        ("application/json", None, deep.into_bytes()),
        ("application/json", Some("gzip"), all_bytes.clone()),
        ("application/octet-stream", None, all_bytes),
        ("text/plain", None, Vec::new()),
    ] {
        let mut request = client.call_request(&tokens);
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        }
        *request.body_mut() = Body::from(content.clone());
        let mut answer = Response::builder().header(header::CONTENT_TYPE, kind);
        if let Some(encoding) = encoding {
            answer = answer.header(header::CONTENT_ENCODING, encoding);
        }
        let answer = answer.body(Body::from(content.clone())).unwrap();
        client.server.upstream.answers(answer);

        let answer = client.server.send(request).await.expect(200);

        let got = client.server.upstream.last();
        assert_eq!(*got.body(), content);
        assert_eq!(answer.body, content);
        let encodings: Vec<&str> = encoding.into_iter().collect();
        for headers in [got.headers(), &answer.headers] {
            assert_eq!(values(headers, "content-type"), [kind]);
            assert_eq!(values(headers, "content-encoding"), encodings);
        }
    }
}

/// TL-01, TL-02, TL-03, TL-04, TL-10, TL-11
#[tokio::test]
async fn a_conversation_of_the_era_with_sessions_passes() {
    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
    const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    const ASKED_BACK: &str =
        "id: 1\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"s1\",\"method\":\"elicitation/create\"}\n\n";
    const REPLY: &str = r#"{"jsonrpc":"2.0","id":"s1","result":{"action":"accept"}}"#;
    const BATCH: &str = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;
    const STREAM: &[(&str, &str)] = &[("content-type", "text/event-stream")];
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let exchange = async |method, session: Option<&str>, sent, answered: Response<Body>| {
        let headers: Vec<_> = session
            .map(|session| ("mcp-session-id", session))
            .into_iter()
            .collect();
        let mut request = call(&client, &tokens, &headers);
        *request.method_mut() = method;
        *request.body_mut() = Body::from(sent);
        server.upstream.answers(answered);
        let answer = server.send(request).await;
        assert_eq!(server.upstream.last().body(), sent);
        answer
    };

    let headers = [
        ("content-type", "application/json"),
        ("mcp-session-id", "s-1"),
    ];
    let started = response(200, &headers, "{\"result\":{}}");
    let answer = exchange(Method::POST, None, INITIALIZE, started)
        .await
        .expect(200);
    assert_eq!(answer.text(), "{\"result\":{}}");
    let session = Some(answer.header("mcp-session-id"));

    let answer = exchange(Method::POST, session, INITIALIZED, response(202, &[], ""));
    let answer = answer.await.expect(202);
    assert!(answer.body.is_empty());
    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "mcp-session-id"), ["s-1"]);

    for method in [Method::GET, Method::POST] {
        let answer = exchange(method, session, "{}", response(200, STREAM, ASKED_BACK));
        let answer = answer.await.expect(200);
        assert_eq!(answer.text(), ASKED_BACK);
        assert_eq!(answer.header("content-type"), "text/event-stream");
        let answer = exchange(Method::POST, session, REPLY, response(202, &[], ""));
        let _ = answer.await.expect(202);
    }

    let no_stream = response(405, &[("allow", "POST")], "");
    let answer = exchange(Method::GET, session, "", no_stream)
        .await
        .expect(405);
    assert_eq!(answer.header("allow"), "POST");
    for status in [200, 400] {
        let answered = response(status, &[], "{}");
        let answer = exchange(Method::POST, session, BATCH, answered).await;
        let _ = answer.expect(status);
    }
    let answer = exchange(Method::DELETE, session, "", response(200, &[], "")).await;
    let _ = answer.expect(200);
    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "mcp-session-id"), ["s-1"]);
}

/// TL-12, TM-01
#[tokio::test]
async fn headers_of_the_protocol_arrive_as_they_were_sent() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let sent = [
        ("mcp-protocol-version", "1999-01-01"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "=?base64?4pyT?="),
        ("mcp-param-foo", "=?base64?4pyT?="),
        ("mcp-param-foo", "second"),
        ("mcp-param-FOO-2", "Third"),
    ];
    let mut request = client.call_request(&tokens);
    for (name, value) in sent {
        let name: header::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    server
        .upstream
        .answers(response(400, &[], "unknown version"));

    let answer = server.send(request).await.expect(400);

    assert_eq!(answer.text(), "unknown version");
    let got = server.upstream.last();
    let arrived = |name| values(got.headers(), name);
    assert_eq!(arrived("mcp-protocol-version"), ["1999-01-01"]);
    assert_eq!(arrived("mcp-method"), ["tools/list"]);
    assert_eq!(arrived("mcp-name"), ["=?base64?4pyT?="]);
    assert_eq!(arrived("mcp-param-foo"), ["=?base64?4pyT?=", "second"]);
    assert_eq!(arrived("mcp-param-foo-2"), ["Third"]);

    // The version is never made up.
    let _ = client.call(&tokens).await.expect(200);
    let got = server.upstream.last();
    assert!(!got.headers().contains_key("mcp-protocol-version"));
}

/// TM-06, N-RS-20
#[tokio::test]
async fn errors_of_the_modern_era_pass_with_their_bodies() {
    let (client, tokens) = signed_in().await;
    for (status, error) in [
        (
            404,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"x"}}"#,
        ),
        (
            400,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"x"}}"#,
        ),
        (
            400,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32021,"message":"x"}}"#,
        ),
        (
            400,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"x"}}"#,
        ),
        (
            400,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"x"}}"#,
        ),
        (405, ""),
    ] {
        let headers = [("content-type", "application/json")];
        client
            .server
            .upstream
            .answers(response(status, &headers, error));
        let request = call(&client, &tokens, &[("mcp-protocol-version", "2026-07-28")]);
        let answer = client.server.send(request).await.expect(status);
        assert_eq!(answer.text(), error);
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

/// TM-11: nothing of what a modern server hands out to be handed back is read or written anew.
#[tokio::test]
async fn what_a_server_hands_out_comes_back_to_the_byte() {
    const ASKS: &str = "{\"id\":1,\"result\":{\"resultType\":\"input_required\",\
        \"requestState\":\"eyJ\\u0061\\/=\\ud83d\\ude00\",\"requestState\":\"2\",\"n\":1.0e400}}";
    const ANSWERS: &str = "{\"params\" : { \"requestState\":\"eyJ\\u0061\\/=\\ud83d\\ude00\",\r\n\
        \"inputResponses\":{\"b\":{\"action\":\"accept\"},\"a\":[12345678901234567890.10]}}}";
    let (client, tokens) = signed_in().await;
    let headers = [("content-type", "application/json")];
    client
        .server
        .upstream
        .answers(response(200, &headers, ASKS));
    let mut request = call(&client, &tokens, &[("mcp-protocol-version", "2026-07-28")]);
    *request.body_mut() = Body::from(ANSWERS);

    let answer = client.server.send(request).await.expect(200);

    assert_eq!(answer.body, ASKS);
    assert_eq!(client.server.upstream.last().body(), ANSWERS);
}

/// TM-10, TM-14: what the modern era has no use for is the upstream's to refuse, and its answer
/// passes; nothing is made up in its place.
#[tokio::test]
async fn what_the_modern_era_has_no_use_for_is_refused_by_the_upstream() {
    const REFUSED: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"x"}}"#;
    const RESPONSE: &str = r#"{"jsonrpc":"2.0","id":"s1","result":{}}"#;
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for (method, sent, status, headers) in [
        (
            Method::POST,
            RESPONSE,
            400,
            &[("content-type", "application/json")][..],
        ),
        (Method::DELETE, "", 405, &[("allow", "POST")]),
    ] {
        let request = || {
            let mut request = call(&client, &tokens, &[("mcp-protocol-version", "2026-07-28")]);
            *request.method_mut() = method.clone();
            *request.body_mut() = Body::from(sent);
            request
        };
        let before = server.upstream.received().len();
        let mut stranger = request();
        stranger.headers_mut().remove(header::AUTHORIZATION);
        let _ = server.send(stranger).await.expect(401);
        assert_eq!(server.upstream.received().len(), before);

        server.upstream.answers(response(status, headers, REFUSED));
        let answer = server.send(request()).await.expect(status);
        assert_eq!(answer.text(), REFUSED);
        for (name, value) in headers {
            assert_eq!(answer.header(name), *value);
        }
        assert_eq!(server.upstream.last().method(), method);
        assert_eq!(server.upstream.last().body(), sent);
    }
}

/// PX-11: nothing is kept for anybody else, whatever the upstream allows.
#[tokio::test]
async fn each_call_is_answered_by_the_upstream_and_no_cache_keeps_it() {
    let server = TestServer::new();
    let headers = [
        ("cache-control", "public, max-age=3600"),
        ("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
        ("etag", "\"1\""),
        ("content-type", "application/json"),
    ];
    for private in [
        r#"{"cacheScope":"private","of":"one"}"#,
        r#"{"cacheScope":"private","of":"two"}"#,
    ] {
        let (client, tokens) = signed_in_to(&server).await;
        server.upstream.answers(response(200, &headers, private));
        let answer = client.call(&tokens).await.expect(200);
        assert_eq!(answer.text(), private);
        assert_eq!(answer.header("cache-control"), "no-store, no-transform");
        for name in ["expires", "etag"] {
            assert!(!answer.headers.contains_key(name), "{name}");
        }
    }
    assert_eq!(server.upstream.received().len(), 2);
}

/// N-UP-04: what an upstream might show on our origin is kept away from all that is ours.
#[tokio::test]
async fn a_page_of_the_upstreams_is_shown_in_a_sandbox() {
    let (client, tokens) = signed_in().await;
    for (kind, is_page) in [
        ("image/svg+xml", true),
        ("application/xhtml+xml", true),
        ("application/json", false),
        ("text/event-stream", false),
    ] {
        let headers = [
            ("content-type", kind),
            ("content-security-policy", "default-src *"),
        ];
        let page = response(200, &headers, "<script>alert(1)</script>");
        client.server.upstream.answers(page);
        let answer = client.call(&tokens).await.expect(200);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let policy = answer.headers.get(header::CONTENT_SECURITY_POLICY);
        let policy = policy.map(|policy| policy.to_str().unwrap());
        assert_eq!(policy, is_page.then_some("default-src 'none'; sandbox"));
    }
}

/// TM-02, TM-15: both eras at one address, and in the modern one there are no sessions.
#[tokio::test]
async fn the_modern_era_neither_gets_nor_sends_a_session() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for session in [None, Some("made up")] {
        let mut request = call(&client, &tokens, &[("mcp-protocol-version", "2026-07-28")]);
        if let Some(session) = session {
            let headers = request.headers_mut();
            headers.insert("mcp-session-id", session.parse().unwrap());
        }
        *request.body_mut() = Body::from(MODERN);
        let names_one = response(200, &[("mcp-session-id", "s-1")], "{}");
        server.upstream.answers(names_one);
        let answer = server.send(request).await.expect(200);
        let got = server.upstream.last();
        assert!(!got.headers().contains_key("mcp-session-id"));
        assert!(!answer.headers.contains_key("mcp-session-id"));
        assert_eq!(
            values(got.headers(), "mcp-protocol-version"),
            ["2026-07-28"]
        );
    }
}

/// A request of the modern era.
const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

/// The session that a client is given when the upstream starts one called `id`.
async fn start_session(client: &McpClient, tokens: &Tokens, id: &str) -> String {
    let started = response(200, &[("mcp-session-id", id)], "{}");
    client.server.upstream.answers(started);
    let answer = client.call(tokens).await.expect(200);
    let session = answer.header("mcp-session-id");
    assert!(!session.contains(id));
    session.to_owned()
}

async fn in_session(client: &McpClient, tokens: &Tokens, method: Method, session: &str) -> Answer {
    let mut request = call(client, tokens, &[("mcp-session-id", session)]);
    *request.method_mut() = method;
    client.server.send(request).await
}

/// TL-05, TL-06, PX-10, N-RS-36, N-RS-37: a session is its owner's, at its upstream, and nobody
/// else's.
#[tokio::test]
async fn a_session_that_is_not_the_callers_does_not_exist_for_it() {
    let server = TestServer::with_two_upstreams();
    let (mine, my_tokens) = signed_in_to(&server).await;
    let (theirs, their_tokens) = signed_in_to(&server).await;
    let elsewhere = mine.at("/mcp/b");
    let elsewhere_tokens = elsewhere.sign_in().await;
    let session = start_session(&mine, &my_tokens, "s-1").await;
    let foreign = start_session(&theirs, &their_tokens, "s-2").await;
    let of_b = start_session(&elsewhere, &elsewhere_tokens, "s-3").await;
    let (rest, last) = session.split_at(session.len() - 1);
    let changed = format!("{}{}", if last == "A" { "Q" } else { "A" }, rest);
    let before = server.upstream.received().len();

    for stranger in [
        foreign.as_str(),
        of_b.as_str(),
        "s-1",
        "s-2",
        "",
        "made up",
        rest,
        &session[..20],
        &changed,
        &session.to_uppercase(),
        &format!("{session}A"),
        &"A".repeat(10_240),
    ] {
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let answer = in_session(&mine, &my_tokens, method, stranger).await;
            let answer = answer.refused_rpc(404, -32001);
            assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
        }
    }
    assert_eq!(server.upstream.received().len(), before);

    for (method, status) in [
        (Method::POST, 200),
        (Method::GET, 405),
        (Method::DELETE, 200),
    ] {
        let answer = in_session(&mine, &my_tokens, method, &session).await;
        let _ = answer.expect(status);
        let got = server.upstream.last();
        assert_eq!(values(got.headers(), "mcp-session-id"), ["s-1"]);
    }
    for (owner, tokens, session, id) in [
        (&theirs, &their_tokens, &foreign, "s-2"),
        (&elsewhere, &elsewhere_tokens, &of_b, "s-3"),
    ] {
        let answer = in_session(owner, tokens, Method::POST, session).await;
        let _ = answer.expect(200);
        let got = server.upstream.last();
        assert_eq!(values(got.headers(), "mcp-session-id"), [id]);
    }
}

/// TL-05, TM-12: what is said twice may be read in two ways, so it is refused.
#[tokio::test]
async fn a_header_that_says_one_thing_is_there_once() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let session = start_session(&client, &tokens, "s-1").await;
    let before = server.upstream.received().len();
    for (name, value, other) in [
        ("mcp-protocol-version", "2025-11-25", "2026-07-28"),
        ("mcp-method", "tools/list", "tools/call"),
        ("mcp-name", "harmless", "harmful"),
        ("mcp-session-id", session.as_str(), "s-2"),
        ("last-event-id", "s-1:7", "s-2:7"),
    ] {
        let twice = call(&client, &tokens, &[(name, value), (name, other)]);
        let answer = server.send(twice).await.refused_rpc(400, -32600);
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains(name), "{message}");
        // The session is nobody's business but the client's.
        assert_eq!(
            message.contains(value),
            name != "mcp-session-id",
            "{message}"
        );
        assert_eq!(server.upstream.received().len(), before);
    }
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
        ("mcp-name", "harmless"),
        ("mcp-session-id", session.as_str()),
        ("last-event-id", "s-1:7"),
    ] {
        let once = call(&client, &tokens, &[(name, value)]);
        let _ = server.send(once).await.expect(200);
        // Case 23: the same twice is once.
        let same = call(&client, &tokens, &[(name, value), (name, value)]);
        let _ = server.send(same).await.expect(200);
    }
    // Lists may come in parts.
    let lists = [
        ("accept", "application/json"),
        ("mcp-param-a", "1"),
        ("mcp-param-a", "2"),
    ];
    let _ = server
        .send(call(&client, &tokens, &lists))
        .await
        .expect(200);
    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "accept").len(), 2);
    assert_eq!(values(got.headers(), "mcp-param-a"), ["1", "2"]);
}

/// TL-07, PX-10, N-RS-38: which events a stream goes on with is asked for in a session of one's
/// own, or not at all.
#[tokio::test]
async fn a_stream_goes_on_in_the_session_of_its_owner_only() {
    let server = TestServer::new();
    let (mine, my_tokens) = signed_in_to(&server).await;
    let (theirs, their_tokens) = signed_in_to(&server).await;
    let session = start_session(&mine, &my_tokens, "s-1").await;
    let resume = async |client: &McpClient, tokens, headers: &[(&'static str, &str)]| {
        let mut request = call(client, tokens, headers);
        *request.method_mut() = Method::GET;
        let stream = [("content-type", "text/event-stream")];
        server.upstream.answers(response(200, &stream, ""));
        server.send(request).await
    };
    let last = ("last-event-id", "s-1:7");
    let of_session = ("mcp-session-id", session.as_str());

    let _ = resume(&mine, &my_tokens, &[of_session, last])
        .await
        .expect(200);
    let got = server.upstream.last();
    assert_eq!(values(got.headers(), "last-event-id"), ["s-1:7"]);

    let before = server.upstream.received().len();
    let foreign = resume(&theirs, &their_tokens, &[of_session, last]).await;
    let _ = foreign.refused_rpc(404, -32001);
    assert_eq!(server.upstream.received().len(), before);
    // Without a session, and where there are none, a stream begins anew.
    let modern = ("mcp-protocol-version", "2026-07-28");
    let foreign = resume(&theirs, &their_tokens, &[last, modern, of_session]).await;
    let _ = foreign.refused_rpc(404, -32001);
    for headers in [&[last][..], &[last, modern]] {
        let _ = resume(&theirs, &their_tokens, headers).await.expect(200);
        let got = server.upstream.last();
        assert!(!got.headers().contains_key("last-event-id"), "{headers:?}");
    }
}

/// TL-13: a session belongs to person and client, so it outlives tokens and grants.
#[tokio::test]
async fn a_session_outlives_a_refresh_and_a_new_approval() {
    let (client, tokens) = signed_in().await;
    let session = start_session(&client, &tokens, "s-1").await;
    let refreshed = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let approved_again = client.sign_in().await;
    for tokens in [&refreshed, &approved_again] {
        let answer = in_session(&client, tokens, Method::POST, &session).await;
        let _ = answer.expect(200);
    }
}

/// TL-07, TL-08, S5-16, TM-13: events leave as they come, byte for byte and at once.
#[tokio::test]
async fn a_stream_passes_chunk_by_chunk_as_it_arrives() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let (events, body) = Live::body();
    let stream = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    server.upstream.answers(stream.body(body).unwrap());

    // The head comes before the first event.
    let response = server.front.answer(client.call_request(&tokens), HOME);
    let response = response.await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
    let mut body = response.into_body();
    for chunk in [
        ": a comment\n",
        "\n",
        "id: 1\nret",
        "ry: 3000\ndata:\n\nda",
        "ta: a\r\ndata: b\r\n\r\n",
        "event: message\ndata: \u{e9}\u{0}\n\n",
        "data: without an end",
    ] {
        events.send(chunk).unwrap();
        assert_eq!(next_chunk(&mut body).await, chunk);
    }
    drop(events);
    assert!(in_time(body.frame()).await.is_none());
}

/// TM-08
#[tokio::test]
async fn a_client_that_leaves_takes_the_upstreams_stream_with_it() {
    let (client, tokens) = signed_in().await;
    let (events, body) = Live::body();
    let stream = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    client.server.upstream.answers(stream.body(body).unwrap());
    let response = client
        .server
        .front
        .answer(client.call_request(&tokens), HOME);
    let mut body = response.await.into_body();
    events.send("data: 1\n\n").unwrap();
    let _ = next_chunk(&mut body).await;
    assert!(!events.is_closed());

    drop(body);

    assert!(events.is_closed());
}

/// What a body is must not be said in two ways, though neither header is of the protocol.
#[tokio::test]
async fn what_a_body_is_is_said_once() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for (name, one, other) in [
        ("content-type", "application/json", "text/plain"),
        ("content-encoding", "gzip", "br"),
        ("content-length", "5", "50"),
    ] {
        let mut twice = client.call_request(&tokens);
        let headers = twice.headers_mut();
        headers.remove(name);
        for value in [one, other] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let _ = server.send(twice).await.refused_rpc(400, -32600);
    }
    assert!(server.upstream.received().is_empty());
    let _ = client.call(&tokens).await.expect(200);
}

/// Whoever answers for an upstream learns from the permit who calls.
#[tokio::test]
async fn the_host_is_told_who_calls_by_which_client_and_what() {
    let server = TestServer::with_two_upstreams();
    let (first, second) = (
        server.mcp_client().await,
        server.mcp_client().await.at("/mcp/b"),
    );
    for client in [&first, &second] {
        let _ = client.call(&client.sign_in().await).await.expect(200);
    }
    let caller = |client: &McpClient, upstream: &str| {
        [
            "owner".to_owned(),
            client.client_id.clone(),
            upstream.to_owned(),
        ]
    };
    assert_eq!(
        server.upstream.callers(),
        [caller(&first, "a"), caller(&second, "b")]
    );
}
