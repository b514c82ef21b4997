//! What endpoints take from a request: a permit, an authenticated client, a form, a cookie.

use std::{net::IpAddr, sync::Arc};

use axum::body::Body;
use futures_util::future::{AbortHandle, Abortable};
use http::{HeaderMap, HeaderName, Uri, header, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::App;
use crate::{
    documents::{self, NotLoaded},
    grants::LiveGrant,
    journal::{Event, Limit},
    oauth::{
        access_token::Family,
        bearer::{self, Refused},
        client::{Client, PreregisteredClient},
        client_assertion::{self, Once, UnverifiedAssertion},
        client_auth::{AuthMethod, Presented, Proof},
        client_document::DocumentUrl,
        error::{ErrorCode, OAuthError, told},
        form::Form,
        grant::Grant,
        identifiers::ClientId,
        jwks::{KeySet, KeySource, Signed},
    },
    policy::UpstreamPolicy,
    ports::StoreError,
    rates,
    records::{Read, ReadError},
    room::{NoRoom, Place},
};

/// Proof that a request carried a good access token for one upstream. Only the bearer check
/// makes one, so an unauthenticated forward does not compile.
#[derive(Clone, Debug)]
pub struct Permit {
    upstream: Arc<UpstreamPolicy>,
    family: Family,
    live: Arc<LiveGrant>,
}

impl Permit {
    /// The upstream that the token is for.
    pub fn upstream(&self) -> &UpstreamPolicy {
        &self.upstream
    }

    /// The person who approved the client.
    pub fn subject(&self) -> &str {
        &self.live.grant.subject
    }

    /// The client that the token was issued to.
    pub fn client_id(&self) -> &ClientId {
        &self.live.grant.client_id
    }

    /// The grant's name.
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// What they agreed on.
    pub(super) fn live(&self) -> &Arc<LiveGrant> {
        &self.live
    }
}

/// Why there is no permit.
#[derive(Debug)]
pub(super) enum NoPermit {
    Refused(Refused),
    /// What was presented is no token that we ever made.
    NotOurs(String),
    Records(ReadError),
}

/// The bearer check: a token of ours, unexpired, for this upstream, whose grant lives.
pub(super) async fn permit(
    app: &App,
    upstream: &Arc<UpstreamPolicy>,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Permit, NoPermit> {
    let text = bearer::presented(headers, uri.query()).map_err(NoPermit::Refused)?;
    let invalid = NoPermit::Refused(Refused::InvalidToken);
    let Some(token) = app.keys.recognise_access_token(text) else {
        return Err(NoPermit::NotOurs(text.to_owned()));
    };
    let now = app.ports.clock.now();
    if token.expires_at <= now {
        return Err(invalid);
    }
    let Some(live) = live_grant(app, token.family)
        .await
        .map_err(NoPermit::Records)?
    else {
        return Err(invalid);
    };
    if !token.opens(&live.grant, upstream, &app.policy, now) {
        return Err(invalid);
    }
    app.grants.note_use(token.family, &live, token.generation);
    Ok(Permit {
        upstream: Arc::clone(upstream),
        family: token.family,
        live,
    })
}

pub(super) async fn live_grant(
    app: &App,
    family: Family,
) -> Result<Option<Arc<LiveGrant>>, ReadError> {
    let elapsed = app.ports.clock.elapsed();
    if let Some(live) = app.grants.fresh(family, elapsed) {
        return Ok(Some(live));
    }
    let read = app.records().grant(family).await?;
    Ok(read.map(|read| {
        let version = read.seen.version;
        app.grants.learn(family, read.record, version, elapsed)
    }))
}

/// Writes down that an access token of `generation` arrived, so the answer that carried it was not
/// lost. Whether that is done with: written, or made moot by a rotation. Once per generation, and
/// no call waits for it.
pub(super) async fn record_use(
    app: &App,
    family: Family,
    generation: u32,
) -> Result<bool, StoreError> {
    let read = match app.records().grant(family).await {
        Ok(Some(read)) => read,
        // Trying again does not mend a damaged one.
        Ok(None) | Err(ReadError::Damaged(_)) => return Ok(true),
        Err(ReadError::Store(error)) => return Err(error),
    };
    if read.record.generation != generation || read.record.access_used {
        return Ok(true);
    }
    let used = Grant {
        access_used: true,
        ..read.record
    };
    let is_written = app
        .records()
        .replace_grant(family, &read.seen, &used)
        .await?;
    if is_written {
        let (version, elapsed) = (read.seen.version + 1, app.ports.clock.elapsed());
        app.grants.learn(family, used, version, elapsed);
    }
    Ok(is_written)
}

/// How a client is known here.
pub(super) enum Known {
    /// By the operator.
    Preregistered(Arc<PreregisteredClient>),
    Registered(Read<Client>),
    /// By the document at the URL that is its name.
    ByDocument(DocumentUrl),
}

/// The client of that name, unless its registration has run out. A document is not looked at.
pub(super) async fn known(app: &App, id: &ClientId) -> Result<Option<Known>, ReadError> {
    if let Some(client) = app.policy.clients.preregistered(id) {
        return Ok(Some(Known::Preregistered(Arc::clone(client))));
    }
    if let Some(url) = document_url(app, id) {
        return Ok(Some(Known::ByDocument(url)));
    }
    let read = app.records().client(id).await?;
    Ok(read
        .filter(|read| app.ports.clock.now() < read.record.expires_at)
        .map(Known::Registered))
}

/// The document that a client is known by, if such are taken here.
pub(super) fn document_url(app: &App, id: &ClientId) -> Option<DocumentUrl> {
    DocumentUrl::parse(id.as_str()).filter(|url| app.policy.clients.takes_document(url))
}

/// A client that proved who it is.
pub(super) struct AuthenticatedClient {
    pub(super) client_id: ClientId,
    /// What it is called, as far as that is known without fetching its document.
    pub(super) name: String,
    /// As it is stored; none of a client that did not register.
    pub(super) registration: Option<Read<Client>>,
    pub(super) proof: Proof,
    /// The assertion that it came with, until it is spent.
    unspent: Option<Once>,
}

impl Known {
    /// What the client is called, as far as that is known without fetching its document.
    fn name(&self) -> &str {
        match self {
            Self::Preregistered(client) => &client.metadata.client_name,
            Self::Registered(read) => &read.record.client_name,
            Self::ByDocument(_) => "",
        }
    }
}

impl AuthenticatedClient {
    /// Spends the client's assertion, if it came with one: it works once, here and on every process
    /// that shares the store (RFC 7523 §3, `jti`). Comes after all else was checked, and before
    /// anything is written, so that a request which is refused leaves no trace.
    pub(super) async fn spend(&mut self, app: &App) -> Result<(), OAuthError> {
        let Some(once) = self.unspent.take() else {
            return Ok(());
        };
        if app
            .records()
            .insert_assertion(&self.client_id, &once)
            .await?
        {
            Ok(())
        } else {
            Err(client_assertion::used_before())
        }
    }
}

/// A refused client, and whether the answer must name the Basic scheme (RFC 6749 §5.2).
pub(super) struct NotAuthenticated {
    pub(super) error: OAuthError,
    pub(super) by_header: bool,
}

impl<E: Into<OAuthError>> From<E> for NotAuthenticated {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            by_header: false,
        }
    }
}

