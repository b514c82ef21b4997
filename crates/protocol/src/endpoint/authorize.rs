//! The authorization endpoint: from a client's request to the page that a person sees
//! (RFC 6749 §4.1.1). Nothing is stored until that person decides: the request travels through
//! the page, sealed, and opens only with a cookie of the browser that it was shown in.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{
    App, Peer,
    cookie::{self, SameSite},
    extract::{self, Known, NoBody},
    pages::{Choice, ConsentPage},
    respond,
};
use crate::{
    documents::{self, NotLoaded},
    forward::client_address::client_address,
    journal::{Endpoint, Event},
    oauth::{
        authorization::{AuthorizationRequest, Params, Refusal, ReturnAddress},
        client::{ClientMetadata, KnownBy},
        client_document::DocumentUrl,
        error::OAuthError,
        form::Form,
        identifiers::ClientId,
        known_clients,
        pkce::CodeChallenge,
        redirect_uri::RedirectUri,
        scope::Scope,
    },
    ports::Timestamp,
    token::{self, Maker, Purpose},
};

/// How long the page may stay open.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long its cookie is kept. Longer, so that a page that was open for too long is told from one that
/// was opened elsewhere.
const COOKIE: Duration = Duration::from_hours(1);

/// An authorization request on its way through the consent page.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Transaction {
    #[serde(with = "crate::base64url")]
    pub(super) id: [u8; 16],
    pub(super) client_id: ClientId,
    pub(super) redirect_uri: RedirectUri,
    pub(super) state: Option<String>,
    pub(super) code_challenge: CodeChallenge,
    pub(super) scope: Scope,
    /// The upstream's own path; absent when the person is to choose.
    pub(super) path: Option<String>,
    pub(super) expires_at: Timestamp,
}

/// Why a request got no consent page.
enum NoPage {
    /// The redirect URI is not proved, so there is nowhere to tell it but here.
    Here(OAuthError),
    NoBody(NoBody),
    ToClient(Box<Refusal>),
    /// The redirect URI is the client's, but who the client is nobody here knows.
    ToStranger(Box<Refusal>),
}

/// `GET /authorize`, and `POST` with the same parameters in a form.
pub(super) async fn show_consent(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let address = client_address(peer, request.headers(), &app.policy.trusted_proxies);
    let shown = match form(&app, address, request).await {
        // Boxed, or every request that waits for its body would carry room for it.
        Ok(form) => Box::pin(consider(&app, Params::new(form), address)).await,
        Err(no_page) => Err(no_page),
    };
    match shown {
        Ok(response) => response,
        Err(NoPage::NoBody(no_body)) => respond::no_body_page(&app, Endpoint::Authorize, &no_body),
        Err(NoPage::Here(error)) => respond::refused_page(&app, Endpoint::Authorize, &error),
        Err(NoPage::ToClient(refusal)) => respond::refused_to_client(&app, &refusal),
        Err(NoPage::ToStranger(refusal)) => respond::refused_to_stranger(&app, &refusal),
    }
}

async fn form(app: &App, address: IpAddr, request: Request) -> Result<Form, NoPage> {
    let (parts, body) = request.into_parts();
    if parts.method != Method::POST {
        let query = parts.uri.query().unwrap_or_default();
        return Form::parse(query.as_bytes()).map_err(NoPage::Here);
    }
    if parts.uri.query().is_some() {
        return Err(NoPage::Here(OAuthError::invalid_request(
            "parameters of a POST belong in its body",
        )));
    }
    let content = extract::form_body(app, &parts, address, body)
        .await
        .map_err(NoPage::NoBody)?;
    Form::parse(&content.bytes).map_err(NoPage::Here)
}

