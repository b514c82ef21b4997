//! Clients: what one may register about itself, and what is kept (RFC 7591 §2).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    app_scheme::AppScheme,
    client_auth::AuthMethod,
    error::{OAuthError, told},
    identifiers::ClientId,
    jwks::KeySource,
    redirect_uri::{RedirectUri, Unfit},
    strict_json,
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
    #[serde(default, with = "crate::base64url::optional")]
    pub secret_digest: Option<[u8; 32]>,
    pub registered_at: Timestamp,
    /// When the registration goes, unless a grant keeps it.
    pub expires_at: Timestamp,
}

/// How a client became known, and so who can correct what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// The operator set it up.
    Operator,
    /// It registered itself.
    Registration,
    /// By the metadata document that it publishes.
    Document,
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

/// What becomes of a registration request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub metadata: ClientMetadata,
    /// Links of apps that nobody let in, which were left out beside others that are registered; as
    /// [`told`] tells them.
    pub left_out: Vec<String>,
}

impl Registration {
    /// Reads a registration request. What cannot be had is replaced by what can, and the answer
    /// says so: methods, grant and response types, links of unknown apps beside other redirect
    /// URIs, members that we do not know (RFC 7591 §2, §3.2.1). Refused is only what cannot be read,
    /// and what could lead an answer astray.
    pub fn parse(body: &[u8], let_in: &[AppScheme]) -> Result<Self, OAuthError> {
        let members = strict_json::object(body).ok_or_else(|| {
            OAuthError::invalid_client_metadata(
                "the request body must be one JSON object, without a member that is there twice, \
                 at most eight levels deep",
            )
        })?;
        let RedirectUris { fit, left_out } = redirect_uris(&members, let_in)?;
        let metadata = ClientMetadata {
            client_name: client_name(&members)?,
            redirect_uris: fit,
            token_endpoint_auth_method: auth_method(&members)?,
            keys: None,
        };
        // Every client gets the same types, but what is no list of names is no registration.
        types(&members, "grant_types")?;
        types(&members, "response_types")?;
        // Keys are of no use here, but one that must not be shown should be told so.
        KeySource::of(&members)?;
        Ok(Self { metadata, left_out })
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

/// Refuses a document of a client that could use nothing of what we offer. One that registers is
/// given what there is; to a document nobody answers.
pub(super) fn offers_supported_types(members: &Map<String, Value>) -> Result<(), OAuthError> {
    for (member, supported) in [
        ("grant_types", "authorization_code"),
        ("response_types", "code"),
    ] {
        let types = types(members, member)?;
        if !types.is_empty() && !types.contains(&supported) {
            return Err(OAuthError::invalid_client_metadata(format!(
                "{member} must be a list with {supported} in it"
            )));
        }
    }
    Ok(())
}

/// A list of names; none, if the member is missing.
fn types<'a>(members: &'a Map<String, Value>, member: &str) -> Result<Vec<&'a str>, OAuthError> {
    let names = match members.get(member) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(Value::as_str).collect(),
        Some(_) => None,
    };
    names.ok_or_else(|| {
        OAuthError::invalid_client_metadata(format!("{member} must be a list of strings"))
    })
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

/// The redirect URIs that a client asks for.
pub(super) struct RedirectUris {
    /// Those that it gets; at least one.
    pub(super) fit: Vec<RedirectUri>,
    /// Links of apps that nobody let in, as [`told`] tells them.
    pub(super) left_out: Vec<String>,
}

pub(super) fn redirect_uris(
    members: &Map<String, Value>,
    let_in: &[AppScheme],
) -> Result<RedirectUris, OAuthError> {
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
    let (mut fit, mut left_out) = (Vec::new(), Vec::new());
    let mut last_unknown = None;
    for uri in list {
        let uri = uri.as_str().ok_or_else(|| {
            OAuthError::invalid_redirect_uri("redirect_uris must be a list of strings")
        })?;
        match RedirectUri::judge(uri, let_in) {
            Ok(uri) => fit.push(uri),
            // Safe, only not known: the client may do with the others.
            Err(unknown @ Unfit::UnknownApp(_)) => {
                left_out.push(told(uri));
                last_unknown = Some(refused(uri, &unknown));
            }
            Err(unfit) => return Err(refused(uri, &unfit)),
        }
    }
    match last_unknown {
        Some(error) if fit.is_empty() => Err(error),
        _ => Ok(RedirectUris { fit, left_out }),
    }
}

