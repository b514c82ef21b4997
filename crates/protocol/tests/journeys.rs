//! The main job from end to end: a client that knows one address gets to use one upstream.

mod support;

use support::{TestServer, UPSTREAM_KEY, client::Tokens, policy};

/// S1-01, S1-02, S2-05
#[tokio::test]
async fn a_client_signs_in_and_calls_and_the_upstream_sees_the_operators_key() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;

    let answer = client.call(&tokens).await.expect(200);

    assert!(!answer.everything().contains(UPSTREAM_KEY));
    let request = server.upstream.last();
    assert_eq!(request.uri(), "https://one.upstream.example/mcp");
    assert_eq!(
        request.headers()["authorization"],
        format!("Bearer {UPSTREAM_KEY}")
    );
    assert_eq!(
        request.body(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#
    );
}

/// S1-14, S1-15, TK-16, TK-18
#[tokio::test]
async fn a_refresh_token_is_rotated_and_a_repeated_one_gets_the_same_answer() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let first = client.sign_in().await;

    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let again = Tokens::of(&client.refresh(&first).await.expect(200));

    assert_ne!(first.refresh_token, second.refresh_token);
    assert_eq!(second.refresh_token, again.refresh_token);
    for tokens in [&first, &second, &again] {
        let _ = client.call(tokens).await.expect(200);
    }
}

#[tokio::test]
async fn an_approval_is_for_the_server_that_was_named_not_for_whatever_comes_to_its_address() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;

    let other = server.another(policy(&[("two", "/mcp")]));
    let moved = client.on(&other);
    let _ = moved.call(&tokens).await.expect(401);
    let _ = moved.refresh(&tokens).await.refused(400, "invalid_grant");
    assert!(other.upstream.received().is_empty());

    // Nothing was ended by asking: with the old server back, all is as it was.
    let _ = client.call(&tokens).await.expect(200);
    let _ = client.refresh(&tokens).await.expect(200);
}

/// A token is good at the address it was issued for, and nowhere else, though the server that was
/// named is the same.
#[tokio::test]
async fn an_approval_is_for_the_address_that_was_named_not_for_wherever_its_server_goes() {
    for beside in [&[][..], &[("two", "/beside")]] {
        let with_one_at = |path| policy(&[&[("one", path)], beside].concat());
        let server = TestServer::with(with_one_at("/here"));
        let client = server.mcp_client().await.at("/here");
        let tokens = client.sign_in().await;

        // Where it went, and where it was.
        let moved = server.another(with_one_at("/there"));
        let there = client.on(&moved).at("/there");
        let _ = there.call(&tokens).await.refused(401, "invalid_token");
        let _ = there.refresh(&tokens).await.refused(400, "invalid_grant");
        let _ = client.on(&moved).call(&tokens).await.expect(404);
        // Or where another one is now.
        let replaced = server.another(policy(&[("one", "/there"), ("two", "/here")]));
        for path in ["/here", "/there"] {
            let client = client.on(&replaced).at(path);
            let _ = client.call(&tokens).await.refused(401, "invalid_token");
            let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
        }
        for other in [&moved, &replaced] {
            assert!(other.upstream.received().is_empty());
        }

        // It stayed, and nothing was ended by asking.
        let stayed = client.on(&server.another(with_one_at("/here")));
        let _ = stayed.call(&tokens).await.expect(200);
        let tokens = Tokens::of(&stayed.refresh(&tokens).await.expect(200));
        let _ = stayed.call(&tokens).await.expect(200);
    }
}
