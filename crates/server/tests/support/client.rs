//! An MCP client, and the browser of the person in front of it, over TCP.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;
use url::{Url, form_urlencoded};

use super::PASSPHRASE;

pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT_URI: &str = "https://claude.ai/api/mcp/auth_callback";

/// No answer, or not all of one.
pub type Failed = Box<dyn Error + Send + Sync>;

/// Talks to one address, with a connection for each request.
#[derive(Clone)]
pub struct Http {
    address: SocketAddr,
    tasks: TaskTracker,
    seen: Arc<Mutex<Vec<Answer>>>,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
#[must_use = "an answer that nobody looks at tests nothing"]
pub struct Answer {
    /// The request's method and path.
    pub to: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    pub fn to(address: SocketAddr) -> Self {
        Self {
            address,
            tasks: TaskTracker::new(),
            seen: Arc::default(),
        }
    }

    /// Every answer so far.
    pub fn seen(&self) -> Vec<Answer> {
        self.seen.lock().unwrap().clone()
    }

    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
    }

    /// Sends a request; returns as soon as the head of the answer is there. Dropping the answer
    /// closes the connection.
    pub async fn open(&self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn(connection);
        Ok(sender.send_request(request).await?)
    }

    /// Sends a request and reads the answer to its end.
    pub async fn try_send(&self, request: Request<Body>) -> Result<Answer, Failed> {
        let to = format!("{} {}", request.method(), request.uri().path());
        let (parts, body) = self.open(request).await?.into_parts();
        let answer = Answer {
            to,
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        };
        self.seen.lock().unwrap().push(answer.clone());
        Ok(answer)
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        self.try_send(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        let request = self.request(Method::GET, path);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    fn form(&self, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
        self.request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(encoded(fields)))
            .unwrap()
    }
}

fn encoded(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

impl Answer {
    /// Insists on a status; shows the whole answer otherwise.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:#?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        let value = value.unwrap_or_else(|| panic!("no {name}: {self:#?}"));
        value.to_str().unwrap()
    }
}

/// A registered client.
#[derive(Clone)]
pub struct Client {
    pub http: Http,
    pub id: String,
    pub secret: String,
}

/// What a client holds after sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
}

/// A consent page, in one browser.
pub struct Consent {
    transaction: String,
    pub cookie: String,
}

impl Client {
    /// Registers as a client with a secret.
    pub async fn register(http: &Http) -> Self {
        let metadata = json!({
            "client_name": "Claude",
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "client_secret_post",
        });
        let request = http
            .request(Method::POST, "/register")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(metadata.to_string()))
            .unwrap();
        let registered = http.send(request).await.expect(201).json();
        let text = |name: &str| registered[name].as_str().unwrap().to_owned();
        Self {
            http: http.clone(),
            id: text("client_id"),
            secret: text("client_secret"),
        }
    }

    /// A person's browser opens the authorization request.
    pub async fn opens_consent(&self) -> Consent {
        let resource = format!("http://{}/mcp", self.http.address);
        let query = encoded(&[
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", REDIRECT_URI),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("state", "xyz"),
            ("resource", &resource),
        ]);
        let page = self.http.get(&format!("/authorize?{query}")).await;
        let page = page.expect(200);
        let cookie = page.header("set-cookie").split(';').next().unwrap();
        let text = page.text();
        let field = text.split("name=\"transaction\"").nth(1).unwrap();
        let value = field.split('"').nth(1).unwrap();
        Consent {
            transaction: value.to_owned(),
            cookie: cookie.to_owned(),
        }
    }

    /// The person answers it with this passphrase.
    pub async fn approve(&self, consent: &Consent, passphrase: &str) -> Answer {
        let mut request = self.http.form(
            "/consent",
            &[
                ("transaction", &consent.transaction),
                ("secret", passphrase),
                ("decision", "approve"),
            ],
        );
        let cookie = consent.cookie.parse().unwrap();
        request.headers_mut().insert(header::COOKIE, cookie);
        self.http.send(request).await
    }

    /// The code in the redirect that follows an approval.
    #[track_caller]
    pub fn code(redirect: &Answer) -> String {
        let location = Url::parse(redirect.header("location")).unwrap();
        let code = location.query_pairs().find(|(name, _)| name == "code");
        code.unwrap().1.into_owned()
    }

    pub async fn redeem(&self, code: &str) -> Answer {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", REDIRECT_URI),
        ];
        self.http.send(self.token_request(&fields)).await
    }

    /// Browser, consent, code, tokens.
    pub async fn sign_in(&self) -> Tokens {
        let consent = self.opens_consent().await;
        let redirect = self.approve(&consent, PASSPHRASE).await.expect(303);
        let code = Self::code(&redirect);
        Tokens::of(&self.redeem(&code).await.expect(200))
    }

    pub async fn refresh(&self, tokens: &Tokens) -> Answer {
        self.try_refresh(&tokens.refresh_token).await.unwrap()
    }

    pub async fn try_refresh(&self, refresh_token: &str) -> Result<Answer, Failed> {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ];
        self.http.try_send(self.token_request(&fields)).await
    }

    fn token_request(&self, fields: &[(&str, &str)]) -> Request<Body> {
        let mut all = vec![
            ("client_id", self.id.as_str()),
            ("client_secret", self.secret.as_str()),
        ];
        all.extend(fields);
        self.http.form("/token", &all)
    }

    pub async fn call(&self, tokens: &Tokens) -> Answer {
        self.http.send(self.call_request(tokens)).await
    }

    pub fn call_request(&self, tokens: &Tokens) -> Request<Body> {
        let authorization = format!("Bearer {}", tokens.access_token);
        self.http
            .request(Method::POST, "/mcp")
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .body(Body::from(
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#,
            ))
            .unwrap()
    }
}

impl Tokens {
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        let json = answer.json();
        let text = |name: &str| json[name].as_str().expect(name).to_owned();
        Self {
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
        }
    }
}
