//! How the program says no.

use serde_json::Value;
use url::Url;

use super::support::client::Answer;

/// What a refused request is answered with.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    /// A page for a person with this status, and no way on from it.
    Page(u16),
    /// A way back to the client that carries this error and no code.
    ToClient(&'static str),
    /// A page with that way back as its one link, which only a person goes.
    ToStranger(&'static str),
    /// The JSON of RFC 6749 §5.2: status and error.
    OAuth(u16, &'static str),
    /// A JSON-RPC error with this status.
    JsonRpc(u16),
    /// This status alone.
    Bare(u16),
}

impl Refusal {
    /// Insists that `answer` is this refusal; `issuer` is who speaks.
    #[track_caller]
    pub fn check(&self, answer: &Answer, issuer: &str) {
        let status = answer.status.as_u16();
        let said = format!("{self:?} was expected: {answer:#?}");
        match *self {
            Self::Page(expected) => {
                assert_eq!(status, expected, "{said}");
                is_protected(answer);
                assert!(!answer.text().contains("href="), "{said}");
            }
            Self::ToClient(error) => {
                assert_eq!(status, 303, "{said}");
                carries(answer.header("location"), error, issuer);
            }
            Self::ToStranger(error) => {
                assert_eq!(status, 400, "{said}");
                is_protected(answer);
                let text = answer.text();
                let mut links = text.split("href=\"").skip(1);
                let (link, None) = (links.next().expect(&said), links.next()) else {
                    panic!("{said}");
                };
                let link = link.split('"').next().unwrap_or_default();
                carries(&link.replace("&#38;", "&"), error, issuer);
            }
            Self::OAuth(expected, error) => {
                assert_eq!(
                    (status, answer.json()["error"].as_str()),
                    (expected, Some(error)),
                    "{said}"
                );
                assert_eq!(answer.header("cache-control"), "no-store");
            }
            Self::JsonRpc(expected) => {
                assert_eq!(status, expected, "{said}");
                assert!(answer.json()["error"]["code"].is_i64(), "{said}");
                assert_eq!(answer.json()["result"], Value::Null, "{said}");
            }
            Self::Bare(expected) => {
                assert_eq!(status, expected, "{said}");
                assert!(answer.body.is_empty(), "{said}");
            }
        }
        if !matches!(self, Self::ToClient(_)) {
            assert!(!answer.headers.contains_key("location"), "{said}");
        }
        assert!(!answer.headers.contains_key("set-cookie"), "{said}");
    }
}

/// Insists that a page is not kept, nor shown inside another.
#[track_caller]
fn is_protected(page: &Answer) {
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("x-frame-options"), "DENY");
}

/// Insists that the way back to a client carries this error and no code.
#[track_caller]
fn carries(way_back: &str, error: &str, issuer: &str) {
    let way_back = Url::parse(way_back).unwrap();
    let values = |name: &str| -> Vec<String> {
        let pairs = way_back.query_pairs().filter(|(key, _)| key == name);
        pairs.map(|(_, value)| value.into_owned()).collect()
    };
    assert_eq!(values("error"), [error], "{way_back}");
    assert_eq!(values("iss"), [issuer], "{way_back}");
    assert!(values("code").is_empty(), "{way_back}");
}
