//! What clients learn about us before they start (RFC 8414, RFC 9728).

use serde::Serialize;

use super::{client_auth::AuthMethod, identifiers::Issuer, jwks::ALGORITHMS, pkce, scope};
use crate::policy::{ClientPolicy, UpstreamPolicy};

/// Where the authorization-server document is, before any inserted path (RFC 8414 §3).
pub const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
/// Where the protected-resource documents are, before the inserted path (RFC 9728 §3).
pub const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";

/// The authorization-server document (RFC 8414 §2). Only what works is named in it.
#[derive(Debug, Serialize)]
pub struct AuthorizationServer {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_endpoint: Option<String>,
    revocation_endpoint: String,
    response_types_supported: [&'static str; 1],
    response_modes_supported: [&'static str; 1],
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: Vec<AuthMethod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint_auth_signing_alg_values_supported: Option<[&'static str; 4]>,
    revocation_endpoint_auth_methods_supported: Vec<AuthMethod>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation_endpoint_auth_signing_alg_values_supported: Option<[&'static str; 4]>,
    code_challenge_methods_supported: [&'static str; 1],
    scopes_supported: [&'static str; 2],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    authorization_response_iss_parameter_supported: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    client_id_metadata_document_supported: bool,
}

impl AuthorizationServer {
    pub fn new(issuer: &Issuer, clients: &ClientPolicy) -> Self {
        let methods = clients.auth_methods();
        let algorithms = methods
            .contains(&AuthMethod::PrivateKeyJwt)
            .then_some(ALGORITHMS);
        Self {
            issuer: issuer.to_string(),
            authorization_endpoint: issuer.url("/authorize"),
            token_endpoint: issuer.url("/token"),
            registration_endpoint: clients.registration.then(|| issuer.url("/register")),
            revocation_endpoint: issuer.url("/revoke"),
            response_types_supported: ["code"],
            response_modes_supported: ["query"],
            grant_types_supported: ["authorization_code", "refresh_token"],
            token_endpoint_auth_methods_supported: methods.clone(),
            token_endpoint_auth_signing_alg_values_supported: algorithms,
            revocation_endpoint_auth_methods_supported: methods,
            revocation_endpoint_auth_signing_alg_values_supported: algorithms,
            code_challenge_methods_supported: [pkce::S256],
            scopes_supported: scope::SUPPORTED,
            authorization_response_iss_parameter_supported: clients.announce_iss,
            client_id_metadata_document_supported: clients.documents,
        }
    }
}

/// The document of one protected resource (RFC 9728 §2).
#[derive(Debug, Serialize)]
pub struct ProtectedResource<'a> {
    resource: &'a str,
    authorization_servers: [&'a str; 1],
    scopes_supported: [&'static str; 1],
    bearer_methods_supported: [&'static str; 1],
    resource_name: &'a str,
}

impl<'a> ProtectedResource<'a> {
    /// The document that names the resource as `resource`: clients compare that with the address
    /// that they were given (RFC 9728 §3.3).
    pub fn new(issuer: &'a Issuer, upstream: &'a UpstreamPolicy, resource: &'a str) -> Self {
        Self {
            resource,
            authorization_servers: [issuer.as_str()],
            scopes_supported: [scope::MCP],
            bearer_methods_supported: ["header"],
            resource_name: &upstream.title,
        }
    }
}
