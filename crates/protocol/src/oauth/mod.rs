//! The rules of OAuth, pure: no `async fn`, no trait object, no logging. Each file is named
//! with the specification's word.

pub mod access_token;
pub mod app_scheme;
pub mod authorization;
pub mod authorization_code;
pub mod bearer;
pub mod client;
pub mod client_assertion;
pub mod client_auth;
pub mod client_document;
pub mod error;
pub mod form;
pub mod grant;
pub mod identifiers;
pub mod jwks;
pub mod known_clients;
pub mod metadata;
pub mod pkce;
pub mod redirect_uri;
pub mod refresh_token;
pub mod resource;
pub mod revocation;
pub mod scope;
pub mod strict_json;
