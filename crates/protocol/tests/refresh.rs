//! Refreshing: rotation, repetitions, races, and what is taken for theft (RFC 9700 §4.14.2).

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header;
use protocol::{policy::Policy, ports::Store};
use serde_json::json;
use support::{
    Answer, TestServer,
    client::{McpClient, Tokens},
    policy,
};
use tokio::task::JoinSet;

const DAY: Duration = Duration::from_hours(24);
/// How long a predecessor gets the same answer again.
const WINDOW: Duration = Duration::from_mins(2);
/// The longest that a grant may be left alone.
const ALMOST_IDLE: Duration = Duration::from_secs(30 * 24 * 60 * 60 - 1);
const SECOND: Duration = Duration::from_secs(1);

async fn refreshed(client: &McpClient, tokens: &Tokens) -> Tokens {
    Tokens::of(&client.refresh(tokens).await.expect(200))
}

async fn refresh_with(client: &McpClient, tokens: &Tokens, extra: &[(&str, &str)]) -> Answer {
    let mut fields = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", tokens.refresh_token.as_str()),
    ];
    fields.extend(extra);
    client.token(&fields).await
}

/// Insists that nothing of the family works any more.
async fn is_dead(client: &McpClient, tokens: &[&Tokens]) {
    let before = client.server.state();
    for tokens in tokens {
        let _ = client.refresh(tokens).await.refused(400, "invalid_grant");
        let _ = client.call(tokens).await.refused(401, "invalid_token");
    }
    assert_eq!(client.server.state(), before);
}

/// Insists that the newest tokens are the live branch.
async fn is_alive(client: &McpClient, tokens: &Tokens) -> Tokens {
    let _ = client.call(tokens).await.expect(200);
    let next = refreshed(client, tokens).await;
    let _ = client.call(&next).await.expect(200);
    next
}

fn one() -> Policy {
    policy(&[("one", "/mcp")])
}

/// TK-16, TK-18, S1-14, C-08
#[tokio::test]
async fn a_refresh_gives_new_tokens_and_leaves_the_old_access_token_its_time() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    server.clock.advance(30 * 60 * SECOND);
    let answer = client.refresh(&first).await.expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.json()["token_type"], "Bearer");
    assert_eq!(answer.json()["expires_in"], 3600);
    let second = Tokens::of(&answer);
    assert_ne!(first.refresh_token, second.refresh_token);
    assert_ne!(first.access_token, second.access_token);
    for tokens in [&first, &second] {
        let _ = client.call(tokens).await.expect(200);
    }
    server.clock.advance(30 * 60 * SECOND);
    let _ = client.call(&first).await.refused(401, "invalid_token");
    let _ = client.call(&second).await.expect(200);
    assert_eq!(server.journal.count("TokenRefreshed"), 1);
}

/// TK-20, N-RF-01, N-RF-19: rule 1 of the refresh policy
#[tokio::test]
async fn a_token_that_is_not_genuine_touches_nothing() {
    let mut policy = one();
    policy.limits.wrong_tokens_per_address = None;
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let tokens = refreshed(&client, &client.sign_in().await).await;
    let before = server.state();
    let token = &tokens.refresh_token;
    let mut forged: Vec<String> = (0..token.len())
        .map(|index| {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            String::from_utf8(changed).unwrap()
        })
        .filter(|changed| changed != token)
        .collect();
    // Another generation with the MAC of this one.
    let mut bytes = BASE64_URL_SAFE_NO_PAD
        .decode(token.strip_prefix("mopr_").unwrap())
        .unwrap();
    for generation in [0_u32, 1, 3, u32::MAX] {
        bytes[16..20].copy_from_slice(&generation.to_be_bytes());
        forged.push(format!("mopr_{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes)));
    }
    forged.extend([
        "x".to_owned(),
        format!("{token}="),
        format!("{token}A"),
        token[..token.len() - 1].to_owned(),
        // An access token is no refresh token.
        tokens.access_token.clone(),
        tokens.access_token.replace("mopa_", "mopr_"),
    ]);
    for refresh_token in forged {
        let presented = Tokens {
            refresh_token,
            ..tokens.clone()
        };
        let _ = client
            .refresh(&presented)
            .await
            .refused(400, "invalid_grant");
    }
    assert_eq!(server.state(), before);
    let _ = refresh_with(
        &client,
        &Tokens {
            refresh_token: String::new(),
            ..tokens.clone()
        },
        &[],
    )
    .await
    .refused(400, "invalid_request");
    let _ = is_alive(&client, &tokens).await;
}

/// N-RF-04
#[tokio::test]
async fn a_refresh_token_opens_no_upstream() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for access_token in [
        tokens.refresh_token.clone(),
        tokens.refresh_token.replace("mopr_", "mopa_"),
    ] {
        let swapped = Tokens {
            access_token,
            ..tokens.clone()
        };
        let _ = client.call(&swapped).await.refused(401, "invalid_token");
    }
    assert!(server.upstream.received().is_empty());
    let _ = client.call(&tokens).await.expect(200);
}

/// TK-16, N-RF-02: rule 2
#[tokio::test]
async fn the_refresh_token_of_one_client_is_useless_to_another() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let others = [
        server.mcp_client().await,
        McpClient::register(&server, &json!({})).await,
    ];
    let before = server.state();
    for other in others {
        // Not even a predecessor, which would be theft from its own client, ends anything.
        for tokens in [&second, &first] {
            let _ = other.refresh(tokens).await.refused(400, "invalid_grant");
        }
    }
    assert_eq!(server.state(), before);
    let _ = is_alive(&client, &second).await;
}

