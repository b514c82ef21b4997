//! What a configuration comes to.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use protocol::{
    forward::shown_address::MASK,
    identity::password::SignIn,
    oauth::identifiers::{Alias, Issuer, NotAnIssuer, Resource, is_loopback},
    policy::{ClientPolicy, Policy, TokenPolicy, UpstreamPolicy},
};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    bounds,
    clients::{self, PlannedClient},
    findings::Findings,
    key::Key,
    limits::{self, LimitsPlan},
    secret::{Environment, IN_FULL, Source, is_for_a_shell, resolve},
    sign_in::{self, SignInPlan},
    upstream::{self, PlannedUpstream},
    written::{Config, DEFAULT_DATA_DIR, DEFAULT_LISTEN, SQLITE},
};
use crate::{
    key_file::{KeyRing, NotAKey},
    outgoing::OutgoingProxies,
    private_file::{Others, others_in},
};

/// Everything that the configuration decides, but for a passphrase that is yet to be generated.
#[derive(Debug)]
pub struct Plan {
    /// The file it was read from, if there was one.
    pub file: Option<PathBuf>,
    pub settings: Settings,
    pub key: KeyPlan,
    pub issuer: Issuer,
    /// As the operator wrote them; a loopback issuer has others by itself.
    pub aliases: Vec<Alias>,
    pub sign_in: SignInPlan,
    /// Never empty.
    pub upstreams: Vec<PlannedUpstream>,
    pub client_policy: ClientPolicy,
    /// Those that the operator set up.
    pub clients: Vec<PlannedClient>,
    pub tokens: TokenPolicy,
    pub trusted_proxies: Vec<IpNet>,
    pub allowed_origins: Vec<String>,
    /// What works but is probably not wanted.
    pub warnings: Vec<String>,
    /// Notes: right in some deployments, and worth a look in others.
    pub notes: Vec<String>,
}

/// Where the master keys are.
#[derive(Debug)]
pub enum KeyPlan {
    /// In the data directory, where it is made if it is missing.
    DataDir,
    Configured {
        keys: KeyRing,
        source: Source,
    },
}

/// What only this host needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub metrics_listen: Option<SocketAddr>,
    pub data_dir: PathBuf,
    pub store: StoreKind,
    pub limits: LimitsPlan,
    pub proxies: OutgoingProxies,
}

/// Where records are kept.
#[derive(Clone, Debug)]
pub enum StoreKind {
    /// A file in the data directory.
    Sqlite,
    /// A database that several processes may share.
    Postgres { url: SecretString },
}

/// How long a grant is believed that another process may have ended. Open streams are looked at
/// every two seconds beside, so that a revocation holds everywhere within five.
const SHARED_STORE_FRESHNESS: Duration = Duration::from_secs(3);

/// A path as it is wherever one stands.
fn in_full(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    absolute.as_deref().unwrap_or(path).display().to_string()
}

impl Settings {
    /// The data directory, for people.
    pub fn shown_data_dir(&self) -> String {
        in_full(&self.data_dir)
    }
}

impl Plan {
    /// The file that it was read from, for people.
    pub fn shown_file(&self) -> String {
        let none = || "none here, built-in defaults".to_owned();
        self.file.as_deref().map_or_else(none, in_full)
    }

    /// The policy of a proxy where people sign in with `sign_in`, and the settings of its host.
    pub fn into_policy(self, sign_in: SignIn) -> (Policy, Settings) {
        let grant_freshness = match self.settings.store {
            StoreKind::Sqlite => None,
            StoreKind::Postgres { .. } => Some(SHARED_STORE_FRESHNESS),
        };
        let upstreams = self.upstreams.into_iter();
        let policy = Policy {
            issuer: self.issuer,
            aliases: self.aliases,
            sign_in,
            upstreams: upstreams
                .map(|upstream| Arc::new(upstream.policy))
                .collect(),
            once_the_only_one: None,
            clients: self.client_policy,
            tokens: self.tokens,
            limits: self.settings.limits.requests.clone(),
            trusted_proxies: self.trusted_proxies,
            allowed_origins: self.allowed_origins,
            grant_freshness,
        };
        (policy, self.settings)
    }
}

impl StoreKind {
    /// The store for people, a password masked.
    pub fn shown(&self) -> String {
        match self {
            Self::Sqlite => "SQLite, a file in the data directory".to_owned(),
            Self::Postgres { url } => {
                let Ok(url) = Url::parse(url.expose_secret()) else {
                    return "PostgreSQL".to_owned();
                };
                let user = url.username();
                let password = url.password().map_or(String::new(), |_| format!(":{MASK}"));
                let at = if user.is_empty() && password.is_empty() {
                    ""
                } else {
                    "@"
                };
                let host = url.host_str().unwrap_or_default();
                let port = url.port().map_or(String::new(), |port| format!(":{port}"));
                // The query is left out: it may carry a password too.
                format!(
                    "PostgreSQL, postgres://{user}{password}{at}{host}{port}{}",
                    url.path()
                )
            }
        }
    }
}

