//! The person's part: the page, the passphrase, approving, denying, and who else might try.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::{net::IpAddr, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use protocol::{
    identity::password::SignIn,
    oauth::identifiers::{Issuer, Resource},
    ports::{Store, Timestamp},
};
use serde_json::json;
use support::{
    Answer, HOME, ISSUER, PASSPHRASE, TestServer,
    client::{Browser, CHALLENGE, McpClient, REDIRECT_URI, STATE, Tokens, transaction},
    encoded, form, policy, request,
};
use tokio::{task::JoinSet, time::Instant};

const WRONG: &str = "wrong horse";
/// How long an address waits after its last wrong attempt.
const WAIT: Duration = Duration::from_mins(15);

async fn opened(client: &McpClient) -> (Browser, Answer) {
    let (browser, page) = client.opens(&client.authorization_with(&[])).await;
    (browser, page.expect(200))
}

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request
        .headers_mut()
        .insert(name, HeaderValue::from_str(value).unwrap());
    request
}

fn approval(browser: &Browser, page: &Answer) -> Request<Body> {
    browser.form(page, &[("secret", PASSPHRASE), ("decision", "approve")])
}

fn attempt(browser: &Browser, page: &Answer, secret: &str) -> Request<Body> {
    browser.form(page, &[("secret", secret), ("decision", "approve")])
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, last])
}

/// Insists that no code left.
#[track_caller]
fn gives_nothing(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:#?}");
    assert!(!answer.headers.contains_key("location"), "{answer:#?}");
    assert!(!answer.text().contains("mopc_"), "{answer:#?}");
}

/// S1-06, AZ-06, AZ-19, N-CN-27
#[tokio::test]
async fn the_right_passphrase_takes_the_browser_back_with_a_code() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    let redirect = answer.redirect();
    assert_eq!(redirect.to, REDIRECT_URI);
    assert_eq!(redirect.parameter("state"), STATE);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert!(answer.body.is_empty());
    let _ = client.redeem(redirect.parameter("code")).await.expect(200);
    assert_eq!(server.journal.count("Approved"), 1);
}

/// S1-07, S2-06, N-CN-07, N-CN-08
#[tokio::test]
async fn a_wrong_passphrase_gives_the_page_again_and_no_code() {
    let composed = "caf\u{e9} correct horse";
    for wrong in [
        "",
        "cafe\u{301} correct horse",
        "caf\u{e9} correct hors",
        "caf\u{e9} correct  horse",
        "Caf\u{e9} correct horse",
        "caf\u{e9} correct horse\0",
        "\0",
    ] {
        let mut policy = policy(&[("one", "/mcp")]);
        policy.sign_in = SignIn::passphrase(composed);
        let server = TestServer::with(policy);
        let client = server.mcp_client().await;
        let (mut browser, page) = opened(&client).await;
        let before = server.stored();
        let again = browser.approve(&server, &page, wrong).await;
        gives_nothing(&again, 401);
        assert!(again.text().contains("That is not right."));
        // Only that somebody tried is written down, and not what.
        let tried = server.stored().replace(&before, "");
        assert!(
            tried.starts_with("\nmark/strangers={\"v\":1,\"whole_at\":"),
            "{tried}"
        );
        assert_eq!(tried.lines().count(), 2);
        // The page that came back is a way on.
        let _ = browser.approve(&server, &again, composed).await.expect(303);
    }
}

/// S1-10
#[test]
fn a_near_miss_takes_as_long_as_any_other_wrong_passphrase() {
    // So long that comparing it letter by letter would show.
    let right = "x".repeat(16 * 1024);
    let sign_in = SignIn::passphrase(&right);
    let first_wrong = format!("y{}", &right[1..]);
    let last_wrong = format!("{}y", &right[1..]);
    let time = |attempt: &str| {
        let started = Instant::now();
        assert!(!sign_in.is_proved_by(attempt));
        started.elapsed()
    };
    let (mut far, mut near): (Vec<_>, Vec<_>) = (0..101)
        .map(|_| (time(&first_wrong), time(&last_wrong)))
        .unzip();
    far.sort();
    near.sort();
    let (far, near) = (far[50], near[50]);
    assert!(near < far * 2 && far < near * 2, "{far:?} and {near:?}");
}

/// N-CN-08, S1-22
#[tokio::test]
async fn a_form_of_a_mebibyte_is_refused_and_is_no_attempt() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let large = "x".repeat(1024 * 1024);
    for _ in 0..6 {
        gives_nothing(&browser.approve(&server, &page, &large).await, 413);
    }
    assert_eq!(server.journal.count("SignInFailed"), 0);
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
}

