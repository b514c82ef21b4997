//! Opening a SQLite store.

use std::path::Path;

use sqlx::{AnyConnection, Connection, any::AnyPoolOptions, raw_sql};
use tokio_util::task::TaskTracker;

use super::{
    OpenError, SqlStore,
    migrations::Dialect,
    sql::PATIENCE_TO_CONNECT,
    sqlite_file::{self, SqliteFile},
    writer::{self, WriteQueue},
};

/// For each SQLite connection that reads.
const SET_UP_READER: &str = "PRAGMA busy_timeout = 4000; PRAGMA query_only = ON";

impl SqlStore {
    /// Opens the SQLite database at `path` for this process alone. It is made when it is not
    /// there; its directory must be.
    pub async fn open_sqlite(path: &Path) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let file = SqliteFile::lock(path)?;
        if !file.exists()? {
            create(&file).await?;
        }
        let options = file.options()?;
        let mut connection = writer::connect(&options)
            .await
            .map_err(|error| refusal(&file, error))?;
        inspect(&file, &mut connection).await?;
        Dialect::Sqlite
            .migrate(&mut connection)
            .await
            .map_err(|error| OpenError::migration(file.name(), error))?;

        let pool = AnyPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(PATIENCE_TO_CONNECT)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move { raw_sql(SET_UP_READER).execute(connection).await.map(drop) })
            })
            .connect_lazy_with(options.clone());
        Ok(Self {
            dialect: Dialect::Sqlite,
            pool,
            writer: Some(WriteQueue::start(file, options, connection)),
            tasks: TaskTracker::new(),
        })
    }

    /// Opens the SQLite database at `path` to look into it, also beside the process that it belongs to.
    /// `None`: there is none.
    pub fn look_into_sqlite(path: &Path) -> Result<Option<Self>, OpenError> {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE_TO_CONNECT);
        Ok(sqlite_file::look_into(path)?.map(|options| Self {
            dialect: Dialect::Sqlite,
            pool: pool.connect_lazy_with(options),
            writer: None,
            tasks: TaskTracker::new(),
        }))
    }
}

/// Makes a database aside, complete, and puts it in place.
async fn create(file: &SqliteFile) -> Result<(), OpenError> {
    let draft = file.draft()?;
    let refused = |error| refusal(file, error);
    let mut connection = writer::connect(&draft.options()?).await.map_err(refused)?;
    Dialect::Sqlite
        .migrate(&mut connection)
        .await
        .map_err(|error| OpenError::migration(file.name(), error))?;
    connection.close().await.map_err(refused)?;
    draft.publish()
}

/// Looks through an existing database before anything is written to it: what is written onto
/// damage is lost with it.
async fn inspect(file: &SqliteFile, connection: &mut AnyConnection) -> Result<(), OpenError> {
    let refused = |error| refusal(file, error);
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(refused)?;
    let file_name = || file.path().to_owned();
    if verdict != "ok" {
        return Err(OpenError::Damaged {
            file: file_name(),
            // The line above says in which database, and there is only one.
            reason: verdict.lines().last().unwrap_or_default().to_owned(),
        });
    }
    let installed = Dialect::Sqlite
        .installed(connection)
        .await
        .map_err(refused)?;
    if installed.is_none() {
        return Err(OpenError::Foreign { file: file_name() });
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode = WAL")
        .fetch_one(connection)
        .await
        .map_err(refused)?;
    if mode != "wal" {
        return Err(OpenError::NoWriteAheadLog {
            file: file_name(),
            mode,
        });
    }
    Ok(())
}

/// What an error of SQLite means for the person who started this program.
fn refusal(file: &SqliteFile, error: sqlx::Error) -> OpenError {
    /// `SQLITE_CORRUPT` and `SQLITE_NOTADB`; the extended codes carry them in the low byte.
    const DAMAGED: i32 = 11;
    const NOT_A_DATABASE: i32 = 26;

    let file = file.path().to_owned();
    let database = error.as_database_error();
    let code = database
        .and_then(|error| error.code()?.parse::<i32>().ok())
        .map(|code| code & 0xff);
    match (code, database) {
        (Some(DAMAGED), Some(database)) => OpenError::Damaged {
            file,
            reason: database.message().to_owned(),
        },
        (Some(NOT_A_DATABASE), _) => OpenError::NotADatabase { file },
        _ => OpenError::Refused {
            file,
            reason: error,
        },
    }
}
