//! The MCP endpoint (RS).

mod headers;
mod origins;
mod requests;
mod sessions;
mod tokens;

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};

use super::{
    case::{Case, case},
    refusal::Refusal::OAuth,
    support::{
        client::{Client, Tokens},
        upstream::usual,
        wire::Wire,
    },
    world::World,
};

/// How soon what happens elsewhere must be noticed here.
const SOON: Duration = Duration::from_secs(5);

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("N-RS-04", "the scheme in another case, which is allowed", tokens::any_case),
        case("N-RS-05", "two `Authorization` headers", tokens::two_headers),
        case("N-RS-09", "every spelling of a guarded path, without a token", tokens::spellings),
        case("N-RS-10", "the token in the query, the body or a cookie", tokens::elsewhere),
        case("N-RS-11", "a token for one MCP server at another", tokens::other_route),
        case("N-RS-12", "MCP servers whose paths begin alike", tokens::alike_paths),
        case("N-RS-13", "a token that expires while the body is on its way", tokens::expires_on_the_way),
        case("N-RS-14", "a token that is revoked while its stream is open", tokens::revoked_on_the_way),
        case("N-RS-15", "pages of other origins", origins::foreign_origins),
        case("N-RS-16", "another `Host`, none, and two", origins::foreign_hosts),
        case("N-RS-17", "another host in the request line", origins::foreign_authority),
        case("N-RS-18", "DNS rebinding: a page whose name leads here", origins::rebinding),
        case("N-RS-19", "methods that no MCP server has", requests::odd_methods),
        case("N-RS-20", "GET where the upstream has no streams", requests::no_streams),
        case("N-RS-22", "a body beyond the limit, declared and not", requests::too_large),
        case("N-RS-24", "bodies that are no JSON, nest 10,000 deep or have a million keys", requests::passes_unparsed),
        case("N-RS-25", "`Mcp-Method` and `Mcp-Name` that say something else than the body", requests::contradictions),
        case("N-RS-30", "JSON with a key twice that decides something", requests::members_twice),
        case("N-RS-36", "a session that is foreign, guessed, enormous or broken", sessions::foreign_sessions),
        case("N-RS-37", "ending a session of somebody else", sessions::ends_foreign_session),
        case("N-RS-38", "going on with somebody else's stream", sessions::foreign_events),
        case("N-RS-39", "a thousand calls with the same JSON-RPC id at once", sessions::same_id),
        case("N-RS-40", "a reader that takes nothing of its stream", sessions::slow_reader),
        case("N-RS-41", "credentials of the client, to see them reach the upstream", headers::credentials),
        case("N-RS-42", "cookies, keys and addresses that a client claims", headers::claims),
    ];
    cases.extend(
        tokens::AUTHORIZATIONS
            .iter()
            .map(|(id, tried, wrong)| case(id, tried, |world| tokens::wrong_authorization(world, wrong))),
    );
    cases.extend(
        requests::BODIES
            .iter()
            .map(|(id, tried, bodies)| case(id, tried, |world| requests::passes_as_it_is(world, bodies))),
    );
    cases.extend(
        requests::HEADERS
            .iter()
            .map(|(id, tried, headers)| case(id, tried, |world| requests::headers_pass(world, headers))),
    );
    cases
}

impl World {
    /// The request is refused for want of a good token, with a challenge that says so.
    async fn challenges(&self, request: Request<Body>, status: u16, error: &'static str) {
        let answer = self.refusal_of(request, &OAuth(status, error)).await;
        let challenge = answer.header("www-authenticate");
        let metadata = format!("resource_metadata=\"{}/.well-known/", self.issuer);
        assert!(challenge.starts_with("Bearer "), "{challenge}");
        assert!(challenge.contains(&metadata), "{challenge}");
        let says = challenge.contains("error=");
        assert_eq!(says, error != "unauthorized", "{challenge}");
    }

    /// The request arrives at the upstream; this is what arrived.
    async fn passes(&self, request: Request<Body>) -> Request<Bytes> {
        let before = self.upstream.begun();
        let _ = self.http.send(request).await.expect(200);
        assert_eq!(self.upstream.begun(), before + 1);
        self.upstream.last()
    }

    /// The session that this client is given when the upstream starts one called `id`.
    async fn starts_session(
        &self,
        client: &Client,
        tokens: &Tokens,
        id: &'static str,
    ) -> HeaderValue {
        let mut started = usual();
        let value = HeaderValue::from_static(id);
        started.headers_mut().insert("mcp-session-id", value);
        self.upstream.answers(async { started });
        let answer = client.call(tokens).await.expect(200);
        answer.headers["mcp-session-id"].clone()
    }

    /// Status of what these bytes are answered with; nothing comes of them.
    pub async fn status_of(&self, bytes: impl AsRef<[u8]>) -> u16 {
        let attempt = async {
            let mut wire = Wire::open(&self.http).await;
            wire.send(bytes).await;
            wire.answer().await.unwrap().status.as_u16()
        };
        self.unchanged(attempt).await
    }
}

/// The request with this header on top.
fn with(mut request: Request<Body>, name: &str, value: &str) -> Request<Body> {
    let name: HeaderName = name.parse().unwrap();
    let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
    request.headers_mut().append(name, value);
    request
}

/// The request as one of this method.
fn by(method: Method, mut request: Request<Body>) -> Request<Body> {
    *request.method_mut() = method;
    request
}

/// The request without its token.
fn without_token(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().remove(header::AUTHORIZATION);
    request
}

/// The head of a call with a good token, whose `Host` lines are `hosts`.
fn head(hosts: &str, tokens: &Tokens) -> String {
    let token = &tokens.access_token;
    format!("GET /mcp HTTP/1.1\r\n{hosts}authorization: Bearer {token}\r\n\r\n")
}
