//! Proof Key for Code Exchange, with the method S256 only (RFC 7636).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::{OAuthError, told};

/// The one method that is accepted and advertised.
pub const S256: &str = "S256";

/// A request without a challenge, of a client that knows no PKCE. Without it a code that leaks is
/// as good as a token, so this is no setting (OAuth 2.1 §7.5.2).
pub fn missing() -> OAuthError {
    OAuthError::invalid_request(
        "code_challenge is missing: the client has to use PKCE with the method S256 (RFC 7636), \
         which is no setting of this server",
    )
    .in_words(
        "The app did not protect its request with PKCE (S256), which MCP demands of every client.",
        "Nothing here can be set to do without it. Look for a PKCE option in the app, update the app, \
         or ask its maker for PKCE with S256.",
    )
}

/// What the client will later prove to know the preimage of (RFC 7636 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CodeChallenge(#[serde(with = "crate::base64url")] [u8; 32]);

impl CodeChallenge {
    /// Reads `code_challenge` and `code_challenge_method`. A missing method would mean `plain`,
    /// which is refused like any other.
    pub fn parse(code_challenge: &str, method: Option<&str>) -> Result<Self, OAuthError> {
        if method != Some(S256) {
            let came = method.map_or("it is missing, which means plain".to_owned(), |method| {
                format!("it is {}", told(method))
            });
            return Err(OAuthError::invalid_request(format!(
                "code_challenge_method must be S256, but {came}: the client has to use PKCE with \
                 the method S256 (RFC 7636)"
            )));
        }
        let mut digest = [0; 32];
        match BASE64_URL_SAFE_NO_PAD.decode_slice(code_challenge, &mut digest) {
            Ok(32) => Ok(Self(digest)),
            _ => Err(OAuthError::invalid_request(
                "code_challenge must be 43 characters of base64url without padding",
            )),
        }
    }

    /// Whether `code_verifier` is what the challenge was made from (RFC 7636 §4.6).
    pub fn is_answered_by(&self, code_verifier: &CodeVerifier) -> bool {
        Sha256::digest(&code_verifier.0).ct_eq(&self.0[..]).into()
    }
}

/// The client's proof, well formed (RFC 7636 §4.1).
pub struct CodeVerifier(String);

impl CodeVerifier {
    /// Reads `code_verifier`.
    pub fn parse(text: &str) -> Result<Self, OAuthError> {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if (43..=128).contains(&text.len()) && text.bytes().all(unreserved) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OAuthError::invalid_grant(
                "code_verifier must be 43 to 128 letters, digits and any of -._~",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7636, appendix B
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_standard_holds() {
        let challenge = CodeChallenge::parse(CHALLENGE, Some("S256")).unwrap();
        assert!(challenge.is_answered_by(&CodeVerifier::parse(VERIFIER).unwrap()));
        assert!(!challenge.is_answered_by(&CodeVerifier::parse(CHALLENGE).unwrap()));
    }

    #[test]
    fn all_bits_of_the_challenge_count() {
        let challenge = CodeChallenge::parse(CHALLENGE, Some("S256")).unwrap();
        for bit in 0..256 {
            let mut other = challenge.clone();
            other.0[bit / 8] ^= 1 << (bit % 8);
            let verifier = CodeVerifier::parse(VERIFIER).unwrap();
            assert!(!other.is_answered_by(&verifier), "{bit}");
        }
    }

    #[test]
    fn az_05_only_s256_is_accepted() {
        for method in [
            None,
            Some("plain"),
            Some("s256"),
            Some("S512"),
            Some("S256 "),
        ] {
            assert!(
                CodeChallenge::parse(CHALLENGE, method).is_err(),
                "{method:?}"
            );
        }
    }

    #[test]
    fn a_challenge_is_43_characters_of_base64url() {
        let padded = format!("{CHALLENGE}=");
        let standard = CHALLENGE.replace('-', "+");
        let loose_bits = CHALLENGE.replace("cM", "cN");
        for bad in ["", &CHALLENGE[1..], &padded, &standard, &loose_bits, "é"] {
            assert!(CodeChallenge::parse(bad, Some("S256")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_verifier_is_43_to_128_unreserved_characters() {
        let (longest, longer) = ("a".repeat(128), "a".repeat(129));
        assert!(CodeVerifier::parse(&longest).is_ok());
        for bad in [
            "",
            &VERIFIER[1..],
            &longer,
            &VERIFIER.replace('-', "+"),
            &VERIFIER.replace('-', " "),
        ] {
            assert!(CodeVerifier::parse(bad).is_err(), "{bad:?}");
        }
    }
}
