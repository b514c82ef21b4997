//! Files that are not, or no longer, a store of ours.

use std::{fs, path::Path};

use protocol::ports::Store;
use server::store::SqlStore;
use sqlx::{Connection, SqliteConnection, raw_sql};
use tempfile::TempDir;

use super::LATER;

/// A closed store of some hundred pages.
async fn store_at(file: &Path) {
    let store = SqlStore::open_sqlite(file).await.unwrap();
    for number in 0..40 {
        let key = format!("grant/{number:02}");
        store
            .insert(&key, vec![7; 5000].into(), LATER)
            .await
            .unwrap();
    }
    store.close().await;
}

/// What opening says to `harm`ed files, and that it left them as they were.
async fn refusal(harm: impl AsyncFnOnce(&Path)) -> String {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    store_at(&file).await;
    harm(&file).await;
    let before = fs::read(&file).ok();
    let error = SqlStore::open_sqlite(&file).await.unwrap_err().to_string();
    assert_eq!(fs::read(&file).ok(), before, "{error}");
    let place = fs::canonicalize(directory.path()).unwrap();
    error.replace(place.to_str().unwrap(), "data")
}

#[tokio::test]
async fn an_emptied_file_is_refused() {
    let refusal = refusal(async |file: &Path| fs::write(file, "").unwrap()).await;
    insta::assert_snapshot!(refusal, @"the database data/store.db is empty, as no store ever is; restore a backup, or remove the file to begin with an empty store");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let refusal = refusal(async |file: &Path| fs::write(file, "x".repeat(9000)).unwrap()).await;
    insta::assert_snapshot!(refusal, @"the file data/store.db is not a SQLite database, or its beginning is overwritten; restore a backup, or move the file away to begin with an empty store");
}

#[tokio::test]
async fn a_short_file_is_refused() {
    let refusal = refusal(async |file: &Path| fs::write(file, "SQLite").unwrap()).await;
    insta::assert_snapshot!(refusal, @"the file data/store.db is not a SQLite database, or its beginning is overwritten; restore a backup, or move the file away to begin with an empty store");
}

#[tokio::test]
async fn a_database_cut_off_after_its_header_is_refused() {
    let refusal = refusal(async |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..100]).unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"the database data/store.db is damaged: database disk image is malformed; restore a backup, or save what is left with `sqlite3 data/store.db .recover`, or move the file away to begin with an empty store");
}

#[tokio::test]
async fn a_database_cut_in_half_is_refused() {
    let refusal = refusal(async |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"the database data/store.db is damaged: database disk image is malformed; restore a backup, or save what is left with `sqlite3 data/store.db .recover`, or move the file away to begin with an empty store");
}

#[tokio::test]
async fn a_database_with_an_overwritten_page_is_refused() {
    let refusal = refusal(async |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        bytes[4096..8192].fill(0xff);
        fs::write(file, bytes).unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"the database data/store.db is damaged: Tree 2 page 2: btreeInitPage() returns error code 11; restore a backup, or save what is left with `sqlite3 data/store.db .recover`, or move the file away to begin with an empty store");
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let refusal = refusal(async |file: &Path| {
        fs::remove_file(file).unwrap();
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let mut other = SqliteConnection::connect(&url).await.unwrap();
        let made = raw_sql("CREATE TABLE cookies (name TEXT)").execute(&mut other);
        made.await.unwrap();
        other.close().await.unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"the SQLite database data/store.db belongs to another program; choose another data_dir, or move the file away");
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let refusal = refusal(async |file: &Path| {
        fs::rename(file, file.with_file_name("store.db-wal")).unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"the database data/store.db is missing although its log data/store.db-wal is there; restore both from a backup, or remove the log to begin with an empty store");
}

#[tokio::test]
async fn a_directory_is_refused() {
    let refusal = refusal(async |file: &Path| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"data/store.db is not a file; choose another data_dir, or move that out of the way");
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_refused() {
    let refusal = refusal(async |file: &Path| {
        fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("elsewhere.db", file).unwrap();
    })
    .await;
    insta::assert_snapshot!(refusal, @"the database data/store.db cannot be opened: No such file or directory (os error 2); check that its directory exists and that this user may read and write both");
}

#[tokio::test]
async fn a_missing_directory_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("none/store.db");
    let error = SqlStore::open_sqlite(&file).await.unwrap_err().to_string();
    let error = error.replace(directory.path().to_str().unwrap(), "data");
    insta::assert_snapshot!(error, @"the database data/none/store.db cannot be opened: No such file or directory (os error 2); check that its directory exists and that this user may read and write both");
}

/// Wherever the damage is: a clear refusal, or a store that answers, if only with errors.
#[tokio::test]
async fn no_damage_is_a_panic() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("store.db");
    store_at(&file).await;
    let sound = fs::read(&file).unwrap();

    // Any sequence without a pattern; always the same one, so that a failure can be repeated.
    let mut state = 1_u64;
    let mut below = |limit: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % limit
    };
    let mut refused = 0;
    for _ in 0..60 {
        let mut bytes = sound.clone();
        for _ in 0..=below(4) {
            let start = below(bytes.len());
            let end = bytes.len().min(start + 1 + below(2000));
            let byte = u8::try_from(below(256)).unwrap();
            bytes[start..end].fill(byte);
        }
        if below(4) == 0 {
            bytes.truncate(below(sound.len()));
        }
        fs::write(&file, &bytes).unwrap();
        match SqlStore::open_sqlite(&file).await {
            Ok(store) => {
                let _ = store.get("grant/07").await;
                let _ = store.keys("", None).await;
                let _ = store.replace("grant/08", 1, "".into(), LATER).await;
                let _ = store.insert("grant/new", "".into(), LATER).await;
                store.close().await;
            }
            Err(error) => {
                assert!(error.to_string().contains("store.db"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "no damage was noticed");
}
