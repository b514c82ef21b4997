//! Addresses for people. Some servers have their key in their address: in the query, in a segment
//! of the path, in a label of the host. So an address is shown with what could be a key masked, by
//! one rule, wherever it is shown.

use http::Uri;
use url::{Host, Url};

/// What people see in place of a secret.
pub const MASK: &str = "••••";

/// The longest text that is a name whatever letters and digits it mixes, the longest that may have
/// a number at one place, and the longest of words alone, in bytes.
const LONGEST_MIXED: usize = 8;
const LONGEST_NUMBERED: usize = 16;
const LONGEST_WORDS: usize = 32;

/// Whether a segment of a path or a label of a host could be a key. A name is short, or words, or
/// words with a number; a key is longer, or changes between letters and digits.
pub fn looks_like_key(text: &str) -> bool {
    let joins = |byte: u8| b"-_.".contains(&byte);
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || joins(byte);
    let in_words = |byte: u8| byte.is_ascii_lowercase() || joins(byte);
    if !text.bytes().all(in_name) {
        return true;
    }
    match text.len() {
        0..=LONGEST_MIXED => false,
        length if length <= LONGEST_NUMBERED => changes(text) > 2,
        length => length > LONGEST_WORDS || !text.bytes().all(in_words),
    }
}

/// How often a text changes between letters and digits, whatever joins them.
fn changes(text: &str) -> usize {
    let kinds = text
        .bytes()
        .filter(u8::is_ascii_alphanumeric)
        .map(|byte| byte.is_ascii_digit());
    let next = kinds.clone().skip(1);
    kinds.zip(next).filter(|(one, other)| one != other).count()
}

/// An address in which nobody finds a key: every value in the query is masked, and of the path and
/// the host what looks like one. A user name, a password and a fragment are left out.
pub fn shown_address(url: &Url) -> String {
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let mut shown = format!("{}://{}{port}", url.scheme(), shown_host(url));
    for segment in url.path().split('/').skip(1) {
        shown.push('/');
        shown.push_str(masked(segment));
    }
    for (position, (name, _)) in url.query_pairs().enumerate() {
        let separator = if position == 0 { '?' } else { '&' };
        shown.push(separator);
        // A query without names is one value.
        shown.push_str(masked(&name));
        shown.push('=');
        shown.push_str(MASK);
    }
    shown
}

/// The host of an upstream's address, and its port if it has one of its own.
pub fn shown_authority(address: &Uri) -> String {
    let Ok(url) = Url::parse(&address.to_string()) else {
        return String::new();
    };
    match url.port() {
        Some(port) => format!("{}:{port}", shown_host(&url)),
        None => shown_host(&url),
    }
}

/// The host of an address, each label of it masked that looks like a key.
pub fn shown_host(url: &Url) -> String {
    match url.host() {
        Some(Host::Domain(name)) => {
            let labels: Vec<&str> = name.split('.').map(masked_label).collect();
            labels.join(".")
        }
        Some(address) => address.to_string(),
        None => String::new(),
    }
}

fn masked_label(label: &str) -> &str {
    // What stands for letters of other scripts mixes letters and digits.
    if label.starts_with("xn--") {
        label
    } else {
        masked(label)
    }
}

fn masked(text: &str) -> &str {
    if looks_like_key(text) { MASK } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_keys() {
        for name in [
            "",
            "mcp",
            "MCP",
            "v2",
            "GitHub",
            "tickets2",
            "a1b2c3d4",
            "oauth2callback",
            "2025-11-25",
            "mcp-server-4711",
            "ec2-3-120-45-67",
            "streamable-http",
            "oauth-authorization-server",
            ".well-known",
        ] {
            assert!(!looks_like_key(name), "{name}");
        }
        for key in [
            "fc-abcdef0123456789abcdef",
            "8f14e45fceea167a5a36dedd4bea2543",
            "2f1c8a4e-7d53-4b08-9e6a-0c4d1b7a9f35",
            "wsk_live_8Jq2LmZ0pTxN4uVb",
            "AbC123dEf456",
            "k7f3a9b2c1",
            "AKIAIOSFODNNEXAMPLE",
            "orange%20tractor",
            "a:b",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(looks_like_key(key), "{key}");
        }
    }

    /// Case 31: the vendor's address has the key in its path. The neighbours have it in the host,
    /// in a query without a name, before an @, or short.
    #[test]
    fn what_looks_like_a_key_is_masked_wherever_it_stands() {
        for (address, shown) in [
            (
                "https://mcp.example/fc-abcdef0123456789abcdef/v2/mcp",
                "https://mcp.example/••••/v2/mcp",
            ),
            (
                "https://mcp.example:8443/s/AbC123dEf456/sse/",
                "https://mcp.example:8443/s/••••/sse/",
            ),
            (
                "https://8f14e45fceea167a.mcp.example/mcp",
                "https://••••.mcp.example/mcp",
            ),
            (
                "https://mcp.example/mcp?workspace=7&key=x",
                "https://mcp.example/mcp?workspace=••••&key=••••",
            ),
            (
                "https://mcp.example/mcp?fc-abcdef0123456789abcdef",
                "https://mcp.example/mcp?••••=••••",
            ),
            ("https://me:secret@mcp.example/#x", "https://mcp.example/"),
            ("http://[::1]:3000/mcp", "http://[::1]:3000/mcp"),
            ("http://127.0.0.1:3000/mcp", "http://127.0.0.1:3000/mcp"),
            (
                "https://bücher-und-mehr.example/mcp",
                "https://xn--bcher-und-mehr-gsb.example/mcp",
            ),
        ] {
            assert_eq!(shown_address(&Url::parse(address).unwrap()), shown);
        }
    }
}
