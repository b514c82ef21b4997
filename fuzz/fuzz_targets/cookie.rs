//! Z19: a cookie is there once or not at all, in whatever order and headers it comes.
#![no_main]

use fuzz::judge;
use http::{HeaderMap, HeaderValue, header};
use libfuzzer_sys::fuzz_target;
use protocol::endpoint::cookie::value as cookie;

const NAME: &str = "n";

fn headers<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
    values
        .into_iter()
        .filter_map(|value| HeaderValue::from_bytes(value).ok())
        .map(|value| (header::COOKIE, value))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
}

// Each line is a header.
fuzz_target!(|input: &[u8]| judge(|| {
    let as_sent = headers(input.split(|byte| *byte == b'\n'));
    let seen = cookie(&as_sent, NAME);

    // Any name that somebody could take for ours.
    let joined: Vec<&[u8]> = as_sent
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let joined = joined.join(&b';');
    let pairs: Vec<&[u8]> = joined.split(|byte| *byte == b';').collect();
    let named = pairs
        .iter()
        .filter(|pair| {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            pair.contains(&b'=') && name.trim_ascii() == NAME.as_bytes()
        })
        .count();
    match seen {
        Some(value) => {
            assert_eq!(named, 1);
            assert!(!value.contains([';', '\n']) && value.trim_ascii() == value);
            let alone = headers([format!("{NAME}={value}").as_bytes()]);
            assert_eq!(cookie(&alone, NAME), Some(value));
        }
        None => assert!(named != 1 || std::str::from_utf8(&joined).is_err()),
    }

    // One header for each, from the last to the first.
    let turned = headers(pairs.iter().rev().copied());
    assert_eq!(cookie(&turned, NAME), seen);
}));
