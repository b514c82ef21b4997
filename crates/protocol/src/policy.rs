//! What the operator's configuration means, in parsed types. Made once at start; after that
//! nothing can be misconfigured.

mod addresses;

use std::{fmt, sync::Arc, time::Duration};

pub use addresses::OF_THE_ONLY_ONE;
use http::Uri;
use ipnet::IpNet;
use url::Url;

use crate::{
    forward::{
        credential::Credential, shown_address::shown_address, upstream_headers::UpstreamHeaders,
    },
    identity::password::SignIn,
    oauth::{
        app_scheme::AppScheme,
        client::PreregisteredClient,
        client_auth::AuthMethod,
        client_document::{DocumentUrl, HostPattern},
        identifiers::{Alias, ClientId, Issuer, Resource},
        jwks::KeySource,
    },
    rates::Rate,
};

/// Everything that is decided before the first request.
#[derive(Debug)]
pub struct Policy {
    /// The public URL, and the `issuer` of everything issued (RFC 8414 §2).
    pub issuer: Issuer,
    /// Further public names: what is below them is the same as below the issuer. Those that a
    /// loopback issuer has by itself need not be among them.
    pub aliases: Vec<Alias>,
    /// How the person who approves a client proves who they are.
    pub sign_in: SignIn,
    /// The MCP servers behind this proxy; never empty, names and paths are unique.
    pub upstreams: Vec<Arc<UpstreamPolicy>>,
    /// The name of the upstream that was the only one when there was just one. Its clients may know
    /// it by the addresses that only one upstream can have.
    pub once_the_only_one: Option<String>,
    pub clients: ClientPolicy,
    pub tokens: TokenPolicy,
    pub limits: Limits,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Browser origins that may call the MCP endpoints of a proxy for this computer alone, beside our
    /// own and loopback ones. Elsewhere any origin may, with a token.
    pub allowed_origins: Vec<String>,
    /// How long a grant read from the store is believed. `None`: for ever, since no other
    /// process writes to this store and this one keeps its memory true.
    pub grant_freshness: Option<Duration>,
}

/// One MCP server that this proxy stands in front of.
#[derive(Debug)]
pub struct UpstreamPolicy {
    /// Its name in the configuration: lower-case letters, digits and hyphens.
    pub name: String,
    /// What people are shown.
    pub title: String,
    /// Its own path below the public URL, with a leading slash: `/mcp/<name>`.
    pub path: String,
    /// `issuer` + `path`: the audience of its tokens.
    pub resource: Resource,
    pub destination: Destination,
    /// What is fixed and what passes of the headers of its requests.
    pub headers: UpstreamHeaders,
}

/// What is behind an upstream's path. `Debug` shows nothing of the address that could be a key.
pub enum Destination {
    /// An MCP server over HTTP, and what it demands of us.
    Remote {
        endpoint: Uri,
        credential: Credential,
    },
    /// The demonstration server inside this program.
    Demo,
}

impl Destination {
    /// Whether requests carry a credential that the operator configured.
    pub fn has_credential(&self) -> bool {
        match self {
            Self::Remote { credential, .. } => !matches!(credential, Credential::None),
            Self::Demo => false,
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Remote {
            endpoint,
            credential,
        } = self
        else {
            return f.write_str("Demo");
        };
        let endpoint = Url::parse(&endpoint.to_string()).map(|url| shown_address(&url));
        f.debug_struct("Remote")
            .field("endpoint", &endpoint.unwrap_or_default())
            .field("credential", credential)
            .finish()
    }
}

/// How clients become known.
#[derive(Debug)]
pub struct ClientPolicy {
    /// Whether a client may register itself (RFC 7591).
    pub registration: bool,
    /// Whether a client may name a metadata document.
    pub documents: bool,
    /// The hosts whose documents are taken; any, if there is none.
    pub document_hosts: Vec<HostPattern>,
    /// Hosts whose documents are not taken.
    pub refused_document_hosts: Vec<HostPattern>,
    /// Schemes of apps that the operator let in, beside those of known ones.
    pub app_schemes: Vec<AppScheme>,
    /// Whether the metadata announces that answers carry `iss` (RFC 9207 §3). They do anyway; but a
    /// client that is told so insists on it, also one that loses it on the way.
    pub announce_iss: bool,
    /// Those that the operator set up. They come before all others.
    pub preregistered: Vec<Arc<PreregisteredClient>>,
}

impl Default for ClientPolicy {
    fn default() -> Self {
        Self {
            registration: true,
            documents: true,
            document_hosts: Vec::new(),
            refused_document_hosts: Vec::new(),
            app_schemes: Vec::new(),
            announce_iss: true,
            preregistered: Vec::new(),
        }
    }
}

impl ClientPolicy {
    /// The client of that name that the operator set up.
    pub fn preregistered(&self, id: &ClientId) -> Option<&Arc<PreregisteredClient>> {
        self.preregistered
            .iter()
            .find(|client| client.client_id == *id)
    }

    /// Whether `url` is where a client that the operator set up has its keys.
    pub fn sets_up_keys_at(&self, url: &DocumentUrl) -> bool {
        self.preregistered.iter().any(
            |client| matches!(&client.metadata.keys, Some(KeySource::At(named)) if named == url),
        )
    }

    /// Whether the document at `url` may be looked at.
    pub fn takes_document(&self, url: &DocumentUrl) -> bool {
        let is_among = |hosts: &[HostPattern]| hosts.iter().any(|host| host.matches(url.host()));
        self.documents
            && (self.document_hosts.is_empty() || is_among(&self.document_hosts))
            && !is_among(&self.refused_document_hosts)
    }

