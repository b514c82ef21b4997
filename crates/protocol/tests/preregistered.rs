//! Clients that the operator set up, for those that cannot make themselves known.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::header;
use protocol::{
    oauth::{
        client::{ClientMetadata, PreregisteredClient},
        client_auth::{AuthMethod, secret_digest},
        identifiers::ClientId,
        redirect_uri::RedirectUri,
    },
    policy::Policy,
};
use serde_json::json;
use support::{
    ISSUER, PASSPHRASE, TestServer,
    client::{McpClient, REDIRECT_URI, Tokens, VERIFIER},
    form, policy,
};

const SECRET: &str = "a typed-in secret: +/=%";

fn client(id: &str, redirect_uris: &[&str], secret: Option<&str>) -> Arc<PreregisteredClient> {
    let uris = redirect_uris.iter();
    Arc::new(PreregisteredClient {
        client_id: ClientId::presented(id),
        metadata: ClientMetadata {
            client_name: format!("The {id}"),
            redirect_uris: uris.map(|uri| RedirectUri::parse(uri).unwrap()).collect(),
            token_endpoint_auth_method: match secret {
                Some(_) => AuthMethod::ClientSecretBasic,
                None => AuthMethod::None,
            },
            keys: None,
        },
        secret_digest: secret.map(secret_digest),
    })
}

/// A policy under which nobody becomes known but these two.
fn only_these() -> Policy {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.clients.registration = false;
    policy.clients.documents = false;
    policy.clients.preregistered = vec![
        client("claude-web", &[REDIRECT_URI], Some(SECRET)),
        client("terminal", &["http://localhost/callback"], None),
    ];
    policy
}

fn confidential(server: &TestServer) -> McpClient {
    McpClient {
        client_secret: Some(SECRET.to_owned()),
        ..McpClient::by_document(server, "claude-web", REDIRECT_URI)
    }
}

/// S1-05
#[tokio::test]
async fn a_client_that_was_set_up_connects_where_no_other_can() {
    let server = TestServer::with(only_these());
    let public = McpClient::by_document(&server, "terminal", "http://localhost:51234/callback");
    for client in [confidential(&server), public] {
        let tokens = client.sign_in().await;
        let _ = client.call(&tokens).await.expect(200);
        let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
        let _ = client.call(&tokens).await.expect(200);
        let _ = client.revoke(&tokens.access_token).await.expect(200);
        let _ = client.call(&tokens).await.expect(401);
    }
    assert!(!server.stored().contains("client/"));
    assert_eq!(server.fetch.asked(), [] as [&str; 0]);
    let metadata = server.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(
        metadata.json()["token_endpoint_auth_methods_supported"],
        json!(["none", "client_secret_post", "client_secret_basic"])
    );
}

/// A person is asked all the same, and told who vouches for the name.
#[tokio::test]
async fn consent_is_asked_for_and_says_that_the_operator_knows_the_client() {
    let server = TestServer::with(only_these());
    let client = confidential(&server);
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let page = page.expect(200);
    let text = page.text();
    assert!(text.contains("“The claude-web”"), "{text}");
    assert!(text.contains("which the operator of this proxy has set up"));
    assert!(!text.contains("not verified"), "{text}");
    let wrong = browser.approve(&server, &page, "wrong").await;
    let _ = wrong.expect(401);
    let approved = browser.approve(&server, &page, PASSPHRASE).await;
    assert_eq!(approved.expect(303).redirect().to, REDIRECT_URI);
}

/// TK-12, CI-05, C-05
#[tokio::test]
async fn a_typed_in_secret_is_taken_in_the_body_and_in_the_header() {
    let server = TestServer::with(only_these());
    let client = confidential(&server);
    let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    let basic = |secret: &str| format!("claude-web:{secret}");
    for pair in [None, Some(basic(SECRET)), Some(basic(&encoded))] {
        let code = client.code().await;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", VERIFIER),
        ];
        if pair.is_none() {
            fields.extend([("client_id", "claude-web"), ("client_secret", SECRET)]);
        }
        let mut request = form("/token", &fields);
        if let Some(pair) = pair {
            let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let value = value.parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let _ = server.send(request).await.expect(200);
    }
}

