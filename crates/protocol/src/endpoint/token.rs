//! The token endpoint: codes become grants, refresh tokens are rotated (RFC 6749 §3.2).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::{
    App, Peer,
    extract::{self, AuthenticatedClient, NotAuthenticated},
    other_keys, respond,
};
use crate::{
    forward::client_address::client_address,
    journal::{Endpoint, Event},
    oauth::{
        access_token::{AccessToken, Family},
        authorization_code::{self, CodeExchange},
        client::Client,
        client_assertion,
        client_auth::Proof,
        error::OAuthError,
        form::Form,
        grant::{Asked, Grant, Revoked},
        identifiers::Resource,
        pkce::CodeVerifier,
        refresh_token::Rotation,
        scope::Scope,
    },
    ports::Timestamp,
    records::{Decision, Read, UNUSED_CLIENT},
    token::{self, Maker, PresentedRefreshToken},
};

/// How often one rotation is repeated at most.
const MOST_REPETITIONS: u16 = 256;
/// Rotations whose repetitions are counted.
const MOST_COUNTED: usize = 10_000;
/// How often a write that lost a race is tried again, each time on what the winner left.
const MOST_TRIES: usize = 64;

/// A successful answer (RFC 6749 §5.1).
#[derive(Serialize)]
struct Issued<'a> {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
    scope: &'a Scope,
}

/// `POST /token`.
pub(super) async fn answer_token_request(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let address = client_address(peer, &parts.headers, &app.policy.trusted_proxies);
    let content = match extract::form_body(&app, &parts, address, body).await {
        Ok(content) => content,
        Err(no_body) => return respond::no_body(&app, Endpoint::Token, &no_body),
    };
    // Boxed, or every request that waits for its body would carry room for it.
    match Box::pin(exchange(&app, &parts.headers, &content.bytes, address)).await {
        Ok(response) => response,
        Err(no) => respond::refused(&app, Endpoint::Token, &no.error, no.by_header),
    }
}

async fn exchange(
    app: &App,
    headers: &HeaderMap,
    content: &[u8],
    address: IpAddr,
) -> Result<Response, NotAuthenticated> {
    let form = Form::parse(content)?;
    if form.repeated("resource").is_some() {
        return Err(OAuthError::invalid_request("a parameter is given more than once").into());
    }
    let grant_type = form.required("grant_type", "grant_type is missing")?;
    if !["authorization_code", "refresh_token"].contains(&grant_type) {
        return Err(OAuthError::unsupported_grant_type(
            "grant_type must be authorization_code or refresh_token",
        )
        .into());
    }
    let mut client = extract::authenticated_client(app, headers, &form, address).await?;
    let answered = answer(app, &mut client, grant_type, &form, address).await;
    Ok(answered.map_err(|error| error.of_client(&client.client_id, &client.name))?)
}

async fn answer(
    app: &App,
    client: &mut AuthenticatedClient,
    grant_type: &str,
    form: &Form,
    address: IpAddr,
) -> Result<Response, OAuthError> {
    let asked = Asked {
        scope: form.one("scope")?.map(str::to_owned),
        resource: asked_resource(app, form)?,
    };
    match grant_type {
        "authorization_code" => redeem(app, client, form, &asked, address).await,
        _ => refresh(app, client, form, asked, address).await,
    }
}

/// The `resource` parameter, in its canonical spelling.
fn asked_resource(app: &App, form: &Form) -> Result<Option<Resource>, OAuthError> {
    let mut asked = None;
    for presented in form.all("resource") {
        let canonical = &app.policy.resolve(presented)?.resource;
        if asked.is_some_and(|other| other != canonical) {
            return Err(OAuthError::invalid_target("resource must be given once"));
        }
        asked = Some(canonical);
    }
    Ok(asked.cloned())
}

