//! The suite once more, inside a network of its own: every address there is this machine's, names
//! are what `internet.rs` says, and nothing leads out. What goes there by any address, public or
//! not, arrives at the tests, so a program that takes care where it connects to can be led anywhere.

use std::{env, fs, path::PathBuf, process::Command};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    task::spawn_blocking,
};
use tokio_util::task::TaskTracker;

use super::support::{nothing_may_be_missing, postgres, say};

/// Names the folder that both sides know, and says that this is inside.
const INSIDE: &str = "ATTACKS_INSIDE";

/// An address below this is on no network.
pub const NOWHERE: &str = "93.185.0.0/16";

/// Makes the network, and runs the program that is named behind the folder and [`NOWHERE`].
const ENTER: &str = r#"set -e
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local ::/0 dev lo
ip route add unreachable "$2" table local
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
shift 2
exec "$@""#;

/// The folder that both sides know, inside.
pub fn folder() -> Option<PathBuf> {
    env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs the test of this name inside, and insists that it passes; `false` where it is run already,
/// and where there can be no inside.
pub async fn ran(test: &str) -> bool {
    if folder().is_some() {
        return false;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    // One question at a time, and no second chance: each is counted.
    let resolver = "nameserver 127.0.0.1\noptions timeout:5 attempts:1\n";
    fs::write(path.join("resolv.conf"), resolver).unwrap();
    fs::write(path.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    // As the user who may; or in a namespace where every user may.
    let ways = [&[][..], &["--map-root-user"]].map(|way| {
        let mut words = vec!["--net", "--mount"];
        words.extend(way);
        words.extend(["sh", "-c", ENTER, "sh", path.to_str().unwrap(), NOWHERE]);
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    });
    let mut failed = String::new();
    let way = ways.into_iter().find(|way| {
        let tried = Command::new("unshare").args(way).arg("true").output();
        let leads_in = tried.as_ref().is_ok_and(|output| output.status.success());
        failed = match tried {
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        leads_in
    });
    let Some(way) = way else {
        assert!(!nothing_may_be_missing(), "no network of its own: {failed}");
        say(&format!(
            "what takes a network of its own is not tried: {failed}"
        ));
        return false;
    };
    let mut command = Command::new("unshare");
    command.args(way).arg(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command
        .env(INSIDE, path)
        .env(postgres::SERVER, lead_out(&folder));
    let status = spawn_blocking(move || command.status()).await.unwrap();
    assert!(status.unwrap().success(), "not passed inside");
    true
}

/// The PostgreSQL server, by a socket that does not mind where the network ends.
fn lead_out(folder: &TempDir) -> String {
    let mut url = postgres::server();
    if url.query_pairs().any(|(name, _)| name == "host") {
        return url.into();
    }
    let address = (
        url.host_str().unwrap_or("localhost").to_owned(),
        url.port().unwrap_or(5432),
    );
    let socket = folder.path().join(format!(".s.PGSQL.{}", address.1));
    let listener = UnixListener::bind(socket).unwrap();
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            let address = address.clone();
            tasks.spawn(async move {
                let mut server = TcpStream::connect(address).await?;
                copy_bidirectional(&mut inside, &mut server).await
            });
        }
    });
    let host = folder.path().to_str().unwrap();
    url.query_pairs_mut().append_pair("host", host);
    url.into()
}
