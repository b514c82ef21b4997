//! Headers of the requests to one upstream, as its operator wants them: those that are fixed,
//! beside the credential, and those of the client that pass beside the usual ones.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority};

use super::{
    credential::{NotACredential, sensitive},
    headers::{is_controlled, passes_anyway},
};

/// How this program names itself to upstreams.
const OWN_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("mcp-oauth-proxy/", env!("CARGO_PKG_VERSION")));

/// What is fixed, and what passes. Like the credential, it is set after the client's own headers
/// were filtered, so that nothing of the client's can stand in its place.
///
/// `Debug` shows no value.
#[derive(Clone, Default)]
pub struct UpstreamHeaders {
    fixed: Vec<(HeaderName, HeaderValue)>,
    passed: Vec<HeaderName>,
}

/// Why a header of the client's cannot pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeverPassed {
    #[error("is not a header name")]
    HeaderName,
    /// `*` may stand in a name, and nobody means that.
    #[error("must be the name of one header, not a pattern")]
    Pattern,
    #[error("names a header that the proxy itself controls")]
    Controlled,
    #[error("names a header by which a request says who sent it, and that any client can forge")]
    Forgeable,
    #[error("names a header that is for the proxy alone")]
    ForTheProxy,
    #[error("names a header that is set to something else for this MCP server")]
    Fixed,
}

impl UpstreamHeaders {
    /// Fixes a header, which must not be fixed yet.
    pub fn fix(&mut self, name: &str, value: &str) -> Result<(), NotACredential> {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| NotACredential::HeaderName)?;
        if is_controlled(&name) || name == header::USER_AGENT {
            return Err(NotACredential::ReservedHeader);
        }
        if self.fixes(&name) {
            return Err(NotACredential::Repeated);
        }
        self.push(name, value)
    }

    /// Fixes `Host`, by which some servers tell whether they are meant. TLS goes by the address as
    /// before.
    pub fn fix_host(&mut self, host: &str) -> Result<(), NotACredential> {
        let is_host = |it: &Authority| !it.as_str().contains('@') && !it.host().is_empty();
        match host.parse::<Authority>().ok().filter(is_host) {
            Some(_) => self.push(header::HOST, host),
            None => Err(NotACredential::Host),
        }
    }

    /// Fixes `User-Agent`, which is this program's own otherwise.
    pub fn fix_user_agent(&mut self, agent: &str) -> Result<(), NotACredential> {
        self.push(header::USER_AGENT, agent)
    }

    fn push(&mut self, name: HeaderName, value: &str) -> Result<(), NotACredential> {
        if value.trim().is_empty() {
            return Err(NotACredential::Empty);
        }
        self.fixed.push((name, sensitive(value)?));
        Ok(())
    }

    /// Lets a header of the client's pass. What is fixed must be known before, and `credential` is
    /// the header that the credential goes by.
    pub fn pass(&mut self, name: &str, credential: Option<&HeaderName>) -> Result<(), NeverPassed> {
        if name.contains('*') {
            return Err(NeverPassed::Pattern);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| NeverPassed::HeaderName)?;
        let folded = folded(&name);
        if is_for_the_proxy(&folded) {
            return Err(NeverPassed::ForTheProxy);
        }
        if claims_a_sender(&folded) {
            return Err(NeverPassed::Forgeable);
        }
        // Those that pass anyway may be named.
        let unfolded = HeaderName::try_from(&folded).map_err(|_| NeverPassed::HeaderName)?;
        if !passes_anyway(&name) && is_controlled(&unfolded) {
            return Err(NeverPassed::Controlled);
        }
        let mut fixed = self.fixed.iter().map(|(name, _)| name).chain(credential);
        if fixed.any(|fixed| self::folded(fixed) == folded) {
            return Err(NeverPassed::Fixed);
        }
        self.passed.push(name);
        Ok(())
    }

    /// The name that the upstream is called by in place of its address, if one is fixed.
    pub fn host(&self) -> Option<&HeaderValue> {
        let mut fixed = self.fixed.iter();
        fixed.find_map(|(name, value)| (*name == header::HOST).then_some(value))
    }

    /// Whether a header of the client's passes to this upstream, though not to every one.
    pub fn passes(&self, name: &HeaderName) -> bool {
        self.passed.contains(name)
    }

    /// Whether a header is fixed.
    pub fn fixes(&self, name: &HeaderName) -> bool {
        self.fixed.iter().any(|(fixed, _)| fixed == name)
    }

    /// Puts what is fixed on a request that already has its filtered headers. Firewalls turn
    /// requests without a `User-Agent` away, so there always is one.
    pub fn set_on(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.fixed {
            headers.insert(name.clone(), value.clone());
        }
        let agent = headers.get(header::USER_AGENT);
        if agent.is_none_or(HeaderValue::is_empty) {
            headers.insert(header::USER_AGENT, OWN_USER_AGENT);
        }
    }
}

