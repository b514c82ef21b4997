//! What may happen once, on both sides of a rotation of keys: before and after a restart with a new
//! first key on SQLite, and at the same time on two processes with different first keys on PostgreSQL.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use axum::body::Body;
use http::Request;

use super::{
    PARALLEL,
    lane::Lanes,
    support::{
        PASSPHRASE,
        client::{Answer, Client, Http, Tokens},
        postgres::Schema,
        proxy::Proxy,
        upstream::Upstream,
    },
};

const OLD: &str = "mcp-oauth-proxy-key-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";
const NEW: &str = "mcp-oauth-proxy-key-1:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

struct World {
    proxies: Vec<Proxy>,
    lanes: Lanes,
    client: Client,
    schema: Option<Schema>,
    _upstream: Upstream,
}

/// Writes the key file for the next start.
fn put_keys(proxy: &Proxy, keys: &[&str]) {
    let data_dir = proxy.data_dir();
    fs::create_dir_all(&data_dir).unwrap();
    fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();
    let file = data_dir.join("key");
    fs::write(&file, keys.concat()).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

impl World {
    /// One process, or on PostgreSQL two that have the same keys in another order.
    async fn on(schema: Option<Schema>) -> Self {
        let upstream = Upstream::start().await;
        let (store, rings) = match &schema {
            Some(schema) => (schema.url.as_str(), &[&[OLD, NEW][..], &[NEW, OLD]][..]),
            None => ("sqlite", &[&[OLD][..]][..]),
        };
        let mut proxies: Vec<Proxy> = Vec::new();
        for ring in rings {
            let mut proxy = Proxy::prepared(upstream.address, &format!("store = \"{store}\""));
            if let Some(first) = proxies.first() {
                proxy.set("PUBLIC_URL", &format!("http://{}", first.address));
            }
            put_keys(&proxy, ring);
            proxy.start().await;
            proxies.push(proxy);
        }
        let addresses: Vec<_> = proxies.iter().map(|proxy| proxy.address).collect();
        Self {
            lanes: Lanes::to(&addresses, PARALLEL),
            client: Client::register(&Http::to(addresses[0])).await,
            proxies,
            schema,
            _upstream: upstream,
        }
    }

    /// Sends the same request a hundred times, half of them on each side of a rotation.
    async fn on_both_sides(&mut self, request: impl Fn() -> Request<Body>) -> Vec<Answer> {
        let requests = |number| (0..number).map(|_| request()).collect();
        let [proxy] = &mut self.proxies[..] else {
            return self.lanes.send(requests(PARALLEL)).await;
        };
        let mut answers = self.lanes.send(requests(PARALLEL / 2)).await;
        proxy.stop().await;
        let file = fs::read_to_string(proxy.data_dir().join("key")).unwrap();
        let first = if file.starts_with(OLD) { NEW } else { OLD };
        let second = if first == OLD { NEW } else { OLD };
        put_keys(proxy, &[first, second]);
        proxy.start().await;
        answers.extend(self.lanes.send(requests(PARALLEL / 2)).await);
        answers
    }
}

fn distinct(texts: impl Iterator<Item = String>) -> usize {
    texts.collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn what_may_happen_once_happens_once_across_a_rotation_of_keys() {
    let mut worlds = vec![World::on(None).await];
    if let Some(schema) = Schema::new("rotation").await {
        worlds.push(World::on(Some(schema)).await);
    }
    for mut world in worlds {
        let client = world.client.clone();
        let http = &client.http;

        let consent = client.opens_consent().await;
        let form = || consent.answer(http, PASSPHRASE, "approve");
        let approved = world.on_both_sides(form).await;
        let codes: Vec<String> = approved
            .into_iter()
            .map(|answer| Client::code(&answer.expect(303)))
            .collect();
        assert_eq!(distinct(codes.iter().cloned()), 1);

        let redemption = || http.form("/token", &client.redemption(&codes[0]));
        let answers = world.on_both_sides(redemption).await;
        let redeemed = answers.iter().filter(|answer| answer.status == 200);
        assert_eq!(redeemed.count(), 1);
        for answer in answers {
            if answer.status != 200 {
                assert_eq!(answer.expect(400).json()["error"], "invalid_grant");
            }
        }

        let first = client.sign_in().await;
        let refreshment = || http.form("/token", &client.refreshment(&first.refresh_token));
        let answers = world.on_both_sides(refreshment).await;
        let won: Vec<Tokens> = answers
            .into_iter()
            .map(|answer| Tokens::of(&answer.expect(200)))
            .collect();
        let successors = won.iter().map(|tokens| tokens.refresh_token.clone());
        assert_eq!(distinct(successors), 1);
        for tokens in [&first, &won[0], &won[PARALLEL - 1]] {
            let _ = client.call(tokens).await.expect(200);
        }
        let next = Tokens::of(&client.refresh(&won[0]).await.expect(200));
        assert_ne!(next.refresh_token, won[0].refresh_token);

        for proxy in &mut world.proxies {
            proxy.stop().await;
            assert!(!proxy.output().contains("panicked"), "{}", proxy.output());
        }
        if let Some(schema) = world.schema {
            schema.remove().await;
        }
    }
}
