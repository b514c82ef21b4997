//! The configuration file as the operator writes it, key by key. These doc comments become the
//! JSON schema and the reference page.

use std::{collections::BTreeMap, fmt, marker::PhantomData, path::PathBuf};

use protocol::policy::{ClientPolicy, Limits, TokenPolicy};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::quantity::{show_duration, show_rate, show_size};
use crate::{
    listen::{ConnectionLimits, Http2Limits},
    upstream::UpstreamTimeouts,
};

/// The configuration file of mcp-oauth-proxy.
///
/// Durations are a whole number and a unit: `"90s"`, `"5m"`, `"1h"`, `"30d"`. Sizes are a whole
/// number and a unit: `"512B"`, `"64KiB"`, `"4MiB"`, `"1GiB"`. Relative paths start at the
/// directory in which the program is started.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(title = "mcp-oauth-proxy")]
pub struct Config {
    /// The address under which clients reach this proxy, exactly as they use it: scheme, host
    /// and, where it is not the default, port; no path. A slash at the end is dropped. `http://` is for
    /// loopback addresses only. When it is missing and `listen` is a loopback address, it is
    /// `http://` and that address. `PUBLIC_URL` in the environment overrides it.
    #[schemars(example = "https://mcp.example.com")]
    pub public_url: Option<String>,
    /// Further names under which clients reach this proxy, such as the one that it has among
    /// containers. Each is written like `public_url`, and what is below it is the same. It may start
    /// with `http://`; then whoever can listen on that network can read the tokens. A client is told of
    /// the name that stands in `Host`, so a reverse proxy in front has to pass on the `Host` that it
    /// got. The names that a loopback `public_url` has by itself, `localhost`, `127.0.0.1` and `[::1]`
    /// with its port, go without saying.
    #[serde(default)]
    #[schemars(example = ["http://proxy:8080"])]
    pub aliases: Vec<String>,
    /// The address and port to listen on. `LISTEN` in the environment overrides it.
    #[schemars(extend("default" = DEFAULT_LISTEN))]
    pub listen: Option<String>,
    /// The directory for the key file, the SQLite file and the hash of a generated passphrase.
    /// It is created for its owner alone when it does not exist.
    #[schemars(extend("default" = DEFAULT_DATA_DIR))]
    pub data_dir: Option<PathBuf>,
    /// The keys that tokens are made with and secrets in the store are sealed with: the lines of a
    /// key file, of which the first makes. When they are missing, they are in the file `key` in `data_dir`, which is made
    /// at the first start and must be for its owner alone. What is named here is taken as it is,
    /// whoever may read it: for several processes with one store, for secrets that a platform hands
    /// out, and for file systems on which every file is everybody's.
    pub key: Option<Secret>,
    /// Where clients, grants and codes are kept: `"sqlite"`, a file in `data_dir` for a single
    /// process, or the URL of a PostgreSQL database, which several processes can share. Since
    /// that URL holds a password, it can come from elsewhere like any secret. Across a network,
    /// end it with `?sslmode=verify-full`.
    #[schemars(extend("default" = SQLITE))]
    pub store: Option<Secret>,
    /// The address and port of a listener of its own for metrics; none when it is missing. At a
    /// loopback address it answers to no name but this computer's own.
    #[schemars(example = "127.0.0.1:9090")]
    pub metrics_listen: Option<String>,
    /// When `public_url` is a loopback address: browser origins that may call the MCP endpoints,
    /// beside our own and loopback ones, each in full. Elsewhere a page of any origin may call that has
    /// a token.
    #[serde(default)]
    #[schemars(example = ["https://app.example.com"])]
    pub allowed_origins: Vec<String>,
    /// How the person who approves a client proves who they are. Without it, a strong passphrase
    /// is generated and shown once, at the first start.
    #[serde(default)]
    pub sign_in: SignInConfig,
    /// The MCP servers behind this proxy, each under a name of lower-case letters, digits and
    /// hyphens: `[upstream.<name>]`. Without any, `UPSTREAM_URL` and `UPSTREAM_TOKEN` in the
    /// environment name one; without those it is the built-in demo server.
    #[serde(default)]
    pub upstream: BTreeMap<String, UpstreamConfig>,
    /// How clients become known by themselves.
    #[serde(default)]
    pub clients: ClientsConfig,
    /// Clients that cannot make themselves known, each under the `client_id` that is typed into
    /// it: `[client.<client_id>]`, of 1 to 64 letters, digits and `- . _ ~`. They are asked for
    /// consent like any other, but known by the name that they have here.
    #[serde(default)]
    pub client: BTreeMap<String, ClientConfig>,
    /// Lifetimes of what is issued.
    #[serde(default)]
    pub tokens: TokensConfig,
    /// Bounds on what clients may ask of this program, and on how slow they may be.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Reverse proxies in front of this one.
    #[serde(default)]
    pub trusted_proxies: TrustedProxiesConfig,
}

pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
pub(super) const DEFAULT_DATA_DIR: &str = "./data";
pub(super) const SQLITE: &str = "sqlite";

/// `[sign_in]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SignInConfig {
    /// A passphrase of at least 12 characters. `PASSPHRASE` in the environment overrides it and
    /// `pin`.
    pub passphrase: Option<Secret>,
    /// In place of a passphrase, a PIN of 6 to 12 ASCII letters and digits.
    pub pin: Option<Secret>,
}

/// `[upstream.<name>]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct UpstreamConfig {
    /// What people are shown; the name when it is missing.
    pub title: Option<String>,
    /// The address of the MCP server: `http` or `https`. Either this or `builtin`. What its query
    /// says, no client can say otherwise: parameters of a name that stands in it do not pass. An
    /// address that holds a key can come from elsewhere like any secret; what looks like a key is
    /// masked wherever an address is shown.
    #[schemars(example = "https://mcp.internal.example/mcp")]
    pub url: Option<Secret>,
    /// Where clients reach it, below `public_url`; `/mcp/<name>` when it is missing. The only
    /// upstream is at `/mcp` and at `public_url` itself too, and stays there when others are added,
    /// unless one of them has that path.
    #[schemars(example = "/tickets")]
    pub path: Option<String>,
    /// What the MCP server demands of us: `"none"`, `{ bearer = S }`,
    /// `{ header = "X-API-Key", value = S }`, `{ basic = { username = "u", password = S } }` or
    /// `{ query = "key", value = S }`, where `S` is a secret. `"none"` when it is missing.
    pub credential: Option<CredentialConfig>,
    /// Further headers of every request to the MCP server, each with a value that is written out or
    /// a secret: `{ X-Tenant = "7", X-API-Key = { env = "KEY" } }`. No client can overwrite them.
    /// Not those that the proxy itself controls, nor the one of `credential`.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The `Host` by which the MCP server is called, with the port where it wants one, in place of
    /// that of `url`: for servers that answer to a name of their own only, often `localhost`.
    /// Certificates are checked against `url` as before.
    #[schemars(example = "localhost:8000")]
    pub host: Option<String>,
    /// The `User-Agent` by which the MCP server knows this proxy, `mcp-oauth-proxy/<version>` when
    /// it is missing. The client's own reaches the server with `pass_headers = ["User-Agent"]`.
    #[schemars(example = "my-company-mcp/1.0")]
    pub user_agent: Option<String>,
    /// Further headers of the client that reach the MCP server, by their names. Those that pass
    /// anyway are `Accept`, `Accept-Encoding`, `Accept-Language`, `Cache-Control`,
    /// `Content-Encoding`, `Content-Length`, `Content-Type`, `baggage`, `traceparent`,
    /// `tracestate`, `Last-Event-ID` and every `Mcp-…`. What carries the client's access to this
    /// proxy (`Authorization`, `Cookie`), claims whose request it is (`X-Forwarded-For` and its
    /// like) or is set by `credential` or `headers` never passes.
    #[serde(default)]
    #[schemars(example = ["X-MCP-Toolsets"])]
    pub pass_headers: Vec<String>,
    /// A server inside this program in place of `url`.
    pub builtin: Option<Builtin>,
}

/// A server inside this program.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "a string")]
pub enum Builtin {
    /// A demonstration server with a few harmless tools.
    Demo,
}

