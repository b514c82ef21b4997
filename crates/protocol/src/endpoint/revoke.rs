//! The revocation endpoint (RFC 7009). Any token of a grant ends the whole grant.

use std::net::IpAddr;

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};

use super::{
    App, Peer,
    extract::{self, NotAuthenticated},
    other_keys, respond, token,
};
use crate::{
    forward::client_address::client_address,
    journal::Endpoint,
    oauth::{
        access_token::Family,
        form::Form,
        grant::{Grant, Revoked},
        revocation,
    },
    records::ReadError,
    token::PresentedRefreshToken,
};

/// `POST /revoke`. An unknown token, or another client's, is answered like a revoked one
/// (RFC 7009 §2.2).
pub(super) async fn revoke_token(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let address = client_address(peer, &parts.headers, &app.policy.trusted_proxies);
    let content = match extract::form_body(&app, &parts, address, body).await {
        Ok(content) => content,
        Err(no_body) => return respond::no_body(&app, Endpoint::Revoke, &no_body),
    };
    // Boxed, or every request that waits for its body would carry room for it.
    match Box::pin(end_grant(&app, &parts.headers, &content.bytes, address)).await {
        Ok(()) => respond::empty(StatusCode::OK),
        Err(no) => respond::refused(&app, Endpoint::Revoke, &no.error, no.by_header),
    }
}

async fn end_grant(
    app: &App,
    headers: &HeaderMap,
    content: &[u8],
    address: IpAddr,
) -> Result<(), NotAuthenticated> {
    let form = Form::parse(content)?;
    let mut client = extract::authenticated_client(app, headers, &form, address).await?;
    let presented = form
        .required("token", "token is missing")
        .map_err(|missing| missing.of_client(&client.client_id, &client.name))?;
    let (family, refresh_token) = match app.keys.recognise_access_token(presented) {
        Some(access_token) => (access_token.family, None),
        None => match PresentedRefreshToken::parse(presented) {
            Some(refresh_token) => (refresh_token.family, Some(refresh_token)),
            None => return unknown(app, presented, address).await,
        },
    };
    let Some(grant) = genuine_grant(app, family, refresh_token).await? else {
        return unknown(app, presented, address).await;
    };
    if revocation::may_revoke(&client.client_id, client.proof, &grant) {
        client.spend(app).await?;
        token::revoke(app, family, Revoked::ByClient).await?;
    }
    Ok(())
}

/// An unknown token is as good as revoked, until there are too many of them.
async fn unknown(app: &App, presented: &str, address: IpAddr) -> Result<(), NotAuthenticated> {
    other_keys::refuse_if_missing(app, presented).await?;
    extract::admit_wrong_token(app, address).map_err(NotAuthenticated::from)
}

/// The grant that a token names, if the token is one of its own.
async fn genuine_grant(
    app: &App,
    family: Family,
    refresh_token: Option<PresentedRefreshToken>,
) -> Result<Option<Grant>, ReadError> {
    let grant = app.records().grant(family).await?.map(|read| read.record);
    Ok(grant.filter(|grant| {
        refresh_token
            .as_ref()
            .is_none_or(|token| app.keys.maker_of(token, grant).is_some())
    }))
}
