//! Where the names of documents lead.

use std::{net::IpAddr, sync::Arc};

use super::{SPECIAL, TRIED, is_not_fetched};
use crate::{
    case::Missing,
    internet::{Internet, Site},
    support::client::Client,
    world::World,
};

/// One of each special range, and of each form that hides an IPv4 address in an IPv6 one. None of
/// them but the first is anybody's own.
const INSIDE: [&str; 24] = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "2606:4700::200:5efe:a00:1",
];

fn inside() -> Vec<IpAddr> {
    INSIDE.map(|address| address.parse().unwrap()).into()
}

impl World {
    /// Asked for where it cannot be, and nobody is connected to.
    async fn finds_no_way_to(&self, site: &Site) {
        let before = site.connections();
        let client = self.client_of(site);
        let page = self.refuses_client(&client).await;
        assert!(page.contains(TRIED), "{page}");
        assert_eq!(site.connections(), before, "{}", site.name);
        nobody_was_reached(site.internet);
    }

    /// The twin: it is asked for at `address`, and its client gets in.
    async fn finds(&self, site: &Site, address: IpAddr) -> Client {
        let before = site.connections().len();
        let client = self.client_of(site);
        self.lets_in(&client, &client.authorization()).await;
        assert_eq!(site.connections()[before..], [address]);
        nobody_was_reached(site.internet);
        client
    }
}

/// Nobody in this network, by whatever name, at any time.
fn nobody_was_reached(internet: &Internet) {
    for address in inside() {
        assert_eq!(internet.reached(address), 0, "{address}");
    }
}

pub async fn special(world: Arc<World>) -> Result<(), Missing> {
    is_not_fetched(Arc::clone(&world), "N-CI-13", SPECIAL).await;
    let (world, internet) = world.with_documents().await?;
    for address in inside() {
        let site = internet.site();
        site.leads_to(vec![vec![address]]);
        world.finds_no_way_to(&site).await;
        // That it was this address, and nothing else.
        site.leads_to(vec![vec![site.address]]);
        world.knows(&world.client_of(&site)).await;
    }
    let site = internet.site();
    world.finds(&site, site.address).await;
    Ok(())
}

pub async fn mixed(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let other: IpAddr = "93.184.216.34".parse().unwrap();
    let sixth: IpAddr = "2606:4700::6810:1".parse().unwrap();
    for address in inside() {
        let site = internet.site();
        let public = site.address;
        for addresses in [
            vec![public, address],
            vec![address, public],
            vec![sixth, address],
            vec![public, other, sixth, public, address],
        ] {
            site.leads_to(vec![addresses]);
            world.finds_no_way_to(&site).await;
        }
    }
    for address in [other, sixth] {
        let site = internet.site();
        site.leads_to(vec![vec![address]]);
        world.finds(&site, address).await;
    }
    let site = internet.site();
    site.leads_to(vec![vec![site.address, other]]);
    let client = world.client_of(&site);
    world.lets_in(&client, &client.authorization()).await;
    let [address] = site.connections()[..] else {
        panic!("{:?}", site.connections());
    };
    assert!([site.address, other].contains(&address), "{address}");
    Ok(())
}

pub async fn rebound(world: Arc<World>) -> Result<(), Missing> {
    let (mut world, internet) = world.with_documents().await?;
    let address = "127.0.0.1".parse().unwrap();
    // Between the look at the address and the connection.
    let site = internet.site();
    site.leads_to(vec![vec![site.address], vec![address]]);
    world.finds(&site, site.address).await;
    assert_eq!(site.lookups(), 1);
    // When the document is asked for again, since a process that starts remembers none.
    world.proxy.stop().await;
    world.proxy.start().await;
    world.finds_no_way_to(&site).await;
    assert_eq!(site.lookups(), 2);
    site.leads_to(vec![vec![site.address]]);
    world.finds(&site, site.address).await;

    // Now this, now that.
    let site = internet.site();
    let turns = (0..20).map(|turn| vec![[site.address, address][turn % 2]]);
    site.leads_to(turns.collect());
    for turn in 0..20 {
        let client = world.client_named(&site.id_at(&format!("/{turn}")));
        if turn % 2 == 0 {
            world.knows(&client).await;
        } else {
            let page = world.refuses_client(&client).await;
            assert!(page.contains(TRIED), "{page}");
        }
        assert_eq!(site.lookups(), turn + 1);
    }
    assert_eq!(site.connections(), [site.address; 10]);
    nobody_was_reached(internet);
    Ok(())
}

pub async fn aliases(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let local: IpAddr = "127.0.0.1".parse().unwrap();
    let cloud: IpAddr = "169.254.169.254".parse().unwrap();
    let public: IpAddr = "93.184.216.34".parse().unwrap();
    for (names, addresses) in [
        (&["localhost"][..], vec![local]),
        (&["localhost"], vec![]),
        (&["printer.local"], vec!["192.168.1.1".parse().unwrap()]),
        (&["metadata.google.internal"], vec![cloud]),
        (&["cdn.example", "db.internal.example"], vec![local]),
        (&["cdn.example", "db.internal.example"], vec![public, local]),
        (
            &["cdn.example", "vpn.example"],
            vec!["fc00::1".parse().unwrap()],
        ),
        (&["cdn.example"], vec![]),
    ] {
        let site = internet.site();
        site.is_alias_of(names, vec![addresses]);
        world.finds_no_way_to(&site).await;
    }
    let site = internet.site();
    site.is_alias_of(&["cdn.example", "edge.cdn.example"], vec![vec![public]]);
    world.finds(&site, public).await;
    Ok(())
}
