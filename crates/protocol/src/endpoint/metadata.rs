//! The two kinds of metadata document, at every place where clients look for them.

use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Serialize;

use super::{App, respond};
use crate::{
    forward::origin,
    oauth::metadata::{AuthorizationServer, ProtectedResource},
};

/// `GET /.well-known/oauth-authorization-server` (RFC 8414 §3).
pub(super) async fn describe_authorization_server(State(app): State<App>) -> Response {
    document(&AuthorizationServer::new(
        &app.policy.issuer,
        &app.policy.clients,
    ))
}

/// The same at an address of an upstream, where clients of 2025-03-26 and some later ones look.
pub(super) async fn describe_authorization_server_at(
    State(app): State<App>,
    Path(path): Path<String>,
    uri: Uri,
) -> Response {
    match app.policy.upstream_at(&format!("/{path}")) {
        Some(_) => document(&AuthorizationServer::new(
            &app.policy.issuer,
            &app.policy.clients,
        )),
        None => respond::not_found(&app, &uri),
    }
}

/// `GET /.well-known/oauth-protected-resource/<path of the upstream>` (RFC 9728 §3.1).
pub(super) async fn describe_resource(
    State(app): State<App>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    describe(&app, &format!("/{path}"), &request)
}

/// The same at the root: the origin itself is the resource.
pub(super) async fn describe_origin(State(app): State<App>, request: Request) -> Response {
    describe(&app, "", &request)
}

/// Describes the resource at `path` under the very address that the client uses, since clients compare
/// the two (RFC 9728 §3.3): by the name that it calls us by, and with a slash at the end if it has one.
fn describe(app: &App, path: &str, request: &Request) -> Response {
    let policy = &app.policy;
    match policy.upstream_at(path.strip_suffix('/').unwrap_or(path)) {
        Some(upstream) => {
            let resource = format!("{}{path}", origin::called(request, policy));
            document(&ProtectedResource::new(&policy.issuer, upstream, &resource))
        }
        None => respond::not_found(app, request.uri()),
    }
}

fn document<T: Serialize>(document: &T) -> Response {
    let mut response = respond::json(StatusCode::OK, document);
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    response
}
