//! Processes where one was meant to be.

use super::{
    World,
    invariants::session_is_whole,
    support::{client::Tokens, proxy::Proxy},
};

/// FI-21
#[tokio::test]
async fn fi_21_a_second_process_on_one_file_is_refused_and_disturbs_nobody() {
    let mut world = World::on_sqlite().await;
    let mut second = Proxy::prepared(world.upstream.address, "store = \"sqlite\"");
    // By another name of the same place.
    second.share_data_dir_of(&world.proxy);
    for _ in 0..5 {
        second.spawn();
        let (status, refreshed) = tokio::join!(second.ended(), world.client.refresh(&world.tokens));
        world.tokens = Tokens::of(&refreshed.expect(200));
        let output = second.output();
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains("is in use by another process"), "{output}");
    }
    world.tokens = session_is_whole(&world.client, &world.tokens).await;

    // As soon as the first is gone, however it went, the second may.
    world.proxy.kill().await;
    second.start().await;
    second.stop().await;
    world.proxy.start().await;
    session_is_whole(&world.client, &world.tokens).await;
    world.end().await;
}
