//! Where an authorization answer may go: what may be registered, and what matches it.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::known_clients;

/// The longest redirect URI, in bytes.
pub const LONGEST: usize = 2048;

/// The hosts that mean "this computer" in a redirect URI (RFC 8252 §7.3, §8.3).
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// A redirect URI that was judged fit to be registered, exactly as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedirectUri(String);

impl RedirectUri {
    /// Reads a URI that a client wants to register. `None` if it could lead anywhere but to an
    /// `https` site, this computer, or a known kind of application (RFC 9700 §2.1, RFC 8252 §7).
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST || !text.bytes().all(is_plain) {
            return None;
        }
        // Parsing repairs what is written oddly; what is compared later is the text, so only text
        // that needs no repair is let in.
        let (scheme, rest) = text.split_once(':')?;
        let (authority, path) = split_authority(rest);
        let fits_scheme = match authority {
            Some(authority) => !authority.is_empty() && !authority.contains('@'),
            None => path.starts_with('/') && is_reversed_domain(scheme),
        };
        if !fits_scheme || has_dot_segment(path) {
            return None;
        }
        if path.contains(['[', ']']) || !has_whole_escapes(rest) {
            return None;
        }
        if names_an_answer(path) {
            return None;
        }
        let url = Url::parse(text).ok()?;
        let fits = match scheme {
            "https" => is_canonical_host(&url, authority?),
            "http" => loopback(text).is_some() && !is_where_our_cookies_go(path),
            _ => known_clients::is_app_scheme(scheme) || is_reversed_domain(scheme),
        };
        fits.then(|| Self(text.to_owned()))
    }

    /// Whether a request that names `presented` may be answered there: the same text, or on this
    /// computer the same but for the port (RFC 8252 §7.3; `localhost` too, since clients use it).
    pub fn matches(&self, presented: &str) -> bool {
        if self.0 == presented {
            return true;
        }
        match (loopback(&self.0), loopback(presented)) {
            (Some(registered), Some(presented)) => registered == presented,
            _ => false,
        }
    }

    /// The URI that an answer goes to, `presented` being what [`Self::matches`] accepted.
    pub fn presented(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the answer goes to a program on the person's own computer.
    pub fn is_loopback(&self) -> bool {
        loopback(&self.0).is_some()
    }

    /// What people should see of the place: a host, or how links of an application start. Nothing
    /// behind that says whose it is, and what looks like a host there is none.
    pub fn place(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once(':') else {
            return self.0.clone();
        };
        match (scheme, split_authority(rest).0) {
            ("https" | "http", Some(authority)) => authority.to_owned(),
            (_, Some(_)) => format!("{scheme}://"),
            (_, None) => format!("{scheme}:"),
        }
    }

    /// The URI with `parameters` added to whatever query it has.
    pub fn with_parameters(&self, parameters: &[(&str, &str)]) -> String {
        let separator = match self.0.split_once('?') {
            None => "?",
            Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
            Some(_) => "&",
        };
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        format!("{}{separator}{query}", self.0)
    }
}

/// Printable ASCII without the characters that parsers disagree about. No `#`: a redirect URI has
/// no fragment (RFC 6749 §3.1.2). No `*`: it is no pattern.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#*<>\\^`{|}".contains(&byte)
}

/// The authority, if there is one, and what follows it, of what stands after a URI's scheme
/// (RFC 3986 §3).
fn split_authority(rest: &str) -> (Option<&str>, &str) {
    match rest.strip_prefix("//") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), path)
        }
        None => (None, rest),
    }
}

fn has_dot_segment(path: &str) -> bool {
    let path = path
        .split('?')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .replace("%2e", ".");
    path.split('/')
        .any(|segment| segment == "." || segment == "..")
}

