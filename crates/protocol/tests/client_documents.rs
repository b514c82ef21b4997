//! Clients that are known by a document which they publish: what is fetched, when, and what it
//! may and may not do (checklist CI and CIM).

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::{net::IpAddr, time::Duration};

use axum::body::Body;
use futures_util::{FutureExt, future::join_all};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use protocol::{oauth::client_document::HostPattern, ports::FetchError};
use serde_json::{Value, json};
use support::{
    Answer, PASSPHRASE, TestServer, UPSTREAM_KEY,
    client::{McpClient, REDIRECT_URI, Tokens, query},
    policy, request,
};

const CLAUDE: &str = "https://claude.ai/oauth/mcp-oauth-client-metadata";
const CLAUDE_CODE: &str = "https://claude.ai/oauth/claude-code-client-metadata";
const OTHER: &str = "https://client.example/oauth/client.json";
const OTHER_REDIRECT: &str = "https://client.example/cb";

const NOT_FETCHED: &str = "could not be fetched, try again in a minute";

fn claude() -> Value {
    json!({
        "client_id": CLAUDE,
        "client_name": "Claude",
        "client_uri": "https://claude.ai",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": [
            "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"
        ],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    })
}

fn claude_code() -> Value {
    json!({
        "client_id": CLAUDE_CODE,
        "client_name": "Claude Code",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none",
    })
}

fn other() -> Value {
    json!({
        "client_id": OTHER,
        "client_name": "Other",
        "redirect_uris": [OTHER_REDIRECT],
    })
}

fn with(mut document: Value, member: &str, value: Value) -> Value {
    document[member] = value;
    document
}

/// A server, and the client of [`other`].
fn server_and_other() -> (TestServer, McpClient) {
    let server = TestServer::new();
    server.fetch.publish(OTHER, &other());
    let client = McpClient::by_document(&server, OTHER, OTHER_REDIRECT);
    (server, client)
}

async fn asks(client: &McpClient) -> Answer {
    client.opens(&query(&client.authorization())).await.1
}

/// Insists on a page that tells the reason and sends the browser nowhere.
#[track_caller]
fn refused_here(answer: Answer, reason: &str) {
    let answer = answer.expect(400);
    assert!(!answer.headers.contains_key("location"), "{answer:#?}");
    assert!(answer.text().contains(reason), "{reason}: {answer:#?}");
}

/// A failed fetch, and what to call it.
type Failure = (&'static str, fn() -> FetchError);

/// What may go wrong between a publisher and us.
fn failures() -> Vec<Failure> {
    vec![
        ("a private address", || FetchError::Refused),
        ("no route", || FetchError::Unreachable("refused".into())),
        ("silence", || FetchError::TimedOut),
        ("a cut", || FetchError::Broken("reset".into())),
        ("a page", || FetchError::Html),
        ("a challenge", || FetchError::Status(StatusCode::FORBIDDEN)),
        ("a limit", || {
            FetchError::Status(StatusCode::TOO_MANY_REQUESTS)
        }),
        ("a fault", || FetchError::Status(StatusCode::BAD_GATEWAY)),
    ]
}

/// What a publisher may say instead of giving the document.
fn refusals() -> Vec<Failure> {
    vec![
        ("moved", || FetchError::Status(StatusCode::FOUND)),
        ("created", || FetchError::Status(StatusCode::CREATED)),
        ("empty", || FetchError::Status(StatusCode::NO_CONTENT)),
        ("unchanged", || FetchError::Status(StatusCode::NOT_MODIFIED)),
        ("missing", || FetchError::Status(StatusCode::NOT_FOUND)),
        ("gone", || FetchError::Status(StatusCode::GONE)),
        ("large", || FetchError::TooLarge),
        ("compressed", || FetchError::Encoded),
    ]
}

/// MD-06
#[tokio::test]
async fn md_06_the_metadata_says_that_documents_are_taken() {
    let server = TestServer::new();
    let answer = server
        .get("/.well-known/oauth-authorization-server")
        .await
        .expect(200);
    assert_eq!(answer.json()["client_id_metadata_document_supported"], true);
    assert!(
        answer.json()["token_endpoint_auth_methods_supported"]
            .as_array()
            .unwrap()
            .contains(&json!("none"))
    );
}

/// ASM-04, ASM-07
#[tokio::test]
async fn where_documents_are_off_none_is_fetched_and_they_are_not_offered() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.clients.documents = false;
    let server = TestServer::with(policy);
    let metadata = server.get("/.well-known/oauth-authorization-server").await;
    let metadata = metadata.expect(200).json();
    let document = "client_id_metadata_document_supported";
    assert!(metadata.get(document).is_none(), "{metadata}");
    let methods = &metadata["token_endpoint_auth_methods_supported"];
    assert_eq!(
        *methods,
        json!(["none", "client_secret_post", "client_secret_basic"])
    );
    let signing = "token_endpoint_auth_signing_alg_values_supported";
    assert!(metadata.get(signing).is_none(), "{metadata}");
    for id in [OTHER, CLAUDE] {
        let client = McpClient::by_document(&server, id, REDIRECT_URI);
        refused_here(asks(&client).await, "not taken here");
        let answer = client.redeem("mopc_x").await;
        let _ = answer.refused(401, "invalid_client");
    }
    assert_eq!(server.fetch.asked(), [] as [&str; 0]);
}

