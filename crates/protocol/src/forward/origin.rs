//! Which browser pages may call, and under which name we may be called.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Request, Version, header, uri::Authority};
use url::Url;

use crate::{
    oauth::identifiers::{Alias, Issuer, is_loopback},
    policy::Policy,
};

/// The page that a request comes from, when that page may call. `Ok(None)`: no page, so a program.
///
/// At a public address every page may: what decides is the token, which no browser adds by itself, and
/// a page that has none learns where to get one. A proxy for this computer alone is called by our own
/// pages, by others on this computer, and by those that the operator allowed; another page is an `Err`
/// (MCP transports, "Security Warning": 403).
pub fn allowed<'a>(
    headers: &'a HeaderMap,
    policy: &Policy,
) -> Result<Option<&'a HeaderValue>, NotAllowed<'a>> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(None);
    };
    let is_known = |text: &str| {
        policy.is_own_origin(text)
            || policy.allowed_origins.iter().any(|allowed| allowed == text)
            || Url::parse(text)
                .is_ok_and(|url| is_loopback(&url) && url.origin().ascii_serialization() == text)
    };
    if !policy.issuer.is_loopback() || origin.to_str().is_ok_and(is_known) {
        Ok(Some(origin))
    } else {
        Err(NotAllowed(origin))
    }
}

/// The request comes from a browser page that may not call: its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAllowed<'a>(pub &'a HeaderValue);

/// Whether a request has as many `Host` headers as HTTP lets it have (RFC 9112 §3.2). With two,
/// whatever is in front of us may have gone by the other one.
pub fn has_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => request.version() != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

/// The name that a request calls this program by, when that cannot be a name of ours. It is only
/// looked at when the program runs for this computer alone: then a page elsewhere could point a
/// name of its own at it (DNS rebinding). Nothing else is ever decided by it.
///
/// A whole URL in the request line names its host too, and the peer in front of us may have gone
/// by that one (RFC 9112 §3.2.2).
pub fn foreign_host<'a, B>(
    request: &'a Request<B>,
    issuer: &Issuer,
    aliases: &[Alias],
) -> Option<&'a str> {
    let is_alias = |host: &str| aliases.iter().any(|alias| alias.is_called(host));
    // Nearly every request names the public address or a loopback one: neither costs a parse.
    names(request).find(|host| {
        issuer.authority() != *host
            && !names_this_computer(host)
            && issuer.is_loopback()
            && !is_alias(host)
    })
}

/// The origin of ours that a request calls this program by; the issuer, if by none of ours. Clients
/// compare what they are told of a resource with the address that they know.
pub fn called<'p, B>(request: &Request<B>, policy: &'p Policy) -> &'p str {
    // A whole URL in the request line is what counts (RFC 9112 §3.2.2).
    let host = names(request).last().unwrap_or_default();
    policy.name_of_host(host)
}

/// Whether a request calls this program by a name that only this computer has for itself.
pub fn is_for_this_computer<B>(request: &Request<B>) -> bool {
    names(request).all(names_this_computer)
}

/// The names that a request calls this program by.
fn names<B>(request: &Request<B>) -> impl Iterator<Item = &str> {
    let header = request.headers().get(header::HOST);
    // What is no text is no name of ours either.
    let header = header.map(|host| host.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    [header, target].into_iter().flatten()
}

/// Whether a `Host` value is `localhost` or a loopback address, with a port or without.
fn names_this_computer(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tl_16_a_foreign_host_is_refused_when_run_locally() {
        let (local, public) = (
            Issuer::parse("http://127.0.0.1:8080").unwrap(),
            Issuer::parse("https://gw.example").unwrap(),
        );
        for (host, is_local) in [
            ("127.0.0.1:8080", true),
            ("localhost:8080", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("192.168.1.7:8080", false),
            ("user@127.0.0.1", false),
            ("127.0.0.1:80@evil.example", false),
            ("::1", false),
            ("[::1]", true),
            ("LOCALHOST", true),
        ] {
            let by_header = Request::get("/").header(header::HOST, host);
            let by_target =
                Request::get(format!("http://{host}/")).header(header::HOST, "127.0.0.1");
            for request in [by_header, by_target] {
                // What is no host is no request target either.
                let Ok(request) = request.body(()) else {
                    continue;
                };
                let foreign = foreign_host(&request, &local, &[]);
                assert_eq!(foreign, (!is_local).then_some(host), "{request:?}");
                assert_eq!(foreign_host(&request, &public, &[]), None);
                assert_eq!(is_for_this_computer(&request), is_local);
            }
        }
        assert_eq!(foreign_host(&Request::new(()), &local, &[]), None);
    }

    /// Case 07: a further name that the operator gave is one of ours, in any case, and no other is.
    #[test]
    fn an_alias_is_no_foreign_host() {
        let local = Issuer::parse("http://127.0.0.1:8080").unwrap();
        let aliases = [Alias::parse("http://proxy:8080").unwrap()];
        let named = |host: &str| {
            Request::get("/")
                .header(header::HOST, host)
                .body(())
                .unwrap()
        };
        for host in ["proxy:8080", "PROXY:8080"] {
            assert_eq!(foreign_host(&named(host), &local, &aliases), None);
            assert_eq!(foreign_host(&named(host), &local, &[]), Some(host));
        }
        for host in ["proxy", "proxy:8081", "proxy.evil.example:8080"] {
            assert_eq!(foreign_host(&named(host), &local, &aliases), Some(host));
        }
    }
}
