//! What clients learn before they start, and where they look for it.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what fails in a helper fails its test"
)]

mod support;

use axum::body::Body;
use http::{Method, header};
use serde_json::{Value, json};
use support::{
    Answer, ISSUER, TestServer,
    client::{McpClient, REDIRECT_URI, Tokens},
    request,
};

const SERVER: &str = "/.well-known/oauth-authorization-server";
const RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// A page on the person's own computer, as the MCP inspector is one.
const PAGE: &str = "http://localhost:6274";

fn list<'a>(document: &'a Value, member: &str) -> Vec<&'a str> {
    let list = document[member]
        .as_array()
        .unwrap_or_else(|| panic!("{member}: {document}"));
    list.iter().map(|value| value.as_str().unwrap()).collect()
}

#[track_caller]
fn document(answer: Answer) -> Value {
    let answer = answer.expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

async fn send(server: &TestServer, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(Body::empty()).unwrap()).await
}

/// MD-01, MD-03, MD-04, MD-05, MD-07, MD-08, MD-09, MD-10, MD-11, MD-12, S1-04, S2-03
#[tokio::test]
async fn the_server_document_names_every_endpoint_and_only_safe_ways() {
    let server = TestServer::new();
    let document = document(server.get(SERVER).await);
    for (member, path) in [
        ("authorization_endpoint", "/authorize"),
        ("token_endpoint", "/token"),
        ("registration_endpoint", "/register"),
        ("revocation_endpoint", "/revoke"),
    ] {
        assert_eq!(document[member], format!("{ISSUER}{path}"));
    }
    assert_eq!(list(&document, "response_types_supported"), ["code"]);
    assert_eq!(
        list(&document, "code_challenge_methods_supported"),
        ["S256"]
    );
    assert_eq!(
        list(&document, "grant_types_supported"),
        ["authorization_code", "refresh_token"]
    );
    assert_eq!(
        list(&document, "scopes_supported"),
        ["mcp", "offline_access"]
    );
    let methods = list(&document, "token_endpoint_auth_methods_supported");
    for method in ["none", "client_secret_post", "client_secret_basic"] {
        assert!(methods.contains(&method), "{method}");
    }
    assert_eq!(
        document["authorization_response_iss_parameter_supported"],
        true
    );
    let members = document.as_object().unwrap();
    assert!(members.values().all(|value| !value.is_null()), "{document}");
}

/// MD-02
#[tokio::test]
async fn one_issuer_string_is_in_both_documents_and_in_the_answer() {
    let server = TestServer::new();
    let issuer = document(server.get(SERVER).await)["issuer"].clone();
    let resource = document(server.get(RESOURCE).await);
    assert_eq!(issuer, ISSUER);
    assert_eq!(list(&resource, "authorization_servers"), [ISSUER]);

    let client = server.mcp_client().await;
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let answer = browser.deny(&server, &page).await.expect(303);
    assert_eq!(answer.redirect().parameter("iss"), ISSUER);
}

/// RS-09, RS-10, RS-11, RS-12, RS-22, S1-03
#[tokio::test]
async fn the_only_resource_is_described_at_its_own_path_and_at_the_root() {
    let server = TestServer::new();
    // Each as the address that the document is found for (RFC 9728 §3.3).
    for path in ["", "/mcp"] {
        let document = document(server.get(&format!("{RESOURCE}{path}")).await);
        assert_eq!(document["resource"], format!("{ISSUER}{path}"));
        assert_eq!(list(&document, "authorization_servers"), [ISSUER]);
        // Clients would ask for it, which is the business of the server document alone.
        assert!(!list(&document, "scopes_supported").contains(&"offline_access"));
    }
}

