//! Secrets stay where they belong.

use std::fs;

use axum::body::Body;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, Response, header};

use super::support::{
    PASSPHRASE, UPSTREAM_KEY,
    canary::{Place, Search, Secrets, leaks},
    client::{Answer, Client, Http, Tokens, VERIFIER},
    postgres::Schema,
    proxy::Proxy,
    upstream::{USUAL, Upstream},
};

/// What the upstream calls the session, which nobody else may.
const UPSTREAMS_SESSION: &str = "1868a90c-1bb7-4b0f-9e3e-6c1f5b5d0f3a";
const DATABASE_PASSWORD: &str = "pg:Zx9Cv&BnM/3LkJh";

/// Secrets that answers bring, and the answers that are to bring them.
const BROUGHT_BY: [(&str, &str); 6] = [
    ("cookie", "GET /authorize"),
    ("cookie", "POST /consent"),
    ("code", "POST /consent"),
    ("client_secret", "POST /register"),
    ("access_token", "POST /token"),
    ("refresh_token", "POST /token"),
];

/// Where the address of the upstream has a key of its own (case 31).
const KEY_IN_ADDRESS: &str = "fc-9f2Kd81LmQ0pTx7N4uVb";

/// A run of the whole flow at the most talkative level, and everything that it left behind.
struct Run {
    secrets: Secrets,
    answers: Vec<Answer>,
    /// All but the answers.
    places: Vec<Place>,
}

impl Run {
    /// With the upstream's key in the configuration like this, and the records there.
    async fn with(credential: &str, schema: Option<&Schema>) -> Self {
        let upstream = Upstream::start().await;
        let mut proxy = Proxy::prepared(upstream.address, "store = { env = \"STORE\" }");
        proxy.reconfigure("{ bearer = { env = \"UPSTREAM_KEY\" } }", credential);
        proxy.reconfigure("/mcp\"", &format!("/{KEY_IN_ADDRESS}/mcp\""));
        let store = schema.map(|schema| {
            let mut url = schema.url.clone();
            url.set_password(Some(DATABASE_PASSWORD)).unwrap();
            url.to_string()
        });
        proxy.set("STORE", store.as_deref().unwrap_or("sqlite"));
        proxy.set("RUST_LOG", "trace");
        let mut places = vec![("what `check` says".to_owned(), proxy.check())];
        proxy.start().await;

        let http = Http::to(proxy.address);
        let mut secrets = Secrets::default();
        sign_in_and_call(&http, &upstream, &mut secrets).await;
        let key = fs::read_to_string(proxy.data_dir().join("key")).unwrap();
        let key = key.trim().rsplit(':').next().unwrap();
        let master = BASE64_URL_SAFE_NO_PAD.decode(key).unwrap();
        for (name, secret) in [
            ("the upstream's key", UPSTREAM_KEY),
            ("the key in the upstream's address", KEY_IN_ADDRESS),
            ("the passphrase", PASSPHRASE),
            ("the verifier", VERIFIER),
            ("the upstream's session", UPSTREAMS_SESSION),
            ("the database's password", DATABASE_PASSWORD),
            ("the key file", key),
        ] {
            secrets.add(name, secret);
        }
        secrets.add("the master key", master);

        let operators = Http::to(proxy.metrics);
        let metrics = operators.get("/metrics").await.expect(200);
        assert!(metrics.text().contains("mcp_oauth_proxy_calls_total"));
        places.push(("the metrics".to_owned(), metrics.body.to_vec()));
        for path in ["/health", "/ready"] {
            let _ = http.get(path).await.expect(200);
        }
        places.extend(proxy.process());
        places.extend(proxy.files());
        if let Some(schema) = schema {
            let values = schema.values().await;
            assert!(values.windows(6).any(|it| it == b"grant/"));
            places.push(("the database".to_owned(), values));
        }
        proxy.stop().await;
        let output = proxy.output();
        assert!(output.contains("TRACE") && output.contains("a code was redeemed"));
        places.push(("the output".to_owned(), output.into_bytes()));
        places.extend(proxy.files());
        Self {
            secrets,
            answers: http.seen(),
            places,
        }
    }

