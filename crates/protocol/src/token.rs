//! Tokens: making, recognising and sealing them. Nobody else knows what they look like.
//!
//! A token that a client holds is a name and a MAC. Nothing of it is stored: what it names is,
//! and a refresh token can be computed again, so that the same answer can be given twice.

use std::fmt;

use aes_gcm::{Aes256Gcm, KeyInit, Nonce, aead::AeadInOut};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
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

const MAC: usize = 32;
const NONCE: usize = 12;
/// The AEAD's tag, in bytes.
const TAG: usize = 16;

/// The keys of one deployment, all derived from its key file and its issuer: a token of another
/// deployment is as foreign as a forged one, even with the same key file.
pub struct Keys {
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
    mac: [u8; MAC],
}

impl Keys {
    /// Derives the keys from the 32 bytes of the key file.
    pub fn derive(master: &[u8; 32], issuer: &Issuer) -> Self {
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

    /// A name of this deployment, which says nothing else of it.
    pub fn deployment(&self) -> String {
        encode(&tag(&self.deployment, &[])[..16])
    }

    /// The authorization code that an approval of `transaction` gives. The same each time, so that
    /// a form sent twice gives one code.
    pub fn authorization_code(&self, transaction: &[u8; 16]) -> String {
        let mut bytes = transaction.to_vec();
        bytes.extend(tag(&self.code, &[transaction]));
        format!("{CODE}{}", encode(&bytes))
    }

    /// Whether a text is a code that we made; what it is for is in the store.
    pub fn is_authorization_code(&self, text: &str) -> bool {
        let code = text.strip_prefix(CODE).and_then(decode::<{ 16 + MAC }>);
        code.is_some_and(|bytes| {
            let (transaction, mac) = bytes.split_at(16);
            let mut expected = self.code.clone();
            expected.update(transaction);
            expected.verify_slice(mac).is_ok()
        })
    }

    /// The family of tokens that `authorization_code` gives, so that redeeming it twice names one
    /// grant.
    pub fn family(&self, authorization_code: &str) -> Family {
        let tag = tag(&self.family, &[authorization_code.as_bytes()]);
        let mut family = [0; 16];
        family.copy_from_slice(&tag[..16]);
        Family(family)
    }

    /// Makes the access token that says what `token` says.
    pub fn access_token(&self, token: &AccessToken) -> String {
        let mut bytes = Vec::with_capacity(28 + MAC);
        bytes.extend(token.family.0);
        bytes.extend(token.generation.to_be_bytes());
        bytes.extend(token.expires_at.0.to_be_bytes());
        let mac = tag(&self.access, &[&bytes]);
        bytes.extend(mac);
        format!("{ACCESS}{}", encode(&bytes))
    }

    /// Recognises an access token of ours. Costs one MAC and allocates nothing.
    pub fn recognise_access_token(&self, text: &str) -> Option<AccessToken> {
        let bytes: [u8; 28 + MAC] = decode(text.strip_prefix(ACCESS)?)?;
        let (said, mac) = bytes.split_at(28);
        let mut expected = self.access.clone();
        expected.update(said);
        expected.verify_slice(mac).ok()?;
        Some(AccessToken {
            family: Family(array(&said[..16])),
            generation: u32::from_be_bytes(array(&said[16..20])),
            expires_at: Timestamp(i64::from_be_bytes(array(&said[20..28]))),
        })
    }

    /// Makes the refresh token of one generation of a grant. Neither the key nor the store alone
    /// is enough to make one.
    pub fn refresh_token(&self, family: Family, generation: u32, salt: &[u8; 16]) -> String {
        let mut bytes = Vec::with_capacity(20 + MAC);
        bytes.extend(family.0);
        bytes.extend(generation.to_be_bytes());
        let mac = tag(&self.refresh, &[&bytes, salt]);
        bytes.extend(mac);
        format!("{REFRESH}{}", encode(&bytes))
    }

    /// Whether a presented refresh token was made for `grant`; takes the same time either way.
    pub fn is_genuine(&self, presented: &PresentedRefreshToken, grant: &Grant) -> bool {
        let mut expected = self.refresh.clone();
        expected.update(&presented.family.0);
        expected.update(&presented.generation.to_be_bytes());
        expected.update(&grant.salt);
        expected.verify_slice(&presented.mac).is_ok()
    }

    /// Names a browser in which the secret of that fingerprint was typed. The name ends with the
    /// secret: after it was changed, no browser is known.
    pub fn known_browser(
        &self,
        browser: &[u8; 16],
        secret: &[u8; 32],
        expires_at: Timestamp,
    ) -> String {
        let mut bytes = browser.to_vec();
        bytes.extend(expires_at.0.to_be_bytes());
        let mac = tag(&self.known_browser, &[&bytes, secret]);
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
        let bytes: [u8; 24 + MAC] = decode(text)?;
        let (said, mac) = bytes.split_at(24);
        let mut expected = self.known_browser.clone();
        expected.update(said);
        expected.update(secret);
        expected.verify_slice(mac).ok()?;
        let expires_at = Timestamp(i64::from_be_bytes(array(&said[16..])));
        (now < expires_at).then(|| array(&said[..16]))
    }

    /// Seals `plain` for `purpose`. Only who knows `context` can open it again. The same text seals
    /// to the same, and only the same: the nonce is a MAC of what is sealed.
    pub fn seal(&self, purpose: Purpose, plain: &[u8], context: &[u8]) -> String {
        let length = u64::try_from(context.len())
            .unwrap_or(u64::MAX)
            .to_be_bytes();
        let nonce: [u8; NONCE] = array(&tag(&self.nonce, &[&length, context, plain])[..NONCE]);
        let mut text = plain.to_vec();
        self.aead(purpose)
            .encrypt_in_place(&Nonce::from(nonce), context, &mut text)
            .expect("a text in memory is shorter than the cipher's limit of 64 GiB");
        let mut sealed = nonce.to_vec();
        sealed.append(&mut text);
        encode(&sealed)
    }

    /// Opens what was sealed for `purpose` with the same `context`.
    pub fn open(&self, purpose: Purpose, sealed: &str, context: &[u8]) -> Option<Vec<u8>> {
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

    fn aead(&self, purpose: Purpose) -> &Aes256Gcm {
        match purpose {
            Purpose::Transaction => &self.transaction,
            Purpose::McpSession => &self.mcp_session,
        }
    }
}

impl PresentedRefreshToken {
    /// Reads a text that may be a refresh token of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 20 + MAC] = decode(text.strip_prefix(REFRESH)?)?;
        Some(Self {
            family: Family(array(&bytes[..16])),
            generation: u32::from_be_bytes(array(&bytes[16..20])),
            mac: array(&bytes[20..]),
        })
    }
}

/// A new client secret with 256 random bits.
pub fn client_secret(entropy: &dyn Entropy) -> String {
    let secret: [u8; 32] = random(entropy);
    format!("{SECRET}{}", encode(&secret))
}

/// A new client id of 128 random bits. The letter in front keeps it from looking like an option on
/// a command line, or like a URL.
pub fn client_id(entropy: &dyn Entropy) -> String {
    format!("c{}", random_name(entropy))
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

/// Decodes base64url that is exactly `N` bytes, written in the one canonical way.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let length = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (length == N).then_some(bytes)
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
    use crate::oauth::{
        identifiers::{ClientId, Resource},
        scope::Scope,
    };

    fn keys() -> Keys {
        Keys::derive(&[7; 32], &Issuer::parse("https://gw.example").unwrap())
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
        let code = keys().authorization_code(&[5; 16]);
        for changed in nearly(&code) {
            assert!(!keys().is_authorization_code(&changed), "{changed}");
        }
    }

    fn grant(salt: [u8; 16]) -> Grant {
        Grant {
            client_id: ClientId::presented("c"),
            subject: "owner".into(),
            resource: Resource::at(&Issuer::parse("https://gw.example").unwrap(), "/mcp"),
            upstream: "one".into(),
            scope: Scope::granted(None).unwrap(),
            needs_key: false,
            created_at: Timestamp(0),
            generation: 2,
            rotated_at: Timestamp(0),
            rotated_with: None,
            access_used: false,
            salt,
            idle_expires_at: Timestamp(9),
            absolute_expires_at: Timestamp(9),
            revoked: None,
        }
    }

    #[test]
    fn no_changed_refresh_token_is_genuine_and_none_of_another_salt() {
        let is_genuine = |text: &str, salt| {
            PresentedRefreshToken::parse(text)
                .is_some_and(|presented| keys().is_genuine(&presented, &grant(salt)))
        };
        let text = keys().refresh_token(TOKEN.family, 2, &[9; 16]);
        assert!(is_genuine(&text, [9; 16]));
        for changed in nearly(&text) {
            assert!(!is_genuine(&changed, [9; 16]), "{changed}");
        }
        for bit in 0..128 {
            let mut salt = [9; 16];
            salt[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_genuine(&text, salt), "{bit}");
        }
        let elsewhere = Keys::derive(&[7; 32], &Issuer::parse("https://other.example").unwrap());
        assert!(!is_genuine(
            &elsewhere.refresh_token(TOKEN.family, 2, &[9; 16]),
            [9; 16]
        ));
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
            let keys = Keys::derive(&[7; 32], &Issuer::parse(issuer).unwrap());
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
        let family =
            |transaction: u8| keys().family(&keys().authorization_code(&[transaction; 16]));
        assert_eq!(family(1), family(1));
        for byte in 0..16 {
            assert_ne!(family(1).0[byte], family(2).0[byte], "{byte}");
        }
    }

    #[test]
    fn a_code_is_known_by_its_key_alone() {
        let code = keys().authorization_code(&[5; 16]);
        assert!(keys().is_authorization_code(&code));
        assert_eq!(code, keys().authorization_code(&[5; 16]));
        let elsewhere = Keys::derive(&[8; 32], &Issuer::parse("https://gw.example").unwrap());
        assert!(!elsewhere.is_authorization_code(&code));
        for other in [
            "",
            "hello",
            CODE,
            &code[5..],
            &code[..code.len() - 1],
            &code.replace("mopc", "mopr"),
        ] {
            assert!(!keys().is_authorization_code(other), "{other}");
        }
    }

    #[test]
    fn a_token_of_another_deployment_is_foreign() {
        let text = keys().access_token(&TOKEN);
        let elsewhere = Keys::derive(&[7; 32], &Issuer::parse("https://other.example").unwrap());
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
            known(&format!("{}{}", &later[..32], &text[32..]), &secret, 99),
            None
        );
        assert_eq!(known("", &secret, 99), None);
    }

    #[test]
    fn a_sealed_text_opens_for_its_purpose_and_context_only() {
        let keys = keys();
        let sealed = keys.seal(Purpose::McpSession, b"id", b"alice");
        let open = |purpose, text: &str, context: &[u8]| keys.open(purpose, text, context);
        assert_eq!(
            open(Purpose::McpSession, &sealed, b"alice"),
            Some(b"id".to_vec())
        );
        assert_eq!(open(Purpose::McpSession, &sealed, b"bob"), None);
        assert_eq!(open(Purpose::Transaction, &sealed, b"alice"), None);
        assert_eq!(open(Purpose::McpSession, &sealed[1..], b"alice"), None);
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
                sealed[..16],
                keys.seal(Purpose::McpSession, plain, context)[..16]
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_made_up_is_recognised(text in "(mop[arc]_)?[A-Za-z0-9_-]{0,100}") {
            proptest::prop_assert!(keys().recognise_access_token(&text).is_none());
        }
    }
}