/// `"none"`, or one kind of key.
pub(super) type CredentialConfig = TextOr<CredentialTable>;

/// One kind of key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(extend("oneOf" = [
    { "required": ["bearer"] },
    { "required": ["header", "value"] },
    { "required": ["basic"] },
    { "required": ["query", "value"] },
]))]
pub struct CredentialTable {
    /// A token, sent as `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// The name of a header that carries `value`.
    pub header: Option<String>,
    /// A user name and password, sent as `Authorization: Basic`.
    pub basic: Option<BasicConfig>,
    /// The name of a query parameter that carries `value`.
    pub query: Option<String>,
    /// The key that `header` or `query` carries.
    pub value: Option<Secret>,
}

/// A user name and password.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(extend("required" = ["username", "password"]))]
pub struct BasicConfig {
    /// The user name, without a colon.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
}

/// `[clients]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ClientsConfig {
    /// Whether any client may register itself (RFC 7591). Many can do nothing else: without it,
    /// those need a table of their own, `[client.<client_id>]`.
    #[schemars(extend("default" = ClientPolicy::default().registration))]
    pub registration: Option<bool>,
    /// Whether a client may be known by a metadata document that it publishes, whose address is
    /// its `client_id`. It is fetched from there, from public addresses only.
    #[schemars(extend("default" = ClientPolicy::default().documents))]
    pub documents: Option<bool>,
    /// The hosts whose metadata documents are taken, each by its name or as `"*.example.com"`,
    /// which is every host below. Any host when it is empty.
    #[serde(default)]
    #[schemars(example = ["claude.ai", "chatgpt.com", "vscode.dev"])]
    pub document_hosts: Vec<String>,
    /// Hosts whose metadata documents are not taken, even if `document_hosts` has them.
    #[serde(default)]
    #[schemars(example = ["*.example.com"])]
    pub refused_document_hosts: Vec<String>,
    /// Schemes of apps whose links clients may register as redirect URIs, beside those of the apps
    /// that `docs/clients.md` names and those made from a domain name (`com.example.app`). Any app can
    /// claim such a link, and the consent page says so. What browsers or operating systems act on
    /// themselves, `javascript` or `ms-settings` for example, is refused here too.
    #[serde(default)]
    #[schemars(example = ["myapp"])]
    pub app_schemes: Vec<String>,
    /// Whether the metadata announces that answers carry `iss` (RFC 9207). They carry it either way.
    /// `false` lets clients in that lose it and still require it where it is announced: they are
    /// approved, and then nothing follows. `docs/clients.md` names the versions that are known for it.
    #[schemars(extend("default" = ClientPolicy::default().announce_iss))]
    pub announce_iss: Option<bool>,
}

/// `[client.<client_id>]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ClientConfig {
    /// What people are shown; the `client_id` when it is missing.
    pub title: Option<String>,
    /// Where the client wants its answers, exactly as it sends it; at least one. Of a loopback
    /// address any port fits.
    #[serde(default)]
    #[schemars(extend("minItems" = 1))]
    #[schemars(example = ["https://claude.ai/api/mcp/auth_callback"])]
    pub redirect_uris: Vec<String>,
    /// The secret that is typed into the client, at least 16 characters. Without it, and without
    /// keys, it is a public client.
    pub client_secret: Option<Secret>,
    /// In place of a secret, the public keys of a client that signs assertions
    /// (`private_key_jwt`): a JSON Web Key Set, written out or taken from elsewhere like a secret.
    pub jwks: Option<Secret>,
    /// In place of `jwks`, the address where the client publishes its keys, as a document of at most
    /// 5 KiB.
    #[schemars(example = "https://client.example.com/jwks.json")]
    pub jwks_uri: Option<String>,
}