/// Redeems an authorization code (RFC 6749 §4.1.3). Everything is checked before anything is
/// spent; inserting the grant is what spends the code, so it succeeds exactly once.
async fn redeem(
    app: &App,
    client: &mut AuthenticatedClient,
    form: &Form,
    asked: &Asked,
    address: IpAddr,
) -> Result<Response, OAuthError> {
    // Load.
    let code = form.required("code", "code is missing")?;
    let code_verifier = form.required("code_verifier", "code_verifier is missing")?;
    let code_verifier = CodeVerifier::parse(code_verifier)?;
    let unknown = || OAuthError::invalid_grant("the code is not known");
    let Some(family) = app.keys.recognise_authorization_code(code) else {
        other_keys::refuse_if_missing(app, code).await?;
        extract::admit_wrong_token(app, address)?;
        return Err(unknown());
    };
    let Some(Decision::Approved(issued)) = app.records().decision(code).await? else {
        return Err(unknown());
    };

    // Decide.
    let now = app.ports.clock.now();
    let by = CodeExchange {
        client_id: &client.client_id,
        proof: client.proof,
        code_verifier: &code_verifier,
        redirect_uri: form.one("redirect_uri")?,
        resource: asked.resource.as_ref(),
    };
    issued.redeem(&by, now)?;

    // Commit.
    client.spend(app).await?;
    let tokens = &app.policy.tokens;
    let absolute_expires_at = now + tokens.refresh_absolute;
    let grant = Grant {
        client_id: issued.client_id,
        subject: issued.subject,
        resource: issued.resource,
        upstream: issued.upstream,
        scope: issued.scope,
        needs_key: issued.needs_key,
        created_at: now,
        generation: 1,
        rotated_at: now,
        rotated_with: None,
        access_used: false,
        salt: token::random(&*app.ports.entropy),
        key: Some(app.keys.first()),
        key_before: None,
        idle_expires_at: now + tokens.refresh_idle,
        absolute_expires_at,
        revoked: None,
    };
    keep_client(app, client, grant.expires_at()).await?;
    if !app.records().insert_grant(family, &grant).await? {
        return Err(redeemed_again(app, family, now).await?);
    }
    let live = learn(app, family, grant, 1);
    app.journal.record(&Event::CodeRedeemed {
        client_id: &live.client_id,
        grant: &token::fingerprint(&family.0),
    });
    issue(app, family, &live, Maker::named(app.keys.first()))
}

/// A second, in every way valid, redemption of a code: theft, unless it came with the first.
async fn redeemed_again(
    app: &App,
    family: Family,
    now: Timestamp,
) -> Result<OAuthError, OAuthError> {
    if let Some(read) = app.records().grant(family).await?
        && authorization_code::is_theft(&read.record, now)
    {
        revoke(app, family, Revoked::CodeReuse).await?;
    }
    Ok(OAuthError::invalid_grant("the code was already redeemed"))
}

/// Rotates a refresh token (RFC 6749 §6). The write names the version that the decision was made
/// on; who loses the race decides again on what the winner wrote, and so gets the same answer.
async fn refresh(
    app: &App,
    client: &mut AuthenticatedClient,
    form: &Form,
    asked: Asked,
    address: IpAddr,
) -> Result<Response, OAuthError> {
    let unknown = || {
        let few = extract::admit_wrong_token(app, address);
        few.err()
            .unwrap_or_else(|| OAuthError::invalid_grant("the refresh token is not known"))
    };
    let text = form.required("refresh_token", "refresh_token is missing")?;
    let presented = PresentedRefreshToken::parse(text).ok_or_else(unknown)?;
    let family = presented.family;
    for _ in 0..MOST_TRIES {
        // Load.
        let Some(mut read) = app.records().grant(family).await? else {
            return Err(unknown());
        };
        // What this process knows and the store is yet to be told.
        read.record.access_used |= app.grants.was_used(family, read.record.generation);
        let grant = &read.record;
        let Some(maker) = app.keys.maker_of(&presented, grant) else {
            other_keys::refuse_if_missing(app, text).await?;
            return Err(unknown());
        };
        if grant.client_id != client.client_id {
            return Err(OAuthError::invalid_grant(
                "the refresh token was issued to another client",
            ));
        }
        if grant.needs_key && client.proof != Proof::Key {
            return Err(client_assertion::missing());
        }
        let policy = &app.policy;
        let mut upstreams = policy.upstreams.iter();
        let Some(upstream) = upstreams.find(|upstream| grant.is_for(upstream, policy)) else {
            return Err(OAuthError::invalid_grant(
                "the approved server was removed or renamed",
            ));
        };
        // It may have been approved at another of its addresses.
        read.record.resource = upstream.resource.clone();
        let grant = &read.record;

        // Decide.
        let now = app.ports.clock.now();
        let tokens = &app.policy.tokens;
        let name = token::fingerprint(&family.0);
        let decided = grant.rotate(presented.generation, &asked, now, tokens)?;
        // Before whatever was decided: an old assertion must not even end a grant.
        client.spend(app).await?;
        let to = match decided {
            Rotation::Rotate { to } | Rotation::Heal { to } => to,
            Rotation::Repeat { generation, why } => {
                if !app.repetitions.allow(family, generation) {
                    return Err(OAuthError::invalid_grant(
                        "the refresh was repeated too often",
                    ));
                }
                app.journal.record(&Event::RefreshRepeated {
                    client_id: &grant.client_id,
                    grant: &name,
                    why,
                    age: now - grant.rotated_at,
                });
                return issue(app, family, grant, maker);
            }
            Rotation::Reuse => {
                revoke(app, family, Revoked::RefreshTokenReuse).await?;
                return Err(OAuthError::invalid_grant(
                    "the refresh token was already used",
                ));
            }
        };

        // Commit.
        let rotated = Grant {
            key: Some(app.keys.first()),
            key_before: Some(maker.key()),
            ..grant.rotated(to, &asked, now, tokens)
        };
        keep_client(app, client, rotated.expires_at()).await?;
        if app
            .records()
            .replace_grant(family, &read.seen, &rotated)
            .await
            // The write may have happened: what is in memory may be out of date.
            .inspect_err(|_| app.grants.forget(family))?
        {
            let event = if presented.generation > grant.generation {
                Event::StoreRegressed {
                    client_id: &grant.client_id,
                    grant: &name,
                }
            } else {
                Event::TokenRefreshed {
                    client_id: &grant.client_id,
                    grant: &name,
                }
            };
            app.journal.record(&event);
            let rotated = learn(app, family, rotated, read.seen.version + 1);
            return issue(app, family, &rotated, maker);
        }
    }
    Err(contended())
}

