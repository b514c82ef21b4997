//! Which headers cross. Both lists name what passes; everything else stays on its side: hop-by-hop
//! headers and whatever `Connection` names (RFC 9110 §7.6.1), the client's credentials and
//! cookies, the upstream's challenges, cookies and CORS.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// The session of the era up to 2025-11-25.
pub const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The revision that a call speaks.
pub const MCP_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The method that the body asks for, from 2026-07-28 on.
pub const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// What the body asks it of: the tool's name, in a call of one.
pub const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");
/// Where a broken stream of a session is to go on.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells a buffering proxy in front of us to pass a stream on as it comes.
pub const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The proxies that a request came through (RFC 8586), so that one that comes back is known. `Via`
/// says the same, but has servers answer otherwise, such as without compression, and is not always
/// left as it is.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// What the name of every proxy like this one begins with.
const KIND: &str = "mcp-oauth-proxy-";

/// For answers to one client: no cache keeps them, no proxy compresses them.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store, no-transform");

/// For what a browser would show as a page of ours: it is kept away from all that is ours.
const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// Whether a header of the client's goes to every upstream.
pub fn passes_anyway(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::ACCEPT_LANGUAGE
            | header::CACHE_CONTROL
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
    ) || matches!(name.as_str(), "baggage" | "traceparent" | "tracestate")
        || *name == LAST_EVENT_ID
        || is_mcp(name)
}

/// Whether the proxy itself sets a header on its way to an upstream, or keeps it from there, because
/// it frames or routes the message, is for one hop only, or belongs to MCP.
pub fn is_controlled(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ACCEPT
            | header::ACCEPT_ENCODING
            | header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::EXPECT
            | header::HOST
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) || matches!(
        name.as_str(),
        "http2-settings" | "keep-alive" | "proxy-connection"
    ) || *name == CDN_LOOP
        || *name == LAST_EVENT_ID
        || is_mcp(name)
}

/// Whether a response header goes to the client.
fn is_for_client(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::ALLOW
            | header::CONTENT_ENCODING
            | header::CONTENT_LANGUAGE
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::DATE
            | header::RETRY_AFTER
            | header::VARY
    ) || *name == X_ACCEL_BUFFERING
        || is_mcp(name)
}

/// MCP's own headers, known and to come: a proxy must pass on `Mcp-Param-*` that it does not know.
fn is_mcp(name: &HeaderName) -> bool {
    name.as_str().starts_with("mcp-")
}

/// The name of a deployment in [`CDN_LOOP`].
pub fn proxy_name(deployment: &str) -> HeaderValue {
    HeaderValue::try_from(format!("{KIND}{deployment}"))
        .expect("a deployment is known by letters and digits")
}

/// Whether a request went through the proxy of that name before.
pub fn came_through(request: &HeaderMap, proxy: &HeaderValue) -> bool {
    proxies(request).any(|name| name.as_bytes() == proxy.as_bytes())
}

/// What the upstream is told of the proxies before it: this one, and those like it, any of which
/// may be the next again. Who else is on the way is not for it to know.
pub fn proxies_before_upstream(request: &HeaderMap, proxy: &HeaderValue) -> HeaderValue {
    let mut list = proxies(request)
        .filter(|name| name.starts_with(KIND))
        .collect::<Vec<_>>();
    if list.is_empty() {
        return proxy.clone();
    }
    list.extend(proxy.to_str());
    HeaderValue::try_from(list.join(", ")).unwrap_or_else(|_| proxy.clone())
}

/// The names in [`CDN_LOOP`], without what is said of them.
fn proxies(request: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = request.get_all(CDN_LOOP).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|proxy| proxy.split(';').next().unwrap_or_default().trim())
}

/// Whether content comes as it is or in chunks. Other codings, and chunks in chunks, are read in
/// more than one way (RFC 9112 §6.1).
pub fn has_plain_framing(request: &HeaderMap) -> bool {
    let mut codings = request.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| {
        coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"chunked")
            && codings.next().is_none()
    })
}

