//! A client that proves who it is with a key: the JWT that it signs for each request
//! (RFC 7523 §3, `private_key_jwt`).

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    error::OAuthError,
    identifiers::{ClientId, Issuer},
    jwks::{ALGORITHMS, KeySet, Signed},
    strict_json,
};
use crate::ports::Timestamp;

/// The `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest assertion, in bytes.
const LONGEST: usize = 8 * 1024;
/// The longest `jti` and `kid`, in bytes.
const LONGEST_NAME: usize = 256;
/// How long an assertion may be good for, from now.
const LONGEST_LIFE: Duration = Duration::from_mins(5);
/// How far a client's clock may be from ours.
const SKEW: Duration = Duration::from_mins(1);

/// An assertion as it came. What it says is the sender's word until its signature is checked.
#[derive(Debug)]
pub struct UnverifiedAssertion {
    alg: String,
    kid: Option<String>,
    claims: Map<String, Value>,
    /// What was signed.
    message: String,
    signature: String,
}

/// What of a good assertion is to be remembered, so that it works once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    pub jti: String,
    /// From then on it is refused for its age.
    pub until: Timestamp,
}

impl UnverifiedAssertion {
    /// Reads a signed JWT in the compact form (RFC 7515 §3.1).
    pub fn parse(text: &str) -> Result<Self, OAuthError> {
        let malformed = || refused("client_assertion is not a signed JWT");
        if text.len() > LONGEST {
            return Err(refused("client_assertion is longer than 8192 bytes"));
        }
        let (message, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = message.split_once('.').ok_or_else(malformed)?;
        let header = part(header).ok_or_else(malformed)?;
        let claims = part(claims).ok_or_else(malformed)?;
        // Not left to the library: what does not decode in the one canonical way is no signature.
        let is_signed = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| !signature.is_empty());
        if !is_signed {
            return Err(malformed());
        }
        let alg = header.get("alg").and_then(Value::as_str);
        let Some(alg) = alg.filter(|alg| ALGORITHMS.contains(alg)) else {
            return Err(refused(
                "client_assertion must be signed with RS256, PS256, ES256 or EdDSA",
            ));
        };
        if header.contains_key("crit") {
            return Err(refused("client_assertion has critical header parameters"));
        }
        // A token that was made for something else is no assertion (RFC 8725 §3.11).
        let is_ours = match header.get("typ") {
            None => true,
            Some(Value::String(typ)) => {
                let typ = typ.to_ascii_lowercase();
                ["jwt", "client-authentication+jwt"].contains(&&*typ)
            }
            Some(_) => false,
        };
        if !is_ours {
            return Err(refused("client_assertion is a JWT of another type"));
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= LONGEST_NAME => Some(kid.clone()),
            Some(_) => return Err(refused("kid must be a string of at most 256 bytes")),
        };
        Ok(Self {
            alg: alg.to_owned(),
            kid,
            claims,
            message: message.to_owned(),
            signature: signature.to_owned(),
        })
    }

    /// The client that it claims to come from.
    pub fn client_id(&self) -> Option<&str> {
        self.text("sub")
    }

    /// Checks what it says: that it is by `client_id` and about it, for us, for now, and once.
    ///
    /// Its one audience is our issuer or our token endpoint, to the letter. The issuer is what
    /// newer clients name; the token endpoint is what RFC 7523 §3 has, and older libraries. A list
    /// with somebody else in it would be an assertion that works there too.
    pub fn check(
        &self,
        client_id: &ClientId,
        issuer: &Issuer,
        now: Timestamp,
    ) -> Result<Once, OAuthError> {
        for claim in ["iss", "sub"] {
            if self.text(claim) != Some(client_id.as_str()) {
                return Err(refused(
                    "iss and sub of client_assertion must be the client_id",
                ));
            }
        }
        let audience = match self.claims.get("aud") {
            Some(Value::String(one)) => Some(one.as_str()),
            Some(Value::Array(list)) => match &list[..] {
                [one] => one.as_str(),
                _ => None,
            },
            _ => None,
        };
        if !audience.is_some_and(|aud| aud == issuer.as_str() || aud == issuer.url("/token")) {
            return Err(refused(
                "aud of client_assertion must be this issuer, or its token endpoint, alone",
            ));
        }
        let exp = self
            .time("exp")?
            .ok_or_else(|| refused("client_assertion has no exp"))?;
        let until = exp + SKEW;
        if until <= now {
            return Err(refused("client_assertion has expired"));
        }
        if now + LONGEST_LIFE + SKEW < exp {
            return Err(refused("client_assertion must expire within five minutes"));
        }
        for claim in ["iat", "nbf"] {
            if self.time(claim)?.is_some_and(|time| now + SKEW < time) {
                return Err(refused("client_assertion is from the future"));
            }
        }
        match self.text("jti") {
            Some(jti) if (1..=LONGEST_NAME).contains(&jti.len()) => Ok(Once {
                jti: jti.to_owned(),
                until,
            }),
            _ => Err(refused(
                "client_assertion must have a jti of 1 to 256 bytes",
            )),
        }
    }

    /// Whether it was signed with one of `keys`.
    pub fn signed(&self, keys: &KeySet) -> Signed {
        keys.signed(
            &self.alg,
            self.kid.as_deref(),
            &self.message,
            &self.signature,
        )
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// A `NumericDate` (RFC 7519 §2), to the second.
    fn time(&self, claim: &str) -> Result<Option<Timestamp>, OAuthError> {
        match self.claims.get(claim) {
            None => Ok(None),
            Some(Value::Number(number)) => seconds(number)
                .map(|seconds| Some(Timestamp(seconds)))
                .ok_or_else(|| refused("a time in client_assertion is out of range")),
            Some(_) => Err(refused("a time in client_assertion is not a number")),
        }
    }
}

/// The refusal of a request that should have had one.
pub fn missing() -> OAuthError {
    refused("this client must authenticate with a client_assertion")
}

/// The refusal of an assertion whose key or signature does not fit.
pub fn not_signed() -> OAuthError {
    refused("client_assertion is not signed with a key of the client")
}

/// The refusal of an assertion that came before.
pub fn used_before() -> OAuthError {
    refused("client_assertion was used before, make one for each request")
}

fn refused(description: &'static str) -> OAuthError {
    OAuthError::invalid_client(description)
}

fn part(encoded: &str) -> Option<Map<String, Value>> {
    strict_json::object(&BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?)
}

/// Whole seconds, of a number that may have a fraction. Times before 1970 and after 9999 are none.
fn seconds(number: &serde_json::Number) -> Option<i64> {
    const LAST: i64 = 253_402_300_799;
    let seconds = if let Some(whole) = number.as_i64() {
        whole
    } else {
        let text = number.as_f64()?.trunc().to_string();
        text.parse().ok()?
    };
    (0..=LAST).contains(&seconds).then_some(seconds)
}
