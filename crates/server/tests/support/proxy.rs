//! The binary, with a configuration and a data directory of its own.

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpStream, time::Instant};

use super::{PASSPHRASE, UPSTREAM_KEY};

/// Far longer than a start or an orderly stop takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often something is asked that has no other way of saying that it has happened.
const PAUSE: Duration = Duration::from_millis(5);

/// A proxy that can be stopped, killed and started again.
pub struct Proxy {
    directory: TempDir,
    variables: Vec<(String, String)>,
    /// A program that runs this one, with its arguments.
    under: Vec<String>,
    /// Where output goes when nobody keeps it.
    unkept: Option<fn() -> Stdio>,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    child: Option<Child>,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// A running proxy in front of the MCP server at `upstream`, on SQLite.
    pub async fn in_front_of(upstream: SocketAddr) -> Self {
        Self::with(upstream, "store = \"sqlite\"").await
    }

    /// The same with these lines on top of the configuration.
    pub async fn with(upstream: SocketAddr, lines: &str) -> Self {
        let mut proxy = Self::prepared(upstream, lines);
        proxy.start().await;
        proxy
    }

    /// A proxy that was not started yet.
    pub fn prepared(upstream: SocketAddr, lines: &str) -> Self {
        let proxy = Self {
            directory: tempfile::tempdir().unwrap(),
            variables: vec![
                ("PASSPHRASE".to_owned(), PASSPHRASE.to_owned()),
                ("UPSTREAM_KEY".to_owned(), UPSTREAM_KEY.to_owned()),
                ("TMPDIR".to_owned(), "tmp".to_owned()),
            ],
            under: Vec::new(),
            unkept: None,
            address: free_address(),
            metrics: free_address(),
            child: None,
            output: Arc::default(),
            readers: Vec::new(),
        };
        fs::create_dir(proxy.directory.path().join("tmp")).unwrap();
        let Self {
            address, metrics, ..
        } = &proxy;
        // Tests of other things may register and call as often as they like, and take their time
        // over streams.
        let limits = [
            "registrations_per_address",
            "registrations",
            "calls_per_grant",
            "stream_keep_alive",
        ];
        let limits = limits.map(|limit| {
            let key = format!("limits.{limit} ");
            let is_set = lines.contains(&key);
            if is_set {
                String::new()
            } else {
                key + "= \"off\""
            }
        });
        let limits = limits.join("\n");
        proxy.write_configuration(&format!(
            "{lines}\n\
             {limits}\n\
             listen = \"{address}\"\n\
             metrics_listen = \"{metrics}\"\n\
             data_dir = \"data\"\n\
             [upstream.one]\n\
             url = \"http://{upstream}/mcp\"\n\
             credential = {{ bearer = {{ env = \"UPSTREAM_KEY\" }} }}\n"
        ));
        proxy
    }

    /// Puts this proxy's data where `other` has its own.
    pub fn share_data_dir_of(&self, other: &Self) {
        std::os::unix::fs::symlink(other.data_dir(), self.data_dir()).unwrap();
    }