fn refused(uri: &str, unfit: &Unfit) -> OAuthError {
    OAuthError::invalid_redirect_uri(format!(
        "the redirect URI {} cannot be registered: {}",
        told(uri),
        unfit.reason()
    ))
}

/// The method that a client gets which registers. Left out it means Basic (RFC 7591 §2). One that
/// is not for clients that register, such as `private_key_jwt`, or that there is not, is replaced
/// by Basic, the strongest that they can have; the secret, which works in the body too, comes with
/// the answer that says so.
fn auth_method(members: &Map<String, Value>) -> Result<AuthMethod, OAuthError> {
    match members.get("token_endpoint_auth_method") {
        None | Some(Value::Null) => Ok(AuthMethod::ClientSecretBasic),
        Some(Value::String(method)) => Ok(match method.trim().to_ascii_lowercase().as_str() {
            "none" => AuthMethod::None,
            "client_secret_post" => AuthMethod::ClientSecretPost,
            _ => AuthMethod::ClientSecretBasic,
        }),
        Some(_) => Err(OAuthError::invalid_client_metadata(
            "token_endpoint_auth_method must be a string",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oauth::error::ErrorCode;

    fn parse(body: &Value) -> Result<ClientMetadata, ErrorCode> {
        Registration::parse(body.to_string().as_bytes(), &[])
            .map(|registration| registration.metadata)
            .map_err(|error| error.code)
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
    fn rg_09_metadata_that_cannot_be_read_is_refused() {
        for (member, value) in [
            ("client_name", json!(4)),
            ("grant_types", json!("authorization_code")),
            ("grant_types", json!([["authorization_code"]])),
            ("response_types", json!(4)),
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
            assert!(Registration::parse(body.as_bytes(), &[]).is_err(), "{body}");
        }
    }

    /// Case 10: what cannot be had is replaced.
    #[test]
    fn what_there_is_not_is_replaced_by_what_there_is() {
        let registered = |member: &str, value: Value| {
            let mut body = json!({"redirect_uris": ["https://x.example/cb"]});
            body[member] = value;
            parse(&body).unwrap().token_endpoint_auth_method
        };
        let method = "token_endpoint_auth_method";
        for (asked, given) in [
            ("none", AuthMethod::None),
            ("None ", AuthMethod::None),
            ("client_secret_post", AuthMethod::ClientSecretPost),
            ("client_secret_basic", AuthMethod::ClientSecretBasic),
            ("client_secret_jwt", AuthMethod::ClientSecretBasic),
            ("private_key_jwt", AuthMethod::ClientSecretBasic),
            ("tls_client_auth", AuthMethod::ClientSecretBasic),
            ("", AuthMethod::ClientSecretBasic),
        ] {
            assert_eq!(registered(method, json!(asked)), given, "{asked}");
        }
        for (member, value) in [
            ("grant_types", json!([])),
            ("grant_types", json!(["password"])),
            ("response_types", json!([])),
            ("response_types", json!(["token"])),
        ] {
            registered(member, value);
        }
    }

    /// Case 03: one link of an unknown app beside what can be registered is left out; alone it is
    /// refused, by its name.
    #[test]
    fn the_link_of_an_unknown_app_is_left_out_beside_others() {
        let myapp = AppScheme::parse("myapp").unwrap();
        let parse = |uris: &[&str], let_in: &[AppScheme]| {
            let body = json!({ "redirect_uris": uris }).to_string();
            Registration::parse(body.as_bytes(), let_in)
        };
        let both = ["http://127.0.0.1:9/cb", "myapp://oauth"];
        let registration = parse(&both, &[]).unwrap();
        assert_eq!(registration.metadata.redirect_uris.len(), 1);
        assert_eq!(registration.left_out, ["myapp://oauth"]);
        let let_in = [myapp];
        let registration = parse(&both, &let_in).unwrap();
        assert_eq!(registration.metadata.redirect_uris.len(), 2);
        assert_eq!(registration.left_out, [] as [&str; 0]);
        let alone = parse(&both[1..], &[]).unwrap_err();
        assert_eq!(alone.code, ErrorCode::InvalidRedirectUri);
        for words in ["myapp://oauth", "app_schemes = ['myapp']"] {
            assert!(alone.description.contains(words), "{}", alone.description);
        }
        assert!(parse(&both[1..], &let_in).is_ok());
        let unsafe_one = parse(&[both[0], both[1], "ms-msdt:/x"], &let_in).unwrap_err();
        assert!(unsafe_one.description.contains("ms-msdt:/x"));
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
