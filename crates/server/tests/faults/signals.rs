//! Signals from all sides, and logs that nobody takes.

use std::{
    fs::File,
    io::{BufRead, BufReader, pipe},
    process::Stdio,
    sync::Mutex,
    thread,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    World,
    invariants::{recovers, session_is_whole},
    support::{
        client::{Client, Http, Tokens},
        wire::Wire,
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

/// FI-18
#[tokio::test]
async fn fi_18_however_it_is_told_to_end_every_session_is_there_afterwards() {
    for mut world in World::on_each_store("signals").await {
        for signals in [
            &["TERM"][..],
            &["INT"],
            &["HUP"],
            &["TERM", "TERM", "INT", "TERM", "HUP", "INT"],
            &["USR1"],
            &["USR2", "TERM"],
        ] {
            let client = world.client.clone();
            let mut tokens = world.tokens.clone();
            let mut working = JoinSet::new();
            working.spawn(async move {
                // Until there is nobody to ask.
                while let Ok(answer) = client.try_refresh(&tokens.refresh_token).await {
                    tokens = Tokens::of(&answer.expect(200));
                }
                tokens
            });
            sleep(Duration::from_millis(100)).await;
            for signal in signals {
                world.proxy.signal(signal);
            }
            let status = world.proxy.ended().await;
            let is_orderly = !signals[0].starts_with("USR");
            assert_eq!(
                status.code(),
                is_orderly.then_some(0),
                "{signals:?}: {}",
                world.proxy.output()
            );
            world.tokens = working.join_next().await.unwrap().unwrap();
            world.proxy.start().await;
            world.tokens = session_is_whole(&world.client, &world.tokens).await;
        }
        world.end().await;
    }
}

/// FI-18: lines of calls wait for each other, but not beyond the end.
#[tokio::test]
async fn fi_18_told_to_end_it_first_logs_every_call_that_it_answered() {
    const CALLS: usize = 50;
    for signal in ["TERM", "INT", "HUP"] {
        let mut world = World::on_sqlite().await;
        for _ in 0..CALLS {
            let _ = world.client.call(&world.tokens).await.expect(200);
        }
        world.proxy.signal(signal);
        let _ = world.proxy.ended().await;
        let output = world.proxy.output();
        let lines = output.matches("a call was forwarded").count();
        assert_eq!(lines, CALLS, "{signal}: {output}");
    }
}

/// FI-18
#[tokio::test]
async fn fi_18_a_process_that_was_stopped_goes_on_where_it_was() {
    for mut world in World::on_each_store("stopped").await {
        let events = world.upstream.streams();
        let call = world.client.call_request(&world.tokens);
        let mut stream = world.client.http.open(call).await.unwrap().into_body();
        world.proxy.signal("STOP");
        let (client, tokens) = (world.client.clone(), world.tokens.clone());
        let mut waiting = JoinSet::new();
        waiting.spawn(async move { client.refresh(&tokens).await });
        events.send("data: 1\n\n".into()).unwrap();
        sleep(Duration::from_secs(3)).await;
        world.proxy.signal("CONT");
        let answer = timeout(PATIENCE, waiting.join_next()).await.unwrap();
        world.tokens = Tokens::of(&answer.unwrap().unwrap().expect(200));
        let event = http_body_util::BodyExt::frame(&mut stream);
        let event = timeout(PATIENCE, event).await.unwrap().unwrap().unwrap();
        assert_eq!(event.into_data().unwrap(), "data: 1\n\n");
        recovers(&world.proxy, PATIENCE).await;
        session_is_whole(&world.client, &world.tokens).await;
        world.end().await;
    }
}

/// FI-18: more is logged than any pipe or queue holds, and nobody reads it.
#[tokio::test]
async fn fi_18_a_log_that_nobody_takes_holds_up_no_request() {
    const REQUESTS: usize = 8000;
    type Output = fn() -> Stdio;
    let outputs: [(&str, Output); 2] = [
        ("a reader that stalls", || {
            let (reader, writer) = pipe().unwrap();
            // Open as long as this test program runs.
            std::mem::forget(reader);
            writer.into()
        }),
        ("a full disk", || {
            File::options()
                .write(true)
                .open("/dev/full")
                .unwrap()
                .into()
        }),
    ];
    for (what, output) in outputs {
        let mut world = World::prepared(None, |proxy| {
            proxy.set("RUST_LOG", "trace");
            proxy.write_to(output);
        })
        .await;
        let mut asking = JoinSet::new();
        for _ in 0..8 {
            let (client, tokens) = (world.client.clone(), world.tokens.clone());
            asking.spawn(async move {
                for _ in 0..REQUESTS / 8 {
                    let _ = client.call(&tokens).await.expect(200);
                }
            });
        }
        let asked = timeout(8 * PATIENCE, asking.join_all());
        assert!(asked.await.is_ok(), "{what}: requests wait for the log");
        let lost = lost(&world).await;
        assert_eq!(lost > 0, what == "a reader that stalls", "{what}: {lost}");
        session_is_whole(&world.client, &world.tokens).await;
        world.proxy.stop().await;
    }
}

/// Lines of the log that nobody read in time.
async fn lost(world: &World) -> u64 {
    let metrics = Http::to(world.proxy.metrics).get("/metrics").await;
    let metrics = metrics.expect(200).text();
    let mut lines = metrics.lines();
    let lost = lines.find_map(|line| line.strip_prefix("mcp_oauth_proxy_log_lines_lost_total "));
    lost.unwrap().parse().unwrap()
}

/// FI-18: strangers have more logged than is read, and then the program ends; what others did is
/// in the log all the same.
#[tokio::test]
async fn fi_18_refusals_without_end_push_nothing_else_out_of_the_log() {
    const SIGN_INS: usize = 8;
    static READ: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut world = World::prepared(None, |proxy| {
        proxy.write_to(|| {
            let (reader, writer) = pipe().unwrap();
            thread::spawn(move || {
                for line in BufReader::new(reader).lines() {
                    READ.lock().unwrap().push(line.unwrap());
                    thread::sleep(Duration::from_millis(2));
                }
            });
            writer.into()
        });
    })
    .await;
    let http = world.client.http.clone();
    let call = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
        http.address
    );
    let mut flood = JoinSet::<()>::new();
    for _ in 0..2 {
        let (http, calls) = (http.clone(), vec![call.clone(); 100]);
        flood.spawn(async move {
            let mut wire = Wire::open(&http).await;
            loop {
                let _ = wire.pipelined(&calls).await;
            }
        });
    }
    let started = Instant::now();
    while lost(&world).await == 0 {
        assert!(started.elapsed() < 2 * PATIENCE, "every line is read");
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..SIGN_INS {
        let client = Client::register(&http).await;
        let tokens = client.sign_in().await;
        let revoked = http.form("/revoke", &client.revocation(&tokens.refresh_token));
        let _ = http.send(revoked).await.expect(200);
    }
    flood.shutdown().await;
    world.proxy.stop().await;
    // Those of the world's own client came first of all. Registrations are no more than requests of
    // anybody, and may be lost.
    for (told, times) in [
        ("a client was approved", 1 + SIGN_INS),
        ("a code was redeemed", 1 + SIGN_INS),
        ("a grant ended", SIGN_INS),
        ("stopping: requests in flight", 1),
    ] {
        let stopped = Instant::now();
        let count = || {
            let read = READ.lock().unwrap();
            read.iter().filter(|line| line.contains(told)).count()
        };
        while count() < times {
            let waited = stopped.elapsed();
            assert!(waited < PATIENCE, "{told}: {} of {times}", count());
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// FI-18
#[tokio::test]
async fn fi_18_without_input_output_and_log_it_serves() {
    let mut world = World::prepared(None, |proxy| {
        proxy.run_under(&["sh", "-c", "exec \"$0\" \"$@\" <&- >&- 2>&-"]);
    })
    .await;
    session_is_whole(&world.client, &world.tokens).await;
    world.proxy.stop().await;
}