/// Works out what `config` comes to. `None`: `findings` has the mistakes.
#[expect(
    clippy::too_many_lines,
    reason = "one key after the other, each a line or two"
)]
pub(super) fn plan(
    config: &Config,
    file: Option<PathBuf>,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<Plan> {
    let listen_key = match environment.overriding("LISTEN") {
        Some(_) => Key::Variable("LISTEN"),
        None => Key::of("listen"),
    };
    let listen = environment
        .overriding("LISTEN")
        .or(config.listen.as_deref());
    let listen = address(listen.unwrap_or(DEFAULT_LISTEN), &listen_key, findings);
    let issuer = issuer(config, environment, listen, &listen_key, findings);
    let aliases = aliases(&config.aliases, findings);
    let metrics_listen = config.metrics_listen.as_deref().and_then(|text| {
        let key = Key::of("metrics_listen");
        let metrics = address(text, &key, findings)?;
        if Some(metrics) == listen && metrics.port() != 0 {
            findings.mistake(&key, "is the same as `listen`", "choose another port");
        }
        if !metrics.ip().is_loopback() {
            findings.note(
                &key,
                "is reached from other machines, and whoever reaches it may read it: let only \
                 the network of your monitoring in",
            );
        }
        Some(metrics)
    });
    let data_dir = data_dir(config, findings);
    let key = key(config, environment, findings);
    let store = store(config, environment, findings);
    let sign_in = sign_in::plan(&config.sign_in, environment, findings);
    let drafts = upstream::read(config, environment, findings);
    if let (Some(listen), Some(issuer)) = (listen, &issuer) {
        let aliases = aliases.iter().map(Alias::as_str);
        let names: Vec<&str> = std::iter::once(issuer.as_str()).chain(aliases).collect();
        upstream::check_loops(&drafts, listen, &names, findings);
    }
    let (client_policy, clients) = clients::read(config, environment, findings);
    let tokens = bounds::tokens(&config.tokens, findings);
    let limits = limits::read(&config.limits, findings);
    let is_local = issuer.as_ref().is_none_or(Issuer::is_loopback);
    let allowed_origins = allowed_origins(&config.allowed_origins, is_local, findings);
    let (proxies, unusable) = OutgoingProxies::of(environment);
    findings.warnings.extend(unusable);
    let trusted_proxies = trusted_proxies(&config.trusted_proxies.ranges, findings);
    if !findings.mistakes.is_empty() {
        return None;
    }
    let issuer = issuer?;
    let planned = |draft: upstream::Draft| {
        let target = draft.target?;
        Some(PlannedUpstream {
            destination: target.address,
            credential: target.credential,
            headers: target.headers.lines,
            policy: UpstreamPolicy {
                resource: Resource::at(&issuer, &draft.path),
                name: draft.name,
                title: draft.title,
                path: draft.path,
                destination: target.destination,
                headers: target.headers.headers,
            },
        })
    };
    let upstreams = drafts.into_iter().map(planned).collect::<Option<_>>()?;
    if issuer.is_https() && trusted_proxies.is_empty() {
        // This program has no TLS of its own, so something in front of it must.
        let remedy = if listen?.ip().is_loopback() {
            "write ranges = [\"127.0.0.1\"]"
        } else {
            "write its address into ranges, and let nobody else reach `listen`, where there is no TLS"
        };
        findings.warn(
            &Key::of("trusted_proxies").child("ranges"),
            &format!(
                "is empty: all clients of the proxy in front count as one, so five wrong \
                 passphrases of any of them make all of them wait; {remedy}"
            ),
        );
    }
    Some(Plan {
        file,
        settings: Settings {
            listen: listen?,
            metrics_listen,
            data_dir,
            store: store?,
            limits,
            proxies,
        },
        key: key?,
        issuer,
        aliases,
        sign_in: sign_in?,
        upstreams,
        client_policy,
        clients,
        tokens,
        trusted_proxies,
        allowed_origins,
        warnings: std::mem::take(&mut findings.warnings),
        notes: std::mem::take(&mut findings.notes),
    })
}

fn address(text: &str, key: &Key, findings: &mut Findings<'_>) -> Option<SocketAddr> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    let address = numeric.parse().ok();
    if address.is_none() {
        findings.mistake(
            key,
            "is not an address and a port",
            "write it as \"127.0.0.1:8080\", \"[::1]:8080\", or \"0.0.0.0:8080\" for every interface",
        );
    }
    address
}

fn issuer(
    config: &Config,
    environment: &Environment,
    listen: Option<SocketAddr>,
    listen_key: &Key,
    findings: &mut Findings<'_>,
) -> Option<Issuer> {
    let key = Key::of("public_url");
    let (text, key) = match (environment.overriding("PUBLIC_URL"), &config.public_url) {
        (Some(text), _) => (text.to_owned(), Key::Variable("PUBLIC_URL")),
        (None, Some(text)) => (text.clone(), key),
        (None, None) if findings.blames(&key) => return None,
        (None, None) => (default_public_url(listen?, listen_key, findings)?, key),
    };
    let issuer = match Issuer::parse(without_slash(&text)) {
        Ok(issuer) => issuer,
        Err(error) => {
            findings.mistake(&key, error.to_string(), public_url_remedy(error, listen));
            return None;
        }
    };
    if listen.is_some_and(|listen| !listen.ip().is_loopback()) && issuer.is_loopback() {
        findings.warn(
            &key,
            "is a loopback address although `listen` is not: only clients on this machine can sign in",
        );
    }
    let url = Url::parse(issuer.as_str()).ok();
    let port = url.as_ref().and_then(Url::port_or_known_default);
    let has_front = issuer.is_https() || !config.trusted_proxies.ranges.is_empty();
    if let (Some(listen), Some(port), false) = (listen, port, has_front)
        && listen.ip().is_loopback()
        && issuer.is_loopback()
        && ![0, port].contains(&listen.port())
    {
        let there = SocketAddr::new(listen.ip(), port);
        findings.warn(
            &key,
            &format!(
                "has port {port}, but {listen_key} has port {}: unless something in front forwards \
                 from one to the other, set listen (or LISTEN) to {there}, or leave public_url out: \
                 it follows listen",
                listen.port()
            ),
        );
    }
    let port = url.and_then(|url| url.port());
    if let Some(port) = port.filter(|_| !issuer.is_loopback()) {
        findings.note(
            &key,
            &format!("has port {port}: claude.ai and ChatGPT reach port 443 only"),
        );
    }
    Some(issuer)
}

/// An address without the slash that browsers show at its end, where it says nothing.
fn without_slash(url: &str) -> &str {
    url.strip_suffix('/').unwrap_or(url)
}

/// The public URL of a proxy that is reached from its own machine only.
fn default_public_url(
    listen: SocketAddr,
    listen_key: &Key,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let remedy = "set public_url, or PUBLIC_URL in the environment, to the address that clients use, as in \"https://mcp.example.com\"";
    if !listen.ip().is_loopback() {
        findings.mistake(
            listen_key,
            "is reached from other machines, but no public_url says under which address",
            remedy,
        );
        return None;
    }
    if listen.port() == 0 {
        findings.mistake(
            listen_key,
            "leaves the port to chance, and no public_url says under which address clients come",
            remedy,
        );
        return None;
    }
    // The origin of an address with the default port is written without it.
    let url = Url::parse(&format!("http://{listen}")).ok()?;
    Some(url.origin().ascii_serialization())
}

/// What to write in place of a public URL. Many who have no domain of their own write an address of
/// their home network, for which no public authority issues certificates.
fn public_url_remedy(error: NotAnIssuer, listen: Option<SocketAddr>) -> String {
    let port = listen.map_or(8080, |listen| listen.port());
    match error {
        NotAnIssuer::NotHttps => format!(
            "clients want https. Without a certificate of your own, let one of these stand in front, \
             and write the https address that it has; more is in the README, \"From other machines\"
    tailscale serve --bg {port}                       in your own network of machines
    tailscale funnel --bg {port}                      from the internet, for claude.ai too
    cloudflared tunnel --url http://127.0.0.1:{port}  to try it: another address at each start
    caddy reverse-proxy --from NAME.local --to 127.0.0.1:{port} --internal-certs
                                                  at home: each machine has to trust Caddy's root"
        ),
        NotAnIssuer::NotAUrl => "write it in full, as in \"https://mcp.example.com\"".to_owned(),
        NotAnIssuer::NotAnOrigin => {
            "remove everything after the host and port, as in \
             \"https://mcp.example.com\"; a path cannot stay, since clients look at the root of a host: \
             another port can take its place, as in \"https://nas.example.com:8443\""
                .to_owned()
        }
        NotAnIssuer::Credentials => "remove everything before the @, and the @".to_owned(),
        NotAnIssuer::NotCanonical => {
            "write scheme and host in lower case and leave out :443 after https, :80 after http"
                .to_owned()
        }
    }
}

fn aliases(written: &[String], findings: &mut Findings<'_>) -> Vec<Alias> {
    let list = Key::of("aliases");
    // After an element that could not be read, the numbers of the others are off.
    if findings.blames(&list) {
        return Vec::new();
    }
    let mut aliases = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match Alias::parse(without_slash(text)) {
            Ok(alias) => aliases.push(alias),
            Err(error) => {
                let reason = match error {
                    NotAnIssuer::NotHttps => "must start with http:// or https://".to_owned(),
                    error => error.to_string(),
                };
                findings.mistake(
                    &list.element(index),
                    reason,
                    "write scheme, host and port as clients use them and nothing after, in lower case, \
                     as in \"http://proxy:8080\"",
                );
            }
        }
    }
    aliases
}

