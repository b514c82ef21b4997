//! Everything of the proxy that can run anywhere: the OAuth rules, the records over a store, the
//! endpoints, the pages, and what crosses to an upstream. It has no runtime, socket, file or clock
//! in it; those come in through the five traits in [`ports`].
//!
//! Where to look:
//!
//! - [`oauth`]: the rules, pure, one file for each word of the standards
//! - [`identity`]: who the person is that approves a client
//! - [`forward`]: what crosses the proxy, pure
//! - [`mcp`]: what of MCP the proxy understands: messages, eras, sessions, pure
//! - [`token`], [`records`], [`grants`], `streams`, `keep_alive`: what tokens look like, what is
//!   stored, what is remembered, what is open and stays so
//! - `base64url`: bytes in records
//! - [`endpoint`]: the HTTP surface; `endpoint::Front` is the front door
//! - [`rates`], `room`: how often and how much, by whom
//! - [`journal`]: everything that happens, as one enum
//! - [`policy`]: what the operator's configuration means
//! - [`ports`], [`memory`]: the outside world as traits, and a store in memory
//!
//! Where each standard lives. A test checks that the files exist.
//!
//! | Standard | Module | Endpoint | Test |
//! | --- | --- | --- | --- |
//! | RFC 6749 §3.1, §4.1.1 authorization request | `oauth/authorization.rs` | `endpoint/authorize.rs` | `authorization.rs` |
//! | RFC 6749 §4.1.2 authorization response, consent | `oauth/authorization.rs` | `endpoint/consent.rs` | `consent.rs` |
//! | RFC 6749 §4.1.3 code redemption | `oauth/authorization_code.rs` | `endpoint/token.rs` | `token_endpoint.rs` |
//! | RFC 6749 §2.3 client authentication | `oauth/client_auth.rs` | `endpoint/extract.rs` | `token_endpoint.rs` |
//! | RFC 6749 §3.3 scope | `oauth/scope.rs` | `endpoint/authorize.rs` | `authorization.rs` |
//! | RFC 6749 §5.2 errors | `oauth/error.rs` | `endpoint/respond/oauth.rs` | `responses.rs` |
//! | RFC 6750 bearer tokens | `oauth/bearer.rs` | `endpoint/mcp/mod.rs` | `resource_server.rs` |
//! | RFC 7009 revocation | `oauth/revocation.rs` | `endpoint/revoke.rs` | `revocation.rs` |
//! | RFC 7517 keys of clients | `oauth/jwks.rs` | `endpoint/extract.rs` | `client_assertions.rs` |
//! | RFC 7523 client assertions | `oauth/client_assertion.rs` | `endpoint/extract.rs` | `client_assertions.rs` |
//! | RFC 7591 dynamic registration | `oauth/client.rs` | `endpoint/register.rs` | `registration.rs` |
//! | RFC 7636 PKCE | `oauth/pkce.rs` | `endpoint/token.rs` | `token_endpoint.rs` |
//! | RFC 8252 §7.1 schemes of apps | `oauth/app_scheme.rs` | `endpoint/register.rs` | `registration.rs` |
//! | RFC 8252 §7 redirect URIs of native apps | `oauth/redirect_uri.rs` | `endpoint/authorize.rs` | `authorization.rs` |
//! | RFC 8414 authorization server metadata | `oauth/metadata.rs` | `endpoint/metadata.rs` | `metadata.rs` |
//! | RFC 8707 resource indicators | `oauth/resource.rs` | `endpoint/authorize.rs` | `authorization.rs` |
//! | RFC 9110 §7.6 what a proxy forwards | `forward/headers.rs` | `endpoint/mcp/request.rs` | `proxy.rs` |
//! | RFC 9207 `iss` in responses | `oauth/authorization.rs` | `endpoint/consent.rs` | `consent.rs` |
//! | RFC 9700 §4.14 refresh token rotation | `oauth/refresh_token.rs` | `endpoint/token.rs` | `refresh.rs` |
//! | RFC 9728 protected resource metadata | `oauth/metadata.rs` | `endpoint/metadata.rs` | `metadata.rs` |
//! | Client ID metadata document draft | `oauth/client_document.rs` | `endpoint/authorize.rs` | `client_documents.rs` |
//! | RFC 8259 §4 JSON read by strangers' rules | `oauth/strict_json.rs` | `endpoint/register.rs` | `registration.rs` |
//! | what single clients need beyond the standards | `oauth/known_clients.rs` | `endpoint/authorize.rs` | `known_clients.rs` |
//! | MCP Streamable HTTP, all revisions | `mcp/era.rs` | `endpoint/mcp/request.rs` | `sessions.rs` |
//! | MCP 2024-11-05 to 2026-07-28, whether a server answers at all | `mcp/opening.rs` | `endpoint/mcp/trial.rs` | `trial.rs` |
//! | MCP errors and statuses | `mcp/answer.rs` | `endpoint/mcp/answer.rs` | `upstream_answers.rs` |

mod base64url;
mod documents;
pub mod endpoint;
pub mod forward;
pub mod grants;
pub mod identity;
pub mod journal;
mod keep_alive;
pub mod mcp;
pub mod memory;
pub mod oauth;
pub mod policy;
pub mod ports;
pub mod rates;
pub mod records;
mod room;
mod streams;
pub mod token;
