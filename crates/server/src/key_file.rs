//! The master keys of this deployment: a file that is made at the first start and then kept, unless
//! the configuration says where it is. Why which file is taken is in docs/decisions/key-file.md, and
//! why it may have several keys in docs/decisions/key-ring.md.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use protocol::{
    oauth::identifiers::Issuer,
    ports::Entropy,
    token::{KeyFingerprint, KeyId, Keys},
};
use secrecy::{ExposeSecret, SecretBox};

use crate::private_file::{PrivateFile, PrivateFileError};

/// The name of the key file in the data directory.
pub const FILE_NAME: &str = "key";

/// What a key file begins with, so that a later format can be told apart.
const PREFIX: &str = "mcp-oauth-proxy-key-1:";

/// A key that tokens are made with and secrets are sealed with. `Debug` does not show it.
#[derive(Debug)]
pub struct MasterKey(SecretBox<[u8; 32]>);

impl MasterKey {
    /// Reads one line of a key file.
    fn parse(line: &str) -> Result<Self, NotAKey> {
        let bytes: [u8; 32] = line
            .strip_prefix(PREFIX)
            .and_then(|encoded| BASE64_URL_SAFE_NO_PAD.decode(encoded).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(NotAKey::Format)?;
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(NotAKey::Placeholder);
        }
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }

    fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(SecretBox::new(Box::new(bytes)))
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::of(self.as_bytes())
    }

    /// Its name, which is no secret.
    pub fn id(&self) -> KeyId {
        self.fingerprint().id()
    }
}

/// The keys of a key file, one in each line. The first makes; each recognises and opens what it made.
#[derive(Debug)]
pub struct KeyRing {
    first: MasterKey,
    others: Vec<MasterKey>,
}

impl KeyRing {
    /// Reads the lines of a key file.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let lines = text.strip_suffix('\n').unwrap_or(text);
        let mut keys = lines
            .split('\n')
            .map(MasterKey::parse)
            .collect::<Result<Vec<_>, _>>()?;
        let ids: BTreeSet<KeyId> = keys.iter().map(MasterKey::id).collect();
        if ids.len() < keys.len() {
            return Err(NotAKey::Twice);
        }
        Ok(Self {
            first: keys.remove(0),
            others: keys,
        })
    }

    /// The key that makes.
    pub fn first(&self) -> &MasterKey {
        &self.first
    }

    /// Every key, the one that makes first.
    pub fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// What the deployment at `issuer` derives from them.
    pub fn derive(&self, issuer: &Issuer) -> Keys {
        let others = self.others.iter().map(MasterKey::as_bytes);
        Keys::derive(self.first.as_bytes(), others, issuer)
    }

    /// The same with a new key in front.
    pub(crate) fn rotated(self, entropy: &dyn Entropy) -> Self {
        let mut others = vec![self.first];
        others.extend(self.others);
        Self {
            first: MasterKey::generate(entropy),
            others,
        }
    }

    /// The same without one that does not make.
    pub(crate) fn without(mut self, id: KeyId) -> Self {
        self.others.retain(|key| key.id() != id);
        self
    }

    /// The lines of a key file.
    fn to_text(&self) -> String {
        let line = |key: &MasterKey| {
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(key.as_bytes());
            format!("{PREFIX}{encoded}\n")
        };
        self.all().map(line).collect()
    }
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    #[error("is not in the format {PREFIX}<43 characters>")]
    Format,
    #[error("holds a placeholder, not a random key")]
    Placeholder,
    #[error("has one key twice")]
    Twice,
}

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("the key file {} {reason}", .path.display())]
    NotAKey { path: PathBuf, reason: NotAKey },
}

impl KeyFileError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(error) => error.hint(),
            Self::NotAKey {
                path,
                reason: NotAKey::Format,
            } => format!(
                "restore {path} from a backup; or remove it to have a new one made, which ends every connection",
                path = path.display()
            ),
            Self::NotAKey {
                path,
                reason: NotAKey::Placeholder,
            } => format!("remove {} to have a random key made", path.display()),
            Self::NotAKey {
                path,
                reason: NotAKey::Twice,
            } => format!("remove one of its two lines from {}", path.display()),
        }
    }
}

/// Takes the master keys from `data_dir`, and makes both if this is the first start. Processes
/// that start at the same time get the same key.
pub fn load_or_create(data_dir: &Path, entropy: &dyn Entropy) -> Result<KeyRing, KeyFileError> {
    let file = key_file(data_dir);
    if let Some(keys) = read(&file)? {
        return Ok(keys);
    }
    let made = KeyRing {
        first: MasterKey::generate(entropy),
        others: Vec::new(),
    };
    if file.create(&made.to_text(), entropy)? {
        return Ok(made);
    }
    // Another process was first: its key is the key.
    read(&file)?.ok_or_else(|| file.unwritable(io::ErrorKind::NotFound.into()).into())
}

fn key_file(data_dir: &Path) -> PrivateFile {
    let path = data_dir.join(FILE_NAME);
    let otherwise = format!(
        "write key = {{ file = {:?} }} into the configuration, which takes it as it is",
        path.display().to_string()
    );
    PrivateFile::new("the key file", path, otherwise)
}

/// The master keys in `data_dir`. `None`: there is no key file.
pub(crate) fn load(data_dir: &Path) -> Result<Option<KeyRing>, KeyFileError> {
    read(&key_file(data_dir))
}

/// Writes the key file in `data_dir` anew, complete or not at all.
pub(crate) fn replace(
    data_dir: &Path,
    keys: &KeyRing,
    entropy: &dyn Entropy,
) -> Result<(), KeyFileError> {
    Ok(key_file(data_dir).replace(&keys.to_text(), entropy)?)
}

