//! Z22: what is behind an upstream's path stays behind it, however the path is written.
#![no_main]

use axum::body::Body;
use fuzz::{
    Stage, TestServer, block_on,
    client::{McpClient, Tokens},
    patient_server,
};
use http::{Method, Request, header};
use libfuzzer_sys::fuzz_target;

struct Prepared {
    server: TestServer,
    tokens: Tokens,
}

thread_local! {
    static STAGE: Stage<Prepared> = const { Stage::new(prepare) };
}

fn prepare() -> Prepared {
    block_on(async {
        let server = patient_server(&[("a", "/mcp/a"), ("b", "/mcp/b")]);
        let client: McpClient = server.mcp_client().await.at("/mcp/a");
        let tokens = client.sign_in().await;
        Prepared { server, tokens }
    })
}

/// The path that the most helpful of servers would see.
fn meant(path: &str) -> String {
    let mut path = path.to_owned();
    for _ in 0..4 {
        let pieces: Vec<&str> = path.split('%').collect();
        let decoded: String = pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| match piece.get(..2) {
                Some(digits) if index > 0 => match u8::from_str_radix(digits, 16) {
                    Ok(byte) => format!("{}{}", char::from(byte), &piece[2..]),
                    Err(_) => format!("%{piece}"),
                },
                _ if index > 0 => format!("%{piece}"),
                _ => (*piece).to_owned(),
            })
            .collect();
        path = decoded;
    }
    let mut segments: Vec<String> = Vec::new();
    for segment in path.replace('\\', "/").to_ascii_lowercase().split('/') {
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_owned()),
        }
    }
    format!("/{}", segments.join("/"))
}

// The first byte chooses the method and whether there is a token, the rest is the path.
fuzz_target!(
    |input: &[u8]| STAGE.with(|stage| stage.judge(|prepared| block_on(async {
        let Some((choice, path)) = input.split_first() else {
            return;
        };
        const METHODS: [&str; 8] = [
            "POST", "GET", "DELETE", "OPTIONS", "HEAD", "PUT", "CONNECT", "MCP",
        ];
        let method = METHODS[usize::from(choice % 8)];
        let has_token = choice & 8 != 0;
        let Ok(uri) = http::Uri::try_from(path) else {
            return;
        };
        let text = uri.path().to_owned();
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(uri)
            .header(header::HOST, "gw.example")
            .header(header::CONTENT_TYPE, "application/json");
        if has_token {
            let token = format!("Bearer {}", prepared.tokens.access_token);
            request = request.header(header::AUTHORIZATION, token);
        }
        let Ok(request) = request.body(Body::from("{}")) else {
            return;
        };
        let server = &prepared.server;
        let before = server.upstream.received().len();
        let answer = server.send(request).await;
        assert!(answer.status.as_u16() < 500, "{answer:#?}");
        let received = server.upstream.received();
        let received = &received[before..];
        assert!(received.len() <= usize::from(has_token), "{received:?}");
        if let Some(reached) = received.first() {
            assert_eq!(reached.uri().host(), Some("a.upstream.example"));
            assert_eq!(reached.uri().path(), "/mcp");
            assert!(["/mcp/a", "/mcp/a/"].contains(&&*text), "{text}");
        } else if meant(&text).starts_with("/mcp") {
            assert!(!answer.status.is_success(), "{answer:#?}");
        }
    })))
);