/// N-CN-14
#[tokio::test]
async fn a_passphrase_in_the_address_is_not_taken() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let mut request = browser.form(&page, &[("decision", "approve")]);
    *request.uri_mut() = format!("/consent?{}", encoded(&[("secret", PASSPHRASE)]))
        .parse()
        .unwrap();
    gives_nothing(&server.send(request).await, 401);
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
}

/// S2-06
#[tokio::test]
async fn a_pin_works_the_same_way() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.sign_in = SignIn::pin("k3y7pq");
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    assert!(page.text().contains("PIN"));
    let again = browser.approve(&server, &page, "k3y7pr").await;
    gives_nothing(&again, 401);
    let _ = browser.approve(&server, &again, "k3y7pq").await.expect(303);
}

/// AZ-15, AZ-24, N-CN-07
#[tokio::test]
async fn the_page_names_the_client_the_place_and_the_server_as_text() {
    let server = TestServer::new();
    let name = "\"><img src=x onerror=alert(1)><script>alert(2)</script>";
    let client = McpClient::register(
        &server,
        &json!({ "client_name": name, "token_endpoint_auth_method": "none" }),
    )
    .await;
    let (mut browser, page) = opened(&client).await;
    let again = browser
        .approve(&server, &page, "<script>alert(3)</script>")
        .await
        .expect(401);
    for page in [page, again] {
        let document = scraper::Html::parse_document(&page.text());
        let text: String = document.root_element().text().collect();
        for shown in [
            // One that closed the quotation would seem to be our words.
            &*name.replace('"', "'"),
            REDIRECT_URI,
            "claude.ai",
            "Server one",
            &format!("{ISSUER}/mcp"),
        ] {
            assert!(text.contains(shown), "{shown}");
        }
        for tag in ["script", "img", "iframe", "object"] {
            let selector = scraper::Selector::parse(tag).unwrap();
            assert_eq!(document.select(&selector).count(), 0, "{tag}");
        }
    }
}

/// AZ-17, AZ-18, AZ-25, N-CN-29
#[tokio::test]
async fn every_page_is_kept_from_being_framed_cached_or_read_along() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let wrong = browser.approve(&server, &page, WRONG).await.expect(401);
    let foreign = Browser::default()
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(403);
    let unknown = server.get("/authorize?client_id=unknown").await.expect(400);
    let mut pages = vec![page.clone(), wrong, foreign, unknown];
    for _ in 0..4 {
        let _ = browser.approve(&server, &page, WRONG).await.expect(401);
    }
    pages.push(browser.approve(&server, &page, WRONG).await.expect(429));
    server.store.set_down(true);
    pages.push(browser.approve(&server, &page, WRONG).await.expect(503));
    server.store.set_down(false);
    server.clock.advance(Duration::from_mins(10));
    pages.push(
        browser
            .approve(&server, &page, PASSPHRASE)
            .await
            .expect(400),
    );

    for page in pages {
        let policy = page.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(directive), "{policy}");
        }
        for directive in ["unsafe", "form-action", "script-src", "http:", "https:"] {
            assert!(!policy.contains(directive), "{policy}");
        }
        for (name, value) in [
            ("cache-control", "no-store"),
            ("content-type", "text/html; charset=utf-8"),
            ("cross-origin-opener-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(page.header(name), value, "{page:#?}");
        }
    }
}

/// AZ-20
#[tokio::test]
async fn over_tls_the_cookie_is_bound_to_this_host_and_hidden_from_scripts() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (_, page) = opened(&client).await;
    let cookie = page.header("set-cookie");
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    let (name, value) = pair.split_once('=').unwrap();
    assert!(name.starts_with("__Host-mcp-consent-"), "{cookie}");
    // 128 random bits.
    assert_eq!(value.len(), 22);
    assert_eq!(
        attributes,
        "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"
    );
}

/// AZ-20
#[tokio::test]
async fn on_this_computer_without_tls_the_cookie_is_one_that_browsers_take() {
    let issuer = Issuer::parse("http://127.0.0.1:8080").unwrap();
    let mut policy = policy(&[("one", "/mcp")]);
    policy.issuer = issuer.clone();
    for upstream in &mut policy.upstreams {
        std::sync::Arc::get_mut(upstream).unwrap().resource = Resource::at(&issuer, "/mcp");
    }
    let server = TestServer::with(policy);
    let local = |method, path: &str| {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:8080")
    };
    let registration = json!({ "redirect_uris": [REDIRECT_URI] }).to_string();
    let registered = local(Method::POST, "/register")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(registration))
        .unwrap();
    let registered = server.send(registered).await.expect(201).json();
    let query = encoded(&[
        ("response_type", "code"),
        ("client_id", registered["client_id"].as_str().unwrap()),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]);
    let page = local(Method::GET, &format!("/authorize?{query}"))
        .body(Body::empty())
        .unwrap();
    let page = server.send(page).await.expect(200);
    let (pair, attributes) = page.header("set-cookie").split_once("; ").unwrap();
    assert!(pair.starts_with("mcp-consent-"), "{pair}");
    assert_eq!(
        attributes,
        "Path=/consent; Max-Age=3600; HttpOnly; SameSite=Lax"
    );

    let mut browser = Browser::default();
    let (name, value) = pair.split_once('=').unwrap();
    browser.cookies.insert(name.to_owned(), value.to_owned());
    let mut approval = approval(&browser, &page);
    approval
        .headers_mut()
        .insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
    let approved = server.send(approval).await.expect(303);
    assert_eq!(approved.redirect().parameter("iss"), issuer.as_str());
}