fn read(file: &PrivateFile) -> Result<Option<KeyRing>, KeyFileError> {
    let Some(text) = file.read()? else {
        return Ok(None);
    };
    let keys = KeyRing::parse(&text).map_err(|reason| KeyFileError::NotAKey {
        path: file.path().to_owned(),
        reason,
    })?;
    Ok(Some(keys))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
        sync::Barrier,
    };

    use tempfile::TempDir;

    use super::*;
    use crate::system::SystemEntropy;

    fn directory() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn put(data_dir: &Path, text: &str, mode: u32) -> PathBuf {
        let path = data_dir.join(FILE_NAME);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn is_no_key(error: &KeyFileError, why: NotAKey) -> bool {
        matches!(error, KeyFileError::NotAKey { reason, .. } if *reason == why)
    }

    #[test]
    fn the_first_start_makes_a_private_key_and_later_ones_find_it() {
        let directory = directory();
        let data_dir = directory.path().join("a/data");

        let made = load_or_create(&data_dir, &SystemEntropy).unwrap();
        let found = load_or_create(&data_dir, &SystemEntropy).unwrap();

        assert_eq!(made.first().as_bytes(), found.first().as_bytes());
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(mode(&data_dir.join(FILE_NAME)), 0o600);
        let names: Vec<_> = fs::read_dir(&data_dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, [FILE_NAME], "a temporary file was left behind");
    }

    #[test]
    fn another_data_directory_gets_another_key() {
        let (one, other) = (directory(), directory());
        assert_ne!(
            load_or_create(one.path(), &SystemEntropy)
                .unwrap()
                .first()
                .as_bytes(),
            load_or_create(other.path(), &SystemEntropy)
                .unwrap()
                .first()
                .as_bytes(),
        );
    }

    #[test]
    fn starts_at_the_same_time_agree_on_one_key() {
        for _ in 0..20 {
            let directory = directory();
            let together = Barrier::new(8);
            let start = || {
                together.wait();
                *load_or_create(directory.path(), &SystemEntropy)
                    .unwrap()
                    .first()
                    .as_bytes()
            };
            let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
                starts
                    .into_iter()
                    .map(|start| start.join().unwrap())
                    .collect()
            });
            assert!(keys.iter().all(|key| *key == keys[0]));
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = directory();
        load_or_create(directory.path(), &SystemEntropy).unwrap();
        let path = directory.path().join(FILE_NAME);
        for mode in [0o644, 0o604, 0o666, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(directory.path(), &SystemEntropy).unwrap_err();
            assert!(
                matches!(error, KeyFileError::File(PrivateFileError::Shared { .. })),
                "{mode:o}: {error}"
            );
            assert!(error.hint().starts_with("chmod 600 "));
            assert!(error.hint().contains("write key = { file = \""));
        }
        // Case 28: its own group is not the world.
        for mode in [0o400, 0o640, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            load_or_create(directory.path(), &SystemEntropy).unwrap();
        }
    }

    #[test]
    fn a_damaged_key_is_refused_and_stays_as_it_is() {
        let directory = directory();
        let good = format!(
            "{PREFIX}{}",
            BASE64_URL_SAFE_NO_PAD.encode([1, 2].repeat(16))
        );
        for text in [
            "",
            "\n",
            PREFIX,
            &good[..good.len() - 1],
            &format!("{good}A"),
            &format!("{good}\n\n"),
            &good.replace("key-1", "key-2"),
            &good.replace(PREFIX, ""),
        ] {
            let path = put(directory.path(), text, 0o600);
            let error = load_or_create(directory.path(), &SystemEntropy).unwrap_err();
            assert!(is_no_key(&error, NotAKey::Format), "{text:?}: {error}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
        put(directory.path(), &good, 0o600);
        load_or_create(directory.path(), &SystemEntropy).unwrap();
    }

    #[test]
    fn a_placeholder_key_is_refused() {
        let directory = directory();
        for byte in [0, 0x55, 0xff] {
            let text = format!("{PREFIX}{}\n", BASE64_URL_SAFE_NO_PAD.encode([byte; 32]));
            put(directory.path(), &text, 0o600);
            let error = load_or_create(directory.path(), &SystemEntropy).unwrap_err();
            assert!(is_no_key(&error, NotAKey::Placeholder), "{error}");
        }
    }

    #[test]
    fn a_key_file_may_have_several_keys_and_the_first_makes() {
        let line = |byte| {
            let bytes = BASE64_URL_SAFE_NO_PAD.encode([byte, 2].repeat(16));
            format!("{PREFIX}{bytes}\n")
        };
        let text = line(1) + &line(3) + &line(5);
        let keys = KeyRing::parse(&text).unwrap();
        let first: Vec<u8> = keys.all().map(|key| key.as_bytes()[0]).collect();
        assert_eq!(first, [1, 3, 5]);
        assert_eq!(keys.first().as_bytes()[0], 1);
        assert_eq!(keys.to_text(), text);
        let twice = line(1) + &line(3) + &line(1);
        assert_eq!(KeyRing::parse(&twice).unwrap_err(), NotAKey::Twice);
        let gap = line(1) + "\n" + &line(3);
        assert_eq!(KeyRing::parse(&gap).unwrap_err(), NotAKey::Format);
    }

    #[test]
    fn debug_shows_no_key() {
        let key = MasterKey(SecretBox::new(Box::new([77; 32])));
        assert!(!format!("{key:?}").contains("77"));
    }
}
