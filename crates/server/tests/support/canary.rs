//! Looking for secrets where none may be, in every spelling that a program would give them.

use std::fmt::Write;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use url::form_urlencoded;

/// A secret and all that would give it away.
pub struct Canary {
    pub name: &'static str,
    spellings: Vec<(String, Vec<u8>)>,
}

impl Canary {
    pub fn new(name: &'static str, secret: &str) -> Self {
        assert!(secret.len() >= 12, "{name} would be found by chance");
        let mut spellings = vec![
            ("raw".to_owned(), secret.as_bytes().to_vec()),
            ("hex".to_owned(), hex(secret).into_bytes()),
            (
                "upper hex".to_owned(),
                hex(secret).to_uppercase().into_bytes(),
            ),
        ];
        let every_byte = each_byte(secret, "%");
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        for (kind, text) in [
            ("percent", every_byte.to_uppercase()),
            ("lower percent", every_byte),
            ("form", form.clone()),
            ("query", form.replace('+', "%20")),
        ] {
            spellings.push((kind.to_owned(), text.into_bytes()));
        }
        // In the middle of something longer, it depends on what is before it.
        for offset in 0..3 {
            let text = [&vec![b'x'; offset], secret.as_bytes()].concat();
            for (kind, encoded) in [
                ("base64", BASE64_STANDARD_NO_PAD.encode(&text)),
                ("base64url", BASE64_URL_SAFE_NO_PAD.encode(&text)),
            ] {
                // Without the letters that hold bits of what is before or after.
                let first = (offset * 8).div_ceil(6);
                let last = text.len() * 8 / 6;
                let inner = encoded.as_bytes()[first..last].to_vec();
                spellings.push((format!("{kind} at {offset}"), inner));
            }
        }
        Self { name, spellings }
    }

    /// The spelling in which `text` holds the secret.
    pub fn found_in(&self, text: &[u8]) -> Option<&str> {
        let found = self.spellings.iter().find(|(_, spelling)| {
            text.windows(spelling.len())
                .any(|window| window == spelling.as_slice())
        });
        found.map(|(kind, _)| kind.as_str())
    }

    /// Insists that `text`, which is `what`, does not hold the secret.
    #[track_caller]
    pub fn is_not_in(&self, what: &str, text: &[u8]) {
        if let Some(spelling) = self.found_in(text) {
            panic!("{} is in {what} ({spelling})", self.name);
        }
    }
}

fn hex(text: &str) -> String {
    each_byte(text, "")
}

/// Each byte as two digits, with `before` in front of it.
fn each_byte(text: &str, before: &str) -> String {
    text.bytes().fold(String::new(), |mut digits, byte| {
        write!(digits, "{before}{byte:02x}").unwrap();
        digits
    })
}

/// What the search must find: without this, finding nothing would prove nothing.
#[test]
fn the_search_finds_a_secret_in_every_spelling() {
    let secret = "s3cret with+/=~\u{e9} in it";
    let canary = Canary::new("secret", secret);
    let bytes = secret.as_bytes();
    let mut texts = vec![
        secret.to_owned(),
        hex(secret),
        hex(secret).to_uppercase(),
        form_urlencoded::byte_serialize(bytes).collect(),
    ];
    for before in ["", "a", "bc", "def", "a longer text: "] {
        let text = [before.as_bytes(), bytes, b" and more"].concat();
        texts.push(BASE64_STANDARD.encode(&text));
        texts.push(BASE64_URL_SAFE_NO_PAD.encode(&text));
        let alone = [before.as_bytes(), bytes].concat();
        texts.push(BASE64_STANDARD.encode(alone));
    }
    for text in texts {
        let around = format!("{{\"line\":\"{text}\"}}");
        assert!(canary.found_in(around.as_bytes()).is_some(), "{text}");
    }
    assert_eq!(canary.found_in(b"nothing of it: s3cret with"), None);
}
