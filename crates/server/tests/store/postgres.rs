//! PostgreSQL, on the server at `TEST_POSTGRES_URL`. Each test has a schema of its own there.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use protocol::ports::Store;
use server::store::{OpenError, SqlStore};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use url::Url;

use super::{
    LATER,
    contract::{Shared, contract},
    nothing_may_be_missing, say, sql,
};

contract!(with_shared_store);

async fn with_shared_store<F: Future>(promise: impl FnOnce(Shared) -> F) {
    with_store(async |store: Arc<SqlStore>| {
        promise(store).await;
    })
    .await;
}

async fn with_store(test: impl AsyncFnOnce(Arc<SqlStore>)) {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let store = Arc::new(open(&schema.url).await);
    test(Arc::clone(&store)).await;
    store.close().await;
}

async fn open(url: &Url) -> SqlStore {
    SqlStore::open_postgres(url.as_str()).await.unwrap()
}

/// An empty schema, removed with all that is in it when dropped.
pub(super) struct Schema {
    name: String,
    server: String,
    /// Leads to the schema; the name is the application's name too.
    pub(super) url: Url,
}

impl Schema {
    /// `None`, and a line that says so, when there is no server.
    pub(super) async fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var("TEST_POSTGRES_URL")
            .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{count}", std::process::id());
        let mut url = Url::parse(&server).unwrap();
        url.query_pairs_mut()
            .append_pair("application_name", &name)
            .append_pair("options[search_path]", &name);
        let schema = Self { name, server, url };
        let made = format!(
            "DROP SCHEMA IF EXISTS {0} CASCADE; CREATE SCHEMA {0}",
            schema.name
        );
        let made = timeout(Duration::from_secs(5), schema.run(&made)).await;
        let reason = match made {
            Ok(Ok(())) => return Some(schema),
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        assert!(!nothing_may_be_missing(), "no PostgreSQL server: {reason}");
        say(&format!("the PostgreSQL store was not tested: {reason}"));
        None
    }

    /// Runs `statements` in the schema, beside the store.
    async fn run(&self, statements: &str) -> sqlx::Result<()> {
        let mut connection = PgConnection::connect(&self.server).await?;
        let statements = format!("SET search_path = {}; {statements}", self.name);
        raw_sql(AssertSqlSafe(statements))
            .execute(&mut connection)
            .await?;
        connection.close().await
    }

    async fn ask(&self, question: &'static str) -> Vec<String> {
        let mut connection = PgConnection::connect(self.url.as_str()).await.unwrap();
        let answer = sqlx::query_scalar(question)
            .fetch_all(&mut connection)
            .await;
        connection.close().await.unwrap();
        answer.unwrap()
    }

    /// The URL with another parameter.
    fn url_with(&self, name: &str, value: &str) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair(name, value);
        url
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let remove = format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        std::thread::scope(|scope| {
            // A thread of its own, since the test's runtime is in the middle of something, and
            // may be so because the test failed.
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let removed = runtime.map(|runtime| {
                    let removing =
                        async { timeout(Duration::from_secs(5), self.run(&remove)).await };
                    runtime.block_on(removing)
                });
                if !matches!(removed, Ok(Ok(Ok(())))) {
                    say(&format!(
                        "the schema {} stays in the test database",
                        self.name
                    ));
                }
            });
        });
    }
}

#[tokio::test]
async fn an_expired_record_is_swept() {
    with_store(sql::an_expired_record_is_swept).await;
}

