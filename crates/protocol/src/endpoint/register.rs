//! Dynamic client registration (RFC 7591).

use std::{net::IpAddr, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use super::{App, Peer, extract, respond};
use crate::{
    forward::client_address::client_address,
    journal::{Endpoint, Event, Limit},
    oauth::{
        client::{Client, Registration},
        client_auth::{AuthMethod, secret_digest},
        error::OAuthError,
        identifiers::ClientId,
        redirect_uri::RedirectUri,
    },
    rates, token,
};

/// How long a registration stays that nothing was approved for.
const UNUSED: Duration = Duration::from_hours(24);

/// What a new client is told (RFC 7591 §3.2.1): what was registered, and no null members.
#[derive(Serialize)]
struct Registered<'a> {
    client_id: &'a ClientId,
    client_id_issued_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
    /// 0: the secret does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<u64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_name: &'a str,
    redirect_uris: &'a [RedirectUri],
    token_endpoint_auth_method: AuthMethod,
    grant_types: [&'static str; 2],
    response_types: [&'static str; 1],
}

/// `POST /register`.
pub(super) async fn register_client(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    if !app.policy.clients.registration {
        let error = OAuthError::access_denied(
            "clients cannot register here, ask the operator for a client_id",
        );
        return respond::refused(&app, Endpoint::Register, &error, false);
    }
    let (parts, body) = request.into_parts();
    let address = client_address(peer, &parts.headers, &app.policy.trusted_proxies);
    let content = if extract::is_of_type(&parts.headers, "application/json") {
        let limit = app.policy.limits.registration_body;
        extract::body(&app, &parts, address, body, limit).await
    } else {
        Err(extract::not_of_type(&parts.headers))
    };
    let content = match content {
        Ok(content) => content,
        Err(no_body) => return respond::no_body(&app, Endpoint::Register, &no_body),
    };
    match register(&app, &content.bytes, address).await {
        Ok(response) => response,
        Err(error) => respond::refused(&app, Endpoint::Register, &error, false),
    }
}

async fn register(app: &App, content: &[u8], address: IpAddr) -> Result<Response, OAuthError> {
    let Registration { metadata, left_out } =
        Registration::parse(content, &app.policy.clients.app_schemes)?;
    admit(app, address)?;
    let now = app.ports.clock.now();
    let entropy = &*app.ports.entropy;
    let secret = match metadata.token_endpoint_auth_method {
        AuthMethod::None | AuthMethod::PrivateKeyJwt => None,
        AuthMethod::ClientSecretPost | AuthMethod::ClientSecretBasic => {
            Some(token::client_secret(entropy))
        }
    };
    let client = Client {
        client_id: ClientId::presented(app.keys.client_id(entropy)),
        client_name: metadata.client_name,
        redirect_uris: metadata.redirect_uris,
        token_endpoint_auth_method: metadata.token_endpoint_auth_method,
        secret_digest: secret.as_deref().map(secret_digest),
        registered_at: now,
        expires_at: now + UNUSED,
    };
    // With 128 random bits in the name, one that is taken was taken by this very write, whose
    // first answer the store lost.
    app.records().insert_client(&client).await?;
    app.journal.record(&Event::ClientRegistered {
        client_id: &client.client_id,
        client_name: &client.client_name,
        left_out: &left_out,
    });
    Ok(respond::json(
        StatusCode::CREATED,
        &Registered {
            client_id: &client.client_id,
            client_id_issued_at: now.0,
            client_secret_expires_at: secret.as_ref().map(|_| 0),
            client_secret: secret,
            client_name: &client.client_name,
            redirect_uris: &client.redirect_uris,
            token_endpoint_auth_method: client.token_endpoint_auth_method,
            grant_types: ["authorization_code", "refresh_token"],
            response_types: ["code"],
        },
    ))
}

/// Counts one more registration from `address`, or refuses it. Only what would be kept counts.
fn admit(app: &App, address: IpAddr) -> Result<(), OAuthError> {
    let limits = &app.policy.limits;
    let now = app.ports.clock.elapsed();
    let refusal = |limit, wait| {
        app.journal.record(&Event::Limited {
            limit,
            address: Some(address),
        });
        OAuthError::too_many_requests(
            "too many clients registered just now, try again later",
            wait,
        )
    };
    // By address first, so that what one address has too much takes nothing from the others.
    app.registrations_of
        .take(
            rates::network(address),
            limits.registrations_per_address,
            now,
        )
        .map_err(|wait| refusal(Limit::RegistrationsPerAddress, wait))?;
    app.registrations
        .take(limits.registrations, now)
        .map_err(|wait| refusal(Limit::Registrations, wait))
}
