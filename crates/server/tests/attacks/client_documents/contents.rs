//! What documents say.

use std::sync::Arc;

use serde_json::{Value, json};

use super::TRIED;
use crate::{
    case::Missing,
    internet::{Does, Site, with_head},
    refusal::Refusal::{OAuth, Page},
    signer::Signer,
    support::{
        PASSPHRASE,
        client::{Client, Tokens},
    },
    world::World,
};

impl World {
    /// Each document is refused for what it says, and not kept; the good one gets in after it.
    async fn refuses_documents(&self, site: &Site, documents: &[Value]) {
        let client = self.client_of(site);
        for document in documents {
            site.publishes(document);
            let page = self.refuses_client(&client).await;
            assert!(!page.contains(TRIED), "{document}: {page}");
        }
        assert_eq!(site.requests().len(), documents.len());
        site.publishes(&site.document());
        self.lets_in(&client, &client.authorization()).await;
    }

    /// Starts the program anew, which then remembers no document.
    async fn forgets_documents(&mut self) {
        self.proxy.stop().await;
        self.proxy.start().await;
    }
}

fn with(mut document: Value, member: &str, value: Value) -> Value {
    document[member] = value;
    document
}

pub async fn almost_itself(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let site = internet.site();
    let (id, name) = (site.id(), &site.name);
    let ids = [
        id.to_uppercase(),
        id.replace("https", "HTTPS"),
        id.replace("client", "Client"),
        format!("https://{name}/Client"),
        format!("{id}/"),
        format!("https://{name}//client"),
        format!("https://{name}/./client"),
        format!("https://{name}/x/../client"),
        format!("https://{name}"),
        format!("https://{name}:443/client"),
        format!("https://{name}./client"),
        format!("https://{name}/%63lient"),
        format!("https://{name}/client%20"),
        format!("{id} "),
        format!(" {id}"),
        format!("{id}\n"),
        format!("{id}\0"),
        format!("{id}?"),
        format!("{id}#"),
        format!("https://@{name}/client"),
        id.replace("https", "http"),
        internet.site().id(),
        String::new(),
    ];
    let documents = ids.map(|id| with(site.document(), "client_id", id.into()));
    world.refuses_documents(&site, &documents).await;
    Ok(())
}

pub async fn nameless(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let site = internet.site();
    let mut without = site.document();
    without.as_object_mut().unwrap().remove("client_id");
    let documents = [
        with(without.clone(), "Client_Id", site.id().into()),
        with(without.clone(), "client", site.document()),
        with(without.clone(), "clientId", site.id().into()),
        without,
        json!({}),
    ];
    world.refuses_documents(&site, &documents).await;
    Ok(())
}