impl fmt::Debug for UpstreamHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed: Vec<&HeaderName> = self.fixed.iter().map(|(name, _)| name).collect();
        f.debug_struct("UpstreamHeaders")
            .field("fixed", &fixed)
            .field("passed", &self.passed)
            .finish()
    }
}

/// A name as those servers know it that read `x_api_key` and `X-API-Key` as one.
fn folded(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

/// Whether a header carries the client's access to this proxy, or what a browser says of itself to
/// it.
fn is_for_the_proxy(name: &str) -> bool {
    const NAMES: [&str; 4] = ["authorization", "cookie", "cookie2", "origin"];
    const FAMILIES: [&str; 3] = ["proxy-", "sec-", "access-control-"];
    NAMES.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family))
}

/// Whether servers take a header for the word of a trusted proxy about whose request it is, how it
/// came, or what it asks for.
fn claims_a_sender(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "client-ip",
        "fastly-client-ip",
        "forwarded",
        "remote-user",
        "true-client-ip",
        "via",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-host",
    ];
    const FAMILIES: [&str; 11] = [
        "cf-",
        "x-amzn-oidc-",
        "x-auth-request-",
        "x-authenticated-",
        "x-forwarded",
        "x-http-method",
        "x-method-override",
        "x-original-",
        "x-real-ip",
        "x-remote-",
        "x-rewrite-",
    ];
    NAMES.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(headers: &HeaderMap) -> Vec<(&str, &str)> {
        let mut all: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        all.sort_unstable();
        all
    }

    /// Case 26: a tenant and a key.
    #[test]
    fn fixed_headers_replace_what_is_there() {
        let mut fixed = UpstreamHeaders::default();
        fixed.fix("X-Tenant", "7").unwrap();
        fixed.fix("X-API-Key", "k-4711").unwrap();
        fixed.fix_host("localhost:8000").unwrap();
        fixed.fix_user_agent("curl/8").unwrap();
        let mut headers = HeaderMap::new();
        for name in ["x-tenant", "x-tenant", "user-agent", "host", "accept"] {
            headers.append(name, HeaderValue::from_static("the client's"));
        }

        fixed.set_on(&mut headers);

        assert_eq!(
            all(&headers),
            [
                ("accept", "the client's"),
                ("host", "localhost:8000"),
                ("user-agent", "curl/8"),
                ("x-api-key", "k-4711"),
                ("x-tenant", "7"),
            ]
        );
        assert!(headers["x-api-key"].is_sensitive());
        assert!(!format!("{fixed:?}").contains("4711"));
    }

    #[test]
    fn there_is_always_a_user_agent() {
        let mut empty = HeaderMap::new();
        empty.insert(header::USER_AGENT, HeaderValue::from_static(""));
        for mut headers in [HeaderMap::new(), empty] {
            UpstreamHeaders::default().set_on(&mut headers);
            let agent = headers[header::USER_AGENT].to_str().unwrap();
            assert!(agent.starts_with("mcp-oauth-proxy/"), "{agent}");
        }
    }

    #[test]
    fn what_cannot_be_fixed_is_refused() {
        let mut fixed = UpstreamHeaders::default();
        for name in [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Proxy-Authorization",
            "Expect",
            "Accept",
            "Accept-Encoding",
            "Mcp-Session-Id",
            "Mcp-Param-X",
            "Last-Event-ID",
            "CDN-Loop",
            "User-Agent",
        ] {
            let refused = fixed.fix(name, "x");
            assert_eq!(refused, Err(NotACredential::ReservedHeader), "{name}");
        }
        assert_eq!(fixed.fix("a b", "x"), Err(NotACredential::HeaderName));
        assert_eq!(fixed.fix("X-A", " "), Err(NotACredential::Empty));
        assert_eq!(fixed.fix("X-A", "a\nb"), Err(NotACredential::HeaderValue));
        // What only the operator can send is theirs to send.
        for name in [
            "X-A",
            "Authorization",
            "Cookie",
            "Origin",
            "X-Forwarded-Proto",
        ] {
            assert_eq!(fixed.fix(name, "x"), Ok(()), "{name}");
        }
        assert_eq!(fixed.fix("x-a", "y"), Err(NotACredential::Repeated));
    }

    /// Case 18: the name by which the server knows itself.
    #[test]
    fn a_host_is_a_name_and_perhaps_a_port() {
        for host in ["localhost", "localhost:8000", "mcp.example", "[::1]:80"] {
            assert_eq!(UpstreamHeaders::default().fix_host(host), Ok(()), "{host}");
        }
        for host in [
            "",
            "https://localhost",
            "localhost/mcp",
            "me@localhost",
            "a b",
            ":80",
        ] {
            let refused = UpstreamHeaders::default().fix_host(host);
            assert_eq!(refused, Err(NotACredential::Host), "{host}");
        }
    }

    /// Case 27: a header that the client sets, and those of its kind that never pass.
    #[test]
    fn what_passes_is_named_and_nobodys_elses() {
        let mut headers = UpstreamHeaders::default();
        headers.fix("X-Tenant", "7").unwrap();
        let key = HeaderName::from_static("x-api-key");
        for name in [
            "X-MCP-Toolsets",
            "x-org-id",
            "User-Agent",
            "Accept-Language",
        ] {
            assert_eq!(headers.pass(name, Some(&key)), Ok(()), "{name}");
        }
        assert!(headers.passes(&HeaderName::from_static("x-mcp-toolsets")));
        assert!(!headers.passes(&HeaderName::from_static("x-mcp")));
        for (name, why) in [
            ("X-*", NeverPassed::Pattern),
            ("*", NeverPassed::Pattern),
            ("X Y", NeverPassed::HeaderName),
            ("", NeverPassed::HeaderName),
            ("X-Tenant", NeverPassed::Fixed),
            ("x_tenant", NeverPassed::Fixed),
            ("X-API-Key", NeverPassed::Fixed),
            ("X_API_Key", NeverPassed::Fixed),
            ("Host", NeverPassed::Controlled),
            ("Connection", NeverPassed::Controlled),
            ("Content_Length", NeverPassed::Controlled),
            ("Mcp_Session_Id", NeverPassed::Controlled),
            ("CDN-Loop", NeverPassed::Controlled),
            ("Authorization", NeverPassed::ForTheProxy),
            ("Cookie", NeverPassed::ForTheProxy),
            ("Origin", NeverPassed::ForTheProxy),
            ("Proxy-Authorization", NeverPassed::ForTheProxy),
            ("Sec-Fetch-Site", NeverPassed::ForTheProxy),
            ("Forwarded", NeverPassed::Forgeable),
            ("X-Forwarded-For", NeverPassed::Forgeable),
            ("X_Forwarded_For", NeverPassed::Forgeable),
            ("X-Real-IP", NeverPassed::Forgeable),
            ("CF-Connecting-IP", NeverPassed::Forgeable),
            ("X-Remote-User", NeverPassed::Forgeable),
            ("X-HTTP-Method-Override", NeverPassed::Forgeable),
        ] {
            assert_eq!(headers.pass(name, Some(&key)), Err(why), "{name}");
        }
        assert_eq!(headers.pass("X-API-Key", None), Ok(()));
    }
}