fn data_dir(config: &Config, findings: &mut Findings<'_>) -> PathBuf {
    let written = config.data_dir.clone();
    let data_dir = written.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    if data_dir.as_os_str().is_empty() {
        findings.mistake(
            &Key::of("data_dir"),
            "must not be empty",
            "name a directory, as in \"./data\"",
        );
    }
    if is_for_a_shell(&data_dir) {
        findings.mistake(
            &Key::of("data_dir"),
            "begins with ~ or a variable, which only a shell expands",
            IN_FULL,
        );
    }
    let (who, remedy) = match others_in(&data_dir) {
        Others::None => return data_dir,
        Others::Group => (
            "everybody in its group",
            format!(
                "chmod g-w {}, unless nobody else is in that group, as in a container",
                data_dir.display()
            ),
        ),
        Others::Everybody => (
            "others than its owner",
            format!("chmod go-w {}", data_dir.display()),
        ),
    };
    findings.warn(
        &Key::of("data_dir"),
        &format!(
            "can be written by {who}, who could remove the key or replace the records: {remedy}"
        ),
    );
    data_dir
}

fn key(config: &Config, environment: &Environment, findings: &mut Findings<'_>) -> Option<KeyPlan> {
    let Some(written) = &config.key else {
        return Some(KeyPlan::DataDir);
    };
    let key = Key::of("key");
    let resolved = resolve(written, &key, environment, findings)?;
    findings.literal_secret |= resolved.source == Source::Literal;
    match KeyRing::parse(resolved.text.expose_secret()) {
        Ok(keys) => Some(KeyPlan::Configured {
            keys,
            source: resolved.source,
        }),
        Err(error) => {
            let remedy = match error {
                NotAKey::Format => "give it the lines of a key file, such as data/key",
                NotAKey::Placeholder => "give it the lines of a key file that this program made",
                NotAKey::Twice => "give it each line of a key file once",
            };
            findings.mistake(&key, error.to_string(), remedy);
            None
        }
    }
}