/// AZ-16, N-CN-01, N-CN-02, N-CN-03, N-CN-04, N-CN-06
#[tokio::test]
async fn a_form_counts_only_in_the_browser_that_it_was_shown_in() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let (other, other_page) = opened(&client).await;
    let before = server.state();
    let post = async |browser: &Browser, sealed: &str| {
        let fields = [
            ("transaction", sealed),
            ("secret", PASSPHRASE),
            ("decision", "approve"),
        ];
        let mut request = form("/consent", &fields);
        let cookies: Vec<_> = browser
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        request
            .headers_mut()
            .insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        server.send(request).await
    };
    let sealed = transaction(&page);
    let others = transaction(&other_page);
    let (id, rest) = sealed.split_once('.').unwrap();
    let (other_id, _) = others.split_once('.').unwrap();
    let mut renamed = Browser::default();
    renamed.cookies.insert(
        browser.cookies.keys().next().unwrap().clone(),
        other.cookies.values().next().unwrap().clone(),
    );
    for (browser, sealed) in [
        (&browser, String::new()),
        (&browser, "x".to_owned()),
        (&browser, others.clone()),
        (&browser, rest.to_owned()),
        (&browser, format!("{other_id}.{rest}")),
        (&browser, format!("{id}.{}", &rest[..rest.len() - 1])),
        (&browser, format!("{id}.{rest}A")),
        (&Browser::default(), sealed.clone()),
        (&other, sealed.clone()),
        (&renamed, sealed.clone()),
    ] {
        gives_nothing(&post(browser, &sealed).await, 403);
    }
    for index in (0..sealed.len()).step_by(7) {
        let mut changed = sealed.clone().into_bytes();
        changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
        gives_nothing(
            &post(&browser, &String::from_utf8(changed).unwrap()).await,
            403,
        );
    }
    assert_eq!(server.state(), before);
    assert_eq!(server.journal.count("SignIn"), 0);
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
}

/// AZ-20, N-CN-05, N-CN-06
#[tokio::test]
async fn a_cookie_that_is_copied_under_another_name_or_doubled_is_none() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let (name, value) = browser.cookies.first_key_value().unwrap();
    let plain = name.strip_prefix("__Host-").unwrap();
    for cookies in [
        format!("{plain}={value}"),
        format!("{name}={value}; {name}=planted"),
        format!("{name}={}", &value[1..]),
        format!("{name}="),
    ] {
        let request = with(approval(&browser, &page), "cookie", &cookies);
        gives_nothing(&server.send(request).await, 403);
    }
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
}

/// AZ-20: what others of the same domain keep in a browser need not be text.
#[tokio::test]
async fn cookies_of_others_in_any_bytes_do_not_hide_ours() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    let (name, value) = browser.cookies.first_key_value().unwrap();
    let ours = format!("{name}={value}");
    let planted = [ours.as_bytes(), b"; city=K\xf6ln; ", name.as_bytes(), b"=x"].concat();
    let beside = [b"city=K\xf6ln; ", ours.as_bytes()].concat();
    let post = async |cookies: &[u8]| {
        let mut request = approval(&browser, &page);
        let cookies = HeaderValue::from_bytes(cookies).unwrap();
        request.headers_mut().insert(header::COOKIE, cookies);
        server.send(request).await
    };
    gives_nothing(&post(&planted).await, 403);
    let _ = post(&beside).await.expect(303);
}

/// N-CN-16
#[tokio::test]
async fn a_form_that_another_site_sends_is_refused() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    let before = server.state();
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "http://gw.example"),
        ("origin", "https://gw.example.evil.example"),
    ] {
        let request = with(approval(&browser, &page), name, value);
        gives_nothing(&server.send(request).await, 403);
    }
    let both = with(
        with(approval(&browser, &page), "origin", "null"),
        "sec-fetch-site",
        "cross-site",
    );
    gives_nothing(&server.send(both).await, 403);
    assert_eq!(server.state(), before);
    assert_eq!(server.journal.count("SignIn"), 0);
    // Our own pages have no referrer, and so browsers name no origin either.
    for (name, value) in [
        ("sec-fetch-site", "same-origin"),
        ("origin", ISSUER),
        ("origin", "null"),
    ] {
        let request = with(approval(&browser, &page), name, value);
        let _ = server.send(request).await.expect(303);
    }
}