/// TK-19, N-RF-05, N-RF-06: rule 2
#[tokio::test]
async fn a_refresh_cannot_widen_scope_or_change_resource() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let before = server.state();
    for (name, value, error) in [
        ("scope", "mcp offline_access", "invalid_scope"),
        ("scope", "offline_access", "invalid_scope"),
        ("resource", "https://gw.example/mcp/b", "invalid_target"),
        ("resource", "https://evil.example/mcp/a", "invalid_target"),
    ] {
        let _ = refresh_with(&client, &tokens, &[(name, value)])
            .await
            .refused(400, error);
    }
    assert_eq!(server.state(), before);

    // What was granted may be asked for again, and what nobody knows is dropped again.
    let mut tokens = tokens;
    for same in [
        &[("scope", "mcp")][..],
        &[("scope", "mcp openid")],
        &[("scope", "")],
        &[("resource", "https://gw.example/mcp/a")],
        &[("resource", "https://gw.example/mcp/a/"), ("scope", "mcp")],
        &[],
    ] {
        let answer = refresh_with(&client, &tokens, same).await.expect(200);
        assert_eq!(answer.json()["scope"], "mcp");
        tokens = Tokens::of(&answer);
        let _ = client.call(&tokens).await.expect(200);
        let _ = client
            .at("/mcp/b")
            .call(&tokens)
            .await
            .refused(401, "invalid_token");
    }
}

/// TK-11, S1-11
#[tokio::test]
async fn a_confidential_client_must_prove_itself_to_refresh() {
    let server = TestServer::new();
    let client = McpClient::register(
        &server,
        &json!({ "token_endpoint_auth_method": "client_secret_post" }),
    )
    .await;
    let tokens = client.sign_in().await;
    let before = server.state();
    for client_secret in [None, Some("wrong".to_owned())] {
        let thief = McpClient {
            client_secret,
            ..client.clone()
        };
        let _ = thief.refresh(&tokens).await.refused(401, "invalid_client");
    }
    assert_eq!(server.state(), before);
    let _ = is_alive(&client, &tokens).await;
}

/// The record outlives the grant by an hour, so that a late refresh is refused for what it is. It
/// does so when it is written for the first time and when a rotation writes it again.
#[tokio::test]
async fn a_grant_that_has_ended_is_known_for_an_hour_more() {
    for is_rotated in [false, true] {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let mut tokens = client.sign_in().await;
        if is_rotated {
            tokens = refreshed(&client, &tokens).await;
        }
        let refused = async || {
            server.store.memory.sweep(server.now());
            let answer = client.refresh(&tokens).await;
            let answer = answer.refused(400, "invalid_grant").json();
            answer["error_description"].as_str().unwrap().to_owned()
        };
        server.clock.advance(ALMOST_IDLE + Duration::from_hours(1));
        assert_eq!(refused().await, "the grant was revoked or has expired");
        server.clock.advance(SECOND);
        assert_eq!(refused().await, "the refresh token is not known");
    }
}

