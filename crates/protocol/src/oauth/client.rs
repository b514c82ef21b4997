//! Clients: what one may register about itself, and what is kept (RFC 7591 §2).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    client_auth::AuthMethod, error::OAuthError, identifiers::ClientId, jwks::KeySource,
    redirect_uri::RedirectUri, strict_json,
};
use crate::ports::Timestamp;

/// The most redirect URIs that one client may register.
const MOST_REDIRECT_URIS: usize = 10;
/// The longest client name that is kept, in characters.
const LONGEST_NAME: usize = 200;

/// A client that registered with us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    pub client_id: ClientId,
    /// What the client calls itself; nobody checked it.
    pub client_name: String,
    pub redirect_uris: Vec<RedirectUri>,
    pub token_endpoint_auth_method: AuthMethod,
    /// SHA-256 of the client secret, for clients that have one.
    pub secret_digest: Option<[u8; 32]>,
    pub registered_at: Timestamp,
    /// When the registration goes, unless a grant keeps it.
    pub expires_at: Timestamp,
}

/// What a client says of itself, in terms that we can keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMetadata {
    pub client_name: String,
    pub redirect_uris: Vec<RedirectUri>,
    pub token_endpoint_auth_method: AuthMethod,
    /// Its public keys, for a client that must or may prove who it is with one.
    pub keys: Option<KeySource>,
}

/// A client that the operator set up.
#[derive(Clone, Debug)]
pub struct PreregisteredClient {
    pub client_id: ClientId,
    pub metadata: ClientMetadata,
    /// SHA-256 of the client secret, for clients that have one.
    pub secret_digest: Option<[u8; 32]>,
}

impl ClientMetadata {
    /// Reads a registration request. Members and grant types that we do not know are left out
    /// (RFC 7591 §2); what we cannot do without, or could not keep to, is refused.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let members = strict_json::object(body).ok_or_else(|| {
            OAuthError::invalid_client_metadata(
                "the request body must be one JSON object, without a member that is there twice, \
                 at most eight levels deep",
            )
        })?;
        let metadata = Self {
            client_name: client_name(&members)?,
            redirect_uris: redirect_uris(&members)?,
            token_endpoint_auth_method: supported_auth_method(&members)?,
            keys: None,
        };
        offers_supported_types(&members)?;
        // Keys are of no use here, but one that must not be shown should be told so.
        KeySource::of(&members)?;
        Ok(metadata)
    }
}

impl From<Client> for ClientMetadata {
    fn from(client: Client) -> Self {
        Self {
            client_name: client.client_name,
            redirect_uris: client.redirect_uris,
            token_endpoint_auth_method: client.token_endpoint_auth_method,
            keys: None,
        }
    }
}

/// Refuses a client that could use nothing of what we offer.
pub(super) fn offers_supported_types(members: &Map<String, Value>) -> Result<(), OAuthError> {
    let offers = |member: &str, supported: &str| match members.get(member) {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.iter().any(|value| value == supported),
        Some(_) => false,
    };
    if !offers("grant_types", "authorization_code") {
        return Err(OAuthError::invalid_client_metadata(
            "grant_types must be a list with authorization_code in it",
        ));
    }
    if !offers("response_types", "code") {
        return Err(OAuthError::invalid_client_metadata(
            "response_types must be a list with code in it",
        ));
    }
    Ok(())
}

pub(super) fn client_name(members: &Map<String, Value>) -> Result<String, OAuthError> {
    match members.get("client_name") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(name)) => Ok(name.chars().take(LONGEST_NAME).collect()),
        Some(_) => Err(OAuthError::invalid_client_metadata(
            "client_name must be a string",
        )),
    }
}

