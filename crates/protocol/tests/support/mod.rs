//! A proxy in memory, and the people and programs that use it. The clock is moved by hand, the
//! entropy is seeded, the upstream answers as it is told.

#![expect(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is for tests, and a failure should say where"
)]

pub mod assertion;
pub mod client;
pub mod fetch;
pub mod model;
pub mod upstream;
pub mod walk;

use std::{
    net::{IpAddr, Ipv4Addr},
    panic::Location,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected};
use protocol::{
    endpoint::{App, Front, Ports},
    forward::{credential::Credential, upstream_headers::UpstreamHeaders},
    identity::password::SignIn,
    journal::{Event, Journal, Reader},
    memory::MemoryStore,
    oauth::identifiers::{Issuer, Resource},
    policy::{ClientPolicy, Destination, Limits, Policy, TokenPolicy, UpstreamPolicy},
    ports::{Clock, Entropy, Store, StoreError, Timestamp, Versioned},
    token::Keys,
};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use self::{client::McpClient, fetch::FakeFetch, upstream::FakeUpstream};

pub const ISSUER: &str = "https://gw.example";
pub const PASSPHRASE: &str = "correct horse battery staple";
/// The key that makes unless a test says otherwise.
pub const KEY: [u8; 32] = [7; 32];
/// The operator's key for every upstream.
pub const UPSTREAM_KEY: &str = "upstream-key-4711";
/// Where a browser or client sits unless a test says otherwise.
pub const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The longest wait for what must come, on the busiest machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits for what must come. A test that would wait for ever fails instead, and says where.
#[track_caller]
pub fn in_time<F: Future>(awaited: F) -> impl Future<Output = F::Output> {
    // Boxed, or every test would carry room for what it waits for.
    let (place, awaited) = (Location::caller(), Box::pin(awaited));
    async move {
        tokio::time::timeout(PATIENCE, awaited)
            .await
            .unwrap_or_else(|_| panic!("{place}: nothing came within {PATIENCE:?}"))
    }
}

/// The whole proxy but for the operating system.
#[derive(Clone)]
pub struct TestServer {
    pub app: App,
    pub front: Front,
    pub clock: Arc<FakeClock>,
    pub store: Arc<FaultyStore>,
    pub fetch: Arc<FakeFetch>,
    pub upstream: Arc<FakeUpstream>,
    pub journal: Arc<Events>,
    /// Every answer so far.
    answers: Arc<Mutex<Vec<Answer>>>,
    /// How many processes have had this key and store.
    processes: Arc<AtomicU64>,
    /// Names given so far.
    names: Arc<AtomicU64>,
}

impl TestServer {
    /// One upstream, at `/mcp`.
    pub fn new() -> Self {
        Self::with(policy(&[("one", "/mcp")]))
    }

    /// Two upstreams, at `/mcp/a` and `/mcp/b`.
    pub fn with_two_upstreams() -> Self {
        Self::with(policy(&[("a", "/mcp/a"), ("b", "/mcp/b")]))
    }

    pub fn with(policy: Policy) -> Self {
        Self::on(policy, Arc::default())
    }

    /// A process of its own on a store that may be shared.
    pub fn on(policy: Policy, store: Arc<FaultyStore>) -> Self {
        Self::at(policy, &[KEY], store, Arc::default(), Arc::default())
    }

    /// One more process with the same key, store and clock: after a restart, or beside this one.
    pub fn another(&self, policy: Policy) -> Self {
        self.another_with(policy, &[KEY])
    }

    /// The same with other keys, of which the first makes.
    pub fn another_with(&self, policy: Policy, ring: &[[u8; 32]]) -> Self {
        Self::at(
            policy,
            ring,
            self.store.clone(),
            self.clock.clone(),
            self.processes.clone(),
        )
    }

