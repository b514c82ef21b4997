//! The public keys of a client, in a JSON Web Key Set (RFC 7517).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};

use super::{client_document::DocumentUrl, error::OAuthError, strict_json};

/// The most keys in one set. Each may be tried on one assertion.
const MOST_KEYS: usize = 10;
/// Bytes in the modulus of an RSA key: 2,048 to 8,192 bits.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Members that only private and shared keys have (RFC 7518 §6.2.2, §6.3.2, §6.4).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The algorithms that a client may sign with, by their names (RFC 7518 §3.1, RFC 8037 §3.1).
pub const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

/// Where a client's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    Inline(KeySet),
    At(DocumentUrl),
}

/// Public keys, those of kinds that we do not know left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(Vec<PublicKey>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct PublicKey {
    kid: Option<String>,
    /// The one algorithm that it is for, if it says so.
    alg: Option<String>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256 { x: String, y: String },
    Ed25519 { x: String },
}

/// What a set of keys says about a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    Yes,
    No,
    /// It was made with a key that is not in the set.
    WithAnotherKey,
}

impl KeySource {
    /// The keys that `members` of client metadata name (RFC 7591 §2).
    pub fn of(members: &Map<String, Value>) -> Result<Option<Self>, OAuthError> {
        let member = |name: &str| members.get(name).filter(|value| !value.is_null());
        match (member("jwks"), member("jwks_uri")) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(invalid("jwks and jwks_uri must not be given both")),
            (Some(jwks), None) => match jwks {
                Value::Object(jwks) => KeySet::of(jwks).map(|keys| Some(Self::Inline(keys))),
                _ => Err(invalid("jwks must be an object with a list of keys")),
            },
            (None, Some(jwks_uri)) => jwks_uri
                .as_str()
                .and_then(DocumentUrl::parse)
                .map(|url| Some(Self::At(url)))
                .ok_or_else(|| {
                    invalid(
                        "jwks_uri must be https, at the default port of a named host, with a \
                         path, without query or fragment",
                    )
                }),
        }
    }
}

impl KeySet {
    /// Reads a set as it came.
    pub fn parse(text: &[u8]) -> Result<Self, OAuthError> {
        let members = strict_json::object(text)
            .ok_or_else(|| invalid("the key set is not one JSON object"))?;
        Self::of(&members)
    }

    fn of(members: &Map<String, Value>) -> Result<Self, OAuthError> {
        let Some(Value::Array(list)) = members.get("keys") else {
            return Err(invalid("a key set must have a list of keys"));
        };
        if list.len() > MOST_KEYS {
            return Err(invalid("a key set must have at most 10 keys"));
        }
        let mut keys = Vec::new();
        for key in list {
            let Value::Object(key) = key else {
                return Err(invalid("each key of a key set must be an object"));
            };
            // Whoever publishes one has lost it, and anybody can sign with it.
            if PRIVATE.iter().any(|member| key.contains_key(*member)) {
                return Err(invalid("a key set must not have private or shared keys"));
            }
            keys.extend(PublicKey::of(key));
        }
        Ok(Self(keys))
    }

    /// Whether there is a key in it that we can use.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `signature` (base64url) over `message` was made with one of these keys, by `alg`.
    pub fn signed(&self, alg: &str, kid: Option<&str>, message: &str, signature: &str) -> Signed {
        let Some(algorithm) = algorithm(alg) else {
            return Signed::No;
        };
        let mut tried = false;
        for key in &self.0 {
            let is_named = kid.is_none_or(|kid| key.kid.as_deref() == Some(kid));
            if !is_named {
                continue;
            }
            tried = true;
            if key.is_for(algorithm, alg)
                && key.material.decoding_key().is_some_and(|key| {
                    crypto::verify(signature, message.as_bytes(), &key, algorithm).unwrap_or(false)
                })
            {
                return Signed::Yes;
            }
        }
        match (tried, kid) {
            // Without a name any key may have been meant, also one that is new.
            (true, Some(_)) => Signed::No,
            _ => Signed::WithAnotherKey,
        }
    }
}

/// The algorithm of that name, of those that are taken. Never `none`, and none with a shared
/// secret: who took a public key for one would take anybody's signature.
fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "PS256" => Some(Algorithm::PS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

impl PublicKey {
    /// A key of a kind that we know, for signatures, and whole.
    fn of(members: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| members.get(name)?.as_str();
        let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let coordinate = |name: &str| {
            let is_whole = bytes(name)?.len() == 32;
            is_whole.then(|| text(name).map(str::to_owned))?
        };
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let n = bytes("n")?;
                let is_sound = RSA_MODULUS.contains(&n.len()) && n.first() != Some(&0);
                is_sound.then_some(Material::Rsa { n, e: bytes("e")? })?
            }
            ("EC", Some("P-256")) => Material::P256 {
                x: coordinate("x")?,
                y: coordinate("y")?,
            },
            ("OKP", Some("Ed25519")) => Material::Ed25519 {
                x: coordinate("x")?,
            },
            _ => return None,
        };
        Some(Self {
            kid: text("kid").map(str::to_owned),
            alg: text("alg").map(str::to_owned),
            material,
        })
    }

    fn is_for(&self, algorithm: Algorithm, name: &str) -> bool {
        let is_of_kind = match self.material {
            Material::Rsa { .. } => matches!(algorithm, Algorithm::RS256 | Algorithm::PS256),
            Material::P256 { .. } => algorithm == Algorithm::ES256,
            Material::Ed25519 { .. } => algorithm == Algorithm::EdDSA,
        };
        // RFC 9864 names the curve where older keys name the family.
        let said = match self.alg.as_deref() {
            Some("Ed25519") => Some("EdDSA"),
            said => said,
        };
        is_of_kind && said.is_none_or(|said| said == name)
    }
}

