//! One running proxy, and everything around it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection, raw_sql};

use tokio_util::task::TaskTracker;

use super::{
    decoy::Decoy,
    internet::Internet,
    refusal::Refusal,
    support::{
        PASSPHRASE, UPSTREAM_KEY,
        canary::Secrets,
        client::{Answer, Client, Http, Parameters, Tokens, VERIFIER},
        postgres::Schema,
        proxy::Proxy,
        upstream::{USUAL, Upstream},
        wire::Wire,
    },
};

/// Where proxies keep their records.
#[derive(Clone)]
pub enum Store {
    Sqlite,
    /// With the schemas that were made so far.
    Postgres(Arc<Mutex<Vec<Schema>>>),
}

pub struct World {
    store: Store,
    pub proxy: Proxy,
    pub upstream: Upstream,
    pub decoy: Decoy,
    /// Leads to the proxy.
    pub http: Http,
    pub issuer: String,
    database: String,
    records: tokio::sync::Mutex<AnyConnection>,
}

/// All that an attack could leave behind.
struct Traces {
    /// Version and value by key.
    records: BTreeMap<String, (i64, Vec<u8>)>,
    sent_upstream: usize,
    sent_elsewhere: usize,
}

impl Traces {
    /// What is not as it was `before`.
    fn since(&self, before: &Self) -> Vec<String> {
        let text = |of: &Self, key: &String| {
            let record = of.records.get(key);
            record.map(|(version, value)| (*version, String::from_utf8_lossy(value).into_owned()))
        };
        let keys: BTreeSet<&String> = self.records.keys().chain(before.records.keys()).collect();
        let mut changed: Vec<String> = keys
            .into_iter()
            .filter(|key| self.records.get(*key) != before.records.get(*key))
            .map(|key| format!("{key}: {:?}, then {:?}", text(before, key), text(self, key)))
            .collect();
        for (place, now, then) in [
            ("upstream", self.sent_upstream, before.sent_upstream),
            ("elsewhere", self.sent_elsewhere, before.sent_elsewhere),
        ] {
            if now != then {
                changed.push(format!("sent {place}: {then}, then {now}"));
            }
        }
        changed
    }
}

