//! Well-known documents (WK).

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, header};

use super::{
    case::{Case, case},
    refusal::Refusal::OAuth,
    support::{client::Answer, wire::Wire},
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "N-WK-01",
            "another host, forged in `Host` and in what proxies add",
            forged_host,
        ),
        case("N-WK-02", "documents of what is not there", unknown_routes),
        case(
            "N-WK-03",
            "`..`, double and encoded slashes in the path of a document",
            odd_paths,
        ),
        case(
            "N-WK-04",
            "line breaks, to have a header added",
            line_breaks,
        ),
        case("N-WK-05", "methods that change something", other_methods),
        case("N-WK-06", "HEAD", head),
        case("N-WK-07", "a browser that wants a page", wants_page),
        case("N-WK-08", "a query, to have another document", with_query),
        case(
            "N-WK-09",
            "conditions, to have no document at all",
            with_conditions,
        ),
        case("N-WK-10", "documents by the thousand", by_the_thousand),
        case(
            "N-WK-11",
            "documents of features that are turned off",
            turned_off,
        ),
    ]
}

const SERVER: &str = "/.well-known/oauth-authorization-server";
const RESOURCE: &str = "/.well-known/oauth-protected-resource/mcp";

/// Every place where there is a document.
const DOCUMENTS: [&str; 4] = [
    SERVER,
    "/.well-known/oauth-authorization-server/mcp",
    "/.well-known/oauth-protected-resource",
    RESOURCE,
];

fn request_with(world: &World, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = world.http.request(Method::GET, path);
    let mut request = request.body(Body::empty()).unwrap();
    for (name, value) in headers {
        let name: header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// Insists that `request` is answered with the document at `path` as everybody gets it.
async fn is_as_ever(world: &World, path: &str, request: Request<Body>) {
    let usual = world.http.get(path).await.expect(200);
    let answer = world.unchanged(world.http.send(request)).await.expect(200);
    assert_eq!(answer.text(), usual.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.header("cache-control"),
        usual.header("cache-control")
    );
    assert!(!answer.headers.contains_key("set-cookie"), "{answer:#?}");
}

async fn serves_all(world: &World) {
    for path in DOCUMENTS {
        let document = world.http.get(path).await.expect(200).json();
        let named = if path.contains("resource") {
            &document["authorization_servers"][0]
        } else {
            &document["issuer"]
        };
        assert_eq!(*named, world.issuer, "{path}");
    }
}

async fn forged_host(world: Arc<World>) {
    let port = world.proxy.address.port();
    for path in DOCUMENTS {
        for host in [
            "evil.example",
            &format!("evil.example:{port}"),
            "x@127.0.0.1",
        ] {
            let request = request_with(&world, path, &[("host", host)]);
            world.refused(request, &OAuth(421, "invalid_request")).await;
        }
        for (name, value) in [
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "host=evil.example;proto=https"),
            ("x-original-url", "/token"),
            ("x-rewrite-url", "/token"),
        ] {
            is_as_ever(&world, path, request_with(&world, path, &[(name, value)])).await;
        }
    }
    // Where every name leads to us, none of them comes to stand in a document.
    let public = "https://gw.example";
    let behind = world.another(&format!("public_url = \"{public}\"")).await;
    for path in DOCUMENTS {
        let headers = [
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
        ];
        let request = request_with(&behind, path, &headers);
        let document = behind.unchanged(behind.http.send(request)).await;
        let text = document.expect(200).text();
        assert!(text.contains(public) && !text.contains("evil"), "{text}");
    }
    serves_all(&world).await;
}

async fn unknown_routes(world: Arc<World>) {
    for path in [
        "/.well-known",
        "/.well-known/",
        "/.well-known/x",
        "/.well-known/oauth-authorization-server/",
        "/.well-known/oauth-authorization-server/other",
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/other",
        "/.well-known/oauth-protected-resource/mcp/below",
        "/.well-known/oauth-protected-resource/MCP",
        "/.WELL-KNOWN/oauth-authorization-server",
        "/.well-known/security.txt",
        "/admin",
    ] {
        is_not_there(&world, path).await;
    }
    serves_all(&world).await;
}

async fn is_not_there(world: &World, path: &str) {
    let request = request_with(world, path, &[]);
    world.refused(request, &OAuth(404, "not_found")).await;
}

async fn odd_paths(world: Arc<World>) {
    let host = world.proxy.address;
    for path in [
        "/.well-known/../token",
        "/.well-known/../.well-known/oauth-authorization-server",
        "/.well-known/./oauth-authorization-server",
        "/.well-known/%2e%2e/token",
        "/.well-known/..%2ftoken",
        "/.well-known/oauth-protected-resource/../../token",
        "/.well-known/oauth-protected-resource/..%2f..%2fetc%2fpasswd",
        "/.well-known/oauth-protected-resource/..\\..\\mcp",
        "/.well-known/oauth-protected-resource/mcp/../mcp",
        "/.well-known/oauth-protected-resource/mcp;x=y",
        "//.well-known/oauth-authorization-server",
        "/.well-known//oauth-authorization-server",
        "/.well-known/oauth-protected-resource//mcp",
        "/.well-known/oauth-protected-resource/mcp//",
        "/.well-known%2foauth-authorization-server",
        "/.well-known/oauth-protected-resource%2fmcp",
        "/.well-known/oauth-protected-resource/%2fmcp",
        "/.well-known/oauth-protected-resource/mcp%00",
    ] {
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        world.refused_bytes(bytes, &OAuth(404, "not_found")).await;
    }
    serves_all(&world).await;
}

async fn line_breaks(world: Arc<World>) {
    let host = world.proxy.address;
    for encoded in [
        "%0d%0aset-cookie:%20x=y",
        "%0aset-cookie:x=y",
        "%e5%98%8a%e5%98%8d",
    ] {
        is_not_there(&world, &format!("{RESOURCE}{encoded}")).await;
        let request = request_with(&world, &format!("{RESOURCE}?x={encoded}"), &[]);
        is_as_ever(&world, RESOURCE, request).await;
    }
    for head in [
        format!("GET {RESOURCE}\r HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        format!("GET {RESOURCE} HTTP/1.1\r\nhost: {host}\r\nx: a\rset-cookie: x=y\r\n\r\n"),
        format!("GET {RESOURCE} HTTP/1.1\r\nhost: {host}\r\nx: a\0b\r\n\r\n"),
        format!("GET {RESOURCE} HTTP/1.1\r\nhost: {host}\rx\r\n\r\n"),
    ] {
        let attempt = async {
            let mut wire = Wire::open(&world.http).await;
            wire.send(&head).await;
            wire.answer().await
        };
        let answer: Answer = world.unchanged(attempt).await.unwrap().expect(400);
        assert!(!answer.headers.contains_key("set-cookie"), "{answer:#?}");
    }
    serves_all(&world).await;
}

async fn other_methods(world: Arc<World>) {
    for path in DOCUMENTS {
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "INVENTED",
        ] {
            let request = world.http.request(method.parse().unwrap(), path);
            let request = request.body(Body::from("{\"issuer\":\"https://evil.example\"}"));
            let refusal = OAuth(405, "invalid_request");
            let answer = world.refusal_of(request.unwrap(), &refusal).await;
            assert_eq!(answer.header("allow"), "GET,HEAD");
        }
    }
    serves_all(&world).await;
}

async fn head(world: Arc<World>) {
    for path in DOCUMENTS {
        let usual = world.http.get(path).await.expect(200);
        let request = world.http.request(Method::HEAD, path);
        let request = request.body(Body::empty()).unwrap();
        let answer = world.unchanged(world.http.send(request)).await.expect(200);
        assert!(answer.body.is_empty());
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(answer.header(name), usual.header(name), "{name}");
        }
    }
}

