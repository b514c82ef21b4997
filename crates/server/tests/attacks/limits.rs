//! Limits on how often and how much (LG).

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{
    case::{Case, Missing, case},
    guessing::WRONG,
    internet::{Does, Internet, with_head},
    refusal::Refusal::{JsonRpc, OAuth, Page},
    support::{
        PASSPHRASE,
        client::{Client, Http, Parameters, Tokens},
        upstream::USUAL,
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case("N-LG-01", "guessing the passphrase", passphrases),
        case("N-LG-02", "guessing tokens and client secrets", tokens),
        case("N-LG-03", "registering without end", registrations),
        case("N-LG-04", "asking for documents without end", documents),
        case("N-LG-05", "calling without end", calls),
        case("N-LG-06", "opening event streams without end", streams),
        case("N-LG-07", "opening connections without end", connections),
    ]
}

pub const TOO_MANY: &str = "too_many_requests";

impl World {
    /// Insists on what a limit is when nobody has set it.
    pub fn is_by_default(&self, limit: &str, value: &str) {
        let shown = self.proxy.check_without_configuration();
        let line = format!("  {limit:<26} {value}\n");
        assert!(shown.contains(&line), "{line}{shown}");
    }

    /// How often a limit has refused something.
    async fn refused_by(&self, limit: &str) -> u64 {
        let series = format!("limited_total{{limit=\"{limit}\"}}");
        self.metric(&series).await
    }

    /// Sends a request that a limit must refuse without a trace; gives the seconds to wait.
    pub async fn limits(&self, http: &Http, request: Request<Body>) -> u32 {
        let refusal = if request.uri().path() == "/mcp" {
            JsonRpc(429)
        } else {
            OAuth(429, TOO_MANY)
        };
        let answer = self.refusal_from(http, request, &refusal).await;
        let wait = answer.header("retry-after").parse().unwrap();
        assert!(wait > 0);
        wait
    }
}

