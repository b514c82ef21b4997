//! What earlier releases left behind: this program opens it, and their clients go on.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection, raw_sql};
use tempfile::TempDir;
use tokio::time::Instant;

use super::support::{
    PASSPHRASE, UPSTREAM_KEY,
    client::{Client, Consent, Http, REDIRECT_URI, Tokens},
    fake_time::FakeTime,
    proxy::Proxy,
    upstream::{USUAL, Upstream, usual},
};

const RESOURCE: &str = "https://mcp.example.com/mcp";
/// As the upstream gives it.
const SESSION: &str = "session-4711";

fn folder(release: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(release)
}

/// A proxy with the configuration of a release, not started yet.
fn configured(release: &Path, upstream: &Upstream) -> Proxy {
    let proxy = Proxy::prepared(upstream.address, "");
    let text = fs::read_to_string(release.join("configuration.toml")).unwrap();
    let text = text
        .replace("{listen}", &proxy.address.to_string())
        .replace("{metrics_listen}", &proxy.metrics.to_string())
        .replace("{upstream}", &upstream.address.to_string());
    proxy.write_configuration(&text);
    proxy
}

/// A call in the session with that id.
fn call_in_session(client: &Client, tokens: &Tokens, session: &str) -> Request<Body> {
    let mut request = client.call_request(tokens);
    let session = session.parse().unwrap();
    request.headers_mut().insert("mcp-session-id", session);
    request
}

/// What a client holds, as `clients.json` has it.
fn held(client: &Client, tokens: &Tokens) -> Value {
    json!({
        "client_id": client.id,
        "client_secret": client.secret,
        "access_token": tokens.access_token,
        "refresh_token": tokens.refresh_token,
    })
}

/// That, read.
fn holder(http: &Http, held: &Value) -> (Client, Tokens) {
    let text = |name: &str| held[name].as_str().map(str::to_owned);
    let client = Client {
        http: http.clone(),
        id: text("client_id").unwrap(),
        secret: text("client_secret"),
        redirect_uri: REDIRECT_URI.to_owned(),
    };
    let tokens = Tokens {
        access_token: text("access_token").unwrap(),
        refresh_token: text("refresh_token").unwrap(),
    };
    (client, tokens)
}

/// S1-18
#[tokio::test]
async fn clients_of_0_1_0_go_on_without_signing_in() {
    clients_go_on(&folder("0.1.0")).await;
}

/// What the current program leaves behind is the fixture of its release once it is made in the folder
/// that `RELEASE` names.
#[tokio::test]
async fn clients_of_this_program_go_on_without_signing_in() {
    let temporary = TempDir::new().unwrap();
    let release = std::env::var_os("RELEASE");
    let release = release.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let configuration = "configuration.toml";
    fs::copy(
        folder("0.1.0").join(configuration),
        release.join(configuration),
    )
    .unwrap();
    leave_behind(&release).await;
    clients_go_on(&release).await;
}

/// The clients of a release call, refresh and redeem as if nothing had happened; a page that was open
/// can be sent, and what was revoked or denied stays so.
async fn clients_go_on(release: &Path) {
    let Some(time) = FakeTime::new() else { return };
    let held = fs::read_to_string(release.join("clients.json")).unwrap();
    let held: Value = serde_json::from_str(&held).unwrap();
    let upstream = Upstream::start().await;
    let mut proxy = configured(release, &upstream);
    put_data(release, &proxy.data_dir()).await;
    time.rules(&mut proxy);
    time.goes_on_from(held["stopped_at"].as_i64().unwrap());
    proxy.start().await;
    let http = Http::to(proxy.address);

    for name in ["with_a_secret", "public"] {
        let (client, tokens) = holder(&http, &held[name]);
        let answer = client.call(&tokens).await.expect(200);
        assert_eq!(answer.text(), USUAL);
        let got = upstream.last();
        let key = format!("Bearer {UPSTREAM_KEY}");
        assert_eq!(got.headers()["authorization"], key);
        let refreshed = Tokens::of(&client.refresh(&tokens).await.expect(200));
        assert_ne!(refreshed.refresh_token, tokens.refresh_token);
        // A repetition gives the same successor, and the older access token goes on.
        let again = Tokens::of(&client.refresh(&tokens).await.expect(200));
        assert_eq!(again.refresh_token, refreshed.refresh_token);
        for tokens in [&tokens, &refreshed] {
            let _ = client.call(tokens).await.expect(200);
        }
        let _ = client.refresh(&refreshed).await.expect(200);
    }

    let (client, tokens) = holder(&http, &held["public"]);
    let session = held["session"].as_str().unwrap();
    let call = call_in_session(&client, &tokens, session);
    let _ = http.send(call).await.expect(200);
    assert_eq!(upstream.last().headers()["mcp-session-id"], SESSION);

    let code = held["code"].as_str().unwrap();
    let redeemed = Tokens::of(&client.redeem(code).await.expect(200));
    let _ = client.call(&redeemed).await.expect(200);
    let _ = client.redeem(code).await.expect(400);

    let page = |name: &str| Consent {
        transaction: held[name]["transaction"].as_str().unwrap().to_owned(),
        cookie: held[name]["cookie"].as_str().unwrap().to_owned(),
    };
    let approved = client.approve(&page("open_page"), PASSPHRASE).await;
    let code = Client::code(&approved.expect(303));
    let _ = client.redeem(&code).await.expect(200);
    // A form that is sent twice gives one code, and one that was denied gives none.
    let sent_again = client.approve(&page("sent_page"), PASSPHRASE).await;
    assert_eq!(Client::code(&sent_again.expect(303)), held["code"]);
    let denied = client.approve(&page("denied_page"), PASSPHRASE).await;
    assert!(
        !denied.headers.contains_key(header::LOCATION),
        "{denied:#?}"
    );

    let (client, revoked) = holder(&http, &held["revoked"]);
    let _ = client.call(&revoked).await.expect(401);
    let _ = client.refresh(&revoked).await.expect(400);
    proxy.stop().await;
}