impl Material {
    fn decoding_key(&self) -> Option<DecodingKey> {
        match self {
            Self::Rsa { n, e } => Some(DecodingKey::from_rsa_raw_components(n, e)),
            Self::P256 { x, y } => DecodingKey::from_ec_components(x, y).ok(),
            Self::Ed25519 { x } => DecodingKey::from_ed_components(x).ok(),
        }
    }
}

fn invalid(description: &'static str) -> OAuthError {
    OAuthError::invalid_client_metadata(description)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn rsa(modulus: &[u8]) -> Value {
        json!({ "kty": "RSA", "n": encoded(modulus), "e": "AQAB" })
    }

    fn p256() -> Value {
        json!({ "kty": "EC", "crv": "P-256", "x": encoded(&[1; 32]), "y": encoded(&[2; 32]) })
    }

    fn with(mut key: Value, member: &str, value: Value) -> Value {
        key[member] = value;
        key
    }

    fn set(keys: &[Value]) -> Result<KeySet, OAuthError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    /// Whether the key is one that we can use.
    fn is_used(key: Value) -> bool {
        !set(&[key]).unwrap().is_empty()
    }

    #[test]
    fn an_rsa_key_has_2048_to_8192_bits_and_no_zeros_in_front() {
        for (length, fits) in [
            (128, false),
            (255, false),
            (256, true),
            (1024, true),
            (1025, false),
        ] {
            assert_eq!(is_used(rsa(&vec![0xc1; length])), fits, "{length}");
        }
        // Else the zeros would make a short one long.
        let padded = [vec![0; 128], vec![0xc1; 128]].concat();
        assert!(!is_used(rsa(&padded)));
    }

    #[test]
    fn a_point_has_coordinates_of_32_bytes() {
        assert!(is_used(p256()));
        let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(&[1; 32]) });
        assert!(is_used(ed25519.clone()));
        for length in [0, 31, 33] {
            let odd = json!(encoded(&vec![1; length]));
            assert!(!is_used(with(p256(), "x", odd.clone())), "{length}");
            assert!(!is_used(with(p256(), "y", odd.clone())), "{length}");
            assert!(!is_used(with(ed25519.clone(), "x", odd)), "{length}");
        }
    }

    #[test]
    fn a_key_for_anything_but_signatures_is_left_out() {
        assert!(is_used(with(p256(), "use", json!("sig"))));
        assert!(!is_used(with(p256(), "use", json!("enc"))));
    }

    /// Each of them alone gives the key away (RFC 7518 §6.3.2).
    #[test]
    fn a_set_with_any_private_member_is_refused_whole() {
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            for key in [rsa(&[0xc1; 256]), p256(), json!({ "kty": "unknown" })] {
                let private = with(key, member, json!("AAAA"));
                assert!(set(&[p256(), private]).is_err(), "{member}");
            }
        }
    }

    #[test]
    fn a_set_has_ten_keys_at_most() {
        assert!(set(&vec![p256(); 10]).is_ok());
        assert!(set(&vec![p256(); 11]).is_err());
    }

    #[test]
    fn a_key_serves_the_algorithm_that_it_names_and_none_of_another_kind() {
        let serves = |key: Value, name: &str| {
            let key = PublicKey::of(key.as_object().unwrap()).unwrap();
            key.is_for(algorithm(name).unwrap(), name)
        };
        let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(&[1; 32]) });
        for (key, served) in [
            (rsa(&[0xc1; 256]), &["RS256", "PS256"][..]),
            (with(rsa(&[0xc1; 256]), "alg", json!("PS256")), &["PS256"]),
            (p256(), &["ES256"]),
            (with(p256(), "alg", json!("RS256")), &[]),
            (ed25519.clone(), &["EdDSA"]),
            (with(ed25519, "alg", json!("Ed25519")), &["EdDSA"]),
        ] {
            for name in ALGORITHMS {
                assert_eq!(
                    serves(key.clone(), name),
                    served.contains(&name),
                    "{key} {name}"
                );
            }
        }
        for name in ["none", "HS256", "ES384", "rs256", ""] {
            assert_eq!(algorithm(name), None);
        }
    }
}
