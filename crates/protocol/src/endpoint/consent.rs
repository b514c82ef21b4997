//! The answer of a person: approve or deny (RFC 6749 §4.1.2).

use std::{net::IpAddr, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, StatusCode, header};

use super::{
    App, Peer,
    authorize::{Transaction, metadata, page},
    extract, other_keys,
    respond::{self, Decided, Notice},
    sign_in::{NotSignedIn, SignIn},
};
use crate::{
    forward::client_address::client_address,
    identity::backoff,
    journal::{Endpoint, Event, Limit},
    oauth::{
        authorization::redirect_uri_differs, authorization_code::IssuedCode,
        client::ClientMetadata, client_auth::AuthMethod, error::OAuthError, form::Form,
    },
    policy::UpstreamPolicy,
    rates::{self, Rate},
    records::Decision,
    token::Maker,
};

/// How often one address may deny. People deny once in a while; who needs more can as well close
/// the page, which approves nothing either. So this is no operator's business.
const DENIALS_PER_ADDRESS: Rate = Rate {
    most: 10,
    per: Duration::from_mins(10),
};
/// How often all may: with the lifetime of the records, some 4,000 are kept at most.
const DENIALS: Rate = Rate {
    most: 100,
    per: Duration::from_secs(100),
};

/// Who signs in with the passphrase or PIN.
const OWNER: &str = "owner";

/// `POST /consent`: the form of the consent page.
pub(super) async fn decide(
    State(app): State<App>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    if !is_from_our_page(&app, &parts.headers) {
        return respond::notice(&app, &Notice::ForeignForm);
    }
    let address = client_address(peer, &parts.headers, &app.policy.trusted_proxies);
    let content = match extract::form_body(&app, &parts, address, body).await {
        Ok(content) => content,
        Err(no_body) => return respond::no_body_page(&app, Endpoint::Consent, &no_body),
    };
    let decided = match Form::parse(&content.bytes) {
        // Boxed, or every request that waits for its body would carry room for it.
        Ok(form) => Box::pin(decision(&app, &form, &parts.headers, address)).await,
        Err(error) => Err(error),
    };
    decided.unwrap_or_else(|error| respond::refused_page(&app, Endpoint::Consent, &error))
}

/// Whether the form was sent by a page of ours, as far as the browser says. What binds the form
/// for sure is its cookie; this catches the attempt early. An origin of `null` is what browsers
/// send from our own pages, which have no referrer. Each member counts where there are several.
fn is_from_our_page(app: &App, headers: &HeaderMap) -> bool {
    let all = |name: &str, fits: &dyn Fn(&[u8]) -> bool| {
        let members = headers.get_all(name).iter().flat_map(|value| {
            let members = value.as_bytes().split(|byte| *byte == b',');
            members.map(<[u8]>::trim_ascii)
        });
        members.into_iter().all(fits)
    };
    if headers.contains_key("sec-fetch-site") {
        all("sec-fetch-site", &|site| {
            site == b"same-origin" || site == b"none"
        })
    } else {
        let is_own = |origin: &str| app.policy.is_own_origin(origin);
        all("origin", &|origin| {
            origin == b"null" || str::from_utf8(origin).is_ok_and(is_own)
        })
    }
}

async fn decision(
    app: &App,
    form: &Form,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Response, OAuthError> {
    // Load.
    let sealed = form.one("transaction")?.unwrap_or_default();
    let Some((transaction, sealed_by)) = Transaction::open(app, sealed, headers) else {
        let (_, text) = sealed.split_once('.').unwrap_or_default();
        other_keys::refuse_if_missing(app, text).await?;
        return Ok(respond::notice(app, &Notice::ForeignForm));
    };
    if transaction.expires_at <= app.ports.clock.now() {
        return Ok(respond::notice(app, &Notice::Expired));
    }
    let id = &transaction.client_id;
    let (client, known_by) = metadata(app, id, address)
        .await
        .map_err(|error| error.of_client(id, ""))?;
    let asked = transaction.redirect_uri.as_str();
    let known = &client.redirect_uris;
    if !known.iter().any(|uri| uri.matches(asked)) {
        let differs = redirect_uri_differs(asked, known, known_by);
        return Err(differs.of_client(id, &client.client_name));
    }

    let consent = Consent {
        app,
        client: &client,
        transaction: &transaction,
        sealed_by,
        sealed,
        headers,
        address,
    };
    let decided = match form.required("decision", "decision is missing") {
        Ok("approve") => consent.approve(form).await,
        Ok("deny") => consent.deny().await,
        Ok(_) => Err(OAuthError::invalid_request(
            "decision must be approve or deny",
        )),
        Err(missing) => Err(missing),
    };
    decided.map_err(|error| error.of_client(id, &client.client_name))
}

/// One person deciding about one client.
struct Consent<'a> {
    app: &'a App,
    client: &'a ClientMetadata,
    transaction: &'a Transaction,
    sealed_by: Maker,
    sealed: &'a str,
    headers: &'a HeaderMap,
    address: IpAddr,
}

