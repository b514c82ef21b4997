//! How much of everything one address, one grant or all together may ask for, and that who asks
//! for a usual amount never notices.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use serde_json::json;
use support::{
    Answer, HOME, TestServer,
    client::{McpClient, REDIRECT_URI, Tokens},
    form, json_request, policy, request,
};
use tokio::sync::mpsc;

fn stranger(n: u32) -> IpAddr {
    IpAddr::from((0xc633_0000 + n).to_be_bytes())
}

async fn register_from(server: &TestServer, address: impl Into<IpAddr>) -> Answer {
    let claude = json!({ "client_name": "Claude", "redirect_uris": [REDIRECT_URI] });
    server
        .send_from(address.into(), json_request("/register", &claude))
        .await
}

/// Insists on the answer of a limit, in the words that MCP clients know.
#[track_caller]
fn limited(answer: Answer, seconds: &str) {
    let answer = answer.refused(429, "too_many_requests");
    assert_eq!(answer.header("retry-after"), seconds);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(
        !answer.json()["error_description"]
            .as_str()
            .unwrap()
            .is_empty()
    );
}

/// The same of a call, whose errors are those of JSON-RPC.
#[track_caller]
fn limited_call(answer: Answer, seconds: &str) {
    let answer = answer.refused_rpc(429, -32000);
    assert_eq!(answer.header("retry-after"), seconds);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(
        !answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .is_empty()
    );
}

/// N-RG-38, N-LG-03
#[tokio::test]
async fn one_address_registers_three_hundred_clients_and_then_one_in_twelve_seconds() {
    let server = TestServer::new();
    for _ in 0..300 {
        let _ = register_from(&server, HOME).await.expect(201);
    }
    let before = server.state();
    for _ in 0..1000 {
        limited(register_from(&server, HOME).await, "12");
    }
    assert_eq!(server.state(), before);
    assert_eq!(
        server
            .journal
            .count("Limited { limit: RegistrationsPerAddress"),
        1000
    );

    let _ = register_from(&server, stranger(1)).await.expect(201);
    server.clock.advance(Duration::from_secs(12));
    let _ = register_from(&server, HOME).await.expect(201);
    limited(register_from(&server, HOME).await, "12");
}

/// N-RG-38
#[tokio::test]
async fn an_ipv6_network_of_64_bits_is_one_address() {
    let server = TestServer::new();
    let host = |network: u128, host: u128| {
        Ipv6Addr::from_bits((0x2001_0db8 << 96) | (network << 64) | host)
    };
    for n in 0..300 {
        let _ = register_from(&server, host(1, n)).await.expect(201);
    }
    limited(register_from(&server, host(1, 1 << 60)).await, "12");
    let _ = register_from(&server, host(2, 1)).await.expect(201);
}

/// N-RG-38
#[tokio::test]
async fn a_thousand_addresses_register_six_hundred_clients_and_then_ten_in_a_second() {
    let server = TestServer::new();
    let from_each = |first: u32| {
        let server = server.clone();
        async move {
            let mut registered = 0;
            for n in first..first + 1000 {
                let answer = register_from(&server, stranger(n)).await;
                registered += usize::from(answer.status == 201);
            }
            registered
        }
    };
    assert_eq!(from_each(0).await, 600);
    limited(register_from(&server, stranger(5000)).await, "1");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(from_each(6000).await, 10);
}

/// N-RG-38: behind a proxy that is trusted, the address that it names counts.
#[tokio::test]
async fn clients_behind_one_reverse_proxy_do_not_share_an_allowance() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.trusted_proxies = vec![HOME.into()];
    let server = TestServer::with(policy);
    let forwarded = |address: &'static str| {
        let mut request = json_request("/register", &json!({ "redirect_uris": [REDIRECT_URI] }));
        let address = HeaderValue::from_static(address);
        request.headers_mut().insert("x-forwarded-for", address);
        server.send(request)
    };
    for _ in 0..300 {
        let _ = forwarded("203.0.113.1").await.expect(201);
    }
    limited(forwarded("203.0.113.1").await, "12");
    let _ = forwarded("203.0.113.2").await.expect(201);
}

