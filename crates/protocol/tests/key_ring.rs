//! Several keys: the first makes, every one recognises what it made, and what may happen once
//! happens once although another key became the first in between.

#![expect(clippy::unwrap_used, reason = "all of this is tests")]

mod support;

use std::time::Duration;

use http::header;
use protocol::{
    records::{MadeWith, MarkedKey, Records},
    token::KeyFingerprint,
};
use support::{
    KEY, TestServer,
    client::{Browser, Tokens, query},
    policy,
};

const NEW: [u8; 32] = [8; 32];

/// The same deployment after a start with these keys.
fn restarted(server: &TestServer, ring: &[[u8; 32]]) -> TestServer {
    server.another_with(policy(&[("one", "/mcp")]), ring)
}

/// Writes down, as a start does, which keys are in use.
async fn mark(server: &TestServer, ring: &[[u8; 32]]) {
    let keys = ring.iter().map(|key| MarkedKey {
        fingerprint: KeyFingerprint::of(key),
        made_until: None,
    });
    let keys = MadeWith {
        keys: keys.collect(),
    };
    let records = Records(&*server.store);
    let seen = records.made_with().await.unwrap().map(|read| read.seen);
    let written = records.write_made_with(seen.as_ref(), &keys).await;
    assert!(written.unwrap());
}

#[tokio::test]
async fn a_form_that_is_sent_again_after_a_rotation_gives_the_same_code_and_that_one_grant() {
    let before = TestServer::new();
    let client = before.mcp_client().await;
    let authorization = query(&client.authorization());
    let (mut browser, page) = client.opens(&authorization).await;
    let (mut other_browser, other_page) = client.opens(&authorization).await;
    let code = async |browser: &mut Browser, server: &TestServer, page: &support::Answer| {
        let approved = browser.approve(server, page, support::PASSPHRASE).await;
        approved.leads_back().parameter("code").to_owned()
    };
    let first = code(&mut browser, &before, &page).await;

    let after = restarted(&before, &[NEW, KEY]);
    assert_eq!(code(&mut browser, &after, &page).await, first);
    // A page that was open meanwhile is answered too.
    let second = code(&mut other_browser, &after, &other_page).await;
    let on_after = client.on(&after);
    let _ = on_after.redeem(&second).await.expect(200);

    // One code, redeemed on both sides of a rotation, in either order.
    let tokens = Tokens::of(&client.redeem(&first).await.expect(200));
    let again = on_after.redeem(&first).await;
    let _ = again.refused(400, "invalid_grant");
    let _ = client.redeem(&second).await.refused(400, "invalid_grant");
    assert_eq!(after.stored().matches("grant/").count(), 2);
    // Much later it is a replay, and ends the grant.
    let _ = on_after.refresh(&tokens).await.expect(200);
    after.clock.advance(Duration::from_secs(3));
    let _ = on_after.redeem(&first).await.refused(400, "invalid_grant");
    let _ = on_after
        .refresh(&tokens)
        .await
        .refused(400, "invalid_grant");
    let _ = on_after.call(&tokens).await.expect(401);
}

#[tokio::test]
async fn a_refresh_that_is_repeated_after_a_rotation_gives_the_same_successor() {
    let before = TestServer::new();
    let client = before.mcp_client().await;
    let first = client.sign_in().await;
    let second = Tokens::of(&client.refresh(&first).await.expect(200));

    let after = restarted(&before, &[NEW, KEY]);
    let on_after = client.on(&after);
    let again = Tokens::of(&on_after.refresh(&first).await.expect(200));
    assert_eq!(again.refresh_token, second.refresh_token);
    // Access tokens of either key are good.
    for tokens in [&first, &second, &again] {
        let _ = on_after.call(tokens).await.expect(200);
    }
    // The next generation is the new key's, and is given again as often.
    let third = Tokens::of(&on_after.refresh(&second).await.expect(200));
    for _ in 0..2 {
        let again = Tokens::of(&on_after.refresh(&second).await.expect(200));
        assert_eq!(again.refresh_token, third.refresh_token);
    }
    // Which one a grandparent of the old key is, is still seen.
    let _ = on_after.refresh(&first).await.refused(400, "invalid_grant");
    let _ = on_after.refresh(&third).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn a_process_that_is_yet_to_get_the_new_key_spends_nothing_and_ends_nothing() {
    let old = TestServer::new();
    let new = restarted(&old, &[NEW, KEY]);
    mark(&old, &[NEW, KEY]).await;
    let client = old.mcp_client().await;
    let on_new = client.on(&new);
    let first = client.sign_in().await;
    let second = Tokens::of(&on_new.refresh(&first).await.expect(200));
    let code = on_new.code().await;
    let before = old.state();
    for answer in [
        client.call(&second).await,
        client.refresh(&second).await,
        // Its successor is one of the new key.
        client.refresh(&first).await,
        client.redeem(&code).await,
        client.revoke(&second.refresh_token).await,
        client.revoke(&second.access_token).await,
    ] {
        let answer = answer.refused(503, "temporarily_unavailable");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    }
    let (mut browser, page) = on_new.opens(&query(&client.authorization())).await;
    let _ = browser
        .approve(&old, &page, support::PASSPHRASE)
        .await
        .expect(503);
    assert_eq!(old.state(), before);

    let now = restarted(&old, &[NEW, KEY]);
    let client = client.on(&now);
    let _ = client.call(&second).await.expect(200);
    let again = Tokens::of(&client.refresh(&first).await.expect(200));
    assert_eq!(again.refresh_token, second.refresh_token);
    let _ = client.redeem(&code).await.expect(200);
}

#[tokio::test]
async fn a_key_that_nobody_has_is_a_forgery_and_costs_a_look_now_and_then() {
    let server = TestServer::new();
    mark(&server, &[KEY]).await;
    let elsewhere = restarted(&server, &[NEW]);
    let client = server.mcp_client().await;
    let forged = client.on(&elsewhere).sign_in().await;
    let (reads, _) = server.store.accesses();
    for _ in 0..20 {
        let _ = client.call(&forged).await.expect(401);
    }
    assert_eq!(server.store.accesses().0, reads + 1);
    server.clock.advance(Duration::from_secs(5));
    let _ = client.call(&forged).await.expect(401);
    assert_eq!(server.store.accesses().0, reads + 2);
    let _ = client.refresh(&forged).await.refused(400, "invalid_grant");
}

#[tokio::test]
async fn what_a_dropped_key_made_is_nothing() {
    let before = TestServer::new();
    let client = before.mcp_client().await;
    let tokens = client.sign_in().await;
    let code = client.code().await;
    let dropped = restarted(&before, &[NEW]);
    mark(&before, &[NEW]).await;
    let client = client.on(&dropped);
    let _ = client.call(&tokens).await.expect(401);
    let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
    let _ = client.redeem(&code).await.refused(400, "invalid_grant");
    // The client itself is still known.
    let _ = client.sign_in().await;
}
