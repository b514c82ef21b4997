//! Clients known by a metadata document (CI).

mod addresses;
mod answers;
mod contents;
mod floods;

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request};

use super::{
    case::{Case, Missing, case},
    internet::{Internet, Site},
    refusal::Refusal::{OAuth, Page},
    support::client::{Answer, Client},
    world::World,
};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(
            "N-CI-13",
            "a document at an address of this computer or network, in every spelling, and at names \
             that lead to one",
            addresses::special,
        ),
        case(
            "N-CI-14",
            "a document at a name with a special address among public ones",
            addresses::mixed,
        ),
        case(
            "N-CI-15",
            "a document at a name that leads elsewhere once it was looked up",
            addresses::rebound,
        ),
        case(
            "N-CI-16",
            "a document at an alias of a name in this network",
            addresses::aliases,
        ),
        case(
            "N-CI-17",
            "a document behind a redirect of any kind",
            answers::redirects,
        ),
        case(
            "N-CI-18",
            "a document with any status but 200, and the good one right after",
            answers::other_statuses,
        ),
        case(
            "N-CI-19",
            "a document whose `client_id` is almost its address",
            contents::almost_itself,
        ),
        case(
            "N-CI-20",
            "a document without `client_id`",
            contents::nameless,
        ),
        case(
            "N-CI-21",
            "a document whose `client_id` is a list, or no text",
            contents::no_text,
        ),
        case(
            "N-CI-22",
            "a document that is too long, packed, late, cut, or from who cannot prove its name",
            answers::hostile,
        ),
        case(
            "N-CI-23",
            "a document with a shared secret, and a client without the key that it must have",
            contents::authentication,
        ),
        case(
            "N-CI-24",
            "a `redirect_uri` that the document does not have, not yet, or no more",
            contents::changed,
        ),
        case(
            "N-CI-25",
            "1,000 requests that take one document, hundreds of them at once",
            floods::one_document,
        ),
        case(
            "N-CI-26",
            "1,000 documents of one host, and finding out through us what is where",
            floods::one_host,
        ),
    ];
    let not_fetched = NOT_FETCHED.iter();
    cases.extend(
        not_fetched.map(|(id, tried, bad)| case(id, tried, |world| is_not_fetched(world, id, bad))),
    );
    cases
}

impl World {
    /// A world of the case's own whose proxy asks for documents as often as it is made to, and the
    /// hosts of them.
    pub async fn with_documents(&self) -> Result<(Self, &'static Internet), Missing> {
        const OFTEN: &str = "limits.documents = \"off\"\nlimits.documents_per_host = \"off\"\n\
            limits.documents_per_address = \"off\"\nlimits.failures_per_document = \"off\"";
        let internet = Internet::here().await?;
        Ok((self.another(OFTEN).await, internet))
    }

    /// The client whose document `site` has.
    fn client_of(&self, site: &Site) -> Client {
        self.client_named(&site.id())
    }

    fn client_named(&self, id: &str) -> Client {
        Client {
            http: self.elsewhere(),
            id: id.to_owned(),
            secret: None,
            redirect_uri: "https://client.example/cb".to_owned(),
        }
    }

    /// A person's browser is told that `client` is none, and why.
    async fn refuses_client(&self, client: &Client) -> String {
        let page = self
            .refusal_from(&client.http, opening(client), &Page(400))
            .await;
        reason(&page)
    }

    /// As far as the consent page, and so the document was taken.
    async fn knows(&self, client: &Client) {
        let _ = client.opens_consent().await;
    }
}

/// A person's browser is sent here by `client`.
fn opening(client: &Client) -> Request<Body> {
    let path = format!("/authorize?{}", client.authorization().encoded());
    let request = client.http.request(Method::GET, &path);
    request.body(Body::empty()).unwrap()
}

/// What a page says, but for the number of the request.
fn reason(page: &Answer) -> String {
    let text = page.text();
    let main = text.split("<main").nth(1).unwrap();
    main.split("Reference").next().unwrap().to_owned()
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
];

/// Refused wherever it is presented, for what it is and not since nothing was found there.
async fn is_not_fetched(world: Arc<World>, case: &str, bad: &'static [&'static str]) {
    let client = world.client_at(&["https://client.example/cb"]).await;
    let named = |id: &str| Client {
        id: id.to_owned(),
        ..client.clone()
    };
    let decoy = world.decoy.address.port().to_string();
    for id in bad {
        let id = id.replace("{2 KiB}", &"x".repeat(2 * 1024));
        let id = id.replace("{decoy}", &decoy);
        let page = world.refuses_client(&named(&id)).await;
        assert!(!page.contains(TRIED), "{id}: {page}");

        let request = world.http.form("/token", &named(&id).redemption("x"));
        world.refused(request, &OAuth(401, "invalid_client")).await;
    }
    // A URL as it should be is asked for; nobody has this name (RFC 6761 §6.4). Each case has a host
    // of its own, since one is not asked often.
    let fine = format!("https://{}.invalid/client", case.to_lowercase());
    let page = world.refuses_client(&named(&fine)).await;
    assert!(page.contains(TRIED), "{page}");
    world.lets_in(&client, &client.authorization()).await;
}

#[rustfmt::skip]
const SPECIAL: &[&str] = &[
    "https://localhost/client", "https://localhost:{decoy}/client", "https://app.localhost/client", "https://LOCALHOST/client",
    "https://127.0.0.1:{decoy}/client", "https://127.1/client", "https://127.1:{decoy}/client", "https://127.0.0.1./client",
    "https://2130706433/client", "https://0x7f000001/client", "https://0x7f.1/client", "https://0177.0.0.1/client", "https://017700000001/client",
    "https://127。0。0。1/client", "https://①②⑦.0.0.1/client", "https://%31%32%37.0.0.1/client",
    "https://10.0.0.1/client", "https://169.254.169.254/latest/meta-data", "https://100.64.0.1/client", "https://0.0.0.0/client", "https://0/client",
    "https://[::1]:{decoy}/client", "https://[::]/client", "https://[fc00::1]/client", "https://[fe80::1]/client", "https://[fe80::1%25eth0]/client",
    "https://[::ffff:127.0.0.1]/client", "https://[::127.0.0.1]/client", "https://[64:ff9b::7f00:1]/client", "https://[64:ff9b:1::7f00:1]/client",
    "https://[2002:7f00:1::]/client", "https://[2001:0:7f00:1::]/client", "https://[fe80::5efe:7f00:1]/client",
];

/// What is said of a document that was asked for and did not come.
const TRIED: &str = "could not be fetched";
