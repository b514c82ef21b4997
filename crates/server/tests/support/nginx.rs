//! nginx in front of the program, as the README sets it up.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpStream, time::Instant};

use super::{nothing_may_be_missing, say};

/// What passes on to the proxy whatever comes to `address`.
pub struct Nginx {
    child: Child,
    #[expect(dead_code, reason = "it goes with this")]
    directory: TempDir,
}

impl Nginx {
    /// `None`, and a line that says so, when it is not installed. `changes` are made in the
    /// README's block.
    pub async fn start(address: SocketAddr, changes: &[(&str, &str)]) -> Option<Self> {
        let Some(program) = find() else {
            assert!(!nothing_may_be_missing(), "no nginx");
            say("what takes an nginx in front was left out: it is not installed");
            return None;
        };
        let mut server: String = block()
            .lines()
            .filter(|line| !line.trim().starts_with("ssl_"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let listen = format!("listen {address};");
        for (piece, by) in [("listen 443 ssl;", &*listen)].iter().chain(changes) {
            assert!(server.contains(piece), "no {piece:?} in {server}");
            server = server.replace(piece, by);
        }
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {scratch}/{name};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {scratch}/pid;\nerror_log stderr error;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\naccess_log off;\n{temporary}{server}\n}}\n"
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let mut child = Command::new(program)
            .args(["-e", "stderr", "-p"])
            .arg(directory.path())
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            let exited = child.try_wait().unwrap();
            let waited = started.elapsed();
            assert!(
                exited.is_none() && waited < Duration::from_secs(30),
                "nginx does not start: {exited:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(Self { child, directory })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The block that the README shows.
fn block() -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let (_, block) = readme.split_once("```nginx\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

fn find() -> Option<PathBuf> {
    // Debian keeps it where only the administrator's PATH looks.
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .map(|folder| folder.join("nginx"))
        .find(|program| program.is_file())
}