/// Counter-test of N-RG-38: what real clients do.
#[tokio::test]
async fn a_team_and_a_client_that_registers_for_each_connection_are_not_kept_out() {
    let server = TestServer::new();
    // Fifty people behind one address, on one morning, with three clients each.
    for _ in 0..150 {
        let _ = register_from(&server, HOME).await.expect(201);
        server.clock.advance(Duration::from_secs(20));
    }
    // A client that registers twice, a second apart, and one that does so for each connection.
    let server = TestServer::new();
    for _ in 0..2 {
        let _ = register_from(&server, HOME).await.expect(201);
        server.clock.advance(Duration::from_secs(1));
    }
    for _ in 0..30 {
        let client = server.mcp_client().await;
        let tokens = client.sign_in().await;
        let _ = client.call(&tokens).await.expect(200);
    }
}

#[tokio::test]
async fn only_what_would_be_kept_counts_as_a_registration() {
    let server = TestServer::new();
    for _ in 0..1000 {
        let _ = server
            .post_json("/register", &json!({ "redirect_uris": [] }))
            .await
            .expect(400);
    }
    let _ = register_from(&server, HOME).await.expect(201);
}

#[tokio::test]
async fn limits_that_are_off_limit_nothing() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.registrations_per_address = None;
    policy.limits.registrations = None;
    policy.limits.calls_per_grant = None;
    let server = TestServer::with(policy);
    for _ in 0..1000 {
        let _ = register_from(&server, HOME).await.expect(201);
    }
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for _ in 0..1000 {
        let _ = client.call(&tokens).await.expect(200);
    }
}

/// A record is written at a denial although nobody signed in, so there must be few of them.
#[tokio::test]
async fn denials_without_end_write_no_records_without_end() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let opened = || async { client.opens(&client.authorization_with(&[])).await };
    let deny = |address: IpAddr| {
        let server = &server;
        async move {
            let (browser, page) = opened().await;
            let request = browser.form(&page, &[("decision", "deny")]);
            server.send_from(address, request).await
        }
    };
    for _ in 0..10 {
        let _ = deny(HOME).await.expect(303);
    }
    let before = server.state();
    let refused = deny(HOME).await.expect(429);
    assert_eq!(refused.header("retry-after"), "60");
    assert!(refused.text().contains("Nothing was approved"));
    assert_eq!(server.state(), before);
    assert_eq!(
        server.journal.count("Limited { limit: DenialsPerAddress"),
        1
    );

    let mut denied = 10;
    for n in 0..200 {
        denied += usize::from(deny(stranger(n)).await.status == 303);
    }
    assert_eq!(denied, 100);
    assert_eq!(server.journal.count("Limited { limit: Denials,"), 110);
    assert_eq!(server.stored().matches("denied").count(), 100);

    // Who wants to approve can, whatever others deny.
    let _ = client.sign_in().await;
    server.clock.advance(Duration::from_mins(1));
    let _ = deny(HOME).await.expect(303);
}

/// N-LG-02, TK-26
#[tokio::test]
async fn forged_access_tokens_are_refused_in_short_after_sixty_from_one_address() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let call = |authorization: &str| {
        let request = request(Method::POST, "/mcp").header(header::AUTHORIZATION, authorization);
        request.body(Body::empty()).unwrap()
    };
    for n in 0..60 {
        let answer = server.send(call(&format!("Bearer mopa_{n}"))).await;
        let _ = answer.expect(401).header("www-authenticate");
    }
    let before = server.store.accesses();
    limited(server.send(call("Bearer mopa_x")).await, "1");
    assert_eq!(server.store.accesses(), before);
    assert_eq!(server.journal.count("Limited { limit: WrongTokens"), 1);

    // Who holds a token, has none yet, or holds one that has ended, gets what it always gets.
    let _ = client.call(&tokens).await.expect(200);
    let none = request(Method::POST, "/mcp").body(Body::empty()).unwrap();
    let _ = server
        .send(none)
        .await
        .expect(401)
        .header("www-authenticate");
    let _ = client.revoke(&tokens.refresh_token).await.expect(200);
    let _ = client
        .call(&tokens)
        .await
        .expect(401)
        .header("www-authenticate");
    // And other addresses notice nothing.
    let elsewhere = server.send_from(stranger(1), call("Bearer mopa_x")).await;
    let _ = elsewhere.expect(401);
    server.clock.advance(Duration::from_secs(1));
    let _ = server.send(call("Bearer mopa_x")).await.expect(401);
}