/// N-CN-12
#[tokio::test]
async fn fields_that_are_added_to_the_form_change_nothing() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let other = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let answer = browser
        .decide(
            &server,
            &page,
            &[
                ("secret", PASSPHRASE),
                ("decision", "approve"),
                ("client_id", &other.client_id),
                ("redirect_uri", "https://evil.example/cb"),
                ("resource", "https://gw.example/mcp/b"),
                ("upstream", "b"),
                ("scope", "mcp offline_access"),
                ("state", "other"),
                ("code_challenge", &CHALLENGE.replace('E', "F")),
                ("code_challenge_method", "plain"),
            ],
        )
        .await
        .expect(303);
    let redirect = answer.redirect();
    assert_eq!(redirect.to, REDIRECT_URI);
    assert_eq!(redirect.parameter("state"), STATE);
    let code = redirect.parameter("code");
    let _ = other.redeem(code).await.refused(400, "invalid_grant");
    let tokens = client.redeem(code).await.expect(200);
    assert_eq!(tokens.json()["scope"], "mcp");
    let tokens = Tokens::of(&tokens);
    let _ = client
        .at("/mcp/b")
        .call(&tokens)
        .await
        .refused(401, "invalid_token");
    let _ = client.call(&tokens).await.expect(200);
}

/// AZ-23, N-CN-13
#[tokio::test]
async fn denying_needs_no_passphrase_and_tells_the_client() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let answer = browser.deny(&server, &page).await.expect(303);
    let redirect = answer.redirect();
    assert_eq!(redirect.to, REDIRECT_URI);
    assert_eq!(redirect.parameter("error"), "access_denied");
    assert_eq!(redirect.parameter("state"), STATE);
    assert_eq!(redirect.parameter("iss"), ISSUER);
    assert!(!redirect.has("code"));
    assert_eq!(server.journal.count("Denied"), 1);
    assert_eq!(server.journal.count("Approved"), 0);
    assert!(!server.stored().contains("grant/"));
    assert!(server.upstream.received().is_empty());
}

/// N-CN-01
#[tokio::test]
async fn a_form_without_one_clear_decision_is_refused() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let before = server.state();
    for fields in [
        &[("secret", PASSPHRASE)][..],
        &[("secret", PASSPHRASE), ("decision", "yes")],
        &[
            ("secret", PASSPHRASE),
            ("decision", "approve"),
            ("decision", "deny"),
        ],
        &[
            ("secret", PASSPHRASE),
            ("secret", PASSPHRASE),
            ("decision", "approve"),
        ],
    ] {
        gives_nothing(&browser.decide(&server, &page, fields).await, 400);
    }
    assert_eq!(server.state(), before);
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
}

/// N-CN-20, N-CN-24
#[tokio::test]
async fn pages_that_are_open_side_by_side_do_not_disturb_each_other() {
    let server = TestServer::new();
    let (first, second) = (server.mcp_client().await, server.mcp_client().await);
    let mut browser = Browser::default();
    let address = |client: &McpClient| format!("/authorize?{}", client.authorization_with(&[]));
    let loaded = browser.get(&server, &address(&first)).await.expect(200);
    let _reloaded = browser.get(&server, &address(&first)).await.expect(200);
    let other_tab = browser.get(&server, &address(&second)).await.expect(200);

    for (client, page) in [(&second, &other_tab), (&first, &loaded)] {
        let answer = browser.approve(&server, page, PASSPHRASE).await.expect(303);
        let tokens = client
            .redeem(answer.redirect().parameter("code"))
            .await
            .expect(200);
        let _ = client.call(&Tokens::of(&tokens)).await.expect(200);
    }
}

/// N-CN-21, C-04
#[tokio::test]
async fn approving_twice_gives_the_same_code_once() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let first = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    for seconds in [0, 1, 4] {
        server.clock.advance(Duration::from_secs(seconds));
        let again = browser
            .approve(&server, &page, PASSPHRASE)
            .await
            .expect(303);
        assert_eq!(first.header("location"), again.header("location"));
    }
    assert_eq!(server.journal.count("Approved"), 1);
    let _ = client
        .redeem(first.redirect().parameter("code"))
        .await
        .expect(200);
}