/// TK-11, TK-13
// N-TK-11 to N-TK-16
#[tokio::test]
async fn tk_11_whoever_does_not_prove_to_be_the_client_gets_nothing_and_consumes_nothing() {
    let server = TestServer::with(only_these());
    let client = confidential(&server);
    let code = client.code().await;
    let with = |fields: &[(&'static str, &'static str)], basic: Option<&str>| {
        let mut all = vec![
            ("grant_type", "authorization_code"),
            ("code", &*code),
            ("code_verifier", VERIFIER),
        ];
        all.extend(fields);
        let mut request = form("/token", &all);
        if let Some(pair) = basic {
            let value = format!("Basic {}", BASE64_STANDARD.encode(pair));
            let value = value.parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        request
    };
    let id = ("client_id", "claude-web");
    let basic = format!("claude-web:{SECRET}");
    let cases = [
        // Another client, no client, two clients.
        (
            with(&[("client_id", "terminal")], None),
            400,
            "invalid_grant",
        ),
        (
            with(&[("client_id", "claude")], None),
            401,
            "invalid_client",
        ),
        (
            with(&[("client_id", "Claude-Web")], None),
            401,
            "invalid_client",
        ),
        (with(&[], None), 401, "invalid_client"),
        (
            with(&[("client_id", "terminal")], Some(&basic)),
            400,
            "invalid_request",
        ),
        // A public client with a secret, a confidential one without.
        (
            with(
                &[("client_id", "terminal"), ("client_secret", SECRET)],
                None,
            ),
            401,
            "invalid_client",
        ),
        (with(&[id], None), 401, "invalid_client"),
        (
            with(&[id, ("client_secret", "")], None),
            401,
            "invalid_client",
        ),
        (
            with(&[id, ("client_secret", "wrong")], None),
            401,
            "invalid_client",
        ),
        (with(&[], Some("claude-web:wrong")), 401, "invalid_client"),
        (with(&[], Some("claude-web:")), 401, "invalid_client"),
        // Both ways at once.
        (
            with(&[("client_secret", SECRET)], Some(&basic)),
            400,
            "invalid_request",
        ),
    ];
    for (request, status, error) in cases {
        let before = server.state();
        let by_header = request.headers().contains_key(header::AUTHORIZATION);
        let answer = server.send(request).await.refused(status, error);
        let challenged = answer.headers.contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(challenged, by_header && status == 401, "{answer:#?}");
        assert_eq!(server.state(), before);
    }
    let _ = client.redeem(&code).await.expect(200);
}

/// AZ-02, AZ-03
#[tokio::test]
async fn only_the_redirect_uris_that_were_set_up_are_answered_at() {
    let server = TestServer::with(only_these());
    let terminal = McpClient::by_document(&server, "terminal", "http://localhost/callback");
    for (client, near_miss) in [
        (
            &confidential(&server),
            "https://claude.ai/api/mcp/auth_callback/",
        ),
        (&confidential(&server), "http://localhost/callback"),
        (&terminal, "http://localhost:51234/other"),
        (&terminal, "http://127.0.0.1:51234/callback"),
        (&terminal, "https://localhost:51234/callback"),
        (&terminal, REDIRECT_URI),
    ] {
        let changes = [("redirect_uri", Some(near_miss))];
        let (_, page) = client.opens(&client.authorization_with(&changes)).await;
        assert!(!page.expect(400).headers.contains_key(header::LOCATION));
    }
}

/// AZ-04: the operator said where this client is.
#[tokio::test]
async fn an_error_goes_to_a_client_that_was_set_up_by_itself() {
    let mut policy = only_these();
    let internal = "https://portal.internal.example/cb";
    let portal = client("portal", &[internal], None);
    policy.clients.preregistered.push(portal);
    let client = McpClient::by_document(&TestServer::with(policy), "portal", internal);
    let wrong = [("response_type", Some("token"))];
    let (_, answer) = client.opens(&client.authorization_with(&wrong)).await;
    let redirect = answer.expect(303).redirect();
    assert_eq!(redirect.to, internal);
    assert_eq!(redirect.parameter("error"), "unsupported_response_type");
    assert_eq!(redirect.parameter("iss"), ISSUER);
}

/// What the operator set up comes before what anybody registered under that name.
#[tokio::test]
async fn a_name_that_was_set_up_is_nobody_elses() {
    let server = TestServer::new();
    let registered = server.mcp_client().await;
    let mut policy = policy(&[("one", "/mcp")]);
    let internal = "https://portal.internal.example/cb";
    let same_name = client(&registered.client_id, &[internal], Some(SECRET));
    policy.clients.preregistered.push(same_name);
    let after = registered.on(&server.another(policy));
    let (_, page) = after.opens(&after.authorization_with(&[])).await;
    let _ = page.expect(400);
    let query = after.authorization_with(&[("redirect_uri", Some(internal))]);
    let (_, page) = after.opens(&query).await;
    assert!(
        page.expect(200)
            .text()
            .contains("the operator of this proxy")
    );
    let _ = after.redeem("mopc_x").await.refused(401, "invalid_client");
}

/// A client that is taken out of the configuration cannot go on.
#[tokio::test]
async fn a_client_that_is_not_set_up_any_more_cannot_refresh() {
    let server = TestServer::with(only_these());
    let client = confidential(&server);
    let tokens = client.sign_in().await;
    let after = client.on(&server.another(policy(&[("one", "/mcp")])));
    let _ = after.refresh(&tokens).await.refused(401, "invalid_client");
    let _ = client.refresh(&tokens).await.expect(200);
}

/// Case 36: the client is told what it has to do, the log names it, and no setting lets it in.
#[tokio::test]
async fn a_client_without_pkce_is_named_and_told_to_use_it() {
    let server = TestServer::with(only_these());
    let client = confidential(&server);
    for changes in [
        &[("code_challenge", None), ("code_challenge_method", None)][..],
        &[("code_challenge_method", None)],
        &[("code_challenge_method", Some("plain"))],
    ] {
        let (_, answer) = client.opens(&client.authorization_with(changes)).await;
        let error = answer.expect(303).redirect();
        assert_eq!(error.parameter("error"), "invalid_request");
        let told = error.parameter("error_description").to_owned();
        let words = "the client has to use PKCE with the method S256";
        assert!(told.contains(words), "{told}");
        let event = server.journal.all().last().unwrap().clone();
        for named in ["Refused", "claude-web", "The claude-web", words] {
            assert!(event.contains(named), "{named}: {event}");
        }
    }
    let _ = client.sign_in().await;
}

/// Case 04: a wrong secret, or a wrong address, of a client that the operator set up is logged with
/// its id and its name; what was wrong is shown, unless it is the secret.
#[tokio::test]
async fn a_refusal_of_a_configured_client_names_it_in_the_log() {
    let server = TestServer::with(only_these());
    let client = confidential(&server);
    let last = || server.journal.all().last().unwrap().clone();
    let code = client.code().await;
    let wrong = McpClient {
        client_secret: Some("another secret that is wrong".to_owned()),
        ..client.clone()
    };
    let refused = wrong.redeem(&code).await.refused(401, "invalid_client");
    let event = last();
    assert!(
        event.contains("claude-web") && event.contains("The claude-web"),
        "{event}"
    );
    for said in [event, refused.everything()] {
        assert!(
            !said.contains("another secret") && !said.contains(SECRET),
            "{said}"
        );
    }
    let elsewhere = [("redirect_uri", Some("https://claude.ai/other"))];
    // The client that redeems a code sees neither value; the log has both.
    let refused = client.redeem_with(&code, &elsewhere).await;
    let refused = refused.refused(400, "invalid_grant").everything();
    for uri in ["https://claude.ai/other", REDIRECT_URI] {
        assert!(!refused.contains(uri), "{refused}");
        assert!(last().contains(uri), "{}", last());
    }
    assert!(last().contains("The claude-web"));
    let (_, page) = client.opens(&client.authorization_with(&elsewhere)).await;
    let page = page.expect(400).text();
    for said in [
        "https://claude.ai/other",
        REDIRECT_URI,
        "The claude-web",
        "redirect_uris",
    ] {
        assert!(page.contains(said), "{said}: {page}");
        assert!(said == "redirect_uris" || last().contains(said), "{said}");
    }
    let _ = client.redeem(&code).await.expect(200);
}
