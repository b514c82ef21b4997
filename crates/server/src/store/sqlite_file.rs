//! The file of a SQLite store: resolved, locked against a second process, and looked at before
//! SQLite may touch it, which would make a new database of an empty file without a word.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sqlx::{ConnectOptions, any::AnyConnectOptions};
use url::Url;

use super::OpenError;

/// The first bytes of every SQLite 3 database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// What SQLite may leave beside a database. Parts of an interrupted creation, when beside a
/// draft.
const COMPANIONS: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// A file that this process alone may use, until it is dropped.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    /// Held, never read: the lock ends at the latest with the process.
    lock: File,
}

impl SqliteFile {
    /// Takes the lock beside `path`.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let inaccessible = |reason| OpenError::Inaccessible {
            file: path.to_owned(),
            reason,
        };
        // Through links to the real place, or two names of one file would have two locks.
        let path = resolve(path).map_err(inaccessible)?;
        if path.to_str().is_none() {
            return Err(OpenError::NotUtf8 { file: path });
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(beside(&path, ".lock"))
            .map_err(inaccessible)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { file: path }),
            Err(TryLockError::Error(reason)) => Err(inaccessible(reason)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path, for people.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// How to open the database, which must exist.
    pub(super) fn options(&self) -> Result<AnyConnectOptions, OpenError> {
        options(&self.path)
    }

    /// Whether there is a database. A file that cannot be one is refused.
    pub(super) fn exists(&self) -> Result<bool, OpenError> {
        let file = || self.path.clone();
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => {
                let log = beside(&self.path, "-wal");
                if log.exists() {
                    return Err(OpenError::OnlyTheLog { file: file(), log });
                }
                return Ok(false);
            }
            Err(reason) => return Err(self.inaccessible(reason)),
        };
        if !metadata.is_file() {
            return Err(OpenError::NotAFile { file: file() });
        }
        if metadata.len() == 0 {
            return Err(OpenError::Empty { file: file() });
        }
        // For writing too: SQLite would open a write-protected file without complaint.
        let mut database = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.path)
            .map_err(|reason| self.inaccessible(reason))?;
        let mut start = [0; MAGIC.len()];
        match database.read_exact(&mut start) {
            Ok(()) if start == *MAGIC => Ok(true),
            Ok(()) => Err(OpenError::NotADatabase { file: file() }),
            Err(reason) if reason.kind() == io::ErrorKind::UnexpectedEof => {
                Err(OpenError::NotADatabase { file: file() })
            }
            Err(reason) => Err(self.inaccessible(reason)),
        }
    }

    /// A new empty file beside the database, to become the database once it is complete.
    pub(super) fn draft(&self) -> Result<Draft<'_>, OpenError> {
        let path = beside(&self.path, ".new");
        for companion in COMPANIONS {
            match fs::remove_file(beside(&path, companion)) {
                Err(reason) if reason.kind() != io::ErrorKind::NotFound => {
                    return Err(self.inaccessible(reason));
                }
                _ => {}
            }
        }
        // Before SQLite opens it: what SQLite puts beside a file later has the mode of the file.
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|reason| self.inaccessible(reason))?;
        Ok(Draft { of: self, path })
    }

    fn inaccessible(&self, reason: io::Error) -> OpenError {
        OpenError::Inaccessible {
            file: self.path.clone(),
            reason,
        }
    }
}

/// A database in the making. A process that dies half way leaves this, never half a database.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    of: &'a SqliteFile,
    path: PathBuf,
}

impl Draft<'_> {
    pub(super) fn options(&self) -> Result<AnyConnectOptions, OpenError> {
        options(&self.path)
    }

    /// Puts the finished database, closed by SQLite, in its place.
    pub(super) fn publish(self) -> Result<(), OpenError> {
        fs::rename(&self.path, &self.of.path)
            .and_then(|()| {
                // Or a power cut could undo the new name while keeping what is written later.
                File::open(self.of.path.parent().unwrap_or(Path::new("/")))?.sync_all()
            })
            .map_err(|reason| self.of.inaccessible(reason))
    }
}

/// The absolute path of a file that may not exist yet, in a directory that does.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(path) {
        // A link that leads nowhere is an error: behind it was a database once.
        Ok(_) => fs::canonicalize(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let directory = match path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            Ok(fs::canonicalize(directory)?.join(name))
        }
        Err(error) => Err(error),
    }
}

/// The path with `suffix` behind its file name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut text = OsString::from(path);
    text.push(OsStr::new(suffix));
    text.into()
}

/// How to look into the database at `path`, which may belong to another process, so that nothing is
/// created or changed. `None`: there is none.
pub(super) fn look_into(path: &Path) -> Result<Option<AnyConnectOptions>, OpenError> {
    let Ok(path) = fs::canonicalize(path) else {
        return Ok(None);
    };
    // Without a log nobody has it open, and SQLite need not make the files of one.
    let mode = if beside(&path, "-wal").exists() {
        "ro"
    } else {
        "ro&immutable=true"
    };
    options_for(&path, mode).map(Some)
}

/// Without `mode=rwc`, SQLite makes no file: one that has vanished is an error.
fn options(path: &Path) -> Result<AnyConnectOptions, OpenError> {
    options_for(path, "rw")
}

fn options_for(path: &Path, mode: &str) -> Result<AnyConnectOptions, OpenError> {
    let not_utf8 = || OpenError::NotUtf8 {
        file: path.to_owned(),
    };
    // The URL carries percent signs and question marks of the path through the driver's parser.
    let url = Url::from_file_path(path).map_err(|()| not_utf8())?;
    format!("sqlite://{}?mode={mode}", url.path())
        .parse()
        .map(AnyConnectOptions::disable_statement_logging)
        .map_err(|_| not_utf8())
}

impl Drop for SqliteFile {
    /// Gives the lock back by name. To close the file would not do while a process that was just
    /// forked, and is about to run another program, has it open too.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the lock beside the database was not given back");
        }
    }
}
