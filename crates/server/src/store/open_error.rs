//! Why a store could not be opened, said to the person who has to mend it.

use std::{io, path::PathBuf, time::Duration};

use super::migrations::MigrationError;
use crate::config::show_duration;

/// Names the file or server, the reason and the way out. Never carries a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock beside the file.
    #[error(
        "the database {file} is in use by another process; stop that one, or give this one \
         a data_dir of its own"
    )]
    InUse { file: PathBuf },

    /// The operating system said no.
    #[error(
        "the database {file} cannot be opened: {reason}; check that its directory exists and that \
         this user may read and write both"
    )]
    Inaccessible { file: PathBuf, reason: io::Error },

    /// SQLite said no, for a reason that is not damage.
    #[error(
        "the database {file} cannot be opened: {reason}; check that no other program has it open \
         and that its disk is not full"
    )]
    Refused { file: PathBuf, reason: sqlx::Error },

    /// SQLite hands file names around as UTF-8.
    #[error("the path of the database {file} is not UTF-8; choose another data_dir")]
    NotUtf8 { file: PathBuf },

    /// A directory, device or socket.
    #[error("{file} is not a file; choose another data_dir, or move that out of the way")]
    NotAFile { file: PathBuf },

    /// Zero bytes. A store is put in place complete, so this one has lost its content.
    #[error(
        "the database {file} is empty, as no store ever is; restore a backup, or remove the file \
         to begin with an empty store"
    )]
    Empty { file: PathBuf },

    /// The first bytes are not those of SQLite.
    #[error(
        "the file {file} is not a SQLite database, or its beginning is overwritten; restore a \
         backup, or move the file away to begin with an empty store"
    )]
    NotADatabase { file: PathBuf },

    /// A database without our tables.
    #[error(
        "the SQLite database {file} belongs to another program; choose another data_dir, or move \
         the file away"
    )]
    Foreign { file: PathBuf },

    /// A new database would take the old one's log for its own.
    #[error(
        "the database {file} is missing although its log {log} is there; restore both from a \
         backup, or remove the log to begin with an empty store"
    )]
    OnlyTheLog { file: PathBuf, log: PathBuf },

    /// SQLite found pages that contradict each other.
    #[error(
        "the database {file} is damaged: {reason}; restore a backup, or save what is left with \
         `sqlite3 {file} .recover`, or move the file away to begin with an empty store"
    )]
    Damaged { file: PathBuf, reason: String },

    /// The file system lacks what the write-ahead log needs.
    #[error(
        "the database {file} cannot keep a write-ahead log where it is (journal mode {mode}); \
         choose a data_dir on a local disk"
    )]
    NoWriteAheadLog { file: PathBuf, mode: String },

    /// The configured address of the server makes no sense. The address itself stays unsaid: it
    /// may hold a password.
    #[error(
        "store is not a PostgreSQL URL: {reason}; write postgres://user:password@host/database"
    )]
    Url { reason: String },

    /// No session with the server.
    #[error(
        "the PostgreSQL server {server} cannot be used: {reason}; check store, and that the server \
         runs and lets this user in"
    )]
    Unreachable { server: String, reason: sqlx::Error },

    /// The server accepts and says nothing.
    #[error(
        "the PostgreSQL server {server} did not answer within {}; check store and the network \
         between", show_duration(*.patience)
    )]
    Silent { server: String, patience: Duration },

    /// A standby answers with what was true a while ago.
    #[error("the PostgreSQL server {server} only lets read; name the primary in store")]
    ReadOnly { server: String },

    /// A later release has been here.
    #[error(
        "the store {store} has schema {found}, and this program knows {known} at most; run the \
         newer release again, or restore a backup from before it"
    )]
    Newer {
        store: String,
        found: i64,
        known: i64,
    },

    /// The tables could not be made or changed; they are as they were.
    #[error(
        "the tables of the store {store} could not be set up: {reason}; check that this user may \
         create tables there"
    )]
    Tables { store: String, reason: sqlx::Error },
}

impl OpenError {
    /// What stopped the migration of `store`.
    pub(super) fn migration(store: impl Into<String>, error: MigrationError) -> Self {
        let store = store.into();
        match error {
            MigrationError::Newer { found, known } => Self::Newer {
                store,
                found,
                known,
            },
            MigrationError::Database(reason) => Self::Tables { store, reason },
        }
    }
}
