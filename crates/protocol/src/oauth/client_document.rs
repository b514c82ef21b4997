//! Client ID Metadata Documents: a client whose name is the URL of a document in which it
//! describes itself (draft-ietf-oauth-client-id-metadata-document).

use std::{fmt, time::Duration};

use http::{HeaderMap, header};
use serde_json::{Map, Value};
use url::{Host, Url};

use super::{
    app_scheme::AppScheme,
    client::{self, ClientMetadata},
    client_auth::AuthMethod,
    error::{OAuthError, told},
    jwks::KeySource,
    known_clients, strict_json,
};

/// The longest URL, in bytes.
const LONGEST: usize = 512;

/// Bounds on how long a document is believed, whatever its publisher says.
pub const LEAST_FRESHNESS: Duration = Duration::from_mins(1);
pub const MOST_FRESHNESS: Duration = Duration::from_hours(24);

/// A `client_id` that is the URL of a document (§3), and may be asked for one.
///
/// Equality is that of the text, since only a text that parsing leaves as it is gets in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DocumentUrl(Url);

impl DocumentUrl {
    /// Reads a `client_id`. `None` if it is no URL of a document: not `https`, without a path, or
    /// with a user name, a fragment, dot segments (however encoded), or anything else that two
    /// readers could read differently. By our own policy also none with a query, a port, an
    /// address in place of a name, or a name that only a local network knows.
    pub fn parse(text: &str) -> Option<Self> {
        // A user name is not left to the parser, which drops an empty one.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#@".contains(&byte);
        if text.len() > LONGEST || !text.bytes().all(is_plain) {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let is_exact = url.as_str() == text;
        let is_public_name = match url.host()? {
            Host::Domain(name) => is_public_name(name),
            Host::Ipv4(_) | Host::Ipv6(_) => false,
        };
        let fits = is_exact
            && is_public_name
            && url.scheme() == "https"
            && url.port().is_none()
            && url.path() != "/";
        fits.then_some(Self(url))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// The host that publishes the document, and so vouches for it.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl fmt::Display for DocumentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Hosts that the operator speaks of: one by its name, or all below a name, `*.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(String);

impl HostPattern {
    /// Reads a pattern, written as browsers write hosts.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let url = DocumentUrl::parse(&format!("https://{name}/x"))?;
        (url.host() == name && !name.contains(['/', '*'])).then(|| Self(text.to_owned()))
    }

    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(ending) => host.len() > ending.len() && host.ends_with(ending),
            None => self.0 == host,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a name can be one of the public domain name system: more than one label, not under a
/// name that means this computer (RFC 6761 §6.3).
fn is_public_name(name: &str) -> bool {
    name.contains('.')
        && name.split('.').all(|label| !label.is_empty())
        && name.rsplit('.').next() != Some("localhost")
}

/// Reads the document at `url` (§4). Members and grant types that we do not know are left out, and
/// so are links of apps that are neither known nor `let_in`, beside other redirect URIs.
pub fn parse(
    url: &DocumentUrl,
    body: &[u8],
    let_in: &[AppScheme],
) -> Result<ClientMetadata, OAuthError> {
    let invalid = |why: &'static str| Err(OAuthError::invalid_client_metadata(why));
    let Some(members) = strict_json::object(body) else {
        return invalid(
            "the client's metadata document is not one JSON object, or has a member twice",
        );
    };
    match members.get("client_id") {
        Some(Value::String(client_id)) if client_id == url.as_str() => {}
        other => {
            let other = other
                .and_then(Value::as_str)
                .map_or("none".to_owned(), told);
            return Err(OAuthError::invalid_client_metadata(format!(
                "client_id in the client's metadata document is not its own address, {}, but {other}",
                told(url.as_str())
            )));
        }
    }
    // What anybody can read is no secret (§4.1).
    if members.keys().any(|name| name.starts_with("client_secret")) {
        return invalid("the client's metadata document must not have a client secret");
    }
    let client_name = client::client_name(&members)?;
    if client_name.trim().is_empty() {
        return invalid("the client's metadata document has no client_name");
    }
    client::offers_supported_types(&members)?;
    let keys = KeySource::of(&members)?;
    let token_endpoint_auth_method = auth_method(&members)?;
    if token_endpoint_auth_method == AuthMethod::PrivateKeyJwt && keys.is_none() {
        return invalid("a client that authenticates with private_key_jwt needs jwks or jwks_uri");
    }
    let mut redirect_uris = client::redirect_uris(&members, let_in)?.fit;
    redirect_uris.extend(known_clients::unpublished_redirect_uris(url));
    Ok(ClientMetadata {
        client_name,
        redirect_uris,
        token_endpoint_auth_method,
        keys,
    })
}

/// The method that the client and we both know. Some documents have one, some a list of them,
/// some both; one without either cannot mean a secret, so it means none.
fn auth_method(members: &Map<String, Value>) -> Result<AuthMethod, OAuthError> {
    let invalid = |why: &'static str| Err(OAuthError::invalid_client_metadata(why));
    let one = members
        .get("token_endpoint_auth_method")
        .filter(|method| !method.is_null());
    let list = match members.get("token_endpoint_auth_methods_supported") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) => list,
        Some(_) => return invalid("token_endpoint_auth_methods_supported must be a list"),
    };
    let methods: Option<Vec<&str>> = one.into_iter().chain(list).map(Value::as_str).collect();
    let Some(methods) = methods else {
        return invalid("token_endpoint_auth_method must be a string");
    };
    if methods
        .iter()
        .any(|method| method.starts_with("client_secret"))
    {
        return invalid(
            "a client with a metadata document cannot authenticate with a client secret",
        );
    }
    // With both, it may do either: an assertion that it sends is checked, none is asked for.
    if methods.is_empty() || methods.contains(&"none") {
        return Ok(AuthMethod::None);
    }
    if methods.contains(&"private_key_jwt") {
        return Ok(AuthMethod::PrivateKeyJwt);
    }
    invalid(
        "the client's metadata document offers no token_endpoint_auth_method that is supported \
         here: it must be none or private_key_jwt",
    )
}

/// How long a document that came with these headers is believed (RFC 9111 §4.2), within our own
/// bounds. One that says nothing of it is believed for the shortest time.
pub fn freshness(headers: &HeaderMap) -> Duration {
    let directives = || {
        headers
            .get_all(header::CACHE_CONTROL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|directive| directive.trim().to_ascii_lowercase())
    };
    if directives().any(|directive| ["no-store", "no-cache"].contains(&directive.as_str())) {
        return LEAST_FRESHNESS;
    }
    let max_age = directives().find_map(|directive| {
        let seconds = directive.strip_prefix("max-age=")?.trim_matches('"');
        seconds.parse().ok().map(Duration::from_secs)
    });
    let date = |name| {
        let text = headers.get(name)?.to_str().ok()?;
        httpdate::parse_http_date(text).ok()
    };
    let until_expiry = || {
        date(header::EXPIRES)?
            .duration_since(date(header::DATE)?)
            .ok()
    };
    let age = headers
        .get(header::AGE)
        .and_then(|age| age.to_str().ok()?.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    max_age
        .or_else(until_expiry)
        .unwrap_or_default()
        .saturating_sub(age)
        .clamp(LEAST_FRESHNESS, MOST_FRESHNESS)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use serde_json::json;

    use super::*;

    const URL: &str = "https://client.example/oauth/metadata.json";

    fn document() -> Value {
        json!({
            "client_id": URL,
            "client_name": "Example",
            "redirect_uris": ["https://client.example/cb", "http://127.0.0.1/cb"],
        })
    }

    fn read(document: &Value) -> Result<ClientMetadata, String> {
        let url = DocumentUrl::parse(URL).unwrap();
        parse(&url, document.to_string().as_bytes(), &[])
            .map_err(|error| error.description.into_owned())
    }

    /// CI-02
    #[test]
    fn ci_02_the_urls_of_real_documents_are_taken() {
        for good in [
            "https://claude.ai/oauth/mcp-oauth-client-metadata",
            "https://claude.ai/oauth/claude-code-client-metadata",
            "https://chatgpt.com/oauth/client.json",
            "https://vscode.dev/oauth/client-metadata.json",
            "https://xn--bcher-kva.example/client",
            "https://client.example/a%20b/",
        ] {
            let url = DocumentUrl::parse(good).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(url.as_str(), good);
        }
        assert_eq!(DocumentUrl::parse(URL).unwrap().host(), "client.example");
    }

    /// CI-02, CIM-01
    // N-CI-01 to N-CI-12
    #[test]
    fn ci_02_near_misses_of_a_document_url_are_refused() {
        let at_limit = format!("https://client.example/{}", "x".repeat(512 - 23));
        assert!(DocumentUrl::parse(&at_limit).is_some());
        let over_limit = format!("{at_limit}x");
        for bad in [
            "",
            "c1",
            "http://client.example/client",
            "HTTPS://client.example/client",
            "https:client.example/client",
            "https:///client.example/client",
            "ftp://client.example/client",
            "https://client.example",
            "https://client.example/",
            "https://client.example/./client",
            "https://client.example/a/../client",
            "https://client.example/a/%2e%2e/client",
            "https://client.example/a/.%2E/client",
            "https://client.example/..",
            "https://client.example/client#",
            "https://client.example/client#x",
            "https://@client.example/client",
            "https://u@client.example/client",
            "https://u:p@client.example/client",
            "https://client.example/client?x=1",
            "https://client.example/client?",
            "https://127.0.0.1/client",
            "https://93.184.216.34/client",
            "https://2130706433/client",
            "https://0x7f.1/client",
            "https://0177.0.0.1/client",
            "https://[::1]/client",
            "https://[2606:4700::1]/client",
            "https://client.example:22/client",
            "https://client.example:443/client",
            "https://client.example:8443/client",
            "https://client.example:/client",
            "https://client.example./client",
            "https://.client.example/client",
            "https://client..example/client",
            "https://Client.example/client",
            "https://client.example\\client",
            "https://client.example/a\\b",
            "https://client.example/a b",
            "https://bücher.example/client",
            "https://xn--bcher-kva.bücher.example/client",
            "https://xn--\u{e9}.example/client",
            "https://localhost/client",
            "https://app.localhost/client",
            "https://intranet/client",
            " https://client.example/client",
            "https://client.example/client\n",
            "https://client.example/\u{202e}client",
            &over_limit,
        ] {
            assert_eq!(DocumentUrl::parse(bad), None, "{bad:?}");
        }
    }

    /// CI-04, with unknown members and grant types as claude.ai lists them.
    #[test]
    fn ci_04_a_document_becomes_a_client() {
        let mut full = document();
        full["grant_types"] = json!([
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:jwt-bearer"
        ]);
        full["response_types"] = json!(["code"]);
        full["client_uri"] = json!("https://client.example");
        full["token_endpoint_auth_method"] = json!("none");
        for document in [document(), full] {
            let client = read(&document).unwrap();
            assert_eq!(client.client_name, "Example");
            assert_eq!(client.redirect_uris.len(), 2);
            assert_eq!(client.token_endpoint_auth_method, AuthMethod::None);
        }
    }

    /// CI-03, CIM-03
    // N-CI-19 to N-CI-21
    #[test]
    fn ci_03_a_document_must_name_itself_exactly() {
        for other in [
            json!("https://Client.example/oauth/metadata.json"),
            json!("https://client.example/oauth/metadata.json/"),
            json!("https://client.example:443/oauth/metadata.json"),
            json!("https://client.example/oauth/metadata%2Ejson"),
            json!("https://client.example/oauth/other.json"),
            json!([URL]),
            json!(null),
        ] {
            let mut bad = document();
            bad["client_id"] = other;
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    /// CI-04
    #[test]
    fn ci_04_a_document_without_what_it_must_have_is_refused() {
        for member in ["client_id", "client_name", "redirect_uris"] {
            let mut bad = document();
            bad.as_object_mut().unwrap().remove(member);
            assert!(read(&bad).is_err(), "{bad}");
        }
        for (member, value) in [
            ("client_name", json!(" ")),
            ("client_name", json!(4)),
            ("redirect_uris", json!([])),
            ("redirect_uris", json!("https://client.example/cb")),
            ("redirect_uris", json!(["http://client.example/cb"])),
            ("grant_types", json!(["client_credentials"])),
        ] {
            let mut bad = document();
            bad[member] = value;
            assert!(read(&bad).is_err(), "{bad}");
        }
        let url = DocumentUrl::parse(URL).unwrap();
        let good = document().to_string();
        assert!(parse(&url, good.as_bytes(), &[]).is_ok());
        for bad in [
            String::new(),
            "null".into(),
            format!("[{good}]"),
            format!("\u{feff}{good}"),
            format!("{good}{good}"),
            good[..good.len() - 1].to_owned(),
            "<!doctype html>".into(),
        ] {
            assert!(parse(&url, bad.as_bytes(), &[]).is_err(), "{bad}");
        }
        assert!(parse(&url, b"\xff\xfe{\0}\0", &[]).is_err());
    }

    /// Case 03: what a document has beside it may be used, and an unsafe one refuses the whole.
    #[test]
    fn the_link_of_an_unknown_app_in_a_document_is_left_out() {
        let mut with_app = document();
        with_app["redirect_uris"] = json!(["myapp://oauth/callback", "https://client.example/cb"]);
        assert_eq!(read(&with_app).unwrap().redirect_uris.len(), 1);
        let url = DocumentUrl::parse(URL).unwrap();
        let let_in = [AppScheme::parse("myapp").unwrap()];
        let client = parse(&url, with_app.to_string().as_bytes(), &let_in).unwrap();
        assert_eq!(client.redirect_uris.len(), 2);
        with_app["redirect_uris"] = json!(["myapp://oauth/callback"]);
        assert!(
            read(&with_app)
                .unwrap_err()
                .contains("myapp://oauth/callback")
        );
        with_app["redirect_uris"] = json!(["https://client.example/cb", "javascript:alert(1)"]);
        assert!(read(&with_app).is_err());
    }

    /// CI-06, CIM-04
    // N-CI-23
    #[test]
    fn ci_06_a_document_with_a_shared_secret_is_refused() {
        for (member, value) in [
            ("client_secret", json!("x")),
            ("client_secret", json!(null)),
            ("client_secret_expires_at", json!(0)),
            ("token_endpoint_auth_method", json!("client_secret_post")),
            ("token_endpoint_auth_method", json!("client_secret_basic")),
            ("token_endpoint_auth_method", json!("client_secret_jwt")),
            (
                "token_endpoint_auth_methods_supported",
                json!(["none", "client_secret_post"]),
            ),
        ] {
            let mut bad = document();
            bad[member] = value;
            assert!(read(&bad).unwrap_err().contains("secret"), "{bad}");
        }
    }

    /// CI-10: the list has the last word, as ChatGPT writes it.
    // N-CI-23
    #[test]
    fn ci_10_none_in_a_list_of_methods_counts_as_none() {
        let list = "token_endpoint_auth_methods_supported";
        let mut chatgpt = document();
        chatgpt["token_endpoint_auth_method"] = json!("private_key_jwt");
        chatgpt["jwks_uri"] = json!("https://client.example/jwks.json");
        assert_eq!(
            read(&chatgpt).unwrap().token_endpoint_auth_method,
            AuthMethod::PrivateKeyJwt
        );
        chatgpt[list] = json!(["private_key_jwt"]);
        assert_eq!(
            read(&chatgpt).unwrap().token_endpoint_auth_method,
            AuthMethod::PrivateKeyJwt
        );
        for good in [
            json!(["none", "private_key_jwt"]),
            json!(["private_key_jwt", "none"]),
        ] {
            chatgpt[list] = good;
            assert_eq!(
                read(&chatgpt).unwrap().token_endpoint_auth_method,
                AuthMethod::None
            );
        }
        for bad in [json!("none"), json!([1]), json!(["tls_client_auth"])] {
            let mut document = document();
            document[list] = bad;
            assert!(read(&document).is_err(), "{document}");
        }
    }

    /// CI-11
    // N-RG-33, N-RG-34
    #[test]
    fn ci_11_a_client_with_a_key_must_publish_it_in_one_place_and_only_the_public_half() {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let with = |members: Value| {
            let mut document = document();
            document["token_endpoint_auth_method"] = json!("private_key_jwt");
            let members = members.as_object().unwrap().clone();
            document.as_object_mut().unwrap().extend(members);
            read(&document)
        };
        let uri = "https://keys.example/jwks.json";
        assert!(with(json!({"jwks": {"keys": [key]}})).is_ok());
        assert!(with(json!({ "jwks_uri": uri })).is_ok());
        let private = |member: &str| {
            let mut key = key.clone();
            key[member] = json!("x");
            json!({"jwks": {"keys": [key]}})
        };
        let eleven: Vec<_> = (0..11).map(|_| key.clone()).collect();
        for bad in [
            json!({}),
            json!({"jwks": {"keys": [key]}, "jwks_uri": uri}),
            json!({"jwks": {"keys": key}}),
            json!({"jwks": {"keys": ["x"]}}),
            json!({"jwks": {"keys": eleven}}),
            json!({"jwks": "x"}),
            json!({"jwks_uri": "http://keys.example/jwks.json"}),
            json!({"jwks_uri": "https://127.0.0.1/jwks.json"}),
            json!({"jwks_uri": "https://keys.example:8443/jwks.json"}),
            json!({"jwks_uri": "https://u@keys.example/jwks.json"}),
            json!({"jwks_uri": ["https://keys.example/jwks.json"]}),
            private("d"),
            private("k"),
            private("p"),
            private("oth"),
        ] {
            assert!(with(bad.clone()).is_err(), "{bad}");
        }
    }

    /// CI-13
    #[test]
    fn ci_13_a_pattern_is_one_host_or_all_below_a_name() {
        for (pattern, host, matches) in [
            ("claude.ai", "claude.ai", true),
            ("claude.ai", "x.claude.ai", false),
            ("claude.ai", "evilclaude.ai", false),
            ("*.claude.ai", "x.claude.ai", true),
            ("*.claude.ai", "x.y.claude.ai", true),
            ("*.claude.ai", "claude.ai", false),
            ("*.claude.ai", "evilclaude.ai", false),
            ("*.claude.ai", "claude.ai.evil.example", false),
        ] {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(host), matches, "{pattern} {host}");
        }
        for bad in [
            "",
            "*",
            "*.",
            "ai",
            "*.ai",
            "Claude.ai",
            "claude.ai.",
            "https://claude.ai",
            "claude.ai/x",
            "claude.ai:443",
            "*.*.claude.ai",
            "c*.claude.ai",
            "127.0.0.1",
            "bücher.example",
        ] {
            assert_eq!(HostPattern::parse(bad), None, "{bad}");
        }
    }

    /// CI-08
    #[test]
    fn ci_08_freshness_follows_the_headers_within_our_bounds() {
        let date = ("date", "Fri, 20 Nov 2026 12:00:00 GMT");
        let expires = |text: &'static str| vec![date, ("expires", text)];
        for (headers, seconds) in [
            (vec![], 60),
            (vec![("cache-control", "max-age=3600")], 3600),
            (
                vec![("cache-control", "public, Max-Age=3600"), ("age", "600")],
                3000,
            ),
            (
                vec![
                    ("cache-control", "public"),
                    ("cache-control", "max-age=300"),
                ],
                300,
            ),
            (vec![("cache-control", "max-age=3600"), ("age", "9999")], 60),
            (vec![("cache-control", "max-age=1")], 60),
            (vec![("cache-control", "max-age=99999999")], 86_400),
            (vec![("cache-control", "max-age=-1")], 60),
            (
                vec![("cache-control", "max-age=99999999999999999999999")],
                60,
            ),
            (vec![("cache-control", "no-store, max-age=3600")], 60),
            (vec![("cache-control", "no-cache, max-age=3600")], 60),
            (expires("Fri, 20 Nov 2026 13:00:00 GMT"), 3600),
            (expires("Fri, 20 Nov 2026 11:00:00 GMT"), 60),
            (expires("0"), 60),
            (
                [
                    expires("Fri, 20 Nov 2026 13:00:00 GMT"),
                    vec![("cache-control", "max-age=120")],
                ]
                .concat(),
                120,
            ),
        ] {
            let map: HeaderMap = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
                .fold(HeaderMap::new(), |mut map, (name, value)| {
                    map.append(name, value);
                    map
                });
            assert_eq!(freshness(&map), Duration::from_secs(seconds), "{headers:?}");
        }
    }
}