async fn consider(app: &App, params: Params, address: IpAddr) -> Result<Response, NoPage> {
    // Load.
    let client_id = params.client_id().map_err(NoPage::Here)?;
    // Until its name is known, a refusal tells the client by what it calls itself here.
    let of_unknown = |error: OAuthError| NoPage::Here(error.of_client(&client_id, ""));
    if extract::document_url(app, &client_id).is_some() {
        // Only a request that could pass makes us ask somebody else's server. What is wrong with
        // another is told here, since its redirect URI stays unproved.
        params
            .could_pass(&app.policy.clients.app_schemes)
            .map_err(of_unknown)?;
    }
    let (client, known_by) = metadata(app, &client_id, address)
        .await
        .map_err(of_unknown)?;
    let of_client = |error: OAuthError| error.of_client(&client_id, &client.client_name);

    // Decide.
    let to = params
        .addressed_to(&client.redirect_uris, known_by)
        .map_err(|error| NoPage::Here(of_client(error)))?;
    let decided = params.check().and_then(|request| {
        let upstream = match (&request.resource, &app.policy.upstreams[..]) {
            (Some(resource), _) => Some(app.policy.resolve(resource)?),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        Ok((request, upstream.map(|upstream| upstream.path.clone())))
    });
    let (request, path) = match decided {
        Ok(decided) => decided,
        Err(error) => {
            let error = of_client(error);
            let refusal = Box::new(Refusal { to, error });
            return Err(if goes_by_itself(app, &client_id, &refusal.to) {
                NoPage::ToClient(refusal)
            } else {
                NoPage::ToStranger(refusal)
            });
        }
    };

    // Show.
    let transaction = Transaction::new(app, client_id, to, request, path);
    let upstream = transaction.path.as_deref();
    app.journal.record(&Event::ConsentShown {
        client_id: &transaction.client_id,
        upstream: app
            .policy
            .upstreams
            .iter()
            .find(|u| Some(&*u.path) == upstream)
            .map(|u| &*u.name),
    });
    let cookie = token::random_name(&*app.ports.entropy);
    let sealed = transaction.seal(app, &cookie);
    let mut response = page(app, StatusCode::OK, &client, &transaction, &sealed, None);
    let set_cookie = transaction.set_cookie(app, &cookie);
    response
        .headers_mut()
        .insert(header::SET_COOKIE, set_cookie);
    Ok(response)
}

/// Whether an error may go to a client before any person did anything. Anybody can register, or
/// publish a document, with an address of their own, so elsewhere a person is asked first. To this
/// computer, to a client that the operator set up, and to one that we know, it goes by itself, as
/// RFC 6749 §4.1.2.1 has it.
fn goes_by_itself(app: &App, client_id: &ClientId, to: &ReturnAddress) -> bool {
    to.redirect_uri.is_loopback()
        || known_clients::is_known_redirect_uri(&to.redirect_uri)
        || app.policy.clients.preregistered(client_id).is_some()
}

/// What the client of that name says of itself, in its registration or in its document, for
/// somebody at `address`, and how it is known.
pub(super) async fn metadata(
    app: &App,
    id: &ClientId,
    address: IpAddr,
) -> Result<(Arc<ClientMetadata>, KnownBy), OAuthError> {
    match extract::known(app, id).await? {
        Some(Known::Preregistered(client)) => {
            Ok((Arc::new(client.metadata.clone()), KnownBy::Operator))
        }
        Some(Known::Registered(read)) => {
            Ok((Arc::new(read.record.into()), KnownBy::Registration))
        }
        Some(Known::ByDocument(url)) => match documents::load(app, &url, address).await {
            Ok(document) => Ok((document, KnownBy::Document)),
            Err(NotLoaded::Invalid(error)) => Err(error),
            Err(NotLoaded::Unavailable(description)) => Err(OAuthError::invalid_request(
                description,
            )
            .in_words(
                "This proxy could not fetch the metadata document that the app publishes.",
                "Wait a minute, then start again from your app.",
            )),
        },
        None if DocumentUrl::parse(id.as_str()).is_some() => Err(OAuthError::invalid_request(
            "client_id is the URL of a metadata document, which are not taken here from this host",
        )
        .in_words(
            "This proxy does not accept metadata documents of that publisher.",
            "The operator of this proxy decides that, with documents and document_hosts under \
             [clients] in its configuration. The log has the address.",
        )),
        None if id.as_str().contains("://") => Err(OAuthError::invalid_request(
            "client_id is a URL that cannot name a metadata document: it must be https, at the \
             default port of a named host, with a path, without query or fragment, and written \
             as browsers would write it",
        )),
        None => Err(OAuthError::invalid_request(
            "client_id is not registered here",
        )
        .in_words(
            "This proxy does not know the app that sent you here. It may have forgotten it: a \
             registration that nobody approved goes after a day, and a new data directory knows none.",
            "Close this page, remove the connection in the app, and add it anew: it then registers \
             again. A Client ID that you typed must be one that is set up here.",
        )),
    }
}

impl Transaction {
    fn new(
        app: &App,
        client_id: ClientId,
        to: ReturnAddress,
        request: AuthorizationRequest,
        path: Option<String>,
    ) -> Self {
        Self {
            id: token::random(&*app.ports.entropy),
            client_id,
            redirect_uri: to.redirect_uri,
            state: to.state,
            code_challenge: request.code_challenge,
            scope: request.scope,
            path,
            expires_at: app.ports.clock.now() + PATIENCE,
        }
    }

    /// Seals the transaction to the browser that has `cookie`.
    fn seal(&self, app: &App, cookie: &str) -> String {
        let plain = serde_json::to_vec(self).expect("strings and numbers always serialise");
        let sealed = app
            .keys
            .seal(Purpose::Transaction, &plain, cookie.as_bytes());
        format!("{}.{sealed}", self.short_id())
    }

    /// Opens a sealed transaction with the cookie that was set when it was shown, and says which key
    /// sealed it. `None`: it is
    /// another browser, or nothing that we sealed.
    pub(super) fn open(
        app: &App,
        sealed: &str,
        headers: &http::HeaderMap,
    ) -> Option<(Self, Maker)> {
        let (short_id, sealed) = sealed.split_once('.')?;
        let cookie = cookie::value(headers, &cookie::name(app, &cookie_name(short_id)))?;
        let (plain, maker) = app
            .keys
            .open(Purpose::Transaction, sealed, cookie.as_bytes())?;
        let transaction: Self = serde_json::from_slice(&plain).ok()?;
        (transaction.short_id() == short_id).then_some((transaction, maker))
    }

    /// The cookie that binds this transaction to a browser. Each has its own, so that two tabs, or
    /// a page that a browser loads twice, do not take it from each other.
    fn set_cookie(&self, app: &App, value: &str) -> HeaderValue {
        let name = cookie_name(&self.short_id());
        cookie::set(app, &name, value, COOKIE.as_secs(), SameSite::Lax)
    }

    fn short_id(&self) -> String {
        let mut id = token::fingerprint(&self.id);
        id.truncate(8);
        id
    }

    /// Where the answer goes.
    pub(super) fn return_address(&self) -> ReturnAddress {
        ReturnAddress {
            redirect_uri: self.redirect_uri.clone(),
            state: self.state.clone(),
        }
    }
}

fn cookie_name(short_id: &str) -> String {
    format!("mcp-consent-{short_id}")
}

/// Where the passphrase or PIN is found, for the one person who can look: http is for this computer
/// alone, and whoever sees a page there is its user.
pub(super) fn reminder(app: &App) -> Option<&str> {
    let is_local = !app.policy.issuer.is_https();
    let reminder = app.policy.sign_in.reminder.as_deref();
    reminder.filter(|_| is_local)
}

/// The consent page for a transaction, `problem` being what was wrong with the last try.
pub(super) fn page(
    app: &App,
    status: StatusCode,
    client: &ClientMetadata,
    transaction: &Transaction,
    sealed: &str,
    problem: Option<&str>,
) -> Response {
    let upstreams = &app.policy.upstreams;
    let choices = upstreams
        .iter()
        .filter(|upstream| {
            transaction
                .path
                .as_ref()
                .is_none_or(|path| *path == upstream.path)
        })
        .map(|upstream| Choice {
            name: &upstream.name,
            title: &upstream.title,
            address: upstream.resource.as_str(),
            selected: transaction.path.is_some(),
        })
        .collect();
    let document = DocumentUrl::parse(transaction.client_id.as_str());
    let page = ConsentPage {
        client_name: &client.client_name,
        client_host: document.as_ref().map(DocumentUrl::host),
        set_up_by_operator: app
            .policy
            .clients
            .preregistered(&transaction.client_id)
            .is_some(),
        return_host: &transaction.redirect_uri.place(),
        redirect_uri: transaction.redirect_uri.as_str(),
        returns_to_this_computer: transaction.redirect_uri.is_loopback(),
        returns_to_known_client: known_clients::is_known_redirect_uri(&transaction.redirect_uri),
        upstreams: choices,
        abilities: vec!["Use every tool of this server, to read and to change things."],
        sign_in: app.policy.sign_in.kind,
        grant_days: app
            .policy
            .tokens
            .refresh_idle
            .as_secs()
            .div_ceil(24 * 60 * 60),
        transaction: sealed,
        action: "/consent",
        problem,
        reminder: reminder(app),
    };
    respond::page(app, status, page.render())
}