/// S5-01, S5-02, RS-11, RS-12
#[tokio::test]
async fn each_of_two_resources_is_described_at_its_path_and_none_at_the_root() {
    let server = TestServer::with_two_upstreams();
    for path in ["/mcp/a", "/mcp/b"] {
        let resource = document(server.get(&format!("{RESOURCE}{path}")).await);
        assert_eq!(resource["resource"], format!("{ISSUER}{path}"));
        let issuer = document(server.get(&format!("{SERVER}{path}")).await)["issuer"].clone();
        assert_eq!(issuer, ISSUER);
    }
    for unknown in [
        RESOURCE.to_owned(),
        format!("{RESOURCE}/mcp"),
        format!("{RESOURCE}/mcp/c"),
        format!("{SERVER}/mcp/c"),
    ] {
        let answer = server.get(&unknown).await.refused(404, "not_found");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

/// S5-01
#[tokio::test]
async fn a_token_for_one_upstream_is_refused_at_the_other() {
    let server = TestServer::with_two_upstreams();
    let at_a = server.mcp_client().await;
    let at_b = at_a.at("/mcp/b");
    let tokens = at_a.sign_in().await;

    let _ = at_b.call(&tokens).await.refused(401, "invalid_token");
    assert!(server.upstream.received().is_empty());

    let _ = at_a.call(&tokens).await.expect(200);
    assert_eq!(
        server.upstream.last().uri(),
        "https://a.upstream.example/mcp"
    );
    let _ = at_b.call(&at_b.sign_in().await).await.expect(200);
    assert_eq!(
        server.upstream.last().uri(),
        "https://b.upstream.example/mcp"
    );
}

/// MD-13
#[tokio::test]
async fn an_unknown_well_known_document_is_a_plain_404() {
    let server = TestServer::new();
    for unknown in [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/mcp",
        "/.well-known/jwks.json",
        "/.well-known/",
        "/.well-known/oauth-authorization-server/other",
        "/.well-known/oauth-protected-resource/mcp/other",
        "/.well-known/oauth-protected-resource/mcp//",
        "/.well-known/oauth-protected-resource//mcp",
    ] {
        let answer = server.get(unknown).await.refused(404, "not_found");
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(!answer.headers.contains_key("location"));
    }
    let _ = server.get(SERVER).await.expect(200);
}

/// RS-14
#[tokio::test]
async fn a_query_changes_no_document() {
    let server = TestServer::new();
    for path in [SERVER, RESOURCE] {
        let plain = server.get(path).await.expect(200);
        let asked = server.get(&format!("{path}?utm=1")).await.expect(200);
        assert_eq!(plain.body, asked.body);
    }
}

/// ASM-05
#[tokio::test]
async fn a_forged_host_leaves_the_documents_as_they_are() {
    let server = TestServer::new();
    for path in [SERVER, RESOURCE] {
        let plain = server.get(path).await.expect(200);
        for (name, value) in [
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "8443"),
            ("forwarded", "host=evil.example;proto=http"),
            ("x-original-host", "evil.example"),
        ] {
            let forged = send(&server, Method::GET, path, &[(name, value)]).await;
            assert_eq!(plain.body, forged.expect(200).body, "{name}");
        }
        let request = http::Request::get(path)
            .header(header::HOST, "evil.example")
            .body(Body::empty())
            .unwrap();
        assert_eq!(plain.body, server.send(request).await.expect(200).body);
    }
}

/// MD-14, S2-19
#[tokio::test]
async fn a_browser_page_may_read_and_use_everything_that_is_for_programs() {
    let server = TestServer::new();
    let resource = format!("{RESOURCE}/mcp");
    for path in [
        SERVER,
        RESOURCE,
        &resource,
        "/register",
        "/token",
        "/revoke",
        "/mcp",
    ] {
        let preflight = [
            ("origin", PAGE),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type,mcp-protocol-version,mcp-name",
            ),
        ];
        let answer = send(&server, Method::OPTIONS, path, &preflight)
            .await
            .expect(204);
        assert!(
            ["*", PAGE].contains(&answer.header("access-control-allow-origin")),
            "{path}"
        );
        let allowed = answer.header("access-control-allow-headers");
        for name in [
            "authorization",
            "content-type",
            "mcp-protocol-version",
            "mcp-name",
        ] {
            assert!(allowed.contains(name), "{path} {name}");
        }
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("POST"),
            "{path}"
        );
        assert!(
            !answer
                .headers
                .contains_key("access-control-allow-credentials"),
            "{path}"
        );

        // The answer itself, refusal or not, must be readable as well.
        let answer = send(&server, Method::POST, path, &[("origin", PAGE)]).await;
        assert!(
            ["*", PAGE].contains(&answer.header("access-control-allow-origin")),
            "{path}"
        );
        let exposed = answer.header("access-control-expose-headers");
        assert!(
            exposed.contains("WWW-Authenticate") && exposed.contains("Mcp-Session-Id"),
            "{path}"
        );
    }
    assert!(server.upstream.received().is_empty());
}

/// MD-15
#[tokio::test]
async fn no_other_page_may_read_what_is_for_people() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let good = format!("/authorize?{}", client.authorization_with(&[]));
    for path in [good.as_str(), "/authorize", "/consent"] {
        for method in [Method::OPTIONS, Method::GET, Method::POST] {
            let headers = [("origin", PAGE), ("access-control-request-method", "POST")];
            let answer = send(&server, method, path, &headers).await;
            let names = answer.headers.keys();
            assert_eq!(
                names
                    .filter(|name| name.as_str().starts_with("access-control-"))
                    .count(),
                0,
                "{answer:#?}"
            );
        }
    }
    let _ = send(&server, Method::GET, &good, &[]).await.expect(200);
}

