//! What a token must be to open anything (JW).

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Method, Request, header};

use super::{
    case::{Case, Missing, case},
    refusal::Refusal::{Bare, OAuth},
    support::{
        UPSTREAM_KEY,
        client::{Client, Tokens},
        fake_time::FakeTime,
        upstream::{Upstream, usual},
        wire::Wire,
    },
    world::World,
};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "N-JW-06",
            "every single bit of a token turned over",
            every_bit,
        ),
        case(
            "N-JW-08",
            "a token for one MCP server at another",
            other_resource,
        ),
        case("N-JW-11", "a token that has expired", expired),
        case("N-JW-23", "a token of up to 1 MiB", enormous),
        case(
            "N-JW-24",
            "a token in 2, 3, 4 or 5 parts, as a JWT or JWE has them",
            in_parts,
        ),
        case(
            "N-JW-25",
            "a token with padding, blanks or other letters in its encoding",
            otherwise_encoded,
        ),
        case(
            "N-JW-26",
            "a token of another deployment or for another purpose",
            of_another_kind,
        ),
        case("N-JW-27", "a token that was revoked", revoked),
        case(
            "N-JW-28",
            "a token whose grant or client is gone",
            without_grant_or_client,
        ),
    ]
}

impl World {
    /// A client that has signed in and called, so that its next call changes no record.
    pub async fn connected(&self) -> (Client, Tokens) {
        let client = self.client().await;
        let tokens = self.lets_in(&client, &client.authorization()).await;
        (client, tokens)
    }

    /// A call that presents `token` is refused for it, and told where to get another.
    pub async fn turns_away(&self, token: &str) {
        let request = self.call_saying(&format!("Bearer {token}"));
        let answer = self.refusal_of(request, &OAuth(401, "invalid_token")).await;
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""));
        let metadata = format!("{}/.well-known/oauth-protected-resource/", self.issuer);
        assert!(challenge.contains(&metadata), "{challenge}");
    }

    /// A call with this `Authorization`.
    pub fn call_saying(&self, authorization: &str) -> Request<Body> {
        self.http
            .request(Method::POST, "/mcp")
            .header(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(authorization.as_bytes()).unwrap(),
            )
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from("{}"))
            .unwrap()
    }

    /// A world of the case's own whose clock the case sets; where there is such a clock.
    pub async fn with_a_clock(&self) -> Result<(Self, FakeTime), Missing> {
        let time = FakeTime::new().ok_or(Missing("there is no libfaketime"))?;
        let mut world = self.another("").await;
        world.proxy.stop().await;
        time.rules(&mut world.proxy);
        world.proxy.start().await;
        Ok((world, time))
    }

    /// A world of the case's own with a second upstream, `ones`, beside the first.
    pub async fn with_two_upstreams(&self) -> (Self, Upstream) {
        let second = Upstream::start().await;
        let lines = format!(
            "upstream.ones.url = \"http://{}/mcp\"\nupstream.ones.credential = \"none\"",
            second.address
        );
        (self.another(&lines).await, second)
    }

    /// A client that has signed in for the MCP server at `path`.
    pub async fn connected_at(&self, path: &str) -> (Client, Tokens) {
        let client = self.client().await;
        let resource = format!("{}{path}", self.issuer);
        let authorization = client.authorization().with("resource", &resource);
        let tokens = client.sign_in_with(&authorization).await;
        let _ = self
            .http
            .send(client.call_at(path, &tokens))
            .await
            .expect(200);
        (client, tokens)
    }
}

impl Client {
    /// A call to the MCP server at `path`.
    pub fn call_at(&self, path: &str, tokens: &Tokens) -> Request<Body> {
        let mut request = self.call_request(tokens);
        *request.uri_mut() = path.parse().unwrap();
        request
    }
}

async fn every_bit(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let host = world.proxy.address;
    let attempt = async {
        for bit in 0..tokens.access_token.len() * 8 {
            let mut token = tokens.access_token.clone().into_bytes();
            token[bit / 8] ^= 1 << (bit % 8);
            let head = format!("GET /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer ");
            let mut wire = Wire::open(&world.http).await;
            wire.send([head.as_bytes(), &token, b"\r\n\r\n"].concat())
                .await;
            let status = wire.answer().await.unwrap().status.as_u16();
            // 400: what came of it is not fit for a header.
            assert!(matches!(status, 400 | 401), "{status} for bit {bit}");
        }
    };
    world.unchanged(attempt).await;
    world.serves(&client, &tokens).await;
}

async fn other_resource(world: Arc<World>) {
    let (world, second) = world.with_two_upstreams().await;
    for (own, other) in [("/mcp/one", "/mcp/ones"), ("/mcp/ones", "/mcp/one")] {
        let (client, tokens) = world.connected_at(own).await;
        let (before, refusal) = (second.begun(), OAuth(401, "invalid_token"));
        for path in [other, &format!("{other}/"), &format!("{other}?x={own}")] {
            let request = client.call_at(path, &tokens);
            let answer = world.refusal_of(request, &refusal).await;
            let challenge = answer.header("www-authenticate");
            assert!(challenge.contains(&format!("oauth-protected-resource{other}")));
        }
        assert_eq!(second.begun(), before);
        let own = world.http.send(client.call_at(own, &tokens)).await;
        let _ = own.expect(200);
    }
}

