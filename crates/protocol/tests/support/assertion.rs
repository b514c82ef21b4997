//! A client's key, and the assertions that are made with it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use protocol::ports::Timestamp;
use serde_json::{Value, json};

use super::{ISSUER, TestServer};

/// Signs with one key.
pub struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    pub kid: String,
}

impl Signer {
    fn new(key: EncodingKey, algorithm: Algorithm, kid: &str) -> Self {
        Self {
            key,
            algorithm,
            kid: kid.to_owned(),
        }
    }

    /// The key that most tests use: ES256.
    pub fn p256() -> Self {
        let key = EncodingKey::from_ec_der(include_bytes!("../fixtures/p256.der"));
        Self::new(key, Algorithm::ES256, "p256")
    }

    /// Somebody else's key of the same kind and name.
    pub fn of_another() -> Self {
        let key = EncodingKey::from_ec_der(include_bytes!("../fixtures/p256-of-another.der"));
        Self::new(key, Algorithm::ES256, "p256")
    }

    pub fn rsa(algorithm: Algorithm) -> Self {
        let key = EncodingKey::from_rsa_der(include_bytes!("../fixtures/rsa.der"));
        Self::new(key, algorithm, "rsa")
    }

    pub fn ed25519() -> Self {
        let key = EncodingKey::from_ed_der(include_bytes!("../fixtures/ed25519.der"));
        Self::new(key, Algorithm::EdDSA, "ed25519")
    }

    /// The same key under another name.
    pub fn named(self, kid: &str) -> Self {
        Self::new(self.key, self.algorithm, kid)
    }

    /// The public half.
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.kid);
        // A key of RSA serves two algorithms.
        jwk.as_object_mut().unwrap().remove("alg");
        jwk
    }

    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    pub fn header(&self) -> Value {
        json!({ "alg": self.alg(), "typ": "JWT", "kid": self.kid })
    }

    pub fn alg(&self) -> &'static str {
        match self.algorithm {
            Algorithm::RS256 => "RS256",
            Algorithm::PS256 => "PS256",
            Algorithm::EdDSA => "EdDSA",
            _ => "ES256",
        }
    }

    /// What a good client says: who it is, to whom, until when, and once.
    pub fn claims(server: &TestServer, client_id: &str) -> Value {
        let Timestamp(now) = server.now();
        json!({
            "iss": client_id,
            "sub": client_id,
            "aud": ISSUER,
            "iat": now,
            "exp": now + 300,
            "jti": server.next_name(),
        })
    }

    /// A good assertion, for one request.
    pub fn assertion(&self, server: &TestServer, client_id: &str) -> String {
        self.sign(&self.header(), &Self::claims(server, client_id))
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

pub fn encoded(part: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part)
}
