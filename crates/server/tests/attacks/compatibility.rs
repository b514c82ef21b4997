//! What real clients do, which must go on working (C).

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Version, header};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::TaskTracker;

use super::{
    case::{Case, Missing, case},
    internet::Internet,
    refusal::Refusal::OAuth,
    signer::Signer,
    support::{
        PASSPHRASE, UPSTREAM_KEY,
        client::{Client, Parameters, Tokens},
        upstream::{USUAL, usual},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "C-01",
            "authorization without `scope` and `resource`",
            sparse,
        ),
        case(
            "C-02",
            "loopback redirects on any port, `localhost` too",
            any_port,
        ),
        case(
            "C-03",
            "two registrations within two seconds",
            two_registrations,
        ),
        case("C-04", "approval sent twice", approved_twice),
        case(
            "C-05",
            "redeeming with and without `redirect_uri`",
            redirect_uri_or_not,
        ),
        case("C-06", "the callbacks of claude.ai and claude.com", claude),
        case(
            "C-07",
            "refreshing at once on two sockets, and again 90 s later",
            refreshed_twice,
        ),
        case(
            "C-08",
            "the old access token after a refresh",
            old_access_token,
        ),
        case(
            "C-09",
            "the resource with and without a slash at its end",
            slash,
        ),
        case(
            "C-10",
            "every form of well-known address, in any order",
            probing,
        ),
        case("C-11", "every revision of the protocol", revisions),
        case(
            "C-12",
            "a document as ChatGPT has it, which prefers a key",
            chatgpt,
        ),
        case("C-13", "clients that never refresh", long_lived),
        case("C-14", "redirects to apps", apps),
        case(
            "C-15",
            "connections that stay, `100-continue`, and HTTP/2",
            connections,
        ),
    ]
}

async fn sparse(world: Arc<World>) {
    let client = world.client().await;
    let sparse = client.authorization().without("resource").without("scope");
    world.lets_in(&client, &sparse).await;
    world.lets_in(&client, &sparse.without("state")).await;
}

async fn any_port(world: Arc<World>) {
    for registered in [
        "http://127.0.0.1/cb",
        "http://localhost/cb",
        "http://[::1]/cb",
        "http://localhost:1455/cb",
    ] {
        let client = world.client_at(&[registered]).await;
        let (origin, _) = registered.rsplit_once('/').unwrap();
        let origin = origin.trim_end_matches(":1455");
        for port in ["", ":1", ":33418", ":65535"] {
            let client = Client {
                redirect_uri: format!("{origin}{port}/cb"),
                ..client.clone()
            };
            world.lets_in(&client, &client.authorization()).await;
        }
    }
}

async fn two_registrations(world: Arc<World>) {
    let http = world.elsewhere();
    let (one, other) = tokio::join!(Client::register(&http), Client::register(&http));
    assert_ne!(one.id, other.id);
    for client in [&one, &other] {
        world.lets_in(client, &client.authorization()).await;
    }
}

async fn approved_twice(world: Arc<World>) {
    let client = world.client().await;
    let page = client.opens_consent().await;
    let first = client.approve(&page, PASSPHRASE).await.expect(303);
    let again = client.approve(&page, PASSPHRASE).await.expect(303);
    assert_eq!(first.header("location"), again.header("location"));
    let tokens = client.redeem(&Client::code(&again)).await.expect(200);
    world.serves(&client, &Tokens::of(&tokens)).await;
}

async fn redirect_uri_or_not(world: Arc<World>) {
    let client = world.client().await;
    for with_uri in [true, false] {
        let code = client.approved(&client.authorization()).await;
        let mut fields = client.redemption(&code);
        if !with_uri {
            fields = fields.without("redirect_uri");
        }
        let answer = client.http.send(client.http.form("/token", &fields)).await;
        world
            .serves(&client, &Tokens::of(&answer.expect(200)))
            .await;
    }
}