async fn expired(world: Arc<World>) -> Result<(), Missing> {
    let (world, time) = world.with_a_clock().await?;
    let (client, tokens) = world.connected().await;
    time.is_off_by(3_590);
    world.serves(&client, &tokens).await;
    for seconds in [3_601, 86_400] {
        time.is_off_by(seconds);
        world.turns_away(&tokens.access_token).await;
    }
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    world.serves(&client, &tokens).await;
    Ok(())
}

async fn enormous(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    for length in [64, 1024, 8 * 1024] {
        let padding = "A".repeat(length);
        world
            .turns_away(&format!("{}{padding}", tokens.access_token))
            .await;
        world.turns_away(&padding).await;
    }
    let host = world.proxy.address;
    let padding = "A".repeat(1 << 20);
    let bytes =
        format!("POST /mcp HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {padding}\r\n\r\n");
    world.refused_bytes(bytes, &Bare(431)).await;
    world.serves(&client, &tokens).await;
}

async fn in_parts(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let token = &tokens.access_token;
    let none = "eyJhbGciOiJub25lIn0";
    for other in [
        format!("{token}."),
        format!(".{token}"),
        format!("{none}.{token}"),
        format!("{none}.{token}."),
        format!("{none}.e30.{token}"),
        format!("{none}.e30.x.{token}"),
        format!("{none}.e30.x.y.{token}"),
        format!("{token}.{token}"),
        format!("{none}.e30."),
        ".".to_owned(),
        "....".to_owned(),
    ] {
        world.turns_away(&other).await;
    }
    world.serves(&client, &tokens).await;
}

async fn otherwise_encoded(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let token = &tokens.access_token;
    let (half, rest) = token.split_at(token.len() / 2);
    let (prefix, content) = token.split_at("mopa_".len());
    for other in [
        format!("{token}="),
        format!("{token}=="),
        format!("{token}A"),
        format!("{token}AA"),
        format!("{token}AAAA"),
        format!("{half} {rest}"),
        format!("{half}\t{rest}"),
        format!("{half}%20{rest}"),
        format!("{half}+{rest}"),
        format!("{half}/{rest}"),
        format!("\"{token}\""),
        format!("{prefix} {content}"),
        format!("{prefix}{prefix}{content}"),
        format!("{}{content}", prefix.to_uppercase()),
        content.to_owned(),
        token.to_uppercase(),
        token.replacen('_', "%5F", 1),
        token[..token.len() - 1].to_owned(),
        half.to_owned(),
        prefix.to_owned(),
    ] {
        world.turns_away(&other).await;
    }
    world.serves(&client, &tokens).await;
}

async fn of_another_kind(world: Arc<World>) {
    let (client, tokens) = world.connected().await;
    let other = world.another("").await;
    let (_, foreign) = other.connected().await;
    let consent = client.opens_consent().await;
    let spare = world.client().await;
    let code = {
        let consent = spare.opens_consent().await;
        Client::code(&spare.approve(&consent, super::support::PASSPHRASE).await)
    };
    let mut started = usual();
    let id = HeaderValue::from_static("s-1");
    started.headers_mut().insert("mcp-session-id", id);
    world.upstream.answers(async { started });
    let session = client.call(&tokens).await.expect(200);
    let relabelled = tokens.refresh_token.replacen("mopr_", "mopa_", 1);
    for text in [
        &*foreign.access_token,
        &tokens.refresh_token,
        &relabelled,
        &code,
        &code.replacen("mopc_", "mopa_", 1),
        client.secret.as_ref().unwrap(),
        &client.id,
        &consent.transaction,
        session.header("mcp-session-id"),
        UPSTREAM_KEY,
    ] {
        world.turns_away(text).await;
    }
    world.serves(&client, &tokens).await;
    let _ = spare.redeem(&code).await.expect(200);
}

async fn revoked(world: Arc<World>) {
    let (witness, witnessed) = world.connected().await;
    for by_refresh_token in [false, true] {
        let (client, tokens) = world.connected().await;
        let token = if by_refresh_token {
            &tokens.refresh_token
        } else {
            &tokens.access_token
        };
        let _ = world.revoke(&client.revocation(token)).await.expect(200);
        world.turns_away(&tokens.access_token).await;
        world.turns_away(&tokens.refresh_token).await;
    }
    world.serves(&witness, &witnessed).await;
}

/// A token ends with its grant. That a client is gone ends no grant, but the client gets nothing
/// more: the next refresh is refused, and an access token lives for an hour.
async fn without_grant_or_client(world: Arc<World>) {
    let mut world = world.another("").await;
    let (client, tokens) = world.connected().await;
    let before = world.records().await;
    let (gone, gone_tokens) = world.connected().await;
    let mut grants = world.records().await.into_keys();
    let grant = grants.find(|key| key.starts_with("grant/") && !before.contains_key(key));
    world.proxy.stop().await;
    world.delete(&grant.unwrap()).await;
    world.proxy.start().await;
    world.turns_away(&gone_tokens.access_token).await;
    let refused = world.unchanged(gone.refresh(&gone_tokens)).await;
    OAuth(400, "invalid_grant").check(&refused, &world.issuer);

    let (clientless, its_tokens) = world.connected().await;
    world.delete(&format!("client/{}", clientless.id)).await;
    let refused = world.unchanged(clientless.refresh(&its_tokens)).await;
    OAuth(401, "invalid_client").check(&refused, &world.issuer);
    world.serves(&client, &tokens).await;
}