/// ASM-04, S2-03
#[tokio::test]
async fn everything_that_is_advertised_works() {
    let server = TestServer::new();
    let document = document(server.get(SERVER).await);
    let path = |member: &str| {
        document[member]
            .as_str()
            .unwrap()
            .strip_prefix(ISSUER)
            .unwrap()
            .to_owned()
    };
    let scopes = list(&document, "scopes_supported").join(" ");

    for method in list(&document, "token_endpoint_auth_methods_supported") {
        // Not for those that register; `client_assertions.rs` walks it.
        if method == "private_key_jwt" {
            continue;
        }
        let metadata = json!({
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": method,
            "grant_types": document["grant_types_supported"],
            "response_types": document["response_types_supported"],
        });
        let registered = server
            .post_json(&path("registration_endpoint"), &metadata)
            .await
            .expect(201)
            .json();
        assert_eq!(registered["token_endpoint_auth_method"], method);
        for member in ["grant_types", "response_types"] {
            assert_eq!(registered[member], metadata[member]);
        }
        let client = McpClient {
            server: server.clone(),
            client_id: registered["client_id"].as_str().unwrap().to_owned(),
            client_secret: registered["client_secret"].as_str().map(str::to_owned),
            signer: None,
            path: "/mcp".to_owned(),
            redirect_uri: REDIRECT_URI.to_owned(),
        };

        let query = client.authorization_with(&[("scope", Some(&scopes))]);
        let page = server
            .get(&format!("{}?{query}", path("authorization_endpoint")))
            .await;
        let _ = page.expect(200);
        let code = client.code_for(&query).await;
        let tokens = post(
            &client,
            &path("token_endpoint"),
            method,
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("code_verifier", support::client::VERIFIER),
            ],
        )
        .await
        .expect(200);
        assert_eq!(tokens.json()["scope"], scopes);
        let tokens = Tokens::of(&tokens);
        let tokens = Tokens::of(
            &post(
                &client,
                &path("token_endpoint"),
                method,
                &[
                    ("grant_type", "refresh_token"),
                    ("refresh_token", &tokens.refresh_token),
                ],
            )
            .await
            .expect(200),
        );
        let _ = client.call(&tokens).await.expect(200);
        let revoked = post(
            &client,
            &path("revocation_endpoint"),
            method,
            &[("token", &tokens.access_token)],
        )
        .await;
        let _ = revoked.expect(200);
        let _ = client.call(&tokens).await.refused(401, "invalid_token");
    }
    // An endpoint that is advertised and not walked above would be one that nobody tried.
    let endpoints = document
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| name.ends_with("_endpoint"));
    assert_eq!(endpoints.count(), 4);
}

/// Posts a form with the client's credentials presented as `method` says.
async fn post(client: &McpClient, path: &str, method: &str, fields: &[(&str, &str)]) -> Answer {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let secret = client.client_secret.as_deref().unwrap_or_default();
    let mut all = fields.to_vec();
    if method != "client_secret_basic" {
        all.push(("client_id", &client.client_id));
    }
    if method == "client_secret_post" {
        all.push(("client_secret", secret));
    }
    let mut request = support::form(path, &all);
    if method == "client_secret_basic" {
        let credentials = BASE64_STANDARD.encode(format!("{}:{secret}", client.client_id));
        let value = format!("Basic {credentials}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    client.server.send(request).await
}

/// Case 01: a client that loses `iss` and insists on it where it is announced gets in where it is
/// not; one that compares it finds it as before, in answers and in errors.
#[tokio::test]
async fn iss_is_sent_also_where_it_is_not_announced() {
    let member = "authorization_response_iss_parameter_supported";
    for announced in [true, false] {
        let mut policy = support::policy(&[("one", "/mcp")]);
        policy.clients.announce_iss = announced;
        let server = TestServer::with(policy);
        let client = server.mcp_client().await;
        for path in [SERVER.to_owned(), format!("{SERVER}/mcp")] {
            let metadata = document(server.get(&path).await);
            assert_eq!(metadata.get(member), announced.then_some(&json!(true)));
        }
        let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
        let answer = browser.approve(&server, &page, support::PASSPHRASE).await;
        let answer = answer.expect(303).redirect();
        assert_eq!(answer.parameter("iss"), ISSUER);
        let _ = client.redeem(answer.parameter("code")).await.expect(200);
        let wrong = client.authorization_with(&[("response_type", Some("token"))]);
        let (_, refused) = client.opens(&wrong).await;
        assert_eq!(refused.expect(303).redirect().parameter("iss"), ISSUER);
    }
}
