//! Which upstream a `resource` parameter means (RFC 8707 §2).

use url::Url;

/// The longest `resource` that is read, in bytes.
const LONGEST: usize = 2048;

/// The path of `resource` below one of our `names`, without a slash at its end; empty for the origin
/// itself. Spellings that clients are known to derive from the same URL are taken as equal: a trailing
/// slash, a default port, upper case in the host, a query.
pub fn path<'r, 'n>(
    resource: &'r str,
    mut names: impl Iterator<Item = &'n str>,
) -> Option<&'r str> {
    if resource.len() > LONGEST || resource.contains(['#', '\\']) {
        return None;
    }
    let url = Url::parse(resource).ok()?;
    if !url.username().is_empty() || url.password().is_some() {
        return None;
    }
    let origin = url.origin().ascii_serialization();
    if !names.any(|name| name == origin) {
        return None;
    }
    // The path is compared as written: one that the parser had to repair is not ours.
    let (_, rest) = resource.split_once("://")?;
    let rest = rest.split('?').next()?;
    let path = &rest[rest.find('/').unwrap_or(rest.len())..];
    Some(path.strip_suffix('/').unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(resource: &str) -> Option<&str> {
        path(
            resource,
            ["https://gw.example", "http://proxy:8080"].into_iter(),
        )
    }

    #[test]
    fn az_09_equivalent_spellings_mean_the_same_path() {
        for same in [
            "https://gw.example/mcp/a",
            "https://gw.example/mcp/a/",
            "https://gw.example:443/mcp/a",
            "https://GW.example/mcp/a",
            "HTTPS://gw.example/mcp/a",
            "https://gw.example/mcp/a?utm=1",
            "http://proxy:8080/mcp/a",
        ] {
            assert_eq!(path_of(same), Some("/mcp/a"), "{same}");
        }
        for origin in [
            "https://gw.example",
            "https://gw.example/",
            "https://gw.example?x=/mcp/a",
            "http://proxy:8080/",
        ] {
            assert_eq!(path_of(origin), Some(""), "{origin}");
        }
    }

    #[test]
    fn az_09_a_path_that_a_parser_would_repair_stays_as_it_is() {
        for (odd, path) in [
            ("https://gw.example/mcp/A", "/mcp/A"),
            ("https://gw.example/mcp/%61", "/mcp/%61"),
            ("https://gw.example/x/../mcp/a", "/x/../mcp/a"),
            ("https://gw.example/mcp/a//", "/mcp/a/"),
            ("https://gw.example//", "/"),
        ] {
            assert_eq!(path_of(odd), Some(path));
        }
    }

    #[test]
    fn az_09_anything_else_is_not_ours() {
        for other in [
            "",
            "/mcp/a",
            "https://gw.example\\mcp\\a",
            "https://gw.example/mcp/a#x",
            "http://gw.example/mcp/a",
            "https://proxy:8080/mcp/a",
            "http://proxy/mcp/a",
            "https://gw.example:8443/mcp/a",
            "https://gw.example.evil.example/mcp/a",
            "https://u@gw.example/mcp/a",
            "https://evil.example/mcp/a",
        ] {
            assert_eq!(path_of(other), None, "{other}");
        }
        let long = format!("https://gw.example/mcp/a?{}", "x".repeat(2048 - 25));
        assert_eq!(path_of(&long), Some("/mcp/a"));
        assert_eq!(path_of(&format!("{long}x")), None);
    }
}
