//! Giving a token back (RFC 7009).

use super::{client_auth::Proof, grant::Grant, identifiers::ClientId};

/// Whether `client_id` may end `grant` by one of its tokens: only the client that it was issued
/// to, with its key if it must show that. To any other the token is as good as unknown (RFC 7009
/// §2.1).
pub fn may_revoke(client_id: &ClientId, proof: Proof, grant: &Grant) -> bool {
    let is_proved = !grant.needs_key || proof == Proof::Key;
    grant.client_id == *client_id && is_proved && grant.revoked.is_none()
}