/// `[tokens]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TokensConfig {
    /// How long an access token works: 1m to 90d.
    #[schemars(extend("default" = show_duration(TokenPolicy::default().access_lifetime)))]
    pub access_lifetime: Option<String>,
    /// How long a refresh token works without being used: 1h to 3650d.
    #[schemars(extend("default" = show_duration(TokenPolicy::default().refresh_idle)))]
    pub refresh_idle: Option<String>,
    /// How long a grant lives at most, however often it is refreshed: 1h to 3650d, and not less
    /// than `refresh_idle` and `access_lifetime`.
    #[schemars(extend("default" = show_duration(TokenPolicy::default().refresh_absolute)))]
    pub refresh_absolute: Option<String>,
    /// How long the predecessor of the live refresh token gets the same answer again, for a
    /// client that lost the answer or asked twice at once: 0s to 5m.
    #[schemars(extend("default" = show_duration(TokenPolicy::default().refresh_retry_window)))]
    pub refresh_retry_window: Option<String>,
    /// How long an authorization code works: 10s to 10m.
    #[schemars(extend("default" = show_duration(TokenPolicy::default().code_lifetime)))]
    pub code_lifetime: Option<String>,
    /// Whether a genuine refresh token from a generation that the store does not know yet is
    /// taken as proof that the store lost writes, as after restoring a backup.
    #[schemars(extend("default" = TokenPolicy::default().heal_store_regression))]
    pub heal_store_regression: Option<bool>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct LimitsConfig {
    /// The body of a request to an MCP endpoint: 1KiB to 1GiB.
    #[schemars(extend("default" = show_size(Limits::default().mcp_body)))]
    pub mcp_body: Option<String>,
    /// The body of a request to `/token`, `/revoke` and the consent page: 4KiB to 1MiB.
    #[schemars(extend("default" = show_size(Limits::default().oauth_body as u64)))]
    pub oauth_body: Option<String>,
    /// The body of a registration: 1KiB to 1MiB.
    #[schemars(extend("default" = show_size(Limits::default().registration_body as u64)))]
    pub registration_body: Option<String>,
    /// What all requests to OAuth endpoints and the consent page may take in memory until they
    /// are answered: 1MiB to 16GiB. When there is no more, the address with the most gives way: of
    /// its requests that still wait for their body, the oldest is answered with 503. An IPv6
    /// address counts as its /64.
    #[schemars(extend("default" = show_size(Limits::default().waiting_requests as u64)))]
    pub waiting_requests: Option<String>,
    /// Connections at one time: 1 to 1000000, as far as the operating system lets us have two
    /// files for each. Further ones wait.
    #[schemars(extend("default" = ConnectionLimits::default().connections))]
    pub connections: Option<u32>,
    /// Connections of one address at one time: 1 to 1000000. Further ones are closed. An IPv6
    /// address counts as its /64; trusted proxies are not counted.
    #[schemars(extend("default" = ConnectionLimits::default().per_address))]
    pub connections_per_address: Option<u32>,
    /// Headers of a request: 1 to 1000. More are answered with 431.
    #[schemars(extend("default" = ConnectionLimits::default().headers))]
    pub headers: Option<u32>,
    /// All headers of a request together: 8KiB to 256KiB. More is answered with 431.
    #[schemars(extend("default" = show_size(ConnectionLimits::default().head_bytes as u64)))]
    pub header_size: Option<String>,
    /// How long the headers of a request may take to arrive: 1s to 1m.
    #[schemars(extend("default" = show_duration(ConnectionLimits::default().head)))]
    pub header_timeout: Option<String>,
    /// Body timeout: a request body must arrive at `min_rate` or faster, averaged over this time:
    /// 1s to 10m.
    #[schemars(extend("default" = show_duration(ConnectionLimits::default().body_stall)))]
    pub body_timeout: Option<String>,
    /// Write timeout: a client must take an answer at `min_rate` or faster, averaged over this
    /// time: 1s to 10m. An event stream may be quiet for ever.
    #[schemars(extend("default" = show_duration(ConnectionLimits::default().write_stall)))]
    pub write_timeout: Option<String>,
    /// The lowest average rate at which a client sends a body (`body_timeout`) and takes an answer
    /// (`write_timeout`), in bytes per second: 1B to 1MiB.
    #[schemars(extend("default" = show_size(ConnectionLimits::default().min_rate)))]
    pub min_rate: Option<String>,
    /// How long a connection is kept for the next request: 1s to 2h. It has to be longer than a
    /// reverse proxy in front keeps its idle connections: HTTP/1.1 cannot announce the end of one,
    /// so a request that is sent just then is lost (502 by the reverse proxy). The default is above
    /// Cloudflare's 15 minutes, the longest common one; Google Cloud keeps 10 minutes, Caddy 2
    /// minutes, cloudflared and Traefik 90 s, nginx and AWS load balancers 60 s. When all
    /// `connections` are taken, or all of one address, the one that was idle longest is evicted.
    #[schemars(extend("default" = show_duration(ConnectionLimits::default().idle)))]
    pub idle_timeout: Option<String>,
    /// How long requests in flight may take to finish when the program is asked to stop: 1s to
    /// 10m.
    #[schemars(extend("default" = show_duration(ConnectionLimits::default().drain)))]
    pub drain_timeout: Option<String>,
    /// Requests at one time on one HTTP/2 connection: 1 to 1000.
    #[schemars(extend("default" = Http2Limits::default().streams))]
    pub http2_streams: Option<u32>,
    /// What of the body of one HTTP/2 request may be on its way: 16KiB to 16MiB.
    #[schemars(extend("default" = show_size(Http2Limits::default().stream_window)))]
    pub http2_stream_window: Option<String>,
    /// What of all bodies of one HTTP/2 connection may be on its way: 64KiB to 256MiB.
    #[schemars(extend("default" = show_size(Http2Limits::default().connection_window)))]
    pub http2_connection_window: Option<String>,
    /// How long it may take to connect to an MCP server, with TLS: 1s to 1m.
    #[schemars(extend("default" = show_duration(UpstreamTimeouts::default().connect)))]
    pub connect_timeout: Option<String>,
    /// How long an MCP server may take until its answer begins: 1s to 1h. Tools may work for five
    /// minutes before they say anything.
    #[schemars(extend("default" = show_duration(UpstreamTimeouts::default().head)))]
    pub response_timeout: Option<String>,
    /// How long an unused connection to an MCP server is kept for the next request: 0s to 10m. The
    /// time in a server's `Keep-Alive: timeout=N` takes precedence, up to a minute. The default is
    /// below the 5 s after which Node, Bun and uvicorn close: a call that is sent just then would
    /// be lost.
    #[schemars(extend("default" = show_duration(UpstreamTimeouts::default().idle)))]
    pub upstream_idle_timeout: Option<String>,
    /// The memory of this program: 64MiB to 1024GiB. When 85 % of it are in use, requests are
    /// answered with 503 until there is memory again, or no more was needed for a while. When it
    /// is missing: what the control group allows, else 80 % of what the machine has.
    #[schemars(example = "512MiB")]
    pub memory: Option<String>,
    /// Registrations from one address, or from one IPv6 network of 64 bits: `"300/h"` is 300 at
    /// once and 300 more in each hour, spread evenly. Units are `s`, `m`, `h`, `d`; `"off"` is no
    /// limit.
    #[schemars(extend("default" = show_rate(Limits::default().registrations_per_address)))]
    pub registrations_per_address: Option<String>,
    /// Registrations in all: a rate or `"off"`.
    #[schemars(extend("default" = show_rate(Limits::default().registrations)))]
    pub registrations: Option<String>,
    /// How many registered clients are kept: 100 to 10000000. Beyond it, those that were never
    /// approved make room, the oldest first, within five minutes; a client that was ever approved
    /// stays as long as its newest grant.
    #[schemars(extend("default" = Limits::default().clients))]
    pub clients: Option<u32>,
    /// Wrong tokens and codes from one address, and wrong secrets of one client from one address:
    /// a rate or `"off"`. Whoever holds a good one never meets it.
    #[schemars(extend("default" = show_rate(Limits::default().wrong_tokens_per_address)))]
    pub wrong_tokens_per_address: Option<String>,
    /// Calls with the tokens of one grant, that is, of one client that was approved for one
    /// server: a rate or `"off"`.
    #[schemars(extend("default" = show_rate(Limits::default().calls_per_grant)))]
    pub calls_per_grant: Option<String>,
    /// Event streams that one grant may have open at one time, beside the answers to its calls:
    /// 1 to 10000.
    #[schemars(extend("default" = Limits::default().streams_per_grant))]
    pub streams_per_grant: Option<u32>,
    /// How long after its opening a session of a server is used for requests of the same client
    /// and approval that do not send back the session's id, as some hosted clients do not: a
    /// duration, 1m to 30d. Only the newest session is kept.
    #[schemars(extend("default" = show_duration(Limits::default().kept_session_lifetime)))]
    pub kept_session_lifetime: Option<String>,
    /// Event streams of one grant that the MCP server ends within a second, beyond which no
    /// further ones are asked for: a rate or `"off"`. A client that goes on where its stream ended
    /// (`Last-Event-ID`) is not counted.
    #[schemars(extend("default" = show_rate(Limits::default().brief_streams_per_grant)))]
    pub brief_streams_per_grant: Option<String>,
    /// How long an event stream may be silent before the proxy puts a comment into it, so that
    /// no reverse proxy cuts it: 1s to 10m, or `"off"`. The first comment comes when a stream opens
    /// and its server says nothing. A comment stands between two events, and clients skip it.
    #[schemars(extend("default" = Limits::default().stream_keep_alive.map(show_duration)))]
    pub stream_keep_alive: Option<String>,
    /// Metadata documents and key sets of clients that are asked for because of one address, or of
    /// one IPv6 network of 64 bits: a rate or `"off"`. Those of clients in this file count neither
    /// here nor in the next two.
    #[schemars(extend("default" = show_rate(Limits::default().documents_per_address)))]
    pub documents_per_address: Option<String>,
    /// Metadata documents of clients that one host is asked for: a rate or `"off"`.
    #[schemars(extend("default" = show_rate(Limits::default().documents_per_host)))]
    pub documents_per_host: Option<String>,
    /// Metadata documents of clients that are asked for in all: a rate or `"off"`.
    #[schemars(extend("default" = show_rate(Limits::default().documents)))]
    pub documents: Option<String>,
    /// How often one metadata document or key set may fail, beyond which nobody is asked for it
    /// until it is due again: a rate or `"off"`.
    #[schemars(extend("default" = show_rate(Limits::default().failures_per_document)))]
    pub failures_per_document: Option<String>,
}

