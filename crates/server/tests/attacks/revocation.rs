//! Revocation and introspection (RV, IN).

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Method, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{
    case::{Case, case},
    refusal::Refusal::OAuth,
    support::client::{Answer, Client, Parameters, Tokens},
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case("N-RV-01", "another client's token", foreign_token),
        case("N-RV-02", "no client", no_client),
        case("N-RV-03", "a wrong client secret", wrong_secret),
        case("N-RV-04", "a token that is none", no_token),
        case("N-RV-05", "a token twice", twice),
        case(
            "N-RV-06",
            "a wrong or unknown `token_type_hint`",
            wrong_hint,
        ),
        case("N-RV-07", "a store that fails", store_fails),
        case("N-RV-08", "revocation with GET, or in the query", with_get),
        case("N-RV-09", "a token of 1 MiB", enormous),
        case(
            "N-RV-10",
            "a stream that goes on after revocation",
            open_stream,
        ),
        case(
            "N-IN-08",
            "introspection, which is not offered",
            introspection,
        ),
    ]
}

impl World {
    pub async fn revoke(&self, fields: &Parameters) -> Answer {
        self.http.send(self.http.form("/revoke", fields)).await
    }

    /// It says yes, and nothing happens.
    async fn ignores(&self, fields: &Parameters) {
        let answer = self.unchanged(self.revoke(fields)).await.expect(200);
        assert!(answer.body.is_empty());
    }

    async fn refuses_revocation(&self, fields: &Parameters, status: u16, error: &'static str) {
        let request = self.http.form("/revoke", fields);
        self.refused(request, &OAuth(status, error)).await;
    }

    /// The twin: revoked is revoked, and all else goes on.
    async fn revokes(&self, client: &Client, tokens: &Tokens, fields: &Parameters) {
        self.serves(client, tokens).await;
        let other = client.sign_in().await;
        let _ = self
            .changing(&["grant/"], self.revoke(fields))
            .await
            .expect(200);
        self.is_over(client, tokens).await;
        self.serves(client, &other).await;
        let _ = client.refresh(&other).await.expect(200);
    }

    async fn is_over(&self, client: &Client, tokens: &Tokens) {
        let call = client.call_request(tokens);
        self.refused(call, &OAuth(401, "invalid_token")).await;
        let refresh = client.refreshment(&tokens.refresh_token);
        let refresh = self.http.form("/token", &refresh);
        self.refused(refresh, &OAuth(400, "invalid_grant")).await;
    }
}

async fn foreign_token(world: Arc<World>) {
    let (client, other) = (world.client().await, world.client().await);
    let public = world.client_at(&[&client.redirect_uri]).await;
    let tokens = client.sign_in().await;
    for other in [&other, &public] {
        world
            .ignores(&other.revocation(&tokens.refresh_token))
            .await;
        world.ignores(&other.revocation(&tokens.access_token)).await;
    }
    let own = client.revocation(&tokens.refresh_token);
    world.revokes(&client, &tokens, &own).await;
}

async fn no_client(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let own = client.revocation(&tokens.access_token);
    let without = own.clone().without("client_id");
    for fields in [
        without.clone(),
        without.without("client_secret"),
        own.clone().with("client_id", "nobody"),
    ] {
        world
            .refuses_revocation(&fields, 401, "invalid_client")
            .await;
    }
    world.revokes(&client, &tokens, &own).await;
}

async fn wrong_secret(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let own = client.revocation(&tokens.refresh_token);
    for fields in [
        own.clone().with("client_secret", "mops_wrong"),
        own.clone().without("client_secret"),
    ] {
        world
            .refuses_revocation(&fields, 401, "invalid_client")
            .await;
    }
    let both = own.clone().and("client_secret", "mops_wrong");
    world
        .refuses_revocation(&both, 400, "invalid_request")
        .await;
    let public = world.client_at(&["https://client.example/cb"]).await;
    let of_public = public.sign_in().await;
    let guess = public
        .revocation(&of_public.access_token)
        .and("client_secret", "x");
    world
        .refuses_revocation(&guess, 401, "invalid_client")
        .await;
    world.serves(&public, &of_public).await;
    world.revokes(&client, &tokens, &own).await;
}

async fn no_token(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let code = client.approved(&client.authorization()).await;
    let mut forged = tokens.refresh_token.clone();
    forged.truncate(forged.len() - 2);
    forged.push_str("AA");
    for token in [
        "unknown",
        "mopr_",
        "mopa_x",
        &code,
        &forged,
        "*",
        "' OR 1=1 --",
        "grant/",
    ] {
        world.ignores(&client.revocation(token)).await;
    }
    let missing = client.revocation("x").without("token");
    world
        .refuses_revocation(&missing, 400, "invalid_request")
        .await;
    let two = client.revocation("x").and("token", &tokens.refresh_token);
    world.refuses_revocation(&two, 400, "invalid_request").await;
    let own = client.revocation(&tokens.access_token);
    world.revokes(&client, &tokens, &own).await;
}