pub(super) fn redirect_uris(members: &Map<String, Value>) -> Result<Vec<RedirectUri>, OAuthError> {
    let list = match members.get("redirect_uris") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        _ => {
            return Err(OAuthError::invalid_redirect_uri(
                "redirect_uris must be a list with at least one URI",
            ));
        }
    };
    if list.len() > MOST_REDIRECT_URIS {
        return Err(OAuthError::invalid_redirect_uri(
            "redirect_uris must have at most 10 entries",
        ));
    }
    list.iter()
        .map(|uri| {
            uri.as_str().and_then(RedirectUri::parse).ok_or_else(|| {
                OAuthError::invalid_redirect_uri(
                    "a redirect URI must be https, http on 127.0.0.1, [::1] or localhost, or of an \
                     application scheme such as com.example.app, at most 2048 characters, without \
                     fragment, user name, wildcard or dot segments",
                )
            })
        })
        .collect()
}

/// The method we register. Omitted means Basic (RFC 7591 §2); one that we do not offer is
/// refused rather than replaced, since the client would go on to use it.
fn supported_auth_method(members: &Map<String, Value>) -> Result<AuthMethod, OAuthError> {
    match members.get("token_endpoint_auth_method") {
        None | Some(Value::Null) => Ok(AuthMethod::ClientSecretBasic),
        Some(Value::String(method)) if method == "none" => Ok(AuthMethod::None),
        Some(Value::String(method)) if method == "client_secret_post" => {
            Ok(AuthMethod::ClientSecretPost)
        }
        Some(Value::String(method)) if method == "client_secret_basic" => {
            Ok(AuthMethod::ClientSecretBasic)
        }
        // A client with a key publishes it in a metadata document, or the operator sets it up.
        Some(_) => Err(OAuthError::invalid_client_metadata(
            "token_endpoint_auth_method must be none, client_secret_post or client_secret_basic",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::error::ErrorCode;

    fn parse(body: &Value) -> Result<ClientMetadata, ErrorCode> {
        ClientMetadata::parse(body.to_string().as_bytes()).map_err(|error| error.code)
    }

    #[test]
    fn rg_05_unknown_members_and_grant_types_are_left_out() {
        let metadata = parse(&json!({
            "redirect_uris": ["http://127.0.0.1/", "https://vscode.dev/redirect"],
            "client_name": "Visual Studio Code",
            "application_type": "native",
            "software_id": "x",
            "jwks": {"keys": []},
            "client_uri": "https://code.visualstudio.com",
            "token_endpoint_auth_method": "none",
            "response_types": ["code"],
            "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        }))
        .unwrap();
        assert_eq!(metadata.redirect_uris.len(), 2);
        assert_eq!(metadata.token_endpoint_auth_method, AuthMethod::None);
    }

    #[test]
    fn rg_08_a_registration_without_redirect_uris_is_refused() {
        for bad in [
            json!({}),
            json!({"redirect_uris": []}),
            json!({"redirect_uris": "https://x.example/cb"}),
        ] {
            assert_eq!(parse(&bad), Err(ErrorCode::InvalidRedirectUri), "{bad}");
        }
    }

    #[test]
    fn rg_09_metadata_that_cannot_be_kept_to_is_refused() {
        for (member, value) in [
            ("client_name", json!(4)),
            ("grant_types", json!(["password"])),
            ("grant_types", json!("authorization_code")),
            ("response_types", json!(["token"])),
            ("token_endpoint_auth_method", json!("private_key_jwt")),
            ("token_endpoint_auth_method", json!(["none"])),
        ] {
            let mut body = json!({"redirect_uris": ["https://x.example/cb"]});
            assert!(parse(&body).is_ok());
            body[member] = value;
            assert_eq!(
                parse(&body),
                Err(ErrorCode::InvalidClientMetadata),
                "{body}"
            );
        }
        for body in ["", "[]", "null", "\"x\"", "{", "\u{feff}{}"] {
            assert!(ClientMetadata::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn one_bad_redirect_uri_among_good_ones_is_refused() {
        let bad = json!({"redirect_uris": ["https://x.example/cb", "javascript:alert(1)"]});
        assert_eq!(parse(&bad), Err(ErrorCode::InvalidRedirectUri));
        let many: Vec<_> = (0..11).map(|n| format!("https://x.example/{n}")).collect();
        assert_eq!(
            parse(&json!({"redirect_uris": many})),
            Err(ErrorCode::InvalidRedirectUri)
        );
        assert!(parse(&json!({"redirect_uris": many[1..]})).is_ok());
    }
}