    fn at(
        policy: Policy,
        ring: &[[u8; 32]],
        store: Arc<FaultyStore>,
        clock: Arc<FakeClock>,
        processes: Arc<AtomicU64>,
    ) -> Self {
        // Other random bytes than those that any other process has drawn or will draw.
        let seed = processes.fetch_add(1, Ordering::SeqCst) << 32;
        let fetch = Arc::new(FakeFetch::default());
        let upstream = Arc::new(FakeUpstream::default());
        let journal = Arc::new(Events::default());
        let ports = Ports {
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy(AtomicU64::new(seed))),
            store: store.clone(),
            fetch: fetch.clone(),
            upstream: upstream.clone(),
        };
        let readers = Journal::new(vec![Box::new(Arc::clone(&journal))]);
        let [first, others @ ..] = ring else {
            panic!("a ring has a key")
        };
        let keys = Keys::derive(first, others, &policy.issuer);
        let app = App::new(policy, keys, ports, readers);
        Self {
            front: Front::new(app.clone()),
            app,
            clock,
            store,
            fetch,
            upstream,
            journal,
            answers: Arc::default(),
            processes,
            names: Arc::default(),
        }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.send_from(HOME, request).await
    }

    pub async fn send_from(&self, peer: IpAddr, request: Request<Body>) -> Answer {
        let method = request.method().clone();
        let what = format!("{method} {}", request.uri());
        let answer = in_time(async {
            let response = self.front.answer(request, peer).await;
            Answer::read(what, response).await
        })
        .await;
        self.answers.lock().unwrap().push(answer.clone());
        answer
    }

    /// A name that was not given before.
    pub fn next_name(&self) -> String {
        let used = self.names.fetch_add(1, Ordering::SeqCst);
        format!("name-{used}")
    }

    /// What the clock says.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Every answer so far, in order.
    pub fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// What a refused request must leave as it is: every record, and how often the upstream was
    /// asked.
    pub fn state(&self) -> (String, usize) {
        (self.stored(), self.upstream.received().len())
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path).body(Body::empty()).unwrap())
            .await
    }

    pub async fn post_json(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.send(json_request(path, body)).await
    }

    pub async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form(path, fields)).await
    }

    /// A client that discovered the server and registered as a public client.
    pub async fn mcp_client(&self) -> McpClient {
        McpClient::register(
            self,
            &serde_json::json!({ "token_endpoint_auth_method": "none" }),
        )
        .await
    }

    /// Every byte in the store, as text.
    pub fn stored(&self) -> String {
        let dump = self.store.memory.dump();
        let records: Vec<_> = dump
            .iter()
            .map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(value)))
            .collect();
        records.join("\n")
    }
}

/// A policy with these upstreams, by name and path.
pub fn policy(upstreams: &[(&str, &str)]) -> Policy {
    let issuer = Issuer::parse(ISSUER).unwrap();
    let upstreams = upstreams.iter().map(|(name, path)| {
        Arc::new(UpstreamPolicy {
            name: (*name).to_owned(),
            title: format!("Server {name}"),
            path: (*path).to_owned(),
            resource: Resource::at(&issuer, path),
            destination: Destination::Remote {
                endpoint: format!("https://{name}.upstream.example/mcp")
                    .parse()
                    .unwrap(),
                credential: Credential::bearer(UPSTREAM_KEY).unwrap(),
            },
            headers: UpstreamHeaders::default(),
        })
    });
    Policy {
        upstreams: upstreams.collect(),
        once_the_only_one: None,
        issuer,
        aliases: Vec::new(),
        sign_in: SignIn::passphrase(PASSPHRASE),
        tokens: TokenPolicy::default(),
        clients: ClientPolicy::default(),
        limits: Limits::default(),
        trusted_proxies: Vec::new(),
        allowed_origins: Vec::new(),
        grant_freshness: None,
    }
}

/// A request to the proxy's public address.
pub fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "gw.example")
}

