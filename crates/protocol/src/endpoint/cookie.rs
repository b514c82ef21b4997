//! Our cookies: what each is called, and where browsers take it.

use http::{HeaderMap, HeaderValue, header};

use super::App;

/// The one path that cookies are sent to.
const CONSENT: &str = "/consent";

/// Whether a cookie also comes with a form after another site led to its page.
#[derive(Clone, Copy)]
pub(super) enum SameSite {
    Lax,
    Strict,
}

/// What the cookie is called here. Over TLS the prefix keeps other hosts of the domain from planting
/// it (RFC 6265bis §4.1.3.2); without TLS browsers do not take it.
pub(super) fn name(app: &App, plain: &str) -> String {
    let prefix = if app.policy.issuer.is_https() {
        "__Host-"
    } else {
        ""
    };
    format!("{prefix}{plain}")
}

/// A `Set-Cookie` for the cookie called `plain`.
pub(super) fn set(
    app: &App,
    plain: &str,
    value: &str,
    seconds: u64,
    same_site: SameSite,
) -> HeaderValue {
    // The prefix wants the whole site. Without it, one path: cookies know no ports, so any program
    // of this computer that a browser is sent to would get it.
    let (path, secure) = if app.policy.issuer.is_https() {
        ("/", "; Secure")
    } else {
        (CONSENT, "")
    };
    let same_site = match same_site {
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
    };
    let name = name(app, plain);
    HeaderValue::try_from(format!(
        "{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}"
    ))
    .expect("a base64url value between ASCII attributes")
}

/// The value of the cookie called `name`, if there is exactly one.
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // As bytes: what other programs of the same domain keep in their cookies need not be text.
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let end = pair.iter().position(|byte| *byte == b'=')?;
            (pair[..end].trim_ascii() == name.as_bytes()).then(|| pair[end + 1..].trim_ascii())
        });
    let first = found.next();
    first
        .filter(|_| found.next().is_none())
        .and_then(|value| str::from_utf8(value).ok())
}
