//! Tokens: making, recognising and sealing them. Nobody else knows what they look like.
//!
//! A token that a client holds is a name and a MAC. Nothing of it is stored: what it names is,
//! and a refresh token can be computed again, so that the same answer can be given twice.
//!
//! Each text names the key that made it. 0.1.0 had one key and named none; its texts are shorter, or
//! without a dot when they are sealed, and are tried with every key. What follows from a text, such as
//! the code from a transaction, is made by the same key in the same form: so a form that is sent
//! twice gives one code, whatever became the first key in between.

use std::{borrow::Cow, fmt};

use aes_gcm::{Aes256Gcm, KeyInit, Nonce, aead::AeadInOut};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    oauth::{
        access_token::{AccessToken, Family},
        grant::Grant,
        identifiers::Issuer,
    },
    ports::{Entropy, Timestamp},
};

type HmacSha256 = Hmac<Sha256>;

const ACCESS: &str = "mopa_";
const CODE: &str = "mopc_";
const REFRESH: &str = "mopr_";
const SECRET: &str = "mops_";

const ID: usize = 4;
const MAC: usize = 32;
const NONCE: usize = 12;
/// The AEAD's tag, in bytes.
const TAG: usize = 16;

/// The name of a key, the same on every machine. It says nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; ID]);

impl KeyId {
    /// The name of the key that a key file has.
    pub fn of(master: &[u8; 32]) -> Self {
        KeyFingerprint::of(master).id()
    }

    /// Reads what [`KeyId`] displays as.
    pub fn parse(text: &str) -> Option<Self> {
        let number = u32::from_str_radix(text, 16).ok()?;
        let id = Self(number.to_be_bytes());
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not the name of a key")
    }
}

/// What tells a key from all others. It begins with the key's name, and says nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyFingerprint([u8; 16]);

impl KeyFingerprint {
    /// The fingerprint of the key that a key file has.
    pub fn of(master: &[u8; 32]) -> Self {
        let digest = Sha256::digest([b"key check", master.as_slice()].concat());
        Self(array(&digest[..16]))
    }

    pub fn id(self) -> KeyId {
        KeyId(array(&self.0[..ID]))
    }
}

impl From<KeyFingerprint> for String {
    fn from(fingerprint: KeyFingerprint) -> Self {
        encode(&fingerprint.0)
    }
}

impl TryFrom<String> for KeyFingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("not the fingerprint of a key")
    }
}

/// The keys of one deployment, all derived from its key file and its issuer: a token of another
/// deployment is as foreign as a forged one, even with the same key file. The first key makes; every
/// one recognises and opens what it made.
pub struct Keys {
    first: Key,
    others: Vec<Key>,
}

/// What is derived from one key of the key file.
struct Key {
    id: KeyId,
    access: HmacSha256,
    refresh: HmacSha256,
    code: HmacSha256,
    family: HmacSha256,
    nonce: HmacSha256,
    deployment: HmacSha256,
    known_browser: HmacSha256,
    transaction: Aes256Gcm,
    mcp_session: Aes256Gcm,
}

/// Which key made a text, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker {
    key: KeyId,
    /// Whether the text says so. Those of 0.1.0 do not.
    is_named: bool,
}

/// What a sealed text is for; one made for another purpose does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An authorization request, on its way through the consent page and back.
    Transaction,
    /// An upstream's MCP session id, in the hands of a client.
    McpSession,
}

/// A genuine refresh token's content, whose MAC is still to be compared with its grant's salt.
pub struct PresentedRefreshToken {
    pub family: Family,
    pub generation: u32,
    /// The key that it says it was made with.
    key: Option<KeyId>,
    mac: [u8; MAC],
}

