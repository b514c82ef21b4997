//! A schema of its own on the PostgreSQL server at `TEST_POSTGRES_URL`.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::time::timeout;
use url::Url;

use super::{nothing_may_be_missing, say};

/// The variable that leads to the server.
pub const SERVER: &str = "TEST_POSTGRES_URL";

pub fn server() -> Url {
    let url = std::env::var(SERVER);
    let url = url
        .as_deref()
        .unwrap_or("postgres://postgres@127.0.0.1:5432/test");
    Url::parse(url).unwrap()
}

/// An empty schema.
pub struct Schema {
    name: String,
    server: String,
    /// Leads to the schema.
    pub url: Url,
}

impl Schema {
    /// `None`, and a line that says so, when there is no server.
    pub async fn new(name: &str) -> Option<Self> {
        let server = server();
        let name = format!("{name}_{}", std::process::id());
        let mut url = server.clone();
        url.query_pairs_mut()
            .append_pair("options[search_path]", &name);
        let server = server.into();
        let schema = Self { name, server, url };
        let made = format!(
            "DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}",
            schema.name
        );
        let made = timeout(Duration::from_secs(5), schema.run(made)).await;
        let reason = match made {
            Ok(Ok(())) => return Some(schema),
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        assert!(!nothing_may_be_missing(), "no PostgreSQL server: {reason}");
        say(&format!("PostgreSQL was left out: {reason}"));
        None
    }

    /// Every value in it, binary ones as text where they are text, and what the server tells of
    /// its sessions.
    pub async fn values(&self) -> Vec<u8> {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let columns = "SELECT table_name::text, column_name::text, data_type::text \
                       FROM information_schema.columns WHERE table_schema = $1";
        let columns: Vec<(String, String, String)> = sqlx::query_as(columns)
            .bind(&self.name)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let of_columns = columns.into_iter().map(|(table, column, kind)| {
            let value = match kind.as_str() {
                "bytea" => format!("encode({column}, 'escape')"),
                _ => format!("{column}::text"),
            };
            format!("SELECT coalesce({value}, '') FROM {}.{table}", self.name)
        });
        let sessions = "SELECT concat_ws(' ', application_name, query) FROM pg_stat_activity";
        let mut values = Vec::new();
        for query in of_columns.chain([sessions.to_owned()]) {
            let rows: Vec<(String,)> = sqlx::query_as(AssertSqlSafe(query))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            for (value,) in rows {
                values.extend(value.into_bytes());
                values.push(b'\n');
            }
        }
        connection.close().await.unwrap();
        values
    }

    /// Writes a record into it, behind the back of the program.
    pub async fn insert(&self, key: &str, value: &[u8]) {
        let mut connection = PgConnection::connect(&self.server).await.unwrap();
        let table = format!("{}.mcp_oauth_proxy_records", self.name);
        let insert =
            format!("INSERT INTO {table} (key, value, version, expires_at) VALUES ($1, $2, 1, 0)");
        sqlx::query(AssertSqlSafe(insert))
            .bind(key)
            .bind(value)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// Removes the schema with all that is in it.
    pub async fn remove(self) {
        let remove = format!("DROP SCHEMA {} CASCADE", self.name);
        self.run(remove).await.unwrap();
    }

    async fn run(&self, statements: String) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.server).await?;
        raw_sql(AssertSqlSafe(statements))
            .execute(&mut connection)
            .await?;
        connection.close().await
    }
}