    /// Insists that no secret is anywhere but in the answers that are to bring it.
    fn is_clean(&self) {
        let search = self.secrets.search();
        search.finds_nothing_in(&self.places);
        for answer in &self.answers {
            for (name, kind) in search.found_in(&read_by_the_client(answer)) {
                let is_meant = BROUGHT_BY.contains(&(name, answer.to.as_str()));
                assert!(is_meant, "{name} is in an answer to {} ({kind})", answer.to);
            }
        }
        for (name, _) in BROUGHT_BY {
            let mut all = self.answers.iter().map(read_by_the_client);
            let is_seen = all.any(|text| search.found_in(&text).iter().any(|it| it.0 == name));
            assert!(
                is_seen,
                "the run brought no {name}, so nothing is shown about it"
            );
        }
    }
}

async fn sign_in_and_call(http: &Http, upstream: &Upstream, secrets: &mut Secrets) {
    let client = Client::register(http).await;
    let consent = client.opens_consent().await;
    let _ = client
        .approve(&consent, "not the passphrase")
        .await
        .expect(401);
    let redirect = client.approve(&consent, PASSPHRASE).await.expect(303);
    let code = Client::code(&redirect);
    let first = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.redeem(&code).await.expect(400);
    // A replay ended that grant, so another is needed.
    let first = match client.refresh(&first).await.status.as_u16() {
        200 => first,
        _ => client.sign_in().await,
    };
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = client.refresh(&first).await.expect(200);

    let with_session = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header("mcp-session-id", UPSTREAMS_SESSION)
        .body(Body::from(USUAL))
        .unwrap();
    upstream.answers(async { with_session });
    let begun = client.call(&second).await.expect(200);
    let session = begun.header("mcp-session-id").to_owned();
    let mut again = client.call_request(&second);
    let headers = again.headers_mut();
    headers.insert("mcp-session-id", session.parse().unwrap());
    let _ = http.send(again).await.expect(200);
    assert_eq!(
        upstream.last().headers()["mcp-session-id"],
        UPSTREAMS_SESSION
    );

    // What should not be sent like this, but is.
    let mut by_query = client.call_request(&second);
    let query = format!("/mcp?access_token={}&code={code}", second.access_token);
    *by_query.uri_mut() = query.parse().unwrap();
    by_query.headers_mut().remove(header::AUTHORIZATION);
    let _ = http.send(by_query).await.expect(401);
    let path = format!(
        "/nothing?refresh_token={}&code={code}",
        second.refresh_token
    );
    let _ = http.get(&path).await.expect(404);
    let odd = http.request(Method::GET, "/mcp");
    let odd = odd.header(
        header::AUTHORIZATION,
        format!("Basic {}", first.access_token),
    );
    let _ = http
        .send(odd.body(Body::empty()).unwrap())
        .await
        .expect(401);
    secrets.add_those_of(&http.seen());
    // It is sealed for one client, and shown to that one alone.
    secrets.add("the client's session", session);
}

