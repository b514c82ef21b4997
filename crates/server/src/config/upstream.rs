//! The upstreams: names, addresses and what each path is in front of.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use protocol::{
    forward::shown_address::{looks_like_key, shown_address, shown_host},
    oauth::identifiers::is_loopback,
    policy::{Destination, UpstreamPolicy},
};
use secrecy::ExposeSecret;
use url::{Host, Url};

use super::{
    credential::{self, Described},
    findings::Findings,
    key::Key,
    secret::{Environment, Source, resolve},
    upstream_headers,
    written::{Builtin, Config, UpstreamConfig},
};

/// The path of an upstream that the operator gave no name, and so the same whichever it is.
pub(crate) const UNNAMED: &str = "/mcp";

/// The name of the built-in demo where the operator names no server.
pub(crate) const DEMO: &str = "demo";

/// An upstream, and how to speak of it without telling its secrets.
#[derive(Debug)]
pub struct PlannedUpstream {
    pub policy: UpstreamPolicy,
    /// Its address, with all masked that could be a key.
    pub destination: String,
    /// The kind of its credential and where the secret comes from, the secret masked.
    pub credential: String,
    /// The headers of its requests as lines of name and text, without secrets.
    pub headers: Vec<(&'static str, String)>,
}

/// An upstream whose resource is yet to be named.
pub(super) struct Draft {
    pub(super) key: Key,
    pub(super) name: String,
    pub(super) title: String,
    pub(super) path: String,
    /// `None`: a mistake was noted.
    pub(super) target: Option<Target>,
}

/// What is behind an upstream, and how to speak of it.
pub(super) struct Target {
    pub(super) destination: Destination,
    pub(super) address: String,
    pub(super) credential: String,
    pub(super) headers: upstream_headers::Described,
}

/// The upstreams of the file, or else of the environment, or else the demo.
pub(super) fn read(
    config: &Config,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Vec<Draft> {
    for name in ["UPSTREAM_URL", "UPSTREAM_TOKEN"] {
        if environment.is_empty(name) {
            findings.warn(&Key::Variable(name), "is empty, so it is taken as not set");
        }
    }
    let url = environment.overriding("UPSTREAM_URL");
    let token = environment.overriding("UPSTREAM_TOKEN");
    let in_file = Key::of("upstream");
    let drafts: Vec<Draft> = if !config.upstream.is_empty() || findings.blames(&in_file) {
        if url.is_some() {
            findings.mistake(
                &Key::Variable("UPSTREAM_URL"),
                "stands beside the upstreams of the configuration file",
                "remove UPSTREAM_URL from the environment, or every [upstream.…] from the file",
            );
        }
        let read = |(name, written): (&String, &UpstreamConfig)| {
            from_file(name, written, environment, findings)
        };
        config.upstream.iter().map(read).collect()
    } else if let Some(url) = url {
        from_environment(url, token, findings).into_iter().collect()
    } else {
        if token.is_some() {
            findings.warn(
                &Key::Variable("UPSTREAM_TOKEN"),
                "is not used, because UPSTREAM_URL is not set",
            );
        }
        vec![Draft {
            key: in_file,
            name: DEMO.to_owned(),
            title: "Demo".to_owned(),
            path: UNNAMED.to_owned(),
            target: Some(demo()),
        }]
    };
    check_paths(&drafts, findings);
    drafts
}

/// An address of this program itself is nobody's upstream: where it listens, and where clients are
/// told that upstreams are. Another path at a public address may lead to somebody else.
pub(super) fn check_loops(
    drafts: &[Draft],
    listen: SocketAddr,
    names: &[&str],
    findings: &mut Findings<'_>,
) {
    for draft in drafts {
        let Some(Destination::Remote { endpoint, .. }) =
            draft.target.as_ref().map(|it| &it.destination)
        else {
            continue;
        };
        let Ok(url) = Url::parse(&endpoint.to_string()) else {
            continue;
        };
        let origin = url.origin().ascii_serialization();
        let is_path = |path: &str| covers(path, url.path());
        let is_public = names.contains(&&*origin)
            && (url.path() == "/"
                || drafts.len() == 1 && is_path(UNNAMED)
                || drafts.iter().any(|draft| is_path(&draft.path)));
        if is_public || leads_to(&url, listen) {
            findings.mistake(
                &draft.key.child("url"),
                "is an address of this proxy itself",
                "write the address of the MCP server; `public_url` and `listen` are where clients reach this proxy",
            );
        }
    }
}

/// Whether whoever listens at `listen` gets the requests for `url`.
fn leads_to(url: &Url, listen: SocketAddr) -> bool {
    let ours = listen.ip();
    // The unspecified address stands for others, both to listen on and to connect to.
    let is_ours = |address: IpAddr| {
        address == ours
            || ours.is_unspecified() && address.is_loopback()
            || address.is_unspecified() && ours.is_loopback()
    };
    let is_here = match url.host() {
        Some(Host::Domain("localhost")) => ours.is_loopback() || ours.is_unspecified(),
        Some(Host::Ipv4(address)) => is_ours(address.into()),
        Some(Host::Ipv6(address)) => is_ours(address.into()),
        _ => false,
    };
    is_here && url.port_or_known_default() == Some(listen.port())
}

fn demo() -> Target {
    Target {
        destination: Destination::Demo,
        address: "the built-in demo server".to_owned(),
        credential: "none".to_owned(),
        headers: upstream_headers::Described::default(),
    }
}

fn from_environment(url: &str, token: Option<&str>, findings: &mut Findings<'_>) -> Option<Draft> {
    let url_key = Key::Variable("UPSTREAM_URL");
    let token_key = Key::Variable("UPSTREAM_TOKEN");
    let source = Source::Environment("UPSTREAM_TOKEN".to_owned());
    let credential = match token {
        None => Some(Described::none()),
        Some(token) => credential::bearer(token, &source, &token_key, findings),
    };
    let endpoint = endpoint(url, &url_key, findings);
    let (endpoint, credential) = (endpoint?, credential?);
    Some(Draft {
        key: url_key,
        name: "upstream".to_owned(),
        title: endpoint.host.clone(),
        path: UNNAMED.to_owned(),
        target: Some(remote(
            endpoint,
            credential,
            upstream_headers::Described::default(),
        )),
    })
}

fn from_file(
    name: &str,
    written: &UpstreamConfig,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Draft {
    let key = Key::of("upstream").child(name);
    check_name(name, &key, findings);
    let title = written.title.as_deref().unwrap_or(name);
    if written.title.is_some() {
        check_title(title, &key.child("title"), findings);
    }
    let path = match &written.path {
        Some(path) => {
            check_path(path, &key.child("path"), findings);
            path.clone()
        }
        None => format!("/mcp/{name}"),
    };
    let target = target(written, &key, environment, findings);
    Draft {
        key,
        name: name.to_owned(),
        title: title.to_owned(),
        path,
        target,
    }
}

fn check_name(name: &str, key: &Key, findings: &mut Findings<'_>) {
    let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.is_empty() || name.len() > 63 || !name.bytes().all(legal) {
        findings.mistake(
            key,
            "is not a name for an upstream",
            "use 1 to 63 lower-case letters, digits and hyphens; `title` may say anything",
        );
    }
}

pub(super) fn check_title(title: &str, key: &Key, findings: &mut Findings<'_>) {
    let length = title.chars().count();
    if title.trim().is_empty() || length > 100 || title.chars().any(char::is_control) {
        findings.mistake(
            key,
            "must be 1 to 100 characters on one line",
            "write a short name that people recognise",
        );
    }
}

fn target(
    written: &UpstreamConfig,
    key: &Key,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<Target> {
    let url_key = key.child("url");
    let credential_key = key.child("credential");
    let credential = credential::read(
        written.credential.as_ref(),
        &credential_key,
        environment,
        findings,
    );
    match (&written.url, written.builtin) {
        (Some(_), Some(_)) => {
            findings.mistake(
                key,
                "has both `url` and `builtin`",
                "keep the one that is wanted",
            );
            None
        }
        (None, None) => {
            if !findings.blames(&url_key) && !findings.blames(&key.child("builtin")) {
                findings.mistake(
                    key,
                    "has neither `url` nor `builtin`",
                    "add url = \"https://…\", the address of the MCP server",
                );
            }
            None
        }
        (None, Some(Builtin::Demo)) => {
            for (name, is_there) in [
                (
                    "credential",
                    credential.is_some_and(|found| !found.is_none()),
                ),
                ("headers", !written.headers.is_empty()),
                ("host", written.host.is_some()),
                ("user_agent", written.user_agent.is_some()),
                ("pass_headers", !written.pass_headers.is_empty()),
            ] {
                if is_there {
                    findings.mistake(
                        &key.child(name),
                        "has no use beside `builtin`",
                        "remove it; the server inside this program asks for nothing",
                    );
                }
            }
            Some(demo())
        }
        (Some(url), None) => {
            let by_credential = credential
                .as_ref()
                .and_then(|it| it.credential.header_name());
            let headers =
                upstream_headers::read(written, by_credential, key, environment, findings);
            let url = resolve(url, &url_key, environment, findings)?;
            let endpoint = endpoint(url.text.expose_secret(), &url_key, findings)?;
            findings.literal_secret |= endpoint.has_key && url.source == Source::Literal;
            Some(remote(endpoint, credential?, headers?))
        }
    }
}

fn remote(
    endpoint: Endpoint,
    credential: Described,
    headers: upstream_headers::Described,
) -> Target {
    Target {
        destination: Destination::Remote {
            endpoint: endpoint.uri,
            credential: credential.credential,
        },
        address: endpoint.shown,
        credential: credential.description,
        headers,
    }
}

struct Endpoint {
    uri: Uri,
    /// For people, with what could be a key masked.
    shown: String,
    host: String,
    /// Whether there is such a thing in it.
    has_key: bool,
}

/// Reads the address of an MCP server. `None`: a mistake was noted.
fn endpoint(text: &str, key: &Key, findings: &mut Findings<'_>) -> Option<Endpoint> {
    let parsed = Url::parse(text).ok();
    let (reason, remedy) = match &parsed {
        None => (
            "is not an absolute URL",
            "write it in full, as in \"https://mcp.internal.example/mcp\"",
        ),
        Some(url) if !matches!(url.scheme(), "http" | "https") => (
            "must start with http:// or https://",
            "use the address of a streamable HTTP endpoint; a program that speaks over its standard input needs a bridge",
        ),
        Some(url) if !url.username().is_empty() || url.password().is_some() => (
            "must not contain a user name or password",
            "move them to credential = { basic = { username = \"…\", password = … } }",
        ),
        Some(url) if url.fragment().is_some() => (
            "must not have a fragment",
            "remove the # and what follows it",
        ),
        Some(url) => match url.as_str().parse::<Uri>() {
            Ok(uri) => {
                let unencrypted =
                    "starts with http://: calls and any credential cross the network unencrypted";
                if url.scheme() == "http" && is_among_containers(url) {
                    findings.note(key, unencrypted);
                } else if url.scheme() == "http" && !is_loopback(url) {
                    findings.warn(key, unencrypted);
                }
                return Some(Endpoint {
                    uri,
                    shown: shown_address(url),
                    host: shown_host(url),
                    has_key: has_key(url),
                });
            }
            Err(_) => (
                "has characters that no URL may contain",
                "percent-encode them",
            ),
        },
    };
    findings.mistake(key, reason, remedy);
    None
}

/// Whether a name is one that only containers of one machine or cluster have for each other.
fn is_among_containers(url: &Url) -> bool {
    const ENDINGS: [&str; 3] = [".internal", ".svc", ".svc.cluster.local"];
    url.domain().is_some_and(|name| {
        let name = name.trim_end_matches('.');
        name != "localhost" && !name.contains('.') || ENDINGS.iter().any(|it| name.ends_with(it))
    })
}

/// Whether a part of an address looks like a key. A value in the query may be anything, but most
/// are none.
fn has_key(url: &Url) -> bool {
    let mut path = url.path().split('/');
    path.any(looks_like_key) || url.query_pairs().any(|(_, value)| looks_like_key(&value))
}

/// Paths that this program answers itself.
const RESERVED_PATHS: [&str; 10] = [
    "/.well-known",
    "/authorize",
    "/callback",
    "/consent",
    "/health",
    "/introspect",
    "/ready",
    "/register",
    "/revoke",
    "/token",
];

fn check_path(path: &str, key: &Key, findings: &mut Findings<'_>) {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'/' | b'-');
    let (reason, remedy) = if !path.starts_with('/') {
        (
            "must start with a slash",
            "write it as in \"/mcp\"".to_owned(),
        )
    } else if path.ends_with('/') {
        (
            "must not end with a slash",
            "name at least one segment, as in \"/mcp\"".to_owned(),
        )
    } else if path
        .split('/')
        .skip(1)
        .any(|part| matches!(part, "" | "." | ".."))
    {
        (
            "must not contain //, /./ or /../",
            "write the path that clients will use, already resolved".to_owned(),
        )
    } else if !path.bytes().all(legal) {
        (
            "may contain letters, digits and . _ ~ / - only",
            "leave out everything else, percent signs included".to_owned(),
        )
    } else if let Some(ours) = RESERVED_PATHS.iter().find(|ours| covers(ours, path)) {
        (
            "is an address that this program answers itself",
            format!("choose one outside {ours}"),
        )
    } else {
        return;
    };
    findings.mistake(key, reason, remedy);
}

/// Whether `path` is `prefix` or lies below it.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Two upstreams never share an address. One may lie below another's, where there is nothing else.
fn check_paths(drafts: &[Draft], findings: &mut Findings<'_>) {
    let is_sound = |draft: &&Draft| !findings.blames(&draft.key.child("path"));
    let sound: Vec<&Draft> = drafts.iter().filter(is_sound).collect();
    for (position, draft) in sound.iter().enumerate() {
        // Of two equal paths, the later one is the mistake.
        if let Some(other) = sound[..position].iter().find(|it| it.path == draft.path) {
            findings.mistake(
                &draft.key.child("path"),
                format!("is also the path of upstream {}", other.name),
                "give each upstream a path of its own, as in \"/mcp/<name>\"",
            );
        }
    }
}