/// A page that was left open after the approval gives the code to nobody who does not sign in.
#[tokio::test]
async fn a_page_that_was_approved_still_asks_for_the_passphrase() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    let first = server.send(approval(&browser, &page)).await.expect(303);
    gives_nothing(&server.send(attempt(&browser, &page, WRONG)).await, 401);
    gives_nothing(&server.send(attempt(&browser, &page, "")).await, 401);
    let again = server.send(approval(&browser, &page)).await.expect(303);
    assert_eq!(again.header("location"), first.header("location"));
}

/// RC-08, N-CN-21
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn approving_and_denying_at_once_has_one_outcome() {
    for round in 0..20 {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let (browser, page) = opened(&client).await;
        let mut racing = JoinSet::new();
        for n in 0..9 {
            let request = if (n + round) % 3 == 0 {
                browser.form(&page, &[("decision", "deny")])
            } else {
                approval(&browser, &page)
            };
            let server = server.clone();
            racing.spawn(async move { server.send(request).await });
        }
        let answers = racing.join_all().await;
        let codes: Vec<_> = answers
            .iter()
            .filter(|answer| answer.status == 303 && answer.redirect().has("code"))
            .map(|answer| answer.header("location").to_owned())
            .collect();
        let denials = answers
            .iter()
            .filter(|answer| answer.status == 303 && answer.redirect().has("error"))
            .count();
        let conflicts = answers.iter().filter(|answer| answer.status == 409).count();
        assert!(codes.windows(2).all(|pair| pair[0] == pair[1]));
        match codes.len() {
            0 => assert_eq!((denials, conflicts), (3, 6)),
            _ => assert_eq!((codes.len(), denials, conflicts), (6, 0, 3)),
        }
        assert_eq!(
            server.journal.count("Approved") + server.journal.count("Denied"),
            1
        );
    }
}

/// N-CN-22
#[tokio::test]
async fn the_first_decision_stands() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let _ = browser.deny(&server, &page).await.expect(303);
    gives_nothing(&browser.approve(&server, &page, PASSPHRASE).await, 409);
    let _ = browser.deny(&server, &page).await.expect(303);

    let (mut browser, page) = opened(&client).await;
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    gives_nothing(&browser.deny(&server, &page).await, 409);
    let _ = client
        .redeem(answer.redirect().parameter("code"))
        .await
        .expect(200);
}

/// N-CN-23
#[tokio::test]
async fn going_back_after_success_shows_a_page_that_says_so() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    let tokens = Tokens::of(
        &client
            .redeem(answer.redirect().parameter("code"))
            .await
            .expect(200),
    );
    let address = format!("/authorize?{}", client.authorization_with(&[]));
    let _ = browser.get(&server, &address).await.expect(200);
    server.clock.advance(Duration::from_mins(5));
    let late = browser.approve(&server, &page, PASSPHRASE).await;
    gives_nothing(&late, 400);
    assert!(late.text().contains("expired"));
    let _ = client.call(&tokens).await.expect(200);
}

/// N-CN-30
#[tokio::test]
async fn a_client_that_is_gone_or_has_another_address_by_now_is_not_approved() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let key = format!("client/{}", client.client_id);
    let found = server.store.memory.get(&key).await.unwrap().unwrap();

    let moved = String::from_utf8(found.value.to_vec())
        .unwrap()
        .replace(REDIRECT_URI, "https://other.example/cb");
    let later = server.now() + Duration::from_hours(1);
    let put = async |value: Bytes, version, until: Timestamp| {
        assert!(
            server
                .store
                .memory
                .replace(&key, version, value, until)
                .await
                .unwrap()
        );
    };
    put(moved.into(), 1, later).await;
    gives_nothing(&browser.approve(&server, &page, PASSPHRASE).await, 400);
    gives_nothing(&browser.deny(&server, &page).await, 400);

    assert!(server.store.memory.remove(&key).await.unwrap());
    gives_nothing(&browser.approve(&server, &page, PASSPHRASE).await, 400);
    gives_nothing(&browser.deny(&server, &page).await, 400);

    assert!(
        server
            .store
            .memory
            .insert(&key, found.value, later)
            .await
            .unwrap()
    );
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
}

