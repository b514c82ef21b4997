use std::sync::Arc;

use crate::policy::UpstreamPolicy;

/// Proof that a request carried a good access token for one upstream. Only the bearer check
/// makes one, so an unauthenticated forward does not compile.
#[derive(Debug)]
pub struct Permit {
    upstream: Arc<UpstreamPolicy>,
    subject: Arc<str>,
}

impl Permit {
    /// The upstream that the token is for.
    pub fn upstream(&self) -> &UpstreamPolicy {
        &self.upstream
    }

    /// The person who approved the client.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}