pub fn json_request(path: &str, body: &serde_json::Value) -> Request<Body> {
    request(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

pub fn form(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    request(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(encoded(fields)))
        .unwrap()
}

pub fn encoded(fields: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

/// A response, read to its end.
#[derive(Clone, Debug)]
#[must_use = "an answer that nobody looks at tests nothing"]
pub struct Answer {
    pub to: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    async fn read(to: String, response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map(Collected::to_bytes)
            .unwrap_or_default();
        Self {
            to,
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Insists on a status; shows the whole answer otherwise.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        self
    }

    /// Insists on an OAuth error in JSON.
    #[track_caller]
    pub fn refused(self, status: u16, error: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.json()["error"], error, "{answer:#?}");
        answer
    }

    /// Insists on an error of JSON-RPC.
    #[track_caller]
    pub fn refused_rpc(self, status: u16, code: i64) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.json()["error"]["code"], code, "{answer:#?}");
        answer
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:#?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The one value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.get_all(name).iter().collect();
        let [value] = values[..] else {
            panic!("{} times {name}: {self:#?}", values.len())
        };
        value.to_str().unwrap()
    }

    /// Insists on an answer of a person's that takes the browser back to the client: a redirect, or
    /// to an app the page that opens it.
    #[track_caller]
    pub fn leads_back(self) -> Redirect {
        if self.status == StatusCode::SEE_OTHER {
            return self.redirect();
        }
        let page = self.expect(200);
        assert!(!page.headers.contains_key(header::LOCATION), "{page:#?}");
        let document = scraper::Html::parse_document(&page.text());
        let one = |selector: &str, attribute: &str| {
            let selector = scraper::Selector::parse(selector).unwrap();
            let found: Vec<_> = document.select(&selector).collect();
            let [element] = found[..] else {
                panic!("{page:#?}")
            };
            element.value().attr(attribute).unwrap().to_owned()
        };
        let refresh = one("meta[http-equiv=refresh]", "content");
        let location = refresh.strip_prefix("0; url=").unwrap();
        assert_eq!(one("a", "href"), location);
        let redirect = Redirect::to(location);
        assert!(!redirect.to.starts_with("http"), "{redirect:#?}");
        redirect
    }

    /// The parameters of the redirect.
    #[track_caller]
    pub fn redirect(&self) -> Redirect {
        Redirect::to(self.header("location"))
    }

    /// Everything that the other side can read, as text.
    pub fn everything(&self) -> String {
        format!("{} {:?} {}", self.status, self.headers, self.text())
    }
}

/// Where a redirect leads.
#[derive(Debug)]
pub struct Redirect {
    pub to: String,
    pub parameters: Vec<(String, String)>,
}

impl Redirect {
    #[track_caller]
    fn to(location: &str) -> Self {
        let location = url::Url::parse(location).unwrap();
        let parameters = location.query_pairs().into_owned().collect();
        let mut to = location;
        to.set_query(None);
        Self {
            to: to.into(),
            parameters,
        }
    }

    /// The value of a parameter that is there once.
    #[track_caller]
    pub fn parameter(&self, name: &str) -> &str {
        let mut values = self.parameters.iter().filter(|(key, _)| key == name);
        let (Some((_, value)), None) = (values.next(), values.next()) else {
            panic!("not one {name}: {self:?}")
        };
        value
    }

    pub fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(key, _)| key == name)
    }
}

/// Time that passes when told to.
#[derive(Debug, Default)]
pub struct FakeClock {
    milliseconds: AtomicI64,
    /// Who waits, and until when.
    sleepers: Mutex<Vec<(Duration, oneshot::Sender<()>)>>,
}

/// Where the clock starts: some moment in 2026.
const START: i64 = 1_790_000_000;

impl FakeClock {
    pub fn advance(&self, duration: Duration) {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap();
        self.milliseconds.fetch_add(milliseconds, Ordering::SeqCst);
        let now = self.elapsed();
        let mut sleepers = self.sleepers.lock().unwrap();
        // Dropping its sender wakes who waits.
        sleepers.retain(|(until, sleeper)| *until > now && !sleeper.is_closed());
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp(START + self.milliseconds.load(Ordering::SeqCst).div_euclid(1000))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.milliseconds.load(Ordering::SeqCst).unsigned_abs())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (sleeper, woken) = oneshot::channel();
        let until = self.elapsed() + duration;
        self.sleepers.lock().unwrap().push((until, sleeper));
        woken.map(drop).boxed()
    }
}

