//! What an answer of an upstream is about, beyond its status: servers and what stands before them
//! use statuses that would mislead a client.

use http::{HeaderMap, StatusCode, header};

use super::{
    era::DISCOVER,
    message::{Message, RpcError},
    revision::Era,
};

/// JSON-RPC 2.0 and MCP 2026-07-28, "Error codes".
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
pub const INTERNAL_ERROR: i64 = -32603;
/// The errors of the newer era that its servers send with status 400.
const MODERN_REFUSALS: std::ops::RangeInclusive<i64> = -32022..=-32020;

/// The status with which the JSON-RPC answer to a request reaches its client, in place of one that
/// would keep the client from reading it. In the older era such answers come with 200; in the newer
/// one the status follows from the error, and a client that asks what the server is falls back to
/// the older era at a 4xx only.
pub fn status(era: Era, asked: Option<&str>, error: Option<&RpcError>) -> StatusCode {
    let Some(error) = error.filter(|_| era == Era::Modern) else {
        return StatusCode::OK;
    };
    match error.code {
        METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        INVALID_PARAMS => StatusCode::BAD_REQUEST,
        code if MODERN_REFUSALS.contains(&code) => StatusCode::BAD_REQUEST,
        _ if asked == Some(DISCOVER) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// Whether a refusal says that there is no such session, or none at all, so that the client has to
/// begin a new one. Servers say so in many ways; the standard one is a 404.
pub fn is_about_session(status: StatusCode, text: &[u8], id: Option<&str>) -> bool {
    let may_be = matches!(status.as_u16(), 400 | 401 | 404 | 410 | 500..=599);
    if !may_be {
        return false;
    }
    let message = Message::read(text).ok();
    // What answers the request itself is about the request.
    let answers = message
        .as_ref()
        .filter(|it| id.is_some_and(|id| it.answers(id)));
    let is_about_request = answers.is_some_and(|answer| {
        answer.error.as_ref().is_none_or(|error| {
            matches!(
                error.code,
                METHOD_NOT_FOUND | INVALID_PARAMS | INTERNAL_ERROR
            )
        })
    });
    if is_about_request {
        return false;
    }
    let text = match message.and_then(|message| message.error) {
        Some(error) if !error.message.is_empty() => error.message,
        _ => String::from_utf8_lossy(text).into_owned(),
    };
    let text = text.to_ascii_lowercase();
    if status.is_server_error() {
        return text.contains("session") && IS_GONE.iter().any(|word| text.contains(word));
    }
    text.contains("session") || text.contains("not initialized") || text.contains("uninitialized")
}

/// Whether a refusal says that the version header names a revision which the server does not speak.
pub fn is_about_version(status: StatusCode, text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    status == StatusCode::BAD_REQUEST && text.contains("protocol version")
}

/// What is said of a session that is gone. A server that fails may speak of sessions otherwise.
const IS_GONE: [&str; 9] = [
    "not found",
    "no valid",
    "invalid",
    "unknown",
    "expired",
    "missing",
    "terminated",
    "exist",
    "no such",
];

/// Whether a refusal is about the name in `Host`: servers on a private network guard themselves
/// against names that lead to them from elsewhere (DNS rebinding).
pub fn is_about_host(status: StatusCode, text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let speaks =
        text.contains("host") && (text.contains("invalid") || text.contains("not allowed"));
    status == StatusCode::MISDIRECTED_REQUEST || matches!(status.as_u16(), 400 | 403) && speaks
}

/// Whether a refusal says that the port speaks TLS, as servers that do tell those who call without.
pub fn wants_tls(status: StatusCode, text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let says_so = [
        // nginx, Go, Apache
        "plain http request was sent to https port",
        "http request to an https server",
        "plain http to an ssl-enabled server port",
    ];
    status == StatusCode::BAD_REQUEST && says_so.iter().any(|words| text.contains(words))
}

/// Whether a challenge says that the credential is good, but not for this (RFC 6750 §3.1).
pub fn wants_more_scope(headers: &HeaderMap) -> bool {
    challenges(headers).any(|challenge| challenge.contains("insufficient_scope"))
}

/// Whether a challenge leads to a sign-in with the upstream's own OAuth (RFC 9728 §5.1).
pub fn signs_people_in(headers: &HeaderMap) -> bool {
    challenges(headers).any(|challenge| challenge.contains("resource_metadata"))
}

fn challenges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
    challenges.filter_map(|challenge| challenge.to_str().ok())
}

/// Whose firewall or login an HTML page is likely to be, by the headers that it came with.
pub fn front(headers: &HeaderMap) -> Option<&'static str> {
    const BY_HEADER: [(&str, &str); 10] = [
        ("cf-mitigated", "Cloudflare"),
        ("cf-ray", "Cloudflare"),
        ("x-amzn-waf-action", "AWS WAF"),
        ("x-amz-cf-id", "Amazon CloudFront"),
        ("akamai-grn", "Akamai"),
        ("x-azure-ref", "Azure Front Door"),
        ("x-datadome", "DataDome"),
        ("x-iinfo", "Imperva"),
        ("x-sucuri-id", "Sucuri"),
        ("x-vercel-id", "Vercel"),
    ];
    const BY_SERVER: [(&str, &str); 5] = [
        ("cloudflare", "Cloudflare"),
        ("akamaighost", "Akamai"),
        ("awselb", "an AWS load balancer"),
        ("cloudfront", "Amazon CloudFront"),
        ("big-ip", "F5 BIG-IP"),
    ];
    let by_header = BY_HEADER
        .iter()
        .find(|(name, _)| headers.contains_key(*name));
    let server = headers.get(header::SERVER).and_then(|it| it.to_str().ok());
    let server = server.unwrap_or_default().to_ascii_lowercase();
    let by_server = || BY_SERVER.iter().find(|(part, _)| server.starts_with(part));
    by_header.or_else(by_server).map(|(_, front)| *front)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Option<&str> = Some("7");

    fn error(id: &str, code: i64, message: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
    }

    /// Case 22, and how other servers say the same.
    #[test]
    fn a_lost_session_is_recognised_in_all_the_ways_that_servers_say_it() {
        for (status, text) in [
            (
                400,
                error("null", -32000, "Bad Request: No valid session ID provided"),
            ),
            (
                400,
                error("null", -32000, "Bad Request: Server not initialized"),
            ),
            (
                400,
                error(
                    "null",
                    -32000,
                    "Bad Request: Mcp-Session-Id header is required",
                ),
            ),
            (
                400,
                error(
                    "\"server-error\"",
                    -32600,
                    "Bad Request: Missing session ID",
                ),
            ),
            (404, error("7", -32001, "Session not found")),
            (400, "Invalid session ID".to_owned()),
            (401, "Unauthorized: Session not found".to_owned()),
            (410, r#"{"detail":"the session has expired"}"#.to_owned()),
            (500, error("null", -32603, "Session abc not found")),
            (503, "unknown session".to_owned()),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(is_about_session(status, text.as_bytes(), ID), "{text}");
        }
        for (status, text) in [
            (400, error("null", -32700, "Parse error")),
            (400, error("7", -32602, "session must be a number")),
            (500, error("7", -32603, "the database session is invalid")),
            (500, error("null", -32603, "out of memory in session store")),
            (403, error("null", -32000, "no session for you")),
            (200, error("null", -32000, "Session not found")),
            (404, error("7", -32601, "method session/x not found")),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!is_about_session(status, text.as_bytes(), ID), "{text}");
        }
    }

    /// Case 18
    #[test]
    fn a_refused_host_is_recognised() {
        for (status, text, is_host) in [
            (421, "", true),
            (421, "Invalid Host header", true),
            (403, "Invalid Host: mcp:8000", true),
            (403, "Forbidden: Host header is not allowed", true),
            (400, "Invalid Host", true),
            (403, "forbidden", false),
            (400, "invalid request", false),
            (500, "Invalid Host", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_about_host(status, text.as_bytes()), is_host, "{text}");
        }
    }

    /// Cases 19, 20, 24
    #[test]
    fn the_status_of_an_answer_is_one_at_which_its_client_reads_it() {
        let of = |era, asked, code| {
            let error = RpcError {
                code,
                message: String::new(),
            };
            status(era, Some(asked), Some(&error)).as_u16()
        };
        assert_eq!(of(Era::Legacy, "tools/call", -32601), 200);
        assert_eq!(of(Era::Legacy, "resources/read", -32603), 200);
        assert_eq!(of(Era::Modern, "tools/call", -32603), 200);
        assert_eq!(of(Era::Modern, "x", -32601), 404);
        assert_eq!(of(Era::Modern, "x", -32602), 400);
        assert_eq!(of(Era::Modern, "x", -32020), 400);
        assert_eq!(of(Era::Modern, DISCOVER, -32601), 404);
        assert_eq!(of(Era::Modern, DISCOVER, -32603), 400);
        assert_eq!(status(Era::Modern, Some("x"), None), 200);
    }

    #[test]
    fn what_stands_before_a_server_is_known_by_its_headers() {
        let of = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            front(&headers)
        };
        assert_eq!(of("cf-ray", "1"), Some("Cloudflare"));
        assert_eq!(of("server", "Cloudflare"), Some("Cloudflare"));
        assert_eq!(of("server", "AkamaiGHost"), Some("Akamai"));
        assert_eq!(of("server", "nginx"), None);
    }
}
