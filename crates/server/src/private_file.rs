//! Small files in the data directory that only their owner may read, each written once.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use protocol::ports::Entropy;

/// Creates `directory`, and what it stands in, for its owner alone. One that exists stays as it
/// is.
pub(crate) fn create_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// What stands in a file, and who else can get at it.
pub(crate) struct Content {
    pub(crate) text: String,
    /// Whether its mode lets anyone but its owner read, write or run it.
    pub(crate) is_shared: bool,
}

/// Reads the file at `path`. `None`: there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Content>> {
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

/// Writes a new file at `path`, complete or not at all. `false`: there was one already, perhaps
/// from another process a moment ago, and it stays as it is.
pub(crate) fn create(path: &Path, text: &str, entropy: &dyn Entropy) -> io::Result<bool> {
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
    match path.parent() {
        Some(directory) if directory != Path::new("") => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
