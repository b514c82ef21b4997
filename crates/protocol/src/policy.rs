//! What the operator's configuration means, in parsed types. Made once at start; after that
//! nothing can be misconfigured.

use std::{sync::Arc, time::Duration};

use http::Uri;
use ipnet::IpNet;

use crate::{
    forward::credential::Credential,
    identity::password::SignIn,
    oauth::identifiers::{Issuer, Resource},
};

/// Everything that is decided before the first request.
#[derive(Debug)]
pub struct Policy {
    /// The public URL, and the `issuer` of everything issued (RFC 8414 §2).
    pub issuer: Issuer,
    /// How the person who approves a client proves who they are.
    pub sign_in: SignIn,
    /// The MCP servers behind this proxy; never empty, names and paths are unique.
    pub upstreams: Vec<Arc<UpstreamPolicy>>,
    pub tokens: TokenPolicy,
    pub limits: Limits,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Browser origins that may call the MCP endpoints, beside our own and loopback ones.
    pub allowed_origins: Vec<String>,
    /// How long a grant read from the store is believed. `None`: for ever, since no other
    /// process writes to this store and this one keeps its memory true.
    pub grant_freshness: Option<Duration>,
}

/// One MCP server that this proxy stands in front of.
#[derive(Debug)]
pub struct UpstreamPolicy {
    /// Its name in the configuration: lower-case letters, digits and hyphens.
    pub name: String,
    /// What people are shown.
    pub title: String,
    /// Where clients reach it, below the public URL, with a leading slash: `/mcp/<name>`.
    pub path: String,
    /// `issuer` + `path`: the audience of its tokens.
    pub resource: Resource,
    pub destination: Destination,
}

/// What is behind an upstream's path.
#[derive(Debug)]
pub enum Destination {
    /// An MCP server over HTTP, and what it demands of us.
    Remote {
        endpoint: Uri,
        credential: Credential,
    },
    /// The demonstration server inside this program.
    Demo,
}

/// Lifetimes of what is issued.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// How long an access token works.
    pub access_lifetime: Duration,
    /// How long a refresh token works without being used.
    pub refresh_idle: Duration,
    /// How long a grant lives at most, however often it is refreshed.
    pub refresh_absolute: Duration,
    /// How long the predecessor of the live refresh token gets the same answer again.
    pub refresh_retry_window: Duration,
    /// How long an authorization code works.
    pub code_lifetime: Duration,
    /// Whether a genuine refresh token from a generation that the store does not know yet is
    /// taken as proof that the store lost writes.
    pub heal_store_regression: bool,
}

const DAY: Duration = Duration::from_hours(24);

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            access_lifetime: Duration::from_hours(1),
            refresh_idle: 30 * DAY,
            refresh_absolute: 365 * DAY,
            refresh_retry_window: Duration::from_mins(2),
            code_lifetime: Duration::from_mins(5),
            heal_store_regression: true,
        }
    }
}

/// Bounds on what a request may ask of this program.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes in the body of a request to an MCP endpoint.
    pub mcp_body: u64,
    /// Bytes in the body of a request to `/token`, `/revoke` and the consent page.
    pub oauth_body: usize,
    /// Bytes in the body of a registration.
    pub registration_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mcp_body: 4 * 1024 * 1024,
            oauth_body: 64 * 1024,
            registration_body: 16 * 1024,
        }
    }
}