/// AZ-10
#[tokio::test]
async fn among_several_upstreams_the_person_chooses_when_the_client_does_not() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let (mut browser, page) = client
        .opens(&client.authorization_with(&[("resource", None)]))
        .await;
    assert!(page.text().contains("Server a") && page.text().contains("Server b"));

    let before = server.state();
    for unknown in [None, Some("c"), Some("/mcp/a"), Some("")] {
        let mut fields = vec![("secret", PASSPHRASE), ("decision", "approve")];
        fields.extend(unknown.map(|name| ("upstream", name)));
        let again = browser.decide(&server, &page, &fields).await;
        gives_nothing(&again, 400);
        assert_eq!(transaction(&again), transaction(&page));
    }
    assert_eq!(server.state(), before);

    let chosen = [
        ("secret", PASSPHRASE),
        ("decision", "approve"),
        ("upstream", "b"),
    ];
    let answer = browser.decide(&server, &page, &chosen).await.expect(303);
    let code = answer.redirect().parameter("code").to_owned();
    let _ = client.redeem(&code).await.refused(400, "invalid_target");
    let tokens = Tokens::of(
        &client
            .redeem_with(&code, &[("resource", None)])
            .await
            .expect(200),
    );
    let _ = client.call(&tokens).await.refused(401, "invalid_token");
    assert!(server.upstream.received().is_empty());
    let _ = client.at("/mcp/b").call(&tokens).await.expect(200);
}

#[tokio::test]
async fn the_journal_says_which_server_the_page_was_shown_for() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let shown_for = async |client: McpClient, resource: Option<&str>| {
        let query = match resource {
            Some(_) => client.authorization_with(&[]),
            None => client.authorization_with(&[("resource", None)]),
        };
        let (_, page) = client.opens(&query).await;
        let _ = page.expect(200);
        let event = server.journal.all().pop().unwrap();
        assert!(event.starts_with("ConsentShown"), "{event}");
        event
    };
    for (name, path) in [("a", "/mcp/a"), ("b", "/mcp/b")] {
        let event = shown_for(client.at(path), Some(path)).await;
        assert!(
            event.ends_with(&format!("upstream: Some({name:?}) }}")),
            "{event}"
        );
    }
    let event = shown_for(client.clone(), None).await;
    assert!(event.ends_with("upstream: None }"), "{event}");
}

/// AZ-15
#[tokio::test]
async fn the_upstream_that_the_client_named_is_the_only_one_on_the_page() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let (_, page) = opened(&client).await;
    assert!(page.text().contains("Server a") && !page.text().contains("Server b"));
}

/// S1-08
#[tokio::test]
async fn five_wrong_attempts_make_one_address_wait_and_no_other() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    for _ in 0..5 {
        gives_nothing(&server.send(attempt(&browser, &page, WRONG)).await, 401);
    }
    let blocked = server.send(approval(&browser, &page)).await;
    gives_nothing(&blocked, 429);
    assert_eq!(blocked.header("retry-after"), WAIT.as_secs().to_string());
    assert_eq!(server.journal.count("SignInBlocked"), 1);
    assert_eq!(server.journal.count("SignInFailed"), 5);
    assert_eq!(server.journal.count("Approved"), 0);

    let _ = server
        .send_from(address(1), approval(&browser, &page))
        .await
        .expect(303);

    server
        .clock
        .advance(WAIT.saturating_sub(Duration::from_secs(1)));
    let (browser, page) = opened(&client).await;
    gives_nothing(&server.send(approval(&browser, &page)).await, 429);
    server.clock.advance(Duration::from_secs(1));
    let _ = server.send(approval(&browser, &page)).await.expect(303);
}

/// S1-08
#[tokio::test]
async fn a_right_attempt_takes_back_the_wrong_ones_before_it() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    for _ in 0..3 {
        let (browser, page) = opened(&client).await;
        for _ in 0..3 {
            gives_nothing(&server.send(attempt(&browser, &page, WRONG)).await, 401);
        }
        let _ = server.send(approval(&browser, &page)).await.expect(303);
        // Those of all addresses together are not taken back, only forgotten with time.
        server.clock.advance(Duration::from_mins(1));
    }
}

/// S1-08
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attempts_at_once_are_no_better_than_one_after_another() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    let mut racing = JoinSet::new();
    for n in 0..100 {
        let request = attempt(&browser, &page, &format!("guess {n}"));
        let server = server.clone();
        racing.spawn(async move { server.send(request).await.status.as_u16() });
    }
    let statuses = racing.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5);
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 95);
}

fn forwarded(browser: &Browser, page: &Answer, secret: &str, chain: &str) -> Request<Body> {
    let request = with(attempt(browser, page, secret), "x-forwarded-for", chain);
    with(request, "cf-connecting-ip", chain)
}

/// S1-09
#[tokio::test]
async fn naming_another_address_does_not_help_without_a_trusted_proxy() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    for n in 0..5 {
        let request = forwarded(&browser, &page, WRONG, &format!("203.0.113.{n}"));
        gives_nothing(&server.send(request).await, 401);
    }
    let request = forwarded(&browser, &page, PASSPHRASE, "203.0.113.99");
    gives_nothing(&server.send(request).await, 429);
    let _ = server
        .send_from(address(1), approval(&browser, &page))
        .await
        .expect(303);
}