async fn twice(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world
        .revokes(&client, &tokens, &client.revocation(&tokens.refresh_token))
        .await;
    world
        .ignores(&client.revocation(&tokens.refresh_token))
        .await;
    world
        .ignores(&client.revocation(&tokens.access_token))
        .await;
    world.is_over(&client, &tokens).await;
}

async fn wrong_hint(world: Arc<World>) {
    let client = world.client().await;
    for hint in ["access_token", "refresh_token", "id_token", "' OR 1=1 --"] {
        let tokens = client.sign_in().await;
        for token in [&tokens.refresh_token, &tokens.access_token] {
            let hinted = client.revocation(token).and("token_type_hint", hint);
            let _ = world
                .changing(&["grant/"], world.revoke(&hinted))
                .await
                .expect(200);
            world.is_over(&client, &tokens).await;
        }
    }
    let tokens = client.sign_in().await;
    let own = client.revocation(&tokens.access_token);
    world.revokes(&client, &tokens, &own).await;
}

async fn store_fails(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let own = client.revocation(&tokens.refresh_token);
    let attempt = Box::pin(world.without_store(world.revoke(&own)));
    let answer = world.unchanged(attempt).await;
    OAuth(503, "temporarily_unavailable").check(&answer, &world.issuer);
    assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
    world.revokes(&client, &tokens, &own).await;
}

async fn with_get(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let own = client.revocation(&tokens.refresh_token);
    let path = format!("/revoke?{}", own.encoded());
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::PUT] {
        let request = world
            .http
            .request(method, &path)
            .body(Body::empty())
            .unwrap();
        let answer = world.unchanged(world.http.send(request)).await;
        assert_eq!(answer.status, 405);
        assert_eq!(answer.header("allow"), "POST");
    }
    let empty = world.http.form(&path, &Parameters::default());
    let answer = world.unchanged(world.http.send(empty)).await;
    assert!(matches!(answer.status.as_u16(), 400 | 401), "{answer:#?}");
    world.revokes(&client, &tokens, &own).await;
}

async fn enormous(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let own = client.revocation(&tokens.refresh_token);
    let long = client.revocation(&"x".repeat(50_000));
    world.ignores(&long).await;
    let body = client.revocation(&"x".repeat(1024 * 1024)).encoded();
    let bytes = format!(
        "POST /revoke HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{body}",
        world.proxy.address,
        body.len()
    );
    world
        .refused_bytes(bytes, &OAuth(413, "invalid_request"))
        .await;
    world.revokes(&client, &tokens, &own).await;
}

async fn open_stream(world: Arc<World>) {
    const ENDS_WITHIN: Duration = Duration::from_secs(5);
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let events = world.upstream.streams();
    let mut call = client.call_request(&tokens);
    call.headers_mut()
        .insert(header::ACCEPT, "text/event-stream".parse().unwrap());
    let mut stream = client.http.open(call).await.unwrap().into_body();
    events.send("data: 1\n\n".into()).unwrap();
    assert!(stream.frame().await.unwrap().is_ok());

    let _ = world
        .revoke(&client.revocation(&tokens.refresh_token))
        .await
        .expect(200);
    let end = async {
        while let Some(Ok(frame)) = stream.frame().await {
            assert!(frame.is_trailers() || frame.data_ref().unwrap().is_empty());
        }
        events.closed().await;
    };
    timeout(ENDS_WITHIN, end).await.expect("the stream goes on");
    world.is_over(&client, &tokens).await;
    world.lets_in(&client, &client.authorization()).await;
}

async fn introspection(world: Arc<World>) {
    let client = world.client().await;
    let tokens = client.sign_in().await;
    let fields = client.revocation(&tokens.access_token);
    for path in [
        "/introspect",
        "/introspect/",
        "/introspection",
        "/token/introspect",
    ] {
        world
            .refused(world.http.form(path, &fields), &OAuth(404, "not_found"))
            .await;
    }
    let metadata = world
        .http
        .get("/.well-known/oauth-authorization-server")
        .await;
    let metadata = metadata.expect(200).json();
    let members: Vec<&String> = metadata.as_object().unwrap().keys().collect();
    assert!(
        !members.iter().any(|name| name.starts_with("introspection")),
        "{members:?}"
    );
    world.serves(&client, &tokens).await;
}
