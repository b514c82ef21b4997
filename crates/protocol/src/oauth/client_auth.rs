//! How a client says who it is at the token endpoint (RFC 6749 §2.3, RFC 7521 §4.2).

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::{
    client_assertion::{JWT_BEARER, UnverifiedAssertion},
    error::{OAuthError, told},
    form::Form,
    identifiers::ClientId,
};

/// The ways that we offer (RFC 7591 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    None,
    ClientSecretPost,
    ClientSecretBasic,
    PrivateKeyJwt,
}

/// What is kept of a client secret. Secrets are long and random, so that one hash is enough.
pub fn secret_digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// What a client proved beside its name, or its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// That it has its key.
    Key,
    NoKey,
}

/// What a request presents, not yet compared with anything.
pub struct Presented {
    pub client_id: ClientId,
    /// The readings of the secret that are worth a try; none for a public client.
    secrets: Vec<String>,
    /// In place of a secret.
    pub assertion: Option<UnverifiedAssertion>,
    /// Whether the `Authorization` header was used, so that a refusal names the scheme.
    pub by_header: bool,
}

impl Presented {
    /// Reads client credentials from the `Authorization` header, if there is one, and the form.
    pub fn read(authorization: Option<&str>, form: &Form) -> Result<Self, OAuthError> {
        let client_id = form.one("client_id")?;
        let secret = form.one("client_secret")?;
        if let Some(assertion) = assertion(form)? {
            if authorization.is_some() || secret.is_some() {
                return Err(OAuthError::invalid_request(
                    "client_assertion must be the only client credentials",
                ));
            }
            let named = assertion.client_id();
            let client_id = client_id
                .or(named)
                .ok_or_else(|| OAuthError::invalid_client("client_id is missing"))?;
            return Ok(Self {
                client_id: ClientId::presented(client_id),
                secrets: Vec::new(),
                assertion: Some(assertion),
                by_header: false,
            });
        }
        let Some(authorization) = authorization else {
            let client_id =
                client_id.ok_or_else(|| OAuthError::invalid_client("client_id is missing"))?;
            return Ok(Self {
                client_id: ClientId::presented(client_id),
                secrets: secret.map(str::to_owned).into_iter().collect(),
                assertion: None,
                by_header: false,
            });
        };
        if secret.is_some() {
            return Err(OAuthError::invalid_request(
                "client credentials are given both in the header and in the body",
            ));
        }
        let (user, password) = basic(authorization)
            .ok_or_else(|| OAuthError::invalid_client("the Authorization header is not Basic"))?;
        // The standard has both parts form-encoded (RFC 6749 §2.3.1); some clients send them raw.
        let encoded_id = form_decoded(&user);
        if client_id.is_some_and(|in_body| in_body != user && in_body != encoded_id) {
            let (header, body) = (told(&encoded_id), told(client_id.unwrap_or_default()));
            return Err(OAuthError::invalid_request(
                "client_id differs between the header and the body",
            )
            .with_detail(format!(
                "it is {header} in the header and {body} in the body"
            )));
        }
        let mut secrets = vec![form_decoded(&password)];
        if secrets[0] != password {
            secrets.push(password);
        }
        secrets.retain(|secret| !secret.is_empty());
        Ok(Self {
            client_id: ClientId::presented(encoded_id),
            secrets,
            assertion: None,
            by_header: true,
        })
    }

    /// Checks the credentials against the digest of the client's secret, if it has one. It may
    /// send that secret either way, whichever of the two it registered.
    pub fn proves(&self, expected: Option<&[u8; 32]>) -> Result<(), OAuthError> {
        match expected {
            Some(digest) => {
                let matches = |secret: &String| bool::from(secret_digest(secret).ct_eq(digest));
                // Each reading is tried, so that the time tells nothing of which was right.
                if self
                    .secrets
                    .iter()
                    .map(matches)
                    .fold(false, |any, one| any | one)
                {
                    Ok(())
                } else {
                    Err(OAuthError::invalid_client(
                        "the client secret is missing or wrong",
                    ))
                }
            }
            None if self.secrets.is_empty() => Ok(()),
            None => Err(OAuthError::invalid_client("this client has no secret")),
        }
    }
}

