//! Clients that sign for who they are (RFC 7523, `private_key_jwt`), and those who would be them
//! (TK).

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::header;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::{
    case::Missing,
    internet::{Does, good},
    refusal::Refusal::OAuth,
    signer::{Signer, encoded, now, unsigned, with_assertion},
    support::client::{Client, REDIRECT_URI, Tokens},
    world::World,
};

/// The client that the operator set up with a key.
const BATCH: &str = "batch";

impl World {
    /// A world of the case's own with a client that has a key, and one more of the same kind.
    async fn with_keyed_clients(&self, signer: &Signer) -> (Self, Client, Client) {
        let jwks = signer.jwks();
        let clients = [BATCH, "other"].map(|id| {
            format!(
                "client.{id}.redirect_uris = [\"{REDIRECT_URI}\"]\nclient.{id}.jwks = '{jwks}'\n"
            )
        });
        let world = self.another(&clients.concat()).await;
        let [client, other] = [BATCH, "other"].map(|id| Client {
            http: world.elsewhere(),
            id: id.to_owned(),
            secret: None,
            redirect_uri: REDIRECT_URI.to_owned(),
        });
        (world, client, other)
    }

    /// This assertion lets nobody redeem `code`, refresh or revoke.
    async fn refuses_assertion(&self, client: &Client, tokens: &Tokens, code: &str, bad: &str) {
        let refresh_token = &tokens.refresh_token;
        for (path, fields) in [
            ("/token", client.redemption(code)),
            ("/token", client.refreshment(refresh_token)),
            ("/revoke", client.revocation(refresh_token)),
        ] {
            for fields in [fields.clone(), fields.without("client_id")] {
                let request = self.http.form(path, &with_assertion(&fields, bad));
                self.refused(request, &OAuth(401, "invalid_client")).await;
            }
        }
    }
}

pub async fn are_refused(world: Arc<World>) -> Result<(), Missing> {
    let signer = Signer::new();
    let (world, client, other) = world.with_keyed_clients(&signer).await;
    let issuer = &world.issuer;
    let approve = async || client.approved(&client.authorization()).await;
    let redeem = async |code: &str, assertion: &str| {
        let fields = with_assertion(&client.redemption(code), assertion);
        let answer = client.http.send(client.http.form("/token", &fields)).await;
        let tokens = Tokens::of(&answer.expect(200));
        world.serves(&client, &tokens).await;
        tokens
    };

    // The twin: an assertion for each request.
    let tokens = redeem(&approve().await, &signer.assertion(&client, issuer)).await;
    let code = approve().await;
    for bad in wrong_claims(&signer, &client, &other, issuer)
        .into_iter()
        .chain(wrong_signatures(&signer, &client, issuer))
    {
        world.refuses_assertion(&client, &tokens, &code, &bad).await;
    }
    // One who has a key too, but not of this client.
    let theirs = signer.assertion(&other, issuer);
    let fields = with_assertion(&client.redemption(&code), &theirs);
    let request = client.http.form("/token", &fields);
    world.refused(request, &OAuth(401, "invalid_client")).await;

    // Once, whatever it was used for.
    let assertion = signer.assertion(&client, issuer);
    redeem(&code, &assertion).await;
    let code = approve().await;
    world
        .refuses_assertion(&client, &tokens, &code, &assertion)
        .await;
    let again = Signer::claims(&client, issuer);
    let renamed = |jti: &str, iat: i64| {
        let mut claims = again.clone();
        (claims["jti"], claims["iat"]) = (json!(jti), json!(iat));
        signer.sign(&Signer::header(), &claims)
    };
    redeem(&code, &renamed("same", now())).await;
    let code = approve().await;
    let same = renamed("same", now() - 1);
    world
        .refuses_assertion(&client, &tokens, &code, &same)
        .await;
    redeem(&code, &renamed("another", now() - 1)).await;
    let fields = client.refreshment(&tokens.refresh_token);
    let fields = signer.sign_for(&client, issuer, &fields);
    let answer = client.http.send(client.http.form("/token", &fields)).await;
    world
        .serves(&client, &Tokens::of(&answer.expect(200)))
        .await;

    keys_from_elsewhere(&world).await
}