/// Client authentication at `/token` and `/revoke`.
///
/// The document of a client that is known by one is not fetched for this, unless it sends an
/// assertion. What else the request must prove, it proves by the code or token that is bound to
/// its `client_id`, and by the verifier that only the one who asked for the code has; and the code
/// has long gone to a redirect URI that was in the document when a person approved it. If the
/// document demanded a key then, so do the code and the grant. So a document that changes or goes
/// ends no connection, and neither does a network in trouble.
pub(super) async fn authenticated_client(
    app: &App,
    headers: &HeaderMap,
    form: &Form,
    address: IpAddr,
) -> Result<AuthenticatedClient, NotAuthenticated> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    let by_header = authorization.is_some();
    let refused = |error| NotAuthenticated { error, by_header };
    // Whatever is in front of us may have gone by the other one.
    if authorizations.next().is_some() {
        return Err(refused(OAuthError::invalid_request(
            "present client credentials in one Authorization header",
        )));
    }
    // What is no text is no Basic credentials either.
    let authorization = authorization.map(|value| value.to_str().unwrap_or_default());
    let presented = Presented::read(authorization, form).map_err(refused)?;
    let client_id = &presented.client_id;
    let Some(known) = known(app, client_id).await? else {
        let error = OAuthError::invalid_client("the client is not registered here, register again");
        return Err(refused(error.of_client(client_id, "")));
    };
    let refused = |error: OAuthError| refused(error.of_client(client_id, known.name()));
    let unspent = if let Some(assertion) = &presented.assertion {
        let checked = check_assertion(app, &known, client_id, assertion, address).await;
        Some(checked.map_err(refused)?)
    } else {
        let secret_digest = match &known {
            Known::Preregistered(client) => {
                if client.metadata.token_endpoint_auth_method == AuthMethod::PrivateKeyJwt {
                    return Err(refused(client_assertion::missing()));
                }
                client.secret_digest.as_ref()
            }
            Known::Registered(read) => read.record.secret_digest.as_ref(),
            Known::ByDocument(_) => None,
        };
        let is_guessable = secret_digest.is_some();
        if is_guessable {
            // Before it is compared: else a right guess would still be told from a wrong one.
            admit_secret(app, client_id, address).map_err(refused)?;
        }
        if let Err(error) = presented.proves(secret_digest) {
            if is_guessable {
                count_wrong_secret(app, client_id, address);
            }
            return Err(refused(error));
        }
        None
    };
    Ok(AuthenticatedClient {
        name: known.name().to_owned(),
        client_id: presented.client_id,
        registration: match known {
            Known::Registered(read) => Some(read),
            Known::Preregistered(_) | Known::ByDocument(_) => None,
        },
        proof: match unspent {
            Some(_) => Proof::Key,
            None => Proof::NoKey,
        },
        unspent,
    })
}

