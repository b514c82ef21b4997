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
                assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
                assert_eq!(answer.header("cache-control"), "no-store");
                assert_eq!(answer.header("x-frame-options"), "DENY");
                assert!(!answer.text().contains("href="), "{said}");
            }
            Self::ToClient(error) => {
                assert_eq!(status, 303, "{said}");
                let location = Url::parse(answer.header("location")).unwrap();
                let values = |name: &str| -> Vec<String> {
                    let pairs = location.query_pairs().filter(|(key, _)| key == name);
                    pairs.map(|(_, value)| value.into_owned()).collect()
                };
                assert_eq!(values("error"), [error], "{said}");
                assert_eq!(values("iss"), [issuer], "{said}");
                assert!(values("code").is_empty(), "{said}");
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
