//! Records that another program wrote: a newer one, the first one, or a disk that failed.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

mod support;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::header;
use protocol::{
    identity::password::SignIn,
    policy::Policy,
    ports::{Store, Timestamp},
};
use serde_json::{Value, json};
use support::{
    Answer, TestServer,
    client::{McpClient, Tokens},
    policy,
};

const LATER: Timestamp = Timestamp(4_000_000_000);
const PIN: &str = "k3y7pq";
/// What no answer and no event may have of a record.
const CONTENT: &str = "not-for-anybody";

/// The one record whose key starts with `prefix`.
fn stored(server: &TestServer, prefix: &str) -> (String, String) {
    let dump = server.store.memory.dump();
    let mut found = dump.into_iter().filter(|(key, _)| key.starts_with(prefix));
    let (Some((key, value)), None) = (found.next(), found.next()) else {
        panic!("not one {prefix}: {}", server.stored())
    };
    (key, String::from_utf8(value.to_vec()).unwrap())
}

fn members(server: &TestServer, prefix: &str) -> Value {
    serde_json::from_str(&stored(server, prefix).1).unwrap()
}

/// Writes `value` over the one record whose key starts with `prefix`; its version counts on.
async fn overwrite(server: &TestServer, prefix: &str, value: impl ToString) {
    let (key, _) = stored(server, prefix);
    let store = &server.store.memory;
    let seen = store.get(&key).await.unwrap().unwrap().version;
    let value = value.to_string().into();
    assert!(store.replace(&key, seen, value, LATER).await.unwrap());
}

/// The same with one member set.
async fn set(server: &TestServer, prefix: &str, member: &str, value: Value) {
    let mut members = members(server, prefix);
    members[member] = value;
    overwrite(server, prefix, members).await;
}

/// Unauthenticated callers share an allowance of attempts at a PIN, which is a record too.
fn with_pin() -> Policy {
    Policy {
        sign_in: SignIn::pin(PIN),
        ..policy(&[("one", "/mcp")])
    }
}

async fn confidential(server: &TestServer) -> McpClient {
    McpClient::register(server, &json!({})).await
}

#[tokio::test]
async fn members_that_a_newer_program_wrote_survive_every_kind_of_writing() {
    let server = TestServer::with(with_pin());
    let client = server.mcp_client().await;
    let newer = json!({ "sealed": ["x"], "v": 7 });
    set(&server, "client/", "newer", newer.clone()).await;
    let query = support::client::query(&client.authorization());
    let (mut browser, page) = client.opens(&query).await;
    let _ = browser.approve(&server, &page, "wrong").await.expect(401);
    set(&server, "mark/strangers", "newer", newer.clone()).await;
    let _ = browser.approve(&server, &page, "wrong").await.expect(401);
    let approved = browser.approve(&server, &page, PIN).await;
    let code = approved.leads_back().parameter("code").to_owned();
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    set(&server, "grant/", "newer", newer.clone()).await;

    let _ = client.call(&tokens).await.expect(200);
    server.app.write_uses().await;
    assert_eq!(members(&server, "grant/")["access_used"], true);
    let next = Tokens::of(&client.refresh(&tokens).await.expect(200));
    assert_eq!(members(&server, "grant/")["generation"], 2);
    let _ = client.revoke(&next.refresh_token).await.expect(200);
    assert_eq!(members(&server, "grant/")["revoked"], "by_client");
    for prefix in ["client/", "grant/", "mark/strangers"] {
        let members = members(&server, prefix);
        assert_eq!(members["newer"], newer, "{prefix}");
        assert_eq!(members["v"], 1, "{prefix}");
    }
}

#[tokio::test]
async fn a_grant_that_was_revoked_for_an_unknown_reason_is_revoked() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for reason in [
        json!("by_the_moon"),
        json!({ "by": "policy", "at": 4 }),
        json!("by_operator"),
        json!("by_person"),
    ] {
        set(&server, "grant/", "revoked", reason.clone()).await;
        let now = server.another(policy(&[("one", "/mcp")]));
        let client = client.on(&now);
        let _ = client.call(&tokens).await.expect(401);
        let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
        let _ = client.revoke(&tokens.refresh_token).await.expect(200);
        assert_eq!(members(&server, "grant/")["revoked"], reason);
    }
    set(&server, "grant/", "revoked", Value::Null).await;
    let _ = client.refresh(&tokens).await.expect(200);
}

/// The bytes in a record as 0.1.0 wrote them.
async fn with_lists(server: &TestServer, prefix: &str, path: &[&str]) {
    let mut members = members(server, prefix);
    members.as_object_mut().unwrap().remove("v");
    let member = path.iter().fold(&mut members, |it, name| &mut it[name]);
    let text = member
        .as_str()
        .unwrap_or_else(|| panic!("{prefix} {path:?}"));
    *member = json!(BASE64_URL_SAFE_NO_PAD.decode(text).unwrap());
    overwrite(server, prefix, members).await;
}