/// Checks an assertion: first what it says, and only then, with keys that may have to be fetched,
/// who signed it.
async fn check_assertion(
    app: &App,
    known: &Known,
    client_id: &ClientId,
    assertion: &UnverifiedAssertion,
    address: IpAddr,
) -> Result<Once, OAuthError> {
    let once = assertion.check(client_id, &app.policy.issuer, app.ports.clock.now())?;
    let metadata = match known {
        Known::Preregistered(client) => Some(Arc::new(client.metadata.clone())),
        Known::ByDocument(url) => Some(documents::load(app, url, address).await?),
        Known::Registered(_) => None,
    };
    let keys = metadata
        .as_ref()
        .and_then(|metadata| metadata.keys.as_ref());
    let signed = match keys {
        None => {
            return Err(OAuthError::invalid_client(
                "this client has no keys, so it cannot sign an assertion",
            ));
        }
        Some(KeySource::Inline(keys)) => assertion.signed(keys),
        Some(KeySource::At(url)) => {
            match assertion.signed(&*documents::load::<KeySet>(app, url, address).await?) {
                // The client may have a new key.
                Signed::WithAnotherKey => {
                    assertion.signed(&*documents::renew::<KeySet>(app, url, address).await?)
                }
                signed => signed,
            }
        }
    };
    match signed {
        Signed::Yes => Ok(once),
        Signed::No | Signed::WithAnotherKey => Err(client_assertion::not_signed()),
    }
}

/// At the token endpoint a document that does not come is a fault that passes; one that is no good
/// makes the client one that cannot authenticate.
impl From<NotLoaded> for OAuthError {
    fn from(not_loaded: NotLoaded) -> Self {
        match not_loaded {
            NotLoaded::Invalid(mut error) => {
                error.code = ErrorCode::InvalidClient;
                error
            }
            NotLoaded::Unavailable(description) => {
                Self::new(ErrorCode::TemporarilyUnavailable, description)
            }
        }
    }
}

/// Refuses an attempt with a client's secret after too many wrong ones from the same address. One
/// client's guessers keep no other client out, nor the same one elsewhere.
fn admit_secret(app: &App, client_id: &ClientId, address: IpAddr) -> Result<(), OAuthError> {
    let wait = app.wrong_secrets_of.wait(
        &(client_id.clone(), rates::network(address)),
        app.policy.limits.wrong_tokens_per_address,
        app.ports.clock.elapsed(),
    );
    if wait.is_zero() {
        return Ok(());
    }
    app.journal.record(&Event::Limited {
        limit: Limit::WrongSecrets,
        address: Some(address),
    });
    Err(OAuthError::too_many_requests(
        "too many wrong client secrets were sent from there, try again later",
        wait,
    ))
}

fn count_wrong_secret(app: &App, client_id: &ClientId, address: IpAddr) {
    // Used up is told with the next attempt.
    let _ = app.wrong_secrets_of.take(
        (client_id.clone(), rates::network(address)),
        app.policy.limits.wrong_tokens_per_address,
        app.ports.clock.elapsed(),
    );
}

