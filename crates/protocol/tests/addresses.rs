//! Which address means which upstream, under which name, and what becomes of that when upstreams are
//! added, renamed or moved.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, header};
use protocol::{
    oauth::identifiers::{Alias, Issuer, Resource},
    policy::Policy,
};
use serde_json::Value;
use support::{
    Answer, ISSUER, TestServer,
    client::{McpClient, Tokens},
    policy, request,
};

/// What a client asks for that is given the address without its path.
const ORIGINS: [&str; 2] = ["https://gw.example", "https://gw.example/"];

/// One upstream as the configuration has it when nothing is said of its path.
fn one() -> Policy {
    policy(&[("one", "/mcp/one")])
}

/// A second one beside it. `first` is what is remembered of the time when there was one.
fn one_and_two(first: Option<&str>) -> Policy {
    let mut policy = policy(&[("one", "/mcp/one"), ("two", "/mcp/two")]);
    policy.once_the_only_one = first.map(str::to_owned);
    policy
}

fn with_aliases(mut policy: Policy, aliases: &[&str]) -> Policy {
    let parsed = aliases.iter().map(|alias| Alias::parse(alias).unwrap());
    policy.aliases = parsed.collect();
    policy
}

/// The same for a proxy that is known by `issuer`.
fn at_issuer(issuer: &str, upstreams: &[(&str, &str)]) -> Policy {
    let mut policy = policy(upstreams);
    policy.issuer = Issuer::parse(issuer).unwrap();
    for upstream in &mut policy.upstreams {
        let upstream = Arc::get_mut(upstream).unwrap();
        upstream.resource = Resource::at(&policy.issuer, &upstream.path);
    }
    policy
}

/// A request to `url`, as a client sends it that knows the proxy by that name.
fn to(method: Method, url: &str) -> http::request::Builder {
    let (_, rest) = url.split_once("://").unwrap();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
}

async fn sends(client: &McpClient, request: http::request::Builder) -> Answer {
    let request = request.header(header::ACCEPT, "application/json, text/event-stream");
    client
        .server
        .send(request.body(Body::empty()).unwrap())
        .await
}

/// A call at `url` with a token.
async fn calls(client: &McpClient, tokens: &Tokens, url: &str) -> Answer {
    let token = format!("Bearer {}", tokens.access_token);
    sends(
        client,
        to(Method::POST, url).header(header::AUTHORIZATION, token),
    )
    .await
}

/// Consent and redemption, both for the resource of that spelling.
async fn signs_in(client: &McpClient, resource: &str) -> Tokens {
    let resource = ("resource", Some(resource));
    let code = client
        .code_for(&client.authorization_with(&[resource]))
        .await;
    Tokens::of(&client.redeem_with(&code, &[resource]).await.expect(200))
}

/// A refresh for the resource of that spelling.
async fn refreshes(client: &McpClient, tokens: &Tokens, resource: &str) -> Answer {
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &tokens.refresh_token),
        ("resource", resource),
    ];
    client.token(&fields).await
}

/// What a strict client does with an address: it calls, follows the challenge, and insists that the
/// document is about this very address. Gives the document.
async fn discovers(client: &McpClient, method: Method, url: &str) -> Value {
    let answer = sends(client, to(method, url)).await.expect(401);
    let challenge = answer.header("www-authenticate");
    let metadata = challenge.split('"').nth(1).unwrap();
    let document = sends(client, to(Method::GET, metadata)).await.expect(200);
    let document = document.json();
    assert_eq!(document["resource"], url);
    document
}

