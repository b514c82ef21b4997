//! The tables, version by version. A release only ever adds to the end of the list.

use sqlx::{Any, AnyConnection, Connection, Transaction, raw_sql};

/// One step, in both dialects: they differ in the types of columns.
struct Migration {
    sqlite: &'static str,
    postgres: &'static str,
}

/// What leads from an empty database to the present; the place in the list, from 1, is the
/// version. A step that has been released never changes.
const MIGRATIONS: [Migration; 1] = [Migration {
    sqlite: "
        CREATE TABLE mcp_oauth_proxy_records (
            key TEXT NOT NULL PRIMARY KEY,
            value BLOB NOT NULL,
            version BIGINT NOT NULL,
            expires_at BIGINT NOT NULL
        );
        CREATE INDEX mcp_oauth_proxy_records_expiry ON mcp_oauth_proxy_records (expires_at);
    ",
    // The collation "C": keys are paged in byte order, whatever the language of the server.
    postgres: "
        CREATE TABLE mcp_oauth_proxy_records (
            key TEXT COLLATE \"C\" NOT NULL PRIMARY KEY,
            value BYTEA NOT NULL,
            version BIGINT NOT NULL,
            expires_at BIGINT NOT NULL
        );
        CREATE INDEX mcp_oauth_proxy_records_expiry ON mcp_oauth_proxy_records (expires_at);
    ",
}];

/// One row for each step that has been taken.
const CREATE_SCHEMA: &str =
    "CREATE TABLE mcp_oauth_proxy_schema (version BIGINT NOT NULL PRIMARY KEY)";

/// The two kinds of database, where they differ.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

/// Why the tables are not as this program needs them. Nothing has been changed.
#[derive(Debug)]
pub(super) enum MigrationError {
    Newer { found: i64, known: i64 },
    Database(sqlx::Error),
}

impl From<sqlx::Error> for MigrationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Dialect {
    /// Brings the tables to the newest version, one process at a time and all or nothing.
    pub(super) async fn migrate(
        self,
        connection: &mut AnyConnection,
    ) -> Result<(), MigrationError> {
        let mut transaction = self.begin_alone(connection).await?;
        let found = if let Some(version) = self.installed(&mut transaction).await? {
            version
        } else {
            raw_sql(CREATE_SCHEMA).execute(&mut *transaction).await?;
            0
        };
        let steps = (1..).zip(&MIGRATIONS);
        let known = MIGRATIONS.len().try_into().unwrap_or(i64::MAX);
        if found > known {
            return Err(MigrationError::Newer { found, known });
        }
        for (version, step) in steps.skip_while(|(version, _)| *version <= found) {
            raw_sql(self.pick(step)).execute(&mut *transaction).await?;
            sqlx::query("INSERT INTO mcp_oauth_proxy_schema (version) VALUES ($1)")
                .bind::<i64>(version)
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The version of the tables, or `None` when this program has never been here.
    pub(super) async fn installed(
        self,
        connection: &mut AnyConnection,
    ) -> sqlx::Result<Option<i64>> {
        let tables: i64 = sqlx::query_scalar(match self {
            Self::Sqlite => {
                "SELECT COUNT(*) FROM sqlite_master WHERE name = 'mcp_oauth_proxy_schema'"
            }
            Self::Postgres => "SELECT COUNT(to_regclass('mcp_oauth_proxy_schema'))",
        })
        .fetch_one(&mut *connection)
        .await?;
        if tables == 0 {
            return Ok(None);
        }
        sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM mcp_oauth_proxy_schema")
            .fetch_one(connection)
            .await
            .map(Some)
    }

    /// Begins a transaction that no other migration runs beside.
    async fn begin_alone(
        self,
        connection: &mut AnyConnection,
    ) -> sqlx::Result<Transaction<'_, Any>> {
        match self {
            Self::Sqlite => connection.begin_with("BEGIN IMMEDIATE").await,
            Self::Postgres => {
                // Under a stricter isolation the tables would be seen as they were before the
                // wait for the lock, and be made twice.
                let mut transaction = connection
                    .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
                    .await?;
                // The number is this program's own, and any fixed one would do.
                raw_sql("SELECT pg_advisory_xact_lock(7810768146071954287)")
                    .execute(&mut *transaction)
                    .await?;
                Ok(transaction)
            }
        }
    }

    fn pick(self, step: &Migration) -> &'static str {
        match self {
            Self::Sqlite => step.sqlite,
            Self::Postgres => step.postgres,
        }
    }
}
