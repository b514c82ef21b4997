//! Guessing the passphrase or PIN from many places, and that it keeps the owner out of nothing.

mod support;

use std::{net::IpAddr, time::Duration};

use protocol::{
    identity::password::{SignIn, hash_generated},
    policy::Policy,
};
use support::{
    Answer, PASSPHRASE, TestServer,
    client::{Browser, McpClient},
    policy,
};

const WRONG: &str = "wrong horse";
const KNOWN: &str = "__Host-mcp-known-browser";

fn stranger(n: u32) -> IpAddr {
    IpAddr::from((0xc633_0000 + n).to_be_bytes())
}

fn with_sign_in(sign_in: SignIn) -> Policy {
    Policy {
        sign_in,
        ..policy(&[("one", "/mcp")])
    }
}

/// A browser of its own opens a page of its own, and tries `secret` from `address`.
async fn guess(client: &McpClient, address: IpAddr, secret: &str) -> Answer {
    try_in(&Browser::default(), client, address, secret).await
}

/// `known` opens a page of its own, and tries `secret` from `address`.
async fn try_in(known: &Browser, client: &McpClient, address: IpAddr, secret: &str) -> Answer {
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    browser.cookies.extend(known.cookies.clone());
    let fields = [("secret", secret), ("decision", "approve")];
    let request = browser.form(&page.expect(200), &fields);
    client.server.send_from(address, request).await
}

/// The owner's browser, in which the right secret was typed once.
async fn known_browser(client: &McpClient, secret: &str) -> Browser {
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let _ = browser
        .approve(&client.server, &page, secret)
        .await
        .expect(303);
    browser.cookies.retain(|name, _| name == KNOWN);
    assert_eq!(browser.cookies.len(), 1);
    browser
}

/// N-CN-10, N-LG-01
#[tokio::test]
async fn a_thousand_pages_tried_once_each_from_a_thousand_addresses_are_ten_attempts() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut looked_at = 0;
    for n in 0..1000 {
        let answer = guess(&client, stranger(n), WRONG).await;
        looked_at += usize::from(answer.status == 401);
        assert!(answer.status == 401 || answer.status == 429, "{answer:#?}");
    }
    assert_eq!(looked_at, 10);
    assert_eq!(server.journal.count("SignInBlocked"), 990);
    assert_eq!(server.journal.count("GuessingSlowed"), 1);
}

/// N-CN-11: whatever strangers do, from wherever.
#[tokio::test]
async fn an_owner_who_signed_in_before_signs_in_while_strangers_guess() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let owner = known_browser(&client, PASSPHRASE).await;
    let home = stranger(0);
    for n in 0..50 {
        let _ = guess(&client, stranger(n), WRONG).await.status;
        let _ = guess(&client, home, WRONG).await.status;
    }
    // The right passphrase in a new browser has to wait, even at the owner's own address.
    let _ = guess(&client, home, PASSPHRASE).await.expect(429);
    let _ = try_in(&owner, &client, home, WRONG).await.expect(401);
    let _ = try_in(&owner, &client, home, PASSPHRASE).await.expect(303);
}

/// N-CN-11: who stole the cookie has five attempts in a quarter of an hour, and no access.
#[tokio::test]
async fn a_known_browser_alone_proves_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let stolen = known_browser(&client, PASSPHRASE).await;
    for n in 0..5 {
        let _ = try_in(&stolen, &client, stranger(n), WRONG)
            .await
            .expect(401);
    }
    let blocked = try_in(&stolen, &client, stranger(9), PASSPHRASE).await;
    assert_eq!(blocked.expect(429).header("retry-after"), "900");
    assert_eq!(server.journal.count("Approved"), 1);

    // The owner goes on, in a browser that got its own name since.
    let renewed = known_browser(&client, PASSPHRASE).await;
    assert_ne!(renewed.cookies, stolen.cookies);
    let _ = try_in(&renewed, &client, stranger(9), PASSPHRASE)
        .await
        .expect(303);
    server.clock.advance(Duration::from_mins(15));
    let _ = try_in(&stolen, &client, stranger(9), PASSPHRASE)
        .await
        .expect(303);
}

#[tokio::test]
async fn the_cookie_of_a_known_browser_says_nothing_and_stays_in_it() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    let cookie = answer.header("set-cookie");
    let (pair, attributes) = cookie.split_once("; ").unwrap();
    assert!(pair.starts_with(&format!("{KNOWN}=")), "{cookie}");
    assert_eq!(
        attributes,
        "Path=/; Max-Age=7776000; HttpOnly; SameSite=Strict; Secure"
    );
    assert!(!server.stored().contains(pair.split_once('=').unwrap().1));
}

/// Whether `browser` counts as known to `server`, where strangers have no attempt left.
async fn is_known(browser: &Browser, client: &McpClient, secret: &str) -> bool {
    for n in 0..11 {
        let _ = guess(client, stranger(n), WRONG).await.status;
    }
    try_in(browser, client, stranger(99), secret).await.status == 303
}

#[tokio::test]
async fn a_browser_is_known_until_the_secret_changes_or_ninety_days_are_over() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let owner = known_browser(&client, PASSPHRASE).await;
    assert!(is_known(&owner, &client, PASSPHRASE).await);

    let restarted = client.on(&server.another(policy(&[("one", "/mcp")])));
    assert!(is_known(&owner, &restarted, PASSPHRASE).await);

    let other = "another passphrase of the owner";
    let changed = client.on(&server.another(with_sign_in(SignIn::passphrase(other))));
    assert!(!is_known(&owner, &changed, other).await);

    let mut forged = owner.clone();
    for value in forged.cookies.values_mut() {
        let last = if value.ends_with('A') { 'B' } else { 'A' };
        value.pop();
        value.push(last);
    }
    assert!(!is_known(&forged, &client, PASSPHRASE).await);

    server.clock.advance(Duration::from_hours(24 * 90));
    let client = server.mcp_client().await;
    assert!(!is_known(&owner, &client, PASSPHRASE).await);
}