pub async fn no_text(world: Arc<World>) -> Result<(), Missing> {
    let (world, internet) = world.with_documents().await?;
    let site = internet.site();
    let good = site.document();
    let values = [
        json!([site.id()]),
        json!([site.id(), site.id()]),
        json!({ "0": site.id() }),
        json!(null),
        json!(true),
        json!(0),
    ];
    let ids = values.map(|value| with(good.clone(), "client_id", value));
    let documents = [json!([good]), json!(site.id()), json!(null)];
    let documents: Vec<Value> = ids.into_iter().chain(documents).collect();
    world.refuses_documents(&site, &documents).await;

    // Texts that are no document at all, or two.
    let site = internet.site();
    let (good, client) = (site.document(), world.client_of(&site));
    let twice = good.to_string().replacen('{', r#"{"client_id":"x","#, 1);
    let and_again = good.to_string().replacen('}', r#","client_id":"x"}"#, 1);
    for text in [
        &*twice,
        &and_again,
        &format!("{good}{good}"),
        &format!("\u{feff}{good}"),
        "",
        "x",
    ] {
        let head = "200 OK\r\ncontent-type: application/json";
        site.does(Does::Answers(with_head(head, &text)));
        let page = world.refuses_client(&client).await;
        assert!(!page.contains(TRIED), "{text}: {page}");
    }
    site.publishes(&good);
    world.lets_in(&client, &client.authorization()).await;
    Ok(())
}

pub async fn authentication(world: Arc<World>) -> Result<(), Missing> {
    const ONE: &str = "token_endpoint_auth_method";
    const LIST: &str = "token_endpoint_auth_methods_supported";
    let (world, internet) = world.with_documents().await?;
    let site = internet.site();
    let good = site.document();
    let signer = Signer::new();
    let public = with(good.clone(), "jwks", signer.jwks());
    let documents = [
        with(good.clone(), "client_secret", json!("x")),
        with(good.clone(), "client_secret", Value::Null),
        with(good.clone(), "client_secret_expires_at", json!(0)),
        with(good.clone(), ONE, json!("client_secret_basic")),
        with(good.clone(), ONE, json!("client_secret_post")),
        with(good.clone(), ONE, json!("client_secret_jwt")),
        with(good.clone(), ONE, json!("tls_client_auth")),
        with(good.clone(), ONE, json!(["none"])),
        with(good.clone(), LIST, json!(["none", "client_secret_post"])),
        with(
            public.clone(),
            LIST,
            json!(["private_key_jwt", "client_secret_basic"]),
        ),
        with(
            with(good.clone(), ONE, Value::Null),
            LIST,
            json!(["tls_client_auth"]),
        ),
        with(good.clone(), LIST, json!("none")),
        with(good.clone(), LIST, json!([1])),
        // A key that is nowhere, in two places, or everybody's.
        with(good.clone(), ONE, json!("private_key_jwt")),
        with(
            with(public.clone(), ONE, json!("private_key_jwt")),
            "jwks_uri",
            json!(site.id_at("/keys")),
        ),
        with(
            with(good.clone(), ONE, json!("private_key_jwt")),
            "jwks",
            json!({ "keys": [{ "kty": "oct", "k": "AAAA" }] }),
        ),
    ];
    world.refuses_documents(&site, &documents).await;

    // As ChatGPT has it: it may do either.
    let site = internet.site();
    let chatgpt = with(site.document(), ONE, json!("private_key_jwt"));
    let chatgpt = with(chatgpt, LIST, json!(["none", "private_key_jwt"]));
    site.publishes(&with(chatgpt, "jwks", signer.jwks()));
    let client = world.client_of(&site);
    world.lets_in(&client, &client.authorization()).await;
    let code = client.approved(&client.authorization()).await;
    let fields = signer.sign_for(&client, &world.issuer, &client.redemption(&code));
    let tokens = Tokens::of(
        &client
            .http
            .send(client.http.form("/token", &fields))
            .await
            .expect(200),
    );
    world.serves(&client, &tokens).await;

    // One that names nothing but its key is held to that.
    for document in [
        with(site.document(), ONE, json!("private_key_jwt")),
        with(
            with(site.document(), ONE, Value::Null),
            LIST,
            json!(["private_key_jwt"]),
        ),
    ] {
        let site = internet.site();
        let document = with(document, "client_id", site.id().into());
        site.publishes(&with(document, "jwks", signer.jwks()));
        world.wants_key(&world.client_of(&site), &signer).await;
    }
    Ok(())
}

impl World {
    /// The client gets no tokens but with an assertion of `signer`.
    async fn wants_key(&self, client: &Client, signer: &Signer) {
        let code = client.approved(&client.authorization()).await;
        let without = client.redemption(&code);
        for fields in [without.clone(), without.clone().and("client_secret", "x")] {
            let request = client.http.form("/token", &fields);
            self.refused(request, &OAuth(401, "invalid_client")).await;
        }
        let fields = signer.sign_for(client, &self.issuer, &without);
        let answer = client.http.send(client.http.form("/token", &fields)).await;
        self.serves(client, &Tokens::of(&answer.expect(200))).await;
    }
}

pub async fn changed(world: Arc<World>) -> Result<(), Missing> {
    let (mut world, internet) = world.with_documents().await?;
    let site = internet.site();
    let client = world.client_of(&site);
    let at = |redirect_uri: &str| Client {
        redirect_uri: redirect_uri.to_owned(),
        ..client.clone()
    };
    for redirect_uri in [
        "https://evil.example/cb",
        "https://client.example/cb/",
        "https://client.example/cb?x",
        "https://client.example:443/cb",
        "https://client.example/CB",
        "https://client.example.evil.example/cb",
        "http://client.example/cb",
        "http://127.0.0.1/cb",
    ] {
        let page = world.refuses_client(&at(redirect_uri)).await;
        assert!(!page.contains(TRIED), "{redirect_uri}: {page}");
    }
    let tokens = world.lets_in(&client, &client.authorization()).await;

    // It moves: between the page and the approval, between the code and the tokens.
    let new = at("https://client.example/new");
    let moved = with(site.document(), "redirect_uris", json!([new.redirect_uri]));
    let page = client.opens_consent().await;
    let code = client.approved(&client.authorization()).await;
    // What was fetched just now is believed, so the new one is not known yet.
    site.publishes(&moved);
    world.refuses_client(&new).await;
    world.forgets_documents().await;
    let approval = page.answer(&client.http, PASSPHRASE, "approve");
    world.refused(approval, &Page(400)).await;
    world.refuses_client(&client).await;
    world.lets_in(&new, &new.authorization()).await;
    // What a person approved before holds: it was them, and not the document, who let it in.
    let late = Tokens::of(&client.redeem(&code).await.expect(200));
    world.serves(&client, &late).await;

    // It is gone.
    site.does(Does::Answers(with_head("410 Gone", &"")));
    world.forgets_documents().await;
    for client in [&client, &new] {
        let page = world.refuses_client(client).await;
        assert!(page.contains(TRIED), "{page}");
    }
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    world.serves(&client, &tokens).await;

    // It is there again, and demands a key from now on.
    let signer = Signer::new();
    let method = "token_endpoint_auth_method";
    let keyed = with(site.document(), method, json!("private_key_jwt"));
    site.publishes(&with(keyed, "jwks", signer.jwks()));
    world.wants_key(&client, &signer).await;
    Ok(())
}