/// The `resource` that the grants in the store have.
fn granted(server: &TestServer) -> Vec<String> {
    let records = server.store.memory.dump().into_iter();
    records
        .filter(|(key, _)| key.starts_with("grant/"))
        .map(|(_, grant)| {
            let grant: Value = serde_json::from_slice(&grant).unwrap();
            grant["resource"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Case 05: with one server the origin means that server, at every endpoint and in every spelling, and
/// the token is for its resource.
#[tokio::test]
async fn with_one_upstream_the_origin_means_it_everywhere() {
    let spellings = [
        ORIGINS[0],
        ORIGINS[1],
        "https://gw.example/mcp",
        "https://gw.example/mcp/",
        "https://gw.example/mcp/one",
        "https://GW.example:443?utm=1",
    ];
    for asked in spellings {
        let server = TestServer::with(one());
        let client = server.mcp_client().await;
        let tokens = signs_in(&client, asked).await;
        assert_eq!(granted(&server), ["https://gw.example/mcp/one"]);
        for url in [
            ISSUER,
            "https://gw.example/mcp",
            "https://gw.example/mcp/one",
        ] {
            let _ = calls(&client, &tokens, url).await.expect(200);
        }
        let mut tokens = tokens;
        for other in spellings {
            let answer = refreshes(&client, &tokens, other).await.expect(200);
            tokens = Tokens::of(&answer);
        }
        let _ = calls(&client, &tokens, ISSUER).await.expect(200);
    }
}

/// Case 05, the other half: of several the origin means none. The error lists what there is, and the log
/// has what came.
#[tokio::test]
async fn of_several_upstreams_the_origin_means_none_and_the_error_lists_them() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let listed = "https://gw.example/mcp/a or https://gw.example/mcp/b";
    for unknown in [
        ORIGINS[0],
        ORIGINS[1],
        "https://gw.example/mcp",
        "https://gw.example/mcp/c",
        "http://proxy:8080/mcp/a",
    ] {
        let query = client.authorization_with(&[("resource", Some(unknown))]);
        let (_, answer) = client.opens(&query).await;
        let redirect = answer.expect(303).redirect();
        assert_eq!(redirect.parameter("error"), "invalid_target");
        assert!(redirect.parameter("error_description").ends_with(listed));
        let told = server.journal.all().pop().unwrap();
        assert!(
            told.contains(&format!("presented: Some({unknown:?})")),
            "{told}"
        );

        let answer = client
            .redeem_with(&code, &[("resource", Some(unknown))])
            .await;
        let refused = answer.refused(400, "invalid_target").json();
        let description = refused["error_description"].as_str().unwrap();
        assert!(description.ends_with(listed), "{description}");
        let told = server.journal.all().pop().unwrap();
        assert!(
            told.contains(&format!("presented: Some({unknown:?})")),
            "{told}"
        );
    }
    let _ = client.redeem(&code).await.expect(200);
}

/// What came is in the log without what may be a key, and shortened.
#[tokio::test]
async fn a_refused_resource_is_told_without_what_may_be_a_key() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    for (came, told) in [
        ("https://u:s3cr3t@evil.example/x", "https://evil.example/x"),
        ("https://gw.example/x?key=s3cr3t", "https://gw.example/x?…"),
        (
            "https://gw.example/s3cr3tKEY0123456789",
            "https://gw.example/…",
        ),
    ] {
        let query = client.authorization_with(&[("resource", Some(came))]);
        let (_, answer) = client.opens(&query).await;
        let _ = answer.expect(303);
        let text = server.journal.all().pop().unwrap();
        assert!(
            text.contains(&format!("presented: Some({told:?})")),
            "{text}"
        );
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}

/// Case 06: the address without its path reaches the only server: challenge, metadata, sign-in, call.
#[tokio::test]
async fn the_origin_is_an_address_of_the_only_upstream() {
    let server = TestServer::with(one());
    let client = server.mcp_client().await;
    for method in [Method::POST, Method::GET, Method::DELETE, Method::HEAD] {
        discovers(&client, method, ISSUER).await;
    }
    let document = discovers(&client, Method::POST, ISSUER).await;
    assert_eq!(document["authorization_servers"][0], ISSUER);

    let tokens = signs_in(&client, document["resource"].as_str().unwrap()).await;

    let _ = calls(&client, &tokens, ISSUER).await.expect(200);
    let sent = server.upstream.last();
    assert_eq!(sent.uri(), "https://one.upstream.example/mcp");
    let _ = calls(&client, &tokens, "https://gw.example/?utm=1")
        .await
        .expect(200);
    assert_eq!(server.upstream.last().uri().query(), Some("utm=1"));
}

/// Case 06: a page for people stays where it was, and only a browser that wants one gets it.
#[tokio::test]
async fn a_browser_gets_a_page_where_clients_get_a_challenge() {
    let server = TestServer::with(one());
    for (method, accept, status) in [
        (Method::GET, "text/html,*/*;q=0.8", 200),
        (Method::HEAD, "text/html", 200),
        (Method::GET, "text/html, text/event-stream", 401),
        (Method::GET, "text/event-stream", 401),
        (Method::GET, "*/*", 401),
        (Method::POST, "text/html", 401),
    ] {
        let request = request(method, "/").header(header::ACCEPT, accept);
        let answer = server.send(request.body(Body::empty()).unwrap()).await;
        let answer = answer.expect(status);
        let is_challenged = answer.headers.contains_key(header::WWW_AUTHENTICATE);
        assert_eq!(is_challenged, status == 401, "{accept}");
    }
}

/// Every address of the only server is described by metadata of its own, which is about that address.
#[tokio::test]
async fn each_address_is_described_as_the_client_typed_it() {
    let server = TestServer::with(one());
    let client = server.mcp_client().await;
    for url in [
        ISSUER,
        "https://gw.example/mcp",
        "https://gw.example/mcp/",
        "https://gw.example/mcp/one",
        "https://gw.example/mcp/one/",
    ] {
        discovers(&client, Method::GET, url).await;
    }
    let server_document = "/.well-known/oauth-authorization-server";
    for path in ["", "/mcp", "/mcp/one"] {
        let answer = server.get(&format!("{server_document}{path}")).await;
        assert_eq!(answer.expect(200).json()["issuer"], ISSUER);
    }
}

/// No challenge is given for an address that leads nowhere after it. With one server the answer says
/// where that is; of several it names none to somebody who is not known; the log always does.
#[tokio::test]
async fn what_is_no_address_is_a_404_without_a_challenge() {
    let (first, second) = (TestServer::with(one()), TestServer::with(one_and_two(None)));
    for (server, path, is_named) in [
        (&first, "/sse", true),
        (&first, "/mcp/two", true),
        (&first, "/mcp/one/below", true),
        (&first, "/mcp//", true),
        (&second, "/", false),
        (&second, "/mcp", false),
        (&second, "/mcp/three", false),
        (&second, "/mcp/one/below", false),
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let sent = request(method, path).body(Body::empty()).unwrap();
            let answer = server.send(sent).await.refused(404, "not_found");
            assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
            let text = answer.text();
            assert_eq!(
                text.contains("at https://gw.example/mcp\""),
                is_named,
                "{text}"
            );
            for name in ["one", "two"] {
                assert!(!text.contains(&format!("/mcp/{name}")), "{text}");
            }
            let told = server.journal.all().pop().unwrap();
            assert!(
                told.contains("served: \"https://gw.example/mcp/one"),
                "{told}"
            );
        }
        let resource = if path == "/" { "" } else { path };
        let metadata = format!("/.well-known/oauth-protected-resource{resource}");
        let _ = server.get(&metadata).await.refused(404, "not_found");
    }
}

/// Case 07: a further name of the proxy is as good as the first: what is below it is the same resource,
/// described under the name that the client used; the issuer stays one string.
#[tokio::test]
async fn under_an_alias_there_are_the_same_resources() {
    let server = TestServer::with(with_aliases(one(), &["http://proxy:8080"]));
    let client = server.mcp_client().await;
    for url in [
        "http://proxy:8080/mcp/one",
        "http://proxy:8080/mcp",
        "http://proxy:8080",
    ] {
        let document = discovers(&client, Method::POST, url).await;
        assert_eq!(document["authorization_servers"][0], ISSUER);

        let tokens = signs_in(&client, url).await;

        let _ = calls(&client, &tokens, url).await.expect(200);
        let _ = calls(&client, &tokens, "https://gw.example/mcp")
            .await
            .expect(200);
        let _ = refreshes(&client, &tokens, url).await.expect(200);
    }
    let grants = granted(&server);
    assert!(
        grants.iter().all(|it| it == "https://gw.example/mcp/one"),
        "{grants:?}"
    );
    // Of its issuer there is one spelling, whoever asks.
    let document = "http://proxy:8080/.well-known/oauth-authorization-server";
    let answer = sends(&client, to(Method::GET, document)).await.expect(200);
    assert_eq!(answer.json()["issuer"], ISSUER);
}

/// Case 07: nothing but what the operator wrote is a name of the proxy: not another port, scheme or host.
#[tokio::test]
async fn what_is_no_alias_is_another_server() {
    let server = TestServer::with(with_aliases(one(), &["http://proxy:8080"]));
    let client = server.mcp_client().await;
    for other in [
        "https://proxy:8080/mcp",
        "http://proxy/mcp",
        "http://proxy:8081/mcp",
        "http://other:8080/mcp",
        "http://proxy.evil.example:8080/mcp",
    ] {
        let query = client.authorization_with(&[("resource", Some(other))]);
        let (_, answer) = client.opens(&query).await;
        let redirect = answer.expect(303).redirect();
        assert_eq!(redirect.parameter("error"), "invalid_target", "{other}");
    }
    let document = "http://evil.example/.well-known/oauth-protected-resource/mcp";
    let answer = sends(&client, to(Method::GET, document)).await.expect(200);
    assert_eq!(answer.json()["resource"], "https://gw.example/mcp");
}

/// An alias that differs in its scheme alone: by the host that both have, the public address is meant.
#[tokio::test]
async fn the_public_address_comes_before_an_alias_of_the_same_host() {
    let server = TestServer::with(with_aliases(one(), &["http://gw.example"]));
    let client = server.mcp_client().await;
    discovers(&client, Method::POST, "https://gw.example/mcp").await;
    let tokens = signs_in(&client, "http://gw.example/mcp").await;
    let _ = calls(&client, &tokens, "https://gw.example/mcp")
        .await
        .expect(200);
}

/// A token for one server is no better at another one under an alias.
#[tokio::test]
async fn an_alias_does_not_widen_a_token() {
    let server = TestServer::with(with_aliases(one_and_two(None), &["http://proxy:8080"]));
    let client = server.mcp_client().await.at("/mcp/one");
    let tokens = signs_in(&client, "http://proxy:8080/mcp/one").await;
    let _ = calls(&client, &tokens, "http://proxy:8080/mcp/one")
        .await
        .expect(200);
    let answer = calls(&client, &tokens, "http://proxy:8080/mcp/two").await;
    let _ = answer.refused(401, "invalid_token");
    let answer = refreshes(&client, &tokens, "http://proxy:8080/mcp/two").await;
    let _ = answer.refused(400, "invalid_target");
}

/// A proxy for this computer alone goes by every name that the computer has for itself, and by the
/// aliases that it was given; under any other it answers 421.
#[tokio::test]
async fn the_names_of_this_computer_are_aliases_of_each_other() {
    let local = at_issuer("http://127.0.0.1:8080", &[("one", "/mcp/one")]);
    // The last is what the browser of these tests calls it.
    let server = TestServer::with(with_aliases(local, &["http://proxy:8080", ISSUER]));
    let client = server.mcp_client().await;
    for url in [
        "http://127.0.0.1:8080/mcp",
        "http://localhost:8080/mcp",
        "http://[::1]:8080/mcp",
        "http://localhost:8080",
        "http://proxy:8080/mcp",
    ] {
        let document = discovers(&client, Method::POST, url).await;
        assert_eq!(
            document["authorization_servers"][0],
            "http://127.0.0.1:8080"
        );
        let tokens = signs_in(&client, url).await;
        let _ = calls(&client, &tokens, url).await.expect(200);
    }
    for foreign in [
        "http://proxy:8081/mcp",
        "http://evil.example:8080/mcp",
        "http://proxy.evil.example:8080/mcp",
    ] {
        let answer = sends(&client, to(Method::POST, foreign)).await.expect(421);
        assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    // Of another port nothing is said, and so the public address is described.
    let document = "http://localhost:9000/.well-known/oauth-protected-resource/mcp";
    let answer = sends(&client, to(Method::GET, document)).await.expect(200);
    assert_eq!(answer.json()["resource"], "http://127.0.0.1:8080/mcp");
}

/// Case 08: a second server does not move the first: its clients go on, at every address that they know
/// it by, and can connect anew there.
#[tokio::test]
async fn a_second_upstream_does_not_move_the_first() {
    let server = TestServer::with(one());
    let client = server.mcp_client().await;
    let addresses = [
        ISSUER,
        "https://gw.example/mcp",
        "https://gw.example/mcp/one",
    ];
    let mut held = Vec::new();
    for address in addresses {
        held.push((address, signs_in(&client, address).await));
    }

    let after = client.on(&server.another(one_and_two(Some("one"))));

    for (address, tokens) in &held {
        let _ = calls(&after, tokens, address).await.expect(200);
        let answer = refreshes(&after, tokens, address).await.expect(200);
        let _ = calls(&after, &Tokens::of(&answer), address)
            .await
            .expect(200);
        discovers(&after, Method::POST, address).await;
        let anew = signs_in(&after, address).await;
        let _ = calls(&after, &anew, address).await.expect(200);
        let sent = after.server.upstream.last();
        assert_eq!(sent.uri(), "https://one.upstream.example/mcp");
        let second = "https://gw.example/mcp/two";
        for tokens in [tokens, &anew] {
            let answer = calls(&after, tokens, second).await;
            let _ = answer.refused(401, "invalid_token");
        }
    }
    let twos = after.at("/mcp/two");
    let tokens = twos.sign_in().await;
    let _ = calls(&twos, &tokens, "https://gw.example/mcp/two")
        .await
        .expect(200);
    for address in addresses {
        let answer = calls(&twos, &tokens, address).await;
        let _ = answer.refused(401, "invalid_token");
    }
}

/// Without that memory the approvals hold at the server's own address, and nowhere else is a challenge.
#[tokio::test]
async fn the_own_address_goes_on_even_when_nobody_remembers_the_others() {
    let server = TestServer::with(one());
    let client = server.mcp_client().await;
    let tokens = signs_in(&client, ISSUER).await;
    let after = client.on(&server.another(one_and_two(None)));
    let _ = calls(&after, &tokens, "https://gw.example/mcp/one")
        .await
        .expect(200);
    for gone in [ISSUER, "https://gw.example/mcp"] {
        let answer = calls(&after, &tokens, gone).await;
        let _ = answer.refused(404, "not_found");
    }
}

/// What is remembered of a server that is not here any more means nothing, and a path that the operator
/// gives to another server is that server's.
#[tokio::test]
async fn a_path_of_ones_own_comes_before_what_is_remembered() {
    let server = TestServer::with(one());
    let client = server.mcp_client().await;
    let tokens = signs_in(&client, "https://gw.example/mcp").await;

    let mut given = policy(&[("one", "/mcp/one"), ("two", "/mcp")]);
    given.once_the_only_one = Some("one".to_owned());
    let after = client.on(&server.another(given));
    let answer = calls(&after, &tokens, "https://gw.example/mcp").await;
    let _ = answer.refused(401, "invalid_token");
    let _ = calls(&after, &tokens, "https://gw.example/mcp/one")
        .await
        .expect(200);

    let mut gone = policy(&[("two", "/mcp/two"), ("three", "/mcp/three")]);
    gone.once_the_only_one = Some("one".to_owned());
    let after = client.on(&server.another(gone));
    let answer = calls(&after, &tokens, "https://gw.example/mcp").await;
    let _ = answer.refused(404, "not_found");
}

/// A token is good at the address that it was issued for and at the others of the same resource, and
/// nowhere else: a server that the operator moves to another path has to be approved there.
#[tokio::test]
async fn a_token_does_not_follow_its_upstream_to_another_path() {
    let server = TestServer::with(policy(&[("one", "/tickets")]));
    let client = server.mcp_client().await.at("/tickets");
    let tokens = client.sign_in().await;

    let moved = client.on(&server.another(policy(&[("one", "/issues")])));
    for path in ["/issues", "/mcp", ""] {
        let answer = calls(&moved, &tokens, &format!("{ISSUER}{path}")).await;
        let _ = answer.refused(401, "invalid_token");
    }
    let _ = moved.refresh(&tokens).await.refused(400, "invalid_grant");
    assert!(moved.server.upstream.received().is_empty());

    // Nothing was ended by asking: back at its place, all is as it was.
    let _ = calls(&client, &tokens, "https://gw.example/tickets")
        .await
        .expect(200);
    let _ = client.refresh(&tokens).await.expect(200);
}

/// Approvals that were given for `/mcp`, when that was a server's own path, hold as long as `/mcp` means
/// the server. A refresh makes them approvals for its own path of today.
#[tokio::test]
async fn an_approval_for_the_old_own_path_holds_and_is_renewed_for_the_new_one() {
    let server = TestServer::with(policy(&[("one", "/mcp")]));
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    assert_eq!(granted(&server), ["https://gw.example/mcp"]);

    let now = client.on(&server.another(one()));
    for url in [
        ISSUER,
        "https://gw.example/mcp",
        "https://gw.example/mcp/one",
    ] {
        let _ = calls(&now, &tokens, url).await.expect(200);
    }
    let answer = refreshes(&now, &tokens, "https://gw.example/mcp").await;
    let refreshed = Tokens::of(&answer.expect(200));
    assert_eq!(granted(&server), ["https://gw.example/mcp/one"]);
    let _ = calls(&now, &refreshed, "https://gw.example/mcp")
        .await
        .expect(200);

    let later = now.on(&server.another(one_and_two(None)));
    let _ = calls(&later, &refreshed, "https://gw.example/mcp/one")
        .await
        .expect(200);
}
