//! The running program: the ports put together, the listeners, the sweep, and the end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response, Uri, request::Parts, uri::Scheme};
use protocol::{
    endpoint::{App, Front, Ports, extract::Permit, mcp::trial::Question, respond},
    identity::password::Kind,
    journal::{Event, Journal},
    oauth::{client::PreregisteredClient, client_document::HostPattern, jwks::KeySource},
    policy::{Destination, Policy, UpstreamPolicy},
    ports::{Clock, Entropy, Upstream, UpstreamError},
    records::ReadError,
};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    addresses,
    certificates::NoCertificates,
    cli::serve::Prepared,
    config::{Settings, StoreKind},
    demo::{Demo, Person},
    fetch::{GuardedFetch, SystemNetwork},
    listen::{self, ConnectionLimits, Limit, Meter},
    logs::{Lines, Logs},
    marks,
    memory::{self, Memory},
    metrics::Metrics,
    store::SqlStore,
    system::{SystemClock, SystemEntropy},
    upstream::{RemoteUpstream, system_tls, tls_trusting},
};

/// How often expired records are removed.
const SWEEP_INTERVAL: Duration = Duration::from_mins(5);

/// How often it is looked whether the grants of open streams still live, and first uses of tokens
/// are written down. Together with the time that a grant is believed this makes the five seconds
/// that are promised for a revocation.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(2);

/// How often the time is written down. Tokens that expired since can live again if the program
/// starts anew with a clock that was set back.
const MARK_INTERVAL: Duration = Duration::from_mins(1);

/// Files that the program itself keeps open: listeners, the store, logs.
const FILES: usize = 64;

/// What is answered even when memory is short: whoever looks after the program wants to know.
const HEALTH: [&str; 2] = ["/health", "/ready"];

/// The name of the SQLite file in the data directory.
pub(crate) const SQLITE_FILE: &str = "records.sqlite";

/// Runs the proxy until a signal ends it. `announce` is called once it serves.
pub fn run(
    prepared: Prepared,
    lines: Lines,
    announce: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let outcome = runtime.block_on(serve(prepared, lines, announce));
    // After a second signal tasks may still run; nobody waits for them.
    runtime.shutdown_background();
    outcome
}

#[expect(
    clippy::too_many_lines,
    reason = "one thing after the other, each a line or two"
)]
async fn serve(
    prepared: Prepared,
    lines: Lines,
    announce: impl FnOnce() -> io::Result<()>,
) -> anyhow::Result<()> {
    let Prepared {
        mut policy,
        settings,
        keys,
        key_place,
        ..
    } = prepared;
    let mut signals = Signals::new()?;
    let store = Arc::new(open_store(&settings).await?);
    let clock = Arc::new(SystemClock::new());
    marks::recall_time(&*store, &clock).await?;
    marks::check_keys(&*store, &keys, key_place, clock.now()).await?;
    recall_addresses(&store, &mut policy)
        .await
        .context("the earlier meaning of the addresses could not be read")?;
    tell_of_addresses(&store, &policy, &clock).await;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let metrics = Metrics::new(&policy, lines);
    let counted = Arc::clone(&metrics);
    let meter: Meter = Arc::new(move |limit| counted.count_limit(limit));
    let tls = certified_tls(&policy)?;
    let upstreams = Upstreams {
        remote: remote_upstreams(&settings, tls.as_ref().ok(), &metrics),
        demo: Demo::new(Arc::clone(&entropy)),
        sign_in: match policy.sign_in.kind {
            Kind::Passphrase => "passphrase",
            Kind::Pin => "PIN",
        },
    };
    let limits = ConnectionLimits {
        connections: connections(settings.limits.connections.connections),
        shared_addresses: policy.trusted_proxies.clone(),
        ..settings.limits.connections.clone()
    };
    let ports = Ports {
        clock: clock.clone(),
        entropy,
        store: store.clone(),
        fetch: Arc::new(
            GuardedFetch::perhaps(tls, SystemNetwork)
                .through(settings.proxies.clone(), named_hosts(&policy)),
        ),
        upstream: Arc::new(upstreams),
    };
    let journal = Journal::new(vec![Box::new(Logs), Box::new(Arc::clone(&metrics))]);
    let keys = keys.derive(&policy.issuer);
    let app = App::new(policy, keys, ports, journal);
    let front = Front::new(app.clone());

    let stop = CancellationToken::new();
    let listener = bind(settings.listen, "listen").await?;
    let background = TaskTracker::new();
    if let Some(address) = settings.metrics_listen {
        let listener = bind(address, "metrics_listen").await?;
        let limits = ConnectionLimits::default();
        background.spawn(listen::serve(
            listener,
            limits,
            Arc::clone(&meter),
            stop.clone(),
            move |request, _| {
                let response = metrics.answer(&request, address);
                async move { response }
            },
        ));
    }
    let most_clients = settings.limits.requests.clients;
    start_upkeep(&background, &stop, &app, &store, &clock, most_clients);
    let memory = Memory::default();
    let limit = settings.limits.memory.or_else(memory::allowed);
    background.spawn(memory.clone().watch_until(stop.clone(), limit));
    let answering = background.spawn(listen::serve(
        listener,
        limits,
        Arc::clone(&meter),
        stop.clone(),
        move |request, peer| {
            let is_shed = memory.is_short() && !HEALTH.contains(&request.uri().path());
            if is_shed {
                meter(Limit::Memory);
            }
            let front = front.clone();
            async move {
                if is_shed {
                    return respond::overloaded();
                }
                front.answer(request, peer).await
            }
        },
    ));
    announce().context("the start text cannot be written to standard output")?;
    // Nobody waits for what comes of it.
    let (trying, ended) = (app.clone(), stop.clone());
    background.spawn(async move { ended.run_until_cancelled(trying.try_upstreams()).await });

    signals.next().await;
    tracing::info!("stopping: requests in flight may finish, streams end");
    stop.cancel();
    background.close();
    tokio::select! {
        () = background.wait() => {}
        () = signals.next() => tracing::warn!("stopping at once"),
    }
    answering.abort();
    app.write_uses().await;
    store.close().await;
    Ok(())
}

