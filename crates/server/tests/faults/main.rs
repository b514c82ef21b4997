//! What breaks around the program while people use it: processes, disks, databases, networks,
//! clocks, and those who send the signals. Each test is one kind of fault; afterwards the
//! [`invariants`] hold. Shapes are short here and long in `just faults`.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

mod clients;
mod clocks;
mod crash_points;
mod damage;
mod disk;
mod instances;
mod invariants;
mod keys;
mod kills;
mod locked;
mod own_cluster;
mod postgres;
mod relay;
mod resources;
mod signals;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
mod upstreams;
mod vanished;

use std::{fs, os::unix::fs::MetadataExt, process::Command};

use support::{
    client::{Client, Http, Tokens},
    nothing_may_be_missing,
    postgres::Schema,
    proxy::Proxy,
    say,
    upstream::Upstream,
};

/// A number from the environment, for the long form of a test.
fn from_environment(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |number| number.parse().unwrap())
}

/// Whether a program is installed; says so if it is not.
fn have(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", program])
        .output()
        .unwrap()
        .status
        .success();
    if !found {
        assert!(!nothing_may_be_missing(), "no program {program}");
        say(&format!(
            "a test was left out: there is no program {program}"
        ));
    }
    found
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// An upstream, a proxy in front of it, and a client that is signed in.
struct World {
    upstream: Upstream,
    proxy: Proxy,
    client: Client,
    tokens: Tokens,
    /// Where the store is, unless it is in a file.
    schema: Option<Schema>,
}

impl World {
    async fn on_sqlite() -> Self {
        Self::prepared(None, |_| {}).await
    }

    /// `None`: there is no server.
    async fn on_postgres(name: &str) -> Option<Self> {
        let schema = Schema::new(name).await?;
        Some(Self::prepared(Some(schema), |_| {}).await)
    }

    /// On every kind of store that there is.
    async fn on_each_store(name: &str) -> Vec<Self> {
        let mut worlds = vec![Self::on_sqlite().await];
        worlds.extend(Self::on_postgres(name).await);
        worlds
    }

    /// With a proxy that `prepare` has changed before its start.
    async fn prepared(schema: Option<Schema>, prepare: impl FnOnce(&mut Proxy)) -> Self {
        let upstream = Upstream::start().await;
        let store = schema
            .as_ref()
            .map_or("sqlite", |schema| schema.url.as_str());
        let mut proxy = Proxy::prepared(upstream.address, &format!("store = \"{store}\""));
        prepare(&mut proxy);
        proxy.start().await;
        let client = Client::register(&Http::to(proxy.address)).await;
        let tokens = client.sign_in().await;
        Self {
            upstream,
            proxy,
            client,
            tokens,
            schema,
        }
    }

    /// The store, for people.
    fn store(&self) -> &'static str {
        match self.schema {
            Some(_) => "PostgreSQL",
            None => "SQLite",
        }
    }

    /// Goes on with the answer to a refresh.
    async fn refresh(&mut self) {
        self.tokens = Tokens::of(&self.client.refresh(&self.tokens).await.expect(200));
    }

    async fn end(mut self) {
        self.proxy.kill().await;
        if let Some(schema) = self.schema {
            schema.remove().await;
        }
    }
}
