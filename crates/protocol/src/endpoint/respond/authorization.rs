//! Answers to an authorization request: to the client at its redirect URI, or as a page to the
//! person whom it sent here.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    super::{
        App,
        extract::NoBody,
        pages::{Link, MessagePage},
    },
    empty, note,
    oauth::unreadable,
    page, status_of, tell_when_to_retry,
};
use crate::{
    journal::Endpoint,
    oauth::{
        authorization::{Refusal, ReturnAddress},
        error::{ForPeople, OAuthError},
    },
};

const NOT_ACCEPTED: &str =
    "The app that sent you here made a request that this proxy cannot accept.";

/// A refusal at the authorization endpoint that must not travel: the redirect URI is not proved.
pub(crate) fn refused_page(app: &App, endpoint: Endpoint, error: &OAuthError) -> Response<Body> {
    let request_id = note(app, endpoint, error);
    error_page(app, status_of(error.code), error, request_id.as_deref())
}

/// A request body that was not taken, to a person.
pub(crate) fn no_body_page(app: &App, endpoint: Endpoint, why: &NoBody) -> Response<Body> {
    let (status, error) = unreadable(endpoint, why);
    note(app, endpoint, &error);
    error_page(app, status, &error, None)
}

fn error_page(
    app: &App,
    status: StatusCode,
    error: &OAuthError,
    request_id: Option<&str>,
) -> Response<Body> {
    let (title, usual) = if status.is_server_error() {
        let usual = ForPeople {
            what: "A service that this proxy depends on is unavailable.".into(),
            next_step: "Wait a moment, then start again from your app.".into(),
        };
        ("This does not work right now", usual)
    } else {
        let usual = ForPeople {
            what: NOT_ACCEPTED.into(),
            next_step: "Close this page and connect again from your app. If it happens again, remove \
                        the connection there and add it anew. If that does not help, show this page \
                        to the operator of this proxy: the same words are in its log."
                .into(),
        };
        ("This request cannot be approved", usual)
    };
    let words = error.for_people.as_deref().unwrap_or(&usual);
    let client = client_of(error);
    let page = MessagePage {
        title,
        explanation: &words.what,
        next_step: &words.next_step,
        details: details(error, client.as_deref(), request_id),
        ..MessagePage::default()
    };
    let mut response = self::page(app, status, page.render());
    tell_when_to_retry(&mut response, error);
    response
}

/// The refused client, in one line. An unknown client, or one without a name, is left out, so that
/// the page is the same for every caller.
fn client_of(error: &OAuthError) -> Option<String> {
    let client = error.client.as_deref()?;
    match client.name.trim() {
        "" => None,
        name => Some(format!("{name} ({})", client.client_id)),
    }
}

/// The small print of a refusal.
fn details<'a>(
    error: &'a OAuthError,
    client: Option<&'a str>,
    request_id: Option<&'a str>,
) -> Vec<(&'a str, &'a str)> {
    let app = client.map(|client| ("App", client));
    let reference = request_id.map(|id| ("Reference", id));
    let reason = ("The reason", &*error.description);
    app.into_iter().chain([reason]).chain(reference).collect()
}

/// A refusal that the client gets, at its own, proved redirect URI.
pub(crate) fn refused_to_client(app: &App, refusal: &Refusal) -> Response<Body> {
    note(app, Endpoint::Authorize, &refusal.error);
    see_other(&refusal.to.with_error(&refusal.error, &app.policy.issuer))
}

/// The same for an unknown client: a person decides whether to go there. Otherwise this server
/// would be an open redirector (RFC 9700 §4.11.2).
pub(crate) fn refused_to_stranger(app: &App, refusal: &Refusal) -> Response<Body> {
    note(app, Endpoint::Authorize, &refusal.error);
    let error = &refusal.error;
    let href = refusal.to.with_error(error, &app.policy.issuer);
    let place = refusal.to.redirect_uri.place();
    let words = error.for_people.as_deref();
    let client = client_of(error);
    let message = MessagePage {
        title: "This request cannot be approved",
        explanation: words.map_or(NOT_ACCEPTED, |words| &words.what),
        next_step: "If you have just started this in an app that you trust, go back and tell it. \
                    If not, close this page.",
        link: Some(Link {
            href: &href,
            words: "Go to",
            place: &place,
        }),
        details: details(error, client.as_deref(), None),
        ..MessagePage::default()
    };
    page(app, status_of(error.code), message.render())
}

/// What a person decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Approved,
    Denied,
}

/// Takes the answer of a person back to the client at `location`, which is made from `to`. Websites
/// and programs that listen on this computer show a page of their own. A link of an app the browser
/// hands to the system and stays where it is, so there it gets a page that says what happened.
pub(crate) fn back_to_client(
    app: &App,
    to: &ReturnAddress,
    location: &str,
    decided: Decided,
) -> Response<Body> {
    if !to.redirect_uri.is_app_link() {
        return see_other(location);
    }
    let (title, explanation) = match decided {
        Decided::Approved => (
            "Done. You can close this page.",
            "You approved the connection, and the app has the answer.",
        ),
        Decided::Denied => (
            "Denied. You can close this page.",
            "The app gets no access, and knows that you denied it.",
        ),
    };
    let message = MessagePage {
        title,
        explanation,
        next_step: "Go back to the app. If your browser asks whether to open it, allow that. If the \
                    app did not open, use this link.",
        link: Some(Link {
            href: location,
            words: "Open the app:",
            place: &to.redirect_uri.place(),
        }),
        goes_to: Some(location),
        ..MessagePage::default()
    };
    page(app, StatusCode::OK, message.render())
}

/// Takes the browser somewhere with a GET, whatever it sent (RFC 9700 §4.12).
fn see_other(location: &str) -> Response<Body> {
    let mut response = empty(StatusCode::SEE_OTHER);
    let location =
        HeaderValue::try_from(location).expect("redirect URIs are ASCII, parameters are encoded");
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}