/// N-RF-20, N-LG-02, TK-26: a short form; each of the guesses costs one read and no write.
#[tokio::test]
async fn guessed_refresh_tokens_and_codes_write_nothing_and_keep_no_holder_out() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let state = server.state();
    let writes = server.store.accesses().1;
    for n in 0..2000_u32 {
        // The right form: a family, a generation and a MAC, all made up.
        let guess = Tokens {
            access_token: String::new(),
            refresh_token: format!("mopr_{n:070}"),
        };
        let answer = if n % 2 == 0 {
            client.refresh(&guess).await
        } else {
            client.redeem(&format!("mopc_{n:064}")).await
        };
        if n < 60 {
            let _ = answer.refused(400, "invalid_grant");
        } else {
            limited(answer, "1");
        }
    }
    assert_eq!(server.state(), state);
    assert_eq!(server.store.accesses().1, writes);
    assert_eq!(server.journal.count("Limited { limit: WrongTokens"), 1940);

    // From the same address, in the same moment.
    let second = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.sign_in().await;
    for _ in 0..60 {
        server.clock.advance(Duration::from_secs(1));
        let _ = client.revoke("mopr_unknown").await.expect(200);
    }
    limited(client.revoke("mopr_unknown").await, "1");
    let _ = client.revoke(&second.refresh_token).await.expect(200);
    let _ = client.call(&second).await.expect(401);
}

/// TK-26: a right guess must not be told from a wrong one any more.
#[tokio::test]
async fn after_sixty_wrong_secrets_of_a_client_its_guessers_address_is_not_listened_to() {
    let server = TestServer::new();
    let confidential = json!({ "token_endpoint_auth_method": "client_secret_post" });
    let client = McpClient::register(&server, &confidential).await;
    let other = McpClient::register(&server, &confidential).await;
    let guesser = McpClient {
        client_secret: Some("mops_guess".to_owned()),
        ..client.clone()
    };
    let code = client.code().await;
    for _ in 0..60 {
        let _ = guesser.redeem(&code).await.refused(401, "invalid_client");
    }
    limited(guesser.redeem(&code).await, "1");
    limited(client.redeem(&code).await, "1");
    assert_eq!(server.journal.count("Limited { limit: WrongSecrets"), 2);

    // Another client there, and the same client elsewhere.
    let _ = other.sign_in().await;
    let secret = client.client_secret.as_deref().unwrap();
    let fields = [
        ("client_id", client.client_id.as_str()),
        ("client_secret", secret),
        ("grant_type", "refresh_token"),
        ("refresh_token", "mopr_x"),
    ];
    let elsewhere = server.send_from(stranger(1), form("/token", &fields)).await;
    let _ = elsewhere.refused(400, "invalid_grant");
    server.clock.advance(Duration::from_secs(1));
    let _ = client.redeem(&code).await.expect(200);
}

/// N-LG-05
#[tokio::test]
async fn a_grant_makes_two_hundred_calls_in_a_second() {
    let server = TestServer::new();
    let (client, other) = (server.mcp_client().await, server.mcp_client().await);
    let (tokens, others) = (client.sign_in().await, other.sign_in().await);
    for _ in 0..200 {
        let _ = client.call(&tokens).await.expect(200);
    }
    let before = server.state();
    limited_call(client.call(&tokens).await, "1");
    assert_eq!(server.state(), before, "it did not reach the upstream");
    assert_eq!(server.journal.count("CallRefused"), 1);
    let told = server.journal.all().pop().unwrap();
    assert!(told.ends_with("why: Limit(CallsPerGrant) }"), "{told}");

    // A new token is the same grant; another grant is not.
    let second = Tokens::of(&client.refresh(&tokens).await.expect(200));
    limited_call(client.call(&second).await, "1");
    let _ = other.call(&others).await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    let _ = client.call(&second).await.expect(200);
}