impl Consent<'_> {
    async fn approve(&self, form: &Form) -> Result<Response, OAuthError> {
        let app = self.app;
        let Some(upstream) = self.chosen(form.one("upstream")?) else {
            return Ok(self.page_again(StatusCode::BAD_REQUEST, "Choose the server first."));
        };

        let secret = form.one("secret")?.unwrap_or_default();
        let known_browser = match self.sign_in().with(secret).await {
            Ok(cookie) => cookie,
            Err(no) => return self.not_signed_in(no),
        };

        let expires_at = app.ports.clock.now() + app.policy.tokens.code_lifetime;
        let approved = Decision::Approved(IssuedCode {
            client_id: self.transaction.client_id.clone(),
            redirect_uri: self.transaction.redirect_uri.clone(),
            code_challenge: self.transaction.code_challenge.clone(),
            subject: OWNER.to_owned(),
            resource: upstream.resource.clone(),
            upstream: upstream.name.clone(),
            scope: self.transaction.scope.clone(),
            needs_key: self.client.token_endpoint_auth_method == AuthMethod::PrivateKeyJwt,
            expires_at,
        });
        let code = self.code();
        if app
            .records()
            .insert_decision(&code, &approved, expires_at)
            .await?
        {
            app.journal.record(&Event::Approved {
                client_id: &self.transaction.client_id,
                upstream: &upstream.name,
                subject: OWNER,
            });
        } else {
            // The form was sent twice: the first decision holds, and gives the same code.
            match app.records().decision(&code).await? {
                Some(Decision::Approved(issued)) if issued.expires_at > app.ports.clock.now() => {}
                Some(Decision::Denied) => {
                    return Ok(respond::notice(app, &Notice::AlreadyDenied));
                }
                _ => return Ok(respond::notice(app, &Notice::Expired)),
            }
        }
        let to = self.transaction.return_address();
        let location = to.with_code(&code, &app.policy.issuer);
        let mut response = respond::back_to_client(app, &to, &location, Decided::Approved);
        response
            .headers_mut()
            .insert(header::SET_COOKIE, known_browser);
        Ok(response)
    }

    /// The code of this transaction: of the key that sealed it, so that a form which is sent again
    /// after another key came gives the same one.
    fn code(&self) -> String {
        self.app
            .keys
            .authorization_code(self.sealed_by, &self.transaction.id)
            .expect("the key that opened the transaction is here")
    }

    fn sign_in(&self) -> SignIn<'_> {
        SignIn {
            app: self.app,
            headers: self.headers,
            address: self.address,
            transaction: self.transaction.id,
        }
    }

    fn not_signed_in(&self, why: NotSignedIn) -> Result<Response, OAuthError> {
        let left = match why {
            NotSignedIn::Wrong { left } => left,
            NotSignedIn::Blocked { wait } => {
                return Ok(respond::notice(self.app, &Notice::TooManyAttempts { wait }));
            }
            NotSignedIn::PageSpent => return Ok(respond::notice(self.app, &Notice::PageSpent)),
            NotSignedIn::Records(error) => return Err(error.into()),
        };
        let problem = match left {
            0 => format!(
                "That is not right. Wait {} minutes, until {}, then connect again from your app.",
                backoff::WAIT.as_secs() / 60,
                respond::time_of_day(self.app.ports.clock.now() + backoff::WAIT)
            ),
            1 => "That is not right. One attempt is left.".to_owned(),
            left => format!("That is not right. {left} attempts are left."),
        };
        Ok(self.page_again(StatusCode::UNAUTHORIZED, &problem))
    }

    async fn deny(&self) -> Result<Response, OAuthError> {
        let app = self.app;
        // Nobody proved anything, and yet a record is kept: that its approval is refused.
        if let Err(wait) = self.admit_denial() {
            return Ok(respond::notice(app, &Notice::TooManyDenials { wait }));
        }
        let code = self.code();
        let expires_at = self.transaction.expires_at;
        if app
            .records()
            .insert_decision(&code, &Decision::Denied, expires_at)
            .await?
        {
            app.journal.record(&Event::Denied {
                client_id: &self.transaction.client_id,
            });
        } else if app.records().decision(&code).await? != Some(Decision::Denied) {
            return Ok(respond::notice(app, &Notice::AlreadyApproved));
        }
        let error = OAuthError::access_denied("the resource owner denied the request");
        let to = self.transaction.return_address();
        let location = to.with_error(&error, &app.policy.issuer);
        Ok(respond::back_to_client(
            app,
            &to,
            &location,
            Decided::Denied,
        ))
    }

    /// Counts one more denial, or refuses it.
    fn admit_denial(&self) -> Result<(), Duration> {
        let app = self.app;
        let now = app.ports.clock.elapsed();
        let refusal = |limit| {
            let address = Some(self.address);
            move |wait| {
                app.journal.record(&Event::Limited { limit, address });
                wait
            }
        };
        app.denials_of
            .take(rates::network(self.address), Some(DENIALS_PER_ADDRESS), now)
            .map_err(refusal(Limit::DenialsPerAddress))?;
        app.denials
            .take(Some(DENIALS), now)
            .map_err(refusal(Limit::Denials))
    }

    /// The upstream that the request named, or else that the person chose.
    fn chosen(&self, name: Option<&str>) -> Option<&UpstreamPolicy> {
        let upstreams = &self.app.policy.upstreams;
        let chosen = match &self.transaction.path {
            Some(path) => upstreams.iter().find(|upstream| upstream.path == *path),
            None => upstreams
                .iter()
                .find(|upstream| Some(&*upstream.name) == name),
        };
        chosen.map(|upstream| &**upstream)
    }

    fn page_again(&self, status: StatusCode, problem: &str) -> Response {
        page(
            self.app,
            status,
            self.client,
            self.transaction,
            self.sealed,
            Some(problem),
        )
    }
}
