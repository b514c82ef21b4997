//! Z04: an authorization request alone issues nothing, and its parameters have no order.
#![no_main]

use arbitrary::Arbitrary;
use fuzz::{
    Answer, Stage, TestServer, block_on,
    client::{CHALLENGE, REDIRECT_URI},
    patient_server,
};
use libfuzzer_sys::fuzz_target;
use url::form_urlencoded;

const NAMES: [&str; 16] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "code_challenge",
    "code_challenge_method",
    "state",
    "scope",
    "resource",
    "request",
    "request_uri",
    "response_mode",
    "prompt",
    "nonce",
    "code",
    "iss",
    "error",
];

#[derive(Arbitrary, Debug)]
struct Input {
    /// Good parameters left out.
    without: u8,
    with: Vec<(u8, Value)>,
    turn: u8,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Good,
    Other(u8),
    Free(String),
}

struct Prepared {
    server: TestServer,
    good: Vec<(&'static str, String)>,
}

thread_local! {
    static STAGE: Stage<Prepared> = const { Stage::new(prepare) };
}

fn prepare() -> Prepared {
    block_on(async {
        let server = patient_server(&[("one", "/mcp")]);
        let good = server.mcp_client().await.authorization();
        Prepared { server, good }
    })
}

fn other(choice: u8) -> &'static str {
    const OTHERS: [&str; 14] = [
        "token",
        "plain",
        "S256",
        "none",
        "query",
        "fragment",
        "mcp offline_access",
        "openid \"",
        "https://gw.example/mcp/",
        "https://evil.example/",
        "http://localhost:1/",
        "",
        "https://claude.ai/oauth/mcp-oauth-client-metadata",
        "https://nowhere.example/client",
    ];
    OTHERS[usize::from(choice) % OTHERS.len()]
}

/// What a client or person makes of the answer, and nothing that is new in each.
fn class(answer: &Answer) -> (u16, Vec<(String, String)>) {
    let told = match answer.status.as_u16() {
        303 => answer.redirect().parameters,
        _ => Vec::new(),
    };
    (answer.status.as_u16(), told)
}

fuzz_target!(
    |input: Input| STAGE.with(|stage| stage.judge(|prepared| block_on(async {
        let Prepared { server, good } = prepared;
        let mut parameters: Vec<(&str, &str)> = good
            .iter()
            .enumerate()
            .filter(|(index, _)| input.without & (1 << index) == 0)
            .map(|(_, (name, value))| (*name, value.as_str()))
            .collect();
        for (name, value) in &input.with {
            let name = NAMES[usize::from(*name) % NAMES.len()];
            let value = match value {
                Value::Good => good
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map_or("x", |(_, value)| value),
                Value::Other(choice) => other(*choice),
                Value::Free(text) => text,
            };
            parameters.push((name, value));
        }
        let query = |parameters: &[(&str, &str)]| {
            form_urlencoded::Serializer::new(String::new())
                .extend_pairs(parameters)
                .finish()
        };
        let before = server.stored();
        let first = server
            .get(&format!("/authorize?{}", query(&parameters)))
            .await;
        let class_of_first = class(&first);
        assert!(class_of_first.0 < 500, "{first:#?}");
        if let Some((_, state)) = class_of_first.1.iter().find(|(name, _)| name == "state") {
            assert!(parameters.contains(&("state", state)));
        }
        if class_of_first.0 == 303 {
            assert!(!first.redirect().has("code"));
            assert!(first.header("location").starts_with(REDIRECT_URI));
        }
        if class_of_first.0 == 200 {
            assert!(parameters.contains(&("code_challenge", CHALLENGE)) || !input.with.is_empty());
        }
        let turn = usize::from(input.turn) % parameters.len().max(1);
        parameters.rotate_left(turn);
        for _ in 0..2 {
            parameters.reverse();
            let again = server
                .get(&format!("/authorize?{}", query(&parameters)))
                .await;
            assert_eq!(class(&again), class_of_first, "{parameters:?}");
        }
        assert_eq!(server.stored(), before);
    })))
);