/// CI-13
#[tokio::test]
async fn ci_13_documents_are_taken_from_the_hosts_that_the_operator_wants() {
    let host = |text: &str| HostPattern::parse(text).unwrap();
    for (taken, refused, is_taken) in [
        (vec![], vec![], true),
        (vec!["client.example"], vec![], true),
        (vec![], vec!["other.example"], true),
        (vec!["claude.ai", "client.example"], vec![], true),
        (vec!["claude.ai"], vec![], false),
        (vec![], vec!["client.example"], false),
        (vec!["client.example"], vec!["client.example"], false),
        (vec!["*.client.example"], vec![], false),
    ] {
        let mut policy = policy(&[("one", "/mcp")]);
        policy.clients.document_hosts = taken.iter().map(|text| host(text)).collect();
        policy.clients.refused_document_hosts = refused.iter().map(|text| host(text)).collect();
        let server = TestServer::with(policy);
        server.fetch.publish(OTHER, &other());
        let client = McpClient::by_document(&server, OTHER, OTHER_REDIRECT);
        if is_taken {
            let _ = client.call(&client.sign_in().await).await.expect(200);
        } else {
            refused_here(asks(&client).await, "not taken here from this host");
            assert_eq!(server.fetch.asked(), [] as [&str; 0]);
        }
    }
}

/// CI-13: who is refused later loses what it has.
#[tokio::test]
async fn ci_13_a_host_that_is_refused_later_cannot_refresh() {
    let (server, client) = server_and_other();
    let tokens = client.sign_in().await;
    let mut policy = policy(&[("one", "/mcp")]);
    policy.clients.refused_document_hosts = vec![HostPattern::parse("client.example").unwrap()];
    let after = client.on(&server.another(policy));
    let _ = after.refresh(&tokens).await.refused(401, "invalid_client");
    let _ = client.refresh(&tokens).await.expect(200);
}

/// CI-01, CI-05, CI-12
#[tokio::test]
async fn ci_01_claude_connects_by_its_document_and_nothing_is_registered() {
    let server = TestServer::new();
    server.fetch.publish(CLAUDE, &claude());
    let client = McpClient::by_document(&server, CLAUDE, REDIRECT_URI);

    let (mut browser, page) = client.opens(&query(&client.authorization())).await;
    let page = page.expect(200);
    assert!(page.text().contains("“Claude”"), "{page:#?}");
    assert!(
        page.text().contains(
            "identity that is published at <strong><bdi translate=\"no\">claude.ai</bdi>"
        )
    );
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    assert_eq!(answer.redirect().to, REDIRECT_URI);
    let code = answer.redirect().parameter("code").to_owned();
    let first = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.call(&first).await.expect(200);
    assert_eq!(
        server.upstream.last().headers()["authorization"],
        format!("Bearer {UPSTREAM_KEY}")
    );

    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = client.call(&second).await.expect(200);
    let _ = client.revoke(&second.refresh_token).await.expect(200);
    let _ = client.call(&second).await.expect(401);
    let _ = client.refresh(&second).await.refused(400, "invalid_grant");

    assert_eq!(server.fetch.asked(), [CLAUDE]);
    assert!(!server.stored().contains("client/"));
}

