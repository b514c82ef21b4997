//! Redeeming an authorization code (RFC 6749 §4.1.3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    client_assertion,
    client_auth::Proof,
    error::{OAuthError, told},
    grant::Grant,
    identifiers::{ClientId, Resource},
    pkce::{CodeChallenge, CodeVerifier},
    redirect_uri::RedirectUri,
    scope::Scope,
};
use crate::ports::Timestamp;

/// How long after a redemption a second one is taken for the same request sent twice by the
/// network, and is refused without ending the grant.
const TRANSPORT_DUPLICATE: Duration = Duration::from_secs(2);

/// What a code stands for, from approval to expiry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCode {
    pub client_id: ClientId,
    pub redirect_uri: RedirectUri,
    pub code_challenge: CodeChallenge,
    pub subject: String,
    pub resource: Resource,
    /// The name of the upstream that was approved.
    pub upstream: String,
    pub scope: Scope,
    /// Whether the client must prove who it is with a key, each time.
    #[serde(default)]
    pub needs_key: bool,
    pub expires_at: Timestamp,
}

/// A request to redeem a code, by a client that proved who it is.
pub struct CodeExchange<'a> {
    pub client_id: &'a ClientId,
    pub proof: Proof,
    pub code_verifier: &'a CodeVerifier,
    /// Optional; compared when sent (OAuth 2.1 §10.2).
    pub redirect_uri: Option<&'a str>,
    /// Optional, canonical; compared when sent (RFC 8707 §2.2).
    pub resource: Option<&'a Resource>,
}

impl IssuedCode {
    /// Decides whether this code may be redeemed. Asks nothing of the outside world, and nothing
    /// is spent by asking.
    pub fn redeem(&self, by: &CodeExchange<'_>, now: Timestamp) -> Result<(), OAuthError> {
        if self.client_id != *by.client_id {
            return Err(OAuthError::invalid_grant(
                "the code was issued to another client",
            ));
        }
        if self.needs_key && by.proof != Proof::Key {
            return Err(client_assertion::missing());
        }
        if self.expires_at <= now {
            return Err(OAuthError::invalid_grant("the code has expired"));
        }
        if !self.code_challenge.is_answered_by(by.code_verifier) {
            return Err(OAuthError::invalid_grant("code_verifier does not match"));
        }
        if let Some(uri) = by.redirect_uri
            && uri != self.redirect_uri.as_str()
        {
            // Only the log shows both: who redeems a stolen code learns nothing.
            let (came, expected) = (told(uri), told(self.redirect_uri.as_str()));
            return Err(OAuthError::invalid_grant(
                "redirect_uri is not the one of the authorization request",
            )
            .with_detail(format!(
                "it is {came}, and the authorization request had {expected}"
            )));
        }
        if by
            .resource
            .is_some_and(|resource| *resource != self.resource)
        {
            return Err(OAuthError::invalid_target("resource was not granted"));
        }
        Ok(())
    }
}

/// Whether a valid second redemption at `now`, of a code that made `grant`, means that the code
/// was stolen (RFC 6749 §4.1.2).
pub fn is_theft(grant: &Grant, now: Timestamp) -> bool {
    now - grant.created_at > TRANSPORT_DUPLICATE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::error::ErrorCode;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    #[test]
    fn a_code_is_bound_to_everything_that_was_approved() {
        let issuer = crate::oauth::identifiers::Issuer::parse("https://gw.example").unwrap();
        let (a, b) = (
            Resource::at(&issuer, "/mcp/a"),
            Resource::at(&issuer, "/mcp/b"),
        );
        let (client, other) = (ClientId::presented("c"), ClientId::presented("d"));
        let (right, wrong) = (
            CodeVerifier::parse(VERIFIER).unwrap(),
            CodeVerifier::parse(&VERIFIER.replace('d', "e")).unwrap(),
        );
        let code = IssuedCode {
            client_id: client.clone(),
            redirect_uri: RedirectUri::parse("https://c.example/cb").unwrap(),
            code_challenge: CodeChallenge::parse(
                "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                Some("S256"),
            )
            .unwrap(),
            subject: "owner".into(),
            resource: a.clone(),
            upstream: "a".into(),
            scope: Scope::granted(None).unwrap(),
            needs_key: false,
            expires_at: Timestamp(300),
        };
        let good = || CodeExchange {
            client_id: &client,
            proof: Proof::NoKey,
            code_verifier: &right,
            redirect_uri: None,
            resource: None,
        };
        let redeem =
            |by: &CodeExchange<'_>, now| code.redeem(by, Timestamp(now)).map_err(|e| e.code);

        assert_eq!(redeem(&good(), 299), Ok(()));
        assert_eq!(
            redeem(
                &CodeExchange {
                    redirect_uri: Some("https://c.example/cb"),
                    resource: Some(&a),
                    ..good()
                },
                0
            ),
            Ok(())
        );
        assert_eq!(redeem(&good(), 300), Err(ErrorCode::InvalidGrant));
        assert_eq!(
            redeem(
                &CodeExchange {
                    client_id: &other,
                    ..good()
                },
                0
            ),
            Err(ErrorCode::InvalidGrant)
        );
        assert_eq!(
            redeem(
                &CodeExchange {
                    code_verifier: &wrong,
                    ..good()
                },
                0
            ),
            Err(ErrorCode::InvalidGrant)
        );
        assert_eq!(
            redeem(
                &CodeExchange {
                    redirect_uri: Some("https://c.example/cb/"),
                    ..good()
                },
                0
            ),
            Err(ErrorCode::InvalidGrant)
        );
        assert_eq!(
            redeem(
                &CodeExchange {
                    resource: Some(&b),
                    ..good()
                },
                0
            ),
            Err(ErrorCode::InvalidTarget)
        );
    }
}
