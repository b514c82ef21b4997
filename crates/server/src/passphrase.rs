//! The passphrase that is generated when the operator chose none: shown once, kept as a hash.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{
    identity::password::{SignIn, hash_generated},
    ports::Entropy,
};
use secrecy::SecretString;

use crate::private_file::{PrivateFile, PrivateFileError};

/// The name of the file in the data directory that keeps the hash.
pub const FILE_NAME: &str = "passphrase.hash";

/// Crockford's base 32: no letter of it looks like another letter or digit of it.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// 32 characters of 5 bits each.
const LENGTH: usize = 32;

/// The generated passphrase of this deployment.
#[derive(Debug)]
pub struct Generated {
    pub sign_in: SignIn,
    /// The passphrase itself, if it was made just now. It is never known again.
    pub fresh: Option<SecretString>,
}

/// Why there is no generated passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    #[error(transparent)]
    File(#[from] PrivateFileError),
    #[error("{} does not hold the hash of a passphrase", .0.display())]
    Format(PathBuf),
}

impl PassphraseError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(error) => error.hint(),
            Self::Format(path) => format!(
                "remove {} to get a new passphrase at the next start",
                path.display()
            ),
        }
    }
}

/// Takes the passphrase's hash from `data_dir`, and makes a passphrase if this is the first
/// start. Of processes that start at the same time one makes it, and the others take its hash.
pub fn load_or_generate(
    data_dir: &Path,
    entropy: &dyn Entropy,
) -> Result<Generated, PassphraseError> {
    let file = PrivateFile::new(
        "the file of the passphrase's hash",
        data_dir.join(FILE_NAME),
        "choose a passphrase of your own: PASSPHRASE in the environment, or sign_in.passphrase"
            .to_owned(),
    );
    if let Some(sign_in) = load(&file)? {
        return Ok(Generated {
            sign_in,
            fresh: None,
        });
    }
    let passphrase = generate(entropy);
    let mut salt = [0; 16];
    entropy.fill(&mut salt);
    let hash = hash_generated(&passphrase, &salt);
    let is_ours = file.create(&format!("{hash}\n"), entropy)?;
    let sign_in = load(&file)?.ok_or_else(|| file.unwritable(io::ErrorKind::NotFound.into()))?;
    Ok(Generated {
        sign_in,
        fresh: is_ours.then(|| passphrase.into()),
    })
}

/// `None`: there is no hash.
fn load(file: &PrivateFile) -> Result<Option<SignIn>, PassphraseError> {
    let Some(text) = file.read()? else {
        return Ok(None);
    };
    SignIn::hashed(text.trim_end())
        .map(Some)
        .map_err(|_| PassphraseError::Format(file.path().to_owned()))
}

fn generate(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; LENGTH];
    entropy.fill(&mut bytes);
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 32)]);
    bytes.iter().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    use secrecy::ExposeSecret;

    use super::*;
    use crate::system::SystemEntropy;

    #[test]
    fn the_passphrase_is_told_once_and_works_ever_after() {
        let directory = tempfile::tempdir().unwrap();

        let first = load_or_generate(directory.path(), &SystemEntropy).unwrap();
        let second = load_or_generate(directory.path(), &SystemEntropy).unwrap();

        let passphrase = first.fresh.unwrap();
        let passphrase = passphrase.expose_secret();
        assert_eq!(passphrase.len(), LENGTH);
        assert!(passphrase.bytes().all(|byte| ALPHABET.contains(&byte)));
        assert!(first.sign_in.is_proved_by(passphrase));
        assert!(second.fresh.is_none());
        assert!(second.sign_in.is_proved_by(passphrase));

        let path = directory.path().join(FILE_NAME);
        assert!(!fs::read_to_string(&path).unwrap().contains(passphrase));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        fs::remove_file(&path).unwrap();
        let third = load_or_generate(directory.path(), &SystemEntropy).unwrap();
        assert!(!third.sign_in.is_proved_by(passphrase));
        assert!(third.fresh.is_some());
    }

    #[test]
    fn every_letter_of_the_alphabet_is_as_likely() {
        let mut seen = [0_u32; 128];
        for _ in 0..1000 {
            for letter in generate(&SystemEntropy).bytes() {
                seen[usize::from(letter)] += 1;
            }
        }
        // 1000 of each are expected; 700 is nine standard deviations away.
        assert!(
            ALPHABET
                .iter()
                .all(|letter| seen[usize::from(*letter)] > 700)
        );
    }

    #[test]
    fn a_hash_that_is_shared_or_damaged_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        fs::write(&path, hash_generated("correct horse", &[7; 16])).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let shared = load_or_generate(directory.path(), &SystemEntropy).unwrap_err();
        assert!(
            matches!(
                shared,
                PassphraseError::File(PrivateFileError::Shared { .. })
            ),
            "{shared}"
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let good = load_or_generate(directory.path(), &SystemEntropy).unwrap();
        assert!(good.sign_in.is_proved_by("correct horse"));

        fs::write(&path, "correct horse").unwrap();
        let damaged = load_or_generate(directory.path(), &SystemEntropy).unwrap_err();
        assert!(matches!(damaged, PassphraseError::Format(_)), "{damaged}");
    }
}
