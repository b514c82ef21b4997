//! The five verbs in SQL that SQLite and PostgreSQL both speak.

use std::{fmt, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use protocol::{
    ports::{KEYS_PER_PAGE, Store, StoreError, Timestamp, Versioned},
    records::{CLIENTS, UNUSED_CLIENT},
};
use sqlx::{
    Any, AnyConnection, AnyPool, Row,
    any::{AnyArguments, AnyRow},
    query::Query,
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::{migrations::Dialect, writer::WriteQueue};
use crate::config::show_duration;

/// A statement with its values, ready to run on either database.
pub(super) type Statement = Query<'static, Any, AnyArguments>;

const GET: &str = "SELECT value, version FROM mcp_oauth_proxy_records WHERE key = $1";

const INSERT: &str = "
    INSERT INTO mcp_oauth_proxy_records (key, value, version, expires_at) VALUES ($1, $2, 1, $3)
    ON CONFLICT (key) DO NOTHING";

const REPLACE: &str = "
    UPDATE mcp_oauth_proxy_records SET value = $1, version = version + 1, expires_at = $2
    WHERE key = $3 AND version = $4";

const REMOVE: &str = "DELETE FROM mcp_oauth_proxy_records WHERE key = $1";

const KEYS: &str = "
    SELECT key FROM mcp_oauth_proxy_records WHERE key >= $1 AND key <> $2 AND key < $3
    ORDER BY key LIMIT $4";

const VALUES: &str =
    "SELECT value FROM mcp_oauth_proxy_records WHERE key >= $1 AND key < $2 LIMIT $3";

const SWEEP_SQLITE: &str = "
    DELETE FROM mcp_oauth_proxy_records WHERE key IN
    (SELECT key FROM mcp_oauth_proxy_records WHERE expires_at <= $1 LIMIT $2)";

// Beside other writers: the row lock makes sure that a record whose life was just extended stays,
// and skipping locked ones that two sweeps do not wait for each other.
const SWEEP_POSTGRES: &str = "
    DELETE FROM mcp_oauth_proxy_records WHERE key = ANY (ARRAY
    (SELECT key FROM mcp_oauth_proxy_records WHERE expires_at <= $1 LIMIT $2
    FOR UPDATE SKIP LOCKED))";

const COUNT: &str = "SELECT COUNT(*) FROM mcp_oauth_proxy_records WHERE key >= $1 AND key < $2";

// Of records that were never written again, the one that expires first is the oldest. SQLite
// runs its writes one after another, so nothing can change between the two parts.
const MAKE_ROOM_SQLITE: &str = "
    DELETE FROM mcp_oauth_proxy_records WHERE key IN
    (SELECT key FROM mcp_oauth_proxy_records WHERE key >= $1 AND key < $2 AND version = $3
    ORDER BY expires_at, key LIMIT $4)";

const MAKE_ROOM_POSTGRES: &str = "
    DELETE FROM mcp_oauth_proxy_records WHERE key = ANY (ARRAY
    (SELECT key FROM mcp_oauth_proxy_records WHERE key >= $1 AND key < $2 AND version = $3
    ORDER BY expires_at, key LIMIT $4 FOR UPDATE SKIP LOCKED))";

/// How many records one statement of a sweep removes; other writes get their turn in between.
const SWEPT_AT_ONCE: u32 = 500;

/// How long a caller waits before the answer is an error.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long of that a caller waits for a connection.
pub(super) const PATIENCE_TO_CONNECT: Duration = Duration::from_secs(4);

/// Records in one table of a SQLite file or a PostgreSQL database.
pub struct SqlStore {
    pub(super) dialect: Dialect,
    /// In SQLite for reads, which never wait for the writer; in PostgreSQL for all.
    pub(super) pool: AnyPool,
    /// Only in SQLite.
    pub(super) writer: Option<WriteQueue>,
    /// What runs on the pool.
    pub(super) tasks: TaskTracker,
}

/// Why a statement has no outcome, beside what the database says.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoOutcome {
    #[error("the database did not answer within {}", show_duration(PATIENCE))]
    TooLate,
    #[error("the store is closed")]
    Closed,
}

impl SqlStore {
    /// Removes what expired by `now`, some at a time, and says how many. After an error some may
    /// be gone; the next sweep takes the rest.
    pub async fn sweep(&self, now: Timestamp) -> Result<u64, StoreError> {
        let statement = match self.dialect {
            Dialect::Sqlite => SWEEP_SQLITE,
            Dialect::Postgres => SWEEP_POSTGRES,
        };
        let mut removed = 0;
        loop {
            let limit = i64::from(SWEPT_AT_ONCE);
            let statement = sqlx::query(statement).bind(now.0).bind(limit);
            let some = self.change(statement).await?;
            removed += some;
            if some < SWEPT_AT_ONCE.into() {
                return Ok(removed);
            }
        }
    }

    /// Removes clients that were never used, the oldest first, until at most `most` clients are
    /// left or all are used; says how many went.
    pub async fn make_room_for_clients(&self, most: usize) -> Result<u64, StoreError> {
        let statement = match self.dialect {
            Dialect::Sqlite => MAKE_ROOM_SQLITE,
            Dialect::Postgres => MAKE_ROOM_POSTGRES,
        };
        let unused = i64::try_from(UNUSED_CLIENT).map_err(StoreError::new)?;
        let (start, end) = range(CLIENTS);
        let count = sqlx::query(COUNT).bind(start.clone()).bind(end.clone());
        let rows = self.rows(count).await?;
        let clients: i64 = rows
            .first()
            .map_or(Ok(0), |row| row.try_get(0))
            .map_err(StoreError::new)?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut excess = clients.saturating_sub(most);
        let mut removed = 0;
        while excess > 0 {
            let limit = excess.min(SWEPT_AT_ONCE.into());
            let statement = sqlx::query(statement)
                .bind(start.clone())
                .bind(end.clone())
                .bind(unused)
                .bind(limit);
            let some = self.change(statement).await?;
            removed += some;
            excess -= limit;
            if some == 0 {
                break;
            }
        }
        Ok(removed)
    }

    /// Up to `most` values whose keys start with `prefix`, in no order.
    pub async fn values(&self, prefix: &str, most: u32) -> Result<Vec<Bytes>, StoreError> {
        let (start, end) = range(prefix);
        let statement = sqlx::query(VALUES)
            .bind(start)
            .bind(end)
            .bind(i64::from(most));
        let rows = self.rows(statement).await?;
        rows.iter()
            .map(|row| row.try_get::<Vec<u8>, _>(0).map(Bytes::from))
            .collect::<Result<_, _>>()
            .map_err(StoreError::new)
    }

    /// Finishes what was asked for, refuses what comes after, and lets go of the database. A
    /// SQLite file is complete without its log afterwards, and free for another process.
    pub async fn close(&self) {
        self.tasks.close();
        let finished = timeout(PATIENCE, self.tasks.wait()).await;
        let left = timeout(PATIENCE, self.pool.close()).await;
        if let Err(late) = finished.and(left) {
            tracing::warn!(%late, "the database did not take leave in time");
        }
        // After the readers: the last connection is the one that clears the log away.
        if let Some(writer) = &self.writer {
            writer.finish().await;
        }
    }

    /// Runs a statement that writes; says how many records it changed.
    async fn change(&self, statement: Statement) -> Result<u64, StoreError> {
        let Some(writer) = &self.writer else {
            return self
                .on_connection(|connection| {
                    Box::pin(async { Ok(statement.execute(connection).await?.rows_affected()) })
                })
                .await;
        };
        timeout(PATIENCE, writer.change(statement))
            .await
            .map_err(|_| StoreError::new(NoOutcome::TooLate))?
    }

    /// Runs a statement that reads.
    async fn rows(&self, statement: Statement) -> Result<Vec<AnyRow>, StoreError> {
        self.on_connection(|connection| Box::pin(statement.fetch_all(connection)))
            .await
    }

    /// Runs `work` on a connection of the pool, in a task of its own: a caller who goes away
    /// half way would leave the connection with an answer on its way, to be waited for or thrown
    /// away.
    async fn on_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut AnyConnection) -> Running<'_, T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let pool = self.pool.clone();
        let task = self.tasks.spawn(async move {
            let deadline = Instant::now() + PATIENCE;
            let mut connection = pool.acquire().await.map_err(StoreError::new)?;
            let error = match timeout_at(deadline, work(&mut connection)).await {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(error)) => StoreError::new(error),
                Err(_) => StoreError::new(NoOutcome::TooLate),
            };
            // Not back to the pool, which would wait for it to become usable.
            drop(connection.detach());
            Err(error)
        });
        task.await.map_err(StoreError::new)?
    }
}

