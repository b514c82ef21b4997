//! What addresses mean after the configuration has changed, over restarts.

use axum::body::Body;
use http::{Method, Request, header};

use super::{
    World,
    support::{
        client::{Answer, Client, Http, Tokens},
        proxy::Proxy,
        upstream::Upstream,
    },
};

/// A call at `path`, with a token or without.
async fn calls(http: &Http, path: &str, tokens: Option<&Tokens>) -> Answer {
    let mut request = http.request(Method::POST, path);
    if let Some(tokens) = tokens {
        let token = format!("Bearer {}", tokens.access_token);
        request = request.header(header::AUTHORIZATION, token);
    }
    http.send(request.body(Body::from("{}")).unwrap()).await
}

/// Somebody who approves the client for what is at `path`.
async fn signs_in_at(client: &Client, path: &str) -> Tokens {
    let resource = format!("http://{}{path}", client.http.address);
    let authorization = client.authorization().with("resource", &resource);
    client.sign_in_with(&authorization).await
}

/// Stops the proxy, changes its configuration, and starts it again; gives what it says then.
async fn changes(proxy: &mut Proxy, piece: &str, by: &str) -> String {
    proxy.stop().await;
    let known = proxy.output().len();
    proxy.reconfigure(piece, by);
    proxy.start().await;
    proxy.says(known, "to put into your MCP client").await
}

/// Case 08: weeks after the first server a second one is added. The clients of the first go on where
/// they are, and new ones connect there.
#[tokio::test]
async fn adding_a_second_server_does_not_move_the_first() {
    let mut world = World::new().await;
    let http = world.client.http.clone();
    let at_origin = signs_in_at(&world.client, "").await;

    let with_second = "[upstream.two]\nbuiltin = \"demo\"\n[upstream.one]";
    let said = changes(&mut world.proxy, "[upstream.one]", with_second).await;
    let checked = String::from_utf8(world.proxy.check()).unwrap();
    assert!(!checked.contains("lost, given for"), "{checked}");

    assert!(
        said.contains("still lead to the upstream that was the only one"),
        "{said}"
    );
    assert!(!said.contains("lost, given for"), "{said}");
    for path in ["/mcp", "/", "/mcp/one"] {
        let _ = calls(&http, path, Some(&world.tokens)).await.expect(200);
        let _ = calls(&http, path, Some(&at_origin)).await.expect(200);
    }
    let refreshed = Tokens::of(&world.client.refresh(&world.tokens).await.expect(200));
    let _ = calls(&http, "/mcp", Some(&refreshed)).await.expect(200);
    let challenged = calls(&http, "/mcp", None).await.expect(401);
    assert!(
        challenged
            .header("www-authenticate")
            .contains("resource/mcp\"")
    );
    let anew = signs_in_at(&world.client, "/mcp").await;
    let before = world.upstream.received().len();
    let _ = calls(&http, "/mcp", Some(&anew)).await.expect(200);
    assert_eq!(world.upstream.received().len(), before + 1);
    let _ = calls(&http, "/mcp/two", Some(&anew)).await.expect(401);
}

/// Two servers from the first start on have addresses of their own, and nothing else is one. Who comes
/// to another is shown no name of a server; the log has what came and what would be right.
#[tokio::test]
async fn two_servers_from_the_start_have_their_own_addresses_only() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::with(upstream.address, "upstream.two.builtin = \"demo\"").await;
    let http = Http::to(proxy.address);
    for path in ["/", "/mcp"] {
        let known = proxy.output().len();
        let answer = calls(&http, path, None).await.expect(404);
        assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
        assert!(!answer.text().contains("/mcp/"), "{}", answer.text());
        let address = proxy.address;
        let served = format!("\"served\":\"http://{address}/mcp/one or http://{address}/mcp/two\"");
        let said = proxy.says(known, &served).await;
        assert!(said.contains(&format!("\"path\":\"{path}\"")), "{said}");
    }
    for path in ["/mcp/one", "/mcp/two"] {
        let _ = calls(&http, path, None).await.expect(401);
    }
}