impl Store {
    /// `None`, and a line that says so, when there is no server.
    pub async fn postgres() -> Option<Self> {
        let schema = new_schema().await?;
        Some(Self::Postgres(Arc::new(Mutex::new(vec![schema]))))
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// Removes what was made.
    pub async fn remove(self) {
        let Self::Postgres(schemas) = self else {
            return;
        };
        let schemas = std::mem::take(&mut *schemas.lock().unwrap());
        for schema in schemas {
            schema.remove().await;
        }
    }
}

async fn new_schema() -> Option<Schema> {
    Schema::new(&format!("attacks_{}", next())).await
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl World {
    /// A proxy with its defaults and these lines on top of its configuration.
    pub async fn on(store: &Store, lines: &str) -> Self {
        sqlx::any::install_default_drivers();
        let upstream = Upstream::start().await;
        let (place, url) = match store {
            Store::Sqlite => ("sqlite".to_owned(), None),
            Store::Postgres(schemas) => {
                let schema = new_schema().await.unwrap();
                let url = schema.url.to_string();
                schemas.lock().unwrap().push(schema);
                (url.clone(), Some(url))
            }
        };
        let mut lines = format!("store = \"{place}\"\n{lines}");
        if !lines.contains("limits.wrong_tokens_per_address ") {
            // Each attempt is to get the refusal of its own, not that of too many before it.
            lines.push_str("\nlimits.wrong_tokens_per_address = \"off\"");
        }
        let mut proxy = Proxy::prepared(upstream.address, &lines);
        // What is logged at the most talkative level is searched for secrets in the end.
        proxy.set("RUST_LOG", "trace");
        if let Ok(internet) = Internet::here().await {
            proxy.set("SSL_CERT_FILE", internet.certificate.to_str().unwrap());
        }
        proxy.start().await;
        let file = proxy.data_dir().join("records.sqlite");
        let database = url.unwrap_or_else(|| format!("sqlite://{}", file.display()));
        let reading = match store {
            Store::Sqlite => format!("{database}?mode=ro"),
            Store::Postgres(_) => database.clone(),
        };
        let records = AnyConnection::connect(&reading).await.unwrap();
        Self {
            store: store.clone(),
            decoy: Decoy::start().await,
            http: Http::to(proxy.address),
            issuer: format!("http://{}", proxy.address),
            proxy,
            upstream,
            database,
            records: tokio::sync::Mutex::new(records),
        }
    }

    /// A world of the case's own, on the same store, with these lines in its configuration.
    pub async fn another(&self, lines: &str) -> Self {
        Self::on(&self.store, lines).await
    }

    /// From a loopback address that nobody used before.
    pub fn elsewhere(&self) -> Http {
        let number = next();
        let [_, a, b, c] = number.to_be_bytes();
        // Not 127.0.0.x, which the rest of this machine uses.
        let address = Ipv4Addr::new(127, 100 + a, b, c);
        self.http.clone().from(address.into())
    }

    /// A new client with a secret.
    pub async fn client(&self) -> Client {
        Client::register(&self.elsewhere()).await
    }

    /// A new public client with these redirect URIs; it uses the first.
    pub async fn client_at(&self, redirect_uris: &[&str]) -> Client {
        let metadata = json!({
            "client_name": "Claude",
            "redirect_uris": redirect_uris,
            "token_endpoint_auth_method": "none",
        });
        Client::register_as(&self.elsewhere(), &metadata).await
    }

    /// Sends a request that must be refused without a trace.
    pub async fn refused(&self, request: Request<Body>, refusal: &Refusal) {
        let _ = self.refusal_of(request, refusal).await;
    }

    /// The same, for who wants to see more of the answer.
    pub async fn refusal_of(&self, request: Request<Body>, refusal: &Refusal) -> Answer {
        self.refusal_from(&self.http, request, refusal).await
    }

    /// The same, sent by `http`, for what is counted by address.
    pub async fn refusal_from(
        &self,
        http: &Http,
        request: Request<Body>,
        refusal: &Refusal,
    ) -> Answer {
        let answer = self.unchanged(http.send(request)).await;
        refusal.check(&answer, &self.issuer);
        answer
    }

    /// The same with bytes, on a connection of their own.
    pub async fn refused_bytes(&self, bytes: impl AsRef<[u8]>, refusal: &Refusal) {
        let attempt = async {
            let mut wire = Wire::open(&self.http).await;
            wire.send(bytes).await;
            wire.answer().await.expect("an answer, not a close")
        };
        let answer = self.unchanged(attempt).await;
        refusal.check(&answer, &self.issuer);
    }

    /// Insists that `attempt` changes no record and sends nothing to anybody.
    pub async fn unchanged<T>(&self, attempt: impl Future<Output = T>) -> T {
        self.changing(&[], attempt).await
    }

    /// Insists that `attempt` changes records at most whose key begins with one of `kinds`
    /// (`client/`, `code/`, `grant/`), and sends nothing to anybody.
    pub async fn changing<T>(&self, kinds: &[&str], attempt: impl Future<Output = T>) -> T {
        let before = self.traces(kinds).await;
        let outcome = attempt.await;
        let after = self.traces(kinds).await;
        let left = after.since(&before);
        assert!(left.is_empty(), "an attack left traces: {left:#?}");
        outcome
    }

    async fn traces(&self, ignored: &[&str]) -> Traces {
        let mut records = self.records().await;
        records.retain(|key, _| !ignored.iter().any(|kind| key.starts_with(kind)));
        Traces {
            records,
            sent_upstream: self.upstream.begun(),
            sent_elsewhere: self.decoy.hits(),
        }
    }

    /// Everything in the store but the marks that the program sets by itself: version and value by
    /// key. That a token was used is written a little later, and so is no trace of what happens
    /// then.
    pub async fn records(&self) -> BTreeMap<String, (i64, Vec<u8>)> {
        let rows = "SELECT key, version, value FROM mcp_oauth_proxy_records \
                    WHERE key NOT LIKE 'mark/%'";
        let mut connection = self.records.lock().await;
        let rows = sqlx::query_as::<_, (String, i64, Vec<u8>)>(rows);
        let rows = rows.fetch_all(&mut *connection).await.unwrap();
        rows.into_iter()
            .map(|(key, version, value)| (key, without_use(version, &value)))
            .collect()
    }

    /// Every secret that came up in the output, the files, the metrics or the records, of those that
    /// this world has and those that answers brought.
    pub async fn leaks(&self) -> Vec<String> {
        let mut secrets = Secrets::default();
        secrets.add("the upstream's key", UPSTREAM_KEY);
        secrets.add("the passphrase", PASSPHRASE);
        secrets.add("the verifier", VERIFIER);
        secrets.add_those_of(&self.http.seen());
        let mut places = self.proxy.files();
        places.extend(self.proxy.process());
        places.push(("the output".to_owned(), self.proxy.output().into_bytes()));
        let metrics = Http::to(self.proxy.metrics).get("/metrics").await;
        places.push(("the metrics".to_owned(), metrics.body.to_vec()));
        let records = self.records().await.into_iter();
        places.extend(records.map(|(key, (_, value))| (format!("the value of {key}"), value)));
        secrets.search().leaks_in(&places)
    }

    /// Takes a record away behind the proxy's back, as time would.
    pub async fn delete(&self, key: &str) {
        let mut connection = AnyConnection::connect(&self.database).await.unwrap();
        let delete = sqlx::query("DELETE FROM mcp_oauth_proxy_records WHERE key = $1").bind(key);
        let deleted = delete.execute(&mut connection).await.unwrap();
        assert_eq!(deleted.rows_affected(), 1, "{key}");
        connection.close().await.unwrap();
    }

    /// Starts the proxy anew after so many seconds, as far as its records can tell.
    pub async fn restart_after(&mut self, seconds: i64) {
        const READ: &str = "SELECT key, value FROM mcp_oauth_proxy_records \
                            WHERE key NOT LIKE 'mark/%'";
        const SET_BACK: &str = "UPDATE mcp_oauth_proxy_records \
                                SET value = $1, expires_at = expires_at - $2 WHERE key = $3";
        self.proxy.stop().await;
        let mut connection = AnyConnection::connect(&self.database).await.unwrap();
        let rows = sqlx::query_as::<_, (String, Vec<u8>)>(READ);
        for (key, value) in rows.fetch_all(&mut connection).await.unwrap() {
            // That an assertion was used, its key says alone.
            let mut record = serde_json::from_slice(&value).unwrap_or_default();
            set_back(&mut record, seconds);
            let value = match record {
                Value::Null => value,
                record => record.to_string().into_bytes(),
            };
            let set_back = sqlx::query(SET_BACK).bind(value);
            let set_back = set_back.bind(seconds).bind(key).execute(&mut connection);
            assert_eq!(set_back.await.unwrap().rows_affected(), 1);
        }
        connection.close().await.unwrap();
        self.proxy.start().await;
    }

    /// Lets time pass for the codes and grants of `client`: what they say of when lies that many
    /// seconds further back.
    pub async fn age(&self, client: &Client, seconds: i64) {
        for kind in ["code/", "grant/"] {
            self.rewrite(kind, client, |record| set_back(record, seconds))
                .await;
        }
    }

    /// Changes the records of a kind that name `client`, behind the proxy's back.
    pub async fn rewrite(&self, kind: &str, client: &Client, change: impl Fn(&mut Value)) {
        const READ: &str = "SELECT version, value FROM mcp_oauth_proxy_records WHERE key = $1";
        const REPLACE: &str = "UPDATE mcp_oauth_proxy_records \
                               SET value = $1, version = version + 1 \
                               WHERE key = $2 AND version = $3";
        let mut connection = AnyConnection::connect(&self.database).await.unwrap();
        for key in self.records().await.into_keys() {
            // Again when the proxy came between.
            while key.starts_with(kind) {
                let read = sqlx::query_as::<_, (i64, Vec<u8>)>(READ).bind(&key);
                let (version, value) = read.fetch_one(&mut connection).await.unwrap();
                let mut record: Value = serde_json::from_slice(&value).unwrap();
                let names_client = |of: &Value| of["client_id"] == *client.id;
                if !names_client(&record) && !names_client(&record["approved"]) {
                    break;
                }
                change(&mut record);
                let replace = sqlx::query(REPLACE).bind(record.to_string().into_bytes());
                let replace = replace.bind(&key).bind(version).execute(&mut connection);
                if replace.await.unwrap().rows_affected() == 1 {
                    break;
                }
            }
        }
        connection.close().await.unwrap();
    }

    /// The same attempt while the store takes no writes, and on PostgreSQL gives nothing either.
    pub async fn without_store<T>(&self, attempt: impl Future<Output = T>) -> T {
        let (take, give_back) = match self.store {
            Store::Sqlite => ("BEGIN IMMEDIATE", "ROLLBACK"),
            Store::Postgres(_) => (
                "ALTER TABLE mcp_oauth_proxy_records RENAME TO taken",
                "ALTER TABLE taken RENAME TO mcp_oauth_proxy_records",
            ),
        };
        let mut connection = AnyConnection::connect(&self.database).await.unwrap();
        raw_sql(take).execute(&mut connection).await.unwrap();
        let outcome = attempt.await;
        raw_sql(give_back).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        outcome
    }

    /// What the metrics say of one series: its name without what all of ours begin with, and its
    /// labels. Zero, if it was never counted.
    pub async fn metric(&self, series: &str) -> u64 {
        let metrics = Http::to(self.proxy.metrics).get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| {
            let line = line.strip_prefix("mcp_oauth_proxy_")?;
            line.strip_prefix(series)?.strip_prefix(' ')
        });
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// The twin of a refusal: this authorization request leads to tokens, and a call with them
    /// arrives at the upstream with the operator's key.
    pub async fn lets_in(&self, client: &Client, authorization: &Parameters) -> Tokens {
        let tokens = client.sign_in_with(authorization).await;
        self.serves(client, &tokens).await;
        tokens
    }

    /// A call with these tokens arrives, once.
    pub async fn serves(&self, client: &Client, tokens: &Tokens) {
        let before = self.upstream.begun();
        let answer = client.call(tokens).await.expect(200);
        assert_eq!(answer.text(), USUAL);
        assert_eq!(self.upstream.begun(), before + 1);
        let key = format!("Bearer {UPSTREAM_KEY}");
        assert_eq!(self.upstream.last().headers()["authorization"], key);
    }
}

fn set_back(record: &mut Value, seconds: i64) {
    let Value::Object(members) = record else {
        return;
    };
    for (name, value) in members {
        match value.as_i64() {
            Some(moment) if name.ends_with("_at") => *value = (moment - seconds).into(),
            _ => set_back(value, seconds),
        }
    }
}

/// A grant's record as it would be without the note that one of its tokens was used.
fn without_use(version: i64, value: &[u8]) -> (i64, Vec<u8>) {
    // Members in one order: a record that a test wrote has another than one of the program.
    let Ok(mut record) = serde_json::from_slice::<Value>(value) else {
        // That an assertion was used, its key says alone.
        return (version, value.to_vec());
    };
    let used = record
        .get_mut("access_used")
        .map(|used| used.take() == true);
    (
        version - i64::from(used == Some(true)),
        record.to_string().into_bytes(),
    )
}

type Attempt = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the checks must notice: without this, noticing nothing would prove nothing.
#[tokio::test]
async fn every_trace_of_an_attack_is_noticed() {
    let world = Arc::new(World::on(&Store::Sqlite, "").await);
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world.serves(&client, &tokens).await;
    let (registering, decoy) = (Http::to(world.proxy.address), Http::to(world.decoy.address));
    let (refreshing, calling, first) = (client.clone(), client, tokens.clone());
    let visit = decoy.request(Method::GET, "/").body(Body::empty()).unwrap();
    let attempts: [(&str, Attempt); 4] = [
        (
            "a new record",
            Box::pin(async move { drop(Client::register(&registering).await) }),
        ),
        (
            "a changed record",
            Box::pin(async move { drop(refreshing.refresh(&first).await) }),
        ),
        (
            "a call",
            Box::pin(async move { drop(calling.call(&tokens).await) }),
        ),
        (
            "a visit to the decoy",
            Box::pin(async move { drop(decoy.try_send(visit).await) }),
        ),
    ];
    for (what, attempt) in attempts {
        let world = Arc::clone(&world);
        let attempt = async move { world.unchanged(attempt).await };
        let noticed = TaskTracker::new().spawn(attempt).await.unwrap_err();
        assert!(
            noticed.to_string().contains("left traces"),
            "{what}: {noticed}"
        );
    }
    world
        .unchanged(async { drop(world.http.get("/health").await) })
        .await;
}

/// The same for secrets.
#[tokio::test]
async fn a_secret_that_came_up_is_noticed() {
    let world = World::on(&Store::Sqlite, "").await;
    let tokens = world.client().await.sign_in().await;
    assert_eq!(world.leaks().await, Vec::<String>::new());

    std::fs::write(world.proxy.data_dir().join("left"), tokens.access_token).unwrap();
    let leaks = world.leaks().await;
    assert!(leaks[0].starts_with("access_token is in"), "{leaks:?}");
}