/// By registration; by the document at claude.ai it is shown in
/// `crates/protocol/tests/client_documents.rs`, since nothing here may reach that site.
async fn claude(world: Arc<World>) {
    let callbacks = [
        "https://claude.ai/api/mcp/auth_callback",
        "https://claude.com/api/mcp/auth_callback",
    ];
    let metadata = json!({
        "client_name": "Claude",
        "redirect_uris": callbacks,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": "claudeai",
    });
    let client = Client::register_as(&world.elsewhere(), &metadata).await;
    for callback in callbacks {
        let client = Client {
            redirect_uri: callback.to_owned(),
            ..client.clone()
        };
        let tokens = world
            .lets_in(&client, &client.authorization().and("scope", "claudeai"))
            .await;
        let _ = client.refresh(&tokens).await.expect(200);
    }
}

async fn refreshed_twice(world: Arc<World>) {
    let client = world.client().await;
    let mut tokens = client.sign_in().await;
    for _ in 0..5 {
        let (one, other) = tokio::join!(client.refresh(&tokens), client.refresh(&tokens));
        let (one, other) = (Tokens::of(&one.expect(200)), Tokens::of(&other.expect(200)));
        assert_eq!(one.refresh_token, other.refresh_token);
        world.serves(&client, &one).await;
        world.serves(&client, &other).await;
        world.age(&client, 90).await;
        let late = Tokens::of(&client.refresh(&tokens).await.expect(200));
        assert_eq!(late.refresh_token, one.refresh_token);
        world.serves(&client, &late).await;
        tokens = late;
    }
}

async fn old_access_token(world: Arc<World>) {
    let client = world.client().await;
    let first = client.sign_in().await;
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let third = Tokens::of(&client.refresh(&second).await.expect(200));
    for tokens in [&first, &second, &third, &first] {
        world.serves(&client, tokens).await;
    }
}

async fn slash(world: Arc<World>) {
    let client = world.client().await;
    for (asked, redeemed) in [("/mcp", "/mcp/"), ("/mcp/", "/mcp")] {
        let at = |path: &str| format!("{}{path}", world.issuer);
        let document = format!("/.well-known/oauth-protected-resource{asked}");
        let described = world.http.get(&document).await.expect(200).json();
        assert_eq!(described["resource"], at(asked));
        let authorization = client.authorization().with("resource", &at(asked));
        let code = client.approved(&authorization).await;
        let fields = client.redemption(&code).and("resource", &at(redeemed));
        let answer = client.http.send(client.http.form("/token", &fields)).await;
        let tokens = Tokens::of(&answer.expect(200));
        world.serves(&client, &tokens).await;
        let refresh = client.refreshment(&tokens.refresh_token);
        let refresh = refresh.and("resource", &at(asked));
        let answer = client.http.send(client.http.form("/token", &refresh)).await;
        world
            .serves(&client, &Tokens::of(&answer.expect(200)))
            .await;
    }
}

async fn probing(world: Arc<World>) {
    const FOUND: [&str; 6] = [
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/oauth-protected-resource/mcp/",
        "/mcp",
    ];
    const ABSENT: [&str; 6] = [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/mcp",
        "/mcp/.well-known/openid-configuration",
        "/mcp/.well-known/oauth-authorization-server",
        "/mcp/.well-known/oauth-protected-resource",
        "/favicon.ico",
    ];
    for turn in 0..FOUND.len() {
        let mut found = FOUND;
        found.rotate_left(turn);
        for (path, absent) in found.into_iter().zip(ABSENT) {
            let answer = world.unchanged(world.http.get(absent)).await;
            assert!(matches!(answer.status.as_u16(), 401 | 404), "{answer:#?}");
            assert_eq!(answer.header("content-type"), "application/json");
            let answer = world.unchanged(world.http.get(path)).await;
            if path == "/mcp" {
                let challenge = answer.expect(401).header("www-authenticate").to_owned();
                assert!(challenge.contains(&format!("{}{}", world.issuer, FOUND[0])));
            } else {
                let document = answer.expect(200).json();
                let names_issuer = document["issuer"] == *world.issuer
                    || document["authorization_servers"] == json!([world.issuer]);
                assert!(names_issuer, "{document}");
            }
        }
    }
    let client = world.client().await;
    world.lets_in(&client, &client.authorization()).await;
}

