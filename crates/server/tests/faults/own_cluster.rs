//! A PostgreSQL server of the test's own, stopped as a power cut would stop it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{task::JoinSet, time::sleep};

use super::{
    from_environment,
    invariants::{recovers, session_is_whole},
    is_root,
    support::{
        client::{Client, Http, Tokens},
        nothing_may_be_missing,
        proxy::{Proxy, free_address},
        say,
        upstream::Upstream,
    },
};

/// In a normal run; `STOPS` asks for another number.
const STOPS: usize = 2;
const SESSIONS: usize = 20;

/// A cluster that lives as long as its test.
struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Cluster {
    /// `None`, and a line that says so, when PostgreSQL is not installed here.
    fn new() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(!nothing_may_be_missing(), "PostgreSQL is not installed");
            say("FI-08 was left out in part: PostgreSQL is not installed");
            return None;
        };
        let cluster = Self {
            directory: TempDir::new().unwrap(),
            programs,
            port: free_address().port(),
        };
        if is_root() {
            // PostgreSQL refuses to run as root.
            let owned = Command::new("chown")
                .arg("postgres")
                .arg(cluster.directory.path())
                .status();
            assert!(owned.unwrap().success());
        }
        cluster.run(
            "initdb",
            &["--username=postgres", "--auth=trust", "--no-sync"],
        );
        cluster.start();
        Some(cluster)
    }

    fn start(&self) {
        let log = self.directory.path().join("log").display().to_string();
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -k {}",
            self.port,
            self.directory.path().display()
        );
        self.run(
            "pg_ctl",
            &[
                "start",
                "--wait",
                "--silent",
                "--log",
                &log,
                "--options",
                &options,
            ],
        );
    }

    /// Without any leave-taking.
    fn stop(&self) {
        self.run(
            "pg_ctl",
            &["stop", "--mode=immediate", "--wait", "--silent"],
        );
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let done = command
            .arg("--pgdata")
            .arg(self.directory.path().join("data"))
            .args(arguments)
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.directory.path().join("data/postmaster.pid").exists() {
            self.stop();
        }
    }
}

/// Where the newest version's programs are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.map(|version| version.unwrap().path().join("bin"));
    folders
        .filter(|folder| folder.join("initdb").exists())
        .max()
}

/// FI-08
#[tokio::test]
async fn fi_08_a_server_that_is_stopped_at_once_loses_nothing_that_was_answered() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let store = format!(
        "store = \"postgres://postgres@127.0.0.1:{}/postgres\"",
        cluster.port
    );
    let proxy = Proxy::with(upstream.address, &store).await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(client.sign_in().await);
    }
    let stops = from_environment("STOPS", STOPS);
    let (mut rotations, mut refused) = (0, 0);
    for _ in 0..stops {
        let (stopped, is_stopped) = tokio::sync::watch::channel(false);
        let mut working = JoinSet::new();
        for tokens in sessions.drain(..) {
            working.spawn(until(is_stopped.clone(), client.clone(), tokens));
        }
        sleep(Duration::from_millis(200)).await;
        cluster.stop();
        stopped.send_replace(true);
        while let Some(session) = working.join_next().await {
            let (tokens, times) = session.unwrap();
            rotations += times;
            sessions.push(tokens);
        }
        refused += usize::from(client.refresh(&sessions[0]).await.status == 503);
        cluster.start();
        recovers(&proxy, Duration::from_secs(5)).await;
        for tokens in &mut sessions {
            *tokens = session_is_whole(&client, tokens).await;
        }
    }
    assert_eq!(refused, stops);
    say(&format!(
        "FI-08: {stops} immediate stops of PostgreSQL during {rotations} rotations, 0 lost, 0 forked"
    ));
}

/// Refreshes until the server is stopped; says how often.
async fn until(
    stopped: tokio::sync::watch::Receiver<bool>,
    client: Client,
    mut tokens: Tokens,
) -> (Tokens, usize) {
    let mut times = 0;
    while !*stopped.borrow() {
        let answer = client.refresh(&tokens).await;
        if answer.status == 200 {
            tokens = Tokens::of(&answer);
            times += 1;
        } else {
            let _ = answer.expect(503);
        }
    }
    (tokens, times)
}
