//! The master key of this deployment: a file that is made at the first start and then kept, unless
//! the configuration says where it is. Why which file is taken is in docs/decisions/key-file.md.

use std::{
    io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use protocol::ports::Entropy;
use secrecy::{ExposeSecret, SecretBox};

use crate::private_file::{PrivateFile, PrivateFileError};

/// The name of the key file in the data directory.
pub const FILE_NAME: &str = "key";

/// What a key file begins with, so that a later format can be told apart.
const PREFIX: &str = "mcp-oauth-proxy-key-1:";

/// The key that every token is made with and every sealed secret is sealed with. `Debug` does
/// not show it.
#[derive(Debug)]
pub struct MasterKey(SecretBox<[u8; 32]>);

impl MasterKey {
    /// Reads the line that a key file has.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        let line = text.strip_suffix('\n').unwrap_or(text);
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

    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    #[error("is not in the format {PREFIX}<43 characters>")]
    Format,
    #[error("holds a placeholder, not a random key")]
    Placeholder,
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
        }
    }
}

/// Takes the master key from `data_dir`, and makes both if this is the first start. Processes
/// that start at the same time get the same key.
pub fn load_or_create(data_dir: &Path, entropy: &dyn Entropy) -> Result<MasterKey, KeyFileError> {
    let path = data_dir.join(FILE_NAME);
    let otherwise = format!(
        "write key = {{ file = {:?} }} into the configuration, which takes it as it is",
        path.display().to_string()
    );
    let file = PrivateFile::new("the key file", path, otherwise);
    if let Some(key) = load(&file)? {
        return Ok(key);
    }
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    let text = format!("{PREFIX}{}\n", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    if file.create(&text, entropy)? {
        return Ok(MasterKey(SecretBox::new(Box::new(bytes))));
    }
    // Another process was first: its key is the key.
    load(&file)?.ok_or_else(|| file.unwritable(io::ErrorKind::NotFound.into()).into())
}

/// `None`: there is no key file.
fn load(file: &PrivateFile) -> Result<Option<MasterKey>, KeyFileError> {
    let Some(text) = file.read()? else {
        return Ok(None);
    };
    let key = MasterKey::parse(&text).map_err(|reason| KeyFileError::NotAKey {
        path: file.path().to_owned(),
        reason,
    })?;
    Ok(Some(key))
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

        assert_eq!(made.as_bytes(), found.as_bytes());
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
                .as_bytes(),
            load_or_create(other.path(), &SystemEntropy)
                .unwrap()
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
    fn debug_shows_no_key() {
        let key = MasterKey(SecretBox::new(Box::new([77; 32])));
        assert!(!format!("{key:?}").contains("77"));
    }
}
