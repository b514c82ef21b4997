//! What happens, as one closed enum. Endpoints write it; logs, metrics, audit and the pages for
//! people read it. No event carries a secret.

mod names;

use std::{error::Error, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode};

use crate::{
    forward::shown_address::looks_like_key,
    mcp::{opening::About, repeated::Contradiction, revision::Era},
    oauth::{
        bearer,
        error::{ErrorCode, RefusedClient},
        grant::Revoked,
        identifiers::ClientId,
        refresh_token::Repeated,
    },
    policy::UpstreamPolicy,
    ports::UpstreamError,
    records::Damaged,
};

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A client registered (RFC 7591). Its name is its own claim. `left_out` are the links of apps
    /// among its redirect URIs that nobody let in, as the error module tells texts of requests.
    ClientRegistered {
        client_id: &'a ClientId,
        client_name: &'a str,
        left_out: &'a [String],
    },
    /// What a client publishes, its metadata or its keys, was fetched and can be used.
    DocumentFetched { url: &'a str },
    /// It could not be fetched, or not be used. `instead` is what was used in its place.
    DocumentFailed {
        url: &'a str,
        cause: &'a (dyn Error + 'static),
        instead: Option<Instead>,
    },
    /// The consent page was shown. `upstream` is absent while the person is to choose it.
    ConsentShown {
        client_id: &'a ClientId,
        upstream: Option<&'a str>,
    },
    /// A person approved a client for an upstream.
    Approved {
        client_id: &'a ClientId,
        upstream: &'a str,
        subject: &'a str,
    },
    /// A person denied it.
    Denied { client_id: &'a ClientId },
    /// A wrong passphrase or PIN; `left` more are let through from that address or known browser.
    SignInFailed { address: IpAddr, left: u32 },
    /// An attempt was not even looked at.
    SignInBlocked { address: IpAddr, wait: Duration },
    /// So many attempts of strangers failed that every further one of theirs is slowed down.
    GuessingSlowed,
    /// A code was redeemed for tokens of a grant.
    CodeRedeemed {
        client_id: &'a ClientId,
        grant: &'a str,
    },
    /// A refresh token was succeeded by the next.
    TokenRefreshed {
        client_id: &'a ClientId,
        grant: &'a str,
    },
    /// The predecessor got the live token again, this long after the rotation.
    RefreshRepeated {
        client_id: &'a ClientId,
        grant: &'a str,
        why: Repeated,
        age: Duration,
    },
    /// A token came from a generation that the store had lost.
    StoreRegressed {
        client_id: &'a ClientId,
        grant: &'a str,
    },
    /// A grant ended.
    GrantRevoked {
        client_id: &'a ClientId,
        grant: &'a str,
        why: &'a Revoked,
    },
    /// An OAuth endpoint or page refused a request, or failed to serve it. `presented` is what
    /// `told_url` leaves of the value that was refused.
    Refused {
        endpoint: Endpoint,
        error: ErrorCode,
        description: &'a str,
        /// The value that was refused.
        presented: Option<&'a str>,
        /// Details for the log.
        detail: Option<&'a str>,
        /// Whose request it was, as far as that was known.
        client: Option<&'a RefusedClient>,
    },
    /// A request came under a name that is not ours, while we run for this computer alone; `host`
    /// is what `told_host` leaves of it.
    Misdirected { host: &'a str },
    /// A request came back that we sent to an upstream.
    Looped,
    /// A limit refused a request; `address` is who sent it, if that is what was counted.
    Limited {
        limit: Limit,
        address: Option<IpAddr>,
    },
    /// So many clients registered that some went that nobody had approved yet.
    UnusedClientsRemoved { removed: u64 },
    /// There is nothing at this path, of which `path` is what `told_path` leaves; `served` lists the
    /// addresses there are. Only told at all so that a mistyped address can be seen.
    NotFound { path: &'a str, served: &'a str },
    /// A request needed a record that the store has and this program cannot read.
    RecordDamaged {
        endpoint: Endpoint,
        request_id: &'a str,
        damaged: &'a Damaged,
    },
    /// The program failed: the store, or itself.
    Failed {
        endpoint: Endpoint,
        request_id: &'a str,
        cause: &'a (dyn Error + 'static),
    },
    /// A call went to an upstream and its answer began. `took` is the time until then.
    CallForwarded {
        call: Call<'a>,
        era: Era,
        took: Duration,
    },
    /// A call was refused before it reached the upstream.
    CallRefused { call: Call<'a>, why: CallRefused },
    /// A browser page that may not call tried to; `origin` is what `told_origin` leaves of its origin.
    OriginRefused { call: Call<'a>, origin: &'a str },
    /// The upstream gave no answer, or one that is not passed on.
    UpstreamFailed {
        call: Call<'a>,
        why: UpstreamFailed,
        /// What the operator needs to know of it: the name by which the upstream was called, where
        /// it redirects to, whose firewall answered.
        detail: Option<&'a str>,
        cause: Option<&'a (dyn Error + 'static)>,
    },
    /// The version header of a client said something else than its body, and was mended. Once for
    /// each grant.
    VersionMended {
        client_id: &'a ClientId,
        upstream: &'a str,
        said: Option<&'a str>,
        spoken: &'a str,
    },
    /// The upstream redirects to `target`, on the same origin, and the call went on there. The
    /// first time only.
    RedirectFollowed { upstream: &'a str, target: &'a str },
    /// An upstream was asked whether it answers, before anybody calls it.
    UpstreamTried {
        upstream: &'a str,
        outcome: &'a Trial,
    },
}