/// An answer with all that the other side can read, but for a session in its own header.
fn read_by_the_client(answer: &Answer) -> Vec<u8> {
    let mut headers = answer.headers.clone();
    headers.remove("mcp-session-id");
    let mut text = format!("{headers:?}\n").into_bytes();
    // Once more as they are, since `Debug` escapes.
    for value in headers.values() {
        text.extend_from_slice(value.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(&answer.body);
    text
}

/// S1-02, S1-16, S5-19, TK-24, PX-02, PX-16: the whole flow at the most talkative level, then a
/// search of everything that was written or sent.
#[tokio::test]
async fn no_secret_is_in_logs_metrics_store_or_answers_that_it_is_not_for() {
    let run = Run::with("{ bearer = { env = \"UPSTREAM_KEY\" } }", None).await;
    run.is_clean();
    let search = run.secrets.search();
    every_leak_is_found(&search, &run.places);
}

/// However the upstream wants its key, and with the records in a database that others may read.
#[tokio::test]
async fn no_secret_is_in_the_database_or_the_log_with_any_kind_of_key() {
    for (schema, credential) in [
        (
            "secrets_header",
            "{ header = \"X-API-Key\", value = { env = \"UPSTREAM_KEY\" } }",
        ),
        (
            "secrets_basic",
            "{ basic = { username = \"proxy\", password = { env = \"UPSTREAM_KEY\" } } }",
        ),
        (
            "secrets_query",
            "{ query = \"key\", value = { env = \"UPSTREAM_KEY\" } }",
        ),
    ] {
        let Some(schema) = Schema::new(schema).await else {
            return;
        };
        let run = Run::with(credential, Some(&schema)).await;
        run.is_clean();
        schema.remove().await;
    }
}

/// A database that cannot be reached is told of, and its address holds a password.
#[tokio::test]
async fn no_secret_is_in_what_a_failed_start_says() {
    let mut proxy = Proxy::prepared(
        "127.0.0.1:9".parse().unwrap(),
        "store = { env = \"STORE\" }",
    );
    proxy.set(
        "STORE",
        &format!("postgres://proxy:{}@127.0.0.1:9/proxy", "pg-Zx9CvBnM3LkJh"),
    );
    proxy.set("RUST_LOG", "trace");
    proxy.spawn();
    assert_eq!(proxy.ended().await.code(), Some(1));
    let mut secrets = Secrets::default();
    secrets.add("the database's password", "pg-Zx9CvBnM3LkJh");
    secrets.add("the upstream's key", UPSTREAM_KEY);
    secrets.add("the passphrase", PASSPHRASE);
    let output = proxy.output();
    assert!(output.contains("127.0.0.1:9"), "{output}");
    secrets
        .search()
        .finds_nothing_in(&[("the output".to_owned(), output.into_bytes())]);
}

/// Puts each secret into each of the places, as a program that leaks would, and insists that it is
/// found. Without this, finding nothing would prove nothing.
fn every_leak_is_found(search: &Search, places: &[Place]) {
    let mut tried = 0;
    for (place, text) in places {
        // The whole of a long log for each leak would take long, and shows no more.
        let text = &text[..text.len().min(4096)];
        for secret in [UPSTREAM_KEY, PASSPHRASE, VERIFIER, DATABASE_PASSWORD] {
            for (kind, leak) in leaks(secret) {
                let middle = text.len() / 2;
                let leaking = [&text[..middle], leak.as_bytes(), &text[middle..]].concat();
                let found = search.found_in(&leaking);
                assert!(
                    !found.is_empty(),
                    "{secret} was not found in {place} ({kind})"
                );
                tried += 1;
            }
        }
    }
    assert!(
        tried >= 12 * 4 * places.len() && places.len() >= 5,
        "{tried}"
    );
}

/// Secrets are in the memory, and a core file is a copy of that.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_crash_of_the_running_program_leaves_no_core_file() {
    let upstream = Upstream::start().await;
    let proxy = Proxy::in_front_of(upstream.address).await;
    let limits = proxy.limits();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[..6], ["Max", "core", "file", "size", "0", "0"]);
}

/// The places are read where a program would write: a file in either directory, a row.
#[tokio::test]
async fn what_is_written_to_any_place_is_looked_at() {
    let Some(schema) = Schema::new("places").await else {
        return;
    };
    let upstream = Upstream::start().await;
    let lines = format!("store = \"{}\"", schema.url);
    let proxy = Proxy::with(upstream.address, &lines).await;
    let mut secrets = Secrets::default();
    secrets.add("the upstream's key", UPSTREAM_KEY);
    let search = secrets.search();
    let found = |places: &[Place]| {
        let places = places.iter();
        places
            .filter(|(_, text)| !search.found_in(text).is_empty())
            .count()
    };
    assert_eq!(found(&proxy.files()), 0);
    assert_eq!(
        found(&[("the database".to_owned(), schema.values().await)]),
        0
    );

    fs::create_dir(proxy.data_dir().join("deeper")).unwrap();
    fs::write(proxy.data_dir().join("deeper/left"), UPSTREAM_KEY).unwrap();
    fs::write(proxy.data_dir().join("../tmp/left"), UPSTREAM_KEY).unwrap();
    schema
        .insert("grant/leaking", UPSTREAM_KEY.as_bytes())
        .await;

    assert_eq!(found(&proxy.files()), 2);
    assert_eq!(
        found(&[("the database".to_owned(), schema.values().await)]),
        1
    );
    schema.remove().await;
}
