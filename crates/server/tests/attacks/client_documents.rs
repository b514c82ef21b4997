//! Clients known by a metadata document (CI).

use std::sync::Arc;

use axum::body::Body;
use http::Method;

use super::{
    case::{Case, case},
    refusal::Refusal::{OAuth, Page},
    world::World,
};

pub fn cases() -> Vec<Case> {
    let cases = NOT_FETCHED.iter();
    cases
        .map(|(id, tried, bad)| case(id, tried, |world| is_not_fetched(world, id, bad)))
        .collect()
}

/// Id, what is tried, and what is presented as `client_id`.
type Near = (&'static str, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const NOT_FETCHED: &[Near] = &[
    ("N-CI-01", "a document without TLS, or behind an odd scheme", &["http://client.invalid/client", "HTTPS://client.invalid/client", "ftp://client.invalid/client", "file:///client", "https:client.invalid/client", "https:/client.invalid/client", "https:///client.invalid/client", "https:\\\\client.invalid\\client"]),
    ("N-CI-02", "a document's URL without a path", &["https://client.invalid"]),
    ("N-CI-03", "a document's URL whose path is a slash", &["https://client.invalid/"]),
    ("N-CI-04", "a document's URL with dot segments, also encoded", &["https://client.invalid/./client", "https://client.invalid/a/../client", "https://client.invalid/a/%2e%2e/client", "https://client.invalid/a/.%2E/client", "https://client.invalid/%2e/client", "https://client.invalid/..", "https://client.invalid/client/."]),
    ("N-CI-05", "a document's URL with a fragment", &["https://client.invalid/client#", "https://client.invalid/client#x"]),
    ("N-CI-06", "a document's URL with a user name", &["https://@client.invalid/client", "https://u@client.invalid/client", "https://u:p@client.invalid/client", "https://client.invalid@evil.invalid/client"]),
    ("N-CI-07", "a document's URL with a query", &["https://client.invalid/client?x=1", "https://client.invalid/client?"]),
    ("N-CI-08", "a document at an address without a name", &["https://127.0.0.1/client", "https://93.184.216.34/client", "https://[::1]/client", "https://[2606:4700::1]/client"]),
    ("N-CI-09", "a document at another port", &["https://client.invalid:22/client", "https://client.invalid:6379/client", "https://client.invalid:443/client", "https://client.invalid:8443/client", "https://client.invalid:0/client", "https://client.invalid:/client", "https://client.invalid:99999/client"]),
    ("N-CI-10", "a document at a host with a dot too many", &["https://client.invalid./client", "https://.client.invalid/client", "https://client..invalid/client"]),
    ("N-CI-11", "a document at a host that looks like another", &["https://bücher.invalid/client", "https://xn--bcher-kva.bücher.invalid/client", "https://xn--é.invalid/client", "https://Client.invalid/client", "https://client。invalid/client", "https://ｃlient.invalid/client", "https://cl\u{200b}ient.invalid/client", "https://b%C3%BCcher.invalid/client"]),
    ("N-CI-12", "a document's URL of 2 KiB", &["https://client.invalid/{2 KiB}", "https://client.invalid/client/../{2 KiB}"]),
    // Names that lead to such addresses are tried in tests/fetch.rs, which decides what they lead to.
    ("N-CI-13", "a document at an address of this computer or network, in every spelling", &[
        "https://localhost/client", "https://localhost:{decoy}/client", "https://app.localhost/client", "https://LOCALHOST/client",
        "https://127.0.0.1:{decoy}/client", "https://127.1/client", "https://127.1:{decoy}/client", "https://127.0.0.1./client",
        "https://2130706433/client", "https://0x7f000001/client", "https://0x7f.1/client", "https://0177.0.0.1/client", "https://017700000001/client",
        "https://127。0。0。1/client", "https://①②⑦.0.0.1/client", "https://%31%32%37.0.0.1/client",
        "https://10.0.0.1/client", "https://169.254.169.254/latest/meta-data", "https://100.64.0.1/client", "https://0.0.0.0/client", "https://0/client",
        "https://[::1]:{decoy}/client", "https://[::]/client", "https://[fc00::1]/client", "https://[fe80::1]/client", "https://[fe80::1%25eth0]/client",
        "https://[::ffff:127.0.0.1]/client", "https://[::127.0.0.1]/client", "https://[64:ff9b::7f00:1]/client", "https://[64:ff9b:1::7f00:1]/client",
        "https://[2002:7f00:1::]/client", "https://[2001:0:7f00:1::]/client", "https://[fe80::5efe:7f00:1]/client",
    ]),
];

/// Refused wherever it is presented, for what it is and not since nothing was found there.
async fn is_not_fetched(world: Arc<World>, case: &str, bad: &'static [&'static str]) {
    let client = world.client_at(&["https://client.example/cb"]).await;
    let good = client.authorization();
    let opening = |id: &str| {
        let path = format!(
            "/authorize?{}",
            good.clone().with("client_id", id).encoded()
        );
        let request = world.http.request(Method::GET, &path);
        request.body(Body::empty()).unwrap()
    };
    let decoy = world.decoy.address.port().to_string();
    for id in bad {
        let id = id.replace("{2 KiB}", &"x".repeat(2 * 1024));
        let id = id.replace("{decoy}", &decoy);
        let page = world.refusal_of(opening(&id), &Page(400)).await.text();
        assert!(!page.contains(TRIED), "{id}: {page}");

        let redemption = client.redemption("x").with("client_id", &id);
        let request = world.http.form("/token", &redemption);
        world.refused(request, &OAuth(401, "invalid_client")).await;
    }
    // A URL as it should be is asked for; nobody has this name (RFC 6761 §6.4). Each case has a host
    // of its own, since one is not asked often.
    let fine = format!("https://{}.invalid/client", case.to_lowercase());
    let page = world.refusal_of(opening(&fine), &Page(400)).await.text();
    assert!(page.contains(TRIED), "{page}");
    world.lets_in(&client, &good).await;
}

/// What is said of a document that was asked for and did not come.
const TRIED: &str = "could not be fetched";
