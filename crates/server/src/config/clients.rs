//! How clients become known: the two ways of their own, and those that the operator sets up.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    oauth::{
        app_scheme::{AppScheme, NoAppScheme},
        client::{ClientMetadata, PreregisteredClient},
        client_auth::{AuthMethod, secret_digest},
        client_document::{DocumentUrl, HostPattern},
        identifiers::ClientId,
        jwks::{KeySet, KeySource},
        redirect_uri::{RedirectUri, Unfit},
    },
    policy::ClientPolicy,
};
use secrecy::ExposeSecret;

use super::{
    findings::Findings,
    guessable::is_easily_guessed,
    key::Key,
    secret::{Environment, Source, resolve},
    upstream::check_title,
    written::{ClientConfig, ClientsConfig, Config},
};

/// The shortest secret that no one guesses, in characters.
const SHORTEST_SECRET: usize = 16;
/// The longest id, in characters.
const LONGEST_ID: usize = 64;

/// A client that the operator set up, and how to speak of it without telling its secret.
#[derive(Debug)]
pub struct PlannedClient {
    pub client: Arc<PreregisteredClient>,
    /// How it proves who it is, and where that comes from.
    pub authentication: String,
}

/// Reads `[clients]` and every `[client.…]`.
pub(super) fn read(
    config: &Config,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> (ClientPolicy, Vec<PlannedClient>) {
    let mut policy = ways(&config.clients, findings);
    let planned = set_up(&config.client, environment, findings);
    if !policy.registration && !policy.documents && planned.is_empty() {
        findings.warn(
            &Key::of("clients"),
            "leaves no way for a client to become known: set one up as [client.<client_id>]",
        );
    }
    policy.preregistered = planned
        .iter()
        .map(|plan| Arc::clone(&plan.client))
        .collect();
    (policy, planned)
}

fn ways(written: &ClientsConfig, findings: &mut Findings<'_>) -> ClientPolicy {
    let default = ClientPolicy::default();
    let key = Key::of("clients");
    ClientPolicy {
        registration: written.registration.unwrap_or(default.registration),
        documents: written.documents.unwrap_or(default.documents),
        document_hosts: hosts(
            &written.document_hosts,
            &key.child("document_hosts"),
            findings,
        ),
        refused_document_hosts: hosts(
            &written.refused_document_hosts,
            &key.child("refused_document_hosts"),
            findings,
        ),
        app_schemes: app_schemes(&written.app_schemes, &key.child("app_schemes"), findings),
        announce_iss: written.announce_iss.unwrap_or(default.announce_iss),
        preregistered: Vec::new(),
    }
}

fn app_schemes(written: &[String], list: &Key, findings: &mut Findings<'_>) -> Vec<AppScheme> {
    // After an element that could not be read, the numbers of the others are off.
    if findings.blames(list) {
        return Vec::new();
    }
    let mut schemes = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match AppScheme::parse(text) {
            Ok(scheme) => schemes.push(scheme),
            Err(NoAppScheme::Spelling) => findings.mistake(
                &list.element(index),
                "is not the scheme of a link",
                "write what stands before the colon, in lower case: \"myapp\" for myapp://callback",
            ),
            Err(NoAppScheme::OfTheSystem) => findings.mistake(
                &list.element(index),
                "is a scheme that browsers or operating systems act on themselves",
                "remove it: no app can have it, and an answer in it would be an instruction to the system",
            ),
        }
    }
    schemes
}

fn hosts(written: &[String], list: &Key, findings: &mut Findings<'_>) -> Vec<HostPattern> {
    // After an element that could not be read, the numbers of the others are off.
    if findings.blames(list) {
        return Vec::new();
    }
    let mut hosts = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match HostPattern::parse(text) {
            Some(host) => hosts.push(host),
            None => findings.mistake(
                &list.element(index),
                "is not the name of a host",
                "write it in lower case as in \"claude.ai\", or \"*.example.com\" for every host below example.com",
            ),
        }
    }
    hosts
}