/// Recalls which upstream was the only one before others came, and remembers the one that is now.
async fn recall_addresses(store: &SqlStore, policy: &mut Policy) -> Result<(), ReadError> {
    policy.once_the_only_one = addresses::recall_the_only_one(store, policy).await?;
    addresses::remember_the_only_one(store, policy).await
}

/// The client for all remote upstreams. Without certificates it trusts no TLS server, and none is
/// configured.
fn remote_upstreams(
    settings: &Settings,
    tls: Option<&ClientConfig>,
    metrics: &Metrics,
) -> RemoteUpstream {
    let tls = tls.cloned();
    let mut remote = RemoteUpstream::through(
        settings.proxies.clone(),
        tls.unwrap_or_else(|| tls_trusting(RootCertStore::empty())),
        &settings.limits.upstream,
    );
    remote.repeated = metrics.requests_repeated();
    remote
}

/// Says what has become of addresses since the last start.
async fn tell_of_addresses(store: &SqlStore, policy: &Policy, clock: &SystemClock) {
    if let (Some(first), 2..) = (policy.only(), policy.upstreams.len()) {
        tracing::info!(
            upstream = first.name,
            "/mcp and the public address itself still lead to the upstream that was the only one before"
        );
    }
    match addresses::lost(store, policy, clock).await {
        Ok(lost) => {
            for lost in lost {
                if lost.remedy.is_some() {
                    tracing::warn!("{lost}");
                } else {
                    tracing::info!("{lost}");
                }
            }
        }
        Err(error) => {
            tracing::warn!(%error, "approvals could not be checked against the addresses");
        }
    }
}

/// TLS, if there are certificates to check servers against: those who start without need none.
fn certified_tls(policy: &Policy) -> anyhow::Result<Result<ClientConfig, NoCertificates>> {
    let tls = system_tls();
    let Err(none) = &tls else { return Ok(tls) };
    let by_https = |upstream: &&Arc<UpstreamPolicy>| {
        let is_https = |endpoint: &Uri| endpoint.scheme() == Some(&Scheme::HTTPS);
        matches!(&upstream.destination, Destination::Remote { endpoint, .. } if is_https(endpoint))
    };
    let fetches_keys =
        |client: &&Arc<PreregisteredClient>| matches!(client.metadata.keys, Some(KeySource::At(_)));
    if let Some(upstream) = policy.upstreams.iter().find(by_https) {
        let name = &upstream.name;
        return Err(none.clone()).context(format!("upstream.{name}.url begins with https"));
    }
    if let Some(client) = policy.clients.preregistered.iter().find(fetches_keys) {
        let id = &client.client_id;
        return Err(none.clone()).context(format!("client.{id}.jwks_uri begins with https"));
    }
    if policy.clients.documents {
        tracing::warn!("client metadata documents cannot be fetched: {none}");
    }
    Ok(tls)
}

/// The document hosts that the operator named, as opposed to those that unknown clients name.
fn named_hosts(policy: &Policy) -> Vec<HostPattern> {
    let clients = &policy.clients;
    let keys = clients.preregistered.iter().filter_map(|client| {
        let Some(KeySource::At(url)) = &client.metadata.keys else {
            return None;
        };
        HostPattern::parse(url.host())
    });
    clients.document_hosts.iter().cloned().chain(keys).collect()
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: free the port, or set another address as {key}{}",
            if key == "listen" { " or LISTEN" } else { "" }
        )
    })
}

