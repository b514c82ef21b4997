//! What must not be read in a log.

use std::{
    io,
    sync::{Arc, Mutex},
};

use protocol::ports::Store;
use server::store::SqlStore;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tracing_subscriber::fmt::MakeWriter;

use super::{LATER, postgres::Schema};

/// All that this process has logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

async fn use_and_close(store: SqlStore) {
    store
        .insert("grant/canary", "canary".into(), LATER)
        .await
        .unwrap();
    store
        .replace("grant/canary", 1, "canary".into(), LATER)
        .await
        .unwrap();
    store.get("grant/canary").await.unwrap();
    store.keys("grant/canary", None).await.unwrap();
    store.sweep(LATER).await.unwrap();
    store.remove("grant/canary").await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn neither_statements_nor_passwords_are_logged() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .init();

    // The twin: a statement that is run as usual is seen.
    let mut control = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::query("SELECT 'control'")
        .execute(&mut control)
        .await
        .unwrap();

    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    use_and_close(SqlStore::open_sqlite(&file).await.unwrap()).await;
    if let Some(schema) = Schema::new().await {
        let mut url = schema.url.clone();
        url.set_password(Some("canary")).unwrap();
        use_and_close(SqlStore::open_postgres(url.as_str()).await.unwrap()).await;
        url.set_path("/no_such_database");
        SqlStore::open_postgres(url.as_str()).await.unwrap_err();
        url.query_pairs_mut().append_pair("pasword", "canary");
        SqlStore::open_postgres(url.as_str()).await.unwrap_err();
    }

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("SELECT 'control'"));
    // The first is in each key, value and password, the others are in statements of the store.
    for told in [
        "canary",
        "SELECT value, version",
        "ON CONFLICT",
        "expires_at <=",
    ] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(told)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
}