/// Ends a grant, whatever else happens to it meanwhile.
pub(super) async fn revoke(app: &App, family: Family, why: Revoked) -> Result<(), OAuthError> {
    for _ in 0..MOST_TRIES {
        let Some(read) = app.records().grant(family).await? else {
            return Ok(());
        };
        if read.record.revoked.is_some() {
            return Ok(());
        }
        let revoked = Grant {
            revoked: Some(why.clone()),
            ..read.record
        };
        let written = app
            .records()
            .replace_grant(family, &read.seen, &revoked)
            .await
            .inspect_err(|_| app.grants.forget(family))?;
        if written {
            let revoked = learn(app, family, revoked, read.seen.version + 1);
            app.streams.end(family);
            super::mcp::forget_kept_session(app, family).await;
            app.journal.record(&Event::GrantRevoked {
                client_id: &revoked.client_id,
                grant: &token::fingerprint(&family.0),
                why: &why,
            });
            return Ok(());
        }
    }
    Err(contended())
}

/// So many writers at one record that this one never came through.
fn contended() -> OAuthError {
    crate::ports::StoreError::new("the record changed at every try").into()
}

/// Keeps a client's registration at least as long as its newest grant. Written at the first grant,
/// which is what tells a used client from an unused one, and then once in a while, not at every
/// refresh: a registration outlives the grant that it was written for twice over.
async fn keep_client(
    app: &App,
    client: &AuthenticatedClient,
    grant_expires_at: Timestamp,
) -> Result<(), OAuthError> {
    let is_due = |read: &&Read<Client>| {
        read.seen.version == UNUSED_CLIENT || read.record.expires_at < grant_expires_at
    };
    let Some(read) = client.registration.as_ref().filter(is_due) else {
        return Ok(());
    };
    let expires_at = grant_expires_at + app.policy.tokens.refresh_idle;
    let kept = Client {
        expires_at,
        ..read.record.clone()
    };
    // `false`: another request of the same client has just done it.
    app.records().replace_client(&read.seen, &kept).await?;
    Ok(())
}

/// Makes what was just written true in this process at once.
fn learn(app: &App, family: Family, grant: Grant, version: u64) -> Grant {
    let elapsed = app.ports.clock.elapsed();
    app.grants.learn(family, grant.clone(), version, elapsed);
    grant
}

/// The tokens of a grant as it stands. Its refresh token is made by the key that made it first, so that
/// it is the same each time; of a grant of 0.1.0, that is the `maker` of the one that was presented.
fn issue(app: &App, family: Family, grant: &Grant, maker: Maker) -> Result<Response, OAuthError> {
    let maker = grant.key.map_or(maker, Maker::named);
    let refresh_token = app
        .keys
        .refresh_token(maker, family, grant.generation, &grant.salt)
        .ok_or_else(other_keys::missing)?;
    let now = app.ports.clock.now();
    let expires_at = (now + app.policy.tokens.access_lifetime).min(grant.absolute_expires_at);
    let access_token = AccessToken {
        family,
        generation: grant.generation,
        expires_at,
    };
    Ok(respond::json(
        StatusCode::OK,
        &Issued {
            access_token: app.keys.access_token(&access_token),
            token_type: "Bearer",
            expires_in: (expires_at - now).as_secs(),
            refresh_token,
            scope: &grant.scope,
        },
    ))
}

/// Counts how often rotations were repeated, so that a thief of a predecessor cannot live on it.
#[derive(Default)]
pub(crate) struct Repetitions(Mutex<HashMap<(Family, u32), u16>>);

impl Repetitions {
    fn allow(&self, family: Family, generation: u32) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MOST_COUNTED {
            counts.clear();
        }
        let count = counts.entry((family, generation)).or_default();
        *count += 1;
        *count <= MOST_REPETITIONS
    }
}
