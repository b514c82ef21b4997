//! SQLite files that are not what they were.

use std::{fs, path::Path, time::Duration};

use tokio::net::TcpStream;

use super::{
    World, from_environment,
    support::{client::Tokens, say},
};

/// In a normal run; `DAMAGES` asks for another number.
const DAMAGES: usize = 25;

/// Any sequence without a pattern; always the same one, so that a failure can be repeated.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// The files of a store, as they were after a kill: the database and its log.
#[derive(Clone)]
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Files {
    fn read(data: &Path) -> Self {
        Self {
            database: fs::read(data.join("records.sqlite")).unwrap(),
            log: fs::read(data.join("records.sqlite-wal")).unwrap_or_default(),
        }
    }

    fn write(&self, data: &Path) {
        let _ = fs::remove_file(data.join("records.sqlite-shm"));
        fs::write(data.join("records.sqlite"), &self.database).unwrap();
        fs::write(data.join("records.sqlite-wal"), &self.log).unwrap();
    }
}

/// Harms the files in one of the ways in which files come to harm; says in which.
fn harm(files: &mut Files, older: &Files, next: &mut Sequence) -> &'static str {
    const PAGE: usize = 4096;
    let byte = u8::try_from(next.below(256)).unwrap();
    match next.below(7) {
        0 => {
            let page = next.below(files.database.len() / PAGE) * PAGE;
            files.database[page..page + PAGE].fill(byte);
            "a page overwritten"
        }
        1 => {
            files.database[next.below(100)] ^= byte | 1;
            "the header changed"
        }
        2 => {
            files.log.truncate(next.below(files.log.len()));
            "the log cut off"
        }
        3 => {
            files.database.clear();
            "the file emptied"
        }
        4 => {
            *files = older.clone();
            "an older copy"
        }
        5 => {
            files.database.truncate(next.below(files.database.len()));
            "the file cut off"
        }
        _ => {
            let whole = if next.below(2) == 0 || files.log.is_empty() {
                &mut files.database
            } else {
                &mut files.log
            };
            for _ in 0..=next.below(4) {
                let start = next.below(whole.len());
                let end = whole.len().min(start + 1 + next.below(2000));
                whole[start..end].fill(byte);
            }
            "bytes overwritten"
        }
    }
}

/// FI-07: it starts, or says why not. It never panics, never takes an empty store for the old
/// one, and never accepts a token that is not its own.
#[tokio::test]
async fn fi_07_a_damaged_file_is_refused_in_words_or_does_no_harm() {
    let stranger = World::on_sqlite().await;
    let mut world = World::on_sqlite().await;
    let data = world.proxy.data_dir();
    world.proxy.kill().await;
    let older = Files::read(&data);
    world.proxy.start().await;
    for _ in 0..20 {
        world.client.sign_in().await;
        world.refresh().await;
    }
    world.proxy.kill().await;
    let sound = Files::read(&data);

    let mut next = Sequence(1);
    let (mut refused, mut started, mut knew) = (0, 0, 0);
    let damages = from_environment("DAMAGES", DAMAGES);
    for _ in 0..damages {
        let mut files = sound.clone();
        let how = harm(&mut files, &older, &mut next);
        files.write(&data);
        let said_before = world.proxy.output().len();
        world.proxy.spawn();
        let listens = loop {
            if TcpStream::connect(world.proxy.address).await.is_ok() {
                break true;
            }
            if world.proxy.has_ended() {
                break false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        if listens {
            started += 1;
            let client = &world.client;
            let _ = client.call(&stranger.tokens).await.expect(401);
            let called = client.call(&world.tokens).await;
            assert!(
                [200, 401, 503].contains(&called.status.as_u16()),
                "{called:#?}"
            );
            let refreshed = client.refresh(&world.tokens).await;
            knew += usize::from(refreshed.status == 200);
            if refreshed.status == 200 {
                let _ = client.call(&Tokens::of(&refreshed)).await;
            }
            let by_stranger = client.refresh(&stranger.tokens).await;
            assert!(by_stranger.status != 200, "{how}: {by_stranger:#?}");
            world.proxy.kill().await;
        } else {
            refused += 1;
            let status = world.proxy.ended().await;
            assert_eq!(status.code(), Some(1), "{how}");
            let output = world.proxy.output();
            let said = &output[said_before..];
            assert!(
                said.contains("error: ") && said.contains("records.sqlite"),
                "{how}: {said}"
            );
            // It may be more, completed from its own log.
            let left = fs::read(data.join("records.sqlite")).unwrap().len();
            assert!(left >= files.database.len(), "{how}: what was left is gone");
        }
        let output = world.proxy.output();
        assert!(
            !output[said_before..].contains("panicked"),
            "{how}: {output}"
        );
    }
    say(&format!(
        "FI-07: {damages} damages, {refused} refused in words, {started} started, of these {knew} \
         still knew the session"
    ));
    assert!(refused > 0 && started > 0);

    sound.write(&data);
    world.proxy.start().await;
    world.refresh().await;
    world.end().await;
    stranger.end().await;
}
