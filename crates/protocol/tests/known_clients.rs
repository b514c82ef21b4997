//! Real clients, as they come: each gets in by the ways that it has, and near-misses of each do
//! not. Also what keeps the table of known clients true, and the page that is made from it.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::{fmt::Write, fs, path::Path};

use http::{Method, header};
use protocol::oauth::known_clients::{Document, KNOWN_CLIENTS, Peculiarity, WITHOUT_PKCE};
use serde_json::{Value, json};
use support::{
    Answer, TestServer,
    assertion::Signer,
    client::{McpClient, Tokens},
    request,
};

/// A client as one that registers this, and wants its answers at `redirect_uri`.
async fn registered(server: &TestServer, metadata: &Value, redirect_uri: &str) -> McpClient {
    let answer = server.post_json("/register", metadata).await.expect(201);
    let registered = answer.json();
    assert_eq!(registered["redirect_uris"], metadata["redirect_uris"]);
    McpClient {
        client_secret: registered["client_secret"].as_str().map(str::to_owned),
        ..McpClient::by_document(
            server,
            registered["client_id"].as_str().unwrap(),
            redirect_uri,
        )
    }
}

/// A server that reaches no publisher, so that the copies in this program count, and the client of
/// that document.
fn published(client_id: &str, redirect_uri: &str) -> McpClient {
    McpClient::by_document(&TestServer::new(), client_id, redirect_uri)
}

/// The whole way: page, code, tokens, call, refresh, call.
async fn connects(client: &McpClient) {
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);
}

/// Insists that each of these is told here, and sends the browser nowhere.
async fn near_misses_are_refused(client: &McpClient, near_misses: &[&str]) {
    for near_miss in near_misses {
        let before = client.server.state();
        let changes = [("redirect_uri", Some(*near_miss))];
        let (_, page) = client.opens(&client.authorization_with(&changes)).await;
        let page = page.expect(400);
        assert!(!page.headers.contains_key(header::LOCATION), "{near_miss}");
        assert!(!page.text().contains("href="), "{near_miss}");
        assert_eq!(client.server.state(), before, "{near_miss}");
    }
}

/// C-06
#[tokio::test]
async fn claude_connects_by_document_and_by_registration() {
    let callback = "https://claude.ai/api/mcp/auth_callback";
    let near_misses = [
        "https://claude.ai/api/mcp/auth_callback/",
        "https://claude.ai/api/mcp/auth_callback?x=1",
        "https://claude.ai/api/mcp/auth_callback#x",
        "https://claude.ai/api/mcp/Auth_Callback",
        "https://claude.ai:8443/api/mcp/auth_callback",
        "https://claude.ai:443/api/mcp/auth_callback",
        "http://claude.ai/api/mcp/auth_callback",
        "https://www.claude.ai/api/mcp/auth_callback",
        "https://claude.ai.evil.example/api/mcp/auth_callback",
        "https://evilclaude.ai/api/mcp/auth_callback",
        "https://claude.ai@evil.example/api/mcp/auth_callback",
        "https://claude.ai\\@evil.example/api/mcp/auth_callback",
        "https://cl\u{430}ude.ai/api/mcp/auth_callback",
        "https://xn--clude-7of.ai/api/mcp/auth_callback",
        "https://claude.ai./api/mcp/auth_callback",
        "https://claude.ai/api/mcp/%61uth_callback",
        "https://claude.ai/api/../api/mcp/auth_callback",
        "claude://claude.ai/api/mcp/auth_callback",
        "javascript:alert(1)//https://claude.ai/api/mcp/auth_callback",
    ];
    let client = published(
        "https://claude.ai/oauth/mcp-oauth-client-metadata",
        callback,
    );
    connects(&client).await;
    near_misses_are_refused(&client, &near_misses).await;

    for (callback, method) in [
        (callback, "client_secret_post"),
        ("https://claude.com/api/mcp/auth_callback", "none"),
    ] {
        let metadata = json!({
            "client_name": "Claude",
            "redirect_uris": [callback],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
            "scope": "claudeai",
        });
        let client = registered(&TestServer::new(), &metadata, callback).await;
        connects(&client).await;
        near_misses_are_refused(&client, &near_misses).await;
    }
}