/// Puts the key file and the store of a release into a data directory.
async fn put_data(release: &Path, data_dir: &Path) {
    fs::create_dir(data_dir).unwrap();
    fs::set_permissions(data_dir, Permissions::from_mode(0o700)).unwrap();
    let key = data_dir.join("key");
    fs::copy(release.join("key"), &key).unwrap();
    fs::set_permissions(key, Permissions::from_mode(0o600)).unwrap();
    let records = fs::read_to_string(release.join("records.sql")).unwrap();
    let mut store = connect(&data_dir.join("records.sqlite")).await;
    raw_sql(sqlx::AssertSqlSafe(records))
        .execute(&mut store)
        .await
        .unwrap();
    store.close().await.unwrap();
}

async fn connect(file: &Path) -> SqliteConnection {
    let url = format!("sqlite://{}?mode=rwc", file.display());
    SqliteConnection::connect(&url).await.unwrap()
}

/// Makes what a release leaves behind, in a folder that has its `configuration.toml`.
async fn leave_behind(release: &Path) {
    let upstream = Upstream::start().await;
    let mut proxy = configured(release, &upstream);
    proxy.start().await;
    let started = Instant::now();
    let http = Http::to(proxy.address);
    let authorization = |client: &Client| client.authorization().with("resource", RESOURCE);

    let confidential = Client::register(&http).await;
    let metadata = json!({
        "client_name": "Visual Studio Code",
        "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "none",
    });
    let public = Client::register_as(&http, &metadata).await;
    let first = confidential
        .sign_in_with(&authorization(&confidential))
        .await;
    let second = Tokens::of(&confidential.refresh(&first).await.expect(200));
    let of_public = public.sign_in_with(&authorization(&public)).await;
    upstream.answers(async {
        let mut answer = usual();
        let session = SESSION.parse().unwrap();
        answer.headers_mut().insert("mcp-session-id", session);
        answer
    });
    let initialize = public.call_request(&of_public).map(|_| {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "fixture", "version": "0"}});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        Body::from(message.to_string())
    });
    let session = http.send(initialize).await.expect(200);
    let session = session.header("mcp-session-id");
    let _ = http
        .send(call_in_session(&public, &of_public, session))
        .await
        .expect(200);
    let revoked = confidential
        .sign_in_with(&authorization(&confidential))
        .await;
    let revocation = confidential.revocation(&revoked.refresh_token);
    let _ = http
        .send(http.form("/revoke", &revocation))
        .await
        .expect(200);
    let open = public.opens_consent_with(&authorization(&public)).await;
    let sent = public.opens_consent_with(&authorization(&public)).await;
    let code = Client::code(&public.approve(&sent, PASSPHRASE).await.expect(303));
    let denied = public.opens_consent_with(&authorization(&public)).await;
    let _ = http
        .send(denied.answer(&http, PASSPHRASE, "deny"))
        .await
        .expect(303);
    proxy.stop().await;

    assert!(started.elapsed().as_secs() < 60);
    let page = |it: &Consent| json!({ "transaction": it.transaction, "cookie": it.cookie });
    let held = json!({
        "stopped_at": UNIX_EPOCH.elapsed().unwrap().as_secs(),
        "with_a_secret": held(&confidential, &second),
        "public": held(&public, &of_public),
        "revoked": held(&confidential, &revoked),
        "session": session,
        "code": code,
        "open_page": page(&open),
        "sent_page": page(&sent),
        "denied_page": page(&denied),
    });
    let text = serde_json::to_string_pretty(&held).unwrap() + "\n";
    fs::write(release.join("clients.json"), text).unwrap();
    fs::copy(proxy.data_dir().join("key"), release.join("key")).unwrap();
    fs::write(release.join("records.sql"), dump(&proxy.data_dir()).await).unwrap();
}

/// The store as SQL that makes it again.
async fn dump(data_dir: &Path) -> String {
    let mut store = connect(&data_dir.join("records.sqlite")).await;
    // Values are JSON, so as text: that can be read in a review.
    let queries = [
        "SELECT sql || ';' FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid",
        "SELECT 'INSERT INTO mcp_oauth_proxy_schema VALUES (' || version || ');'
        FROM mcp_oauth_proxy_schema",
        "SELECT 'INSERT INTO mcp_oauth_proxy_records VALUES (' || quote(key) || ', CAST('
        || quote(CAST(value AS TEXT)) || ' AS BLOB), ' || version || ', ' || expires_at || ');'
        FROM mcp_oauth_proxy_records ORDER BY key",
    ];
    let mut text = String::new();
    for query in queries {
        for row in sqlx::query(query).fetch_all(&mut store).await.unwrap() {
            text += row.get::<&str, _>(0);
            text.push('\n');
        }
    }
    text
}