/// TK-20, N-RF-07, N-RF-08, N-RF-09: rule 3
#[tokio::test]
async fn a_grant_ends_when_idle_for_thirty_days_and_in_any_case_after_a_year() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut used = client.sign_in().await;
    let idle = client.sign_in().await;
    server.clock.advance(ALMOST_IDLE);
    used = refreshed(&client, &used).await;
    server.clock.advance(SECOND);
    is_dead(&client, &[&idle]).await;
    for _ in 0..11 {
        server.clock.advance(29 * DAY);
        used = refreshed(&client, &used).await;
    }
    // Shortly before the year is over, an access token lives no longer than the grant.
    let rest = Duration::from_mins(10);
    server.clock.advance((16 * DAY).saturating_sub(rest));
    let answer = client.refresh(&used).await.expect(200);
    assert_eq!(answer.json()["expires_in"], rest.as_secs());
    let last = Tokens::of(&answer);
    let _ = client.call(&last).await.expect(200);
    server.clock.advance(rest);
    is_dead(&client, &[&last, &used]).await;
}

/// TK-18, S1-15, C-07: rule 5
#[tokio::test]
async fn within_the_window_the_predecessor_gets_the_same_successor() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let _ = client.call(&second).await.expect(200);
    for pause in [0, 1, 89, 30] {
        server.clock.advance(pause * SECOND);
        let again = refreshed(&client, &first).await;
        assert_eq!(again.refresh_token, second.refresh_token);
        let _ = client.call(&again).await.expect(200);
    }
    assert_eq!(server.journal.count("TokenRefreshed"), 1);
    assert_eq!(server.journal.count("RefreshRepeated"), 4);
    let _ = is_alive(&client, &second).await;
}

/// N-RF-13: rule 5
#[tokio::test]
async fn a_repetition_must_ask_for_the_same_and_ends_nothing_when_it_does_not() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let wide = client.authorization_with(&[("scope", Some("mcp offline_access"))]);
    let code = client.code_for(&wide).await;
    let first = Tokens::of(&client.redeem(&code).await.expect(200));
    let narrow = [("scope", "mcp"), ("resource", "https://gw.example/mcp")];
    let second = Tokens::of(&refresh_with(&client, &first, &narrow).await.expect(200));
    let before = server.state();
    for other in [
        &[][..],
        &narrow[1..],
        &[("scope", "mcp offline_access")][..],
    ] {
        let _ = refresh_with(&client, &first, other)
            .await
            .refused(400, "invalid_grant");
    }
    assert_eq!(server.state(), before);
    // What was left out, or is spelled in another way, asks for the same.
    for same in [
        &narrow[..1],
        &[
            ("scope", "openid mcp"),
            ("resource", "https://gw.example/mcp/"),
        ][..],
    ] {
        let again = Tokens::of(&refresh_with(&client, &first, same).await.expect(200));
        assert_eq!(again.refresh_token, second.refresh_token);
    }
    let _ = is_alive(&client, &second).await;
}

/// Rule 5: at most 256 repetitions of one rotation
#[tokio::test]
async fn one_rotation_is_repeated_256_times_and_no_more() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    for _ in 0..256 {
        assert_eq!(
            refreshed(&client, &first).await.refresh_token,
            second.refresh_token
        );
    }
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    // The family lives on, and the next rotation has repetitions of its own.
    let third = is_alive(&client, &second).await;
    assert_eq!(
        refreshed(&client, &second).await.refresh_token,
        third.refresh_token
    );
}

/// TK-17, S1-14, S1-15, N-RF-11: rule 7
#[tokio::test]
async fn after_the_window_a_predecessor_whose_successor_was_used_ends_the_family() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let _ = client.call(&second).await.expect(200);
    server.clock.advance(WINDOW + SECOND);
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&second, &first]).await;
    assert_eq!(server.journal.count("GrantRevoked"), 1);
    // The person may approve the client anew.
    let _ = is_alive(&client, &client.sign_in().await).await;
}

/// N-RF-12: rule 8
#[tokio::test]
async fn an_older_ancestor_ends_the_family_even_within_the_window() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let third = refreshed(&client, &second).await;
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&third, &second]).await;
}