/// CI-05, CI-12, CIM-13
#[tokio::test]
async fn ci_05_claude_code_connects_from_whatever_port_is_free() {
    let server = TestServer::new();
    server.fetch.publish(CLAUDE_CODE, &claude_code());
    for redirect_uri in [
        "http://localhost:51234/callback",
        "http://127.0.0.1:61000/callback",
        "http://localhost/callback",
    ] {
        let client = McpClient::by_document(&server, CLAUDE_CODE, redirect_uri);
        let page = asks(&client).await.expect(200);
        assert!(
            page.text()
                .contains("Any program on it can claim this name")
        );
        assert!(page.text().contains("claude.ai"));
        let tokens = client.sign_in().await;
        let _ = client.call(&tokens).await.expect(200);
    }
    assert_eq!(server.fetch.asked(), [CLAUDE_CODE]);
}

/// CI-05
// N-CI-24
#[tokio::test]
async fn ci_05_a_redirect_uri_that_is_not_in_the_document_is_refused_here() {
    let server = TestServer::new();
    server.fetch.publish(CLAUDE_CODE, &claude_code());
    for near_miss in [
        "http://localhost:51234/callback/",
        "http://localhost:51234/Callback",
        "http://localhost:51234/callback?x=1",
        "http://[::1]:51234/callback",
        "http://localhost.evil.example:51234/callback",
        "http://evil.example/callback",
        "https://localhost:51234/callback",
        REDIRECT_URI,
        "https://evil.example/cb",
    ] {
        let client = McpClient::by_document(&server, CLAUDE_CODE, near_miss);
        refused_here(asks(&client).await, "redirect_uri is not one that");
    }
}

/// CI-02
// N-CI-01 to N-CI-12
#[tokio::test]
async fn ci_02_what_cannot_be_a_document_url_is_refused_before_any_fetch() {
    let server = TestServer::new();
    for bad in [
        "http://client.example/oauth/client.json",
        "https://client.example",
        "https://client.example/",
        "https://client.example/a/../client.json",
        "https://client.example/a/%2E%2e/client.json",
        "https://client.example/client.json#x",
        "https://u:p@client.example/client.json",
        "https://client.example/client.json?x=1",
        "https://127.0.0.1/x",
        "https://169.254.169.254/x",
        "https://[::1]/x",
        "https://localhost/x",
        "https://client.example:22/x",
        "https://client.example./x",
        "https://bücher.example/x",
    ] {
        server
            .fetch
            .publish(bad, &with(other(), "client_id", bad.into()));
        let client = McpClient::by_document(&server, bad, OTHER_REDIRECT);
        refused_here(asks(&client).await, "client_id is a URL that cannot name");
        let _ = client
            .refresh(&Tokens {
                access_token: String::new(),
                refresh_token: "x".into(),
            })
            .await
            .refused(401, "invalid_client");
    }
    assert_eq!(server.fetch.asked(), [] as [&str; 0]);
}

/// CI-03, CI-04, CI-06, CI-10
#[tokio::test]
async fn ci_03_a_document_that_breaks_the_rules_is_refused_here_and_the_good_one_passes() {
    let list = "token_endpoint_auth_methods_supported";
    for (document, reason) in [
        (
            with(other(), "client_id", format!("{OTHER}/").into()),
            "not its own address",
        ),
        (
            with(other(), "client_name", Value::Null),
            "has no client_name",
        ),
        (
            with(other(), "redirect_uris", json!([])),
            "redirect_uris must be",
        ),
        (
            with(other(), "client_secret", "x".into()),
            "must not have a client secret",
        ),
        (
            with(other(), list, json!(["private_key_jwt"])),
            "needs jwks or jwks_uri",
        ),
        (
            with(other(), list, json!(["tls_client_auth"])),
            "it must be none or private_key_jwt",
        ),
        (json!([other()]), "not one JSON object"),
    ] {
        let (server, client) = server_and_other();
        server.fetch.publish(OTHER, &document);
        refused_here(asks(&client).await, reason);
        // CI-08: an invalid document is not remembered.
        server.fetch.publish(OTHER, &other());
        let _ = asks(&client).await.expect(200);
    }
    let (server, client) = server_and_other();
    let chatgpt = with(other(), list, json!(["none", "private_key_jwt"]));
    server.fetch.publish(OTHER, &chatgpt);
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
}

