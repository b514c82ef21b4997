//! What an access token says, and when it may be used.

use super::grant::Grant;
use crate::{
    policy::{Policy, UpstreamPolicy},
    ports::Timestamp,
};

/// The readable part of an access token of ours, its MAC already found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// Names the grant.
    pub family: Family,
    /// The refresh generation that it was issued with.
    pub generation: u32,
    pub expires_at: Timestamp,
}

/// The name of a grant in its tokens: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family(pub [u8; 16]);

impl AccessToken {
    /// Whether the token may be used at an upstream, its grant being `grant` (RFC 8707 §2).
    pub fn opens(
        &self,
        grant: &Grant,
        upstream: &UpstreamPolicy,
        policy: &Policy,
        now: Timestamp,
    ) -> bool {
        now < self.expires_at && grant.is_live(now) && grant.is_for(upstream, policy)
    }
}