/// What became of the successor before its predecessor came again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Successor {
    Unused,
    AccessTokenUsed,
    RefreshTokenUsed,
}

/// RC-05: rules 5 to 8
#[tokio::test]
async fn two_nodes_of_one_client_that_refresh_apart_in_time() {
    use Successor::{AccessTokenUsed, RefreshTokenUsed, Unused};
    for successor in [Unused, AccessTokenUsed, RefreshTokenUsed] {
        for seconds in [1, 30, 90, 119, 120, 121, 300, 86_400, 86_401] {
            // Two processes, as the two nodes of the client may meet different ones.
            let server = TestServer::new();
            let mut fresh = one();
            fresh.grant_freshness = Some(Duration::from_secs(5));
            let a = server.mcp_client().await;
            let b = a.on(&server.another(fresh));
            let first = a.sign_in().await;
            let second = refreshed(&a, &first).await;
            match successor {
                Unused => {}
                AccessTokenUsed => {
                    let _ = a.call(&second).await.expect(200);
                    server.app.write_uses().await;
                }
                RefreshTokenUsed => drop(refreshed(&a, &second).await),
            }
            server.clock.advance(seconds * SECOND);
            let is_repeated = match successor {
                Unused => seconds <= 86_400,
                AccessTokenUsed => seconds <= 120,
                RefreshTokenUsed => false,
            };
            let answer = b.refresh(&first).await;
            if is_repeated {
                assert_eq!(
                    Tokens::of(&answer.expect(200)).refresh_token,
                    second.refresh_token
                );
                let _ = refreshed(&a, &second).await;
            } else {
                let _ = answer.refused(400, "invalid_grant");
                let _ = a.refresh(&second).await.refused(400, "invalid_grant");
                let _ = b.call(&second).await.refused(401, "invalid_token");
            }
        }
    }
}

/// Rule 6
#[tokio::test]
async fn an_answer_that_never_arrived_is_given_again_for_a_day() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let _ = client.call(&first).await.expect(200);
    let lost = refreshed(&client, &first).await;
    // Using what it still has tells nothing of whether the new ones arrived.
    let _ = client.call(&first).await.expect(200);
    server.clock.advance(DAY);
    let again = refreshed(&client, &first).await;
    assert_eq!(again.refresh_token, lost.refresh_token);
    assert!(
        server
            .journal
            .all()
            .iter()
            .any(|event| event.contains("AnswerLost"))
    );
    let _ = is_alive(&client, &again).await;
}

/// Rules 5 and 6
#[tokio::test]
async fn the_window_is_what_the_operator_says() {
    let mut policy = one();
    policy.tokens.refresh_retry_window = Duration::ZERO;
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let _ = client.call(&second).await.expect(200);
    assert_eq!(
        refreshed(&client, &first).await.refresh_token,
        second.refresh_token
    );
    server.clock.advance(SECOND);
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&second]).await;
}

/// Rules 6 and 7: a use that the store would not take is known here, and written as soon as it does.
#[tokio::test]
async fn a_use_that_could_not_be_written_is_not_forgotten() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    server.store.set_read_only(true);
    let _ = client.call(&second).await.expect(200);
    server.app.write_uses().await;
    server.store.set_read_only(false);
    server.app.write_uses().await;
    server.clock.advance(Duration::from_mins(5));
    let other = client.on(&server.another(one()));
    let _ = other.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&other, &[&second]).await;

    // Its own process needs not even that.
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let _ = client.call(&second).await.expect(200);
    server.clock.advance(Duration::from_mins(5));
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&second]).await;
}

