//! Looking for secrets where none may be, in every spelling that a program would give them.

use std::{collections::BTreeSet, fmt::Write};

use aho_corasick::AhoCorasick;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use http::header;
use url::{Url, form_urlencoded};

use super::client::Answer;

/// How much of a secret's beginning or end is too much: whoever has it can tell two apart.
const PART: usize = 12;

/// Secrets, each with what it is.
#[derive(Default)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

/// Somewhere that a secret could be: what it is, and what stands there.
pub type Place = (String, Vec<u8>);

impl Secrets {
    pub fn add(&mut self, name: &str, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref().to_vec();
        assert!(secret.len() >= PART, "{name} would be found by chance");
        if !self.0.iter().any(|(_, known)| *known == secret) {
            self.0.push((name.to_owned(), secret));
        }
    }

    /// Adds what these answers brought, from where the standards put it.
    pub fn add_those_of(&mut self, answers: &[Answer]) {
        for answer in answers {
            let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let mut found = Vec::new();
            for name in ["access_token", "refresh_token", "client_secret"] {
                found.extend(json[name].as_str().map(|secret| (name, secret.to_owned())));
            }
            for cookie in answer.headers.get_all(header::SET_COOKIE) {
                let pair = cookie.to_str().unwrap().split(';').next().unwrap();
                found.push(("cookie", pair.split_once('=').unwrap().1.to_owned()));
            }
            let location = answer.headers.get(header::LOCATION);
            let location = location.and_then(|it| Url::parse(it.to_str().unwrap()).ok());
            for (name, value) in location.iter().flat_map(Url::query_pairs) {
                if name == "code" {
                    found.push(("code", value.into_owned()));
                }
            }
            // A cookie that is taken back has no value.
            found.retain(|(_, secret)| secret.len() >= PART);
            for (name, secret) in found {
                self.add(name, secret);
            }
        }
    }

    pub fn search(&self) -> Search {
        let (mut meanings, mut patterns) = (Vec::new(), Vec::new());
        for (name, secret) in &self.0 {
            for (kind, spelling) in spellings(secret) {
                meanings.push((name.clone(), kind));
                patterns.push(spelling);
            }
        }
        Search {
            finder: AhoCorasick::new(patterns).unwrap(),
            meanings,
        }
    }
}

/// Finds many secrets in one pass.
pub struct Search {
    finder: AhoCorasick,
    /// Secret and spelling, by pattern.
    meanings: Vec<(String, &'static str)>,
}

impl Search {
    /// Each secret that `text` holds, and the spelling.
    pub fn found_in(&self, text: &[u8]) -> BTreeSet<(&str, &'static str)> {
        let mut found = BTreeSet::new();
        for text in [text.to_vec(), joined(text)] {
            let matches = self.finder.find_overlapping_iter(&text);
            found.extend(matches.map(|at| {
                let (name, kind) = &self.meanings[at.pattern()];
                (name.as_str(), *kind)
            }));
        }
        found
    }

    /// Every secret in these places, in words.
    pub fn leaks_in(&self, places: &[Place]) -> Vec<String> {
        let leaks = places.iter().flat_map(|(place, text)| {
            let found = self.found_in(text).into_iter();
            found.map(move |(name, kind)| format!("{name} is in {place} ({kind})"))
        });
        leaks.collect()
    }