fn store(
    config: &Config,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<StoreKind> {
    let key = Key::of("store");
    let Some(written) = &config.store else {
        return Some(StoreKind::Sqlite);
    };
    let resolved = resolve(written, &key, environment, findings)?;
    let text = resolved.text.expose_secret();
    if text == SQLITE {
        return Some(StoreKind::Sqlite);
    }
    let url = Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"));
    let Some(url) = url else {
        findings.mistake(
            &key,
            "is no store that this program knows",
            "write \"sqlite\", or \"postgres://user:password@host/database\"",
        );
        return None;
    };
    let has_password =
        url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password");
    findings.literal_secret |= has_password && resolved.source == Source::Literal;
    if crosses_a_network_unprotected(&url) {
        findings.warn(
            &key,
            "names another machine without asking for TLS, so passwords and records may cross the \
             network readable, or go to somebody else: add ?sslmode=verify-full to the URL, or \
             sslmode=require where the certificate cannot be checked",
        );
    }
    Some(StoreKind::Postgres { url: resolved.text })
}

/// Whether a PostgreSQL server is on another machine, and the driver may do without TLS, which is
/// what it does unless told otherwise when the server, or whoever answers for it, offers none.
fn crosses_a_network_unprotected(url: &Url) -> bool {
    let parameter = |names: [&str; 2]| {
        let found = url
            .query_pairs()
            .filter(|(name, _)| names.contains(&&**name));
        found.last().map(|(_, value)| value.into_owned())
    };
    let mode = parameter(["sslmode", "ssl-mode"]).unwrap_or_default();
    let host = parameter(["hostaddr", "host"])
        .or_else(|| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    // Without a host, or with a path in its place, it is a socket of this machine.
    let is_here = host.is_empty()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    !is_here && !["require", "verify-ca", "verify-full"].contains(&mode.as_str())
}

fn allowed_origins(written: &[String], is_local: bool, findings: &mut Findings<'_>) -> Vec<String> {
    let list = Key::of("allowed_origins");
    // After an element that could not be read, the numbers of the others are off.
    if findings.blames(&list) {
        return Vec::new();
    }
    if !is_local && !written.is_empty() {
        findings.warn(
            &list,
            "is not used: `public_url` is a public address, where a page of any origin may call that \
             has a token",
        );
    }
    for (index, text) in written.iter().enumerate() {
        if text.contains('*') {
            findings.mistake(
                &list.element(index),
                "has a *, which no origin has: nothing would match it",
                "write each origin in full, as in \"https://app.example.com\"; where `public_url` is \
                 https none is needed, since there the token decides",
            );
        } else if !is_origin(text) {
            findings.mistake(
                &list.element(index),
                "is not the origin of a web page",
                "write scheme, host and port as a browser sends them, without a slash at the end, as in \"https://app.example.com\"",
            );
        } else if is_local && is_unprotected(text) {
            findings.warn(
                &list.element(index),
                "is without TLS, so anybody on its pages' way can call with what they know: use https",
            );
        }
    }
    written.to_vec()
}

/// Whether pages of that origin come over a network without TLS.
fn is_unprotected(origin: &str) -> bool {
    let names_this_computer = |url: &Url| {
        let is_below_localhost = |name: &str| name.ends_with(".localhost");
        is_loopback(url) || url.domain().is_some_and(is_below_localhost)
    };
    Url::parse(origin).is_ok_and(|url| url.scheme() == "http" && !names_this_computer(&url))
}

fn is_origin(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    if matches!(url.scheme(), "http" | "https") {
        return text == url.origin().ascii_serialization();
    }
    // Of browser extensions, whose origin is scheme and host as well.
    url.host_str()
        .is_some_and(|host| text == format!("{}://{host}", url.scheme()))
}

fn trusted_proxies(written: &[String], findings: &mut Findings<'_>) -> Vec<IpNet> {
    let list = Key::of("trusted_proxies.ranges");
    if findings.blames(&list) {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let key = list.element(index);
        let one_address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse::<IpNet>().ok().or_else(one_address) {
            Some(range) => {
                if range.prefix_len() == 0 {
                    findings.warn(
                        &key,
                        "covers every address: any client can claim any address as its own",
                    );
                }
                ranges.push(range.trunc());
            }
            None => findings.mistake(
                &key,
                "is not an address range",
                "write it as \"10.0.0.0/8\" or \"fd00::/8\", or one address as \"10.0.0.5\"",
            ),
        }
    }
    if covers_too_much(&ranges) {
        findings.warn(
            &list,
            "together cover a great part of the internet: any client there can claim any address \
             as its own",
        );
    }
    ranges
}

/// Whether ranges cover together more than any one network has: as much as an IPv4 range of 7
/// bits, or an IPv6 range of 15, which is not only unique local addresses (RFC 4193). One that
/// covers every address has been told of already.
fn covers_too_much(ranges: &[IpNet]) -> bool {
    let share = |prefix: u8| 1_u128 << (127 - prefix.min(127));
    let (mut of_v4, mut of_v6) = (0_u128, 0_u128);
    for range in IpNet::aggregate(&ranges.to_vec()) {
        match range {
            IpNet::V4(range) => of_v4 = of_v4.saturating_add(share(range.prefix_len())),
            IpNet::V6(range) if range.network().is_unique_local() => {}
            IpNet::V6(range) => of_v6 = of_v6.saturating_add(share(range.prefix_len())),
        }
    }
    let tells_all = ranges.iter().any(|range| range.prefix_len() == 0);
    !tells_all && (of_v4 >= share(7) || of_v6 >= share(15))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_judged_by_what_they_cover_together() {
        for (ranges, is_too_much) in [
            (&["0.0.0.0/1", "128.0.0.0/1"][..], true),
            (&["64.0.0.0/7"], true),
            (&["20.0.0.0/8", "30.0.0.0/8"], true),
            (&["2000::/3"], true),
            (&["2400::/16", "2600::/16"], true),
            (&["0.0.0.0/0"], false),
            (&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"], false),
            (&["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8"], false),
            (&["fc00::/7", "fd00::/8", "2400:cb00::/32"], false),
            (&[], false),
        ] {
            let parsed: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
            assert_eq!(covers_too_much(&parsed), is_too_much, "{ranges:?}");
        }
    }
}
