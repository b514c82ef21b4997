//! Z12: whatever the operator may configure, every challenge parses, and points where it must.
#![no_main]

use arbitrary::Arbitrary;
use fuzz::{TestServer, block_on, judge, policy};
use http::{Method, Request, header};
use http_auth::ChallengeRef;
use libfuzzer_sys::fuzz_target;
use protocol::identity::password::SignIn;
use server::config::{Environment, from_text};

#[derive(Arbitrary, Debug)]
struct Input {
    public_url: String,
    path: String,
    authorization: Vec<String>,
    has_slash: bool,
}

fn parameter<'a>(challenge: &'a ChallengeRef<'_>, name: &str) -> Option<String> {
    let mut values = challenge.params.iter().filter(|(key, _)| *key == name);
    let value = values.next().map(|(_, value)| value.to_unescaped());
    assert!(values.next().is_none(), "two {name}");
    value
}

fuzz_target!(|input: Input| judge(|| {
    let text = format!(
        "public_url = {}\n[sign_in]\npassphrase = 'correct horse battery staple'\n\
         [upstream.one]\nurl = 'https://one.example/mcp'\npath = {}\n",
        serde_json::Value::from(&*input.public_url),
        serde_json::Value::from(&*input.path),
    );
    let Ok(plan) = from_text(&text, None, &Environment::default()) else {
        return;
    };
    let (planned, _) = plan.into_policy(SignIn::passphrase("x"));
    let policy = protocol::policy::Policy {
        sign_in: policy(&[]).sign_in,
        ..planned
    };
    let issuer = policy.issuer.clone();
    let path = policy.upstreams[0].path.clone();
    let server = TestServer::with(policy);
    let slash = if input.has_slash { "/" } else { "" };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("{path}{slash}"))
        .header(header::HOST, issuer.authority());
    for value in &input.authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    let Ok(request) = request.body(axum::body::Body::empty()) else {
        return;
    };
    let answer = block_on(server.send(request));
    assert!([400, 401].contains(&answer.status.as_u16()), "{answer:#?}");
    let text = answer.header("www-authenticate");
    let challenges: Vec<_> = http_auth::ChallengeParser::new(text)
        .collect::<Result<_, _>>()
        .expect("the challenge parses");
    let [challenge] = &challenges[..] else {
        panic!("not one challenge: {text}")
    };
    assert_eq!(challenge.scheme, "Bearer");
    assert_eq!(
        parameter(challenge, "resource_metadata"),
        Some(issuer.url(&format!(
            "/.well-known/oauth-protected-resource{path}{slash}"
        ))),
    );
    assert_eq!(parameter(challenge, "scope").as_deref(), Some("mcp"));
    assert_eq!(
        parameter(challenge, "error").is_some(),
        !input.authorization.is_empty()
    );
}));
