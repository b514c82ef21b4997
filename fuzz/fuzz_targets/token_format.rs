//! Z11: a token says what it was made of, and no other text says anything.
#![no_main]

use arbitrary::Arbitrary;
use data_encoding::BASE64URL_NOPAD;
use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::{
    oauth::{
        access_token::{AccessToken, Family},
        identifiers::Issuer,
    },
    ports::Timestamp,
    token::{Keys, Maker, PresentedRefreshToken},
};

#[derive(Arbitrary, Debug)]
struct Input {
    family: [u8; 16],
    salt: [u8; 16],
    generation: u32,
    expires_at: i64,
    changes: Vec<(u8, u8)>,
    cut: u8,
    appended: String,
    text: String,
}

thread_local! {
    static KEYS: Keys = Keys::derive(
        &[7; 32],
        [],
        &Issuer::parse("https://gw.example").expect("an issuer"),
    );
}

/// Whatever is recognised is, to the letter, what we would make of its content.
fn check(keys: &Keys, text: &str) {
    if let Some(token) = keys.recognise_access_token(text) {
        assert_eq!(text, keys.access_token(&token));
    }
    if keys.recognise_authorization_code(text).is_some() {
        let bytes = BASE64URL_NOPAD
            .decode(&text.as_bytes()[5..])
            .expect("base64url");
        let transaction = bytes[4..]
            .first_chunk()
            .expect("16 bytes name the transaction");
        let made = keys.authorization_code(Maker::named(keys.first()), transaction);
        assert_eq!(made.as_deref(), Some(text));
    }
    if let Some(token) = PresentedRefreshToken::parse(text) {
        let bytes = BASE64URL_NOPAD
            .decode(&text.as_bytes()[5..])
            .expect("base64url");
        let unnamed = match bytes.len() {
            52 => &bytes[..],
            length => {
                assert_eq!(length, 56);
                &bytes[4..]
            }
        };
        assert_eq!(format!("mopr_{}", BASE64URL_NOPAD.encode(&bytes)), text);
        assert_eq!(unnamed[..16], token.family.0);
        assert_eq!(unnamed[16..20], token.generation.to_be_bytes());
    }
}

fuzz_target!(|input: Input| KEYS.with(|keys| judge(|| {
    let family = Family(input.family);
    let token = AccessToken {
        family,
        generation: input.generation,
        expires_at: Timestamp(input.expires_at),
    };
    let access_token = keys.access_token(&token);
    assert_eq!(keys.recognise_access_token(&access_token), Some(token));
    let maker = Maker::named(keys.first());
    let code = keys
        .authorization_code(maker, &input.family)
        .expect("our own key");
    assert!(keys.recognise_authorization_code(&code).is_some());
    let refresh_token = keys.refresh_token(maker, family, input.generation, &input.salt);
    let refresh_token = refresh_token.expect("our own key");
    let read = PresentedRefreshToken::parse(&refresh_token).expect("our own refresh token");
    assert_eq!((read.family, read.generation), (family, input.generation));

    for made in [&access_token, &code, &refresh_token] {
        check(keys, made);
        let mut changed = made.clone().into_bytes();
        for (at, byte) in &input.changes {
            let at = usize::from(*at) % changed.len();
            changed[at] = *byte;
        }
        changed.truncate(changed.len() - usize::from(input.cut) % changed.len());
        if let Ok(changed) = String::from_utf8(changed) {
            check(keys, &changed);
            if changed != access_token {
                assert_eq!(keys.recognise_access_token(&changed), None);
            }
            if changed != code {
                assert!(keys.recognise_authorization_code(&changed).is_none());
            }
        }
        if !input.appended.is_empty() {
            check(keys, &format!("{made}{}", input.appended));
        }
        for prefix in ["mopa_", "mopc_", "mopr_", "mops_"] {
            check(keys, &format!("{prefix}{}", &made[5..]));
        }
    }
    check(keys, &input.text);
})));