fn set_up(
    written: &BTreeMap<String, ClientConfig>,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Vec<PlannedClient> {
    let read = |(id, written): (&String, &ClientConfig)| client(id, written, environment, findings);
    written.iter().filter_map(read).collect()
}

fn client(
    id: &str,
    written: &ClientConfig,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<PlannedClient> {
    let key = Key::of("client").child(id);
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(legal) {
        findings.mistake(
            &key,
            "is not a client_id",
            "use 1 to 64 letters, digits and - . _ ~; in TOML, one with a dot or ~ stands in quotes",
        );
    }
    let title = written.title.as_deref().unwrap_or(id);
    if written.title.is_some() {
        check_title(title, &key.child("title"), findings);
    }
    let redirect_uris = redirect_uris(&written.redirect_uris, &key, findings);
    let proof = proof(written, &key, environment, findings)?;
    Some(PlannedClient {
        client: Arc::new(PreregisteredClient {
            client_id: ClientId::presented(id),
            metadata: ClientMetadata {
                client_name: title.to_owned(),
                redirect_uris,
                token_endpoint_auth_method: proof.method,
                keys: proof.keys,
            },
            secret_digest: proof.secret_digest,
        }),
        authentication: proof.shown,
    })
}

fn redirect_uris(written: &[String], key: &Key, findings: &mut Findings<'_>) -> Vec<RedirectUri> {
    let list = key.child("redirect_uris");
    if findings.blames(&list) {
        return Vec::new();
    }
    if written.is_empty() {
        findings.mistake(
            key,
            "has no `redirect_uris`",
            "add what the client names as its callback or redirect URL, as in redirect_uris = [\"https://claude.ai/api/mcp/auth_callback\"]",
        );
    }
    let mut uris = Vec::new();
    for (index, text) in written.iter().enumerate() {
        // Written out by the operator, the link of any app is let in.
        let judged = match RedirectUri::judge(text, &[]) {
            Err(Unfit::UnknownApp(scheme)) => RedirectUri::judge(text, &[scheme]),
            judged => judged,
        };
        match judged {
            Ok(uri) => uris.push(uri),
            Err(_) => findings.mistake(
                &list.element(index),
                "is not a redirect URI that a client may have",
                "write it as the client sends it: https, or http on 127.0.0.1, [::1] or localhost (any port then fits), or the scheme of an app, without fragment, user name, wildcard or dot segments",
            ),
        }
    }
    uris
}

/// How a client proves who it is.
struct ClientProof {
    method: AuthMethod,
    secret_digest: Option<[u8; 32]>,
    keys: Option<KeySource>,
    shown: String,
}

/// `None`: a mistake was noted.
fn proof(
    written: &ClientConfig,
    key: &Key,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<ClientProof> {
    let with_keys = |keys, shown| {
        Some(ClientProof {
            method: AuthMethod::PrivateKeyJwt,
            secret_digest: None,
            keys: Some(keys),
            shown,
        })
    };
    match (&written.client_secret, &written.jwks, &written.jwks_uri) {
        (None, None, None) => Some(ClientProof {
            method: AuthMethod::None,
            secret_digest: None,
            keys: None,
            shown: "none, by PKCE alone".to_owned(),
        }),
        (Some(secret), None, None) => {
            let key = key.child("client_secret");
            let secret = resolve(secret, &key, environment, findings)?;
            let text = secret.text.expose_secret();
            let reason = if text.chars().count() < SHORTEST_SECRET {
                Some("is shorter than 16 characters, so it can be guessed")
            } else if is_easily_guessed(text) {
                Some("is a placeholder or a pattern that anyone would guess")
            } else {
                None
            };
            if let Some(reason) = reason {
                let remedy = "make one, as with `openssl rand -base64 32`";
                findings.mistake(&key, reason, remedy);
                return None;
            }
            findings.literal_secret |= secret.source == Source::Literal;
            Some(ClientProof {
                method: AuthMethod::ClientSecretBasic,
                secret_digest: Some(secret_digest(text)),
                keys: None,
                shown: format!("client secret ({})", secret.source),
            })
        }
        (None, Some(jwks), None) => {
            let key = key.child("jwks");
            let jwks = resolve(jwks, &key, environment, findings)?;
            let (reason, remedy) = match KeySet::parse(jwks.text.expose_secret().as_bytes()) {
                Ok(keys) if !keys.is_empty() => {
                    let shown = format!("private_key_jwt, keys {}", jwks.source);
                    return with_keys(KeySource::Inline(keys), shown);
                }
                Ok(_) => (
                    "has no key that can be used".to_owned(),
                    "give an RSA key of 2048 bits or more, an EC key on P-256, or an Ed25519 key, for signatures",
                ),
                Err(error) => (
                    format!("cannot be used: {}", error.description),
                    "write a JSON Web Key Set with the client's public keys, {\"keys\": […]}",
                ),
            };
            findings.mistake(&key, reason, remedy);
            None
        }
        (None, None, Some(jwks_uri)) => {
            if let Some(url) = DocumentUrl::parse(jwks_uri) {
                let shown = format!("private_key_jwt, keys from {url}");
                return with_keys(KeySource::At(url), shown);
            }
            findings.mistake(
                &key.child("jwks_uri"),
                "is not an address that keys can be fetched from",
                "write it with https, the name of a public host, no port, and a path without query or fragment; or put the keys into `jwks`",
            );
            None
        }
        _ => {
            findings.mistake(
                key,
                "has more than one of `client_secret`, `jwks` and `jwks_uri`",
                "keep the one that the client uses",
            );
            None
        }
    }
}