/// Leaves in a request's headers what the upstream gets, without the session, which is translated.
/// `passes` says what passes beside what passes anyway.
pub fn keep_for_upstream(request: &mut HeaderMap, passes: impl Fn(&HeaderName) -> bool) {
    keep(request, |name| passes_anyway(name) || passes(name));
}

/// Leaves in a response's headers what the client gets, without the session, which is translated,
/// and adds what every answer says.
pub fn keep_for_client(response: &mut HeaderMap) {
    keep(response, is_for_client);
    // Whatever the upstream thinks of caches: what it said to one client is for nobody else.
    response.insert(header::CACHE_CONTROL, NOT_KEPT);
    response.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if is_event_stream(response) {
        response.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    if may_be_a_page(response) {
        response.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
    }
}

/// Whether a body is of a kind that no answer of the protocol has. Browsers go by the last of
/// several types, however they are written.
fn may_be_a_page(response: &HeaderMap) -> bool {
    response.get_all(header::CONTENT_TYPE).iter().any(|value| {
        value.as_bytes().contains(&b',')
            || !(is_of_type(value, b"application/json") || is_of_type(value, b"text/event-stream"))
    })
}

/// A header that says one thing, and says two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaysTwo(pub HeaderName);

/// Makes one of what says the same twice, in two headers or in a list, as clients and proxies that
/// join two sources of headers send it. What says two things is refused: whatever is in front of us
/// and the upstream may each go by another one.
pub fn settle_repeated(request: &mut HeaderMap) -> Result<(), SaysTwo> {
    for (name, may_be_list) in [
        (MCP_PROTOCOL_VERSION, true),
        (MCP_METHOD, true),
        (MCP_SESSION_ID, true),
        (header::CONTENT_TYPE, true),
        // These may have a comma of their own.
        (MCP_NAME, false),
        (LAST_EVENT_ID, false),
    ] {
        let Some(one) = one_of(request, &name, may_be_list)? else {
            continue;
        };
        request.insert(name, one);
    }
    // To say these twice means something else than to say them once.
    let twice = [header::CONTENT_ENCODING, header::CONTENT_LENGTH]
        .into_iter()
        .find(|name| request.get_all(name).iter().nth(1).is_some());
    twice.map_or(Ok(()), |name| Err(SaysTwo(name)))
}

/// What a header says once for all, if it says it several times.
fn one_of(
    request: &HeaderMap,
    name: &HeaderName,
    may_be_list: bool,
) -> Result<Option<HeaderValue>, SaysTwo> {
    let values = request.get_all(name);
    let Some(first) = values.iter().next() else {
        return Ok(None);
    };
    let is_one = |value: &HeaderValue| !(may_be_list && value.as_bytes().contains(&b','));
    if values.iter().nth(1).is_none() && is_one(first) {
        return Ok(None);
    }
    let mut members = values.iter().flat_map(|value| {
        let separator = |byte: &u8| may_be_list && *byte == b',';
        value.as_bytes().split(separator).map(<[u8]>::trim_ascii)
    });
    let one = members.next().unwrap_or_default();
    if members.all(|member| member == one) {
        Ok(HeaderValue::from_bytes(one).ok())
    } else {
        Err(SaysTwo(name.clone()))
    }
}

/// Removes what does not pass. In place, since most of what real clients and servers send does.
fn keep(headers: &mut HeaderMap, passes: impl Fn(&HeaderName) -> bool) {
    let has_connection = headers.contains_key(header::CONNECTION);
    let stays_here = |name: &&HeaderName| {
        !passes(name)
            || **name == MCP_SESSION_ID
            || has_connection && is_named_by_connection(name, headers)
    };
    let removed: Vec<HeaderName> = headers.keys().filter(stays_here).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// Whether `Connection` declares `name` to be for this hop only (RFC 9110 §7.6.1). What says how to
/// read the body is not for it to take away.
fn is_named_by_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    *name != header::CONTENT_LENGTH
        && *name != header::CONTENT_TYPE
        && *name != header::CONTENT_ENCODING
        && headers.get_all(header::CONNECTION).iter().any(|value| {
            let mut options = value.as_bytes().split(|byte| *byte == b',');
            options.any(|option| {
                option
                    .trim_ascii()
                    .eq_ignore_ascii_case(name.as_str().as_bytes())
            })
        })
}

/// Whether a request is for a stream of messages that goes on by itself, not for an answer that
/// may come as one: a `GET`, and since 2026-07-28 a call of one method, which a header names.
pub fn asks_for_stream(method: &Method, request: &HeaderMap) -> bool {
    let names_listen = || {
        request
            .get(MCP_METHOD)
            .is_some_and(|method| method == "subscriptions/listen")
    };
    method == Method::GET || method == Method::POST && names_listen()
}

/// Whether a body is a stream of server-sent events.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| is_of_type(value, b"text/event-stream"))
}

