//! SQLite: one file, one process, and nothing lost that was answered.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use protocol::ports::Store;
use server::store::{OpenError, SqlStore};
use sqlx::{Connection, SqliteConnection, raw_sql};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{
    LATER,
    contract::{Shared, contract},
    nothing_may_be_missing, say, sql,
};

contract!(with_shared_store);

async fn with_shared_store<F: Future>(promise: impl FnOnce(Shared) -> F) {
    with_store(async |store: Arc<SqlStore>| {
        promise(store).await;
    })
    .await;
}

async fn with_store(test: impl AsyncFnOnce(Arc<SqlStore>)) {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(open(&directory.path().join("store.db")).await);
    test(Arc::clone(&store)).await;
    store.close().await;
}

async fn open(file: &Path) -> SqlStore {
    SqlStore::open_sqlite(file).await.unwrap()
}

/// A connection as another program would have it.
async fn connect(file: &Path) -> SqliteConnection {
    let url = format!("sqlite://{}?mode=rwc", file.display());
    SqliteConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn an_expired_record_is_swept() {
    with_store(sql::an_expired_record_is_swept).await;
}

#[tokio::test]
async fn unused_clients_make_room() {
    with_store(sql::unused_clients_make_room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_during_a_sweep() {
    with_store(sql::writes_go_on_during_a_sweep).await;
}

#[tokio::test]
async fn an_abandoned_call_harms_no_other() {
    with_store(sql::an_abandoned_call_harms_no_other).await;
}

#[tokio::test]
async fn what_was_asked_before_closing_is_done() {
    with_store(sql::what_was_asked_before_closing_is_done).await;
}

#[tokio::test]
async fn a_closed_store_answers_with_an_error() {
    with_store(sql::a_closed_store_answers_with_an_error).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_are_counted() {
    with_store(async |store| sql::refreshes_are_counted(store, "SQLite").await).await;
}

#[tokio::test]
async fn records_outlive_the_store() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let store = open(&file).await;
    store.insert("grant/a", "one".into(), LATER).await.unwrap();
    store
        .replace("grant/a", 1, "two".into(), LATER)
        .await
        .unwrap();
    store.close().await;
    // Complete without its log, so that a copy of the one file is a backup.
    let names = names_in(directory.path());
    assert_eq!(names, ["store.db", "store.db.lock"]);

    for _ in 0..2 {
        let store = open(&file).await;
        let record = store.get("grant/a").await.unwrap().unwrap();
        assert_eq!((&*record.value, record.version), (&b"two"[..], 2));
        store.close().await;
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn nobody_else_may_read_the_files() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("store.db")).await;
    store.insert("grant/a", "".into(), LATER).await.unwrap();
    store.get("grant/a").await.unwrap();
    let names = names_in(directory.path());
    assert_eq!(
        names,
        ["store.db", "store.db-shm", "store.db-wal", "store.db.lock"]
    );
    for name in names {
        let metadata = fs::metadata(directory.path().join(&name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_path_may_have_any_character() {
    let directory = TempDir::new().unwrap();
    let odd = directory.path().join("what? 100%25 #1 & ünï");
    fs::create_dir(&odd).unwrap();
    let file = odd.join("st?re%.db");
    let store = open(&file).await;
    store.insert("grant/a", "".into(), LATER).await.unwrap();
    store.close().await;
    assert_eq!(names_in(&odd), ["st?re%.db", "st?re%.db.lock"]);
    assert!(open(&file).await.get("grant/a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_file_is_for_one_process_at_a_time() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let link = directory.path().join("link.db");
    let first = open(&file).await;
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for name in [&file, &link] {
        let error = SqlStore::open_sqlite(name).await.unwrap_err();
        assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    }
    first.insert("grant/a", "".into(), LATER).await.unwrap();
    first.close().await;
    assert!(open(&file).await.get("grant/a").await.unwrap().is_some());
}

#[tokio::test]
async fn an_interrupted_creation_is_begun_again() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    for name in ["store.db.new", "store.db.new-journal"] {
        fs::write(directory.path().join(name), "half").unwrap();
    }
    let store = open(&file).await;
    store.insert("grant/a", "".into(), LATER).await.unwrap();
    store.close().await;
    assert_eq!(names_in(directory.path()), ["store.db", "store.db.lock"]);
}

#[tokio::test]
async fn a_read_does_not_wait_for_a_write() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let store = open(&file).await;
    store.insert("grant/a", "one".into(), LATER).await.unwrap();

    let mut other = connect(&file).await;
    raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let written = store.replace("grant/a", 1, "two".into(), LATER);
    let read = async {
        let read = store.get("grant/a").await.unwrap().unwrap();
        raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        read
    };
    let (written, read) = tokio::join!(written, read);
    assert_eq!((&*read.value, read.version), (&b"one"[..], 1));
    assert!(written.unwrap());
    store.close().await;
}

#[tokio::test]
async fn a_database_locked_by_another_program_is_an_error_and_then_works_again() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let store = open(&file).await;
    let mut other = connect(&file).await;
    raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let error = store.insert("grant/a", "".into(), LATER).await.unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("database is locked"), "{reason}");

    raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert!(store.insert("grant/a", "".into(), LATER).await.unwrap());
    store.close().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    open(&file).await.close().await;
    let mut other = connect(&file).await;
    raw_sql("INSERT INTO mcp_oauth_proxy_schema VALUES (900)")
        .execute(&mut other)
        .await
        .unwrap();
    other.close().await.unwrap();
    let error = SqlStore::open_sqlite(&file).await.unwrap_err().to_string();
    assert!(
        error.contains("has schema 900, and this program knows 1"),
        "{error}"
    );
}

/// Every release opens what the first one wrote. S1-18
#[tokio::test]
async fn a_database_of_schema_1_keeps_its_records() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let mut database = connect(&file).await;
    raw_sql(include_str!("../fixtures/sqlite-schema-1.sql"))
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();

    for _ in 0..2 {
        let store = open(&file).await;
        let keys = store.keys("", None).await.unwrap();
        assert_eq!(keys, ["client/Zc2Vd8Qk", "grant/1h7TqX0b"]);
        let client = store.get(&keys[0]).await.unwrap().unwrap();
        assert_eq!(client.version, 1);
        assert!(client.value.starts_with(b"{\"client_name\":\"Claude\""));
        let grant = store.get(&keys[1]).await.unwrap().unwrap();
        assert_eq!(grant.version, 7);
        assert_eq!(grant.value, b"\x01\x00\xfe\xff\x00generation 7"[..]);
        store.close().await;
    }
    let store = open(&file).await;
    let replaced = store.replace("grant/1h7TqX0b", 7, "".into(), LATER).await;
    assert!(replaced.unwrap());
    store.close().await;
}

/// Names the store to write to, in the process that [`what_was_answered_survives_a_kill`] starts.
const STORE_TO_WRITE: &str = "STORE_TO_WRITE";

/// Not a test by itself: the process that is killed. It prints each record and version that the
/// store has answered for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_writes_until_it_is_killed() {
    let Some(file) = std::env::var_os(STORE_TO_WRITE) else {
        return;
    };
    let store = Arc::new(open(&PathBuf::from(file)).await);
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let key = format!("grant/{writer}");
            loop {
                let written = match store.get(&key).await.unwrap() {
                    None => {
                        store.insert(&key, "1".into(), LATER).await.unwrap();
                        1
                    }
                    Some(record) => {
                        let next = record.version + 1;
                        let value = next.to_string().into();
                        store
                            .replace(&key, record.version, value, LATER)
                            .await
                            .unwrap();
                        next
                    }
                };
                writeln!(std::io::stdout(), "\nanswered {key} {written}").unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn what_was_answered_survives_a_kill() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    let mut answered = BTreeMap::new();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "sqlite::a_process_that_writes_until_it_is_killed",
            ])
            .arg("--nocapture")
            .env(STORE_TO_WRITE, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: String| {
            // The line that the kill cut off may lack its end.
            let mut words = line.strip_prefix("answered ")?.split(' ');
            let key = words.next()?.to_owned();
            answered.insert(key, words.next()?.parse::<u64>().ok()?);
            Some(())
        };
        let enough = 40 * round;
        let seen = lines
            .by_ref()
            .filter_map(|line| note(line.unwrap()))
            .take(enough);
        assert_eq!(seen.count(), enough, "the process ended by itself");
        child.kill().unwrap();
        for line in lines {
            note(line.unwrap());
        }
        child.wait().unwrap();

        let store = open(&file).await;
        for (key, version) in &answered {
            let record = store.get(key).await.unwrap().unwrap();
            assert!(
                record.version >= *version,
                "{key}: {} of {version}",
                record.version
            );
            assert_eq!(record.value, record.version.to_string());
        }
        store.close().await;
    }
    assert_eq!(answered.len(), 16);
}

/// A small file system in memory, gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let directory = TempDir::new().unwrap();
        let outcome = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(directory.path())
            .output()
            .map_err(|error| error.to_string())?;
        if outcome.status.success() {
            Ok(Self(directory))
        } else {
            Err(String::from_utf8_lossy(&outcome.stderr).trim().to_owned())
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for a failed test still has its files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_space_again() {
    let root = fs::metadata("/proc/self")
        .is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0);
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(reason) => {
            assert!(!(root && nothing_may_be_missing()), "{reason}");
            return say(&format!("the full disk was not tested: {reason}"));
        }
    };
    let store = open(&disk.0.path().join("store.db")).await;
    let value = vec![7; 16 * 1024];
    store.insert("grant/a", "kept".into(), LATER).await.unwrap();

    let ballast = disk.0.path().join("ballast");
    let mut filling = fs::File::create(&ballast).unwrap();
    while filling.write_all(&[0; 4096]).is_ok() {}
    drop(filling);
    let mut refused = 0;
    for number in 0..100 {
        let key = format!("filler/{number}");
        let written = store.insert(&key, value.clone().into(), LATER).await;
        if written.is_err() {
            refused += 1;
        }
    }
    assert!(
        refused > 90,
        "{refused} of 100 writes failed on a full disk"
    );
    // Reads need no space.
    assert_eq!(store.get("grant/a").await.unwrap().unwrap().value, "kept");

    fs::remove_file(ballast).unwrap();
    for number in 0..50 {
        let key = format!("after/{number}");
        assert!(
            store
                .insert(&key, value.clone().into(), LATER)
                .await
                .unwrap()
        );
    }
    assert!(
        store
            .replace("grant/a", 1, "new".into(), LATER)
            .await
            .unwrap()
    );
    store.close().await;

    let store = open(&disk.0.path().join("store.db")).await;
    assert_eq!(store.get("grant/a").await.unwrap().unwrap().value, "new");
    assert_eq!(store.keys("after/", None).await.unwrap().len(), 50);
    store.close().await;
}
