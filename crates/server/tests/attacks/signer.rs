//! A client's key, and the assertions that it signs (RFC 7523 §3).

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::UNIX_EPOCH,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::support::client::{Client, Parameters};

/// Signs with a key of its own, by ES256.
pub struct Signer {
    key: EncodingKey,
}

impl Signer {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap().serialize_der();
        Self {
            key: EncodingKey::from_ec_der(&key),
        }
    }

    /// The public half.
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!("1");
        jwk
    }

    pub fn jwks(&self) -> Value {
        json!({ "keys": [self.jwk()] })
    }

    pub fn header() -> Value {
        json!({ "alg": "ES256", "typ": "JWT", "kid": "1" })
    }

    /// What a good client says: who it is, to whom, until when, and once.
    pub fn claims(client: &Client, issuer: &str) -> Value {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let now = now();
        json!({
            "iss": client.id,
            "sub": client.id,
            "aud": issuer,
            "iat": now,
            "exp": now + 300,
            "jti": NEXT.fetch_add(1, Ordering::Relaxed).to_string(),
        })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = crypto::sign(message.as_bytes(), &self.key, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    /// A good assertion, for one request.
    pub fn assertion(&self, client: &Client, issuer: &str) -> String {
        self.sign(&Self::header(), &Self::claims(client, issuer))
    }

    /// The fields of a request of `client`, with a good assertion.
    pub fn sign_for(&self, client: &Client, issuer: &str, fields: &Parameters) -> Parameters {
        with_assertion(fields, &self.assertion(client, issuer))
    }
}

/// Of a JWT, what is signed.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |part: &Value| encoded(part.to_string());
    format!("{}.{}", part(header), part(claims))
}

pub fn encoded(part: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part)
}

pub fn now() -> i64 {
    i64::try_from(UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

pub fn with_assertion(fields: &Parameters, assertion: &str) -> Parameters {
    fields
        .clone()
        .with(
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        )
        .with("client_assertion", assertion)
}