/// Opens what is a stream at once if the upstream says so.
async fn open(client: &McpClient, tokens: &Tokens, ask: &Ask, is_stream: bool) -> Response<Body> {
    let server = &client.server;
    let mut request = Request::builder()
        .uri("/mcp")
        .method(if matches!(ask, Ask::Get) {
            Method::GET
        } else {
            Method::POST
        })
        .header(header::HOST, "gw.example")
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", tokens.access_token),
        );
    let mut body = "";
    if matches!(ask, Ask::Listen | Ask::ListenUnsaid) {
        request = request.header("mcp-protocol-version", "2026-07-28");
        body = r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}"#;
    }
    if matches!(ask, Ask::Listen) {
        request = request.header("mcp-method", "subscriptions/listen");
    }
    let content_type = if is_stream {
        "text/event-stream"
    } else {
        "application/json"
    };
    server.upstream.answers(
        Response::builder()
            .header(header::CONTENT_TYPE, content_type)
            .body(Body::from_stream(stream::pending::<
                Result<Bytes, std::io::Error>,
            >()))
            .unwrap(),
    );
    let request = request.body(Body::from(body)).unwrap();
    server.front.answer(request, HOME).await
}

enum Ask {
    Get,
    Listen,
    /// No header says so.
    ListenUnsaid,
    Call,
}

/// N-LG-06
#[tokio::test]
async fn a_grant_has_sixteen_streams_open_at_one_time() {
    let server = TestServer::new();
    let (client, other) = (server.mcp_client().await, server.mcp_client().await);
    let (tokens, others) = (client.sign_in().await, other.sign_in().await);
    let mut streams = Vec::new();
    for n in 0..16 {
        let ask = if n % 2 == 0 { Ask::Get } else { Ask::Listen };
        let stream = open(&client, &tokens, &ask, true).await;
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    for ask in [Ask::Get, Ask::Listen, Ask::ListenUnsaid] {
        let received = server.upstream.received().len();
        let refused = open(&client, &tokens, &ask, true).await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "10");
        assert_eq!(refused.headers()["content-type"], "application/json");
        assert_eq!(server.upstream.received().len(), received);
        // What was queued for it is taken by the next.
        let call = client.call_request(&tokens);
        assert_eq!(server.front.answer(call, HOME).await.status(), 200);
    }
    let told = server.journal.all();
    assert!(
        told.iter()
            .any(|event| event.ends_with("why: Limit(StreamsPerGrant) }"))
    );

    // Calls go on, streamed answers too, and so do the streams of others.
    let answers: Vec<_> = [
        open(&client, &tokens, &Ask::Call, true).await,
        open(&client, &tokens, &Ask::Call, false).await,
        open(&other, &others, &Ask::Get, true).await,
    ]
    .into_iter()
    .collect();
    assert!(answers.iter().all(|answer| answer.status() == 200));

    streams.pop();
    let again = open(&client, &tokens, &Ask::Get, true).await;
    assert_eq!(again.status(), 200);
    let refused = open(&client, &tokens, &Ask::Get, true).await;
    assert_eq!(refused.status(), 429);
}

/// N-LG-06: a place is given back when there is no stream, and when the grant has ended.
#[tokio::test]
async fn what_is_no_stream_takes_no_place() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.streams_per_grant = 1;
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for _ in 0..10 {
        let answer = open(&client, &tokens, &Ask::Get, false).await;
        assert_eq!(answer.status(), 200);
    }
    let stream = open(&client, &tokens, &Ask::Get, true).await;
    assert_eq!(stream.status(), 200);
    let refused = open(&client, &tokens, &Ask::Get, true).await;
    assert_eq!(refused.status(), 429);
}

/// An event stream whose body is this.
fn event_stream(body: Body) -> Response<Body> {
    let answer = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    answer.body(body).unwrap()
}

/// Asks for a stream of its own, with what the upstream answers it.
async fn listen(client: &McpClient, tokens: &Tokens, answer: Response<Body>) -> Response<Body> {
    listen_with(client, tokens, answer, &[]).await
}

async fn listen_with(
    client: &McpClient,
    tokens: &Tokens,
    answer: Response<Body>,
    headers: &[(&str, &str)],
) -> Response<Body> {
    let bearer = format!("Bearer {}", tokens.access_token);
    let mut get = request(Method::GET, "/mcp").header(header::AUTHORIZATION, bearer);
    for (name, value) in headers {
        get = get.header(*name, *value);
    }
    let get = get.body(Body::empty()).unwrap();
    client.server.upstream.answers(answer);
    client.server.front.answer(get, HOME).await
}

