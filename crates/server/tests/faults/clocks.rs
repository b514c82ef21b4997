//! Clocks that jump.

use std::time::{Duration, UNIX_EPOCH};

use sqlx::{Connection, SqliteConnection};
use tokio::time::{Instant, sleep};

use super::{World, invariants::session_is_whole, support::fake_time::FakeTime};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// FI-14
#[tokio::test]
async fn fi_14_a_clock_that_jumps_ends_nobodys_session() {
    let Some(time) = FakeTime::new() else { return };
    let mut world = World::prepared(None, |proxy| time.rules(proxy)).await;
    for offset in [1, -1, 60, -60, HOUR, -HOUR, DAY, -DAY, 0] {
        time.is_off_by(offset);
        world.refresh().await;
        world.tokens = session_is_whole(&world.client, &world.tokens).await;
        let fresh = world.client.sign_in().await;
        session_is_whole(&world.client, &fresh).await;
    }
    assert!(!world.proxy.output().contains("panicked"));
    world.end().await;
}

/// FI-14
#[tokio::test]
async fn fi_14_a_clock_that_is_set_back_revives_nothing() {
    let Some(time) = FakeTime::new() else { return };
    let mut world = World::prepared(None, |proxy| time.rules(proxy)).await;
    let expired = world.tokens.clone();
    let _ = world.client.call(&expired).await.expect(200);
    time.is_off_by(2 * HOUR);
    let _ = world.client.call(&expired).await.expect(401);
    time.is_off_by(0);
    let _ = world.client.call(&expired).await.expect(401);

    // Another process remembers what this one has seen.
    time.is_off_by(2 * HOUR);
    world.proxy.kill().await;
    world.proxy.start().await;
    time_is_written_down(&world, 2 * HOUR).await;
    world.proxy.kill().await;
    time.is_off_by(0);
    world.proxy.start().await;
    let _ = world.client.call(&expired).await.expect(401);
    // Who refreshes goes on as ever.
    world.refresh().await;
    session_is_whole(&world.client, &world.tokens).await;
    let output = world.proxy.output();
    assert!(
        output.contains("clock of this machine is behind"),
        "{output}"
    );
    world.end().await;
}

async fn time_is_written_down(world: &World, ahead: i64) {
    let file = world.proxy.data_dir().join("records.sqlite");
    let url = format!("sqlite://{}?mode=ro", file.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let now = UNIX_EPOCH.elapsed().unwrap();
    let wanted = i64::try_from(now.as_secs()).unwrap() + ahead - 60;
    let started = Instant::now();
    loop {
        let mark: i64 = sqlx::query_scalar(
            "SELECT json_extract(CAST(value AS TEXT), '$.latest') FROM mcp_oauth_proxy_records \
             WHERE key = 'mark/time'",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        if mark >= wanted {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{mark} < {wanted}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

/// FI-14: the last second of 32-bit time, a leap day, the end of the certificates' short years.
#[tokio::test]
async fn fi_14_no_moment_is_special() {
    const LEAP_DAY: i64 = 1_835_394_000;
    const END_OF_32_BITS: i64 = 2_147_483_645;
    const NEW_YEAR_2100: i64 = 4_102_444_798;
    let Some(time) = FakeTime::new() else { return };
    for moment in [LEAP_DAY, END_OF_32_BITS, NEW_YEAR_2100] {
        time.goes_on_from(moment);
        let mut world = World::prepared(None, |proxy| time.rules(proxy)).await;
        // Across the moment.
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(4) {
            world.refresh().await;
            world.tokens = session_is_whole(&world.client, &world.tokens).await;
            sleep(Duration::from_millis(200)).await;
        }
        assert!(!world.proxy.output().contains("panicked"));
        world.end().await;
    }
}

/// FI-14
#[tokio::test]
async fn fi_14_a_clock_that_stands_still_stops_nothing() {
    let Some(time) = FakeTime::new() else { return };
    time.is("2026-06-01 12:00:00");
    let mut world = World::prepared(None, |proxy| time.rules(proxy)).await;
    for _ in 0..5 {
        world.refresh().await;
        world.tokens = session_is_whole(&world.client, &world.tokens).await;
    }
    world.proxy.stop().await;
    world.proxy.start().await;
    session_is_whole(&world.client, &world.tokens).await;
    world.end().await;
}