    /// Writes the whole configuration file.
    pub fn write_configuration(&self, text: &str) {
        let file = self.directory.path().join("mcp-oauth-proxy.toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Replaces a piece of the configuration for the next start.
    pub fn reconfigure(&self, piece: &str, by: &str) {
        let file = self.directory.path().join("mcp-oauth-proxy.toml");
        let text = fs::read_to_string(file).unwrap();
        assert!(text.contains(piece), "{text}");
        self.write_configuration(&text.replace(piece, by));
    }

    /// Runs a command of the program beside it.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.run_in(self.directory.path(), arguments)
    }

    /// What `check` says of the configuration.
    pub fn check(&self) -> Vec<u8> {
        let output = self.run_in(self.directory.path(), &["check", "--all", "--offline"]);
        assert!(output.status.success(), "{output:?}");
        [output.stdout, output.stderr].concat()
    }

    /// What `check` says where there is none.
    pub fn check_without_configuration(&self) -> String {
        let output = self.run_in(
            &self.directory.path().join("tmp"),
            &["check", "--all", "--offline"],
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn run_in(&self, directory: &Path, arguments: &[&str]) -> Output {
        Command::new(program())
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap()
    }

    /// The files that the program made: those of the data directory but for the key, which is the
    /// one that is to hold it, and temporary ones.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut folders = vec![self.data_dir(), self.directory.path().join("tmp")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path != self.data_dir().join("key") {
                    files.push((path.display().to_string(), fs::read(path).unwrap()));
                }
            }
        }
        files
    }

    /// What anybody on this machine may see of the process, and all that can be seen of its
    /// children.
    pub fn process(&self) -> Vec<(String, Vec<u8>)> {
        let id = self.child.as_ref().unwrap().id();
        let mut seen = Vec::new();
        for entry in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
            let task = entry.unwrap().path();
            let name = fs::read(task.join("comm")).unwrap_or_default();
            seen.push(("the name of a thread".to_owned(), name));
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                for file in ["cmdline", "environ"] {
                    let text = fs::read(format!("/proc/{child}/{file}")).unwrap_or_default();
                    seen.push((format!("{file} of a child"), text));
                }
            }
        }
        let text = fs::read(format!("/proc/{id}/cmdline")).unwrap();
        assert!(!text.is_empty());
        seen.push(("the command line".to_owned(), text));
        seen
    }

    /// What the operating system allows the process, as it lists it.
    pub fn limits(&self) -> String {
        let id = self.child.as_ref().unwrap().id();
        fs::read_to_string(format!("/proc/{id}/limits")).unwrap()
    }

    /// Sets a variable of the environment for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Has `program` run this one from the next start on: it comes behind these arguments.
    pub fn run_under(&mut self, program: &[&str]) {
        self.under = program.iter().map(|&word| word.to_owned()).collect();
    }

    /// Sends all output there from the next start on.
    pub fn write_to(&mut self, output: fn() -> Stdio) {
        self.unkept = Some(output);
    }

    /// Starts the program and waits until it takes connections, and has tried its upstreams: no test
    /// has to reckon with that.
    pub async fn start(&mut self) {
        let known = self.output().len();
        self.spawn();
        self.listens().await;
        self.has_tried(known).await;
    }

    /// Waits until the log has what came of each trial, after the first `known` bytes.
    async fn has_tried(&self, known: usize) {
        let level = self.variables.iter().find(|(name, _)| name == "RUST_LOG");
        let tells = level.is_none_or(|(_, level)| {
            ["info", "debug", "trace"]
                .iter()
                .any(|it| level.starts_with(it))
        });
        // What another program does with the output is its own affair.
        if !tells || self.unkept.is_some() || !self.under.is_empty() {
            return;
        }
        let file = self.directory.path().join("mcp-oauth-proxy.toml");
        let upstreams = fs::read_to_string(file)
            .unwrap()
            .matches("\nurl = ")
            .count();
        let is_trial = |line: &&str| {
            let failed = line.contains(r#""level":"WARN""#) && line.contains(r#""why":"#);
            line.contains("the upstream answers") || failed
        };
        let started = Instant::now();
        while self.output()[known..].lines().filter(is_trial).count() < upstreams {
            let waited = started.elapsed();
            assert!(waited < PATIENCE, "no trial: {}", self.output());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until the program takes connections.
    pub async fn listens(&mut self) {
        let started = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            let exited = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                exited.is_none() && started.elapsed() < PATIENCE,
                "the proxy does not start ({exited:?}): {}",
                self.output()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts the program.
    pub fn spawn(&mut self) {
        let mut command = match &self.under[..] {
            [] => Command::new(program()),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program());
                command
            }
        };
        let output = self.unkept.unwrap_or(Stdio::piped);
        let mut child = command
            .current_dir(self.directory.path())
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .unwrap();
        if self.unkept.is_none() {
            let stdout = child.stdout.take().unwrap();
            let stderr = child.stderr.take().unwrap();
            self.readers = vec![
                keep(stdout, Arc::clone(&self.output)),
                keep(stderr, Arc::clone(&self.output)),
            ];
        }
        self.child = Some(child);
    }

    /// The running process.
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// How much memory the program has, in bytes.
    pub fn resident(&self) -> u64 {
        let sizes = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let resident = sizes.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.unwrap().trim().strip_suffix(" kB").unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Asks the program to stop, as a service manager does.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Whether the program has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for the program's end; all of its output is there then.
    pub async fn ended(&mut self) -> ExitStatus {
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                break status;
            }
            let waited = asked.elapsed();
            assert!(waited < PATIENCE, "no end: {}", self.output());
            tokio::time::sleep(PAUSE).await;
        };
        self.child = None;
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }

    /// An orderly stop.
    pub async fn stop(&mut self) {
        self.terminate();
        let status = self.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.output());
    }

    /// Ends the program in the middle of whatever it does.
    pub async fn kill(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        self.ended().await;
    }

    /// The memory that the program has in use, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let id = self.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.unwrap().trim().trim_end_matches(" kB");
        size.parse().unwrap()
    }

    /// Waits until the program has written `text` after the first `known` bytes of its output;
    /// gives what it has written since then.
    pub async fn says(&self, known: usize, text: &str) -> String {
        let started = Instant::now();
        loop {
            let new = self.output().split_off(known);
            if new.contains(text) {
                return new;
            }
            assert!(started.elapsed() < PATIENCE, "no {text:?}: {new}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the program has written to standard output and standard error so far, over all
    /// starts.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// The program under test: what `PROXY_BIN` names, or else what was built along with the tests.
pub fn program() -> PathBuf {
    match std::env::var_os("PROXY_BIN") {
        Some(program) => fs::canonicalize(&program)
            .unwrap_or_else(|error| panic!("PROXY_BIN, {}: {error}", program.display())),
        None => env!("CARGO_BIN_EXE_mcp-oauth-proxy").into(),
    }
}

/// Keeps what comes from `source`, until its end.
fn keep(mut source: impl Read + Send + 'static, output: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut chunk = [0; 16 * 1024];
        while let Ok(read @ 1..) = source.read(&mut chunk) {
            output.lock().unwrap().extend_from_slice(&chunk[..read]);
        }
    })
}

/// An address that nobody listens on. Its port is below those that the kernel gives to outgoing
/// connections: a client that knocks while the program is down would otherwise be given the very
/// port it knocks at, and talk to itself.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // A hundred for each process that runs tests at the same time.
    let first = u16::try_from(std::process::id() % 120 * 100).unwrap();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (first + step) % 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