/// CI-14, CIM-11
#[tokio::test]
async fn ci_14_a_request_that_cannot_pass_makes_us_fetch_nothing() {
    let (server, client) = server_and_other();
    let long_state = "x".repeat(4097);
    for change in [
        ("code_challenge", None),
        ("code_challenge", Some("short")),
        ("code_challenge_method", Some("plain")),
        ("response_type", Some("token")),
        ("response_mode", Some("fragment")),
        ("redirect_uri", Some("javascript:alert(1)")),
        ("redirect_uri", Some("http://client.example/cb")),
        ("state", Some(long_state.as_str())),
        ("scope", Some("\"")),
        ("request_uri", Some("https://client.example/request")),
    ] {
        let (_, answer) = client.opens(&client.authorization_with(&[change])).await;
        refused_here(answer, "The reason");
    }
    assert_eq!(server.fetch.asked(), [] as [&str; 0]);
    let _ = asks(&client).await.expect(200);
    assert_eq!(server.fetch.asked(), [OTHER]);
}

/// CI-08, RC-10
// N-CI-25
#[tokio::test]
async fn ci_08_a_thousand_requests_at_once_make_one_fetch() {
    let (server, client) = server_and_other();
    let held = server.fetch.hold().await;
    let requests = join_all((0..1000).map(|_| asks(&client)));
    let release = async {
        while server.fetch.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        drop(held);
    };
    let (answers, ()) = tokio::join!(requests, release);
    assert_eq!(answers.len(), 1000);
    for answer in answers {
        let _ = answer.expect(200);
    }
    assert_eq!(server.fetch.asked(), [OTHER]);
}

#[tokio::test]
async fn one_who_stops_waiting_takes_the_document_from_nobody() {
    let (server, client) = server_and_other();
    let held = server.fetch.hold().await;
    let mut first = Box::pin(asks(&client));
    let mut second = Box::pin(asks(&client));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert!((&mut second).now_or_never().is_none());
    drop(held);
    let _ = second.await.expect(200);
    assert_eq!(server.fetch.asked(), [OTHER]);

    // When all stop waiting, the fetch ends, and the next one begins anew.
    server.clock.advance(Duration::from_mins(2));
    let held = server.fetch.hold().await;
    assert!(asks(&client).now_or_never().is_none());
    drop(held);
    let _ = asks(&client).await.expect(200);
    assert_eq!(server.fetch.asked(), [OTHER, OTHER, OTHER]);
}

/// CI-08, CIM-08
// N-CI-18
#[tokio::test]
async fn ci_08_a_fetch_that_failed_is_tried_again_at_once() {
    for (name, failure) in failures().into_iter().chain(refusals()) {
        let (server, client) = server_and_other();
        server.fetch.answer(OTHER, move || Err(failure()));
        // N-CI-26: the same words whatever happened, so that nobody scans through us.
        refused_here(asks(&client).await, NOT_FETCHED);
        server.fetch.publish(OTHER, &other());
        let page = asks(&client).await;
        assert_eq!(page.status, 200, "{name}");
        assert_eq!(server.fetch.asked().len(), 2, "{name}");
    }
}

/// CI-08, CIM-10
// N-CI-24
#[tokio::test]
async fn ci_08_a_copy_is_used_while_fresh_and_then_replaced_by_what_is_published() {
    let (server, client) = server_and_other();
    let headers: HeaderMap = [(
        HeaderName::from_static("cache-control"),
        "max-age=600".parse().unwrap(),
    )]
    .into_iter()
    .collect();
    server
        .fetch
        .publish_with(OTHER, other().to_string(), &headers);
    let _ = asks(&client).await.expect(200);
    let moved = McpClient::by_document(&server, OTHER, "https://client.example/new");
    let changed = with(
        other(),
        "redirect_uris",
        json!(["https://client.example/new"]),
    );
    server.fetch.publish(OTHER, &changed);

    server.clock.advance(Duration::from_secs(599));
    let _ = asks(&client).await.expect(200);
    refused_here(asks(&moved).await, "redirect_uri is not one that");
    assert_eq!(server.fetch.asked().len(), 1);

    server.clock.advance(Duration::from_secs(1));
    let _ = asks(&moved).await.expect(200);
    refused_here(asks(&client).await, "redirect_uri is not one that");
    assert_eq!(server.fetch.asked().len(), 2);
}