    /// Insists that none of these places holds a secret.
    #[track_caller]
    pub fn finds_nothing_in(&self, places: &[Place]) {
        let leaks = self.leaks_in(places);
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

/// What a text says when broken lines are put together, as they are and as JSON escapes them.
fn joined(text: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let broken = match rest {
            [b'\n' | b'\r', ..] => Some(after),
            [b'\\', b'n' | b'r', after @ ..] => Some(after),
            _ => None,
        };
        if let Some(after) = broken {
            rest = after.trim_ascii_start();
        } else {
            joined.push(*first);
            rest = after;
        }
    }
    joined
}

fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let form: String = form_urlencoded::byte_serialize(secret).collect();
    let mut all = vec![
        ("raw", secret.to_vec()),
        ("upper case", secret.to_ascii_uppercase()),
        ("lower case", secret.to_ascii_lowercase()),
        ("the beginning", secret[..PART].to_vec()),
        ("the end", secret[secret.len() - PART..].to_vec()),
        ("hex", hex(secret).into_bytes()),
        ("upper hex", hex(secret).to_uppercase().into_bytes()),
        (
            "percent",
            each_byte(secret, "%").to_uppercase().into_bytes(),
        ),
        ("lower percent", each_byte(secret, "%").into_bytes()),
        ("query", form.replace('+', "%20").into_bytes()),
        ("form", form.into_bytes()),
    ];
    if let Ok(text) = std::str::from_utf8(secret) {
        let json = serde_json::to_string(text).unwrap();
        let ascii: String = json.chars().map(json_ascii).collect();
        for (kind, quoted) in [
            ("JSON", json.clone()),
            ("JSON with \\/", json.replace('/', "\\/")),
            ("JSON in ASCII", ascii),
            ("JSON within JSON", serde_json::to_string(&json).unwrap()),
            ("Rust", format!("{text:?}")),
        ] {
            let inner = quoted.trim_matches(|it| it == '"' || it == '\\');
            all.push((kind, inner.as_bytes().to_vec()));
        }
        all.push((
            "Rust in ASCII",
            text.escape_default().to_string().into_bytes(),
        ));
        for (kind, entities) in HTML {
            let escape = |letter| match "&<>\"'/".find(letter) {
                Some(place) => entities[place].to_owned(),
                None => String::from(letter),
            };
            all.push((
                kind,
                text.chars().map(escape).collect::<String>().into_bytes(),
            ));
        }
    }
    // In the middle of something longer, like the secret of `user:secret`, it depends on what is
    // before it.
    for offset in 0..3 {
        let text = [&vec![b'x'; offset], secret].concat();
        for (kind, encoded) in [
            ("base64", BASE64_STANDARD_NO_PAD.encode(&text)),
            ("base64url", BASE64_URL_SAFE_NO_PAD.encode(&text)),
        ] {
            // Without the letters that hold bits of what is before or after.
            let first = (offset * 8).div_ceil(6);
            let last = text.len() * 8 / 6;
            all.push((kind, encoded.as_bytes()[first..last].to_vec()));
        }
    }
    all
}

/// How HTML spells `& < > " ' /`.
const HTML: [(&str, [&str; 6]); 4] = [
    ("HTML", ["&amp;", "&lt;", "&gt;", "&quot;", "&#x27;", "/"]),
    (
        "HTML, all",
        ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#x2F;"],
    ),
    (
        "HTML, decimal",
        ["&#38;", "&#60;", "&#62;", "&#34;", "&#39;", "/"],
    ),
    (
        "HTML, hex",
        ["&#x26;", "&#x3c;", "&#x3e;", "&#x22;", "&#x27;", "/"],
    ),
];

fn json_ascii(letter: char) -> String {
    if letter.is_ascii() {
        return String::from(letter);
    }
    let mut units = [0; 2];
    let units = letter.encode_utf16(&mut units).iter();
    units.fold(String::new(), |text, unit| format!("{text}\\u{unit:04x}"))
}

fn hex(bytes: &[u8]) -> String {
    each_byte(bytes, "")
}

/// Each byte as two digits, with `before` in front of it.
fn each_byte(bytes: &[u8], before: &str) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{before}{byte:02x}").unwrap();
        digits
    })
}

/// A secret as a program might write it: the twelve ways, each by other means than the search's.
pub fn leaks(secret: &str) -> Vec<(&'static str, String)> {
    let text = |letters: &mut dyn Iterator<Item = String>| letters.collect::<String>();
    let half = secret.len() / 2;
    vec![
        ("raw", secret.to_owned()),
        (
            "percent",
            text(&mut form_urlencoded::byte_serialize(secret.as_bytes()).map(str::to_owned)),
        ),
        ("base64", BASE64_STANDARD.encode(secret)),
        ("base64url", BASE64_URL_SAFE_NO_PAD.encode(secret)),
        (
            "hex",
            text(&mut secret.bytes().map(|byte| format!("{byte:02x}"))),
        ),
        ("JSON", serde_json::json!({ "is": secret }).to_string()),
        (
            "HTML",
            secret
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;"),
        ),
        (
            "user:secret",
            BASE64_STANDARD.encode(format!("user:{secret}")),
        ),
        (
            "two lines",
            format!("{}\r\n    {}", &secret[..half], &secret[half..]),
        ),
        ("upper case", secret.to_ascii_uppercase()),
        ("the beginning", format!("{}…", &secret[..PART])),
        ("the end", format!("…{}", &secret[secret.len() - PART..])),
    ]
}

/// What the search must find: without this, finding nothing would prove nothing.
#[test]
fn the_search_finds_a_secret_in_every_spelling() {
    let secret = "s3cret <with> \"+/=~\u{e9}&\" in it, twice";
    let mut secrets = Secrets::default();
    secrets.add("secret", secret);
    let search = secrets.search();
    for (kind, leak) in leaks(secret) {
        for around in [
            format!("{{\"line\":\"{leak}\"}}"),
            format!("x{leak}"),
            format!("<p title=\"{leak}\">\n"),
        ] {
            assert!(
                !search.found_in(around.as_bytes()).is_empty(),
                "{kind}: {around}"
            );
        }
    }
    for before in ["", "a", "bc", "def", "a longer text: "] {
        let text = format!("{before}{secret} and more");
        for leak in [
            BASE64_STANDARD.encode(&text),
            BASE64_URL_SAFE_NO_PAD.encode(&text),
        ] {
            assert!(!search.found_in(leak.as_bytes()).is_empty(), "{leak}");
        }
    }
    let harmless = b"nothing of it: s3cret <wit, \nin it, twi";
    assert_eq!(search.found_in(harmless), BTreeSet::new());
}
