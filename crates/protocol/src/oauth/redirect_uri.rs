//! Where an authorization answer may go: what may be registered, and what matches it.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::app_scheme::{AppScheme, NoAppScheme};

/// The longest redirect URI, in bytes.
pub const LONGEST: usize = 2048;

/// The hosts that mean "this computer" in a redirect URI (RFC 8252 §7.3, §8.3).
const LOOPBACK_HOSTS: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// A redirect URI that was judged fit to be registered, exactly as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedirectUri(String);

/// Why a URI may not be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is not written in the one plain way, so that two readers could see two places in it.
    Spelling,
    /// It is `http`, and not of this computer, or of our own consent page.
    PlainHttp,
    /// A browser or operating system acts on its scheme.
    OfTheSystem,
    /// Its scheme may be an app's, but of none that is known here or that the operator let in.
    UnknownApp(AppScheme),
}

impl Unfit {
    /// The reason and the remedy, in the characters that an error description may have.
    pub fn reason(&self) -> String {
        match self {
            Self::Spelling => {
                "it must be https, http on 127.0.0.1, [::1] or localhost, or a link of an \
                               app, at most 2048 characters, without fragment, user name, wildcard \
                               or dot segments"
                    .to_owned()
            }
            Self::PlainHttp => {
                "http is only for 127.0.0.1, [::1] and localhost, use https".to_owned()
            }
            Self::OfTheSystem => {
                "browsers or operating systems act on this scheme themselves, so no app can have it"
                    .to_owned()
            }
            Self::UnknownApp(scheme) => format!(
                "{scheme} is not the scheme of an app that is known here; the operator can let it \
                 in, with app_schemes = ['{scheme}'] under [clients]"
            ),
        }
    }
}

impl RedirectUri {
    /// Reads a URI that a client wants to register, of a known app if of any.
    pub fn parse(text: &str) -> Option<Self> {
        Self::judge(text, &[]).ok()
    }

    /// Reads a URI that a client wants to register: one that leads to an `https` site, this
    /// computer, or an app by a scheme that is known, made from a domain name, or `let_in` by the
    /// operator (RFC 9700 §2.1, RFC 8252 §7).
    pub fn judge(text: &str, let_in: &[AppScheme]) -> Result<Self, Unfit> {
        if text.len() > LONGEST || !text.bytes().all(is_plain) {
            return Err(Unfit::Spelling);
        }
        // Parsing repairs what is written oddly; what is compared later is the text, so only text
        // that needs no repair is let in.
        let (scheme, rest) = text.split_once(':').ok_or(Unfit::Spelling)?;
        let app = match scheme {
            "https" | "http" => None,
            _ => Some(AppScheme::parse(scheme).map_err(|no| match no {
                NoAppScheme::Spelling => Unfit::Spelling,
                NoAppScheme::OfTheSystem => Unfit::OfTheSystem,
            })?),
        };
        let (authority, path) = split_authority(rest);
        let is_owned = app
            .as_ref()
            .is_none_or(|app| app.is_reversed_domain() || let_in.contains(app));
        let leads_somewhere = if let Some(authority) = authority {
            !authority.is_empty() && !authority.contains('@')
        } else {
            // Apps that are known by a scheme of their own write it with two slashes.
            let may_have_one_slash = |app: &AppScheme| is_owned || !app.is_known();
            path.starts_with('/') && app.as_ref().is_some_and(may_have_one_slash)
        };
        let is_plain = leads_somewhere
            && !has_dot_segment(path)
            && !path.contains(['[', ']'])
            && has_whole_escapes(rest)
            && !names_an_answer(path);
        let url = Url::parse(text).ok().filter(|_| is_plain);
        let url = url.ok_or(Unfit::Spelling)?;
        match app {
            None if scheme == "https" => {
                let fits = authority.is_some_and(|authority| is_canonical_host(&url, authority));
                fits.then_some(()).ok_or(Unfit::Spelling)?;
            }
            None => {
                let fits = loopback(text).is_some() && !is_where_our_cookies_go(path);
                fits.then_some(()).ok_or(Unfit::PlainHttp)?;
            }
            Some(app) if is_owned || app.is_known() => {}
            Some(app) => return Err(Unfit::UnknownApp(app)),
        }
        Ok(Self(text.to_owned()))
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

    /// Whether the answer goes to an app, by a link that the browser hands to the system.
    pub fn is_app_link(&self) -> bool {
        !["https:", "http:"]
            .iter()
            .any(|scheme| self.0.starts_with(scheme))
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
            "x-apple.systempreferences://com.apple.preference",
            "microsoft.windows.camera:/x",
        ] {
            assert!(RedirectUri::parse(bad).is_none(), "{bad:?}");
        }
        assert!(RedirectUri::parse(&format!("https://example.com/{}", "a".repeat(2028))).is_some());
        assert!(RedirectUri::parse(&format!("https://example.com/{}", "a".repeat(2029))).is_none());
    }

    /// Case 03: the links that apps are known to register, and one of an app that the operator let in.
    #[test]
    fn links_of_known_apps_and_of_those_that_the_operator_let_in_fit() {
        for known in [
            "raycast://oauth?package_name=mcp_server_dust_(dev)",
            "obsidian://mcp/callback",
            "obsidian://gemini-helper-oauth",
            "zed://oauth/callback",
            "warp://mcp/oauth2callback",
        ] {
            assert!(RedirectUri::parse(known).is_some(), "{known}");
        }
        let myapp = AppScheme::parse("myapp").unwrap();
        for link in ["myapp://callback", "myapp://x/cb?a=1", "myapp:/callback"] {
            assert_eq!(
                RedirectUri::judge(link, &[]),
                Err(Unfit::UnknownApp(myapp.clone()))
            );
            assert!(RedirectUri::judge(link, std::slice::from_ref(&myapp)).is_ok());
        }
        let let_in = [myapp];
        for (bad, why) in [
            ("myapp:callback", Unfit::Spelling),
            ("myapp:///callback", Unfit::Spelling),
            ("myapp://u@x/cb", Unfit::Spelling),
            ("myapp://x/../cb", Unfit::Spelling),
            ("MyApp://callback", Unfit::Spelling),
            ("javascript:alert(1)", Unfit::OfTheSystem),
            ("JaVaScRiPt://x/%0aalert(1)", Unfit::OfTheSystem),
            ("ms-msdt:/id", Unfit::OfTheSystem),
            ("search-ms://x", Unfit::OfTheSystem),
            ("http://example.com/cb", Unfit::PlainHttp),
        ] {
            assert_eq!(RedirectUri::judge(bad, &let_in), Err(why), "{bad}");
        }
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