/// Rule 6: the use of a generation is written down once
#[tokio::test]
async fn the_first_use_of_each_generation_is_written_down_once() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let writes = || server.store.accesses().1;
    let before = server.store.accesses();
    for _ in 0..10 {
        let _ = client.call(&first).await.expect(200);
    }
    assert_eq!(server.store.accesses(), before, "no call waits for it");
    let before = writes();
    for _ in 0..3 {
        server.app.write_uses().await;
    }
    assert_eq!(writes(), before + 1);
    let second = refreshed(&client, &first).await;
    let before = writes();
    for _ in 0..10 {
        // What was issued before says nothing of the newest generation.
        let _ = client.call(&first).await.expect(200);
    }
    server.app.write_uses().await;
    assert_eq!(writes(), before);
    for _ in 0..10 {
        let _ = client.call(&second).await.expect(200);
    }
    server.app.write_uses().await;
    assert_eq!(writes(), before + 1);

    // Another process finds it written already, even when it remembers otherwise.
    let other = client.on(&server.another(one()));
    let third = refreshed(&client, &second).await;
    let _ = other.call(&second).await.expect(200);
    let _ = client.call(&third).await.expect(200);
    server.app.write_uses().await;
    let before = writes();
    let _ = other.call(&third).await.expect(200);
    other.server.app.write_uses().await;
    assert_eq!(writes(), before);
}

/// A client that has called, at a process that believes what it read of a grant for three seconds.
async fn believed_for_three_seconds() -> (TestServer, McpClient, Tokens) {
    let mut shared = one();
    shared.grant_freshness = Some(3 * SECOND);
    let server = TestServer::with(shared);
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    client.initializes(&tokens).await;
    (server, client, tokens)
}

/// What a process knows for sure it does not ask about again, until it may have become untrue.
#[tokio::test]
async fn a_grant_that_was_read_again_is_believed_anew() {
    let (server, client, tokens) = believed_for_three_seconds().await;
    let reads = || server.store.accesses().0;
    for _ in 0..3 {
        server.clock.advance(3 * SECOND);
        let before = reads();
        for _ in 0..10 {
            let _ = client.call(&tokens).await.expect(200);
        }
        assert_eq!(reads(), before + 1);
    }
}

/// A call whose look at the grant takes so long that `meanwhile` is over before it ends.
async fn overtaken<T>(
    client: &McpClient,
    tokens: &Tokens,
    meanwhile: impl Future<Output = T>,
) -> T {
    let store = &client.server.store;
    let before = store.accesses().0;
    let held = store.hold_next_read();
    let meanwhile = async {
        while store.accesses().0 == before {
            tokio::task::yield_now().await;
        }
        let done = meanwhile.await;
        drop(held);
        done
    };
    let (answer, done) = tokio::join!(client.call(tokens), meanwhile);
    let _ = answer.expect(200);
    done
}

#[tokio::test]
async fn a_read_that_a_refresh_overtook_does_not_bring_the_old_state_back() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    // A process that knows nothing yet.
    let client = client.on(&server.another(one()));
    let second = overtaken(&client, &first, refreshed(&client, &first)).await;

    // So the use of the new generation is noted, and a late predecessor is reuse.
    let _ = client.call(&second).await.expect(200);
    client.server.app.write_uses().await;
    server.clock.advance(WINDOW + SECOND);
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&first, &second]).await;
}

#[tokio::test]
async fn a_read_that_a_note_of_use_overtook_does_not_make_it_be_written_again() {
    let (server, client, tokens) = believed_for_three_seconds().await;
    server.clock.advance(3 * SECOND);
    overtaken(&client, &tokens, server.app.write_uses()).await;

    let before = server.store.accesses();
    let _ = client.call(&tokens).await.expect(200);
    server.app.write_uses().await;
    assert_eq!(server.store.accesses(), before);
}

/// The stored grants, to be put back later as a backup would.
fn backup(server: &TestServer) -> Vec<(String, Bytes)> {
    let records = server.store.memory.dump();
    records
        .into_iter()
        .filter(|(key, _)| key.starts_with("grant/"))
        .collect()
}

async fn restore(server: &TestServer, records: &[(String, Bytes)]) {
    for (key, value) in records {
        assert!(server.store.memory.remove(key).await.unwrap());
        let until = server.now() + 400 * DAY;
        assert!(
            server
                .store
                .memory
                .insert(key, value.clone(), until)
                .await
                .unwrap()
        );
    }
}

