//! Z01: where a redirect URI leads, a second and strict reader sees as well.
#![no_main]

use fluent_uri::Uri;
use fuzz::judge;
use libfuzzer_sys::fuzz_target;
use protocol::oauth::redirect_uri::{LONGEST, RedirectUri};
use url::Url;

const NEVER: [&str; 12] = [
    "javascript",
    "data",
    "vbscript",
    "file",
    "blob",
    "about",
    "ftp",
    "ws",
    "wss",
    "intent",
    "view-source",
    "mailto",
];

fuzz_target!(|text: &str| judge(|| {
    let Some(accepted) = RedirectUri::parse(text) else {
        return;
    };
    assert_eq!(accepted.as_str(), text);
    assert!(text.len() <= LONGEST);
    let browser = Url::parse(text).expect("a browser reads it");
    let strict = Uri::parse(text).expect("RFC 3986 knows it");
    assert_eq!(strict.scheme().as_str(), browser.scheme());
    assert!(!NEVER.contains(&browser.scheme()));
    assert!(browser.username().is_empty() && browser.password().is_none());
    assert!(strict.fragment().is_none() && browser.fragment().is_none());
    let default = match browser.scheme() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    match strict.authority() {
        Some(authority) => {
            match browser.host() {
                // An address has many spellings; what an application's scheme has for a host is
                // compared with nothing.
                Some(url::Host::Ipv6(address)) => {
                    assert_eq!(
                        authority.host().trim_matches(['[', ']']).parse(),
                        Ok(address)
                    );
                }
                _ => assert_eq!(Some(authority.host()), browser.host_str()),
            }
            assert!(!authority.has_userinfo());
            let port = authority
                .port()
                .map(|port| port.as_str())
                .unwrap_or_default();
            assert_eq!(
                port.parse().ok().or(default),
                browser.port_or_known_default()
            );
        }
        // Only applications do without one.
        None => assert!(default.is_none() && !browser.has_host()),
    }
    let path = strict.path().as_str();
    let is_web = default.is_some();
    assert_eq!(
        if is_web && path.is_empty() { "/" } else { path },
        browser.path()
    );
    // A browser writes an apostrophe in a query as an escape.
    let as_a_browser = |query: &str| {
        if is_web {
            query.replace('\'', "%27")
        } else {
            query.to_owned()
        }
    };
    let query = strict.query().map(|query| as_a_browser(query.as_str()));
    assert_eq!(query.as_deref(), browser.query());
    if browser.scheme() == "http" {
        let host = browser.host_str().unwrap_or_default();
        assert!(["127.0.0.1", "[::1]", "localhost"].contains(&host));
    }

    // An answer adds to it and changes nothing.
    let answer = accepted.with_parameters(&[("code", "a&b"), ("state", "#")]);
    let answer = Url::parse(&answer).expect("the answer is a URL");
    assert_eq!(
        (answer.host(), answer.path()),
        (browser.host(), browser.path())
    );
    let added = |name: &str| answer.query_pairs().filter(|(key, _)| key == name).count();
    assert_eq!((added("code"), added("state")), (1, 1));
}));