pub(crate) async fn open_store(settings: &Settings) -> anyhow::Result<SqlStore> {
    Ok(match &settings.store {
        StoreKind::Sqlite => SqlStore::open_sqlite(&settings.data_dir.join(SQLITE_FILE)).await?,
        StoreKind::Postgres { url } => SqlStore::open_postgres(url.expose_secret()).await?,
    })
}

/// How many connections may be open at one time: as many as are wanted, if the operating system
/// lets us have two files for each, one to the client and one to the upstream.
fn connections(wanted: usize) -> usize {
    // Shells commonly start programs with 1,024 files although they may have many more.
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) => {
            let possible = usize::try_from(files)
                .unwrap_or(usize::MAX)
                .saturating_sub(FILES)
                / 2;
            // A few less are no news.
            if possible < wanted - wanted / 10 {
                tracing::warn!(
                    possible,
                    wanted,
                    "few files may be open (ulimit -n), so few connections too"
                );
            }
            possible.clamp(1, wanted)
        }
        Err(error) => {
            tracing::warn!(%error, "the limit on open files cannot be read");
            wanted
        }
    }
}

/// Ends the event streams of grants that ended elsewhere or by themselves, and writes down what
/// no call waits for.
async fn keep_up_until(stop: CancellationToken, app: App) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        // Side by side: a store that hangs at one must not hold up the other.
        tokio::join!(app.end_streams_of_ended_grants(), app.write_uses());
    }
}

/// Starts what is done now and then, until `stop`.
fn start_upkeep(
    background: &TaskTracker,
    stop: &CancellationToken,
    app: &App,
    store: &Arc<SqlStore>,
    clock: &Arc<SystemClock>,
    most_clients: usize,
) {
    let (store, clock) = (|| Arc::clone(store), || Arc::clone(clock));
    background.spawn(mark_time_until(stop.clone(), store(), clock()));
    background.spawn(keep_up_until(stop.clone(), app.clone()));
    background.spawn(sweep_until(
        stop.clone(),
        app.clone(),
        store(),
        clock(),
        most_clients,
    ));
}

/// Writes the time down now and then, for a start with a clock that was set back.
async fn mark_time_until(stop: CancellationToken, store: Arc<SqlStore>, clock: Arc<SystemClock>) {
    let mut interval = tokio::time::interval(MARK_INTERVAL);
    let mut is_told = false;
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        if let Err(error) = marks::mark_time(&*store, &clock).await {
            tracing::warn!(%error, "the time could not be written down");
        }
        let ahead = clock.ahead();
        if ahead > MARK_INTERVAL && !is_told {
            tracing::warn!(
                seconds = ahead.as_secs(),
                "the clock of this machine is behind the time that was known: time goes on from there, so that what has expired stays expired"
            );
            is_told = true;
        }
    }
}

/// Removes expired records now and then, and unused clients when there are too many.
async fn sweep_until(
    stop: CancellationToken,
    app: App,
    store: Arc<SqlStore>,
    clock: Arc<SystemClock>,
    most_clients: usize,
) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    while stop.run_until_cancelled(interval.tick()).await.is_some() {
        match store.sweep(clock.now()).await {
            Ok(0) => {}
            Ok(removed) => tracing::debug!(removed, "expired records were removed"),
            Err(error) => tracing::warn!(%error, "expired records could not be removed"),
        }
        match store.make_room_for_clients(most_clients).await {
            Ok(0) => {}
            Ok(removed) => app
                .journal()
                .record(&Event::UnusedClientsRemoved { removed }),
            Err(error) => tracing::warn!(%error, "clients could not be counted or removed"),
        }
    }
}

/// The signals that end the program.
struct Signals {
    /// The terminal is gone.
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self {
            hang_up: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.hang_up.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// All upstreams, near and far.
struct Upstreams {
    remote: RemoteUpstream,
    demo: Demo,
    sign_in: &'static str,
}

#[async_trait]
impl Upstream for Upstreams {
    async fn send(
        &self,
        permit: Permit,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, UpstreamError> {
        match permit.upstream().destination {
            Destination::Remote { .. } => self.remote.send(permit, head, body).await,
            Destination::Demo => {
                let person = Person {
                    subject: permit.subject(),
                    sign_in: self.sign_in,
                    client: permit.client_id().as_str(),
                };
                let request = Request::from_parts(head.clone(), body);
                Ok(self.demo.answer(&person, request).await)
            }
        }
    }

    async fn ask(&self, question: Question) -> Result<Response<Body>, UpstreamError> {
        self.remote.ask(question).await
    }
}
