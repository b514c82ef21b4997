//! What a person allowed: one subject, one client, one resource. Tokens are handles to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{identifiers::ClientId, identifiers::Resource, scope::Scope};
use crate::{
    policy::{Policy, UpstreamPolicy},
    ports::Timestamp,
    token::KeyId,
};

/// A grant, and where its family of refresh tokens stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub client_id: ClientId,
    /// The person who approved the client.
    pub subject: String,
    /// The canonical address of what was approved, as it was at the time.
    pub resource: Resource,
    /// The name of the upstream that was approved. Another one that is put at the same address
    /// later was not.
    pub upstream: String,
    pub scope: Scope,
    /// Whether the client must prove who it is with a key, each time.
    #[serde(default)]
    pub needs_key: bool,
    pub created_at: Timestamp,
    /// The generation of the one live refresh token, counted from 1.
    pub generation: u32,
    /// When that generation came to be.
    pub rotated_at: Timestamp,
    /// The scope that the request which rotated to this generation asked for, if that was less than
    /// all: a repetition must ask the same.
    pub rotated_with: Option<String>,
    /// Whether an access token of this generation was ever used.
    pub access_used: bool,
    /// Makes refresh tokens unforgeable for who has the key but not the store.
    #[serde(with = "crate::base64url")]
    pub salt: [u8; 16],
    /// The key that made the refresh token of this generation, which alone can make it again. Absent of
    /// a grant of 0.1.0: that of its tokens.
    #[serde(default)]
    pub key: Option<KeyId>,
    /// The key that made the refresh token of the generation before.
    #[serde(default)]
    pub key_before: Option<KeyId>,
    /// When the grant ends unless it is refreshed.
    pub idle_expires_at: Timestamp,
    /// When it ends in any case.
    pub absolute_expires_at: Timestamp,
    pub revoked: Option<Revoked>,
}

/// The optional parameters of a refresh request, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub scope: Option<String>,
    pub resource: Option<Resource>,
}

/// Why a grant no longer holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// The client gave it back (RFC 7009).
    ByClient,
    /// The person who approved the client took that back.
    ByPerson,
    /// The operator ended it.
    ByOperator,
    /// A refresh token was used again that should have been forgotten (RFC 9700 §4.14.2).
    RefreshTokenReuse,
    /// Its authorization code was redeemed again (RFC 6749 §4.1.2).
    CodeReuse,
    /// For a reason that only a newer program knows.
    #[serde(untagged)]
    Unknown(Value),
}

impl Grant {
    /// Whether tokens of this grant may be used.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && now < self.expires_at()
    }

    /// Whether `upstream` is what the person approved, and the address that it was approved at is
    /// still one of its own.
    pub fn is_for(&self, upstream: &UpstreamPolicy, policy: &Policy) -> bool {
        self.upstream == upstream.name && policy.means(self.resource.as_str(), upstream)
    }

    /// When the grant ends if nothing more happens.
    pub fn expires_at(&self) -> Timestamp {
        self.idle_expires_at.min(self.absolute_expires_at)
    }
}

#[cfg(test)]
impl Grant {
    /// A grant of the first generation, made at the beginning of time, which ends soon.
    pub(crate) fn sample() -> Self {
        use super::identifiers::Issuer;

        Self {
            client_id: ClientId::presented("c"),
            subject: "owner".into(),
            resource: Resource::at(&Issuer::parse("https://gw.example").unwrap(), "/mcp"),
            upstream: "one".into(),
            scope: Scope::granted(None).unwrap(),
            needs_key: false,
            created_at: Timestamp(0),
            generation: 1,
            rotated_at: Timestamp(0),
            rotated_with: None,
            access_used: false,
            salt: [0; 16],
            key: None,
            key_before: None,
            idle_expires_at: Timestamp(9),
            absolute_expires_at: Timestamp(9),
            revoked: None,
        }
    }
}