/// S1-09
#[tokio::test]
async fn behind_a_trusted_proxy_the_address_that_it_forwards_counts() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.trusted_proxies = vec![HOME.into()];
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    for n in 0..5 {
        // What stands left of the last address is the visitor's own claim.
        let chain = format!("203.0.113.{n}, 198.51.100.7");
        let request = forwarded(&browser, &page, WRONG, &chain);
        gives_nothing(&server.send(request).await, 401);
    }
    let same = forwarded(&browser, &page, PASSPHRASE, "203.0.113.99, 198.51.100.7");
    gives_nothing(&server.send(same).await, 429);
    let other = forwarded(&browser, &page, PASSPHRASE, "198.51.100.7, 198.51.100.8");
    let _ = server.send(other).await.expect(303);
}

/// S2-08, N-CN-10
#[tokio::test]
async fn ten_wrong_attempts_in_all_slow_everybody_down() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = opened(&client).await;
    for n in 0..10 {
        assert_eq!(server.journal.count("GuessingSlowed"), 0);
        gives_nothing(
            &server
                .send_from(address(n), attempt(&browser, &page, WRONG))
                .await,
            401,
        );
    }
    assert_eq!(server.journal.count("GuessingSlowed"), 1);
    gives_nothing(
        &server
            .send_from(address(99), approval(&browser, &page))
            .await,
        429,
    );

    // From then on one attempt in ten seconds is let through.
    server.clock.advance(Duration::from_secs(10));
    gives_nothing(
        &server
            .send_from(address(98), attempt(&browser, &page, WRONG))
            .await,
        401,
    );
    gives_nothing(
        &server
            .send_from(address(97), approval(&browser, &page))
            .await,
        429,
    );
    server.clock.advance(Duration::from_secs(10));
    let _ = server
        .send_from(address(97), approval(&browser, &page))
        .await
        .expect(303);
}

/// TK-22
#[tokio::test]
async fn whichever_store_access_fails_the_same_form_works_afterwards() {
    let lose: fn(&TestServer, u64) = |server, n| server.store.lose_nth(n);
    let fail: fn(&TestServer, u64) = |server, n| server.store.fail_nth(n);
    for disturb in [fail, lose] {
        for decision in ["approve", "deny"] {
            let mut n = 1;
            loop {
                let server = TestServer::new();
                let client = server.mcp_client().await;
                let (mut browser, page) = opened(&client).await;
                let fields = [("secret", PASSPHRASE), ("decision", decision)];
                disturb(&server, n);
                let answer = browser.decide(&server, &page, &fields).await;
                if answer.status == 303 {
                    break;
                }
                gives_nothing(&answer, 503);
                assert!(answer.headers.contains_key("retry-after"));
                disturb(&server, 0);
                let answer = browser.decide(&server, &page, &fields).await.expect(303);
                if decision == "approve" {
                    let _ = client
                        .redeem(answer.redirect().parameter("code"))
                        .await
                        .expect(200);
                }
                n += 1;
            }
            assert!(n > 2, "the store was hardly asked");
        }
    }
}

/// AZ-14
#[tokio::test]
async fn a_page_that_was_open_for_ten_minutes_approves_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut in_time, page) = opened(&client).await;
    let (mut late, late_page) = opened(&client).await;
    server.clock.advance(Duration::from_secs(599));
    let _ = in_time
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    server.clock.advance(Duration::from_secs(1));
    gives_nothing(&late.approve(&server, &late_page, PASSPHRASE).await, 400);
    gives_nothing(&late.deny(&server, &late_page).await, 400);
}

/// AZ-28
#[tokio::test]
async fn the_decision_is_taken_from_a_form_post_only() {
    let server = TestServer::new();
    let _ = server.get("/consent").await.expect(405);
    let json = request(Method::POST, "/consent")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"))
        .unwrap();
    gives_nothing(&server.send(json).await, 400);
}