/// Rule 9
#[tokio::test]
async fn a_store_that_lost_rotations_takes_the_newest_genuine_token_as_the_live_one() {
    for restarted in [false, true] {
        let server = TestServer::new();
        let mut client = server.mcp_client().await;
        let first = client.sign_in().await;
        let saved = backup(&server);
        let second = refreshed(&client, &first).await;
        let third = refreshed(&client, &second).await;
        let _ = client.call(&third).await.expect(200);
        server.clock.advance(Duration::from_mins(10));
        restore(&server, &saved).await;
        let process = if restarted {
            server.another(one())
        } else {
            server.clone()
        };
        client = client.on(&process);

        let fourth = refreshed(&client, &third).await;
        assert_eq!(process.journal.count("StoreRegressed"), 1);
        for tokens in [&third, &fourth] {
            let _ = client.call(tokens).await.expect(200);
        }
        // From here on everything is as ever: the predecessor is served, older ones end it.
        assert_eq!(
            refreshed(&client, &third).await.refresh_token,
            fourth.refresh_token
        );
        let _ = client.refresh(&second).await.refused(400, "invalid_grant");
        is_dead(&client, &[&third, &fourth]).await;
    }
}

/// Rule 9, S2-13
#[tokio::test]
async fn a_revocation_holds_in_a_process_that_remembers_more_than_the_store() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let saved = backup(&server);
    let second = refreshed(&client, &first).await;
    let third = refreshed(&client, &second).await;
    let _ = client.call(&third).await.expect(200);
    restore(&server, &saved).await;

    let _ = client.revoke(&third.access_token).await.expect(200);
    is_dead(&client, &[&first, &second, &third]).await;
}

/// Rule 9, switched off
#[tokio::test]
async fn an_operator_may_refuse_what_the_store_does_not_know() {
    let mut strict = one();
    strict.tokens.heal_store_regression = false;
    let server = TestServer::with(strict);
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let saved = backup(&server);
    let second = refreshed(&client, &first).await;
    restore(&server, &saved).await;
    let before = server.state();
    let _ = client.refresh(&second).await.refused(400, "invalid_grant");
    assert_eq!(server.state(), before);
    let _ = refreshed(&client, &first).await;
}

/// RC-03, TK-18
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_refreshes_at_once_all_get_one_successor() {
    let first = TestServer::new();
    let processes = [first.clone(), first.another(one()), first.another(one())];
    let client = first.mcp_client().await;
    for spread in [1, 3] {
        let tokens = client.sign_in().await;
        let mut racing = JoinSet::new();
        for n in 0..100 {
            let (client, tokens) = (client.on(&processes[n % spread]), tokens.clone());
            racing.spawn(async move { client.refresh(&tokens).await });
        }
        let answers: Vec<_> = racing
            .join_all()
            .await
            .into_iter()
            .map(|answer| Tokens::of(&answer.expect(200)))
            .collect();
        assert!(
            answers
                .iter()
                .all(|tokens| tokens.refresh_token == answers[0].refresh_token)
        );
        for tokens in &answers {
            let _ = client.call(tokens).await.expect(200);
        }
        let next = refreshed(&client, &answers[0]).await;
        assert_ne!(next.refresh_token, answers[0].refresh_token);
    }
    let rotations: usize = processes
        .iter()
        .map(|process| process.journal.count("TokenRefreshed"))
        .sum();
    assert_eq!(rotations, 4);
}

/// RC-04
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_and_new_tokens_at_once_leave_one_live_branch() {
    for _ in 0..10 {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let old = client.sign_in().await;
        let new = refreshed(&client, &old).await;
        let mut racing = JoinSet::new();
        for n in 0..100 {
            let (client, tokens) = (
                client.clone(),
                if n % 2 == 0 { old.clone() } else { new.clone() },
            );
            racing.spawn(async move { (n % 2 == 0, client.refresh(&tokens).await) });
        }
        let mut newest = Vec::new();
        let mut was_reused = false;
        for (was_old, answer) in racing.join_all().await {
            match (was_old, answer.status.as_u16()) {
                (true, 200) => assert_eq!(Tokens::of(&answer).refresh_token, new.refresh_token),
                (false, 200) => newest.push(Tokens::of(&answer)),
                _ => {
                    was_reused = true;
                    let _ = answer.refused(400, "invalid_grant");
                }
            }
        }
        assert!(
            newest
                .windows(2)
                .all(|pair| pair[0].refresh_token == pair[1].refresh_token)
        );
        // The old token, once the new one was redeemed, is a grandparent.
        if was_reused {
            is_dead(&client, &[&old, &new]).await;
        } else {
            let _ = is_alive(&client, &newest[0]).await;
        }
    }
}

