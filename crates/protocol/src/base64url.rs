//! Bytes in records: written as base64url, and read from that and from the lists of numbers that
//! 0.1.0 wrote.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{
    Deserializer, Serializer,
    de::{Error, SeqAccess, Visitor},
};

pub(crate) fn serialize<const N: usize, S: Serializer>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

pub(crate) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    deserializer.deserialize_any(Bytes)
}

/// The same for bytes that may not be there.
pub(crate) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Bytes<const N: usize>(#[serde(with = "super")] [u8; N]);

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(crate) fn serialize<const N: usize, S: Serializer>(
        bytes: &Option<[u8; N]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.map(Bytes).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; N]>, D::Error> {
        let bytes = Option::<Bytes<N>>::deserialize(deserializer)?;
        Ok(bytes.map(|Bytes(bytes)| bytes))
    }
}

struct Bytes<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes as base64url")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<[u8; N], E> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| E::custom(format_args!("not {N} bytes as base64url")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<[u8; N], A::Error> {
        let mut bytes = [0; N];
        for (read, byte) in bytes.iter_mut().enumerate() {
            let next = numbers.next_element()?;
            *byte = next.ok_or_else(|| A::Error::invalid_length(read, &self))?;
        }
        match numbers.next_element::<u8>()? {
            Some(_) => Err(A::Error::invalid_length(N + 1, &self)),
            None => Ok(bytes),
        }
    }
}
