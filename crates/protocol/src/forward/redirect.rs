//! Where an upstream sends us, and whether we go there.

use http::{HeaderMap, StatusCode, Uri, header};
use url::Url;

use crate::journal::told_path;

/// Where a redirect leads that keeps method and body, if that is on the origin of `from`. The
/// credential goes nowhere else.
pub fn within_origin(status: StatusCode, headers: &HeaderMap, from: &Uri) -> Option<Uri> {
    if !matches!(
        status,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
    ) {
        return None;
    }
    let from = Url::parse(&from.to_string()).ok()?;
    let mut target = target(headers, &from)?;
    let has_user = !target.username().is_empty() || target.password().is_some();
    if target.origin() != from.origin() || has_user {
        return None;
    }
    // What the operator, the client or a credential put there belongs to the call.
    if target.query().is_none() {
        target.set_query(from.query());
    }
    Uri::try_from(target.as_str()).ok()
}

/// Where a redirect leads, without what may be secret in it, for the operator.
pub fn leads_to(headers: &HeaderMap, from: &Uri) -> Option<String> {
    let from = Url::parse(&from.to_string()).ok()?;
    let target = target(headers, &from)?;
    Some(format!(
        "{}{}",
        target.origin().ascii_serialization(),
        told_path(target.path())
    ))
}

fn target(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let mut target = from
        .join(headers.get(header::LOCATION)?.to_str().ok()?)
        .ok()?;
    target.set_fragment(None);
    Some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: &str = "https://up.example:8443/a/mcp?key=secret";

    fn to(location: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().unwrap());
        headers
    }

    /// Case 17, N-UP-06
    #[test]
    fn a_redirect_is_followed_on_the_same_origin_only() {
        let from: Uri = FROM.parse().unwrap();
        let follows = |status, location| {
            let status = StatusCode::from_u16(status).unwrap();
            within_origin(status, &to(location), &from).map(|uri| uri.to_string())
        };
        let there = |path: &str| Some(format!("https://up.example:8443{path}"));
        assert_eq!(follows(307, "/a/mcp/"), there("/a/mcp/?key=secret"));
        assert_eq!(follows(308, "mcp/?x=1#y"), there("/a/mcp/?x=1"));
        assert_eq!(
            follows(307, "https://UP.example:8443/b"),
            there("/b?key=secret")
        );
        for (status, location) in [
            (301, "/a/mcp/"),
            (302, "/a/mcp/"),
            (303, "/a/mcp/"),
            (200, "/a/mcp/"),
            (307, "http://up.example:8443/a/mcp/"),
            (307, "https://up.example/a/mcp/"),
            (307, "https://evil.example:8443/a/mcp/"),
            (307, "//evil.example/a"),
            (307, "https://me:pw@up.example:8443/"),
            (307, "javascript:alert(1)"),
            (307, ""),
        ] {
            // An empty reference is the address itself.
            let expected = location.is_empty().then(|| FROM.to_owned());
            assert_eq!(follows(status, location), expected, "{status} {location}");
        }
        assert_eq!(
            within_origin(StatusCode::PERMANENT_REDIRECT, &HeaderMap::new(), &from),
            None
        );
    }

    #[test]
    fn the_operator_sees_where_it_leads_and_no_secret() {
        let from: Uri = FROM.parse().unwrap();
        let shown = |location| leads_to(&to(location), &from).unwrap();
        assert_eq!(shown("/a/mcp/?token=x"), "https://up.example:8443/a/mcp/");
        assert_eq!(shown("http://me:pw@x.example/b"), "http://x.example/b");
        assert_eq!(
            shown("/8f14e45fceea167a5a36dedd4bea2543/mcp"),
            "https://up.example:8443/…/mcp"
        );
    }
}