/// RC-06
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_revocation_no_refresh_that_ran_beside_it_brings_the_grant_back() {
    for round in 0..20 {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let tokens = client.sign_in().await;
        let mut racing = JoinSet::new();
        for n in 0..50 {
            let (client, tokens) = (client.clone(), tokens.clone());
            racing.spawn(async move {
                if n == round {
                    drop(client.revoke(&tokens.refresh_token).await.expect(200));
                    return None;
                }
                let answer = client.refresh(&tokens).await;
                (answer.status == 200).then(|| Tokens::of(&answer))
            });
        }
        let issued: Vec<_> = racing.join_all().await.into_iter().flatten().collect();
        is_dead(&client, &[&tokens]).await;
        is_dead(&client, &issued.iter().collect::<Vec<_>>()).await;
    }
}

/// TK-22, FI-04
#[tokio::test]
async fn whichever_store_access_fails_the_same_refresh_token_works_afterwards() {
    let fail: fn(&TestServer, u64) = |server, n| server.store.fail_nth(n);
    let lose: fn(&TestServer, u64) = |server, n| server.store.lose_nth(n);
    for disturb in [fail, lose] {
        let mut n = 1;
        loop {
            let server = TestServer::new();
            let client = server.mcp_client().await;
            let first = client.sign_in().await;
            // Late enough that the client's registration is renewed as well.
            server.clock.advance(ALMOST_IDLE);
            let first = refreshed(&client, &first).await;
            server.clock.advance(ALMOST_IDLE);
            disturb(&server, n);
            let answer = client.refresh(&first).await;
            if answer.status == 200 {
                break;
            }
            let answer = answer.refused(503, "temporarily_unavailable");
            assert!(answer.headers.contains_key(header::RETRY_AFTER));
            disturb(&server, 0);
            let second = refreshed(&client, &first).await;
            let _ = is_alive(&client, &second).await;
            assert_eq!(server.journal.count("GrantRevoked"), 0);
            n += 1;
        }
        // Client, grant, the client's longer life, the grant again.
        assert_eq!(n, 5);
    }
}

/// Rule 7, FI-04: the rotation happened though the store's answer was lost, and this process knows.
#[tokio::test]
async fn the_use_of_a_token_counts_whatever_became_of_the_rotation_that_made_it() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    // Client, grant, then the write of the rotation.
    server.store.lose_nth(3);
    let _ = client
        .refresh(&first)
        .await
        .refused(503, "temporarily_unavailable");
    let second = refreshed(&client, &first).await;
    let _ = client.call(&second).await.expect(200);
    server.clock.advance(WINDOW + SECOND);
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&second]).await;
}

/// FI-04: the same, at the end of the idle time that the rotation began anew.
#[tokio::test]
async fn a_token_lives_its_time_whatever_became_of_the_rotation_that_made_it() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    server.clock.advance(ALMOST_IDLE);
    server.store.lose_nth(3);
    let _ = client
        .refresh(&first)
        .await
        .refused(503, "temporarily_unavailable");
    let second = refreshed(&client, &first).await;
    server.clock.advance(SECOND);
    let _ = client.call(&second).await.expect(200);
}

/// TK-22
#[tokio::test]
async fn a_store_that_is_down_costs_nobody_the_connection() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
    let before = server.stored();
    server.store.set_down(true);
    for _ in 0..5 {
        let answer = client
            .refresh(&tokens)
            .await
            .refused(503, "temporarily_unavailable");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
    }
    // Who is known to this process is still served.
    let _ = client.call(&tokens).await.expect(200);
    server.store.set_down(false);
    assert_eq!(server.stored(), before);
    let _ = is_alive(&client, &tokens).await;
}

/// TK-22, N-TK-28
#[tokio::test]
async fn a_theft_that_cannot_be_written_down_is_told_as_a_fault_until_it_can() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = refreshed(&client, &first).await;
    let third = refreshed(&client, &second).await;
    // Client, grant, then the write of the revocation.
    server.store.fail_nth(4);
    let _ = client
        .refresh(&first)
        .await
        .refused(503, "temporarily_unavailable");
    let _ = client.refresh(&first).await.refused(400, "invalid_grant");
    is_dead(&client, &[&second, &third]).await;
}