/// `[trusted_proxies]`
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TrustedProxiesConfig {
    /// Address ranges whose `X-Forwarded-For` is believed.
    #[serde(default)]
    #[schemars(example = ["10.0.0.0/8"])]
    pub ranges: Vec<String>,
}

/// A secret: written out, or `{ env = "X" }` to take it from an environment variable, or
/// `{ file = "P" }` to take it from a file, without the newline at its end.
#[derive(Deserialize, JsonSchema)]
#[serde(from = "TextOr<Reference>")]
#[schemars(with = "TextOr<Reference>")]
pub enum Secret {
    Literal(SecretString),
    Reference(Reference),
}

impl From<TextOr<Reference>> for Secret {
    fn from(written: TextOr<Reference>) -> Self {
        match written {
            TextOr::Text(text) => Self::Literal(text.into()),
            TextOr::Table(reference) => Self::Reference(reference),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Secret"),
            Self::Reference(reference) => reference.fmt(f),
        }
    }
}

/// Where a secret is to be found.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
#[schemars(extend("oneOf" = [{ "required": ["env"] }, { "required": ["file"] }]))]
pub struct Reference {
    /// The name of an environment variable.
    pub env: Option<String>,
    /// The path of a file.
    pub file: Option<PathBuf>,
}

/// A plain string or a table.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TextOr<T> {
    Text(String),
    Table(T),
}

impl<T: fmt::Debug> fmt::Debug for TextOr<T> {
    /// Leaves out the text, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::Table(table) => table.fmt(f),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    /// Chooses by what is there, so that a mistake inside the table is reported as itself;
    /// serde's `untagged` would only say that nothing fits.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTable<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for TextOrTable<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextOr<T>, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<TextOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(entries)).map(TextOr::Table)
            }
        }

        deserializer.deserialize_any(TextOrTable(PhantomData))
    }
}