/// CI-09
#[tokio::test]
async fn ci_09_the_last_good_copy_stands_in_for_a_week_when_the_publisher_is_not_reached() {
    for (name, failure) in failures() {
        let (server, client) = server_and_other();
        let _ = asks(&client).await.expect(200);
        server.fetch.answer(OTHER, move || Err(failure()));

        server.clock.advance(Duration::from_hours(6 * 24));
        assert_eq!(asks(&client).await.status, 200, "{name}");
        assert_eq!(server.fetch.asked().len(), 2, "{name}");
        server.clock.advance(Duration::from_hours(24));
        refused_here(asks(&client).await, NOT_FETCHED);
    }
}

/// CI-09
#[tokio::test]
async fn ci_09_the_publishers_own_refusal_ends_the_last_good_copy() {
    for (_, refusal) in refusals() {
        let (server, client) = server_and_other();
        let _ = asks(&client).await.expect(200);
        server.fetch.answer(OTHER, move || Err(refusal()));
        server.clock.advance(Duration::from_mins(2));
        refused_here(asks(&client).await, NOT_FETCHED);
        // It stays gone when the network fails next.
        server.fetch.answer(OTHER, || Err(FetchError::TimedOut));
        refused_here(asks(&client).await, NOT_FETCHED);
    }
    let (server, client) = server_and_other();
    let _ = asks(&client).await.expect(200);
    server.fetch.publish_with(OTHER, "{}", &HeaderMap::new());
    server.clock.advance(Duration::from_mins(2));
    refused_here(asks(&client).await, "not its own address");
}

/// CI-09
#[tokio::test]
async fn ci_09_claude_connects_when_its_document_does_not_get_through() {
    for (name, failure) in failures() {
        let server = TestServer::new();
        for (id, redirect_uri) in [
            (CLAUDE, REDIRECT_URI),
            (CLAUDE_CODE, "http://localhost:51234/callback"),
        ] {
            server.fetch.answer(id, move || Err(failure()));
            let client = McpClient::by_document(&server, id, redirect_uri);
            let tokens = client.sign_in().await;
            assert_eq!(client.call(&tokens).await.status, 200, "{name}");
            let evil = McpClient::by_document(&server, id, "https://evil.example/cb");
            refused_here(asks(&evil).await, "redirect_uri is not one that");
        }
        assert!(server.journal.count("DocumentFailed") >= 2, "{name}");
    }
}

/// CI-09
#[tokio::test]
async fn ci_09_a_pinned_copy_does_not_overrule_the_publisher() {
    for (_, refusal) in refusals() {
        let server = TestServer::new();
        server.fetch.answer(CLAUDE, move || Err(refusal()));
        let client = McpClient::by_document(&server, CLAUDE, REDIRECT_URI);
        refused_here(asks(&client).await, NOT_FETCHED);
    }
    let server = TestServer::new();
    let moved = json!(["https://claude.com/api/mcp/auth_callback"]);
    server
        .fetch
        .publish(CLAUDE, &with(claude(), "redirect_uris", moved));
    let client = McpClient::by_document(&server, CLAUDE, REDIRECT_URI);
    refused_here(asks(&client).await, "redirect_uri is not one that");
    server.fetch.publish(CLAUDE, &json!({}));
    server.clock.advance(Duration::from_mins(2));
    refused_here(asks(&client).await, "not its own address");
}

/// Asks as the client of the document `id`, from the address of that number.
async fn asks_from(server: &TestServer, number: u32, id: &str) -> Answer {
    let client = McpClient::by_document(server, id, OTHER_REDIRECT);
    let path = format!("/authorize?{}", query(&client.authorization()));
    let request = request(Method::GET, &path).body(Body::empty()).unwrap();
    server.send_from(stranger(number), request).await
}

fn stranger(number: u32) -> IpAddr {
    IpAddr::from((0xc633_0000 + number).to_be_bytes())
}

const TOO_MANY: &str = "too many documents of clients were asked for";