/// Case 11: the link of an app leaves the tab where it is, so the answer is a page: it is done, the
/// passphrase is gone, and there is a link for the case that the app did not open.
#[tokio::test]
async fn after_an_app_was_approved_the_tab_says_that_it_is_done() {
    let server = TestServer::new();
    for uri in [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "com.example.app:/oauth2redirect?a=1",
    ] {
        let metadata = json!({ "redirect_uris": [uri], "token_endpoint_auth_method": "none" });
        let client = McpClient {
            redirect_uri: uri.to_owned(),
            ..McpClient::register(&server, &metadata).await
        };
        let (mut browser, page) = opened(&client).await;
        let done = browser
            .approve(&server, &page, PASSPHRASE)
            .await
            .expect(200);
        assert_eq!(done.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(done.header("cache-control"), "no-store");
        assert_eq!(done.header("referrer-policy"), "no-referrer");
        assert_eq!(
            done.header("content-security-policy"),
            page.header("content-security-policy")
        );
        assert!(done.text().contains("You can close this page."));
        for gone in ["<form", "<input", "<script", PASSPHRASE] {
            assert!(!done.text().contains(gone), "{gone}");
        }
        // Pressed again, the same comes.
        let again = browser
            .approve(&server, &page, PASSPHRASE)
            .await
            .expect(200);
        assert_eq!(done.text(), again.text());
        let redirect = done.leads_back();
        assert_eq!(redirect.to, uri.split('?').next().unwrap());
        assert_eq!(redirect.parameter("state"), STATE);
        assert_eq!(redirect.parameter("iss"), ISSUER);
        let _ = client.redeem(redirect.parameter("code")).await.expect(200);

        let (mut browser, page) = opened(&client).await;
        let denied = browser.deny(&server, &page).await.expect(200);
        assert!(denied.text().contains("Denied. You can close this page."));
        assert_eq!(denied.leads_back().parameter("error"), "access_denied");
    }
    // A website, or a program of this computer, shows a page of its own.
    let client = server.mcp_client().await;
    let (mut browser, page) = opened(&client).await;
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    assert!(answer.body.is_empty() && !answer.headers.contains_key("refresh"));
}

/// Case 02: the form of the page is taken by the members of its content type, and what keeps other
/// sites out is none of them.
#[tokio::test]
async fn a_list_of_content_types_opens_no_other_way_to_approve() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let listed = "application/json, application/x-www-form-urlencoded";
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-origin, cross-site"),
        ("sec-fetch-site", "cross-site, same-origin"),
        ("origin", "https://evil.example"),
        ("origin", "https://gw.example, https://evil.example"),
    ] {
        let (browser, page) = opened(&client).await;
        let forged = with(approval(&browser, &page), "content-type", listed);
        let forged = with(forged, name, value);
        gives_nothing(&server.send(forged).await, 403);
    }
    let (browser, page) = opened(&client).await;
    let without_cookie = with(approval(&browser, &page), "content-type", listed);
    gives_nothing(
        &server.send(with(without_cookie, "cookie", "x=1")).await,
        403,
    );
    let twice = with(approval(&browser, &page), "content-type", listed);
    let twice = with(twice, "sec-fetch-site", "same-origin, same-origin");
    let _ = server.send(twice).await.expect(303);
    // What is no form is none, whatever it is called.
    let (browser, page) = opened(&client).await;
    let mut json = with(approval(&browser, &page), "content-type", listed);
    *json.body_mut() = Body::from("{\"decision\":\"approve\"}");
    gives_nothing(&server.send(json).await, 403);
}

/// Pain 8 of the newcomers: where the proxy is for this computer alone, its user is its operator.
#[tokio::test]
async fn only_a_proxy_for_this_computer_says_where_its_passphrase_is() {
    let reminder = "Lost? Delete data/passphrase.hash and start the proxy again.";
    for (issuer, told) in [
        ("http://127.0.0.1:8080", true),
        ("https://gw.example", false),
    ] {
        let mut policy = policy(&[("one", "/mcp")]);
        policy.issuer = Issuer::parse(issuer).unwrap();
        policy.sign_in = policy.sign_in.with_reminder(reminder.to_owned());
        let server = TestServer::with(policy);
        let host = issuer.split_once("://").unwrap().1;
        let at = |request: Request<Body>| with(request, "host", host);
        let registration =
            support::json_request("/register", &json!({ "redirect_uris": [REDIRECT_URI] }));
        let registered = server.send(at(registration)).await.expect(201).json();
        let query = encoded(&[
            ("response_type", "code"),
            ("client_id", registered["client_id"].as_str().unwrap()),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ]);
        let get = request(Method::GET, &format!("/authorize?{query}"));
        let page = server.send(at(get.body(Body::empty()).unwrap())).await;
        let page = page.expect(200);
        assert_eq!(page.text().contains(reminder), told, "{issuer}");
        let cookie = page
            .header("set-cookie")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let wrong = || {
            let browser = Browser::default();
            let form = browser.form(&page, &[("secret", "wrong"), ("decision", "approve")]);
            with(at(form), "cookie", &cookie)
        };
        for _ in 0..5 {
            let again = server.send(wrong()).await.expect(401);
            assert_eq!(again.text().contains(reminder), told, "{issuer}");
        }
        let blocked = server.send(wrong()).await.expect(429);
        assert_eq!(blocked.text().contains(reminder), told, "{issuer}");
        assert!(
            blocked
                .text()
                .contains("go back to your app and connect again")
        );
    }
}