#[tokio::test]
async fn unused_clients_make_room() {
    with_store(sql::unused_clients_make_room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_during_a_sweep() {
    with_store(sql::writes_go_on_during_a_sweep).await;
}

#[tokio::test]
async fn an_abandoned_call_harms_no_other() {
    with_store(sql::an_abandoned_call_harms_no_other).await;
}

#[tokio::test]
async fn what_was_asked_before_closing_is_done() {
    with_store(sql::what_was_asked_before_closing_is_done).await;
}

#[tokio::test]
async fn a_closed_store_answers_with_an_error() {
    with_store(sql::a_closed_store_answers_with_an_error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_are_counted() {
    with_store(async |store| sql::refreshes_are_counted(store, "PostgreSQL").await).await;
}

#[tokio::test]
async fn records_outlive_the_store() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let store = open(&schema.url).await;
    store.insert("grant/a", "one".into(), LATER).await.unwrap();
    store
        .replace("grant/a", 1, "two".into(), LATER)
        .await
        .unwrap();
    store.close().await;
    for _ in 0..2 {
        let store = open(&schema.url).await;
        let record = store.get("grant/a").await.unwrap().unwrap();
        assert_eq!((&*record.value, record.version), (&b"two"[..], 2));
        store.close().await;
    }
}

#[tokio::test]
async fn several_processes_may_start_on_an_empty_database() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let mut openings = JoinSet::new();
    for _ in 0..8 {
        let url = schema.url.clone();
        openings.spawn(async move { open(&url).await });
    }
    let stores = openings.join_all().await;
    stores[0].insert("grant/a", "".into(), LATER).await.unwrap();
    let steps = "SELECT version::text FROM mcp_oauth_proxy_schema";
    assert_eq!(schema.ask(steps).await, ["1"]);

    let mut won = 0;
    for store in &stores {
        let replaced = store.replace("grant/a", 1, "".into(), LATER).await;
        won += usize::from(replaced.unwrap());
    }
    assert_eq!(won, 1);
    for store in stores {
        store.close().await;
    }
}

/// Whatever language the server sorts by; the one that tests run on may do so by accident.
#[tokio::test]
async fn keys_are_compared_by_their_bytes() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    open(&schema.url).await.close().await;
    let collation = "
        SELECT collation_name::text FROM information_schema.columns
        WHERE table_schema = current_schema() AND column_name = 'key'";
    assert_eq!(schema.ask(collation).await, ["C"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    open(&schema.url).await.close().await;
    let newer = "INSERT INTO mcp_oauth_proxy_schema VALUES (900)";
    schema.run(newer).await.unwrap();
    let error = SqlStore::open_postgres(schema.url.as_str())
        .await
        .unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("has schema 900, and this program knows 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_only_lets_read_is_refused() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let url = schema.url_with("options[default_transaction_read_only]", "on");
    let error = SqlStore::open_postgres(url.as_str()).await.unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
}

/// Whoever runs the database may have traded durability for speed in general; not here.
#[tokio::test]
async fn a_write_is_on_disk_before_it_is_answered() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    for (configured, used) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        let store = open(&schema.url_with("options[synchronous_commit]", configured)).await;
        let watched = "
            CREATE TABLE IF NOT EXISTS seen (setting TEXT);
            TRUNCATE seen;
            CREATE OR REPLACE FUNCTION note() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO seen VALUES (current_setting('synchronous_commit'));
                RETURN NEW;
            END $$;
            CREATE OR REPLACE TRIGGER noted AFTER INSERT ON mcp_oauth_proxy_records
                FOR EACH ROW EXECUTE FUNCTION note();";
        schema.run(watched).await.unwrap();
        store.insert(configured, "".into(), LATER).await.unwrap();
        assert_eq!(schema.ask("SELECT setting FROM seen").await, [used]);
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_outlives_its_connections() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let store = open(&schema.url).await;
    store.insert("grant/a", "".into(), LATER).await.unwrap();
    let ended = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        schema.name
    );
    for round in 1..=3 {
        schema.run(&ended).await.unwrap();
        // The first call may find out; it is the only connection there was.
        let _ = store.get("grant/a").await;
        let replaced = store.replace("grant/a", round, "".into(), LATER).await;
        assert!(replaced.unwrap());
    }
    // Long enough unused that the store looks before it uses one. The driver measures that by a
    // clock of its own, so the wait is real.
    schema.run(&ended).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(store.get("grant/a").await.unwrap().is_some());
    store.close().await;
}

#[tokio::test]
async fn a_silent_server_is_an_error_and_then_works_again() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let relay = Relay::to(&schema.url).await;
    let store = Arc::new(open(&relay.url(&schema.url)).await);
    let mut warm = JoinSet::new();
    for number in 0..30 {
        let store = Arc::clone(&store);
        let key = format!("grant/{number:02}");
        warm.spawn(async move { store.insert(&key, "".into(), LATER).await.unwrap() });
    }
    warm.join_all().await;

    relay.cut();
    let mut stuck = JoinSet::new();
    for number in 0..30 {
        let store = Arc::clone(&store);
        let key = format!("grant/{number:02}");
        stuck.spawn(async move {
            // Both within the five seconds, and something for a machine with much else to do.
            let wait = Duration::from_secs(8);
            if number % 2 == 0 {
                timeout(wait, store.get(&key)).await.unwrap().unwrap_err();
            } else {
                let replaced = store.replace(&key, 1, "".into(), LATER);
                timeout(wait, replaced).await.unwrap().unwrap_err();
            }
        });
    }
    stuck.join_all().await;

    relay.mend();
    for number in (0..30).step_by(2) {
        let key = format!("grant/{number:02}");
        let replaced = store.replace(&key, 1, "".into(), LATER).await;
        assert!(replaced.unwrap());
    }
    store.close().await;
}

#[tokio::test]
async fn a_silent_server_is_refused_when_opening() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("postgres://me:s3cret@{address}/proxy");
    let error = SqlStore::open_postgres(&url).await.unwrap_err().to_string();
    let error = error.replace(&address.port().to_string(), "PORT");
    insta::assert_snapshot!(error, @"the PostgreSQL server 127.0.0.1:PORT/proxy did not answer within 5s; check store and the network between");
}

