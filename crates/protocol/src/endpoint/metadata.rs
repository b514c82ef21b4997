//! The two kinds of metadata document, at every place where clients look for them.

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Serialize;

use super::{App, respond};
use crate::oauth::metadata::{AuthorizationServer, ProtectedResource};

/// `GET /.well-known/oauth-authorization-server` (RFC 8414 §3).
pub(super) async fn describe_authorization_server(State(app): State<App>) -> Response {
    document(&AuthorizationServer::new(
        &app.policy.issuer,
        &app.policy.clients,
    ))
}

/// The same at the path of a known upstream, where clients of 2025-03-26 and some later ones look.
pub(super) async fn describe_authorization_server_at(
    State(app): State<App>,
    Path(path): Path<String>,
    uri: Uri,
) -> Response {
    match upstream_at(&app, &path) {
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
    uri: Uri,
) -> Response {
    // An address that was typed with a slash at its end is described with it.
    let plain = path.strip_suffix('/').unwrap_or(&path);
    match upstream_at(&app, plain) {
        Some(upstream) => {
            let resource = app.policy.issuer.url(&format!("/{path}"));
            document(&ProtectedResource::new(
                &app.policy.issuer,
                upstream,
                &resource,
            ))
        }
        None => respond::not_found(&app, &uri),
    }
}

/// The same at the root, when there is just one resource that could be meant.
pub(super) async fn describe_only_resource(State(app): State<App>, uri: Uri) -> Response {
    match &app.policy.upstreams[..] {
        [only] => document(&ProtectedResource::new(
            &app.policy.issuer,
            only,
            only.resource.as_str(),
        )),
        _ => respond::not_found(&app, &uri),
    }
}

fn upstream_at<'a>(app: &'a App, path: &str) -> Option<&'a crate::policy::UpstreamPolicy> {
    app.policy
        .upstreams
        .iter()
        .find(|upstream| upstream.path.strip_prefix('/') == Some(path))
        .map(|upstream| &**upstream)
}

fn document<T: Serialize>(document: &T) -> Response {
    let mut response = respond::json(StatusCode::OK, document);
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    response
}