/// Case 08, a neighbour: from `UPSTREAM_URL` to a file. Under a name of its own the server has to be
/// approved anew, at the same address; the start says so, and the way back that it names is one.
#[tokio::test]
async fn a_start_says_what_a_new_name_costs_and_how_to_keep_the_old_one() {
    let upstream = Upstream::start().await;
    let url = format!("http://{}/mcp", upstream.address);
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    let table = format!("[upstream.one]\nurl = \"{url}\"\n");
    proxy.reconfigure(&table, "[upstream.one]\n");
    proxy.reconfigure("[upstream.one]\ncredential", "# credential");
    proxy.set("UPSTREAM_URL", &url);
    proxy.start().await;
    let http = Http::to(proxy.address);
    let client = Client::register(&http).await;
    let tokens = client.sign_in().await;
    let _ = calls(&http, "/mcp", Some(&tokens)).await.expect(200);

    proxy.set("UPSTREAM_URL", "");
    let named = |name: &str| format!("[upstream.{name}]\nurl = \"{url}\"\n# credential");
    let said = changes(&mut proxy, "# credential", &named("tickets")).await;

    let cost = "1 approval lost, given for the upstream upstream at ";
    assert!(said.contains(cost), "{said}");
    assert!(
        said.contains("restore them with a table [upstream.upstream]"),
        "{said}"
    );
    // The address leads to where it can be approved again.
    let _ = calls(&http, "/mcp", Some(&tokens)).await.expect(401);
    let anew = client.sign_in().await;
    let _ = calls(&http, "/mcp", Some(&anew)).await.expect(200);

    let said = changes(&mut proxy, &named("tickets"), &named("upstream")).await;
    assert!(
        said.contains("given for the upstream tickets at "),
        "{said}"
    );
    let _ = calls(&http, "/mcp", Some(&tokens)).await.expect(200);
}

/// A server that gets another path has to be approved there; the `path` that the start names brings the
/// approvals back, beside a server whose path lies below it.
#[tokio::test]
async fn a_start_says_which_path_brings_approvals_back() {
    let mut world = World::new().await;
    let http = world.client.http.clone();
    let beside = "[upstream.two]\nbuiltin = \"demo\"\npath = \"/mcp/one/two\"\n";
    let moved = format!("{beside}[upstream.one]\npath = \"/tickets\"\n");
    world.proxy.reconfigure("[upstream.one]\n", &moved);
    // `check` tells it before, beside the running proxy, and leaves everything as it is.
    let files = |proxy: &Proxy| {
        let files = proxy.files().into_iter();
        files.map(|(name, _)| name).collect::<Vec<_>>()
    };
    let before = files(&world.proxy);
    let foretold = String::from_utf8(world.proxy.check()).unwrap();
    let cost = "warning: 1 approval lost, given for the upstream one at ";
    assert!(foretold.contains(cost), "{foretold}");
    assert_eq!(files(&world.proxy), before);
    world.proxy.stop().await;
    let stopped = files(&world.proxy);
    assert!(
        String::from_utf8(world.proxy.check())
            .unwrap()
            .contains(cost)
    );
    assert_eq!(files(&world.proxy), stopped);

    let known = world.proxy.output().len();
    world.proxy.start().await;
    let said = world.proxy.says(known, "to put into your MCP client").await;
    let way_back = "path = \\\"/mcp/one\\\" in [upstream.one]";
    assert!(said.contains(way_back), "{said}");
    for path in ["/tickets", "/mcp"] {
        let _ = calls(&http, path, Some(&world.tokens)).await.expect(401);
    }

    let said = changes(&mut world.proxy, "\"/tickets\"", "\"/mcp/one\"").await;
    assert!(
        !String::from_utf8(world.proxy.check())
            .unwrap()
            .contains("lost, given for")
    );
    assert!(!said.contains("lost, given for"), "{said}");
    let _ = calls(&http, "/mcp/one", Some(&world.tokens))
        .await
        .expect(200);
    let _ = calls(&http, "/mcp/one/two", Some(&world.tokens))
        .await
        .expect(401);
}

