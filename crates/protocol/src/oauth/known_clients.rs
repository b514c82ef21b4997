//! Copies of the metadata documents of well-known clients, for when those cannot be fetched: some
//! publishers keep programs in data centres away from them with a bot challenge.
//!
//! A document is copied here only when all of it that we use is known from a source that can be
//! read. Never used when the publisher itself says otherwise.

use super::{
    client::ClientMetadata, client_auth::AuthMethod, client_document::DocumentUrl,
    redirect_uri::RedirectUri,
};

/// One client's document, as far as we use it. Each is a public client.
#[derive(Debug)]
pub struct KnownClient {
    pub client_id: &'static str,
    pub client_name: &'static str,
    pub redirect_uris: &'static [&'static str],
    /// Where these facts can be read.
    pub source: &'static str,
}

/// As of 2026-11-20.
pub const KNOWN_CLIENTS: [KnownClient; 2] = [
    // Claude on the web, on the desktop and on phones.
    KnownClient {
        client_id: "https://claude.ai/oauth/mcp-oauth-client-metadata",
        client_name: "Claude",
        redirect_uris: &["https://claude.ai/api/mcp/auth_callback"],
        source: "https://github.com/anthropics/claude-ai-mcp/issues/96",
    },
    // Claude Code; it takes whatever port is free.
    KnownClient {
        client_id: "https://claude.ai/oauth/claude-code-client-metadata",
        client_name: "Claude Code",
        redirect_uris: &["http://localhost/callback", "http://127.0.0.1/callback"],
        source: "https://github.com/anthropics/claude-code/issues/37767",
    },
];

/// The copy of the document at `url`, if there is one.
pub fn pinned_copy(url: &DocumentUrl) -> Option<ClientMetadata> {
    let known = KNOWN_CLIENTS
        .iter()
        .find(|known| known.client_id == url.as_str())?;
    let redirect_uris = known
        .redirect_uris
        .iter()
        .map(|uri| RedirectUri::parse(uri));
    Some(ClientMetadata {
        client_name: known.client_name.to_owned(),
        redirect_uris: redirect_uris.collect::<Option<_>>()?,
        token_endpoint_auth_method: AuthMethod::None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::client_document;

    #[test]
    fn ci_09_each_pinned_copy_is_what_its_document_would_become() {
        for known in &KNOWN_CLIENTS {
            let url = DocumentUrl::parse(known.client_id).expect(known.client_id);
            let document = json!({
                "client_id": known.client_id,
                "client_name": known.client_name,
                "redirect_uris": known.redirect_uris,
                "token_endpoint_auth_method": "none",
            });
            let fetched = client_document::parse(&url, document.to_string().as_bytes()).unwrap();
            assert_eq!(pinned_copy(&url), Some(fetched));
            assert!(known.source.starts_with("https://"), "{known:?}");
        }
        let other = DocumentUrl::parse("https://claude.ai/oauth/other").unwrap();
        assert_eq!(pinned_copy(&other), None);
    }

    /// The redirect URIs that these clients really send.
    #[test]
    fn ci_09_the_pinned_copies_match_the_clients() {
        let matches = |id: &str, presented: &str| {
            let copy = pinned_copy(&DocumentUrl::parse(id).unwrap()).unwrap();
            copy.redirect_uris.iter().any(|uri| uri.matches(presented))
        };
        let claude = "https://claude.ai/oauth/mcp-oauth-client-metadata";
        assert!(matches(claude, "https://claude.ai/api/mcp/auth_callback"));
        assert!(!matches(claude, "http://localhost:51234/callback"));
        let claude_code = "https://claude.ai/oauth/claude-code-client-metadata";
        assert!(matches(claude_code, "http://localhost:51234/callback"));
        assert!(matches(claude_code, "http://127.0.0.1:51234/callback"));
        assert!(!matches(
            claude_code,
            "https://claude.ai/api/mcp/auth_callback"
        ));
    }
}