/// Whether a browser that is sent to this path of another port of this computer would bring along
/// the cookies of our consent page.
fn is_where_our_cookies_go(path: &str) -> bool {
    path.strip_prefix("/consent")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Whether two hexadecimal digits follow each percent sign (RFC 3986 §2.1).
fn has_whole_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Whether the query already holds a parameter of the answer, which would then be there twice.
fn names_an_answer(path: &str) -> bool {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| {
        matches!(
            &*name,
            "code" | "state" | "iss" | "error" | "error_description" | "error_uri"
        )
    })
}

/// Whether `authority` is written as the parsed URL would write it, so that no reader can see
/// another host in it.
fn is_canonical_host(url: &Url, authority: &str) -> bool {
    let (Some(host), Some(name)) = (url.host(), url.host_str()) else {
        return false;
    };
    let is_name = match host {
        Host::Domain(name) => !name.ends_with('.'),
        Host::Ipv4(_) | Host::Ipv6(_) => true,
    };
    let written = match authority.strip_prefix(name) {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(is_port),
        None => false,
    };
    is_name && written
}

/// Private-use schemes belong to whoever owns the reversed domain name in them (RFC 8252 §7.1).
fn is_reversed_domain(scheme: &str) -> bool {
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    // No domain ends in one of these, and what begins like this is to be taken for a website.
    let looks_like_a_site = |first: &str| ["http", "https", "www"].contains(&first);
    scheme
        .split_once('.')
        .is_some_and(|(first, _)| !looks_like_a_site(first))
        && scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(legal)
}

/// A loopback URI without its port: host, and everything from the path on.
fn loopback(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    LOOPBACK_HOSTS
        .into_iter()
        .find_map(|host| match authority.strip_prefix(host)? {
            "" => Some((host, path)),
            port => port
                .strip_prefix(':')
                .filter(|port| is_port(port))
                .map(|_| (host, path)),
        })
}

