//! Giving a token back (RFC 7009).

use super::{grant::Grant, identifiers::ClientId};

/// Whether `client_id` may end `grant` by one of its tokens: only the client that it was issued
/// to. To any other the token is as good as unknown (RFC 7009 §2.1).
pub fn may_revoke(client_id: &ClientId, grant: &Grant) -> bool {
    grant.client_id == *client_id && grant.revoked.is_none()
}
