//! Opening a PostgreSQL store.

use std::time::Duration;

use sqlx::{
    AnyConnection, ConnectOptions, Connection,
    any::{AnyConnectOptions, AnyPoolOptions},
    raw_sql,
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use url::Url;

use super::{
    OpenError, SqlStore,
    migrations::Dialect,
    sql::{PATIENCE, PATIENCE_TO_CONNECT},
};

/// How long opening waits for another process that is changing the tables.
const PATIENCE_TO_MIGRATE: Duration = Duration::from_mins(1);

/// For each session. A commit that is answered before it is on disk would be no
/// promise; `remote_apply` promises more than `on` and stays.
const SET_UP_POSTGRES: &str = "
    SET statement_timeout = '4s';
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') <> 'remote_apply'";

impl SqlStore {
    /// Opens the database at `url`, as `postgres://user:password@host:port/database`, which other
    /// processes may use at the same time.
    pub async fn open_postgres(url: &str) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let PostgresUrl { server, options } = PostgresUrl::parse(url)?;
        let silent = |patience| OpenError::Silent {
            server: server.clone(),
            patience,
        };
        let unreachable = |reason| OpenError::Unreachable {
            server: server.clone(),
            reason,
        };
        // Not from the pool, which would go on trying and then keep the reason to itself.
        let mut connection = timeout(PATIENCE, AnyConnection::connect_with(&options))
            .await
            .map_err(|_| silent(PATIENCE))?
            .map_err(unreachable)?;
        if is_read_only(&mut connection).await.map_err(unreachable)? {
            return Err(OpenError::ReadOnly { server });
        }
        timeout(
            PATIENCE_TO_MIGRATE,
            Dialect::Postgres.migrate(&mut connection),
        )
        .await
        .map_err(|_| silent(PATIENCE_TO_MIGRATE))?
        .map_err(|error| OpenError::migration(&server, error))?;
        connection.close().await.map_err(unreachable)?;

        let pool = AnyPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(PATIENCE_TO_CONNECT)
            // A round trip before each statement would double its time; one that was used a
            // moment ago is taken as alive.
            .test_before_acquire(false)
            .before_acquire(|connection, past| {
                Box::pin(async move {
                    if past.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // After a fail-over the same name may lead to the old primary for a while.
                    if is_read_only(connection).await? {
                        let reason = "the PostgreSQL server only lets read";
                        return Err(sqlx::Error::Configuration(reason.into()));
                    }
                    raw_sql(SET_UP_POSTGRES).execute(connection).await.map(drop)
                })
            })
            .connect_lazy_with(options);
        Ok(Self {
            dialect: Dialect::Postgres,
            pool,
            writer: None,
            tasks: TaskTracker::new(),
        })
    }
}

/// Whether the server is a standby, or has been told not to write.
async fn is_read_only(connection: &mut AnyConnection) -> sqlx::Result<bool> {
    let setting: String = sqlx::query_scalar("SELECT current_setting('transaction_read_only')")
        .fetch_one(connection)
        .await?;
    Ok(setting == "on")
}

/// Query parameters that the driver understands. It would only log any other, with its value,
/// and a mistyped `password` is one of those.
const PARAMETERS: [&str; 17] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Where the server is.
#[derive(Debug)]
struct PostgresUrl {
    /// `host:port/database`, for people.
    server: String,
    options: AnyConnectOptions,
}

impl PostgresUrl {
    fn parse(text: &str) -> Result<Self, OpenError> {
        let unusable = |reason: String| OpenError::Url { reason };
        let url = Url::parse(text).map_err(|error| unusable(error.to_string()))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(unusable("it does not begin with postgres://".to_owned()));
        }
        for (name, _) in url.query_pairs() {
            if !PARAMETERS.contains(&&*name) && !name.starts_with("options[") {
                return Err(unusable(format!("it has an unknown parameter {name:?}")));
            }
        }
        let options: AnyConnectOptions = text
            .parse()
            .map_err(|error: sqlx::Error| unusable(error.to_string()))?;
        Ok(Self {
            server: server(&url),
            options: options.disable_statement_logging(),
        })
    }
}

/// The parts of `url` that are no secret. A parameter overrules what stands before it.
fn server(url: &Url) -> String {
    let parameter = |name| {
        url.query_pairs()
            .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    let host = parameter("hostaddr")
        .or_else(|| parameter("host"))
        .or_else(|| url.host_str().map(str::to_owned))
        .unwrap_or_else(|| "localhost".to_owned());
    let port = parameter("port")
        .or_else(|| url.port().map(|port| port.to_string()))
        .unwrap_or_else(|| "5432".to_owned());
    let database =
        parameter("dbname").unwrap_or_else(|| url.path().trim_start_matches('/').to_owned());
    format!("{host}:{port}/{database}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        PostgresUrl::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn a_server_is_named_without_user_and_password() {
        let shown = |url| PostgresUrl::parse(url).unwrap().server;
        assert_eq!(
            shown("postgres://me:s3cret@db.example:6432/proxy?sslmode=require"),
            "db.example:6432/proxy"
        );
        assert_eq!(
            shown("postgresql:///proxy?host=/run/postgresql&user=me&password=s3cret"),
            "/run/postgresql:5432/proxy"
        );
    }

    #[test]
    fn an_unusable_url_is_refused_without_being_repeated() {
        insta::assert_snapshot!(
            refusal("mysql://me:s3cret@db.example/proxy"),
            @"store is not a PostgreSQL URL: it does not begin with postgres://; write postgres://user:password@host/database"
        );
        insta::assert_snapshot!(
            refusal("postgres://me:s3cret@db.example:port/proxy"),
            @"store is not a PostgreSQL URL: invalid port number; write postgres://user:password@host/database"
        );
        insta::assert_snapshot!(
            refusal("postgres://me@db.example/proxy?pasword=s3cret"),
            @r#"store is not a PostgreSQL URL: it has an unknown parameter "pasword"; write postgres://user:password@host/database"#
        );
    }
}