/// The assertion of a client that signs one (RFC 7521 §4.2).
fn assertion(form: &Form) -> Result<Option<UnverifiedAssertion>, OAuthError> {
    match (
        form.one("client_assertion_type")?,
        form.one("client_assertion")?,
    ) {
        (None, None) => Ok(None),
        (Some(JWT_BEARER), Some(assertion)) => UnverifiedAssertion::parse(assertion).map(Some),
        (Some(_), Some(_)) => Err(OAuthError::invalid_client(
            "client_assertion_type must be urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )),
        (Some(_), None) => Err(OAuthError::invalid_request("client_assertion is missing")),
        (None, Some(_)) => Err(OAuthError::invalid_request(
            "client_assertion_type is missing",
        )),
    }
}

/// The two parts of `Basic` credentials (RFC 7617 §2).
fn basic(authorization: &str) -> Option<(String, String)> {
    let (scheme, credentials) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(credentials.trim_start()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn form_decoded(text: &str) -> String {
    // Raw, these would end the name; but all of the text is one value.
    let text = text.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(text.as_bytes())
        .map(|(name, _)| name.into_owned())
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::error::ErrorCode;

    const SECRET: &str = "s+/=%41 &é";

    fn encoded(text: &str) -> String {
        form_urlencoded::byte_serialize(text.as_bytes()).collect()
    }

    fn authenticate(
        header: Option<&str>,
        body: &str,
        secret: Option<&str>,
    ) -> Result<(), ErrorCode> {
        let header = header.map(|pair| format!("Basic {}", BASE64_STANDARD.encode(pair)));
        let form = Form::parse(body.as_bytes()).unwrap();
        let digest = secret.map(secret_digest);
        Presented::read(header.as_deref(), &form)
            .and_then(|presented| presented.proves(digest.as_ref()))
            .map_err(|error| error.code)
    }

    #[test]
    fn tk_12_a_secret_is_accepted_by_post_and_by_both_encodings_of_basic() {
        let in_body = format!("client_id=c1&client_secret={}", encoded(SECRET));
        let percent = format!("c1:{}", encoded(SECRET));
        let raw = format!("c1:{SECRET}");
        assert_eq!(authenticate(None, &in_body, Some(SECRET)), Ok(()));
        assert_eq!(authenticate(Some(&percent), "", Some(SECRET)), Ok(()));
        assert_eq!(authenticate(Some(&raw), "", Some(SECRET)), Ok(()));
        assert_eq!(
            authenticate(Some(&raw), "client_id=c1", Some(SECRET)),
            Ok(())
        );
    }

    #[test]
    fn tk_11_a_wrong_or_missing_secret_is_an_invalid_client() {
        let wrong = Err(ErrorCode::InvalidClient);
        assert_eq!(authenticate(Some("c1:no"), "", Some(SECRET)), wrong);
        assert_eq!(authenticate(Some("c1:"), "", Some(SECRET)), wrong);
        assert_eq!(authenticate(Some("c1"), "", Some(SECRET)), wrong);
        assert_eq!(authenticate(None, "client_id=c1", Some(SECRET)), wrong);
        assert_eq!(
            authenticate(None, "client_id=c1&client_secret=no", Some(SECRET)),
            wrong
        );
        assert_eq!(authenticate(None, "", Some(SECRET)), wrong);
    }

    #[test]
    fn all_bits_of_a_secrets_digest_count() {
        let form = Form::parse(b"client_id=c1&client_secret=x").unwrap();
        let presented = Presented::read(None, &form).unwrap();
        let digest = secret_digest("x");
        assert!(presented.proves(Some(&digest)).is_ok());
        for bit in 0..256 {
            let mut other = digest;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(presented.proves(Some(&other)).is_err(), "{bit}");
        }
    }

    #[test]
    fn the_body_may_name_the_client_in_either_spelling_of_the_header() {
        let header = Some("c%3A1:x");
        for same in ["", "client_id=c%3A1", "client_id=c%253A1"] {
            assert_eq!(authenticate(header, same, Some("x")), Ok(()), "{same}");
        }
        assert_eq!(
            authenticate(header, "client_id=c%2525%253A1", Some("x")),
            Err(ErrorCode::InvalidRequest)
        );
    }

    /// N-TK-23
    #[test]
    fn tk_11_basic_credentials_are_read_to_their_end() {
        let wrong = Err(ErrorCode::InvalidClient);
        for password in ["x=y", "x&y", "x&"] {
            let pair = format!("c1:{password}");
            assert_eq!(authenticate(Some(&pair), "", Some("x")), wrong, "{pair}");
            assert_eq!(authenticate(Some(&pair), "", Some(password)), Ok(()));
        }
        for user in ["c1=x", "c1&x"] {
            let header = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:x")));
            let presented = Presented::read(Some(&header), &Form::default()).unwrap();
            assert_eq!(presented.client_id.as_str(), user);
        }
    }

    #[test]
    fn a_public_client_needs_no_secret_and_may_not_send_one() {
        assert_eq!(authenticate(None, "client_id=c1", None), Ok(()));
        assert_eq!(
            authenticate(None, "client_id=c1&client_secret=", None),
            Ok(())
        );
        assert_eq!(authenticate(Some("c1:"), "", None), Ok(()));
        assert_eq!(
            authenticate(None, "client_id=c1&client_secret=x", None),
            Err(ErrorCode::InvalidClient)
        );
    }

    #[test]
    fn tk_13_two_ways_at_once_are_an_invalid_request() {
        let both = Err(ErrorCode::InvalidRequest);
        assert_eq!(
            authenticate(Some("c1:x"), "client_secret=x", Some("x")),
            both
        );
        assert_eq!(authenticate(Some("c1:x"), "client_id=c2", Some("x")), both);
        assert_eq!(authenticate(None, "client_id=c1&client_id=c1", None), both);
    }

    #[test]
    fn a_header_that_is_not_basic_is_an_invalid_client() {
        for header in ["Bearer x", "Basic", "Basic !!!", "Basic w6k6", ""] {
            let read = Presented::read(Some(header), &Form::default());
            let refused = read.is_err_and(|error| error.code == ErrorCode::InvalidClient);
            assert_eq!(refused, header != "Basic w6k6", "{header}");
        }
    }
}
