//! A store that another program holds: reads go on, writes wait.

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, raw_sql};

use super::World;

/// Holds the store until it is released or dropped.
pub(crate) enum Locked {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Locked {
    pub(crate) async fn store_of(world: &World) -> Self {
        match &world.schema {
            None => Self::file(&world.proxy.data_dir().join("records.sqlite")).await,
            Some(schema) => {
                let mut connection = PgConnection::connect(schema.url.as_str()).await.unwrap();
                raw_sql("BEGIN; LOCK TABLE mcp_oauth_proxy_records IN EXCLUSIVE MODE")
                    .execute(&mut connection)
                    .await
                    .unwrap();
                Self::Postgres(connection)
            }
        }
    }

    pub(crate) async fn file(path: &Path) -> Self {
        let url = format!("sqlite://{}?mode=rw", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        raw_sql("PRAGMA busy_timeout = 10000; BEGIN EXCLUSIVE")
            .execute(&mut connection)
            .await
            .unwrap();
        Self::Sqlite(connection)
    }

    /// Ends the sessions that wait for this one, as an administrator does. Says how many.
    pub(crate) async fn end_who_waits(&mut self) -> i64 {
        let Self::Postgres(connection) = self else {
            return 0;
        };
        sqlx::query_scalar(AssertSqlSafe(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))",
        ))
        .fetch_one(connection)
        .await
        .unwrap()
    }

    pub(crate) async fn release(self) {
        match self {
            Self::Sqlite(mut connection) => {
                raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(mut connection) => {
                raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }
}
