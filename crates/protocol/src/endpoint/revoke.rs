//! The revocation endpoint (RFC 7009). Any token of a grant ends the whole grant.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};

use super::{
    App,
    extract::{self, AuthenticatedClient, NotAuthenticated},
    respond, token,
};
use crate::{
    journal::Endpoint,
    oauth::{access_token::Family, form::Form, grant::Revoked, revocation},
    ports::StoreError,
    token::PresentedRefreshToken,
};

/// `POST /revoke`. An unknown token, or another client's, is answered like a revoked one
/// (RFC 7009 §2.2).
pub(super) async fn revoke_token(State(app): State<App>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let limit = app.policy.limits.oauth_body;
    let content = match extract::form_body(&parts.headers, body, limit).await {
        Ok(content) => content,
        Err(no_body) => return respond::no_body(&app, Endpoint::Revoke, &no_body),
    };
    match end_grant(&app, &parts.headers, &content).await {
        Ok(()) => respond::empty(StatusCode::OK),
        Err(no) => respond::refused(&app, Endpoint::Revoke, &no.error, no.by_header),
    }
}

async fn end_grant(app: &App, headers: &HeaderMap, content: &[u8]) -> Result<(), NotAuthenticated> {
    let form = Form::parse(content)?;
    let mut client = extract::authenticated_client(app, headers, &form).await?;
    let presented = form.required("token", "token is missing")?;
    let (family, refresh_token) = match app.keys.recognise_access_token(presented) {
        Some(access_token) => (access_token.family, None),
        None => match PresentedRefreshToken::parse(presented) {
            Some(refresh_token) => (refresh_token.family, Some(refresh_token)),
            None => return Ok(()),
        },
    };
    if names_own_grant(app, &client, family, refresh_token).await? {
        client.spend(app).await?;
        token::revoke(app, family, Revoked::ByClient).await?;
    }
    Ok(())
}

async fn names_own_grant(
    app: &App,
    client: &AuthenticatedClient,
    family: Family,
    refresh_token: Option<PresentedRefreshToken>,
) -> Result<bool, StoreError> {
    let Some(read) = app.records().grant(family).await? else {
        return Ok(false);
    };
    let is_genuine = refresh_token.is_none_or(|token| app.keys.is_genuine(&token, &read.record));
    Ok(is_genuine && revocation::may_revoke(&client.client_id, client.proof, &read.record))
}
