//! An MCP client, and the browser of the person in front of it, over TCP.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::task::TaskTracker;
use url::{Url, form_urlencoded};

use super::PASSPHRASE;

pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub const REDIRECT_URI: &str = "https://claude.ai/api/mcp/auth_callback";

/// No answer, or not all of one.
pub type Failed = Box<dyn Error + Send + Sync>;

/// Talks to one address, with a connection for each request.
#[derive(Clone)]
pub struct Http {
    pub address: SocketAddr,
    from: IpAddr,
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
            from: Ipv4Addr::LOCALHOST.into(),
            tasks: TaskTracker::new(),
            seen: Arc::default(),
        }
    }

    /// Connects from this loopback address, for who is counted by address.
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = address;
        self
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

    /// A connection that nothing was sent on.
    pub async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Sends a request; returns as soon as the head of the answer is there. Dropping the answer
    /// closes the connection.
    pub async fn open(&self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let stream = self.connect().await?;
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

    pub fn form(&self, path: &str, fields: &Parameters) -> Request<Body> {
        self.request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(fields.encoded()))
            .unwrap()
    }
}

/// What a query or a form says, in order.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Self(owned.collect())
    }

    /// Adds one, whatever is there already.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    /// With this value in place of any other.
    pub fn with(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    pub fn encoded(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }
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
    /// None of a public client.
    pub secret: Option<String>,
    /// The one that it uses, of those that it registered.
    pub redirect_uri: String,
}

/// What a client holds after sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
}

/// A consent page, in one browser.
pub struct Consent {
    pub transaction: String,
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
        Self::register_as(http, &metadata).await
    }

    /// Registers with this metadata; the first of its redirect URIs is used.
    pub async fn register_as(http: &Http, metadata: &Value) -> Self {
        let request = http
            .request(Method::POST, "/register")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(metadata.to_string()))
            .unwrap();
        let registered = http.send(request).await.expect(201).json();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            http: http.clone(),
            id: text(&registered["client_id"]).unwrap(),
            secret: text(&registered["client_secret"]),
            redirect_uri: text(&registered["redirect_uris"][0]).unwrap(),
        }
    }

    /// What it asks for when a person is to approve it.
    pub fn authorization(&self) -> Parameters {
        Parameters::of(&[
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("state", "xyz"),
            ("resource", &format!("http://{}/mcp", self.http.address)),
        ])
    }

    /// A person's browser opens the authorization request.
    pub async fn opens_consent(&self) -> Consent {
        self.opens_consent_with(&self.authorization()).await
    }

    pub async fn opens_consent_with(&self, authorization: &Parameters) -> Consent {
        let path = format!("/authorize?{}", authorization.encoded());
        Consent::on(&self.http.get(&path).await.expect(200))
    }

    /// The person answers it with this passphrase.
    pub async fn approve(&self, consent: &Consent, passphrase: &str) -> Answer {
        let request = consent.answer(&self.http, passphrase, "approve");
        self.http.send(request).await
    }

    /// Where the answer of a person leads: a redirect, or to an app the page that opens it.
    #[track_caller]
    pub fn way_back(answer: &Answer) -> String {
        if answer.status == 303 {
            return answer.header("location").to_owned();
        }
        assert_eq!(answer.status, 200, "{answer:#?}");
        let page = answer.text();
        let opened = page.split("content=\"0; url=").nth(1);
        let opened = opened.and_then(|rest| rest.split('"').next());
        let opened = opened.unwrap_or_else(|| panic!("{answer:#?}"));
        let link = format!("href=\"{opened}\"");
        assert!(
            page.contains(&link) && !opened.starts_with("http"),
            "{page}"
        );
        opened.replace("&#38;", "&")
    }

    /// The code in what follows an approval.
    #[track_caller]
    pub fn code(answer: &Answer) -> String {
        let location = Url::parse(&Self::way_back(answer)).unwrap();
        let code = location.query_pairs().find(|(name, _)| name == "code");
        code.unwrap().1.into_owned()
    }

    /// What it sends to have a code redeemed.
    pub fn redemption(&self, code: &str) -> Parameters {
        self.authenticated(Parameters::of(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", &self.redirect_uri),
        ]))
    }

    pub async fn redeem(&self, code: &str) -> Answer {
        let request = self.http.form("/token", &self.redemption(code));
        self.http.send(request).await
    }

    /// Browser, consent, code, tokens.
    pub async fn sign_in(&self) -> Tokens {
        self.sign_in_with(&self.authorization()).await
    }

    pub async fn sign_in_with(&self, authorization: &Parameters) -> Tokens {
        let code = self.approved(authorization).await;
        Tokens::of(&self.redeem(&code).await.expect(200))
    }

    /// Browser, consent, and the code that comes of it.
    pub async fn approved(&self, authorization: &Parameters) -> String {
        let consent = self.opens_consent_with(authorization).await;
        Self::code(&self.approve(&consent, PASSPHRASE).await)
    }

    pub async fn refresh(&self, tokens: &Tokens) -> Answer {
        self.try_refresh(&tokens.refresh_token).await.unwrap()
    }

    pub async fn try_refresh(&self, refresh_token: &str) -> Result<Answer, Failed> {
        let fields = self.refreshment(refresh_token);
        self.http.try_send(self.http.form("/token", &fields)).await
    }

    /// What it sends to have its tokens refreshed.
    pub fn refreshment(&self, refresh_token: &str) -> Parameters {
        self.authenticated(Parameters::of(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ]))
    }

    /// With what proves who sends it.
    fn authenticated(&self, fields: Parameters) -> Parameters {
        let fields = fields.and("client_id", &self.id);
        match &self.secret {
            Some(secret) => fields.and("client_secret", secret),
            None => fields,
        }
    }

    /// What it sends to have a token, and with it the grant, revoked.
    pub fn revocation(&self, token: &str) -> Parameters {
        self.authenticated(Parameters::of(&[("token", token)]))
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

impl Consent {
    /// Reads the page in `answer`.
    #[track_caller]
    pub fn on(answer: &Answer) -> Self {
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        let text = answer.text();
        let field = text.split("name=\"transaction\"").nth(1).unwrap();
        Self {
            transaction: field.split('"').nth(1).unwrap().to_owned(),
            cookie: cookie.to_owned(),
        }
    }

    /// What the page's form says.
    pub fn fields(&self, passphrase: &str, decision: &str) -> Parameters {
        Parameters::of(&[
            ("transaction", &self.transaction),
            ("secret", passphrase),
            ("decision", decision),
        ])
    }

    /// The form, as the browser with the cookie sends it.
    pub fn answer(&self, http: &Http, passphrase: &str, decision: &str) -> Request<Body> {
        let mut request = http.form("/consent", &self.fields(passphrase, decision));
        let cookie = self.cookie.parse().unwrap();
        request.headers_mut().insert(header::COOKIE, cookie);
        request
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
