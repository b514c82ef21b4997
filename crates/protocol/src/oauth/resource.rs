//! Which upstream a `resource` parameter means (RFC 8707 §2).

use url::Url;

use super::{error::OAuthError, identifiers::Issuer};

/// The longest `resource` that is read, in bytes.
const LONGEST: usize = 2048;

/// The path, among `paths`, that `resource` means. Spellings that clients are known to derive
/// from the same URL are taken as equal: a trailing slash, a default port, upper case in the host,
/// a query. What is stored and checked later is the canonical one.
pub fn resolve<'a>(
    resource: &str,
    issuer: &Issuer,
    paths: impl IntoIterator<Item = &'a str>,
) -> Result<&'a str, OAuthError> {
    let unknown = || OAuthError::invalid_target("resource names nothing that this server protects");
    if resource.len() > LONGEST || resource.contains(['#', '\\']) {
        return Err(unknown());
    }
    let url = Url::parse(resource).map_err(|_| unknown())?;
    if !url.username().is_empty()
        || url.password().is_some()
        || url.origin().ascii_serialization() != issuer.as_str()
    {
        return Err(unknown());
    }
    // The path is compared as written: one that the parser had to repair is not ours.
    let (_, rest) = resource.split_once("://").ok_or_else(unknown)?;
    let rest = rest.split('?').next().unwrap_or_default();
    let path = &rest[rest.find('/').unwrap_or(rest.len())..];
    let path = path.strip_suffix('/').unwrap_or(path);
    paths
        .into_iter()
        .find(|known| *known == path)
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(resource: &str) -> Option<&'static str> {
        let issuer = Issuer::parse("https://gw.example").unwrap();
        resolve(resource, &issuer, ["/mcp/a", "/mcp/ab"]).ok()
    }

    #[test]
    fn az_09_equivalent_spellings_mean_the_same_upstream() {
        for same in [
            "https://gw.example/mcp/a",
            "https://gw.example/mcp/a/",
            "https://gw.example:443/mcp/a",
            "https://GW.example/mcp/a",
            "HTTPS://gw.example/mcp/a",
            "https://gw.example/mcp/a?utm=1",
        ] {
            assert_eq!(resolved(same), Some("/mcp/a"), "{same}");
        }
        assert_eq!(resolved("https://gw.example/mcp/ab"), Some("/mcp/ab"));
    }

    #[test]
    fn az_09_anything_else_is_an_invalid_target() {
        for other in [
            "",
            "/mcp/a",
            "https://gw.example",
            "https://gw.example/",
            "https://gw.example/mcp",
            "https://gw.example/mcp/c",
            "https://gw.example/mcp/A",
            "https://gw.example/mcp/a/b",
            "https://gw.example/mcp/%61",
            "https://gw.example/x/../mcp/a",
            "https://gw.example\\mcp\\a",
            "https://gw.example/mcp/a#x",
            "https://gw.example/mcp/a//",
            "http://gw.example/mcp/a",
            "https://gw.example:8443/mcp/a",
            "https://gw.example.evil.example/mcp/a",
            "https://u@gw.example/mcp/a",
            "https://evil.example/mcp/a",
        ] {
            assert_eq!(resolved(other), None, "{other}");
        }
        let long = format!("https://gw.example/mcp/a?{}", "x".repeat(2048 - 25));
        assert_eq!(resolved(&long), Some("/mcp/a"));
        assert_eq!(resolved(&format!("{long}x")), None);
    }
}