/// Whether a content type is `expected`, whatever parameters follow.
fn is_of_type(value: &HeaderValue, expected: &[u8]) -> bool {
    let mut parts = value.as_bytes().split(|byte| *byte == b';');
    let essence = parts.next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(expected)
}

/// Whether an answer is a page for people.
pub fn is_page(response: &HeaderMap) -> bool {
    response
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| is_of_type(value, b"text/html"))
}

/// Whether a request takes an event stream for an answer.
pub fn takes_event_stream(request: &HeaderMap) -> bool {
    request.get_all(header::ACCEPT).iter().any(|value| {
        let mut ranges = value.as_bytes().split(|byte| *byte == b',');
        ranges.any(|range| {
            let essence = range.split(|byte| *byte == b';').next().unwrap_or_default();
            essence
                .trim_ascii()
                .eq_ignore_ascii_case(b"text/event-stream")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::upstream_headers::UpstreamHeaders;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn for_upstream(request: &HeaderMap) -> HeaderMap {
        for_upstream_with(request, &UpstreamHeaders::default())
    }

    fn for_upstream_with(request: &HeaderMap, upstream: &UpstreamHeaders) -> HeaderMap {
        let mut headers = request.clone();
        keep_for_upstream(&mut headers, |name| upstream.passes(name));
        headers
    }

    fn for_client(response: &HeaderMap) -> HeaderMap {
        let mut headers = response.clone();
        keep_for_client(&mut headers);
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn tm_01_mcp_headers_pass_known_or_not() {
        let request = headers(&[
            ("mcp-method", "tools/call"),
            ("mcp-name", "=?base64?4pyT?="),
            ("mcp-param-foo", "=?base64?4pyT?="),
            ("mcp-param-foo", "second"),
            ("mcp-protocol-version", "2026-07-28"),
            ("last-event-id", "7"),
        ]);
        assert_eq!(for_upstream(&request), request);
    }

    #[test]
    fn px_01_credentials_and_forwarding_headers_of_the_client_stay() {
        let request = headers(&[
            ("accept", "*/*"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("host", "gw.example"),
            ("origin", "https://gw.example"),
            ("referer", "https://gw.example"),
            ("x-api-key", "x"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x_forwarded_for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("cf-connecting-ip", "192.0.2.1"),
            ("cf-ray", "x"),
            ("cf-visitor", "x"),
            ("cf-ipcountry", "x"),
            ("mcp-session-id", "translated elsewhere"),
        ]);
        assert_eq!(names(&for_upstream(&request)), ["accept"]);
    }

    /// Case 27. The neighbour: `Connection` takes such a header away like any.
    #[test]
    fn what_the_operator_lets_pass_passes() {
        let mut upstream = UpstreamHeaders::default();
        upstream.pass("X-MCP-Toolsets", None).unwrap();
        let mut request = headers(&[
            ("x-mcp-toolsets", "repos"),
            ("x-mcp-toolsets", "issues"),
            ("x-mcp-toolset", "x"),
            ("x_mcp_toolsets", "x"),
            ("x-org-id", "7"),
            ("user-agent", "python-httpx/0.28"),
        ]);
        let got = for_upstream_with(&request, &upstream);
        assert_eq!(names(&got), ["x-mcp-toolsets"]);
        let values: Vec<_> = got.get_all("x-mcp-toolsets").iter().collect();
        assert_eq!(values, ["repos", "issues"]);

        request.insert("connection", HeaderValue::from_static("X-MCP-Toolsets"));
        assert!(for_upstream_with(&request, &upstream).is_empty());
    }

    #[test]
    fn px_04_hop_by_hop_headers_and_what_connection_names_stay() {
        let hop = [
            ("connection", "keep-alive, Mcp-Param-Foo, content-length"),
            ("connection", "cache-control"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-connection", "close"),
            ("mcp-param-foo", "x"),
            ("cache-control", "no-cache"),
            ("content-length", "5"),
        ];
        assert_eq!(names(&for_upstream(&headers(&hop))), ["content-length"]);
        assert_eq!(
            names(&for_client(&headers(&hop))),
            ["cache-control", "content-length", "x-content-type-options"]
        );
    }

    /// N-UP-18
    #[test]
    fn a_proxy_knows_the_requests_that_it_has_sent() {
        let (this, other) = (proxy_name("this"), proxy_name("other"));
        let mut request = headers(&[
            ("cdn-loop", "cloudflare; loops=1; subreqs=1"),
            (
                "cdn-loop",
                "mcp-oauth-proxy-thi, x-mcp-oauth-proxy-this, fastly",
            ),
        ]);
        for (proxy, expected) in [
            (&other, "mcp-oauth-proxy-thi, mcp-oauth-proxy-other"),
            (
                &this,
                "mcp-oauth-proxy-thi, mcp-oauth-proxy-other, mcp-oauth-proxy-this",
            ),
        ] {
            assert!(!came_through(&request, proxy));
            let value = proxies_before_upstream(&request, proxy);
            assert_eq!(value, expected);
            request.insert(CDN_LOOP, value);
        }
        let and_others = "a;b=c,mcp-oauth-proxy-this ; x=y\t, mcp-oauth-proxy-other";
        request.insert(CDN_LOOP, HeaderValue::from_static(and_others));
        assert!(came_through(&request, &this) && came_through(&request, &other));

        assert!(!came_through(&headers(&[("accept", "*/*")]), &this));
        assert_eq!(proxies_before_upstream(&headers(&[]), &this), this);
    }

    /// Case 23, N-HD-22
    #[test]
    fn what_says_the_same_twice_says_it_once() {
        for (name, values, expected) in [
            (
                "mcp-protocol-version",
                &["2025-11-25"][..],
                Ok("2025-11-25"),
            ),
            (
                "mcp-protocol-version",
                &["2025-11-25, 2025-11-25"],
                Ok("2025-11-25"),
            ),
            (
                "mcp-protocol-version",
                &["2025-11-25,2025-11-25", "2025-11-25"],
                Ok("2025-11-25"),
            ),
            ("mcp-protocol-version", &["2025-11-25, 2026-07-28"], Err(())),
            ("mcp-protocol-version", &["2025-11-25,"], Err(())),
            (
                "mcp-method",
                &["tools/list", "tools/list"],
                Ok("tools/list"),
            ),
            ("mcp-method", &["tools/list", "tools/call"], Err(())),
            ("mcp-session-id", &["a, a"], Ok("a")),
            ("mcp-session-id", &["a, b"], Err(())),
            (
                "content-type",
                &["application/json, application/json"],
                Ok("application/json"),
            ),
            ("content-type", &["application/json", "text/html"], Err(())),
            ("mcp-name", &["a, a"], Ok("a, a")),
            ("mcp-name", &["a", "a"], Ok("a")),
            ("mcp-name", &["a", "b"], Err(())),
            ("last-event-id", &["7", "7"], Ok("7")),
            ("last-event-id", &["7", "8"], Err(())),
            ("content-length", &["5", "5"], Err(())),
            ("content-encoding", &["gzip", "gzip"], Err(())),
        ] {
            let pairs: Vec<_> = values.iter().map(|value| (name, *value)).collect();
            let mut request = headers(&pairs);
            let settled = settle_repeated(&mut request);
            assert_eq!(settled.is_ok(), expected.is_ok(), "{name} {values:?}");
            match expected {
                Ok(one) => assert_eq!(request.get_all(name).iter().collect::<Vec<_>>(), [one]),
                Err(()) => assert_eq!(settled.unwrap_err().0, name),
            }
        }
    }

    /// N-HD-05
    #[test]
    fn content_is_framed_in_one_way() {
        let framing = |codings: &[&'static str]| {
            let pairs: Vec<_> = codings
                .iter()
                .map(|it| ("transfer-encoding", *it))
                .collect();
            has_plain_framing(&headers(&pairs))
        };
        for plain in [&[][..], &["chunked"], &["Chunked"], &["chunked\t"]] {
            assert!(framing(plain), "{plain:?}");
        }
        for odd in [
            &["chunked", "chunked"][..],
            &["gzip", "chunked"],
            &["", "chunked"],
            &["chunked", ""],
            &["chunked, chunked"],
            &["gzip, chunked"],
            &[",chunked"],
            &["chunked;x"],
            &[""],
        ] {
            assert!(!framing(odd), "{odd:?}");
        }
    }

    #[test]
    fn px_07_challenges_cookies_and_cors_of_the_upstream_stay() {
        let response = headers(&[
            ("content-type", "application/json"),
            ("www-authenticate", "Bearer"),
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("location", "https://elsewhere.example"),
            ("server", "x"),
            ("clear-site-data", "*"),
            ("strict-transport-security", "max-age=1"),
            ("refresh", "0"),
            ("link", "<x>"),
            ("alt-svc", "x"),
            ("service-worker-allowed", "/"),
            ("x-powered-by", "x"),
        ]);
        assert_eq!(
            names(&for_client(&response)),
            ["cache-control", "content-type", "x-content-type-options"]
        );
    }

    #[test]
    fn tm_13_every_event_stream_asks_not_to_be_buffered() {
        for kind in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
            let response = for_client(&headers(&[("content-type", kind)]));
            assert_eq!(response[X_ACCEL_BUFFERING], "no");
        }
        let json = for_client(&headers(&[("content-type", "application/json")]));
        assert!(!json.contains_key(X_ACCEL_BUFFERING));
    }

    /// N-UP-04
    #[test]
    fn what_a_browser_could_show_as_a_page_is_kept_in_a_sandbox() {
        let policy = |kinds: &[&'static str]| {
            let pairs: Vec<_> = kinds.iter().map(|kind| ("content-type", *kind)).collect();
            let response = for_client(&headers(&pairs));
            response.get(header::CONTENT_SECURITY_POLICY).cloned()
        };
        for kinds in [
            &["text/html"][..],
            &["TEXT/HTML; charset=utf-8"],
            &["image/svg+xml"],
            &["application/xhtml+xml"],
            &["application/jsonp"],
            &["application/json, text/html"],
            &["application/json; charset=utf-8, text/html"],
            &["application/json", "text/html"],
            &[""],
        ] {
            assert_eq!(policy(kinds), Some(SANDBOX), "{kinds:?}");
        }
        for kinds in [
            &["application/json"][..],
            &["Application/JSON; charset=utf-8"],
            &["text/event-stream"],
            &[],
        ] {
            assert_eq!(policy(kinds), None, "{kinds:?}");
        }
    }
}