/// Where the keys that start with `prefix` begin and end. Keys are ASCII, so any other character
/// sorts behind all that the prefix can continue with.
fn range(prefix: &str) -> (String, String) {
    (prefix.to_owned(), format!("{prefix}\u{a0}"))
}

/// A statement under way.
type Running<'c, T> = Pin<Box<dyn Future<Output = sqlx::Result<T>> + Send + 'c>>;

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let rows = self.rows(sqlx::query(GET).bind(key.to_owned())).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let value: Vec<u8> = row.try_get(0).map_err(StoreError::new)?;
        let version: i64 = row.try_get(1).map_err(StoreError::new)?;
        Ok(Some(Versioned {
            value: value.into(),
            version: version.try_into().map_err(StoreError::new)?,
        }))
    }

    async fn insert(
        &self,
        key: &str,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let statement = sqlx::query(INSERT)
            .bind(key.to_owned())
            .bind(Vec::from(value))
            .bind(expires_at.0);
        Ok(self.change(statement).await? > 0)
    }

    async fn replace(
        &self,
        key: &str,
        seen: u64,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        // A version that was never given out: nothing is stored at it.
        let Ok(seen) = i64::try_from(seen) else {
            return Ok(false);
        };
        let statement = sqlx::query(REPLACE)
            .bind(Vec::from(value))
            .bind(expires_at.0)
            .bind(key.to_owned())
            .bind(seen);
        Ok(self.change(statement).await? > 0)
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        let statement = sqlx::query(REMOVE).bind(key.to_owned());
        Ok(self.change(statement).await? > 0)
    }

    async fn keys(&self, prefix: &str, after: Option<&str>) -> Result<Vec<String>, StoreError> {
        let (start, end) = range(prefix);
        let start = after.map_or(start, |after| after.max(prefix).to_owned());
        let statement = sqlx::query(KEYS)
            .bind(start)
            .bind(after.unwrap_or(&end).to_owned())
            .bind(end.clone())
            .bind(i64::try_from(KEYS_PER_PAGE).map_err(StoreError::new)?);
        let rows = self.rows(statement).await?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(StoreError::new))
            .collect()
    }
}
