//! Upstreams whose address leads back to the proxy (N-UP-18).

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

use crate::{
    refusal::Refusal::JsonRpc,
    support::client::{Client, Http, Tokens},
    world::World,
};

/// A proxy whose upstream can be changed, and a client that is signed in there.
struct Stage {
    world: World,
    client: Client,
    tokens: Tokens,
    /// Where the upstream is now.
    upstream: String,
}

impl Stage {
    async fn set(world: &World) -> Self {
        let world = world.another("").await;
        let client = world.client().await;
        let tokens = client.sign_in().await;
        world.serves(&client, &tokens).await;
        Self {
            upstream: format!("http://{}/mcp", world.upstream.address),
            world,
            client,
            tokens,
        }
    }

    /// Stops the proxy and gives it another upstream for its next start.
    async fn stop_and_lead_to(&mut self, upstream: String) {
        self.world.proxy.stop().await;
        self.world.proxy.reconfigure(&self.upstream, &upstream);
        self.upstream = upstream;
    }

    /// Gives the proxy another upstream, and for it the worst of credentials: a token that is good
    /// there, so that nothing else ends a loop.
    async fn leads_to(&mut self, address: SocketAddr, tokens: &Tokens) {
        self.stop_and_lead_to(format!("http://{address}/mcp")).await;
        self.world.proxy.set("UPSTREAM_KEY", &tokens.access_token);
        self.world.proxy.start().await;
    }

    /// A call comes back once, and the client is told why it went no further.
    async fn goes_round_once(&self) {
        let (records, before) = (self.world.records().await, self.came_back().await);
        let answer = self.client.call(&self.tokens).await;
        // What the one behind says of this very request reaches the client as its answer.
        let status = if answer.status == 200 { 200 } else { 508 };
        JsonRpc(status).check(&answer, &self.world.issuer);
        assert!(answer.text().contains("leads back"), "{answer:#?}");
        assert_eq!(self.came_back().await, before + 1);
        assert_eq!(self.world.records().await, records);
    }

    /// How many requests of its own the proxy has met.
    async fn came_back(&self) -> u32 {
        let metrics = Http::to(self.world.proxy.metrics).get("/metrics").await;
        let text = metrics.text();
        let count = text.lines().find_map(|line| line.strip_prefix(COUNTER));
        count.unwrap().trim().parse().unwrap()
    }
}

const COUNTER: &str = "mcp_oauth_proxy_loops_total ";

pub async fn are_detected(world: Arc<World>) {
    let mut one = Stage::set(&world).await;
    let own = one.world.proxy.address;

    // Where it can be seen, it is a mistake in the configuration.
    let upstream = one.upstream.clone();
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let url = format!("http://{host}:{}/other", own.port());
        one.stop_and_lead_to(url).await;
        one.world.proxy.spawn();
        assert_eq!(one.world.proxy.ended().await.code(), Some(2), "{host}");
        one.world.proxy.reconfigure(&one.upstream, &upstream);
        one.upstream.clone_from(&upstream);
        one.world.proxy.start().await;
    }
    let output = one.world.proxy.output();
    let mistake = "upstream.one.url is an address of this proxy itself";
    assert_eq!(output.matches(mistake).count(), 3, "{output}");
    one.world.serves(&one.client, &one.tokens).await;

    // An address that nothing is known of.
    let alias = alias_of(own).await;
    let tokens = one.tokens.clone();
    one.leads_to(alias, &tokens).await;
    one.goes_round_once().await;

    // Two proxies that are each other's upstream.
    let mut two = Stage::set(&world).await;
    let upstream = two.world.upstream.address;
    one.leads_to(two.world.proxy.address, &two.tokens).await;
    two.leads_to(own, &one.tokens).await;
    // A start tries its upstream, which comes round too.
    let before = two.came_back().await;
    one.goes_round_once().await;
    assert_eq!(two.came_back().await, before);
    two.goes_round_once().await;

    // The twin: a proxy behind a proxy is no loop.
    let tokens = two.tokens.clone();
    two.leads_to(upstream, &tokens).await;
    let _ = one.client.call(&one.tokens).await.expect(200);
    assert_eq!(two.world.upstream.begun(), 2);
}

/// Another address of the server at `address`.
async fn alias_of(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alias = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    let connections = tasks.clone();
    tasks.spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(address).await.unwrap();
            connections.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
        }
    });
    alias
}