/// Counts a text that is no token or code of ours, and refuses it when there were too many from the
/// same address. Nobody can guess one; this keeps guessers from filling the logs with it. It is
/// asked only when the text was found wrong, so that whoever holds a token never meets it.
pub(super) fn admit_wrong_token(app: &App, address: IpAddr) -> Result<(), OAuthError> {
    let limit = app.policy.limits.wrong_tokens_per_address;
    let now = app.ports.clock.elapsed();
    app.wrong_tokens_of
        .take(rates::network(address), limit, now)
        .map_err(|wait| {
            app.journal.record(&Event::Limited {
                limit: Limit::WrongTokens,
                address: Some(address),
            });
            OAuthError::too_many_requests(
                "too many wrong tokens were sent from there, try again later",
                wait,
            )
        })
}

/// Why a request body was not taken.
#[derive(Debug)]
pub(super) enum NoBody {
    TooLarge,
    Broken,
    /// Its content type, given here, is not the one that the endpoint reads.
    Type(String),
    /// Others that sent less are to have its room.
    NoRoom,
}

impl From<NoRoom> for NoBody {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// The whole body of a request, and the room that it takes.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) bytes: Vec<u8>,
    _place: Place<'a>,
}

/// Reads a body of at most `limit` bytes, if there is room for it. One that says that it is longer
/// is not waited for.
pub(super) async fn body<'a>(
    app: &'a App,
    head: &Parts,
    address: IpAddr,
    mut body: Body,
    limit: usize,
) -> Result<Content<'a>, NoBody> {
    if usize::try_from(body.size_hint().lower()).map_or(true, |least| least > limit) {
        return Err(NoBody::TooLarge);
    }
    let (end, registration) = AbortHandle::new_pair();
    let reading = async {
        let place = app.room.admit(address, head, end)?;
        // In one piece: kept as they came, frames of a byte each would take many times their length.
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| NoBody::Broken)?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if data.len() > limit - bytes.len() {
                return Err(NoBody::TooLarge);
            }
            place.widen(data.len())?;
            bytes.extend_from_slice(data);
        }
        place.settle()?;
        Ok(Content {
            bytes,
            _place: place,
        })
    };
    let read = Abortable::new(reading, registration).await;
    let content = read.unwrap_or(Err(NoBody::NoRoom));
    if let Err(NoBody::NoRoom) = content {
        app.journal.record(&Event::Limited {
            limit: Limit::WaitingRequests,
            address: Some(address),
        });
    }
    content
}

/// Whether the content is of the type `expected`, in UTF-8. A header that was joined or repeated on
/// the way counts by its members: one of them names the type, and none names it with another
/// charset. Wrong content fails when it is read.
pub(super) fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    let named = members(headers, &header::CONTENT_TYPE);
    let in_utf_8: Vec<bool> = named
        .filter_map(|member| {
            let mut parts = member.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default();
            essence.eq_ignore_ascii_case(expected).then(|| {
                parts.all(|parameter| {
                    let lower = parameter.to_ascii_lowercase();
                    let charset = lower.strip_prefix("charset=");
                    charset.is_none_or(|charset| charset.trim_matches('"') == "utf-8")
                })
            })
        })
        .collect();
    !in_utf_8.is_empty() && in_utf_8.iter().all(|fits| *fits)
}

/// The members of a header that is a list, or was made one on the way (RFC 9110 §5.3). A value that
/// is no text has none.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// The refusal of the content, with the type that it declares.
pub(super) fn not_of_type(headers: &HeaderMap) -> NoBody {
    let came: Vec<String> = headers
        .get_all(header::CONTENT_TYPE)
        .iter()
        .map(|value| told(&String::from_utf8_lossy(value.as_bytes())))
        .take(2)
        .collect();
    NoBody::Type(came.join(", "))
}

/// The body of a form post, undecoded.
pub(super) async fn form_body<'a>(
    app: &'a App,
    head: &Parts,
    address: IpAddr,
    content: Body,
) -> Result<Content<'a>, NoBody> {
    if !is_of_type(&head.headers, "application/x-www-form-urlencoded") {
        return Err(not_of_type(&head.headers));
    }
    body(app, head, address, content, app.policy.limits.oauth_body).await
}