impl Key {
    fn derive(master: &[u8; 32], issuer: &Issuer) -> Self {
        let derive = |purpose: &str| {
            let mut key = [0; 32];
            Hkdf::<Sha256>::new(Some(issuer.as_str().as_bytes()), master)
                .expand(purpose.as_bytes(), &mut key)
                .expect("32 bytes are within what HKDF can give");
            key
        };
        let mac = |purpose| {
            HmacSha256::new_from_slice(&derive(purpose)).expect("HMAC takes keys of any length")
        };
        let aead = |purpose| Aes256Gcm::new(&derive(purpose).into());
        Self {
            id: KeyId::of(master),
            access: mac("access token"),
            refresh: mac("refresh token"),
            code: mac("authorization code"),
            family: mac("token family"),
            nonce: mac("nonce"),
            deployment: mac("deployment"),
            known_browser: mac("known browser"),
            transaction: aead("authorization transaction"),
            mcp_session: aead("mcp session"),
        }
    }

    fn family(&self, authorization_code: &str) -> Family {
        let tag = tag(&self.family, &[authorization_code.as_bytes()]);
        Family(array(&tag[..16]))
    }

    fn aead(&self, purpose: Purpose) -> &Aes256Gcm {
        match purpose {
            Purpose::Transaction => &self.transaction,
            Purpose::McpSession => &self.mcp_session,
        }
    }

    fn open(&self, purpose: Purpose, sealed: &str, context: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(sealed).ok()?;
        if bytes.len() < NONCE + TAG {
            return None;
        }
        let mut text = bytes.split_off(NONCE);
        let nonce: [u8; NONCE] = array(&bytes);
        self.aead(purpose)
            .decrypt_in_place(&Nonce::from(nonce), context, &mut text)
            .ok()?;
        Some(text)
    }
}

