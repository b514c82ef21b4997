//! Upstreams whose name is not found as it should be (N-UP-17).

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use tokio::time::Instant;

use crate::{
    case::Missing,
    internet::{Internet, Trouble},
    refusal::Refusal::JsonRpc,
    support::{
        client::{Client, Tokens},
        upstream::{USUAL, usual},
    },
    world::World,
};

const LINES: &str = "limits.connect_timeout = \"2s\"";
/// More than a connection may take, and enough on a busy machine.
const IN_TIME: Duration = Duration::from_secs(20);

/// Each trouble is a bad gateway, and is over with the first call after it.
pub async fn trouble_passes(world: Arc<World>) -> Result<(), Missing> {
    let site = Internet::here().await?.site();
    let mut world = world.another(LINES).await;
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world.serves(&client, &tokens).await;
    let address = world.upstream.address;
    let (here, nowhere) = (address.ip(), IpAddr::from([127, 99, 99, 99]));
    world.proxy.stop().await;
    let name = format!("{}:{}", site.name, address.port());
    world.proxy.reconfigure(&address.to_string(), &name);
    world.proxy.start().await;

    site.leads_to(vec![vec![here]]);
    arrives(&world, &client, &tokens).await;
    let no_such_name = vec![];
    for (addresses, trouble) in [
        (no_such_name, None),
        (vec![vec![]], None),
        (vec![vec![nowhere]], None),
        (vec![vec![here]], Some(Trouble::Failure)),
        (vec![vec![here]], Some(Trouble::Silence)),
        (
            vec![vec![here]],
            Some(Trouble::Delay(Duration::from_secs(4))),
        ),
    ] {
        site.leads_to(addresses);
        site.is_hard_to_find(trouble);
        let began = Instant::now();
        let answer = world.unchanged(client.call(&tokens)).await;
        JsonRpc(502).check(&answer, &world.issuer);
        assert!(
            began.elapsed() < IN_TIME,
            "{trouble:?}: {:?}",
            began.elapsed()
        );
        site.leads_to(vec![vec![here]]);
        site.is_hard_to_find(None);
        arrives(&world, &client, &tokens).await;
    }

    // The twins: late but in time, one address of two, and now this, now that.
    site.is_hard_to_find(Some(Trouble::Delay(Duration::from_millis(300))));
    arrives(&world, &client, &tokens).await;
    site.is_hard_to_find(None);
    site.leads_to(vec![vec![nowhere, here]]);
    arrives(&world, &client, &tokens).await;
    site.leads_to(vec![
        vec![nowhere],
        vec![here],
        vec![],
        vec![nowhere, here],
        vec![nowhere],
        vec![here],
    ]);
    for found in [false, true, false, true, false, true] {
        if found {
            arrives(&world, &client, &tokens).await;
        } else {
            let answer = world.unchanged(client.call(&tokens)).await;
            JsonRpc(502).check(&answer, &world.issuer);
        }
    }
    Ok(())
}

/// A call arrives, once, over a connection that is not kept: the next has to find its own way.
async fn arrives(world: &World, client: &Client, tokens: &Tokens) {
    let before = world.upstream.begun();
    let mut answer = usual();
    let close = HeaderValue::from_static("close");
    answer.headers_mut().insert(header::CONNECTION, close);
    world.upstream.answers(async { answer });
    let answer = client.call(tokens).await.expect(200);
    assert_eq!(answer.text(), USUAL);
    assert_eq!(world.upstream.begun(), before + 1);
}
