//! Small files in the data directory that only their owner may read, each written once.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use protocol::ports::Entropy;

/// One of these files, there or not.
#[derive(Clone, Debug)]
pub(crate) struct PrivateFile {
    /// What people call it: `the key file`.
    what: &'static str,
    path: PathBuf,
}

/// Why one of these files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    #[error("the data directory {} cannot be created", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    #[error("{what} {} cannot be read", .path.display())]
    Read {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{what} {} cannot be written", .path.display())]
    Write {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{what} {} can be read or changed by other users", .path.display())]
    Shared { what: &'static str, path: PathBuf },
}

impl PrivateFileError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Directory(path, _) => format!(
                "create {} for the user that runs this program, or set data_dir to a directory where it may write",
                path.display()
            ),
            Self::Write { path, .. } => format!(
                "let the user that runs this program write to {}, or set data_dir to a directory where it may",
                directory_of(path).display()
            ),
            Self::Read { path, .. } => format!(
                "let the user that runs this program read {}",
                path.display()
            ),
            Self::Shared { path, .. } => format!("chmod 600 {}", path.display()),
        }
    }
}

impl PrivateFile {
    pub(crate) fn new(what: &'static str, path: PathBuf) -> Self {
        Self { what, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in it, if only its owner can get at it. `None`: there is no such file.
    pub(crate) fn read(&self) -> Result<Option<String>, PrivateFileError> {
        let Self { what, path } = self.clone();
        match read(&path) {
            Ok(Some(content)) if content.is_shared => Err(PrivateFileError::Shared { what, path }),
            Ok(content) => Ok(content.map(|content| content.text)),
            Err(source) => Err(PrivateFileError::Read { what, path, source }),
        }
    }

    /// Writes it anew, complete or not at all, in a directory that is made if need be. `false`:
    /// there was one already, perhaps from another process a moment ago, and it stays as it is.
    pub(crate) fn create(
        &self,
        text: &str,
        entropy: &dyn Entropy,
    ) -> Result<bool, PrivateFileError> {
        let directory = directory_of(&self.path);
        create_directory(directory)
            .map_err(|error| PrivateFileError::Directory(directory.to_owned(), error))?;
        create(&self.path, text, entropy).map_err(|error| self.unwritable(error))
    }

    pub(crate) fn unwritable(&self, source: io::Error) -> PrivateFileError {
        let Self { what, path } = self.clone();
        PrivateFileError::Write { what, path, source }
    }
}

/// Creates `directory`, and what it stands in, for its owner alone. One that exists stays as it
/// is.
fn create_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// What stands in a file, and who else can get at it.
struct Content {
    text: String,
    /// Whether its mode lets anyone but its owner read, write or run it.
    is_shared: bool,
}

/// Reads the file at `path`. `None`: there is none.
fn read(path: &Path) -> io::Result<Option<Content>> {
    /// Longer than anything that this program writes here.
    const MAX_LENGTH: u64 = 4096;

    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // The mode of what was opened, not of what may stand at the path a moment later.
    let is_shared = file.metadata()?.permissions().mode() & 0o077 != 0;
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text)?;
    Ok(Some(Content { text, is_shared }))
}

/// Writes a new file at `path`. `false`: there was one already.
fn create(path: &Path, text: &str, entropy: &dyn Entropy) -> io::Result<bool> {
    let mut unique = [0; 8];
    entropy.fill(&mut unique);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}", u64::from_be_bytes(unique)));
    let temporary = Path::new(&temporary);

    let written = write_new(temporary, text);
    // A link, because unlike a rename it never replaces the file of another process.
    let linked = written.and_then(|()| fs::hard_link(temporary, path));
    let removed = fs::remove_file(temporary);
    match linked {
        Ok(()) => {
            removed?;
            sync_directory_of(path)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the new name survive a loss of power.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}