/// What ends at once: with nothing, with a length, after a word, by breaking off.
fn brief_streams() -> [Response<Body>; 4] {
    let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
    let mut with_length = event_stream(Body::empty());
    let length = HeaderValue::from_static("0");
    with_length
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length);
    [
        event_stream(Body::from_stream(
            stream::empty::<Result<Bytes, Infallible>>(),
        )),
        with_length,
        event_stream(Body::from(": hello\n\n")),
        event_stream(Body::from_stream(broken)),
    ]
}

/// Case 25: the client asks again as often as it likes.
#[tokio::test]
async fn streams_that_end_at_once_over_and_over_are_slowed_down() {
    for kind in 0..brief_streams().len() {
        let server = TestServer::new();
        let (client, other) = (server.mcp_client().await, server.mcp_client().await);
        let (tokens, others) = (client.sign_in().await, other.sign_in().await);
        let brief = || brief_streams().into_iter().nth(kind).unwrap();
        for _ in 0..6 {
            let stream = listen(&client, &tokens, brief()).await;
            assert_eq!(stream.status(), 200, "{kind}");
            let _ = stream.into_body().collect().await;
        }
        let received = server.upstream.received().len();
        for _ in 0..50 {
            let refused = listen(&client, &tokens, brief()).await;
            assert_eq!(refused.status(), 429);
            assert_eq!(refused.headers()["retry-after"], "10");
        }
        assert_eq!(server.upstream.received().len(), received);
        let told = server.journal.all();
        let refusal = "why: Limit(BriefStreamsPerGrant) }";
        assert!(told.iter().any(|event| event.ends_with(refusal)));

        // Nothing else is held up by it.
        let _ = client.call(&tokens).await.expect(200);
        let others_stream = listen(&other, &others, brief()).await;
        assert_eq!(others_stream.status(), 200);
        server.clock.advance(Duration::from_secs(10));
        let again = listen(&client, &tokens, brief()).await;
        assert_eq!(again.status(), 200);
        let _ = again.into_body().collect().await;
        let refused = listen(&client, &tokens, brief()).await;
        assert_eq!(refused.status(), 429);
    }
}

/// Case 25, the twins: what lived, what its client left, and what goes on where it ended.
#[tokio::test]
async fn streams_that_were_of_use_are_opened_again_at_any_time() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for _ in 0..50 {
        let (events, rest) = mpsc::channel::<Bytes>(1);
        let body = Body::from_stream(stream::unfold(rest, async |mut rest| {
            rest.recv()
                .await
                .map(|event| (Ok::<_, Infallible>(event), rest))
        }));
        let stream = listen(&client, &tokens, event_stream(body)).await;
        assert_eq!(stream.status(), 200);
        server.clock.advance(Duration::from_secs(1));
        drop(events);
        let _ = stream.into_body().collect().await.unwrap();
    }
    for _ in 0..50 {
        let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let stream = listen(&client, &tokens, event_stream(endless)).await;
        assert_eq!(stream.status(), 200);
        drop(stream);
    }
    // A server may end its stream after an event with an id, and have its client ask again
    // (MCP 2025-11-25, "Sending Messages to the Server").
    let opening = || {
        Response::builder()
            .header("mcp-session-id", "s-1")
            .body(Body::empty())
            .unwrap()
    };
    server.upstream.answers(opening());
    let session = client.call(&tokens).await.expect(200);
    let session = session.header("mcp-session-id");
    let resumed = [("mcp-session-id", session), ("last-event-id", "7")];
    for _ in 0..50 {
        let brief = event_stream(Body::from("id: 8\ndata:\n\n"));
        let stream = listen_with(&client, &tokens, brief, &resumed).await;
        assert_eq!(stream.status(), 200);
        let _ = stream.into_body().collect().await.unwrap();
    }
    // The answer to a request is no stream of this kind, even where the request asks for one.
    for method in ["tools/call", "subscriptions/listen"] {
        // So that there are not too many calls.
        server.clock.advance(Duration::from_secs(1));
        for _ in 0..50 {
            let answer = event_stream(Body::from("data: 1\n\n"));
            server.upstream.answers(answer);
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
            let mut call = client.call_request(&tokens);
            *call.body_mut() = Body::from(body);
            let method = HeaderValue::from_static(method);
            call.headers_mut().insert("mcp-method", method);
            let answer = server.front.answer(call, HOME).await;
            assert_eq!(answer.status(), 200);
            let _ = answer.into_body().collect().await.unwrap();
        }
    }
}

