//! Z09: an assertion counts only as the client's own key signed it, and only for what it says.
#![no_main]

use arbitrary::Arbitrary;
use data_encoding::BASE64URL_NOPAD;
use fuzz::{assertion::Signer, judge};
use libfuzzer_sys::fuzz_target;
use protocol::{
    oauth::{
        client_assertion::UnverifiedAssertion,
        identifiers::{ClientId, Issuer},
        jwks::{KeySet, Signed},
    },
    ports::Timestamp,
};
use serde_json::{Value, json};

const CLIENT: &str = "https://client.example/c";
const NOW: i64 = 1_790_000_000;

#[derive(Arbitrary, Debug)]
struct Input {
    header: String,
    claims: String,
    changes: Vec<(u16, u8)>,
    text: String,
}

struct Prepared {
    issuer: Issuer,
    client_id: ClientId,
    keys: KeySet,
    header: String,
    genuine: String,
}

thread_local! {
    static PREPARED: Prepared = prepare();
}

fn prepare() -> Prepared {
    let signer = Signer::p256();
    let claims = json!({
        "iss": CLIENT, "sub": CLIENT, "aud": "https://gw.example", "exp": NOW + 60, "jti": "1",
    });
    Prepared {
        issuer: Issuer::parse("https://gw.example").expect("an issuer"),
        client_id: ClientId::presented(CLIENT),
        keys: KeySet::parse(signer.jwks().to_string().as_bytes()).expect("a key set"),
        header: signer.header().to_string(),
        genuine: signer.sign(&signer.header(), &claims),
    }
}

/// Insists on everything that an accepted assertion must say, read a second time.
fn must_be_for_us(claims: &str) {
    let claims: Value = serde_json::from_str(claims).expect("the claims are JSON");
    assert_eq!(
        (&claims["iss"], &claims["sub"]),
        (&json!(CLIENT), &json!(CLIENT))
    );
    let audience = match &claims["aud"] {
        Value::Array(list) if list.len() == 1 => list[0].clone(),
        other => other.clone(),
    };
    assert!(audience == "https://gw.example" || audience == "https://gw.example/token");
    let time = |name: &str| claims[name].as_f64();
    let expires = time("exp").expect("it expires");
    assert!(expires > (NOW - 61) as f64 && expires < (NOW + 361) as f64);
    assert!(
        ["iat", "nbf"]
            .iter()
            .all(|name| time(name).unwrap_or(0.0) < (NOW + 61) as f64)
    );
    assert!(
        claims["jti"]
            .as_str()
            .is_some_and(|jti| (1..=256).contains(&jti.len()))
    );
}

fuzz_target!(|input: Input| PREPARED.with(|prepared| judge(|| {
    let Prepared { genuine, keys, .. } = prepared;
    let (message, signature) = genuine.rsplit_once('.').expect("a signature");
    let encoded = |part: &str| BASE64URL_NOPAD.encode(part.as_bytes());
    let mut changed = genuine.clone().into_bytes();
    for (at, byte) in &input.changes {
        let at = usize::from(*at) % changed.len();
        changed[at] = *byte;
    }
    let headed = format!("{}.{}", encoded(&input.header), encoded(&input.claims));
    let claimed = format!("{}.{}", encoded(&prepared.header), encoded(&input.claims));
    for text in [
        genuine.clone(),
        String::from_utf8(changed).unwrap_or_default(),
        format!("{headed}.{signature}"),
        format!("{claimed}.{signature}"),
        input.text.clone(),
    ] {
        let Ok(assertion) = UnverifiedAssertion::parse(&text) else {
            assert_ne!(text, *genuine);
            continue;
        };
        let signed = assertion.signed(keys) == Signed::Yes;
        assert_eq!(
            signed,
            text == *genuine || signed && text.starts_with(&format!("{message}."))
        );
        if assertion
            .check(&prepared.client_id, &prepared.issuer, Timestamp(NOW))
            .is_ok()
        {
            let claims = text.split('.').nth(1).expect("the claims");
            let claims = BASE64URL_NOPAD
                .decode(claims.as_bytes())
                .expect("base64url");
            must_be_for_us(&String::from_utf8(claims).expect("UTF-8"));
        } else {
            assert_ne!(text, *genuine);
        }
    }
})));