/// A call: who made it, what for, and what came of it. One event tells each of them.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub upstream: &'a UpstreamPolicy,
    /// Known once the token has proved it.
    pub caller: Option<Caller<'a>>,
    pub method: &'a Method,
    /// The JSON-RPC method that the body asks for, if the body was read.
    pub rpc_method: Option<&'a str>,
    /// The tool that it calls.
    pub tool: Option<&'a str>,
    /// What the client was answered.
    pub status: StatusCode,
    /// What the upstream answered.
    pub upstream_status: Option<StatusCode>,
}

/// A person, and the client that calls for them.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub subject: &'a str,
    pub client_id: &'a ClientId,
}

/// Which endpoint an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Authorize,
    Consent,
    Mcp,
    Ready,
    Register,
    Revoke,
    Token,
}

/// Which limit refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    AttemptsPerPage,
    BriefStreamsPerGrant,
    CallsPerGrant,
    Denials,
    DenialsPerAddress,
    DocumentFetches,
    DocumentFetchesPerAddress,
    DocumentFetchesPerHost,
    FailuresPerDocument,
    Registrations,
    RegistrationsPerAddress,
    StreamsPerGrant,
    WaitingRequests,
    WrongSecrets,
    WrongTokens,
}

/// What stands in for a document that its publisher did not get through to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instead {
    /// What was fetched before.
    LastGoodCopy,
    /// The copy in this program.
    PinnedCopy,
}

/// Why a call did not reach its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallRefused {
    Bearer(bearer::Refused),
    Method,
    /// A header that says one thing says two.
    Repeated,
    /// `Mcp-Method` or `Mcp-Name` says something else than the body.
    Contradiction(Contradiction),
    /// A member of the body that decides something is there twice.
    MemberTwice,
    /// The request body is larger than the limit.
    TooLarge,
    /// The MCP session is unknown, or another client's.
    Session,
    /// The request body broke off.
    Body,
    /// There was no room for the request body, which is said by an event of its own.
    NoRoom,
    Limit(Limit),
}

/// Why an upstream's answer, or the lack of one, is answered by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamFailed {
    Unreachable,
    TimedOut,
    Broken,
    /// 401: it does not take our credential, and has not taken it since.
    CredentialRefused,
    /// 401, and there is no credential in the configuration.
    CredentialMissing,
    /// 401 that leads to a sign-in with the upstream's own OAuth.
    SignInDemanded,
    /// It refuses this call, by a credential that is good for others.
    CallForbidden,
    /// It does not take the name by which it is called.
    HostRefused,
    /// It, or a firewall before it, answered with a page for people.
    Page,
    /// It no longer knows the session that the request is in.
    SessionLost,
    /// It sends us elsewhere.
    Redirected,
    /// It has nothing at the path of its address.
    NothingThere,
    /// It speaks the HTTP with SSE of 2024.
    OldTransport,
    /// It is called by https, and speaks no TLS.
    NoTls,
    /// Its certificate is not one that this machine trusts.
    Untrusted,
    /// It is called by http, and speaks TLS.
    WantsTls,
    /// It answers a trial with what is no MCP.
    NoMcp,
    /// It leads back to this proxy.
    Looped,
    /// 5xx.
    ServerError,
    /// 1xx, or a status that HTTP does not know.
    Nonsense,
}

/// What it came to that an upstream was tried.
#[derive(Debug)]
pub enum Trial {
    /// It answers, and this is what it says of itself.
    Answered(About),
    Failed {
        why: UpstreamFailed,
        /// What the operator needs to know of it, as with a call that failed.
        detail: Option<String>,
        /// What it answered.
        status: Option<StatusCode>,
        cause: Option<UpstreamError>,
    },
}

impl Trial {
    pub(crate) fn failed(why: UpstreamFailed) -> Self {
        Self::Failed {
            why,
            detail: None,
            status: None,
            cause: None,
        }
    }
}

/// Whoever wants to know what happens. Called on the request's own path, so it must be quick and
/// must not wait.
pub trait Reader: Send + Sync {
    fn read(&self, event: &Event<'_>);
}

impl<R: Reader + ?Sized> Reader for Arc<R> {
    fn read(&self, event: &Event<'_>) {
        (**self).read(event);
    }
}

/// All the readers.
#[derive(Default)]
pub struct Journal(Vec<Box<dyn Reader>>);

impl Journal {
    pub fn new(readers: Vec<Box<dyn Reader>>) -> Self {
        Self(readers)
    }