/// The limit can be switched off, as any other.
#[tokio::test]
async fn without_a_rate_streams_may_end_at_once_for_ever() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.brief_streams_per_grant = None;
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for _ in 0..50 {
        let stream = listen(&client, &tokens, event_stream(Body::empty())).await;
        assert_eq!(stream.status(), 200);
    }
}

/// N-AZ-55, a short form: there is nothing to bound, since an open request is kept by the browser
/// alone. That it takes no memory either is tested with the real program.
#[tokio::test]
async fn open_authorization_requests_are_kept_nowhere() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let before = (server.state(), server.store.accesses().1);
    for _ in 0..2000 {
        let _ = client
            .opens(&client.authorization_with(&[]))
            .await
            .1
            .expect(200);
    }
    assert_eq!((server.state(), server.store.accesses().1), before);
    let answer = browser
        .approve(&server, &page, support::PASSPHRASE)
        .await
        .expect(303);
    let _ = client
        .redeem(answer.redirect().parameter("code"))
        .await
        .expect(200);
}

/// FI-05, FI-06: a store that can be read but not written, as on a full disk.
#[tokio::test]
async fn while_the_store_takes_no_writes_calls_go_on_and_nothing_is_lost() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let _ = server.get("/ready").await.expect(200);
    let before = server.state().0;

    server.store.set_read_only(true);
    let _ = client
        .refresh(&tokens)
        .await
        .refused(503, "temporarily_unavailable")
        .header("retry-after");
    let _ = register_from(&server, HOME)
        .await
        .refused(503, "temporarily_unavailable");
    let _ = client.call(&tokens).await.expect(200);
    server.clock.advance(Duration::from_secs(2));
    let _ = server
        .get("/ready")
        .await
        .refused(503, "temporarily_unavailable");
    let _ = server.get("/health").await.expect(200);
    assert_eq!(server.state().0, before);

    server.store.set_read_only(false);
    server.clock.advance(Duration::from_secs(2));
    let _ = server.get("/ready").await.expect(200);
    let second = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.call(&second).await.expect(200);
}

/// Anybody may ask whether the program is ready, so asking must not cost a write each time.
#[tokio::test]
async fn readiness_is_looked_at_every_two_seconds_at_most() {
    let server = TestServer::new();
    for _ in 0..3 {
        let before = server.store.accesses().1;
        for _ in 0..100 {
            let _ = server.get("/ready").await.expect(200);
        }
        assert_eq!(server.store.accesses().1, before + 1);
        server.clock.advance(Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_metadata_address_with_nothing_behind_it_is_told() {
    let server = TestServer::with_two_upstreams();
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp/nobody",
        "/.well-known/oauth-authorization-server/nobody",
    ] {
        let _ = server.get(path).await.expect(404);
        let told = server.journal.all().pop().unwrap();
        assert!(
            told.starts_with(&format!("NotFound {{ path: {path:?}, ")),
            "{told}"
        );
    }
}

/// A request that was sent all but its last byte.
struct Unfinished {
    answer: Pin<Box<dyn Future<Output = Response<Body>>>>,
}

impl Unfinished {
    /// `None`: it was not waited for, but refused as it should be.
    fn send(server: &TestServer, address: IpAddr, path: &str, sent: usize) -> Option<Self> {
        let content_type = match path {
            "/register" => "application/json",
            _ => "application/x-www-form-urlencoded",
        };
        let sent = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; sent]))]);
        let request = request(Method::POST, path)
            .header(header::CONTENT_TYPE, content_type)
            .header("x-forwarded-for", address.to_string())
            .body(Body::from_stream(sent.chain(stream::pending())))
            .unwrap();
        let front = server.front.clone();
        let answer = async move { front.answer(request, HOME).await }.boxed_local();
        let mut request = Self { answer };
        (!request.is_refused()).then_some(request)
    }

    /// Whether it is not waited for any more, or not at all.
    fn is_refused(&mut self) -> bool {
        let Some(refused) = (&mut self.answer).now_or_never() else {
            return false;
        };
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
        true
    }

    /// So many of them, as far as they are waited for.
    fn send_many(server: &TestServer, address: IpAddr, sent: usize, number: usize) -> Vec<Self> {
        let one = |_| Self::send(server, address, "/token", sent);
        (0..number).filter_map(one).collect()
    }
}