impl Keys {
    /// Derives the keys from those of the key file. `first` makes.
    pub fn derive<'a>(
        first: &[u8; 32],
        others: impl IntoIterator<Item = &'a [u8; 32]>,
        issuer: &Issuer,
    ) -> Self {
        let others = others.into_iter();
        Self {
            first: Key::derive(first, issuer),
            others: others.map(|key| Key::derive(key, issuer)).collect(),
        }
    }

    /// The key that makes.
    pub fn first(&self) -> KeyId {
        self.first.id
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn key(&self, id: KeyId) -> Option<&Key> {
        self.all().find(|key| key.id == id)
    }

    /// The key which `bytes` begin with the name of, and the rest, where 0.1.0 would have written
    /// `old` bytes; or each of the keys, where it may have.
    fn candidates<'a>(
        &'a self,
        bytes: &'a [u8],
        old: usize,
    ) -> impl Iterator<Item = (&'a Key, Maker)> {
        let named = named(bytes, old);
        self.all()
            .filter(move |key| named.is_none_or(|id| id == key.id))
            .map(move |key| {
                let maker = Maker {
                    key: key.id,
                    is_named: named.is_some(),
                };
                (key, maker)
            })
    }

    /// The key that a text says it was made with, if this process does not have it.
    pub fn unknown_key(&self, text: &str) -> Option<KeyId> {
        let id = if let Some((id, _)) = text.split_once('.') {
            KeyId::parse(id)?
        } else {
            let (prefix, old) = [(ACCESS, 28), (CODE, 16), (REFRESH, 20)]
                .into_iter()
                .find(|(prefix, _)| text.starts_with(prefix))?;
            let bytes = decode(&text[prefix.len()..])?;
            let (said, _) = bytes.split(old)?;
            named(said, old)?
        };
        self.key(id).is_none().then_some(id)
    }

    /// A name of this deployment, which says nothing else of it.
    pub fn deployment(&self) -> String {
        encode(&tag(&self.first.deployment, &[])[..16])
    }

    /// A new client id with 128 random bits, behind the name of the key. The letter in front keeps it
    /// from looking like an option on a command line, or like a URL.
    pub fn client_id(&self, entropy: &dyn Entropy) -> String {
        let name: [u8; 16] = random(entropy);
        format!("c{}", encode(&[&self.first.id.0[..], &name].concat()))
    }

    /// The authorization code that an approval of `transaction` gives, which was sealed by `maker`.
    /// The same each time, so that a form sent twice gives one code. `None`: that key is gone.
    pub fn authorization_code(&self, maker: Maker, transaction: &[u8; 16]) -> Option<String> {
        let key = self.key(maker.key)?;
        let mut bytes = maker.name();
        bytes.extend(transaction);
        let mac = tag(&key.code, &[&bytes]);
        bytes.extend(mac);
        Some(format!("{CODE}{}", encode(&bytes)))
    }

    /// The token family of a valid authorization code, so that redeeming it twice names one grant; what
    /// the code is for is in the store. `None`: it is not valid.
    pub fn recognise_authorization_code(&self, text: &str) -> Option<Family> {
        let bytes = decode(text.strip_prefix(CODE)?)?;
        let (said, mac) = bytes.split(16)?;
        let (key, _) = self
            .candidates(said, 16)
            .find(|(key, _)| verifies(&key.code, &[said], mac))?;
        Some(key.family(text))
    }

    /// Makes the access token that says what `token` says.
    pub fn access_token(&self, token: &AccessToken) -> String {
        let key = &self.first;
        let mut bytes = Vec::with_capacity(ID + 28 + MAC);
        bytes.extend(key.id.0);
        bytes.extend(token.family.0);
        bytes.extend(token.generation.to_be_bytes());
        bytes.extend(token.expires_at.0.to_be_bytes());
        let mac = tag(&key.access, &[&bytes]);
        bytes.extend(mac);
        format!("{ACCESS}{}", encode(&bytes))
    }

    /// Validates an access token. Costs one MAC and allocates nothing; a token of 0.1.0 costs a MAC for
    /// each key.
    pub fn recognise_access_token(&self, text: &str) -> Option<AccessToken> {
        let bytes = decode(text.strip_prefix(ACCESS)?)?;
        let (said, mac) = bytes.split(28)?;
        self.candidates(said, 28)
            .find(|(key, _)| verifies(&key.access, &[said], mac))?;
        let said = &said[said.len() - 28..];
        Some(AccessToken {
            family: Family(array(&said[..16])),
            generation: u32::from_be_bytes(array(&said[16..20])),
            expires_at: Timestamp(i64::from_be_bytes(array(&said[20..28]))),
        })
    }

    /// Makes the refresh token of one generation of a grant. Neither the key nor the store alone
    /// is enough to make one. `None`: the key of `maker` is not here.
    pub fn refresh_token(
        &self,
        maker: Maker,
        family: Family,
        generation: u32,
        salt: &[u8; 16],
    ) -> Option<String> {
        let key = self.key(maker.key)?;
        let mut bytes = maker.name();
        bytes.extend(family.0);
        bytes.extend(generation.to_be_bytes());
        let mac = tag(&key.refresh, &[&bytes, salt]);
        bytes.extend(mac);
        Some(format!("{REFRESH}{}", encode(&bytes)))
    }

    /// Who made a presented refresh token, if it was made for `grant`.
    pub fn maker_of(&self, presented: &PresentedRefreshToken, grant: &Grant) -> Option<Maker> {
        let generation = presented.generation.to_be_bytes();
        let name = presented.key.map(|id| id.0);
        let name = name.as_ref().map_or(&[][..], |id| &id[..]);
        let mut candidates = self
            .all()
            .filter(|key| presented.key.is_none_or(|id| id == key.id));
        let key = candidates.find(|key| {
            let parts = [name, &presented.family.0, &generation, &grant.salt];
            verifies(&key.refresh, &parts, &presented.mac)
        })?;
        Some(Maker {
            key: key.id,
            is_named: presented.key.is_some(),
        })
    }

    /// Names a browser in which the secret of that fingerprint was typed. The name ends with the
    /// secret: after it was changed, no browser is known.
    pub fn known_browser(
        &self,
        browser: &[u8; 16],
        secret: &[u8; 32],
        expires_at: Timestamp,
    ) -> String {
        let key = &self.first;
        let mut bytes = key.id.0.to_vec();
        bytes.extend(browser);
        bytes.extend(expires_at.0.to_be_bytes());
        let mac = tag(&key.known_browser, &[&bytes, secret]);
        bytes.extend(mac);
        encode(&bytes)
    }

    /// The browser that a text names, if we made it for the same secret and it is not too old.
    pub fn recognise_known_browser(
        &self,
        text: &str,
        secret: &[u8; 32],
        now: Timestamp,
    ) -> Option<[u8; 16]> {
        let bytes = decode(text)?;
        let (said, mac) = bytes.split(24)?;
        self.candidates(said, 24)
            .find(|(key, _)| verifies(&key.known_browser, &[said, secret], mac))?;
        let said = &said[said.len() - 24..];
        let expires_at = Timestamp(i64::from_be_bytes(array(&said[16..])));
        (now < expires_at).then(|| array(&said[..16]))
    }

    /// Seals `plain` for `purpose`. Only who knows `context` can open it again. The same text seals
    /// to the same, and only the same: the nonce is a MAC of what is sealed.
    pub fn seal(&self, purpose: Purpose, plain: &[u8], context: &[u8]) -> String {
        let key = &self.first;
        let context = &named_context(key.id, context)[..];
        let length = u64::try_from(context.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes();
        let nonce: [u8; NONCE] = array(&tag(&key.nonce, &[&length, context, plain])[..NONCE]);
        let mut text = plain.to_vec();
        key.aead(purpose)
            .encrypt_in_place(&Nonce::from(nonce), context, &mut text)
            .expect("a text in memory is shorter than the cipher's limit of 64 GiB");
        let mut sealed = nonce.to_vec();
        sealed.append(&mut text);
        format!("{}.{}", key.id, encode(&sealed))
    }

    /// Opens what was sealed for `purpose` with the same `context`, and says who sealed it.
    pub fn open(&self, purpose: Purpose, sealed: &str, context: &[u8]) -> Option<(Vec<u8>, Maker)> {
        let (named, sealed) = match sealed.split_once('.') {
            Some((id, sealed)) => (Some(KeyId::parse(id)?), sealed),
            None => (None, sealed),
        };
        let mut candidates = self.all().filter(|key| named.is_none_or(|id| id == key.id));
        candidates.find_map(|key| {
            let maker = Maker {
                key: key.id,
                is_named: named.is_some(),
            };
            let context = match named {
                Some(id) => Cow::Owned(named_context(id, context)),
                None => Cow::Borrowed(context),
            };
            Some((key.open(purpose, sealed, &context)?, maker))
        })
    }
}

