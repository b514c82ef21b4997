//! Small files in the data directory that only their owner may read, each written once.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use protocol::ports::Entropy;
use rustix::process::{Gid, getegid, geteuid, getgroups};

/// One of these files, there or not.
#[derive(Clone, Debug)]
pub(crate) struct PrivateFile {
    /// What people call it: `the key file`.
    what: &'static str,
    path: PathBuf,
    /// What to do where its owner and its mode are not the operator's to choose.
    otherwise: String,
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
    Shared {
        what: &'static str,
        path: PathBuf,
        otherwise: String,
    },
    #[error("{what} {} belongs to another user", .path.display())]
    OfAnother {
        what: &'static str,
        path: PathBuf,
        otherwise: String,
    },
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
            Self::Shared {
                path, otherwise, ..
            } => format!(
                "chmod 600 {}; where a platform or a file system sets the mode, {otherwise}",
                path.display()
            ),
            Self::OfAnother {
                path, otherwise, ..
            } => format!(
                "look at who wrote {path}; if it is as it should be, make the user that runs this program its owner, as with `chown`; where that cannot be, {otherwise}",
                path = path.display()
            ),
        }
    }
}

impl PrivateFile {
    /// `otherwise` is what to do where its owner and its mode are not the operator's to choose.
    pub(crate) fn new(what: &'static str, path: PathBuf, otherwise: String) -> Self {
        Self {
            what,
            path,
            otherwise,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in it, if only its owner can get at it, or the group that this program is in.
    /// `None`: there is no such file.
    pub(crate) fn read(&self) -> Result<Option<String>, PrivateFileError> {
        let Self {
            what,
            path,
            otherwise,
        } = self.clone();
        let content = match read(&path) {
            Ok(None) => return Ok(None),
            Ok(Some(content)) => content,
            Err(source) => return Err(PrivateFileError::Read { what, path, source }),
        };
        if !content.is_ours {
            return Err(PrivateFileError::OfAnother {
                what,
                path,
                otherwise,
            });
        }
        match content.others {
            Others::None => {}
            Others::Group => tracing::warn!(
                file = %path.display(),
                "{what} can be read or changed by everybody in its group, which this program is in: chmod 600 it, unless a platform sets the mode and nobody else is in that group"
            ),
            Others::Everybody => {
                return Err(PrivateFileError::Shared {
                    what,
                    path,
                    otherwise,
                });
            }
        }
        Ok(Some(content.text))
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

    /// Writes it anew in place of the one that is there, complete or not at all.
    pub(crate) fn replace(
        &self,
        text: &str,
        entropy: &dyn Entropy,
    ) -> Result<(), PrivateFileError> {
        replace(&self.path, text, entropy).map_err(|error| self.unwritable(error))
    }

    pub(crate) fn unwritable(&self, source: io::Error) -> PrivateFileError {
        let Self { what, path, .. } = self.clone();
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
    others: Others,
    /// Whether it was put there by us, or by root.
    is_ours: bool,
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
    // Of what was opened, not of what may stand at the path a moment later.
    let metadata = file.metadata()?;
    // A link may lead to it, as to a secret that is mounted, but not one of somebody else's.
    let owners = [metadata.uid(), fs::symlink_metadata(path)?.uid()];
    let user = geteuid().as_raw();
    let others = others(&metadata, user, &own_groups());
    let is_ours = owners.iter().all(|owner| is_trusted(*owner, user));
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text)?;
    Ok(Some(Content {
        text,
        others,
        is_ours,
    }))
}

/// Whether what `owner` wrote may be relied on by `user`.
fn is_trusted(owner: u32, user: u32) -> bool {
    const ROOT: u32 = 0;
    owner == user || owner == ROOT
}

/// Who can get at a file or into a directory, beside its owner and this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    None,
    /// A group that this program is in: a volume of a container is often given to one.
    Group,
    /// Any user, or a group that this program is not in.
    Everybody,
}

/// Who else can read, write or run a file.
fn others(file: &Metadata, user: u32, groups: &[u32]) -> Others {
    let mode = file.permissions().mode();
    // Only by the group's right to read is a secret of root's there for this program at all.
    let is_lent = mode & 0o070 == 0o040 && file.uid() != user;
    match (mode & 0o007, mode & 0o070) {
        (0, 0) => Others::None,
        (0, _) if !groups.contains(&file.gid()) => Others::Everybody,
        (0, _) if is_lent => Others::None,
        (0, _) => Others::Group,
        _ => Others::Everybody,
    }
}

fn own_groups() -> Vec<u32> {
    let mut groups = getgroups().unwrap_or_default();
    groups.push(getegid());
    groups.into_iter().map(Gid::as_raw).collect()
}

/// Who else may remove what is in `directory`, or put something there in its place. One that is not
/// there yet is made for its owner alone.
pub(crate) fn others_in(directory: &Path) -> Others {
    const EACH_THEIR_OWN: u32 = 0o1000;
    let Ok(metadata) = fs::metadata(directory) else {
        return Others::None;
    };
    let mode = metadata.permissions().mode();
    match (mode & 0o002, mode & 0o020) {
        _ if mode & EACH_THEIR_OWN != 0 => Others::None,
        (0, 0) => Others::None,
        (0, _) if own_groups().contains(&metadata.gid()) => Others::Group,
        _ => Others::Everybody,
    }
}

/// Writes a new file at `path`. `false`: there was one already.
fn create(path: &Path, text: &str, entropy: &dyn Entropy) -> io::Result<bool> {
    let temporary = temporary(path, entropy);
    let written = write_new(&temporary, text);
    // A link, because unlike a rename it never replaces the file of another process.
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
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

/// Puts a new file in the place of the one at `path`, or of the one that a link there leads to.
fn replace(path: &Path, text: &str, entropy: &dyn Entropy) -> io::Result<()> {
    let path = &fs::canonicalize(path)?;
    let temporary = temporary(path, entropy);
    let replaced = write_new(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = replaced {
        // Whether there was anything to remove or not, the first error is the one that counts.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory_of(path)
}

/// A name beside `path` that nobody has.
fn temporary(path: &Path, entropy: &dyn Entropy) -> PathBuf {
    let mut unique = [0; 8];
    entropy.fill(&mut unique);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:016x}", u64::from_be_bytes(unique)));
    name.into()
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn only_root_and_the_user_itself_are_relied_on() {
        for (owner, user, is_relied_on) in [
            (0, 0, true),
            (0, 1000, true),
            (1000, 1000, true),
            (1000, 0, false),
            (1001, 1000, false),
        ] {
            assert_eq!(is_trusted(owner, user), is_relied_on, "{owner} by {user}");
        }
    }

    #[test]
    fn what_another_user_put_there_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_new(&path, "x").unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        let read = |path: &Path| file(path).read();
        for path in [&path, &link] {
            assert_eq!(read(path).unwrap().as_deref(), Some("x"));
        }
        let nobody = Some(65534);
        if std::os::unix::fs::lchown(&link, nobody, None).is_err() {
            // Only root can give a file away.
            assert!(!geteuid().is_root());
            return;
        }
        let refused = |path: &Path| matches!(read(path), Err(PrivateFileError::OfAnother { .. }));
        assert!(refused(&link) && !refused(&path));
        chown(&path, nobody, None).unwrap();
        assert!(refused(&path));
        chown(&path, Some(0), None).unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("x"));
    }

    fn file(path: &Path) -> PrivateFile {
        PrivateFile::new("the file", path.to_owned(), "do otherwise".to_owned())
    }

    /// Case 28: a volume whose files a platform gives to the group that the program runs in. The
    /// neighbours: another group, a secret of root's that is lent to the group, the world.
    #[test]
    fn a_group_that_this_program_is_in_is_not_the_world() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_new(&path, "x").unwrap();
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        let (own, foreign) = ([group, group + 1], [group + 1]);
        let judged = |mode, user, groups: &[u32]| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            others(&fs::metadata(&path).unwrap(), user, groups)
        };
        for (mode, expected) in [
            (0o600, Others::None),
            (0o400, Others::None),
            (0o660, Others::Group),
            (0o640, Others::Group),
            (0o620, Others::Group),
            (0o604, Others::Everybody),
            (0o644, Others::Everybody),
            (0o666, Others::Everybody),
            (0o777, Others::Everybody),
        ] {
            assert_eq!(judged(mode, user, &own), expected, "{mode:o}");
            let of_foreign = match expected {
                Others::None => Others::None,
                _ => Others::Everybody,
            };
            assert_eq!(judged(mode, user, &foreign), of_foreign, "{mode:o}");
        }
        assert_eq!(judged(0o440, user + 1, &own), Others::None);
        assert_eq!(judged(0o460, user + 1, &own), Others::Group);
        assert_eq!(judged(0o440, user + 1, &foreign), Others::Everybody);
        assert_eq!(judged(0o444, user + 1, &own), Others::Everybody);
    }

    #[test]
    fn a_directory_is_open_where_others_may_replace_what_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, expected) in [
            (0o700, Others::None),
            (0o755, Others::None),
            (0o1777, Others::None),
            (0o777, Others::Everybody),
            (0o2775, Others::Group),
            (0o2770, Others::Group),
        ] {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(directory.path(), permissions).unwrap();
            assert_eq!(others_in(directory.path()), expected, "{mode:o}");
        }
        assert_eq!(others_in(&directory.path().join("none")), Others::None);
    }
}
