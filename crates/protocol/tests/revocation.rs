//! Giving a token back, and how soon nothing of it works any more (RFC 7009).

mod support;

use std::time::Duration;

use axum::body::Body;
use http::{Method, header};
use serde_json::json;
use support::{
    TestServer,
    client::{McpClient, Tokens},
    encoded, form, policy, request,
};

/// Insists that neither token works.
async fn is_dead(client: &McpClient, tokens: &Tokens) {
    let _ = client.call(tokens).await.refused(401, "invalid_token");
    let _ = client.refresh(tokens).await.refused(400, "invalid_grant");
}

/// RV-01, RV-02, S2-13, REV-03
#[tokio::test]
async fn giving_back_either_token_ends_both_at_once() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
    for choose in [
        |tokens: &Tokens| tokens.access_token.clone(),
        |tokens: &Tokens| tokens.refresh_token.clone(),
    ] {
        let first = client.sign_in().await;
        let second = Tokens::of(&client.refresh(&first).await.expect(200));
        for tokens in [&first, &second] {
            let _ = client.call(tokens).await.expect(200);
        }
        let answer = client.revoke(&choose(&second)).await.expect(200);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("cache-control"), "no-store");
        is_dead(&client, &second).await;
        is_dead(&client, &first).await;
    }
    // Another grant of the same client is none of its business.
    let _ = client.call(&tokens).await.expect(200);
    assert_eq!(server.journal.count("GrantRevoked"), 2);
}

/// REV-03
#[tokio::test]
async fn an_old_token_of_the_family_ends_it_too() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    for choose in [
        |tokens: &Tokens| tokens.access_token.clone(),
        |tokens: &Tokens| tokens.refresh_token.clone(),
    ] {
        let first = client.sign_in().await;
        let second = Tokens::of(&client.refresh(&first).await.expect(200));
        let third = Tokens::of(&client.refresh(&second).await.expect(200));
        server.clock.advance(Duration::from_hours(2));
        let third = Tokens::of(&client.refresh(&third).await.expect(200));
        let _ = client.revoke(&choose(&first)).await.expect(200);
        is_dead(&client, &third).await;
    }
}

/// RV-01, REV-01, S2-13
#[tokio::test]
async fn an_unknown_token_is_answered_like_a_revoked_one() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let mut other_mac = tokens.refresh_token.clone();
    let middle = other_mac.remove(50);
    other_mac.insert(50, if middle == 'A' { 'B' } else { 'A' });
    let before = server.state();
    for unknown in [
        "x",
        "mopa_",
        "mopr_AAAA",
        "\0",
        &other_mac,
        &tokens.access_token.replace("mopa_", "mopr_"),
        &tokens.refresh_token.replace("mopr_", "mopa_"),
    ] {
        let answer = client.revoke(unknown).await.expect(200);
        assert!(answer.body.is_empty());
    }
    assert_eq!(server.state(), before);
    let _ = client.call(&tokens).await.expect(200);

    let first = client.revoke(&tokens.access_token).await.expect(200);
    let again = client.revoke(&tokens.access_token).await.expect(200);
    assert_eq!(first.headers, again.headers);
    assert_eq!(server.journal.count("GrantRevoked"), 1);
}

/// RV-03, REV-02
#[tokio::test]
async fn no_client_can_end_what_another_one_has() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let others = [
        server.mcp_client().await,
        McpClient::register(&server, &json!({})).await,
    ];
    let before = server.state();
    for other in others {
        for token in [&tokens.access_token, &tokens.refresh_token] {
            let _ = other.revoke(token).await.expect(200);
        }
    }
    assert_eq!(server.journal.count("GrantRevoked"), 0);
    assert_eq!(server.state(), before);
    let _ = client.call(&tokens).await.expect(200);
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));

    let _ = client.revoke(&tokens.access_token).await.expect(200);
    is_dead(&client, &tokens).await;
}

/// RV-01, TK-11
#[tokio::test]
async fn a_client_must_say_and_prove_who_it_is() {
    let server = TestServer::new();
    let client = McpClient::register(
        &server,
        &json!({ "token_endpoint_auth_method": "client_secret_post" }),
    )
    .await;
    let tokens = client.sign_in().await;
    let id = client.client_id.as_str();
    let token = ("token", tokens.access_token.as_str());
    let before = server.state();
    for fields in [
        &[token][..],
        &[token, ("client_id", "unknown")],
        &[token, ("client_id", id)],
        &[token, ("client_id", id), ("client_secret", "wrong")],
    ] {
        let _ = server
            .post_form("/revoke", fields)
            .await
            .refused(401, "invalid_client");
    }
    let mut by_header = form("/revoke", &[token]);
    by_header
        .headers_mut()
        .insert(header::AUTHORIZATION, "Basic eDp5".parse().unwrap());
    let answer = server.send(by_header).await.refused(401, "invalid_client");
    assert!(answer.header("www-authenticate").starts_with("Basic "));
    assert_eq!(server.state(), before);
    let _ = client.call(&tokens).await.expect(200);
    let _ = client.revoke(&tokens.access_token).await.expect(200);
    is_dead(&client, &tokens).await;
}

