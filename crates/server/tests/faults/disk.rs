//! Disks that fail, fill up, or may not be written, and stores that somebody else holds.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    World, have,
    invariants::{recovers, session_is_whole},
    is_root,
    locked::Locked,
    support::{client::Tokens, proxy::Proxy, say},
};

/// How long the way back may take once the fault is over.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// How long another program holds the store.
const HELD: Duration = Duration::from_secs(30);

/// FI-04: whichever call to the disk fails, and however, nothing is half done. The other forms
/// of this, each access to the store in turn, are in the tests of the protocol.
#[tokio::test]
async fn fi_04_a_disk_that_fails_is_a_503_and_no_lost_session() {
    const FAULTS: [(&str, u32); 6] = [
        ("posix/io/rw/pwrite", 5),
        ("posix/io/rw/pwrite", 28),
        ("posix/io/rw/pwrite", 4),
        ("posix/io/sync/fdatasync", 5),
        ("posix/io/sync/fdatasync", 28),
        ("posix/io/rw/pread", 5),
    ];
    if !have("fiu-run") {
        return;
    }
    let pipes = TempDir::new().unwrap();
    let pipe = pipes.path().join("fiu").display().to_string();
    let mut world = World::prepared(None, |proxy| {
        proxy.run_under(&["fiu-run", "-x", "-f", &pipe]);
    })
    .await;
    let (mut refused, mut refreshed) = (0, 0);
    for (call, errno) in FAULTS {
        for chance in ["1", "0.5", "0.2"] {
            let fault = format!("enable_random name={call},probability={chance},failinfo={errno}");
            control(&pipe, &world.proxy, &fault);
            for _ in 0..4 {
                match world.client.refresh(&world.tokens).await {
                    answer if answer.status == 200 => {
                        world.tokens = Tokens::of(&answer);
                        refreshed += 1;
                    }
                    answer => {
                        let _ = answer.expect(503);
                        refused += 1;
                    }
                }
            }
            control(&pipe, &world.proxy, &format!("disable name={call}"));
            refresh_within(BACK_WITHIN, &mut world).await;
            world.tokens = session_is_whole(&world.client, &world.tokens).await;
        }
    }
    say(&format!(
        "FI-04: {refused} refreshes answered 503, {refreshed} done in spite of the faults"
    ));
    assert!(refused > 0, "no fault was noticed");
    world.end().await;
}

fn control(pipe: &str, proxy: &Proxy, fault: &str) {
    let told = Command::new("fiu-ctrl")
        .args(["-f", pipe, "-c", fault, &proxy.id().to_string()])
        .output()
        .unwrap();
    assert!(told.status.success() && told.stdout.is_empty(), "{told:?}");
}

/// FI-05
#[tokio::test]
async fn fi_05_a_full_disk_stops_what_writes_and_nothing_else() {
    if !is_root() {
        say("FI-05 was left out: only root can mount a small disk");
        return;
    }
    let mut disk = None;
    let mut world = World::prepared(None, |proxy| {
        disk = Some(SmallDisk::at(proxy.data_dir()));
        run_as_nobody(proxy);
    })
    .await;
    let disk = disk.unwrap();
    world.refresh().await;
    disk.fill();

    // What was reserved before may still be used up.
    let mut tries = 0;
    while world.client.http.send(registration(&world)).await.status != 503 {
        tries += 1;
        assert!(tries < 500, "the disk is not full");
    }
    let refused = world.client.refresh(&world.tokens).await.expect(503);
    assert!(refused.headers.contains_key("retry-after"));
    for _ in 0..10 {
        let _ = world.client.call(&world.tokens).await.expect(200);
    }
    disk.empty();
    refresh_within(BACK_WITHIN, &mut world).await;
    let _ = world
        .client
        .http
        .send(registration(&world))
        .await
        .expect(201);
    session_is_whole(&world.client, &world.tokens).await;
    world.end().await;
}

fn registration(world: &World) -> http::Request<axum::body::Body> {
    let http = &world.client.http;
    http.request(http::Method::POST, "/register")
        .header("content-type", "application/json")
        .body(axum::body::Body::from(
            r#"{"redirect_uris":["https://claude.ai/api/mcp/auth_callback"]}"#,
        ))
        .unwrap()
}

/// Refreshes until it works.
async fn refresh_within(time: Duration, world: &mut World) {
    let started = Instant::now();
    loop {
        let answer = world.client.refresh(&world.tokens).await;
        if answer.status == 200 {
            world.tokens = Tokens::of(&answer);
            return;
        }
        assert!(started.elapsed() < time, "I7: {:#?}", answer.expect(503));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Four MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success());
        Self(path)
    }

    fn fill(&self) {
        let mut filler = File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        while filler.write_all(&[0; 1]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// FI-06
#[tokio::test]
async fn fi_06_a_store_that_another_program_holds_stops_writes_within_five_seconds() {
    for mut world in World::on_each_store("held").await {
        let _ = world.client.call(&world.tokens).await.expect(200);
        let locked = Locked::store_of(&world).await;
        let started = Instant::now();
        let writes = async {
            let mut refused = 0;
            while started.elapsed() < HELD {
                let asked = Instant::now();
                let _ = world.client.refresh(&world.tokens).await.expect(503);
                let took = asked.elapsed();
                assert!(took < Duration::from_secs(7), "{}: {took:?}", world.store());
                refused += 1;
            }
            refused
        };
        let reads = async {
            while started.elapsed() < HELD {
                let _ = world.client.call(&world.tokens).await.expect(200);
                let _ = world.client.opens_consent().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (refused, ()) = tokio::join!(writes, reads);
        say(&format!(
            "FI-06: {refused} writes answered 503 on {}",
            world.store()
        ));
        locked.release().await;
        refresh_within(BACK_WITHIN, &mut world).await;
        session_is_whole(&world.client, &world.tokens).await;
        world.end().await;
    }
}

/// FI-06
#[tokio::test]
async fn fi_06_a_store_that_may_not_be_written_is_refused_in_words() {
    let mut world = World::on_sqlite().await;
    world.proxy.stop().await;
    let data = world.proxy.data_dir();
    if is_root() {
        run_as_nobody(&mut world.proxy);
    }
    let file = data.join("records.sqlite");
    for (path, mode) in [(&file, 0o444), (&file, 0), (&data, 0o555), (&data, 0)] {
        let before = mode_of(path);
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        world.proxy.spawn();
        let status = world.proxy.ended().await;
        fs::set_permissions(path, Permissions::from_mode(before)).unwrap();
        let output = world.proxy.output();
        assert_eq!(status.code(), Some(1), "{mode:o}: {output}");
        let last = output.lines().rfind(|line| line.contains("error:"));
        let last = last.unwrap_or_else(|| panic!("no word about it: {output}"));
        assert!(last.contains("data/"), "{last}");
    }
    world.proxy.start().await;
    recovers(&world.proxy, Duration::from_secs(30)).await;
    session_is_whole(&world.client, &world.tokens).await;
    world.end().await;
}

/// Has the program run as a service does, from its next start on. Root may write whatever
/// permissions and reserves say.
fn run_as_nobody(proxy: &mut Proxy) {
    let chown = Command::new("chown")
        .args(["-R", "65534:65534"])
        .arg(proxy.data_dir().parent().unwrap())
        .status();
    assert!(chown.unwrap().success());
    proxy.run_under(&[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ]);
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