/// Approvals of another origin come back with that origin alone, also where the new one is written as the
/// beginning of the old one.
#[tokio::test]
async fn a_start_at_the_default_port_names_the_public_url_as_the_way_back() {
    let mut world = World::new().await;
    let http = world.client.http.clone();
    let at_default_port = "store = \"sqlite\"\npublic_url = \"http://127.0.0.1\"";

    let said = changes(&mut world.proxy, "store = \"sqlite\"", at_default_port).await;

    let way_back = "restore them with the public_url that they were given under";
    assert!(said.contains(way_back), "{said}");
    let checked = String::from_utf8(world.proxy.check()).unwrap();
    assert!(checked.contains(way_back), "{checked}");
    let _ = calls(&http, "/mcp", Some(&world.tokens)).await.expect(401);

    let public_url = format!("\"http://{}\"", http.address);
    let said = changes(&mut world.proxy, "\"http://127.0.0.1\"", &public_url).await;
    assert!(!said.contains("lost, given for"), "{said}");
    let _ = calls(&http, "/mcp", Some(&world.tokens)).await.expect(200);
}

/// Who tried the demo first and then names a server has lost nothing. Approvals for an own server of the
/// same name are worth a warning.
#[tokio::test]
async fn approvals_for_the_demo_end_without_a_warning() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    let url = format!("url = \"http://{}/mcp\"\n", upstream.address);
    proxy.reconfigure(&format!("[upstream.one]\n{url}credential"), "# credential");
    proxy.start().await;
    let http = Http::to(proxy.address);
    let client = Client::register(&http).await;
    let of_demo = client.sign_in().await;
    let named = |name: &str| format!("[upstream.{name}]\n{url}# credential");
    let level = |said: &str, text: &str| {
        let line = said.lines().find(|line| line.contains(text)).unwrap();
        let (_, rest) = line.split_once("\"level\":\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    };

    let known = proxy.output().len();
    changes(&mut proxy, "# credential", &named("own")).await;
    let ended = "1 approval ended, given for the built-in demo server at http://";
    let said = proxy.says(known, ended).await;
    assert_eq!(level(&said, ended), "INFO");
    assert!(!said.contains("lost, given for"), "{said}");
    let checked = String::from_utf8(proxy.check()).unwrap();
    assert!(checked.contains(&format!("note: {ended}")), "{checked}");
    let _ = calls(&http, "/mcp", Some(&of_demo)).await.expect(401);

    changes(&mut proxy, &named("own"), &named("demo")).await;
    let of_own = client.sign_in().await;
    let _ = calls(&http, "/mcp", Some(&of_own)).await.expect(200);
    let known = proxy.output().len();
    changes(&mut proxy, &named("demo"), &named("own")).await;
    let lost = "1 approval lost, given for the upstream demo at http://";
    let said = proxy.says(known, lost).await;
    assert_eq!(level(&said, lost), "WARN");
}

/// Case 07: clients in containers call the proxy by another name than people do.
#[tokio::test]
async fn an_alias_in_the_configuration_is_a_name_of_the_proxy() {
    let upstream = Upstream::start().await;
    let lines = "public_url = \"https://gw.example\"\naliases = [\"http://proxy:8080\"]";
    let proxy = Proxy::with(upstream.address, lines).await;
    let http = Http::to(proxy.address);
    let metadata = "/.well-known/oauth-protected-resource/mcp";
    for (host, resource) in [
        ("proxy:8080", "http://proxy:8080/mcp"),
        ("gw.example", "https://gw.example/mcp"),
        ("other:8080", "https://gw.example/mcp"),
    ] {
        let request = Request::get(metadata).header(header::HOST, host);
        let answer = http.send(request.body(Body::empty()).unwrap()).await;
        let document = answer.expect(200).json();
        assert_eq!(document["resource"], resource);
        assert_eq!(document["authorization_servers"][0], "https://gw.example");
    }
    let client = Client::register(&http).await;
    let authorization = client.authorization();
    let authorization = authorization.with("resource", "http://proxy:8080/mcp");
    let code = client.approved(&authorization).await;
    let fields = client.redemption(&code);
    let fields = fields.and("resource", "http://proxy:8080/mcp");
    let answer = http.send(http.form("/token", &fields)).await.expect(200);
    let _ = client.call(&Tokens::of(&answer)).await.expect(200);
}