fn is_port(text: &str) -> bool {
    !text.starts_with('0')
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u16>().is_ok()
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rg_06_each_redirect_uri_of_real_clients_may_be_registered() {
        for good in [
            "https://claude.ai/api/mcp/auth_callback",
            "https://chatgpt.com/connector_platform_oauth_redirect",
            "https://vscode.dev/redirect",
            "https://example.com:8443/cb?a=1",
            "https://example.com/c%C3%A9?a=%5B",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
            "http://localhost/callback",
            "http://localhost:8787/callback",
            "http://localhost:8787/consented",
            "http://[::1]:9/cb",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "claude://oauth/callback",
            "com.example.app://callback",
            "com.example.app:/oauth2redirect/example-provider",
        ] {
            assert!(RedirectUri::parse(good).is_some(), "{good}");
        }
    }

    #[test]
    fn rg_07_dangerous_redirect_uris_are_refused() {
        for bad in [
            "",
            "/cb",
            "javascript:alert(1)",
            "JaVaScRiPt://x/%0aalert(1)",
            "java\tscript://x",
            " https://example.com/cb",
            "data:text/html,x",
            "data://x/y",
            "file:///etc/passwd",
            "vbscript://x",
            "about:blank",
            "blob:https://x/y",
            "intent://x",
            "http://example.com/cb",
            "http://localhost.evil.example/cb",
            "http://127.0.0.2/cb",
            "http://0.0.0.0/cb",
            "http://127.1/cb",
            "http://2130706433/cb",
            "http://127.0.0.1:8080/consent",
            "http://localhost/consent?x",
            "http://[::1]:1/consent/cb",
            "https.claude.ai://claude.ai/cb",
            "www.claude.ai:/cb",
            "https:evil",
            "https:/evil",
            "https:///evil",
            "https://example.com/cb#x",
            "https://example.com/cb?iss=https://other.example",
            "https://example.com/cb?a=1&c%6fde=x",
            "https://example.com/cb?state",
            "https://*.example.com/cb",
            "https://user@example.com/cb",
            "https://example.com\\@evil.example/cb",
            "https://EXAMPLE.com/cb",
            "https://example.com./cb",
            "https://example.com:443443/cb",
            "https://example.com:0/cb",
            "https://example.com:080/cb",
            "https://example.com:/cb",
            "https://exämple.com/cb",
            "https://example.com/a/../cb",
            "https://example.com/%2E%2e/cb",
            "https://example.com/%",
            "https://example.com/%zz",
            "https://example.com/cb?a=%4",
            "com.example://%x/cb",
            "https://example.com/cb[1]",
            "https://example.com/cb?a[]=1",
            "https://0x7f.1/cb",
            "urn:ietf:wg:oauth:2.0:oob",
            "myapp://callback",
            "Com.example://callback",
            "com.example:callback",
            "com.example:///callback",
            "com.example:/a/../callback",
            "com.example:/callback?code=x",
            "cursor:/oauth/callback",
            "myapp:/callback",
        ] {
            assert!(RedirectUri::parse(bad).is_none(), "{bad:?}");
        }
        assert!(RedirectUri::parse(&format!("https://example.com/{}", "a".repeat(2028))).is_some());
        assert!(RedirectUri::parse(&format!("https://example.com/{}", "a".repeat(2029))).is_none());
    }

    // N-AZ-10 to N-AZ-29, N-AZ-37, N-AZ-38
    #[test]
    fn az_02_a_redirect_uri_matches_to_the_letter() {
        let registered = RedirectUri::parse("https://claude.ai/api/mcp/auth_callback").unwrap();
        assert!(registered.matches("https://claude.ai/api/mcp/auth_callback"));
        for other in [
            "https://claude.ai/api/mcp/auth_callback/",
            "https://claude.ai/api/mcp/auth_callback?x",
            "https://claude.ai/api/mcp/auth_callback#",
            "https://claude.ai/api/mcp/Auth_callback",
            "https://claude.ai:443/api/mcp/auth_callback",
            "https://claude.ai:8443/api/mcp/auth_callback",
            "https://CLAUDE.ai/api/mcp/auth_callback",
            "https://claude.ai./api/mcp/auth_callback",
            "https://claude.ai.evil.example/api/mcp/auth_callback",
            "https://evilclaude.ai/api/mcp/auth_callback",
            "https://claude.ai/api/mcp/../mcp/auth_callback",
            "https://claude.ai/api/mcp/auth%5Fcallback",
            "http://claude.ai/api/mcp/auth_callback",
            "HTTPS://claude.ai/api/mcp/auth_callback",
            "https://api.claude.ai/api/mcp/auth_callback",
            "https://claude.ai/api/mcp/auth_callback/x",
            "https://claude.ai/api/mcp/auth_callback/../evil",
            "https://claude.ai/api/mcp/auth_callback%2f..%2fevil",
            "https://claude.ai/api/mcp/auth_callback?code=evil",
            "https://claude.ai/api/mcp/auth_callback&state=",
            "https://claude.ai@evil.example/api/mcp/auth_callback",
            "https://claude.ai\\@evil.example/api/mcp/auth_callback",
            "https://claude.ai/api/mcp/auth\t_callback",
            "https://claude.ai/api/mcp/auth_callback\n",
            " https://claude.ai/api/mcp/auth_callback",
            "https://cl\u{430}ude.ai/api/mcp/auth_callback",
            "https://xn--clude-7of.ai/api/mcp/auth_callback",
            "//claude.ai/api/mcp/auth_callback",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///api/mcp/auth_callback",
            "blob:https://claude.ai/api/mcp/auth_callback",
            "intent://claude.ai/api/mcp/auth_callback",
        ] {
            assert!(!registered.matches(other), "{other}");
        }
    }

    // N-AZ-30 to N-AZ-36
    #[test]
    fn az_03_only_the_port_of_a_loopback_uri_is_free() {
        let cases = [
            (
                "http://localhost/callback",
                "http://localhost:51234/callback",
                true,
            ),
            (
                "http://localhost:8787/callback",
                "http://localhost:9/callback",
                true,
            ),
            ("http://127.0.0.1/cb", "http://127.0.0.1:1/cb", true),
            ("http://[::1]:4/cb", "http://[::1]/cb", true),
            ("http://127.0.0.1/cb?a=1", "http://127.0.0.1:5/cb?a=1", true),
            ("http://127.0.0.1/cb", "http://localhost:5/cb", false),
            ("http://localhost/cb", "http://127.0.0.1:5/cb", false),
            ("http://localhost/cb", "https://localhost:5/cb", false),
            ("http://localhost/cb", "http://localhost:5/other", false),
            ("http://localhost/cb", "http://localhost:5/cb?x=1", false),
            ("http://localhost/cb", "http://localhost:5/cb#x", false),
            ("http://localhost/cb?a=1", "http://localhost:5/cb", false),
            ("http://localhost/cb", "http://LOCALHOST:5/cb", false),
            ("http://127.0.0.1/cb", "http://127.0.0.2:5/cb", false),
            ("http://127.0.0.1/cb", "http://0.0.0.0:5/cb", false),
            ("http://127.0.0.1/cb", "http://127.1:5/cb", false),
            ("http://127.0.0.1/cb", "http://2130706433:5/cb", false),
            ("http://127.0.0.1/cb", "http://0x7f.0.0.1:5/cb", false),
            ("http://[::1]/cb", "http://[::ffff:127.0.0.1]:5/cb", false),
            ("http://[::1]/cb", "http://[0:0:0:0:0:0:0:1]:5/cb", false),
            ("http://[::1]/cb", "http://[::1%25lo]:5/cb", false),
            ("http://localhost/cb", "http://localhost:-1/cb", false),
            ("http://localhost/cb", "http://localhost:+5/cb", false),
            ("http://localhost/cb", "http://localhost:5:6/cb", false),
            ("http://localhost/cb", "http://localhost./cb", false),
            ("http://localhost/cb", "http://localhost:0/cb", false),
            ("http://localhost/cb", "http://localhost:65536/cb", false),
            ("http://localhost/cb", "http://localhost:/cb", false),
            ("http://localhost/cb", "http://localhost:080/cb", false),
            ("http://localhost/cb", "http://u@localhost:5/cb", false),
            (
                "http://localhost/cb",
                "http://localhost:5@evil.example/cb",
                false,
            ),
            (
                "http://localhost/cb",
                "http://localhost.evil.example/cb",
                false,
            ),
            ("https://example.com/cb", "https://example.com:5/cb", false),
            ("https://localhost/cb", "https://localhost:5/cb", false),
        ];
        for (registered, presented, matches) in cases {
            let registered = RedirectUri::parse(registered).unwrap();
            assert_eq!(
                registered.matches(presented),
                matches,
                "{registered} {presented}"
            );
        }
    }

    #[test]
    fn an_app_cannot_show_a_host_of_its_choice() {
        for (uri, place) in [
            ("https://claude.ai/cb", "claude.ai"),
            ("http://localhost:1/cb", "localhost:1"),
            ("cursor://claude.ai/cb", "cursor://"),
            ("com.example.app:/claude.ai", "com.example.app:"),
        ] {
            assert_eq!(RedirectUri::parse(uri).unwrap().place(), place);
        }
    }

    #[test]
    fn s5_25_a_query_of_its_own_is_kept() {
        for (uri, expected) in [
            ("https://x.example/cb", "https://x.example/cb?code=c+%25"),
            (
                "https://x.example/cb?a=1",
                "https://x.example/cb?a=1&code=c+%25",
            ),
            ("https://x.example/cb?", "https://x.example/cb?code=c+%25"),
        ] {
            let uri = RedirectUri::parse(uri).unwrap();
            assert_eq!(uri.with_parameters(&[("code", "c %")]), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_registered_reads_the_same_to_another_parser(text in "\\PC{0,40}|https?://\\PC{0,40}") {
            if let Some(uri) = RedirectUri::parse(&text) {
                let url = Url::parse(uri.as_str()).unwrap();
                // It knows none without an authority.
                if url.has_host() {
                    let other: http::Uri = uri.as_str().parse().expect("another parser reads it");
                    proptest::prop_assert_eq!(other.host(), url.host_str());
                }
            }
        }
    }
}