/// A server behind a proxy that says who its clients are.
fn behind_a_proxy() -> TestServer {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.trusted_proxies = vec![HOME.into()];
    TestServer::with(policy)
}

/// Whoever sends requests without their end fills no memory and stands in nobody's way.
#[tokio::test]
async fn who_sends_bodies_that_do_not_end_gives_way_to_everybody_else() {
    let server = behind_a_proxy();
    let client = server.mcp_client().await;
    let (attacker, other) = (stranger(1), stranger(2));
    let before = server.state();

    let mut waiting = Unfinished::send_many(&server, attacker, 60_000, 1000);
    // In 16 MiB, and each takes some more than its body.
    assert_eq!(waiting.len(), 245);
    waiting.extend(Unfinished::send_many(&server, attacker, 0, 1000));
    let paths = ["/token", "/revoke", "/register", "/authorize", "/consent"];
    for path in paths {
        let more = Unfinished::send(&server, attacker, path, 16_000);
        assert!(more.is_none(), "{path}");
    }
    assert_eq!(
        server.journal.count("Limited { limit: WaitingRequests"),
        2000 - waiting.len() + paths.len()
    );
    for path in paths {
        let others = Unfinished::send(&server, other, path, 16_000);
        assert!(others.is_some(), "{path}");
    }
    // The oldest made room for them.
    assert!(waiting[0].is_refused() && !waiting[10].is_refused());
    assert_eq!(server.state(), before);

    let tokens = client.sign_in().await;
    let _ = client.refresh(&tokens).await.expect(200);
    drop(waiting);
    assert!(Unfinished::send(&server, attacker, "/token", 60_000).is_some());
}

/// Nor do many who do so together, each with whatever still finds room.
#[tokio::test]
async fn however_many_send_bodies_that_do_not_end_another_is_served() {
    let server = behind_a_proxy();
    let client = server.mcp_client().await;
    let mut waiting = Vec::new();
    for attacker in 0..300 {
        for sent in [60_000, 1_000, 0] {
            waiting.extend(Unfinished::send_many(&server, stranger(attacker), sent, 8));
        }
    }
    let tokens = client.sign_in().await;
    let _ = client.refresh(&tokens).await.expect(200);
    let _ = client.revoke(&tokens.refresh_token).await.expect(200);
}

/// A body that comes in pieces and does not say how long it is.
fn in_pieces(path: &str, length: usize) -> Request<Body> {
    let content_type = match path {
        "/register" => "application/json",
        _ => "application/x-www-form-urlencoded",
    };
    let mut pieces = vec![Bytes::from(vec![b'x'; 100]); length / 100];
    pieces.push(Bytes::from(vec![b'x'; length % 100]));
    let pieces = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    request(Method::POST, path)
        .header(header::CONTENT_TYPE, content_type)
        .body(Body::from_stream(pieces))
        .unwrap()
}

/// S1-22: all pieces together count, not each by itself.
#[tokio::test]
async fn a_body_in_small_pieces_without_a_length_has_the_same_limit() {
    let server = TestServer::new();
    let before = server.state();
    for path in ["/token", "/revoke", "/register", "/authorize", "/consent"] {
        let limit = match path {
            "/register" => 16 * 1024,
            _ => 64 * 1024,
        };
        let _ = server.send(in_pieces(path, limit + 1)).await.expect(413);
        // One byte less is read, and found to be nonsense.
        let read = server.send(in_pieces(path, limit)).await;
        assert!([400, 401, 403].contains(&read.status.as_u16()), "{read:#?}");
    }
    assert_eq!(server.state(), before);
}