    pub fn record(&self, event: &Event<'_>) {
        for reader in &self.0 {
            reader.read(event);
        }
    }
}

/// Segments of a path that are told.
const MOST_SEGMENTS: usize = 4;
/// The longest host that is told: no name has more bytes, with a port.
const LONGEST_HOST: usize = 259;

/// What may be told of a path that somebody asked for. Some servers have their key in the address,
/// which then is tried here too, so only what looks like a name is told.
pub(crate) fn told_path(path: &str) -> String {
    let mut told = String::new();
    let mut segments = path.split('/').skip(1);
    for segment in segments.by_ref().take(MOST_SEGMENTS) {
        told.push('/');
        told.push_str(if looks_like_key(segment) {
            "…"
        } else {
            segment
        });
    }
    if segments.next().is_some() {
        told.push_str("/…");
    }
    told
}

/// The part of a presented URL, such as a `resource`, that may be logged: its path by the rule for
/// paths, and no query, which may hold a key.
pub(crate) fn told_url(url: &str) -> String {
    let (url, more) = match url.find(['?', '#']) {
        Some(end) => (&url[..end], "?…"),
        None => (url, ""),
    };
    let Some((scheme, rest)) = url
        .split_once("://")
        .filter(|(scheme, _)| !looks_like_key(scheme))
    else {
        // No URL at all, so perhaps a path or a name.
        return told_path(&format!("/{}", url.trim_start_matches('/'))) + more;
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{}{more}", told_host(host), told_path(path))
}

/// The `Origin` of a page as it may be logged: scheme, host and port.
pub(crate) fn told_origin(origin: &HeaderValue) -> &str {
    let origin = origin.to_str().unwrap_or("an origin that is no text");
    &origin[..origin.floor_char_boundary(LONGEST_HOST)]
}

/// What may be told of a host that somebody asked for: not who asked, by name and password, nor
/// more than a name has room for.
pub(crate) fn told_host(host: &str) -> &str {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    &host[..host.floor_char_boundary(LONGEST_HOST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_path_are_told_and_keys_are_not() {
        for path in [
            "/",
            "/mcp",
            "/mcp/",
            "/MCP/GitHub",
            "/mcp/tickets2/",
            "/.well-known/oauth-authorization-server/mcp/my-server_3",
        ] {
            assert_eq!(told_path(path), path);
        }
        for (path, told) in [
            ("/mcp/wsk_live_8Jq2LmZ0pTxN4uVb", "/mcp/…"),
            ("/8f14e45fceea167a5a36dedd4bea2543/mcp", "/…/mcp"),
            ("/s/2f1c8a4e-7d53-4b08-9e6a-0c4d1b7a9f35/sse", "/s/…/sse"),
            ("/orange%20tractor", "/…"),
            ("/é/\"}{\"level\":\"ERROR\"", "/…/…"),
            ("/a/b/c/d/e/f", "/a/b/c/d/…"),
        ] {
            assert_eq!(told_path(path), told);
        }
        let words = "a".repeat(32);
        assert_eq!(told_path(&format!("/{words}")), format!("/{words}"));
        assert_eq!(told_path(&format!("/{words}a")), "/…");
        assert_eq!(told_path(""), "");
    }

    #[test]
    fn a_host_is_told_without_who_asks_and_without_end() {
        assert_eq!(told_host("evil.example:80"), "evil.example:80");
        assert_eq!(told_host("me:s3cr3t@evil.example"), "evil.example");
        assert_eq!(told_host(&"x".repeat(30_000)).len(), 259);
    }

    #[test]
    fn a_url_is_told_without_what_may_be_a_key() {
        for (url, told) in [
            ("https://gw.example", "https://gw.example"),
            ("https://gw.example/", "https://gw.example/"),
            ("http://proxy:8080/mcp", "http://proxy:8080/mcp"),
            (
                "https://gw.example/mcp?key=s3cr3t",
                "https://gw.example/mcp?…",
            ),
            ("https://me:s3cr3t@gw.example/mcp", "https://gw.example/mcp"),
            (
                "https://gw.example/8f14e45fceea167a5a36dedd4bea2543/mcp#x",
                "https://gw.example/…/mcp?…",
            ),
            ("mcp", "/mcp"),
            ("/mcp", "/mcp"),
            ("", "/"),
            ("wsk_live_8Jq2LmZ0pTxN4uVb", "/…"),
            ("\"}\n{://x", "/…//x"),
        ] {
            assert_eq!(told_url(url), told, "{url}");
        }
        assert!(told_url(&"x/".repeat(30_000)).len() < 100);
        assert!(told_url(&format!("https://{}", "x".repeat(30_000))).len() < 300);
    }
}