/// REV-05
#[tokio::test]
async fn a_wrong_hint_of_what_the_token_is_does_not_matter() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    for hint in ["access_token", "refresh_token", "id_token", ""] {
        for choose in [
            |tokens: &Tokens| tokens.access_token.clone(),
            |tokens: &Tokens| tokens.refresh_token.clone(),
        ] {
            let tokens = client.sign_in().await;
            let token = choose(&tokens);
            let fields = [
                ("token", token.as_str()),
                ("token_type_hint", hint),
                ("client_id", &client.client_id),
            ];
            let _ = server.post_form("/revoke", &fields).await.expect(200);
            is_dead(&client, &tokens).await;
        }
    }
}

/// REV-04
#[tokio::test]
async fn other_processes_see_a_revocation_within_five_seconds() {
    let five = Duration::from_secs(5);
    let shared = || {
        let mut policy = policy(&[("one", "/mcp")]);
        policy.grant_freshness = Some(five);
        policy
    };
    let here = TestServer::with(shared());
    let client = here.mcp_client().await;
    let there = client.on(&here.another(shared()));
    let tokens = client.sign_in().await;
    let _ = there.call(&tokens).await.expect(200);

    let _ = client.revoke(&tokens.refresh_token).await.expect(200);
    let _ = client.call(&tokens).await.refused(401, "invalid_token");
    // Nobody gets new tokens anywhere from that moment on.
    let _ = there.refresh(&tokens).await.refused(400, "invalid_grant");
    here.clock.advance(five);
    is_dead(&there, &tokens).await;
}

/// REV-06, TK-22
#[tokio::test]
async fn a_revocation_that_could_not_be_written_is_never_called_done() {
    let fail: fn(&TestServer, u64) = |server, n| server.store.fail_nth(n);
    let lose: fn(&TestServer, u64) = |server, n| server.store.lose_nth(n);
    for disturb in [fail, lose] {
        for choose in [
            |tokens: &Tokens| tokens.access_token.clone(),
            |tokens: &Tokens| tokens.refresh_token.clone(),
        ] {
            let mut n = 1;
            loop {
                let server = TestServer::new();
                let client = server.mcp_client().await;
                let tokens = client.sign_in().await;
                let token = choose(&tokens);
                disturb(&server, n);
                let answer = client.revoke(&token).await;
                disturb(&server, 0);
                if answer.status == 200 {
                    is_dead(&client, &tokens).await;
                    break;
                }
                let answer = answer.refused(503, "temporarily_unavailable");
                assert!(answer.headers.contains_key(header::RETRY_AFTER));
                let _ = client.revoke(&token).await.expect(200);
                is_dead(&client, &tokens).await;
                n += 1;
            }
            // Client, grant, grant again, the write.
            assert_eq!(n, 5);
        }
    }
}

/// REV-06
#[tokio::test]
async fn a_revocation_whose_answer_was_lost_holds_without_being_asked_for_again() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = client.call(&second).await.expect(200);
    server.store.lose_nth(4);
    let _ = client
        .revoke(&second.access_token)
        .await
        .refused(503, "temporarily_unavailable");
    is_dead(&client, &second).await;
    is_dead(&client, &first).await;
}

/// REV-07
#[tokio::test]
async fn only_a_form_post_revokes() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let fields = [
        ("token", tokens.access_token.as_str()),
        ("client_id", client.client_id.as_str()),
    ];
    let query = encoded(&fields);
    let before = server.state();
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let request = request(method, &format!("/revoke?{query}&callback=x"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(
            server.send(request).await.expect(405).header("allow"),
            "POST"
        );
    }
    let in_query = form(&format!("/revoke?{query}"), &[]);
    let _ = server.send(in_query).await.refused(401, "invalid_client");
    let in_json = json!({ "token": tokens.access_token, "client_id": client.client_id });
    let _ = server
        .post_json("/revoke", &in_json)
        .await
        .refused(400, "invalid_request");
    let without_token = [("client_id", client.client_id.as_str())];
    let _ = server
        .post_form("/revoke", &without_token)
        .await
        .refused(400, "invalid_request");
    let twice = [fields[0], fields[0], fields[1]];
    let _ = server
        .post_form("/revoke", &twice)
        .await
        .refused(400, "invalid_request");
    assert_eq!(server.state(), before);
    let _ = client.call(&tokens).await.expect(200);
    let _ = server.post_form("/revoke", &fields).await.expect(200);
    is_dead(&client, &tokens).await;
}
