//! The commands that work on the key file, beside a proxy that runs and one that does not.

use super::support::{
    client::{Client, Http, Tokens},
    fake_time::FakeTime,
    proxy::Proxy,
    upstream::Upstream,
};

const HOUR: i64 = 60 * 60;

/// What `key …` prints, which succeeds.
#[track_caller]
fn key(proxy: &Proxy, arguments: &[&str]) -> String {
    let output = proxy.command(&[&["key"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Insists that `key …` is refused in these words, and changes nothing.
#[track_caller]
fn refuses(proxy: &Proxy, arguments: &[&str], code: i32, words: &str) {
    let file = proxy.data_dir().join("key");
    let before = std::fs::read(&file).ok();
    let output = proxy.command(&[&["key"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
    assert_eq!(std::fs::read(&file).ok(), before);
}

/// The names of the keys, in their order.
#[track_caller]
fn ids(listed: &str) -> Vec<String> {
    let lines = listed.lines();
    lines.map(|line| line[..8].to_owned()).collect()
}

#[tokio::test]
async fn a_key_is_replaced_and_dropped_and_no_client_signs_in_again() {
    let Some(time) = FakeTime::new() else { return };
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::prepared(upstream.address, "store = \"sqlite\"");
    time.rules(&mut proxy);
    refuses(&proxy, &["rotate"], 1, "there is no key file");
    refuses(&proxy, &["list"], 1, "there is no key file");
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let first = client.sign_in().await;

    // Beside the running proxy.
    let listed = key(&proxy, &["list"]);
    let [old] = &ids(&listed)[..] else {
        panic!("{listed}")
    };
    assert!(listed.contains("makes"), "{listed}");
    assert!(
        listed.contains("1 approved client depends on it"),
        "{listed}"
    );
    let rotated = key(&proxy, &["rotate"]);
    assert!(rotated.contains("restart the proxy"), "{rotated}");
    let listed = key(&proxy, &["list"]);
    let [new, second] = &ids(&listed)[..] else {
        panic!("{listed}")
    };
    assert_eq!(second, old);
    assert!(rotated.starts_with(new.as_str()), "{rotated}");
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].ends_with("nothing depends on it"), "{listed}");
    assert!(
        lines[1].contains("recognises  1 approved client"),
        "{listed}"
    );
    refuses(&proxy, &["drop", old], 1, "in use by another process");

    // While a client depends on it.
    proxy.stop().await;
    refuses(&proxy, &["drop", old], 1, "1 approved client depends on it");
    refuses(&proxy, &["drop", new], 1, "is the one that makes");
    refuses(&proxy, &["drop", "00000000"], 1, "there is no key 00000000");
    refuses(&proxy, &["drop", "old"], 2, "eight digits");
    proxy.start().await;
    let _ = client.call(&first).await.expect(200);
    let refreshed = Tokens::of(&client.refresh(&first).await.expect(200));
    proxy.stop().await;
    // Its predecessor may still be presented.
    refuses(&proxy, &["drop", old], 1, "for another 1d at most");

    // And when none does any more.
    time.is_off_by(25 * HOUR);
    let dropped = key(&proxy, &["drop", old]);
    assert!(dropped.contains(old.as_str()), "{dropped}");
    assert_eq!(ids(&key(&proxy, &["list"])), [new.as_str()]);
    proxy.start().await;
    let next = Tokens::of(&client.refresh(&refreshed).await.expect(200));
    let _ = client.call(&next).await.expect(200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_key_that_the_configuration_names_is_listed_and_not_written() {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::with(upstream.address, "store = \"sqlite\"").await;
    let listed = key(&proxy, &["list"]);
    proxy.stop().await;
    proxy.reconfigure("data_dir", "key = { file = \"data/key\" }\ndata_dir");
    assert_eq!(key(&proxy, &["list"]), listed);
    let [id] = &ids(&listed)[..] else {
        panic!("{listed}")
    };
    for arguments in [&["rotate"][..], &["drop", id]] {
        refuses(&proxy, arguments, 1, "which this command does not write");
    }
}