async fn wants_page(world: Arc<World>) {
    for path in DOCUMENTS {
        for accept in ["text/html", "text/html,*/*;q=0.1", "image/png", "x", ""] {
            let request = request_with(&world, path, &[("accept", accept)]);
            is_as_ever(&world, path, request).await;
        }
    }
}

async fn with_query(world: Arc<World>) {
    for path in DOCUMENTS {
        for query in [
            "",
            "resource=https://evil.example/mcp",
            "issuer=https://evil.example",
            "callback=alert",
            "%zz",
            "path=/token&path=/mcp",
        ] {
            let request = request_with(&world, &format!("{path}?{query}"), &[]);
            is_as_ever(&world, path, request).await;
        }
    }
}

/// There is no validator, so every condition is to be met.
async fn with_conditions(world: Arc<World>) {
    for path in DOCUMENTS {
        for condition in [
            ("if-none-match", "*"),
            ("if-none-match", "\"x\", W/\"y\""),
            ("if-none-match", "garbage"),
            ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
            ("range", "bytes=0-1"),
        ] {
            let request = request_with(&world, path, &[condition]);
            is_as_ever(&world, path, request).await;
        }
    }
}

/// How many each second depends on the machine; that they take nothing that stays does not.
async fn by_the_thousand(world: Arc<World>) {
    const BATCHES: usize = 40;
    const BATCH: usize = 100;
    // Of its own, since its memory is looked at.
    let world = world.another("").await;
    let request = format!(
        "GET {SERVER} HTTP/1.1\r\nhost: {}\r\n\r\n",
        world.proxy.address
    );
    let ask = async |batches| {
        let mut wire = Wire::open(&world.http).await;
        for _ in 0..batches {
            wire.send(request.repeat(BATCH)).await;
            for _ in 0..BATCH {
                let answer = wire.answer().await.expect("an answer, not a close");
                assert_eq!(answer.status, 200);
            }
        }
    };
    ask(BATCHES / 10).await;
    let before = world.proxy.resident_kib();
    world.unchanged(ask(BATCHES)).await;
    let grown = world.proxy.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more");
    let client = world.client().await;
    world.lets_in(&client, &client.authorization()).await;
}

async fn turned_off(world: Arc<World>) {
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/mcp",
        "/.well-known/jwks.json",
        "/jwks",
        "/introspect",
        "/callback",
    ] {
        is_not_there(&world, path).await;
    }
    serves_all(&world).await;
    // With two resources, none is the one that is meant.
    let two = world.another("upstream.two.builtin = \"demo\"").await;
    is_not_there(&two, "/.well-known/oauth-protected-resource").await;
    is_not_there(&two, RESOURCE).await;
    for name in ["one", "two"] {
        let document = two.http.get(&format!("{RESOURCE}/{name}")).await;
        let resource = format!("{}/mcp/{name}", two.issuer);
        assert_eq!(document.expect(200).json()["resource"], resource);
    }
}
