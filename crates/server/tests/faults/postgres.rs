//! A database server that ends sessions, is busy, pauses, or cannot be reached.

use std::time::Duration;

use axum::body::Body;
use http::Request;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    World,
    invariants::{answered, no_double_spend, no_resurrection, recovers, session_is_whole},
    locked::Locked,
    relay::{Flow, Relay},
    support::{
        PASSPHRASE,
        client::{Client, Http, Tokens},
        postgres::Schema,
    },
};

const BACK_WITHIN: Duration = Duration::from_secs(5);
/// Time for a request to get as far as it can.
const A_WHILE: Duration = Duration::from_millis(300);

/// FI-08
#[tokio::test]
async fn fi_08_a_session_that_the_server_ends_is_a_503_and_costs_nothing() {
    let Some(mut world) = World::on_postgres("terminated").await else {
        return;
    };
    let mut ended = 0;
    for _ in 0..5 {
        let mut locked = Locked::store_of(&world).await;
        let (refused, ()) = tokio::join!(world.client.refresh(&world.tokens), async {
            sleep(A_WHILE).await;
            ended += locked.end_who_waits().await;
            locked.release().await;
        });
        if refused.status == 200 {
            world.tokens = Tokens::of(&refused);
        } else {
            let _ = refused.expect(503);
        }
        recovers(&world.proxy, BACK_WITHIN).await;
        world.tokens = session_is_whole(&world.client, &world.tokens).await;
    }
    assert!(ended > 0, "nobody waited");
    world.end().await;
}

/// FI-08
#[tokio::test]
async fn fi_08_more_requests_than_connections_wait_or_are_told_to_come_again() {
    let Some(mut world) = World::on_postgres("exhausted").await else {
        return;
    };
    let mut others = Vec::new();
    for _ in 0..30 {
        others.push(world.client.sign_in().await);
    }
    let locked = Locked::store_of(&world).await;
    let started = Instant::now();
    let mut waiting = JoinSet::new();
    for tokens in others.clone() {
        let client = world.client.clone();
        waiting.spawn(async move { client.refresh(&tokens).await.status });
    }
    while let Some(status) = waiting.join_next().await {
        assert_eq!(status.unwrap(), 503);
    }
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    locked.release().await;
    recovers(&world.proxy, BACK_WITHIN).await;
    world.refresh().await;
    for tokens in &others {
        session_is_whole(&world.client, tokens).await;
    }
    world.end().await;
}

/// FI-08: what is written and not known to be written is healed by asking again.
#[tokio::test]
async fn fi_08_a_commit_whose_answer_is_lost_is_healed_by_asking_again() {
    let Some((mut world, relay)) = behind_a_relay("ambiguous").await else {
        return;
    };
    let client = world.client.clone();
    for _ in 0..5 {
        let fields = client.refreshment(&world.tokens.refresh_token);
        let refresh = || client.http.form("/token", &fields);
        lose_an_answer(&relay, &client.http, refresh).await;
        world.tokens = session_is_whole(&client, &world.tokens).await;
    }

    let http = &client.http;
    let consent = client.opens_consent().await;
    let approve = || consent.answer(http, PASSPHRASE, "approve");
    lose_an_answer(&relay, http, approve).await;
    let approved = answered(http, approve).await.expect(303);

    let redemption = client.redemption(&Client::code(&approved));
    let redeem = || http.form("/token", &redemption);
    lose_an_answer(&relay, http, redeem).await;
    // One answer only: the standard lets no code be redeemed twice, whoever lost the answer.
    no_double_spend(&answered(http, redeem).await);

    let revocation = client.revocation(&world.tokens.refresh_token);
    let revoke = || http.form("/revoke", &revocation);
    lose_an_answer(&relay, http, revoke).await;
    let _ = answered(http, revoke).await.expect(200);
    no_resurrection(&client, &world.tokens).await;
    world.end().await;
}

/// FI-08
#[tokio::test]
async fn fi_08_a_server_that_pauses_for_ten_seconds_is_waited_for() {
    let Some((mut world, relay)) = behind_a_relay("paused").await else {
        return;
    };
    relay.set(Flow::Stall);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        let asked = Instant::now();
        let _ = world.client.refresh(&world.tokens).await.expect(503);
        assert!(
            asked.elapsed() < Duration::from_secs(8),
            "{:?}",
            asked.elapsed()
        );
    }
    relay.set(Flow::Pass);
    recovers(&world.proxy, BACK_WITHIN).await;
    world.tokens = session_is_whole(&world.client, &world.tokens).await;
    world.end().await;
}

/// FI-08
#[tokio::test]
async fn fi_08_a_network_that_is_cut_is_a_503_until_it_is_mended() {
    let Some((mut world, relay)) = behind_a_relay("cut").await else {
        return;
    };
    for _ in 0..3 {
        relay.set(Flow::Broken);
        for _ in 0..3 {
            let _ = world.client.refresh(&world.tokens).await.expect(503);
        }
        let _ = world.client.http.get("/health").await.expect(200);
        relay.set(Flow::Pass);
        recovers(&world.proxy, BACK_WITHIN).await;
        world.tokens = session_is_whole(&world.client, &world.tokens).await;
    }
    world.end().await;
}

/// The request is done, and neither its client nor the proxy learns of it.
async fn lose_an_answer(relay: &Relay, http: &Http, request: impl Fn() -> Request<Body>) {
    relay.set(Flow::BreakAfterWrite);
    let lost = http.send(request()).await;
    assert!(lost.status.is_server_error(), "{lost:#?}");
    relay.becomes(Flow::Broken).await;
    relay.set(Flow::Pass);
}

/// With a network between the proxy and the server that does what the test says.
async fn behind_a_relay(name: &str) -> Option<(World, Relay)> {
    let mut schema = Schema::new(name).await?;
    let host = schema.url.host_str().unwrap();
    let port = schema.url.port().unwrap_or(5432);
    let server = tokio::net::lookup_host((host, port)).await.unwrap().next();
    let relay = Relay::to(server.unwrap()).await;
    // The relay reads what the server answers.
    schema
        .url
        .query_pairs_mut()
        .append_pair("sslmode", "disable");
    schema.url.set_host(Some("127.0.0.1")).unwrap();
    schema.url.set_port(Some(relay.address.port())).unwrap();
    Some((World::prepared(Some(schema), |_| {}).await, relay))
}