    /// The ways to authenticate that some client can use here. Metadata has one list for all ways of
    /// being known (RFC 8414 §2), and clients pick the strongest in it that they have, some without
    /// falling back. So a method is in it as long as there is a way of being known that takes it: a
    /// client with a document uses none or its key, one that registers none or a secret, and one that
    /// the operator set up what it was set up with. A client that registers for a method of the other
    /// ways gets one of its own, and the answer says which.
    pub fn auth_methods(&self) -> Vec<AuthMethod> {
        let some = |method| {
            self.preregistered
                .iter()
                .any(|client| client.metadata.token_endpoint_auth_method == method)
        };
        let secret = self.registration || some(AuthMethod::ClientSecretBasic);
        let key = self.documents || some(AuthMethod::PrivateKeyJwt);
        [
            (AuthMethod::None, true),
            (AuthMethod::ClientSecretPost, secret),
            (AuthMethod::ClientSecretBasic, secret),
            (AuthMethod::PrivateKeyJwt, key),
        ]
        .into_iter()
        .filter_map(|(method, works)| works.then_some(method))
        .collect()
    }
}

/// Lifetimes of what is issued.
#[derive(Clone, Debug)]
pub struct TokenPolicy {
    /// How long an access token works.
    pub access_lifetime: Duration,
    /// How long a refresh token works without being used.
    pub refresh_idle: Duration,
    /// How long a grant lives at most, however often it is refreshed.
    pub refresh_absolute: Duration,
    /// How long the predecessor of the live refresh token gets the same answer again.
    pub refresh_retry_window: Duration,
    /// How long an authorization code works.
    pub code_lifetime: Duration,
    /// Whether a genuine refresh token from a generation that the store does not know yet is
    /// taken as proof that the store lost writes.
    pub heal_store_regression: bool,
}

const DAY: Duration = Duration::from_hours(24);

impl Default for TokenPolicy {
    fn default() -> Self {
        Self {
            access_lifetime: Duration::from_hours(1),
            refresh_idle: 30 * DAY,
            refresh_absolute: 365 * DAY,
            refresh_retry_window: Duration::from_mins(2),
            code_lifetime: Duration::from_mins(5),
            heal_store_regression: true,
        }
    }
}

/// Bounds on what a request may ask of this program.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes in the body of a request to an MCP endpoint.
    pub mcp_body: u64,
    /// Bytes in the body of a request to `/token`, `/revoke` and the consent page.
    pub oauth_body: usize,
    /// Bytes in the body of a registration.
    pub registration_body: usize,
    /// Bytes in all requests whose body is to be read before it is known who sends it.
    pub waiting_requests: usize,
    /// Registrations from one address; from an IPv6 network of 64 bits.
    pub registrations_per_address: Option<Rate>,
    /// Registrations in all.
    pub registrations: Option<Rate>,
    /// Registered clients that are kept. Beyond it, those go that registered longest ago of all
    /// that nobody ever approved.
    pub clients: usize,
    /// Texts from one address that are no token of ours; wrong secrets of one client from one
    /// address.
    pub wrong_tokens_per_address: Option<Rate>,
    /// Calls with the tokens of one grant.
    pub calls_per_grant: Option<Rate>,
    /// Event streams that one grant may have open beside the answers to its calls.
    pub streams_per_grant: usize,
    /// How long after its opening a session is used for requests that name none.
    pub kept_session_lifetime: Duration,
    /// Event streams of one grant that its upstream ends at once, beyond which no more are opened.
    pub brief_streams_per_grant: Option<Rate>,
    /// How long an event stream may be silent before a comment is put into it.
    pub stream_keep_alive: Option<Duration>,
    /// Metadata documents of clients that are asked for because of one address; of an IPv6 network
    /// of 64 bits.
    pub documents_per_address: Option<Rate>,
    /// Metadata documents of clients that one host is asked for.
    pub documents_per_host: Option<Rate>,
    /// Metadata documents of clients that are asked for in all.
    pub documents: Option<Rate>,
    /// Failures of one document, beyond which it is not asked for.
    pub failures_per_document: Option<Rate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            mcp_body: 4 * 1024 * 1024,
            oauth_body: 64 * 1024,
            registration_body: 16 * 1024,
            waiting_requests: 16 * 1024 * 1024,
            // A team behind one address on its first day, or a client that registers anew for
            // each connection.
            registrations_per_address: Some(Rate {
                most: 300,
                per: Duration::from_hours(1),
            }),
            // At this rate it takes hours to push a registration out that waits to be approved.
            registrations: Some(Rate {
                most: 600,
                per: Duration::from_mins(1),
            }),
            clients: 100_000,
            wrong_tokens_per_address: Some(Rate {
                most: 60,
                per: Duration::from_mins(1),
            }),
            calls_per_grant: Some(Rate {
                most: 200,
                per: Duration::from_secs(1),
            }),
            streams_per_grant: 16,
            // Longer than a conversation; after it the client is made to begin anew.
            kept_session_lifetime: DAY,
            // Clients ask again after a second, or several times in one.
            brief_streams_per_grant: Some(Rate {
                most: 6,
                per: Duration::from_mins(1),
            }),
            // The shortest that fronts let pass by default is a minute, of some half of that.
            stream_keep_alive: Some(Duration::from_secs(20)),
            // Half of what a host may be asked for, so that nobody uses that up from one address.
            documents_per_address: Some(Rate {
                most: 5,
                per: Duration::from_mins(1),
            }),
            documents_per_host: Some(Rate {
                most: 10,
                per: Duration::from_mins(1),
            }),
            documents: Some(Rate {
                most: 60,
                per: Duration::from_mins(1),
            }),
            // Two, so that what is published a moment later is found at once.
            failures_per_document: Some(Rate {
                most: 2,
                per: Duration::from_mins(1),
            }),
        }
    }
}
