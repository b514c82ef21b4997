//! The programs under test: how they are configured, started, watched and ended.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::time::Instant;

use crate::machine::{Pinning, scratch_directory};

/// How long a program may take until it accepts a connection.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(20);
const OUTPUT_FILE: &str = "output.log";
/// The kernel's unit of CPU time in `/proc`, which is fixed for programs.
const TICKS_PER_SECOND: f64 = 100.0;
/// How many tokens nginx knows.
const NGINX_TOKENS: u64 = 1000;

/// A program under test, ended when this is dropped.
pub(crate) struct Process {
    child: Child,
    name: &'static str,
    pub(crate) address: SocketAddr,
    /// Its configuration, data and output; goes when the program has ended.
    directory: tempfile::TempDir,
}

impl Process {
    /// Starts `command` and waits until `address` takes a connection.
    fn start(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        directory: tempfile::TempDir,
    ) -> anyhow::Result<Self> {
        let output = fs::File::create(directory.path().join(OUTPUT_FILE))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{name} could not be started"))?;
        let mut process = Self {
            child,
            name,
            address,
            directory,
        };
        process.wait_until_it_listens()?;
        Ok(process)
    }

    fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once ({status}):\n{}", self.name, self.output());
            }
            if Instant::now() > until {
                bail!(
                    "{} did not listen on {} within {START_TIMEOUT:?}:\n{}",
                    self.name,
                    self.address,
                    self.output()
                );
            }
            thread::sleep(START_POLL);
        }
        Ok(())
    }

    /// The end of what the program has written.
    pub(crate) fn output(&self) -> String {
        let text = fs::read(self.directory.path().join(OUTPUT_FILE)).unwrap_or_default();
        let tail = text.len().saturating_sub(2000);
        String::from_utf8_lossy(&text[tail..]).trim().to_owned()
    }

    /// The CPU time that the program and its children have used, in seconds, user and system.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut ticks = 0;
        for process in self.tree()? {
            ticks += process.ticks;
        }
        Ok(f64::from(u32::try_from(ticks)?) / TICKS_PER_SECOND)
    }

    /// The resident memory of the program and its children in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        let mut total = 0;
        for process in self.tree()? {
            let status = fs::read_to_string(format!("/proc/{}/status", process.id))?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .with_context(|| format!("{} has no VmRSS", self.name))?;
            total += line.trim().trim_end_matches("kB").trim().parse::<u32>()?;
        }
        Ok(f64::from(total))
    }

    fn tree(&self) -> anyhow::Result<Vec<Stat>> {
        let all: Vec<Stat> = fs::read_dir("/proc")?
            .filter_map(|entry| Stat::read(&entry.ok()?.path()))
            .collect();
        let mut tree = Vec::new();
        let mut parents = vec![self.child.id()];
        while let Some(parent) = parents.pop() {
            parents.extend(
                all.iter()
                    .filter(|process| process.parent == parent)
                    .map(|process| process.id),
            );
            tree.extend(all.iter().find(|process| process.id == parent).cloned());
        }
        ensure!(
            !tree.is_empty(),
            "{} has ended:\n{}",
            self.name,
            self.output()
        );
        Ok(tree)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One row of the process table.
#[derive(Clone)]
struct Stat {
    id: u32,
    parent: u32,
    ticks: u64,
}

impl Stat {
    fn read(directory: &Path) -> Option<Self> {
        let id = directory.file_name()?.to_str()?.parse().ok()?;
        let text = fs::read_to_string(directory.join("stat")).ok()?;
        // The name before the last parenthesis may itself hold spaces and parentheses.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            id,
            parent: fields.get(1)?.parse().ok()?,
            ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        })
    }
}

/// Where nginx is, unless it is not installed.
pub(crate) fn find_nginx() -> Option<PathBuf> {
    // Debian keeps it where only the administrator's PATH looks.
    let fallback = PathBuf::from("/usr/sbin");
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .chain([fallback])
        .map(|directory| directory.join("nginx"))
        .find(|path| path.is_file())
}

/// What a program says of its own version.
pub(crate) fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg("-v")
        .output()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    // nginx says it on standard error.
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(text.trim().trim_start_matches("nginx version: ").to_owned())
}

/// Starts nginx before `upstream`, set up to do what the hot path of the proxy does: check one
/// of many tokens, swap the `Authorization` header, stream the answer.
pub(crate) fn start_nginx(
    program: &Path,
    pinning: &Pinning,
    upstream: SocketAddr,
    key: &str,
    token: &str,
) -> anyhow::Result<Process> {
    let directory = scratch_directory()?;
    let path = directory.path();
    let address = free_address()?;
    // Not from the start, where the clients' own token is.
    let mut tokens = Tokens::starting_at(2);
    let mut known = String::new();
    for index in 0..NGINX_TOKENS {
        let other = tokens.next();
        let listed = if index == NGINX_TOKENS / 2 {
            token
        } else {
            &other
        };
        known.push_str("    \"Bearer ");
        known.push_str(listed);
        known.push_str("\" 1;\n");
    }
    let scratch = path.display();
    // One process instead of master and worker: killing it leaves nothing behind.
    let configuration = format!(
        r#"worker_processes 1;
daemon off;
master_process off;
pid {scratch}/nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  map_hash_bucket_size 128;
  map_hash_max_size 65536;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  map $http_authorization $is_known {{
    default 0;
{known}  }}
  upstream mcp {{
    server {upstream};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {address} backlog=4096;
    location /mcp {{
      if ($is_known = 0) {{ return 401; }}
      proxy_pass http://mcp;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {key}";
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_buffer_size 16k;
      proxy_buffers 8 16k;
    }}
  }}
}}
"#
    );
    let file = path.join("nginx.conf");
    fs::write(&file, configuration)?;
    let mut command = pinning.command(program);
    command.args(["-e", "stderr", "-p"]).arg(path);
    command.arg("-c").arg(&file);
    Process::start("nginx", command, address, directory)
}

/// Starts the proxy in front of `upstream`, with a new SQLite store and metrics on.
pub(crate) fn start_proxy(
    program: &Path,
    pinning: &Pinning,
    upstream: SocketAddr,
    key: &str,
    passphrase: &str,
) -> anyhow::Result<Process> {
    let directory = scratch_directory()?;
    let path = directory.path();
    let address = free_address()?;
    let metrics = free_address()?;
    let configuration = format!(
        r#"public_url = "http://{address}"
listen = "{address}"
data_dir = "{}/data"
store = "sqlite"
metrics_listen = "{metrics}"

[sign_in]
passphrase = "{passphrase}"

[limits]
registrations_per_address = "off"
registrations = "off"
calls_per_grant = "off"

[upstream.bench]
url = "http://{upstream}/mcp"
credential = {{ bearer = "{key}" }}
"#,
        path.display()
    );
    let file = path.join("mcp-oauth-proxy.toml");
    fs::write(&file, configuration)?;
    let mut command = pinning.command(program);
    command.args(["serve", "--config"]).arg(&file);
    Process::start("mcp-oauth-proxy", command, address, directory)
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

/// Makes texts that look like tokens: the same ones in every run, since they guard nothing.
#[derive(Default)]
pub(crate) struct Tokens(u64);

impl Tokens {
    pub(crate) fn starting_at(seed: u64) -> Self {
        Self(seed)
    }

    /// 43 letters and digits, as 32 random bytes come to.
    pub(crate) fn next(&mut self) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..43)
            .map(|_| char::from(ALPHABET[usize::from(self.byte() % 64)]))
            .collect()
    }

    /// The top byte of the next number of `SplitMix64`.
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_be_bytes()[0]
    }
}
