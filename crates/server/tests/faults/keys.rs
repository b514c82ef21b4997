//! Key files that are missing, damaged, or not for us. What a rotation of keys must not change is in
//! `races/rotation.rs`.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use super::{World, invariants::session_is_whole};

/// FI-16
#[tokio::test]
async fn fi_16_without_its_own_key_file_it_does_not_start_and_says_why() {
    const OTHER: &str = "mcp-oauth-proxy-key-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
    for mut world in World::on_each_store("keys").await {
        world.proxy.stop().await;
        let file = world.proxy.data_dir().join("key");
        let key = fs::read_to_string(&file).unwrap();
        let cut = &key[..key.len() - 9];
        let (damaged, zeroed) = (key.replace("key-1", "kye-1"), "\0".repeat(key.len()));
        for (content, mode, reason) in [
            (None, 0o600, "another key"),
            (Some(OTHER), 0o600, "another key"),
            (Some(""), 0o600, "not in the format"),
            (Some(cut), 0o600, "not in the format"),
            (Some(&damaged), 0o600, "not in the format"),
            (Some(&zeroed), 0o600, "not in the format"),
            (Some(&key), 0o644, "other users"),
        ] {
            fs::remove_file(&file).unwrap();
            if let Some(content) = content {
                fs::write(&file, content).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            }
            world.proxy.spawn();
            let status = world.proxy.ended().await;
            let output = world.proxy.output();
            assert_eq!(status.code(), Some(1), "{content:?}: {output}");
            let said = output.lines().rfind(|line| line.starts_with("error:"));
            assert!(said.unwrap().contains(reason), "{content:?}: {output}");
        }
        fs::write(&file, &key).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        world.proxy.start().await;
        session_is_whole(&world.client, &world.tokens).await;
        world.end().await;
    }
}