#[tokio::test]
async fn an_absent_server_is_refused_by_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("postgres://me:s3cret@{address}/proxy");
    let error = SqlStore::open_postgres(&url).await.unwrap_err().to_string();
    let error = error.replace(&address.port().to_string(), "PORT");
    insta::assert_snapshot!(error, @"the PostgreSQL server 127.0.0.1:PORT/proxy cannot be used: error communicating with database: Connection refused (os error 111); check store, and that the server runs and lets this user in");
}

#[tokio::test]
async fn an_unknown_database_is_refused_by_name() {
    let Some(schema) = Schema::new().await else {
        return;
    };
    let mut url = schema.url.clone();
    url.set_path("/no_such_database");
    url.set_password(Some("s3cret")).unwrap();
    let error = SqlStore::open_postgres(url.as_str())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/no_such_database cannot be used"),
        "{error}"
    );
    assert!(
        error.contains("\"no_such_database\" does not exist"),
        "{error}"
    );
    assert!(!error.contains("s3cret"), "{error}");
}

/// Stands between a store and its server, and can fall silent as a network does: nothing
/// arrives, nothing is closed, and what was open stays silent when new connections work again.
struct Relay {
    address: SocketAddr,
    network: watch::Sender<Network>,
    _connections: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
struct Network {
    works: bool,
    cuts: u32,
}

impl Relay {
    fn cut(&self) {
        self.network.send_modify(|network| {
            network.works = false;
            network.cuts += 1;
        });
    }

    fn mend(&self) {
        self.network.send_modify(|network| network.works = true);
    }

    async fn to(server: &Url) -> Self {
        let host = server.host_str().unwrap().to_owned();
        let port = server.port().unwrap_or(5432);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, gate) = watch::channel(Network {
            works: true,
            cuts: 0,
        });
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut directions = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect((host.as_str(), port)).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                directions.spawn(carry(near.0, far.1, gate.clone()));
                directions.spawn(carry(far.0, near.1, gate.clone()));
            }
        });
        Self {
            address,
            network,
            _connections: connections,
        }
    }

    fn url(&self, server: &Url) -> Url {
        let mut url = server.clone();
        url.set_ip_host(self.address.ip()).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<Network>,
) {
    let cuts = gate.borrow().cuts;
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        // A cut that came after the connection is for ever: then this waits for the end.
        let whole = |network: &Network| network.works && network.cuts == cuts;
        if gate.wait_for(whole).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