#[tokio::test]
async fn bytes_are_written_as_base64_and_read_from_lists_too() {
    let server = TestServer::new();
    let client = confidential(&server).await;
    with_lists(&server, "client/", &["secret_digest"]).await;
    let code = client.code().await;
    with_lists(&server, "code/", &["approved", "code_challenge"]).await;
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    with_lists(&server, "grant/", &["salt"]).await;
    let _ = client.refresh(&tokens).await.expect(200);
    for prefix in ["client/", "grant/"] {
        let (_, text) = stored(&server, prefix);
        assert!(
            !text.contains("[1") && text.starts_with("{\"v\":1,"),
            "{text}"
        );
    }
    for salt in [
        json!(vec![0; 15]),
        json!(vec![0; 17]),
        json!("AAAA"),
        json!([256]),
    ] {
        set(&server, "grant/", "salt", salt).await;
        let _ = client.refresh(&tokens).await.refused(500, "server_error");
    }
}

/// Who is refused for a damaged record is not told to come again, nor that it has nothing any more;
/// and the log names the record, and nothing of what is in it.
#[track_caller]
fn is_damaged(server: &TestServer, prefix: &str, answer: Answer) {
    let answer = answer.expect(500);
    assert!(!answer.headers.contains_key(header::RETRY_AFTER));
    assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
    let text = answer.text();
    assert!(
        text.contains("cannot be read") || text.contains("cannot read"),
        "{text}"
    );
    let event = server.journal.all().pop().unwrap();
    let (key, _) = stored(server, prefix);
    assert!(event.starts_with("RecordDamaged"), "{event}");
    assert!(event.contains(&key), "{event}");
    for text in [event, answer.everything()] {
        assert!(!text.contains(CONTENT), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_record_is_told_as_such_by_every_endpoint_that_reads_it() {
    let server = TestServer::with(with_pin());
    let client = server.mcp_client().await;
    let query = support::client::query(&client.authorization());
    let authorize = format!("/authorize?{query}");
    let (mut browser, page) = client.opens(&query).await;
    let _ = browser.approve(&server, &page, "wrong").await.expect(401);
    let approved = browser.approve(&server, &page, PIN).await;
    let code = approved.leads_back().parameter("code").to_owned();
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));

    for damage in [
        CONTENT.to_owned(),
        String::new(),
        json!({ "v": 1, "approved": CONTENT, "client_id": CONTENT }).to_string(),
        json!({ "v": 2, "content": CONTENT }).to_string(),
        json!({ "v": CONTENT }).to_string(),
        json!([CONTENT]).to_string(),
    ] {
        // Nothing is in the memory of a process that has just started.
        let now = server.another(with_pin());
        let client = client.on(&now);
        let mut stranger = support::client::Browser::default();
        for prefix in ["client/", "grant/", "code/", "mark/strangers"] {
            let (_, good) = stored(&server, prefix);
            let stranger_page = stranger.get(&now, &authorize).await.expect(200);
            overwrite(&server, prefix, &damage).await;
            match prefix {
                "client/" => {
                    is_damaged(&now, prefix, now.get(&authorize).await);
                    is_damaged(&now, prefix, browser.approve(&now, &page, PIN).await);
                    is_damaged(&now, prefix, client.redeem(&code).await);
                    is_damaged(&now, prefix, client.refresh(&tokens).await);
                    is_damaged(&now, prefix, client.revoke(&tokens.refresh_token).await);
                    let _ = client.call(&tokens).await.expect(200);
                }
                "grant/" => {
                    let now = server.another(with_pin());
                    let client = client.on(&now);
                    is_damaged(&now, prefix, client.redeem(&code).await);
                    is_damaged(&now, prefix, client.refresh(&tokens).await);
                    is_damaged(&now, prefix, client.revoke(&tokens.refresh_token).await);
                    is_damaged(&now, prefix, client.call(&tokens).await);
                    now.app.end_streams_of_ended_grants().await;
                }
                "code/" => {
                    is_damaged(&now, prefix, browser.approve(&now, &page, PIN).await);
                    is_damaged(&now, prefix, client.redeem(&code).await);
                }
                _ => {
                    let attempt = stranger.approve(&now, &stranger_page, "wrong").await;
                    is_damaged(&now, prefix, attempt);
                }
            }
            // Repaired, all goes on.
            overwrite(&server, prefix, good).await;
        }
        let answer = client.redeem(&code).await;
        let _ = answer.refused(400, "invalid_grant");
        let _ = client.refresh(&tokens).await.expect(200);
        let _ = client.call(&tokens).await.expect(200);
        let _ = browser.approve(&now, &page, PIN).await.expect(303);
        let wrong = stranger.get(&now, &authorize).await.expect(200);
        let _ = stranger.approve(&now, &wrong, "wrong").await.expect(401);
    }
}