/// CI-14, CIM-11
// N-CI-26
#[tokio::test]
async fn ci_14_a_flood_of_names_becomes_a_trickle_of_fetches() {
    let server = TestServer::new();
    let floods = |host: &'static str, first: u32| {
        let server = server.clone();
        async move {
            for n in first..first + 1000 {
                let _ = asks_from(&server, n, &format!("https://{host}/{n}")).await;
            }
        }
    };
    floods("victim.example", 0).await;
    assert_eq!(server.fetch.asked().len(), 10);
    let id = "https://victim.example/again";
    let late = McpClient::by_document(&server, id, OTHER_REDIRECT);
    refused_here(asks(&late).await, "try again in a minute");
    // Others are served, and the known ones even when nobody may be asked any more.
    server.fetch.publish(OTHER, &other());
    let client = McpClient::by_document(&server, OTHER, OTHER_REDIRECT);
    let _ = asks(&client).await.expect(200);
    for (host, first) in [
        ("a.example", 1000),
        ("b.example", 2000),
        ("c.example", 3000),
        ("d.example", 4000),
        ("e.example", 5000),
        ("f.example", 6000),
    ] {
        floods(host, first).await;
    }
    assert_eq!(server.fetch.asked().len(), 60);
    let claude = McpClient::by_document(&server, CLAUDE, REDIRECT_URI);
    let _ = asks(&claude).await.expect(200);
    assert_eq!(server.fetch.asked().len(), 60);

    server.clock.advance(Duration::from_mins(1));
    let _ = asks(&late).await.expect(400);
    assert_eq!(server.fetch.asked().len(), 61);
}

/// CI-14, CIM-11: one address has its own documents not looked at, and takes nobody else's.
#[tokio::test]
async fn ci_14_a_flood_from_one_address_shuts_nobody_else_out() {
    let (server, client) = server_and_other();
    for n in 0..1000 {
        for id in [
            format!("https://client.example/{n}"),
            format!("https://h{n}.example/x"),
        ] {
            let answer = asks_from(&server, 1, &id).await;
            if n > 2 {
                refused_here(answer, TOO_MANY);
            }
        }
    }
    assert_eq!(server.fetch.asked().len(), 5);
    let told = "Limited { limit: DocumentFetchesPerAddress";
    assert_eq!(server.journal.count(told), 1995);
    assert_eq!(server.journal.count("Limited"), 1995);

    // From elsewhere the same host is asked at once, and what came then is for all.
    let _ = asks(&client).await.expect(200);
    let _ = asks_from(&server, 1, OTHER).await.expect(200);
    // One more in twelve seconds.
    for _ in 0..2 {
        server.clock.advance(Duration::from_secs(12));
        let before = server.fetch.asked().len();
        for n in 0..10 {
            let id = format!("https://client.example/again/{n}");
            let _ = asks_from(&server, 1, &id).await;
        }
        assert_eq!(server.fetch.asked().len(), before + 1);
    }
}

/// CI-08, CIM-08: a failure is not remembered, but after the second nobody is asked for a while,
/// and no allowance is used.
#[tokio::test]
async fn ci_08_what_failed_twice_is_let_be_for_half_a_minute() {
    for (name, failure) in failures().into_iter().chain(refusals()) {
        let (server, client) = server_and_other();
        server.fetch.answer(OTHER, move || Err(failure()));
        for n in 0..1000 {
            refused_here(asks_from(&server, n, OTHER).await, NOT_FETCHED);
        }
        assert_eq!(server.fetch.asked().len(), 2, "{name}");
        let told = "Limited { limit: FailuresPerDocument";
        assert_eq!(server.journal.count(told), 998);
        // Another document of that host comes, and so does this one when it is due.
        let second = "https://client.example/second.json";
        let published = with(other(), "client_id", second.into());
        server.fetch.publish(second, &published);
        server.fetch.publish(OTHER, &other());
        let _ = asks_from(&server, 0, second).await.expect(200);
        refused_here(asks(&client).await, NOT_FETCHED);
        server.clock.advance(Duration::from_secs(30));
        let _ = asks(&client).await.expect(200);
        assert_eq!(server.fetch.asked().len(), 4, "{name}");
    }
}