async fn revisions(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let key = format!("Bearer {UPSTREAM_KEY}");
    for revision in ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"] {
        let with_sessions = revision < "2026";
        let method = if with_sessions {
            "initialize"
        } else {
            "tools/list"
        };
        let message = json!({
            "jsonrpc": "2.0", "id": 1, "method": method,
            "params": { "protocolVersion": revision, "capabilities": {},
                        "clientInfo": { "name": "test", "version": "1" },
                        "_meta": { "io.modelcontextprotocol/protocolVersion": revision } },
        })
        .to_string();
        if with_sessions {
            world.upstream.answers(async {
                let mut answer = usual();
                let headers = answer.headers_mut();
                headers.insert("mcp-session-id", "upstreams-own".parse().unwrap());
                answer
            });
        }
        let mut call = client.call_request(&tokens);
        *call.body_mut() = Body::from(message.clone());
        if !with_sessions {
            let headers = call.headers_mut();
            headers.insert("mcp-protocol-version", revision.parse().unwrap());
            headers.insert("mcp-method", method.parse().unwrap());
        }
        let answer = client.http.send(call).await.expect(200);
        assert_eq!(answer.text(), USUAL);
        let arrived = world.upstream.last();
        assert_eq!(arrived.body(), message.as_bytes());
        assert_eq!(arrived.headers()["authorization"], key);
        if !with_sessions {
            assert_eq!(arrived.headers()["mcp-protocol-version"], revision);
            assert_eq!(arrived.headers()["mcp-method"], method);
            assert!(!answer.headers.contains_key("mcp-session-id"));
            continue;
        }
        let mut next = client.call_request(&tokens);
        let headers = next.headers_mut();
        headers.insert("mcp-session-id", answer.headers["mcp-session-id"].clone());
        // The first of these revisions had no such header.
        if revision != "2025-03-26" {
            headers.insert("mcp-protocol-version", revision.parse().unwrap());
        }
        let _ = client.http.send(next).await.expect(200);
        let arrived = world.upstream.last();
        assert_eq!(arrived.headers()["mcp-session-id"], "upstreams-own");
        let said = arrived.headers().get("mcp-protocol-version");
        assert_eq!(said.is_some(), revision != "2025-03-26");
    }
    world.serves(&client, &tokens).await;
}

/// At another address than ChatGPT's, so that it can be published here.
async fn chatgpt(world: Arc<World>) -> Result<(), Missing> {
    let internet = Internet::here().await?;
    let (site, keys, signer) = (internet.site(), internet.site(), Signer::new());
    keys.publishes(&signer.jwks());
    let redirect_uri = "https://chatgpt.com/connector_platform_oauth_redirect";
    let mut document = site.document();
    for (name, value) in [
        ("client_name", json!("ChatGPT")),
        ("redirect_uris", json!([redirect_uri])),
        ("token_endpoint_auth_method", json!("private_key_jwt")),
        (
            "token_endpoint_auth_methods_supported",
            json!(["none", "private_key_jwt"]),
        ),
        ("jwks_uri", json!(keys.id_at("/jwks.json"))),
        (
            "grant_types",
            json!(["authorization_code", "refresh_token"]),
        ),
        ("response_types", json!(["code"])),
    ] {
        document[name] = value;
    }
    site.publishes(&document);
    let client = Client {
        http: world.elsewhere(),
        id: site.id(),
        secret: None,
        redirect_uri: redirect_uri.to_owned(),
    };
    let send = async |path: &str, fields: &Parameters| {
        let fields = signer.sign_for(&client, &world.issuer, fields);
        client.http.send(client.http.form(path, &fields)).await
    };
    let metadata = "/.well-known/oauth-authorization-server";
    let offered = world.http.get(metadata).await.expect(200).json();
    assert_eq!(offered["client_id_metadata_document_supported"], true);
    let methods = offered["token_endpoint_auth_methods_supported"].as_array();
    assert!(methods.unwrap().contains(&json!("private_key_jwt")));

    // It signs wherever it may, and does not fall back.
    let code = client.approved(&client.authorization()).await;
    let tokens = send("/token", &client.redemption(&code)).await.expect(200);
    let tokens = Tokens::of(&tokens);
    world.serves(&client, &tokens).await;
    let refresh = client.refreshment(&tokens.refresh_token);
    let tokens = Tokens::of(&send("/token", &refresh).await.expect(200));
    world.serves(&client, &tokens).await;
    let revocation = client.revocation(&tokens.refresh_token);
    let _ = send("/revoke", &revocation).await.expect(200);
    let _ = client.call(&tokens).await.expect(401);
    assert_eq!(site.requests().len() + keys.requests().len(), 2);

    // What it signs is checked; that it signs is not demanded.
    let code = client.approved(&client.authorization()).await;
    let redemption = client.redemption(&code);
    let another = Signer::new().sign_for(&client, &world.issuer, &redemption);
    let request = client.http.form("/token", &another);
    let refused = client.http.send(request).await;
    OAuth(401, "invalid_client").check(&refused, &world.issuer);
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    world.serves(&client, &tokens).await;
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    world.serves(&client, &tokens).await;
    Ok(())
}