impl Maker {
    /// Who makes what names its key.
    pub fn named(key: KeyId) -> Self {
        Self {
            key,
            is_named: true,
        }
    }

    /// The key.
    pub fn key(self) -> KeyId {
        self.key
    }

    /// What the texts begin with that it makes.
    fn name(self) -> Vec<u8> {
        if self.is_named {
            self.key.0.to_vec()
        } else {
            Vec::new()
        }
    }
}

impl PresentedRefreshToken {
    /// Reads a text that may be a refresh token of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode(text.strip_prefix(REFRESH)?)?;
        let (said, mac) = bytes.split(20)?;
        let key = named(said, 20);
        let said = &said[said.len() - 20..];
        Some(Self {
            family: Family(array(&said[..16])),
            generation: u32::from_be_bytes(array(&said[16..])),
            key,
            mac: array(mac),
        })
    }
}

/// A new client secret with 256 random bits.
pub fn client_secret(entropy: &dyn Entropy) -> String {
    let secret: [u8; 32] = random(entropy);
    format!("{SECRET}{}", encode(&secret))
}

/// A new name of 128 random bits: a browser's cookie, a request's id.
pub fn random_name(entropy: &dyn Entropy) -> String {
    let name: [u8; 16] = random(entropy);
    encode(&name)
}