/// C-02
#[tokio::test]
async fn claude_code_connects_by_document_and_by_registration() {
    let near_misses = [
        "https://localhost:51234/callback",
        "http://localhost:51234/callback/",
        "http://localhost:51234/other",
        "http://localhost:51234/callback?x",
        "http://[::1]:51234/callback",
        "http://127.0.0.2:51234/callback",
        "http://localhost.evil.example:51234/callback",
        "http://user@localhost:51234/callback",
        "http://localhost:51234@evil.example/callback",
        "http://LOCALHOST:51234/callback",
        "http://localhost:0/callback",
        "http://localhost:65536/callback",
    ];
    let id = "https://claude.ai/oauth/claude-code-client-metadata";
    for redirect_uri in [
        "http://localhost:51234/callback",
        "http://127.0.0.1:51234/callback",
    ] {
        let client = published(id, redirect_uri);
        connects(&client).await;
        near_misses_are_refused(&client, &near_misses).await;
    }
    let metadata = json!({
        "client_name": "Claude Code (server)",
        "redirect_uris": ["http://localhost:3118/callback"],
        "application_type": "native",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    for port in ["3118", "49152"] {
        let redirect_uri = format!("http://localhost:{port}/callback");
        let client = registered(&TestServer::new(), &metadata, &redirect_uri).await;
        connects(&client).await;
        near_misses_are_refused(&client, &near_misses).await;
        near_misses_are_refused(&client, &["http://127.0.0.1:3118/callback"]).await;
    }
}

fn chatgpt() -> Value {
    json!({
        "client_id": "https://chatgpt.com/oauth/client.json",
        "client_uri": "https://chatgpt.com/",
        "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "client_name": "ChatGPT",
        "token_endpoint_auth_signing_alg": "RS256",
        "jwks_uri": "https://chatgpt.com/oauth/jwks.json",
    })
}

/// C-12, CI-10, CI-11
// N-CI-23
#[tokio::test]
async fn c_12_chatgpt_connects_with_its_key_and_without() {
    let id = "https://chatgpt.com/oauth/client.json";
    let redirect_uri = "https://chatgpt.com/connector_platform_oauth_redirect";
    let rs256 = || Signer::rsa(jsonwebtoken::Algorithm::RS256);
    for is_reached in [true, false] {
        let server = TestServer::new();
        if is_reached {
            server.fetch.publish(id, &chatgpt());
        }
        server
            .fetch
            .publish("https://chatgpt.com/oauth/jwks.json", &rs256().jwks());
        let plain = McpClient::by_document(&server, id, redirect_uri);
        let signing = plain.signing_with(rs256());
        connects(&plain).await;
        connects(&signing).await;
        // One that is sent is checked, though none was needed.
        let forged = plain.signing_with(Signer::of_another().named("rsa"));
        let code = plain.code().await;
        let before = server.state();
        let _ = forged.redeem(&code).await.refused(401, "invalid_client");
        assert_eq!(server.state(), before);
        let _ = plain.redeem(&code).await.expect(200);
        near_misses_are_refused(
            &plain,
            &[
                "https://chatgpt.com/connector/oauth/abc",
                "https://chatgpt.com/connector_platform_oauth_redirect/",
                "https://chat.openai.com/connector_platform_oauth_redirect",
                "https://chatgpt.com.evil.example/connector_platform_oauth_redirect",
                "http://chatgpt.com/connector_platform_oauth_redirect",
            ],
        )
        .await;
    }

    // One connector with a document and an address of its own.
    let id = "https://chatgpt.com/oauth/tU1UVEq8rRTK/client.json";
    let redirect_uri = "https://chatgpt.com/connector/oauth/tU1UVEq8rRTK";
    let mut document = chatgpt();
    document["client_id"] = json!(id);
    document["redirect_uris"] = json!([redirect_uri]);
    let server = TestServer::new();
    server.fetch.publish(id, &document);
    let client = McpClient::by_document(&server, id, redirect_uri);
    connects(&client).await;
    near_misses_are_refused(&client, &["https://chatgpt.com/connector/oauth/another"]).await;

    let metadata = json!({
        "client_name": "ChatGPT",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    connects(&registered(&TestServer::new(), &metadata, redirect_uri).await).await;
}

#[tokio::test]
async fn codex_connects_by_document_and_by_registration() {
    let id = "https://chatgpt.com/oauth/codex/client.json";
    for redirect_uri in [
        "http://127.0.0.1:41239/callback",
        "http://localhost:41239/callback",
    ] {
        let client = published(id, redirect_uri);
        connects(&client).await;
        let near_misses = [
            "http://127.0.0.1:41239/auth/callback",
            "http://127.0.0.1:41239/",
        ];
        near_misses_are_refused(&client, &near_misses).await;
    }
    let redirect_uri = "http://127.0.0.1:37819/callback/aB3_x";
    let metadata = json!({
        "client_name": "Codex",
        "redirect_uris": [redirect_uri],
        "application_type": "native",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let client = registered(&TestServer::new(), &metadata, redirect_uri).await;
    // It writes a slash at the end of the resource, and names none at a refresh.
    let resource = format!("{}/", client.resource());
    let query = client.authorization_with(&[("resource", Some(&resource))]);
    let code = client.code_for(&query).await;
    let answer = client
        .redeem_with(&code, &[("resource", Some(&resource))])
        .await;
    let tokens = Tokens::of(&answer.expect(200));
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);
    near_misses_are_refused(&client, &["http://127.0.0.1:37819/callback/another"]).await;
}

/// RG-05, RG-06
#[tokio::test]
async fn vs_code_connects_by_document_and_by_registration() {
    let id = "https://vscode.dev/oauth/client-metadata.json";
    for redirect_uri in [
        "http://127.0.0.1:33418/",
        "http://127.0.0.1:51234/",
        "https://vscode.dev/redirect",
    ] {
        connects(&published(id, redirect_uri)).await;
    }
    let near_misses = [
        "http://localhost:33418/",
        "http://127.0.0.1:33418",
        "http://127.0.0.1:33418/callback",
        "https://127.0.0.1:33418/",
        "https://vscode.dev/redirect/",
        "https://evil.vscode.dev/redirect",
        "https://vscode.dev.evil.example/redirect",
        "vscode://redirect",
    ];
    near_misses_are_refused(&published(id, "http://127.0.0.1:33418/"), &near_misses).await;

    let metadata = json!({
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "grant_types": [
            "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"
        ],
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    });
    for redirect_uri in [
        "https://insiders.vscode.dev/redirect",
        "https://vscode.dev/redirect",
        "http://127.0.0.1:33418/",
        "http://127.0.0.1:60123/",
    ] {
        let client = registered(&TestServer::new(), &metadata, redirect_uri).await;
        connects(&client).await;
        near_misses_are_refused(&client, &near_misses).await;
    }
}

#[tokio::test]
async fn copilot_cli_connects_from_another_port_than_it_named() {
    let id = "https://github.com/copilot/cli/client-metadata.json";
    let client = published(id, "http://127.0.0.1:61876/");
    connects(&client).await;
    near_misses_are_refused(
        &client,
        &["http://localhost:61876/", "http://127.0.0.1:61876/x"],
    )
    .await;
    let metadata = json!({
        "client_name": "GitHub Copilot CLI",
        "redirect_uris": ["http://127.0.0.1:50069/callback"],
        "token_endpoint_auth_method": "none",
    });
    let other_port = "http://127.0.0.1:64611/callback";
    connects(&registered(&TestServer::new(), &metadata, other_port).await).await;
}

/// RG-06, C-14
#[tokio::test]
async fn cursor_connects_by_registration() {
    let uris = [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
    ];
    let metadata = json!({
        "client_name": "Cursor",
        "redirect_uris": uris,
        "application_type": "web",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    for redirect_uri in uris {
        let client = registered(&TestServer::new(), &metadata, redirect_uri).await;
        connects(&client).await;
        near_misses_are_refused(
            &client,
            &[
                "cursor://anysphere.cursor-mcp/oauth/callback/",
                "cursor://anysphere.cursor-retrieval/oauth/callback",
                "cursor:anysphere.cursor-mcp/oauth/callback",
                "Cursor://anysphere.cursor-mcp/oauth/callback",
                "cursor2://anysphere.cursor-mcp/oauth/callback",
                "https://cursor.com/agents/mcp/oauth/callback",
                "https://www.cursor.com/agents/mcp/oauth/callback?x=1",
                "http://127.0.0.1:8787/callback",
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn gemini_cli_connects_by_registration() {
    let metadata = json!({
        "client_name": "Gemini CLI MCP Client",
        "redirect_uris": ["http://localhost:7777/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let client = registered(
        &TestServer::new(),
        &metadata,
        "http://localhost:40001/oauth/callback",
    )
    .await;
    connects(&client).await;
    near_misses_are_refused(&client, &["http://localhost:7777/callback"]).await;
}

/// C-10
#[tokio::test]
async fn the_inspector_connects_from_a_page() {
    let redirect_uri = "http://localhost:6274/oauth/callback";
    let server = TestServer::new();
    let origin = "http://localhost:6274";
    for (method, path) in [
        (Method::GET, "/.well-known/oauth-protected-resource/mcp"),
        (Method::GET, "/.well-known/oauth-authorization-server"),
        (Method::OPTIONS, "/register"),
        (Method::OPTIONS, "/token"),
    ] {
        let request = request(method, path)
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .body(axum::body::Body::empty())
            .unwrap();
        let answer: Answer = server.send(request).await;
        assert!(answer.status.is_success(), "{answer:#?}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    let metadata = json!({
        "client_name": "MCP Inspector",
        "client_uri": "https://github.com/modelcontextprotocol/inspector",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": "",
    });
    let client = registered(&server, &metadata, redirect_uri).await;
    connects(&client).await;
    near_misses_are_refused(&client, &["http://localhost:6274/oauth/callback/debug"]).await;
}

/// TK-19
#[tokio::test]
async fn mcp_remote_connects_by_registration() {
    let metadata = json!({
        "client_name": "MCP CLI Proxy",
        "client_uri": "https://github.com/modelcontextprotocol/mcp-cli",
        "redirect_uris": ["http://localhost:3335/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "software_id": "2e6dc280-f3c3-4e01-99a7-8181dbd1d23d",
        "software_version": "0.15.1",
        "scope": "openid email profile",
    });
    let redirect_uri = "http://localhost:3335/oauth/callback";
    let client = registered(&TestServer::new(), &metadata, redirect_uri).await;
    let scope = "openid email profile";
    let code = client
        .code_for(&client.authorization_with(&[("scope", Some(scope))]))
        .await;
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let refreshed = client
        .token(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.refresh_token),
            ("scope", scope),
        ])
        .await;
    let _ = client
        .call(&Tokens::of(&refreshed.expect(200)))
        .await
        .expect(200);
    near_misses_are_refused(&client, &["http://localhost:3335/callback"]).await;
}

#[tokio::test]
async fn zed_connects_by_document() {
    let id = "https://zed.dev/oauth/client-metadata.json";
    let client = published(id, "http://127.0.0.1:53682/callback");
    connects(&client).await;
    let near_misses = ["http://localhost:53682/callback", "http://127.0.0.1:53682/"];
    near_misses_are_refused(&client, &near_misses).await;
}

#[tokio::test]
async fn opencode_connects_by_document_though_that_leaves_its_address_out() {
    let id = "https://opencode.ai/oauth/opencode/client.json";
    let redirect_uri = "http://127.0.0.1:19876/mcp/oauth/callback";
    let document = json!({
        "client_id": id,
        "client_name": "opencode",
        "client_uri": "https://opencode.ai",
        "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "token_endpoint_auth_methods_supported": ["none"],
    });
    let reached = published(id, redirect_uri);
    reached.server.fetch.publish(id, &document);
    let near_misses = [
        "http://localhost:19876/mcp/oauth/callback",
        "http://127.0.0.1:19876/mcp/oauth/callback/",
        "https://opencode.ai/mcp/oauth/callback",
    ];
    for client in [reached, published(id, redirect_uri)] {
        connects(&client).await;
        near_misses_are_refused(&client, &near_misses).await;
    }
    // Nobody else's document is completed so.
    let other = "https://client.example/client.json";
    let client = published(other, redirect_uri);
    let mut document = document;
    document["client_id"] = json!(other);
    client.server.fetch.publish(other, &document);
    near_misses_are_refused(&client, &[redirect_uri]).await;
}

/// RG-04
#[tokio::test]
async fn hosted_clients_connect_by_registration_with_a_secret() {
    for (name, redirect_uri, near_miss) in [
        (
            "Perplexity",
            "https://www.perplexity.ai/rest/connections/oauth_callback",
            "https://perplexity.ai/rest/connections/oauth_callback",
        ),
        (
            "Microsoft Copilot Studio",
            "https://global.consent.azure-apim.net/redirect/cr938-5fzephyr-20mcp-5f43bcb8573bc3e84",
            "https://global.consent.azure-apim.net/redirect/cr938-5fzephyr",
        ),
        (
            "Microsoft 365",
            "https://teams.microsoft.com/api/platform/v1.0/oAuthRedirect",
            "https://teams.microsoft.com/api/platform/v1.0/oauthredirect",
        ),
        (
            "Antigravity",
            "https://antigravity.google/oauth-callback",
            "https://antigravity.google.evil.example/oauth-callback",
        ),
    ] {
        let metadata = json!({ "client_name": name, "redirect_uris": [redirect_uri] });
        let client = registered(&TestServer::new(), &metadata, redirect_uri).await;
        assert!(client.client_secret.is_some());
        connects(&client).await;
        near_misses_are_refused(&client, &[near_miss]).await;
    }
}

/// C-14
#[tokio::test]
async fn apps_connect_by_the_schemes_that_they_are_known_for() {
    for scheme in KNOWN_CLIENTS.iter().flat_map(|client| client.app_schemes) {
        let redirect_uri = format!("{scheme}://gateway/oauth/callback");
        let metadata = json!({
            "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none",
        });
        let client = registered(&TestServer::new(), &metadata, &redirect_uri).await;
        connects(&client).await;
        near_misses_are_refused(&client, &[&format!("{scheme}x://gateway/oauth/callback")]).await;
    }
}

/// Case 03: redirect URIs that public reports have in full: of the clients themselves, or of
/// extensions in them. Where only the scheme is known, the test above is the one.
#[tokio::test]
async fn apps_connect_with_the_links_of_public_reports() {
    for (name, redirect_uri) in [
        (
            "Raycast MCP: Dust (dev)",
            "raycast://oauth?package_name=mcp_server_dust_(dev)",
        ),
        ("Raycast", "raycast://oauth?package_name=Extension"),
        ("Gemini Helper", "obsidian://gemini-helper-oauth"),
        ("Kiro", "kiro://kiro.oauth/callback"),
        ("Warp", "warp://mcp/oauth2callback"),
        ("Qoder", "qoder://MermaidChart.vscode-mermaid-chart"),
        ("VSCodium", "vscodium://sourcegraph.cody-ai"),
    ] {
        for uris in [
            json!([redirect_uri]),
            json!(["http://127.0.0.1:9/cb", redirect_uri]),
        ] {
            let metadata = json!({
                "client_name": name,
                "redirect_uris": uris,
                "grant_types": [
                    "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"
                ],
                "token_endpoint_auth_method": "none",
            });
            let client = registered(&TestServer::new(), &metadata, redirect_uri).await;
            let (_, page) = client.opens(&client.authorization_with(&[])).await;
            assert!(
                page.expect(200)
                    .text()
                    .contains("Any app can claim such a link")
            );
            connects(&client).await;
            let other = format!("{redirect_uri}x");
            near_misses_are_refused(&client, &[&other]).await;
        }
    }
}

/// AZ-26, BCP-02
// N-AZ-56
#[tokio::test]
async fn an_error_goes_to_a_stranger_only_when_a_person_wants_it() {
    let wrong = [("resource", Some("https://other.example/mcp"))];
    let strangers = [
        "https://evil.example/cb?a=1",
        "com.evil.app://callback",
        "https://claude.ai.evil.example/api/mcp/auth_callback",
        "https://chatgpt.com/connector/oauth/a/b",
        "cursor://other/callback",
    ];
    for redirect_uri in strangers {
        let metadata = json!({ "client_name": "Claude", "redirect_uris": [redirect_uri] });
        let by_registration = registered(&TestServer::new(), &metadata, redirect_uri).await;
        let id = "https://client.example/client.json";
        let by_document = published(id, redirect_uri);
        by_document.server.fetch.publish(
            id,
            &json!({ "client_id": id, "client_name": "Claude", "redirect_uris": [redirect_uri] }),
        );
        for client in [by_registration, by_document] {
            let before = client.server.state();
            let (_, page) = client.opens(&client.authorization_with(&wrong)).await;
            let page = page.expect(400);
            assert!(!page.headers.contains_key(header::LOCATION), "{page:#?}");
            assert!(!page.headers.contains_key("refresh"), "{page:#?}");
            assert!(!page.text().contains("http-equiv"), "{page:#?}");
            let document = scraper::Html::parse_document(&page.text());
            let link = scraper::Selector::parse("a").unwrap();
            let links: Vec<_> = document.select(&link).collect();
            let [link] = links[..] else {
                panic!("{page:#?}")
            };
            let href = url::Url::parse(link.value().attr("href").unwrap()).unwrap();
            let parameters: Vec<_> = href.query_pairs().collect();
            assert!(href.as_str().starts_with(redirect_uri));
            assert!(parameters.contains(&("error".into(), "invalid_target".into())));
            assert!(parameters.iter().any(|(name, _)| name == "state"));
            let place = match redirect_uri.split_once("://").unwrap() {
                ("https", rest) => rest.split('/').next().unwrap().to_owned(),
                (scheme, _) => format!("{scheme}://"),
            };
            assert_eq!(link.text().collect::<String>(), format!("Go to {place}"));
            assert_eq!(client.server.state(), before);
            // After a decision of a person it goes by itself.
            let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
            let denied = browser.deny(&client.server, &page.expect(200)).await;
            assert_eq!(denied.leads_back().parameter("error"), "access_denied");
        }
    }
}

/// AZ-04
#[tokio::test]
async fn an_error_goes_by_itself_to_this_computer_and_to_known_clients() {
    let wrong = [("response_type", Some("token"))];
    let known = KNOWN_CLIENTS.iter().flat_map(|client| client.redirect_uris);
    let known = known.map(|uri| uri.replacen(":{}", ":51234", 1).replace("{}", "x"));
    let loopback = [
        "http://localhost:9/x",
        "http://127.0.0.1/",
        "http://[::1]:9/y",
    ];
    for redirect_uri in known.chain(loopback.map(str::to_owned)) {
        let metadata = json!({ "redirect_uris": [redirect_uri] });
        let client = registered(&TestServer::new(), &metadata, &redirect_uri).await;
        let (_, answer) = client.opens(&client.authorization_with(&wrong)).await;
        let redirect = answer.expect(303).redirect();
        assert_eq!(redirect.to, redirect_uri);
        assert_eq!(redirect.parameter("error"), "unsupported_response_type");
    }
}

/// What a client calls itself opens nothing.
#[tokio::test]
async fn a_name_is_no_recommendation() {
    for name in KNOWN_CLIENTS.iter().map(|client| client.name) {
        let server = TestServer::new();
        let body = |uri| json!({ "client_name": name, "redirect_uris": [uri] });
        let answer = server.post_json("/register", &body("evil://x/cb")).await;
        let _ = answer.refused(400, "invalid_redirect_uri");
        let answer = server
            .post_json("/register", &body("http://evil.example/cb"))
            .await;
        let _ = answer.refused(400, "invalid_redirect_uri");
    }
}

/// Every `.rs` file below `folder`, with its text.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
    found
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_peculiarity_has_a_public_report_and_a_test() {
    let tests: String = ["src", "tests"]
        .iter()
        .flat_map(|folder| sources(&package().join(folder)))
        .map(|(_, text)| text)
        .collect();
    let has_both = |peculiarity: &Peculiarity| {
        let test = format!("fn {}(", peculiarity.test);
        assert!(tests.contains(&test), "no test is called {peculiarity:?}");
        let report = peculiarity.report;
        assert!(report.starts_with("https://"), "{peculiarity:?}");
    };
    WITHOUT_PKCE.iter().for_each(has_both);
    for client in KNOWN_CLIENTS {
        assert!(!client.peculiarities.is_empty(), "{}", client.name);
        client.peculiarities.iter().for_each(has_both);
        let source = client.document.as_ref().map(|document| document.source);
        assert!(source.is_none_or(|source| source.starts_with("https://")));
    }
}

/// The rules know standards, and the table knows clients.
#[test]
fn no_client_has_its_name_in_the_code_outside_the_table() {
    let names = [
        "anthropic",
        "antigravity",
        "chatgpt",
        "claude",
        "codex",
        "copilot",
        "cursor",
        "gemini",
        "inspector",
        "hermes",
        "jetbrains",
        "kiro",
        "lmstudio",
        "mcp-remote",
        "obsidian",
        "qoder",
        "raycast",
        "openai",
        "opencode",
        "perplexity",
        "vscode",
        "vs code",
        "windsurf",
        "zed.dev",
    ];
    for (path, text) in sources(&package().join("src")) {
        if path.ends_with("oauth/known_clients.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines() {
            let line = line.trim_start();
            let lower = line.to_ascii_lowercase();
            let found = names.iter().find(|name| lower.contains(*name));
            assert!(line.starts_with("//") || found.is_none(), "{path}: {line}");
        }
    }
}

const PAGE: &str = "../../docs/clients.md";

#[test]
fn the_page_of_known_clients_is_fresh() {
    let path = package().join(PAGE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/clients.md is stale: run UPDATE_DOCS=1 cargo test -p protocol --test known_clients"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# Clients\n\n\
         Real clients, all connected: each of these gets in as it comes, and for each what is only\n\
         nearly its address is refused. The shapes of their requests are those of public reports; the\n\
         tests send them. A client that is not here gets in as well, if it keeps to the standards: by\n\
         a metadata document, by registering, or set up by you.\n\n\
         This page is made from `crates/protocol/src/oauth/known_clients.rs`.\n",
    );
    for client in KNOWN_CLIENTS {
        writeln!(page, "\n## {}\n", client.name).unwrap();
        for uri in client.redirect_uris {
            writeln!(page, "- returns to `{}`", uri.replace("{}", "…")).unwrap();
        }
        for scheme in client.app_schemes {
            writeln!(page, "- may return to its app, `{scheme}://`").unwrap();
        }
        match &client.document {
            Some(document) => known_by(&mut page, document),
            None => writeln!(page, "- registers, or is set up by you").unwrap(),
        }
        page.push_str("\n| It | Here | Seen in | Test |\n| --- | --- | --- | --- |\n");
        for row in client.peculiarities {
            line(&mut page, row);
        }
    }
    page.push_str(
        "\n## Approved, and then nothing\n\n\
         The browser says that all is done, the log ends with \"a client was approved\", and no request to\n\
         `/token` follows. Some versions above lose the parameter `iss` of the answer (RFC 9207) and then\n\
         miss it, because the metadata announces it, as MCP demands of a server that sends it. Update the\n\
         client. Where that cannot be, stop the announcement; `iss` is still sent, and clients that check\n\
         it go on doing so:\n\n\
         ```toml\n[clients]\nannounce_iss = false\n```\n\n\
         Then remove the connection in the client and add it anew, since many keep the metadata. There is\n\
         no answer by client here: who asks for the metadata does not reliably say what it is.\n\n\
         ## Clients without PKCE\n\n\
         A client that sends no `code_challenge` with `code_challenge_method=S256` is refused, and no\n\
         setting lets it in: MCP demands PKCE of every client, and without it a code that leaks is as good\n\
         as a token. The error that it gets, the page and the log say so.\n\n\
         | Client | What helps | Seen in | Test |\n| --- | --- | --- | --- |\n",
    );
    for row in WITHOUT_PKCE {
        line(&mut page, row);
    }
    page
}

fn line(page: &mut String, row: &Peculiarity) {
    let shown = row.report.trim_start_matches("https://github.com/");
    writeln!(
        page,
        "| {} | {} | [{shown}]({}) | {} |",
        row.does,
        row.answer,
        row.report,
        row.test.replace('_', " "),
    )
    .unwrap();
}

fn known_by(page: &mut String, document: &Document) {
    let Document {
        client_id, source, ..
    } = document;
    writeln!(
        page,
        "- is known by <{client_id}>, of which there is a copy here ([source]({source})); else it registers"
    )
    .unwrap();
}
