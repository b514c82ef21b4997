//! Documents by the thousand, and what they give away.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::TaskTracker;

use super::{TRIED, opening, reason};
use crate::{
    case::Missing,
    internet::{Certificate, Does, Internet, with_head},
    sealed::NOWHERE,
    support::client::{Answer, Client},
    world::World,
};

/// What is decided without a connection takes far less, and what waits for one more.
const AT_ONCE: Duration = Duration::from_secs(2);

/// As many as a slow machine can take at once, each from an address of its own.
async fn open_all(clients: Vec<Client>) -> Vec<Answer> {
    let at_once = Arc::new(Semaphore::new(250));
    let opened = clients.into_iter().map(|client| {
        let (opening, at_once) = (opening(&client), Arc::clone(&at_once));
        TaskTracker::new().spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            client.http.send(opening).await
        })
    });
    let opened: Vec<_> = opened.collect();
    let mut answers = Vec::new();
    for answer in opened {
        answers.push(answer.await.unwrap());
    }
    answers
}

pub async fn one_document(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let site = internet.site();
    site.does(Does::Publishes(Duration::from_secs(2)));
    let clients = (0..1000).map(|_| world.client_of(&site)).collect();
    let pages = world.changing(&["consent/"], open_all(clients)).await;
    assert_eq!(pages.len(), 1000);
    for page in pages {
        let _ = page.expect(200);
    }
    assert_eq!(site.requests(), ["/client"]);
    assert_eq!(site.connections(), [site.address]);
    assert_eq!(site.lookups(), 1);
    // When nobody gets it, there is one attempt at a time, and each takes three seconds.
    let site = internet.site();
    site.does(Does::NoTls);
    let begun = Instant::now();
    let clients = (0..1000).map(|_| world.client_of(&site)).collect();
    for page in world.unchanged(open_all(clients)).await {
        assert!(reason(&page.expect(400)).contains(TRIED));
    }
    let most = 1 + begun.elapsed().as_secs() / 3;
    let attempts = site.connections().len();
    assert!(attempts <= usize::try_from(most).unwrap(), "{attempts}");
    site.does(Does::Publishes(Duration::ZERO));
    let client = world.client_of(&site);
    world.lets_in(&client, &client.authorization()).await;
    Ok(())
}

pub async fn one_host(world: Arc<World>) -> Result<(), Missing> {
    let internet = Internet::here().await?;
    limited(&world.another("").await, internet).await;
    let (world, internet) = world.with_documents().await?;
    tells_nothing(&world, internet).await;
    Ok(())
}

/// Ten a minute.
async fn limited(world: &World, internet: &'static Internet) {
    let site = internet.site();
    site.does(Does::Answers(with_head("404 Not Found", &"")));
    let begun = Instant::now();
    let ids = (0..1000).map(|number| site.id_at(&format!("/{number}")));
    let ids: Vec<String> = ids.collect();
    let clients = ids.iter().map(|id| world.client_named(id)).collect();
    let pages = world.unchanged(open_all(clients)).await;
    let asked = site.requests().len();
    let most = 10 + begun.elapsed().as_secs() / 6 + 1;
    assert!(
        (10..=usize::try_from(most).unwrap()).contains(&asked),
        "{asked}"
    );
    assert_eq!(site.connections().len(), asked);
    let limited = pages.into_iter().filter(|page| {
        let reason = reason(page);
        assert!(page.status == 400, "{page:?}");
        assert!(reason.contains("try again in a minute"), "{reason}");
        !reason.contains(TRIED)
    });
    assert_eq!(limited.count(), 1000 - asked);
    // Others are not held up by it.
    let other = internet.site();
    let client = world.client_of(&other);
    world.lets_in(&client, &client.authorization()).await;
}

/// Whatever is or is not at an address, the page is the same; and where nothing may be looked at,
/// so is the time.
async fn tells_nothing(world: &World, internet: &'static Internet) {
    let mut pages = Vec::new();
    let mut refused = async |id: &str| {
        let begun = Instant::now();
        pages.push(world.refuses_client(&world.client_named(id)).await);
        begun.elapsed()
    };
    for does in [
        Does::Answers(with_head("404 Not Found", &"")),
        Does::Answers(with_head("500 Oh", &"")),
        Does::Answers(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        Does::Answers(vec![b'x'; 10_000]),
        Does::Nothing,
        Does::NoTls,
        Does::Resets,
    ] {
        let site = internet.site();
        site.does(does);
        refused(&site.id()).await;
    }
    refused(&internet.site_with(Certificate::SelfSigned).id()).await;
    refused("https://nobody.example/client").await;
    let unreachable = internet.site();
    let (network, _) = NOWHERE.split_once('/').unwrap();
    unreachable.leads_to(vec![vec![network.parse().unwrap()]]);
    refused(&unreachable.id()).await;
    // Behind the first three somebody listens, behind the others nobody can.
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "fe80::1",
    ] {
        let site = internet.site();
        site.leads_to(vec![vec![address.parse().unwrap()]]);
        let took = refused(&site.id()).await;
        assert!(took < AT_ONCE, "{address}: {took:?}");
        assert!(site.connections().is_empty(), "{address}");
    }
    pages.sort();
    pages.dedup();
    assert_eq!(pages.len(), 1, "{pages:#?}");
    assert!(pages[0].contains(TRIED), "{pages:?}");
    let site = internet.site();
    let client = world.client_of(&site);
    world.lets_in(&client, &client.authorization()).await;
}