/// N-CN-09
#[tokio::test]
async fn after_twenty_wrong_attempts_a_page_approves_nothing_any_more() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = client.opens(&client.authorization_with(&[])).await;
    let (fresh, fresh_page) = client.opens(&client.authorization_with(&[])).await;
    let attempt = |secret| browser.form(&page, &[("secret", secret), ("decision", "approve")]);
    for n in 0..20 {
        // Slowly enough for what all strangers share.
        server.clock.advance(Duration::from_secs(10));
        let answer = server.send_from(stranger(n), attempt(WRONG)).await;
        let _ = answer.expect(401);
    }
    let before = server.state();
    let dead = server.send_from(stranger(99), attempt(PASSPHRASE)).await;
    let dead = dead.expect(403);
    assert!(dead.text().contains("it cannot approve anything any more"));
    assert_eq!(server.state(), before);
    assert_eq!(server.journal.count("Limited { limit: AttemptsPerPage"), 1);

    server.clock.advance(Duration::from_secs(10));
    let approval = fresh.form(
        &fresh_page,
        &[("secret", PASSPHRASE), ("decision", "approve")],
    );
    let _ = server.send_from(stranger(99), approval).await.expect(303);
}

/// S2-08: neither a restart nor a second process gives more attempts.
#[tokio::test]
async fn what_strangers_used_up_is_used_up_on_every_process() {
    let pin = || with_sign_in(SignIn::pin("k7f2m9"));
    let server = TestServer::with(pin());
    let client = server.mcp_client().await;
    for n in 0..10 {
        let _ = guess(&client, stranger(n), "000000").await.expect(401);
    }
    let restarted = client.on(&server.another(pin()));
    let blocked = guess(&restarted, stranger(50), "k7f2m9").await.expect(429);
    assert_eq!(blocked.header("retry-after"), "3600");

    // A PIN is tried once in an hour from then on, by all strangers of all processes together.
    server.clock.advance(Duration::from_hours(1));
    let client = server.mcp_client().await;
    let restarted = client.on(&restarted.server);
    let _ = guess(&client, stranger(51), "000000").await.expect(401);
    let _ = guess(&restarted, stranger(52), "000000").await.expect(429);
    server.clock.advance(Duration::from_hours(1));
    let client = server.mcp_client().await;
    let _ = guess(&client, stranger(53), "k7f2m9").await.expect(303);
    // Its attempt was right, so it was none of theirs.
    let _ = guess(&client, stranger(54), "000000").await.expect(401);
}

/// Counter-test of N-CN-10: whoever knows the passphrase is no guesser, however many there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_people_who_know_the_passphrase_sign_in_at_once() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut racing = tokio::task::JoinSet::new();
    for n in 0..50 {
        let client = client.clone();
        racing.spawn(async move { guess(&client, stranger(n), PASSPHRASE).await.status });
    }
    let statuses = racing.join_all().await;
    assert!(statuses.iter().all(|status| *status == 303), "{statuses:?}");
    assert!(
        !server.stored().contains("mark/"),
        "a right attempt writes nothing down"
    );
}

/// Of 160 random bits there is nothing to guess, so strangers must not be able to keep out an
/// owner who never signed in before.
#[tokio::test]
async fn a_generated_passphrase_is_limited_by_address_alone() {
    let hash = hash_generated(PASSPHRASE, &[7; 16]);
    let server = TestServer::with(with_sign_in(SignIn::hashed(&hash).unwrap()));
    let client = server.mcp_client().await;
    for n in 0..30 {
        let _ = guess(&client, stranger(n), WRONG).await.expect(401);
    }
    assert!(!server.stored().contains("mark/"));
    let _ = guess(&client, stranger(99), PASSPHRASE).await.expect(303);
}

/// Whoever is blocked anyway makes the store no work.
#[tokio::test]
async fn an_attempt_that_is_not_looked_at_asks_the_store_for_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = client.opens(&client.authorization_with(&[])).await;
    let attempt = |secret| browser.form(&page, &[("secret", secret), ("decision", "approve")]);
    for _ in 0..5 {
        let _ = server.send(attempt(WRONG)).await.expect(401);
    }
    for secret in [WRONG, PASSPHRASE] {
        let (reads, writes) = server.store.accesses();
        let _ = server.send(attempt(secret)).await.expect(429);
        // The client is all that it asks for.
        assert_eq!(server.store.accesses(), (reads + 1, writes));
    }
}

/// FI-05: without a store nobody learns whether a guess was right, and right ones use up nothing.
#[tokio::test]
async fn while_the_store_is_away_nobody_guesses() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (browser, page) = client.opens(&client.authorization_with(&[])).await;
    let attempt = |secret| browser.form(&page, &[("secret", secret), ("decision", "approve")]);
    server.store.set_read_only(true);
    for _ in 0..20 {
        let _ = server.send(attempt(PASSPHRASE)).await.expect(503);
    }
    for _ in 0..4 {
        let _ = server.send(attempt(WRONG)).await.expect(503);
    }
    server.store.set_read_only(false);
    let _ = server.send(attempt(PASSPHRASE)).await.expect(303);
}