/// Bytes that look random and are the same in each run.
#[derive(Debug, Default)]
pub struct SeededEntropy(AtomicU64);

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let digest = Sha256::digest(self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes());
            chunk.copy_from_slice(&digest[..chunk.len()]);
        }
    }
}

/// A store that can be switched off, or fail once.
#[derive(Debug, Default)]
pub struct FaultyStore {
    pub memory: MemoryStore,
    is_down: AtomicBool,
    is_read_only: AtomicBool,
    /// How many accesses from now the one is that fails; 0 for none.
    failing: AtomicU64,
    /// How many accesses from now the one is whose answer is lost; 0 for none.
    losing: AtomicU64,
    /// What the next read waits for before its answer is given.
    held: Mutex<Option<oneshot::Receiver<()>>>,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl FaultyStore {
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Lets every write fail, as on a full disk.
    pub fn set_read_only(&self, is_read_only: bool) {
        self.is_read_only.store(is_read_only, Ordering::SeqCst);
    }

    /// Lets the `n`-th access from now fail, counted from 1. 0 takes that back.
    pub fn fail_nth(&self, n: u64) {
        self.failing.store(n, Ordering::SeqCst);
    }

    /// Lets the `n`-th access from now happen and its answer be lost. 0 takes that back.
    pub fn lose_nth(&self, n: u64) {
        self.losing.store(n, Ordering::SeqCst);
    }

    /// Keeps the answer of the next read back until the sender is dropped. It tells how the record
    /// was when it was read, whatever is written meanwhile.
    pub fn hold_next_read(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        *self.held.lock().unwrap() = Some(held);
        release
    }

    /// Reads and writes so far.
    pub fn accesses(&self) -> (u64, u64) {
        (
            self.reads.load(Ordering::SeqCst),
            self.writes.load(Ordering::SeqCst),
        )
    }

    async fn reach(&self, counter: &AtomicU64) -> Result<(), StoreError> {
        // Requests that run side by side meet here.
        tokio::task::yield_now().await;
        counter.fetch_add(1, Ordering::SeqCst);
        let is_write = std::ptr::eq(counter, &raw const self.writes);
        let is_refused = is_write && self.is_read_only.load(Ordering::SeqCst);
        if is_refused || self.is_down.load(Ordering::SeqCst) || is_due(&self.failing) {
            return Err(StoreError::new("switched off by the test"));
        }
        Ok(())
    }

    fn answer<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if is_due(&self.losing) {
            return Err(StoreError::new("answer lost by the test"));
        }
        done
    }
}

/// Counts down to the one access that is meant.
fn is_due(countdown: &AtomicU64) -> bool {
    let before = countdown.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    before == Ok(1)
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        self.reach(&self.reads).await?;
        let found = self.memory.get(key).await;
        let held = self.held.lock().unwrap().take();
        if let Some(held) = held {
            let _ = held.await;
        }
        self.answer(found)
    }

    async fn insert(
        &self,
        key: &str,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.reach(&self.writes).await?;
        self.answer(self.memory.insert(key, value, expires_at).await)
    }

    async fn replace(
        &self,
        key: &str,
        seen: u64,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.reach(&self.writes).await?;
        self.answer(self.memory.replace(key, seen, value, expires_at).await)
    }

    async fn remove(&self, key: &str) -> Result<bool, StoreError> {
        self.reach(&self.writes).await?;
        self.answer(self.memory.remove(key).await)
    }

    async fn keys(&self, prefix: &str, after: Option<&str>) -> Result<Vec<String>, StoreError> {
        self.reach(&self.reads).await?;
        self.answer(self.memory.keys(prefix, after).await)
    }
}

/// The journal, as the `Debug` text of each event.
#[derive(Debug, Default)]
pub struct Events(Mutex<Vec<String>>);

impl Events {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// How many events start with `name`.
    pub fn count(&self, name: &str) -> usize {
        self.all()
            .iter()
            .filter(|event| event.starts_with(name))
            .count()
    }
}

impl Reader for Events {
    fn read(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}