async fn long_lived(world: Arc<World>) {
    let world = world.another("tokens.access_lifetime = \"24h\"").await;
    let client = world.client().await;
    let code = client.approved(&client.authorization()).await;
    let issued = client.redeem(&code).await.expect(200);
    assert_eq!(issued.json()["expires_in"], 24 * 60 * 60);
    let tokens = Tokens::of(&issued);
    world.age(&client, 23 * 60 * 60).await;
    world.serves(&client, &tokens).await;
}

async fn apps(world: Arc<World>) {
    for uri in [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "vscode://vscode.github-authentication/did-authenticate",
        "vscode-insiders://ms-vscode.mcp/callback",
        "com.example.app://oauth",
        "com.example.app:/oauth2redirect",
        "raycast://oauth?package_name=mcp_server_dust_(dev)",
        "obsidian://mcp/callback",
        "zed://oauth/callback",
        "warp://mcp/oauth2callback",
    ] {
        let client = world.client_at(&[uri]).await;
        let tokens = world.lets_in(&client, &client.authorization()).await;
        let _ = client.refresh(&tokens).await.expect(200);
    }
}

async fn connections(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let (host, token) = (world.proxy.address, &tokens.access_token);
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n"
    );
    let mut wire = Wire::open(&world.http).await;
    for _ in 0..5 {
        wire.send(format!("{head}\r\n{{}}")).await;
        assert_eq!(wire.answer().await.unwrap().expect(200).text(), USUAL);
        // A refusal does not end it either.
        wire.send(format!("GET /mcp HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        let _ = wire.answer().await.unwrap().expect(401);
    }

    // The body is sent when it is asked for.
    let mut stream = world.http.connect().await.unwrap();
    let head = format!("{head}expect: 100-continue\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(USUAL), "{answer}");

    // And not when there is no use for it.
    let request = world.http.request(Method::POST, "/mcp");
    let request = request.header(header::EXPECT, "100-continue");
    let refused = world.http.send(request.body(Body::from("{}")).unwrap());
    let _ = world.unchanged(refused).await.expect(401);

    // Several calls at the same time on one HTTP/2 connection.
    let io = TokioIo::new(world.http.connect().await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    TaskTracker::new().spawn(connection);
    let call = async |mut sender: http2::SendRequest<Body>| {
        let (mut parts, body) = client.call_request(&tokens).into_parts();
        let authority = parts.headers.remove(header::HOST).unwrap();
        let authority = authority.to_str().unwrap();
        parts.uri = format!("http://{authority}/mcp").parse().unwrap();
        parts.version = Version::HTTP_2;
        let request = http::Request::from_parts(parts, body);
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, Version::HTTP_2)
        );
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            USUAL
        );
    };
    tokio::join!(call(sender.clone()), call(sender.clone()), call(sender));
}