async fn passphrases(world: Arc<World>) {
    let trusting = "trusted_proxies.ranges = [\"127.0.0.1\"]";
    let world = world.another(trusting).await;
    let client = world.client().await;
    let before = world.refused_by("AttemptsPerPage").await;
    // Whatever it says of where it comes from, it is one address.
    let http = world.elsewhere();
    let page = client.opens_consent().await;
    let attempt = |number: u8, secret: &str| {
        let mut form = page.answer(&http, secret, "approve");
        let claimed = format!("192.0.2.{number}").parse().unwrap();
        form.headers_mut().insert("x-forwarded-for", claimed);
        form
    };
    for number in 0..5 {
        let answer = world
            .refusal_from(&http, attempt(number, WRONG), &Page(401))
            .await;
        let left = [
            "4 attempts are",
            "3 attempts are",
            "2 attempts are",
            "One attempt is",
        ];
        let left = left.get(usize::from(number)).copied();
        let left = left.map_or("Wait 15 minutes".to_owned(), |left| format!("{left} left"));
        assert!(answer.text().contains(&left), "{left}: {}", answer.text());
    }
    for (number, secret) in [(5, WRONG), (6, PASSPHRASE)] {
        let answer = world
            .refusal_from(&http, attempt(number, secret), &Page(429))
            .await;
        let wait: u32 = answer.header("retry-after").parse().unwrap();
        assert!((840..=900).contains(&wait), "{wait}");
        assert!(answer.text().contains("Wait 15 minutes"));
    }
    assert_eq!(world.metric("sign_in_failures_total").await, 5);
    assert_eq!(world.metric("sign_ins_blocked_total").await, 2);
    assert_eq!(world.refused_by("AttemptsPerPage").await, before);

    // Behind a proxy that is trusted, whoever it names counts; of IPv6 the network.
    let named = async |address: &str, secret: &str| {
        let page = client.opens_consent().await;
        let mut form = page.answer(&world.http, secret, "approve");
        let address = address.parse().unwrap();
        form.headers_mut().insert("x-forwarded-for", address);
        world.http.send(form).await.status.as_u16()
    };
    for host in 1..=5 {
        assert_eq!(named(&format!("2001:db8::{host}:1"), WRONG).await, 401);
    }
    assert_eq!(named("2001:db8::ffff", PASSPHRASE).await, 429);
    // All strangers together have none left for some seconds.
    assert_eq!(named("2001:db8:0:1::1", WRONG).await, 429);
    let deadline = Instant::now() + Duration::from_secs(30);
    while named("2001:db8:0:1::1", PASSPHRASE).await != 303 {
        assert!(Instant::now() < deadline, "nobody is let in any more");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn tokens(world: Arc<World>) {
    world.is_by_default("wrong_tokens_per_address", "60/m");
    let world = world
        .another("limits.wrong_tokens_per_address = \"5/h\"")
        .await;
    let (client, other) = (world.client().await, world.client().await);
    let held = client.sign_in().await;
    let http = world.elsewhere();
    let form = |path: &str, fields: &Parameters| http.form(path, fields);
    let guessed = |n: u8| Tokens {
        access_token: format!("mopa_{}", char::from(b'A' + n).to_string().repeat(80)),
        refresh_token: format!("mopr_{}", char::from(b'A' + n).to_string().repeat(80)),
    };
    let unknown = OAuth(401, "invalid_token");
    for n in 0..3 {
        let call = client.call_request(&guessed(n));
        let _ = world.refusal_from(&http, call, &unknown).await;
    }
    let no_grant = OAuth(400, "invalid_grant");
    for fields in [
        client.refreshment(&guessed(3).refresh_token),
        client.redemption(&guessed(4).refresh_token),
    ] {
        let _ = world
            .refusal_from(&http, form("/token", &fields), &no_grant)
            .await;
    }
    // All of them count together.
    for request in [
        client.call_request(&guessed(5)),
        form("/token", &client.refreshment(&guessed(6).refresh_token)),
        form("/token", &client.redemption(&guessed(7).refresh_token)),
    ] {
        let wait = world.limits(&http, request).await;
        assert!((600..=720).contains(&wait), "{wait}");
    }
    assert_eq!(world.refused_by("WrongTokens").await, 3);
    // Whoever holds one is not asked.
    let call = http.send(client.call_request(&held)).await.expect(200);
    assert_eq!(call.text(), USUAL);
    let refresh = form("/token", &client.refreshment(&held.refresh_token));
    let held = Tokens::of(&http.send(refresh).await.expect(200));
    world.serves(&client, &held).await;
    let call = client.call_request(&guessed(8));
    let _ = world.refusal_from(&world.elsewhere(), call, &unknown).await;

    // Secrets count by client and address.
    let with_secret = |of: &Client, secret: &str| {
        let refresh = of.refreshment(&held.refresh_token);
        refresh.with("client_secret", secret)
    };
    let no_client = OAuth(401, "invalid_client");
    let right = client.secret.clone().unwrap();
    for n in 0..5 {
        let wrong = form("/token", &with_secret(&client, &format!("wrong-{n}")));
        let _ = world.refusal_from(&http, wrong, &no_client).await;
    }
    for secret in ["wrong", &right] {
        world
            .limits(&http, form("/token", &with_secret(&client, secret)))
            .await;
    }
    assert_eq!(world.refused_by("WrongSecrets").await, 2);
    let wrong = form("/token", &with_secret(&other, "wrong"));
    let _ = world.refusal_from(&http, wrong, &no_client).await;
    let refreshed = Tokens::of(&client.refresh(&held).await.expect(200));
    world.serves(&client, &refreshed).await;
}

async fn registrations(world: Arc<World>) {
    world.is_by_default("registrations_per_address", "300/h");
    world.is_by_default("registrations", "600/m");
    let lines = "limits.registrations_per_address = \"3/h\"\nlimits.registrations = \"8/h\"";
    let world = world.another(lines).await;
    let request = |http: &Http, metadata: &str| {
        let request = http.request(Method::POST, "/register");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        request.body(Body::from(metadata.to_owned())).unwrap()
    };
    let fine = json!({ "redirect_uris": ["https://client.example/cb"] }).to_string();
    let http = world.elsewhere();
    let mut registered = vec![Client::register(&http).await];
    // What is refused anyway does not count.
    for _ in 0..10 {
        let refusal = OAuth(400, "invalid_redirect_uri");
        let _ = world
            .refusal_from(&http, request(&http, "{}"), &refusal)
            .await;
    }
    for _ in 0..2 {
        registered.push(Client::register(&http).await);
    }
    for _ in 0..10 {
        let wait = world.limits(&http, request(&http, &fine)).await;
        assert!((1_100..=1_200).contains(&wait), "{wait}");
    }
    assert_eq!(world.refused_by("RegistrationsPerAddress").await, 10);
    // What one address has too much takes nothing from the others.
    for _ in 0..5 {
        registered.push(world.client().await);
    }
    for _ in 0..3 {
        let http = world.elsewhere();
        let wait = world.limits(&http, request(&http, &fine)).await;
        assert!((400..=450).contains(&wait), "{wait}");
    }
    assert_eq!(world.refused_by("Registrations").await, 3);
    assert_eq!(world.metric("registrations_total").await, 8);
    for client in registered {
        world.lets_in(&client, &client.authorization()).await;
    }
}

async fn documents(world: Arc<World>) -> Result<(), Missing> {
    world.is_by_default("documents_per_address", "5/m");
    world.is_by_default("documents_per_host", "10/m");
    world.is_by_default("documents", "60/m");
    world.is_by_default("failures_per_document", "2/m");
    let internet = Internet::here().await?;
    documents_from_one_address(&world.another("").await, internet).await;
    let lines = "limits.documents_per_host = \"3/h\"\nlimits.documents = \"8/h\"";
    let world = world.another(lines).await;
    let named = |id: String| Client {
        http: world.elsewhere(),
        id,
        secret: None,
        redirect_uri: "https://client.example/cb".to_owned(),
    };
    let refused = async |client: Client| document_refused(&world, client).await;
    // One host is asked three times, by whatever name of its clients, from wherever.
    let site = internet.site();
    let known = ["/a", "/b", "/c"].map(|path| named(site.id_at(path)));
    for client in &known {
        let _ = client.opens_consent().await;
    }
    for number in 0..10 {
        refused(named(site.id_at(&format!("/{number}")))).await;
    }
    assert_eq!(site.requests().len(), 3);
    assert_eq!(world.refused_by("DocumentFetchesPerHost").await, 10);
    // All hosts together, five times more.
    let others: Vec<_> = (0..10).map(|_| internet.site()).collect();
    for site in &others[..5] {
        let _ = named(site.id()).opens_consent().await;
    }
    for site in &others[5..] {
        refused(named(site.id())).await;
        assert!(site.connections().is_empty());
    }
    assert_eq!(world.refused_by("DocumentFetches").await, 5);
    // Who is known already is not asked about, and who is known otherwise not at all.
    for client in &known {
        world.lets_in(client, &client.authorization()).await;
    }
    assert_eq!(site.requests().len(), 3);
    let client = world.client().await;
    world.lets_in(&client, &client.authorization()).await;
    Ok(())
}

/// What one address has fetched, and what keeps failing, costs the others nothing.
async fn documents_from_one_address(world: &World, internet: &'static Internet) {
    let site = internet.site();
    let greedy = world.elsewhere();
    let named = |http: &Http, path: &str| Client {
        http: http.clone(),
        id: site.id_at(path),
        secret: None,
        redirect_uri: "https://client.example/cb".to_owned(),
    };
    let refused = async |client: Client| document_refused(world, client).await;
    for number in 0..5 {
        let client = named(&greedy, &format!("/{number}"));
        let _ = client.opens_consent().await;
    }
    for number in 5..20 {
        refused(named(&greedy, &format!("/{number}"))).await;
    }
    assert_eq!(site.requests().len(), 5);
    assert_eq!(world.refused_by("DocumentFetchesPerAddress").await, 15);
    let client = named(&world.elsewhere(), "/5");
    world.lets_in(&client, &client.authorization()).await;

    let asked = site.requests().len();
    site.does(Does::Answers(with_head("500 Oh", &"")));
    for _ in 0..10 {
        refused(named(&world.elsewhere(), "/fails")).await;
    }
    assert_eq!(site.requests().len(), asked + 2);
    assert_eq!(world.refused_by("FailuresPerDocument").await, 8);
    site.does(Does::Publishes(Duration::ZERO));
    let client = named(&world.elsewhere(), "/comes");
    world.lets_in(&client, &client.authorization()).await;
}

/// A page says that the document is not asked for just now.
async fn document_refused(world: &World, client: Client) {
    let path = format!("/authorize?{}", client.authorization().encoded());
    let opening = client.http.request(Method::GET, &path);
    let opening = opening.body(Body::empty()).unwrap();
    let page = world.refusal_from(&client.http, opening, &Page(400)).await;
    let says = "try again in a minute";
    assert!(page.text().contains(says), "{}", page.text());
}

async fn calls(world: Arc<World>) {
    world.is_by_default("calls_per_grant", "200/s");
    let world = world.another("limits.calls_per_grant = \"5/h\"").await;
    let client = world.client().await;
    let (eager, other) = (client.sign_in().await, client.sign_in().await);
    for _ in 0..5 {
        world.serves(&client, &eager).await;
    }
    for _ in 0..5 {
        // From wherever.
        let http = world.elsewhere();
        let wait = world.limits(&http, client.call_request(&eager)).await;
        assert!((600..=720).contains(&wait), "{wait}");
    }
    // Another token of the same grant is no way around it.
    let renewed = Tokens::of(&client.refresh(&eager).await.expect(200));
    world
        .limits(&client.http, client.call_request(&renewed))
        .await;
    assert_eq!(world.refused_by("CallsPerGrant").await, 6);
    world.serves(&client, &other).await;
    let client = world.client().await;
    world.lets_in(&client, &client.authorization()).await;
}

async fn streams(world: Arc<World>) {
    world.is_by_default("streams_per_grant", "16");
    let client = world.client().await;
    let (greedy, other) = (client.sign_in().await, client.sign_in().await);
    let ask = |tokens: &Tokens| {
        let (mut parts, _) = client.call_request(tokens).into_parts();
        parts.method = Method::GET;
        let accept = "text/event-stream".parse().unwrap();
        parts.headers.insert(header::ACCEPT, accept);
        Request::from_parts(parts, Body::empty())
    };
    let open = async |tokens: &Tokens| -> (_, Response<Incoming>) {
        let events = world.upstream.streams();
        let stream = client.http.open(ask(tokens)).await.unwrap();
        assert_eq!(stream.status(), 200);
        (events, stream)
    };
    let refused = world.refused_by("StreamsPerGrant").await;
    let mut opened = Vec::new();
    for _ in 0..16 {
        opened.push(open(&greedy).await);
    }
    for _ in 0..3 {
        world.limits(&client.http, ask(&greedy)).await;
    }
    assert_eq!(world.refused_by("StreamsPerGrant").await, refused + 3);
    // Calls go on, and so do others.
    world.serves(&client, &greedy).await;
    let others = open(&other).await;
    // Where one ends, another may begin.
    let (events, _) = opened.pop().unwrap();
    drop(events);
    let deadline = Instant::now() + Duration::from_secs(10);
    let events = world.upstream.streams();
    let again = loop {
        let stream = client.http.open(ask(&greedy)).await.unwrap();
        if stream.status() == 200 {
            break stream;
        }
        assert!(Instant::now() < deadline, "its place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    world.limits(&client.http, ask(&greedy)).await;
    drop((opened, others, events, again));
}

async fn connections(world: Arc<World>) {
    world.is_by_default("connections", "10240");
    world.is_by_default("connections_per_address", "256");
    let many = world.another("").await;
    let greedy = many.elsewhere();
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(Wire::open(&greedy).await);
    }
    for _ in 0..3 {
        assert!(Wire::open(&greedy).await.is_closed().await);
    }
    assert_eq!(many.refused_by("PerAddress").await, 3);
    let health = format!(
        "GET /health HTTP/1.1\r\nhost: {}\r\n\r\n",
        many.proxy.address
    );
    let mut first = held.swap_remove(0);
    first.send(&health).await;
    let _ = first.answer().await.unwrap().expect(200);
    let _ = many.elsewhere().get("/health").await.expect(200);
    // Where one ends, another may begin.
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while greedy.try_send(get(&greedy)).await.is_err() {
        assert!(Instant::now() < deadline, "its places are not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Of all together, the next one waits.
    let few = world.another("limits.connections = 4").await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(Wire::open(&few.elsewhere()).await);
    }
    let http = few.elsewhere();
    let waiting = http.send(get(&http));
    tokio::pin!(waiting);
    let early = timeout(Duration::from_millis(500), &mut waiting).await;
    assert!(early.is_err(), "one too many was served: {early:?}");
    drop(held);
    let _ = waiting.await.expect(200);
    assert!(few.refused_by("Connections").await > 0);
}

fn get(http: &Http) -> Request<Body> {
    let request = http.request(Method::GET, "/health");
    request.body(Body::empty()).unwrap()
}
