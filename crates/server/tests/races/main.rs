//! A hundred requests at the same moment, over real sockets, to one process on SQLite, and to one
//! and three on PostgreSQL. Few rounds here, many in `just races` (`ROUNDS`).
//!
//! RC-10, one fetch of a client's metadata document for a thousand requests, is a test of the
//! protocol (`ci_08…` in `client_documents.rs`), since it takes a host that serves documents by
//! TLS from a public address.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

mod apart;
mod grants;
mod lane;
mod rotation;
mod starts;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;

use tokio::time::Instant;

use lane::Lanes;
use support::{
    PASSPHRASE,
    client::{Client, Http},
    postgres::Schema,
    proxy::Proxy,
    say,
    upstream::Upstream,
};

/// In a normal run; `ROUNDS` asks for another number.
const ROUNDS: usize = 3;
/// Requests at the same moment.
const PARALLEL: usize = 100;

/// Processes that share a store, a key and an address that the world knows.
struct World {
    store: &'static str,
    proxies: Vec<Proxy>,
    lanes: Lanes,
    client: Client,
    schema: Option<Schema>,
    _upstream: Upstream,
}

impl World {
    async fn with(processes: usize, schema: Option<Schema>) -> Self {
        let upstream = Upstream::start().await;
        let store = schema
            .as_ref()
            .map_or("sqlite", |schema| schema.url.as_str());
        let store = format!("store = \"{store}\"");
        let mut proxies: Vec<Proxy> = Vec::new();
        for _ in 0..processes {
            let mut proxy = Proxy::prepared(upstream.address, &store);
            if let Some(first) = proxies.first() {
                proxy.share_data_dir_of(first);
                proxy.set("PUBLIC_URL", &format!("http://{}", first.address));
            }
            proxy.start().await;
            proxies.push(proxy);
        }
        let addresses: Vec<SocketAddr> = proxies.iter().map(|proxy| proxy.address).collect();
        Self {
            store: match (&schema, processes) {
                (None, _) => "SQLite",
                (Some(_), 1) => "PostgreSQL",
                (Some(_), _) => "PostgreSQL, 3 processes",
            },
            lanes: Lanes::to(&addresses, PARALLEL),
            client: Client::register(&Http::to(addresses[0])).await,
            proxies,
            schema,
            _upstream: upstream,
        }
    }

    /// A code that was not redeemed yet.
    async fn code(&self) -> String {
        let consent = self.client.opens_consent().await;
        let approved = self.client.approve(&consent, PASSPHRASE).await;
        Client::code(&approved.expect(303))
    }

    async fn end(mut self) {
        for proxy in &mut self.proxies {
            assert!(!proxy.output().contains("panicked"), "{}", proxy.output());
            proxy.kill().await;
        }
        if let Some(schema) = self.schema {
            schema.remove().await;
        }
    }
}

/// Runs `round` again and again on each kind of store, and says how often and how long.
async fn race(name: &str, round: impl AsyncFn(&World)) {
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let schema = name.to_lowercase().replace('-', "_");
    let mut worlds = vec![World::with(1, None).await];
    for processes in [1, 3] {
        if let Some(schema) = Schema::new(&format!("{schema}_{processes}")).await {
            worlds.push(World::with(processes, Some(schema)).await);
        }
    }
    for world in worlds {
        let started = Instant::now();
        for _ in 0..rounds {
            round(&world).await;
        }
        say(&format!(
            "{name} {}: {rounds} rounds, {:.1?}",
            world.store,
            started.elapsed()
        ));
        world.end().await;
    }
}