/// Signed as it should be, but not what a client should say.
fn wrong_claims(signer: &Signer, client: &Client, other: &Client, issuer: &str) -> Vec<String> {
    let now = now();
    let saying = |(claim, value): (&str, Value)| {
        let mut claims = Signer::claims(client, issuer);
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(claim)),
            value => claims[claim] = value,
        }
        signer.sign(&Signer::header(), &claims)
    };
    let changes = [
        ("iss", Value::Null),
        ("iss", json!(other.id)),
        ("iss", json!([client.id])),
        ("sub", Value::Null),
        ("sub", json!("owner")),
        ("sub", json!("BATCH")),
        ("aud", Value::Null),
        ("aud", json!("https://other.example")),
        ("aud", json!(format!("{issuer}/"))),
        ("aud", json!(format!("{issuer}/mcp"))),
        ("aud", json!(issuer.to_uppercase())),
        ("aud", json!([issuer, "https://other.example"])),
        ("aud", json!([])),
        ("exp", Value::Null),
        ("exp", json!(now - 61)),
        ("exp", json!(now - 86_400)),
        ("exp", json!(now + 3_600)),
        ("exp", json!((now + 300).to_string())),
        ("exp", json!(u64::MAX)),
        ("iat", json!(now + 120)),
        ("nbf", json!(now + 120)),
        ("jti", Value::Null),
        ("jti", json!("")),
        ("jti", json!(4)),
        ("jti", json!("x".repeat(10_000))),
    ];
    changes.into_iter().map(saying).collect()
}

/// What a client should say, but not signed by it.
fn wrong_signatures(signer: &Signer, client: &Client, issuer: &str) -> Vec<String> {
    let claims = || Signer::claims(client, issuer);
    let header = |member: &str, value: Value| {
        let mut header = Signer::header();
        header[member] = value;
        header
    };
    let stranger = Signer::new();
    let good = signer.assertion(client, issuer);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let another = signer.assertion(client, issuer);
    let (_, of_another) = another.rsplit_once('.').unwrap();
    let changed = Signer::claims(client, issuer)
        .to_string()
        .replacen('{', r#"{"x":1,"#, 1);
    let mut bad = vec![
        stranger.assertion(client, issuer),
        // With a key that it brings, or tells where to find.
        stranger.sign(&header("jwk", stranger.jwk()), &claims()),
        stranger.sign(
            &header("jku", json!("https://evil.example/jwks.json")),
            &claims(),
        ),
        stranger.sign(&header("kid", json!("2")), &claims()),
        stranger.sign(&header("kid", json!("../../dev/null")), &claims()),
        signer.sign(&header("kid", json!("2")), &claims()),
        signer.sign(&header("typ", json!("at+jwt")), &claims()),
        signer.sign(&header("crit", json!(["exp"])), &claims()),
        format!("{message}.{of_another}"),
        format!("{message}."),
        message.to_owned(),
        format!(
            "{}.{}.{signature}",
            encoded(Signer::header().to_string()),
            encoded(changed)
        ),
        "x".to_owned(),
        "..".to_owned(),
    ];
    // The right signature under another name, and none under each.
    for alg in [
        "none", "None", "", "RS256", "PS256", "EdDSA", "HS256", "ES384", "es256",
    ] {
        let header = json!({ "alg": alg, "kid": "1" });
        bad.push(signer.sign(&header, &claims()));
        bad.push(format!("{}.", unsigned(&header, &claims())));
    }
    // The public key, which everybody knows, taken for a shared secret.
    let message = unsigned(&json!({ "alg": "HS256", "kid": "1" }), &claims());
    for public in [signer.jwk().to_string(), signer.jwks().to_string()] {
        let key = EncodingKey::from_secret(public.as_bytes());
        let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        bad.push(format!("{message}.{signature}"));
    }
    bad
}

/// Keys that a document says are in this network are not fetched, and nothing is used up; where
/// they are public, its client gets in.
async fn keys_from_elsewhere(world: &World) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let (site, keys) = (internet.site(), internet.site());
    let signer = Signer::new();
    let mut document = site.document();
    document["token_endpoint_auth_method"] = json!("private_key_jwt");
    document["jwks_uri"] = json!(keys.id());
    site.publishes(&document);
    keys.does(Does::Answers(good(&signer.jwks())));
    let client = Client {
        http: world.elsewhere(),
        id: site.id(),
        secret: None,
        redirect_uri: "https://client.example/cb".to_owned(),
    };
    let code = client.approved(&client.authorization()).await;
    let fields = signer.sign_for(&client, &world.issuer, &client.redemption(&code));
    for address in [
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::new(10, 0, 0, 1),
        Ipv4Addr::new(169, 254, 169, 254),
    ] {
        let address = IpAddr::from(address);
        keys.leads_to(vec![vec![address]]);
        let request = client.http.form("/token", &fields);
        let refusal = OAuth(503, "temporarily_unavailable");
        let answer = world.refusal_of(request, &refusal).await;
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        assert_eq!(internet.reached(address), 0, "{address}");
    }
    assert!(keys.connections().is_empty());
    keys.leads_to(vec![vec![keys.address]]);
    let answer = client.http.send(client.http.form("/token", &fields)).await;
    world
        .serves(&client, &Tokens::of(&answer.expect(200)))
        .await;
    assert_eq!(keys.connections(), [keys.address]);
    Ok(())
}