/// CI-09: which copy stands in does not change while nobody is asked.
#[tokio::test]
async fn ci_09_while_what_failed_is_let_be_the_same_copy_stands_in() {
    for (name, failure) in failures() {
        let (server, client) = server_and_other();
        let _ = asks(&client).await.expect(200);
        server.fetch.answer(OTHER, move || Err(failure()));
        server.fetch.answer(CLAUDE, move || Err(failure()));
        server.clock.advance(Duration::from_mins(2));
        let claude = McpClient::by_document(&server, CLAUDE, REDIRECT_URI);
        for _ in 0..10 {
            assert_eq!(asks(&client).await.status, 200, "{name}");
            assert_eq!(asks(&claude).await.status, 200, "{name}");
        }
        assert_eq!(server.fetch.asked().len(), 5, "{name}");
    }
    for (name, refusal) in refusals() {
        let (server, client) = server_and_other();
        let _ = asks(&client).await.expect(200);
        server.fetch.answer(OTHER, move || Err(refusal()));
        server.fetch.answer(CLAUDE, move || Err(refusal()));
        server.clock.advance(Duration::from_mins(2));
        let claude = McpClient::by_document(&server, CLAUDE, REDIRECT_URI);
        for _ in 0..10 {
            refused_here(asks(&client).await, NOT_FETCHED);
            refused_here(asks(&claude).await, NOT_FETCHED);
        }
        assert_eq!(server.fetch.asked().len(), 5, "{name}");
    }
}

/// CIM-10: what was approved holds, whatever becomes of the document.
// N-CI-24
#[tokio::test]
async fn ci_08_codes_and_grants_do_not_need_the_document_again() {
    let (server, client) = server_and_other();
    let code = client.code().await;
    let gone = || Err(FetchError::Status(StatusCode::GONE));
    server.fetch.answer(OTHER, gone);
    server.clock.advance(Duration::from_mins(2));

    let first = Tokens::of(&client.redeem(&code).await.expect(200));
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = client.call(&second).await.expect(200);
    let _ = client.revoke(&second.access_token).await.expect(200);
    let _ = client.call(&second).await.expect(401);
    assert_eq!(server.fetch.asked(), [OTHER]);

    // A new connection does need it.
    refused_here(asks(&client).await, NOT_FETCHED);
}

/// CIM-10: between the page and the decision.
#[tokio::test]
async fn ci_05_a_redirect_uri_that_left_the_document_gets_no_code() {
    let (server, client) = server_and_other();
    let (mut browser, page) = client.opens(&query(&client.authorization())).await;
    let page = page.expect(200);
    let changed = with(
        other(),
        "redirect_uris",
        json!(["https://client.example/new"]),
    );
    server.fetch.publish(OTHER, &changed);
    server.clock.advance(Duration::from_mins(2));
    let answer = browser.approve(&server, &page, PASSPHRASE).await;
    refused_here(answer, "redirect_uri is not one that");
}

#[tokio::test]
async fn a_code_and_a_grant_belong_to_the_document_client_that_they_were_issued_to() {
    let (server, client) = server_and_other();
    let thief = McpClient {
        client_id: "https://thief.example/client.json".into(),
        ..client.clone()
    };
    let registered = McpClient {
        redirect_uri: OTHER_REDIRECT.into(),
        ..server.mcp_client().await
    };
    let code = client.code().await;
    for other in [&thief, &registered] {
        let _ = other.redeem(&code).await.refused(400, "invalid_grant");
    }
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    for other in [&thief, &registered] {
        let _ = other.refresh(&tokens).await.refused(400, "invalid_grant");
        let _ = other.revoke(&tokens.refresh_token).await.expect(200);
    }
    let _ = client.call(&tokens).await.expect(200);

    // It has no secret, so it may not send one.
    let with_secret = McpClient {
        client_secret: Some("x".into()),
        ..client.clone()
    };
    let _ = with_secret
        .refresh(&tokens)
        .await
        .refused(401, "invalid_client");
    let _ = client.refresh(&tokens).await.expect(200);
    assert_eq!(server.fetch.asked(), [OTHER]);
}

/// CIM-12
#[tokio::test]
async fn cim_12_a_second_installation_does_not_end_the_first() {
    let (_, client) = server_and_other();
    let first = client.sign_in().await;
    let second = client.sign_in().await;
    for tokens in [&first, &second] {
        let _ = client.call(tokens).await.expect(200);
        let _ = client.refresh(tokens).await.expect(200);
    }
}