/// `N` random bytes.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// The name under which something secret is stored or logged: its SHA-256, shortened to 128 bits.
pub fn fingerprint(secret: &[u8]) -> String {
    encode(&Sha256::digest(secret)[..16])
}

fn tag(key: &HmacSha256, parts: &[&[u8]]) -> [u8; MAC] {
    let mut mac = key.clone();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The key that a text of `old` bytes or [`ID`] more begins with the name of; 0.1.0 named none.
fn named(said: &[u8], old: usize) -> Option<KeyId> {
    (said.len() > old).then(|| KeyId(array(&said[..ID])))
}

/// The context of a sealed text that names its key. It begins with a byte that no other context has, so
/// that a text from which the name was taken away does not open.
fn named_context(id: KeyId, context: &[u8]) -> Vec<u8> {
    [&[0], &id.0[..], context].concat()
}

fn verifies(key: &HmacSha256, parts: &[&[u8]], mac: &[u8]) -> bool {
    let mut expected = key.clone();
    for part in parts {
        expected.update(part);
    }
    expected.verify_slice(mac).is_ok()
}

/// What was decoded, without a place on the heap.
struct Decoded {
    bytes: [u8; LONGEST],
    length: usize,
}

/// Bytes of the longest token, which is an access token. Sealed texts may be longer.
const LONGEST: usize = ID + 28 + MAC;

impl Decoded {
    /// What is said, in `old` bytes as 0.1.0 wrote it or with the name of a key in front, and the MAC.
    fn split(&self, old: usize) -> Option<(&[u8], &[u8])> {
        let bytes = &self.bytes[..self.length];
        let said = self.length.checked_sub(MAC)?;
        (said == old || said == old + ID).then(|| bytes.split_at(said))
    }
}

/// Decodes base64url, written in the one canonical way.
fn decode(text: &str) -> Option<Decoded> {
    let mut bytes = [0; LONGEST];
    let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    Some(Decoded { bytes, length })
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::derive(&[7; 32], [], &Issuer::parse("https://gw.example").unwrap())
    }

    fn code_of(keys: &Keys, transaction: [u8; 16]) -> String {
        let maker = Maker::named(keys.first());
        keys.authorization_code(maker, &transaction).unwrap()
    }

    fn refresh_token_of(keys: &Keys) -> String {
        let maker = Maker::named(keys.first());
        keys.refresh_token(maker, TOKEN.family, 2, &[9; 16])
            .unwrap()
    }

    const TOKEN: AccessToken = AccessToken {
        family: Family([3; 16]),
        generation: 2,
        expires_at: Timestamp(1_700_000_000),
    };

    #[test]
    fn an_access_token_says_what_it_was_made_of() {
        let text = keys().access_token(&TOKEN);
        assert_eq!(keys().recognise_access_token(&text), Some(TOKEN));
    }

    #[test]
    fn no_changed_access_token_is_recognised() {
        let text = keys().access_token(&TOKEN);
        for index in 0..text.len() {
            for bit in 0..7 {
                let mut changed = text.clone().into_bytes();
                changed[index] ^= 1 << bit;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(
                    keys().recognise_access_token(&changed),
                    None,
                    "{index} {bit}"
                );
            }
        }
        for changed in [
            &text[..text.len() - 1],
            &format!("{text}="),
            &format!("{text}A"),
            "",
        ] {
            assert_eq!(keys().recognise_access_token(changed), None);
        }
    }

    /// Every text that differs from `text` in one character, or in its length by one.
    fn nearly(text: &str) -> impl Iterator<Item = String> {
        let changed = (0..text.len()).flat_map(move |index| {
            (0..7).map(move |bit| {
                let mut changed = text.as_bytes().to_vec();
                changed[index] ^= 1 << bit;
                String::from_utf8(changed).unwrap()
            })
        });
        changed.chain([text[..text.len() - 1].to_owned(), format!("{text}A")])
    }

    #[test]
    fn no_changed_code_is_ours() {
        let code = code_of(&keys(), [5; 16]);
        for changed in nearly(&code) {
            assert!(
                keys().recognise_authorization_code(&changed).is_none(),
                "{changed}"
            );
        }
    }

    fn grant(salt: [u8; 16]) -> Grant {
        Grant {
            generation: 2,
            salt,
            ..Grant::sample()
        }
    }

    #[test]
    fn no_changed_refresh_token_is_genuine_and_none_of_another_salt() {
        let is_genuine = |text: &str, salt| {
            PresentedRefreshToken::parse(text)
                .is_some_and(|presented| keys().maker_of(&presented, &grant(salt)).is_some())
        };
        let text = refresh_token_of(&keys());
        assert!(is_genuine(&text, [9; 16]));
        for changed in nearly(&text) {
            assert!(!is_genuine(&changed, [9; 16]), "{changed}");
        }
        for bit in 0..128 {
            let mut salt = [9; 16];
            salt[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_genuine(&text, salt), "{bit}");
        }
        let elsewhere = Keys::derive(
            &[7; 32],
            [],
            &Issuer::parse("https://other.example").unwrap(),
        );
        assert!(!is_genuine(&refresh_token_of(&elsewhere), [9; 16]));
    }

    #[test]
    fn no_changed_name_of_a_browser_is_known() {
        let (secret, end) = ([4; 32], Timestamp(100));
        let text = keys().known_browser(&[3; 16], &secret, end);
        for changed in nearly(&text) {
            let known = keys().recognise_known_browser(&changed, &secret, Timestamp(0));
            assert_eq!(known, None, "{changed}");
        }
        for bit in 0..256 {
            let mut other = secret;
            other[bit / 8] ^= 1 << (bit % 8);
            let known = keys().recognise_known_browser(&text, &other, Timestamp(0));
            assert_eq!(known, None, "{bit}");
        }
    }

    #[test]
    fn no_changed_sealed_text_opens() {
        let keys = keys();
        let sealed = keys.seal(Purpose::Transaction, b"text", b"cookie");
        for changed in nearly(&sealed) {
            let opened = keys.open(Purpose::Transaction, &changed, b"cookie");
            assert_eq!(opened, None, "{changed}");
        }
    }

    /// What one key makes must be nothing where another one is meant (a text made for one purpose
    /// would otherwise serve another), and nothing at another issuer.
    #[test]
    fn each_kind_of_text_and_each_issuer_has_a_key_of_its_own() {
        let made = |issuer: &str| {
            let keys = Key::derive(&[7; 32], &Issuer::parse(issuer).unwrap());
            let macs = [
                &keys.access,
                &keys.refresh,
                &keys.code,
                &keys.family,
                &keys.nonce,
                &keys.deployment,
                &keys.known_browser,
            ];
            let mut made: Vec<_> = macs.iter().map(|key| tag(key, &[]).to_vec()).collect();
            for purpose in [Purpose::Transaction, Purpose::McpSession] {
                let mut text = vec![0; 32];
                let nonce = Nonce::from([0; NONCE]);
                let sealed = keys.aead(purpose).encrypt_in_place(&nonce, b"", &mut text);
                sealed.unwrap();
                made.push(text);
            }
            made
        };
        let all = [made("https://gw.example"), made("https://other.example")].concat();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), 18);
    }

    #[test]
    fn a_code_names_the_same_family_each_time_and_each_code_another() {
        let family = |transaction: u8| {
            keys()
                .recognise_authorization_code(&code_of(&keys(), [transaction; 16]))
                .unwrap()
        };
        assert_eq!(family(1), family(1));
        for byte in 0..16 {
            assert_ne!(family(1).0[byte], family(2).0[byte], "{byte}");
        }
    }

    #[test]
    fn a_code_is_known_by_its_key_alone() {
        let code = code_of(&keys(), [5; 16]);
        assert!(keys().recognise_authorization_code(&code).is_some());
        assert_eq!(code, code_of(&keys(), [5; 16]));
        let elsewhere = Keys::derive(&[8; 32], [], &Issuer::parse("https://gw.example").unwrap());
        assert!(elsewhere.recognise_authorization_code(&code).is_none());
        for other in [
            "",
            "hello",
            CODE,
            &code[5..],
            &code[..code.len() - 1],
            &code.replace("mopc", "mopr"),
        ] {
            assert!(
                keys().recognise_authorization_code(other).is_none(),
                "{other}"
            );
        }
    }

    #[test]
    fn a_token_of_another_deployment_is_foreign() {
        let text = keys().access_token(&TOKEN);
        let elsewhere = Keys::derive(
            &[7; 32],
            [],
            &Issuer::parse("https://other.example").unwrap(),
        );
        assert_eq!(elsewhere.recognise_access_token(&text), None);
    }

    #[test]
    fn a_known_browser_is_known_for_its_secret_and_time_only() {
        let (browser, secret, end) = ([3; 16], [4; 32], Timestamp(100));
        let text = keys().known_browser(&browser, &secret, end);
        let known =
            |text: &str, secret, now| keys().recognise_known_browser(text, secret, Timestamp(now));
        assert_eq!(known(&text, &secret, 99), Some(browser));
        assert_eq!(known(&text, &secret, 100), None);
        assert_eq!(known(&text, &[5; 32], 99), None);
        let later = keys().known_browser(&browser, &secret, Timestamp(200));
        assert_eq!(
            known(&format!("{}{}", &later[..37], &text[37..]), &secret, 99),
            None
        );
        assert_eq!(known("", &secret, 99), None);
    }

    #[test]
    fn a_sealed_text_opens_for_its_purpose_and_context_only() {
        let keys = keys();
        let sealed = keys.seal(Purpose::McpSession, b"id", b"alice");
        let open = |purpose, text: &str, context: &[u8]| {
            keys.open(purpose, text, context).map(|(plain, _)| plain)
        };
        assert_eq!(
            open(Purpose::McpSession, &sealed, b"alice"),
            Some(b"id".to_vec())
        );
        assert_eq!(open(Purpose::McpSession, &sealed, b"bob"), None);
        assert_eq!(open(Purpose::Transaction, &sealed, b"alice"), None);
        assert_eq!(open(Purpose::McpSession, &sealed[1..], b"alice"), None);
        // Without the name of its key it is another text.
        let (_, unnamed) = sealed.split_once('.').unwrap();
        assert_eq!(open(Purpose::McpSession, unnamed, b"alice"), None);
        assert_eq!(open(Purpose::McpSession, "", b"alice"), None);
    }

    #[test]
    fn the_same_text_seals_to_the_same_and_no_other_does() {
        let keys = keys();
        let sealed = keys.seal(Purpose::McpSession, b"id", b"alice");
        assert_eq!(sealed, keys.seal(Purpose::McpSession, b"id", b"alice"));
        for (plain, context) in [
            (b"i".as_slice(), b"dalice".as_slice()),
            (b"id", b"bob"),
            (b"di", b"alice"),
        ] {
            assert_ne!(
                sealed[..25],
                keys.seal(Purpose::McpSession, plain, context)[..25]
            );
        }
    }

    /// What 0.1.0 made, which named no key.
    const OLD: Maker = Maker {
        key: KeyId([0; ID]),
        is_named: false,
    };

    #[test]
    fn every_text_is_known_to_a_ring_that_has_its_key_and_to_no_other() {
        let issuer = Issuer::parse("https://gw.example").unwrap();
        let old = Keys::derive(&[8; 32], [], &issuer);
        let rotated = Keys::derive(&[7; 32], [&[8; 32]], &issuer);
        let dropped = keys();
        let (secret, end) = ([4; 32], Timestamp(100));
        let access = old.access_token(&TOKEN);
        let code = code_of(&old, [5; 16]);
        let refresh = refresh_token_of(&old);
        let browser = old.known_browser(&[3; 16], &secret, end);
        let sealed = old.seal(Purpose::McpSession, b"id", b"alice");
        let presented = PresentedRefreshToken::parse(&refresh).unwrap();
        for (keys, knows) in [(&old, true), (&rotated, true), (&dropped, false)] {
            assert_eq!(keys.recognise_access_token(&access).is_some(), knows);
            assert_eq!(keys.recognise_authorization_code(&code).is_some(), knows);
            assert_eq!(keys.maker_of(&presented, &grant([9; 16])).is_some(), knows);
            let known = keys.recognise_known_browser(&browser, &secret, Timestamp(0));
            assert_eq!(known.is_some(), knows);
            let opened = keys.open(Purpose::McpSession, &sealed, b"alice");
            assert_eq!(opened.is_some(), knows);
            for text in [&access, &code, &refresh, &sealed] {
                let unknown = (!knows).then_some(old.first());
                assert_eq!(keys.unknown_key(text), unknown, "{text}");
            }
        }
        // The new key makes, and what follows from a text of the old one is the old one's.
        assert_ne!(rotated.access_token(&TOKEN), access);
        assert_eq!(
            rotated.recognise_authorization_code(&code),
            old.recognise_authorization_code(&code)
        );
        let maker = rotated.maker_of(&presented, &grant([9; 16])).unwrap();
        assert_eq!(maker, Maker::named(old.first()));
        let again = rotated.refresh_token(maker, TOKEN.family, 2, &[9; 16]);
        assert_eq!(again, Some(refresh));
        let (_, maker) = rotated
            .open(Purpose::McpSession, &sealed, b"alice")
            .unwrap();
        assert_eq!(rotated.authorization_code(maker, &[5; 16]), Some(code));
        assert_eq!(dropped.authorization_code(maker, &[5; 16]), None);
        for text in ["", "hello", ".", "zz.zz", CODE, "mopa_AAAA"] {
            assert_eq!(keys().unknown_key(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_without_the_name_of_a_key_is_tried_with_each() {
        let issuer = Issuer::parse("https://gw.example").unwrap();
        let rotated = Keys::derive(&[7; 32], [&[8; 32]], &issuer);
        let maker = Maker {
            key: KeyId::of(&[8; 32]),
            ..OLD
        };
        let code = rotated.authorization_code(maker, &[5; 16]).unwrap();
        assert_eq!(code.len(), CODE.len() + 64);
        assert!(rotated.recognise_authorization_code(&code).is_some());
        assert_eq!(keys().recognise_authorization_code(&code), None);
        let refresh = rotated.refresh_token(maker, TOKEN.family, 2, &[9; 16]);
        let presented = PresentedRefreshToken::parse(&refresh.unwrap()).unwrap();
        assert_eq!(rotated.maker_of(&presented, &grant([9; 16])), Some(maker));
        assert_eq!(keys().maker_of(&presented, &grant([9; 16])), None);
        assert_eq!(keys().unknown_key(&code), None);
    }

    #[test]
    fn the_name_of_a_key_is_read_as_it_is_written() {
        let id = KeyId::of(&[7; 32]);
        assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        assert_ne!(id, KeyId::of(&[8; 32]));
        assert_eq!(KeyId::parse("000000ab"), Some(KeyId([0, 0, 0, 0xab])));
        for text in ["", "ab", "+00000ab", "0000000ab", "000000AB", "000000ab "] {
            assert_eq!(KeyId::parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_made_up_is_recognised(text in "(mop[arc]_)?[A-Za-z0-9_-]{0,100}") {
            proptest::prop_assert!(keys().recognise_access_token(&text).is_none());
        }
    }
}
