//! An MCP client and the browser of the person in front of it.

use std::{collections::BTreeMap, sync::Arc};

use axum::body::Body;
use http::{Method, Request, header};
use protocol::oauth::client_assertion::JWT_BEARER;
use serde_json::{Value, json};

use super::{
    Answer, HOME, ISSUER, PASSPHRASE, TestServer, assertion::Signer, encoded, form, request,
};

pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
pub const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
pub const REDIRECT_URI: &str = "https://claude.ai/api/mcp/auth_callback";
pub const STATE: &str = "state +%&é";

/// A client that is known to the server.
#[derive(Clone)]
pub struct McpClient {
    pub server: TestServer,
    pub client_id: String,
    pub client_secret: Option<String>,
    /// For a client that signs its requests.
    pub signer: Option<Arc<Signer>>,
    /// The path of the upstream that it wants.
    pub path: String,
    /// Where it wants its codes.
    pub redirect_uri: String,
}

/// What a client holds after sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
}

impl McpClient {
    /// Registers with `metadata` beside a name and a redirect URI, for the first upstream that the
    /// metadata documents lead to.
    pub async fn register(server: &TestServer, metadata: &Value) -> Self {
        let mut body = json!({
            "client_name": "Claude",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        });
        body.as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        let registered = server
            .post_json("/register", &body)
            .await
            .expect(201)
            .json();
        let root = server.get("/.well-known/oauth-protected-resource").await;
        let path = if root.status == 200 { "/mcp" } else { "/mcp/a" };
        Self {
            server: server.clone(),
            client_id: registered["client_id"].as_str().unwrap().to_owned(),
            client_secret: registered["client_secret"].as_str().map(str::to_owned),
            signer: None,
            path: path.to_owned(),
            redirect_uri: REDIRECT_URI.to_owned(),
        }
    }

    /// A client that is known by the document at `client_id`.
    pub fn by_document(server: &TestServer, client_id: &str, redirect_uri: &str) -> Self {
        Self {
            server: server.clone(),
            client_id: client_id.to_owned(),
            client_secret: None,
            signer: None,
            path: "/mcp".to_owned(),
            redirect_uri: redirect_uri.to_owned(),
        }
    }

    /// The same client with a key.
    pub fn signing_with(&self, signer: Signer) -> Self {
        Self {
            signer: Some(Arc::new(signer)),
            ..self.clone()
        }
    }

    /// The same client wanting another upstream.
    pub fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            ..self.clone()
        }
    }

    /// The same client talking to another process.
    pub fn on(&self, server: &TestServer) -> Self {
        Self {
            server: server.clone(),
            ..self.clone()
        }
    }

    pub fn resource(&self) -> String {
        format!("{ISSUER}{}", self.path)
    }

    /// The parameters of a good authorization request.
    pub fn authorization(&self) -> Vec<(&'static str, String)> {
        vec![
            ("response_type", "code".into()),
            ("client_id", self.client_id.clone()),
            ("redirect_uri", self.redirect_uri.clone()),
            ("code_challenge", CHALLENGE.into()),
            ("code_challenge_method", "S256".into()),
            ("state", STATE.into()),
            ("scope", "mcp".into()),
            ("resource", self.resource()),
        ]
    }

    /// The same with some parameters replaced (`Some`) or left out (`None`).
    pub fn authorization_with(&self, changes: &[(&'static str, Option<&str>)]) -> String {
        let mut parameters = self.authorization();
        for (name, value) in changes {
            parameters.retain(|(key, _)| key != name);
            parameters.extend(value.map(|value| (*name, value.to_owned())));
        }
        query(&parameters)
    }

    /// A person's browser opens the authorization request.
    pub async fn opens(&self, query: &str) -> (Browser, Answer) {
        let mut browser = Browser::default();
        let answer = browser
            .get(&self.server, &format!("/authorize?{query}"))
            .await;
        (browser, answer)
    }

    /// The person approves; the client gets a code.
    pub async fn code(&self) -> String {
        self.code_for(&query(&self.authorization())).await
    }

    /// The same for an authorization request of its own.
    pub async fn code_for(&self, query: &str) -> String {
        let (mut browser, page) = self.opens(query).await;
        let page = page.expect(200);
        let answer = browser.approve(&self.server, &page, PASSPHRASE).await;
        answer.leads_back().parameter("code").to_owned()
    }

    /// A form with this client's authentication.
    async fn authenticated(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let signer = self.signer.as_ref();
        let assertion = signer.map(|signer| signer.assertion(&self.server, &self.client_id));
        let mut all = vec![("client_id", self.client_id.as_str())];
        if let Some(assertion) = &assertion {
            all.push(("client_assertion_type", JWT_BEARER));
            all.push(("client_assertion", assertion));
        }
        all.extend(
            self.client_secret
                .as_deref()
                .map(|secret| ("client_secret", secret)),
        );
        all.extend(fields);
        self.server.post_form(path, &all).await
    }

    /// A token request with this client's authentication.
    pub async fn token(&self, fields: &[(&str, &str)]) -> Answer {
        self.authenticated("/token", fields).await
    }

    pub async fn redeem(&self, code: &str) -> Answer {
        self.redeem_with(code, &[]).await
    }

    /// The same with some parameters replaced (`Some`) or left out (`None`).
    pub async fn redeem_with(&self, code: &str, changes: &[(&str, Option<&str>)]) -> Answer {
        let resource = self.resource();
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("redirect_uri", &self.redirect_uri),
            ("resource", &resource),
        ];
        for (name, value) in changes {
            fields.retain(|(key, _)| key != name);
            fields.extend(value.map(|value| (*name, value)));
        }
        self.token(&fields).await
    }

    /// Browser, consent, code, tokens.
    pub async fn sign_in(&self) -> Tokens {
        let code = self.code().await;
        Tokens::of(&self.redeem(&code).await.expect(200))
    }

    pub async fn refresh(&self, tokens: &Tokens) -> Answer {
        self.token(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.refresh_token),
        ])
        .await
    }

    pub async fn revoke(&self, token: &str) -> Answer {
        self.authenticated("/revoke", &[("token", token)]).await
    }

    /// A call with a token of its own.
    pub async fn call(&self, tokens: &Tokens) -> Answer {
        self.server.send(self.call_request(tokens)).await
    }

    /// Begins to talk to an upstream that keeps no sessions, so that none is looked for.
    pub async fn initializes(&self, tokens: &Tokens) {
        let mut request = self.call_request(tokens);
        *request.body_mut() = Body::from(r#"{"jsonrpc":"2.0","id":0,"method":"initialize"}"#);
        let _ = self.server.send(request).await.expect(200);
    }

    pub fn call_request(&self, tokens: &Tokens) -> Request<Body> {
        request(Method::POST, &self.path)
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", tokens.access_token),
            )
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

pub fn query(parameters: &[(&'static str, String)]) -> String {
    let pairs: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    encoded(&pairs)
}

/// A browser: it keeps cookies, and sends forms as pages hold them.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    pub cookies: BTreeMap<String, String>,
}

impl Browser {
    pub async fn get(&mut self, server: &TestServer, path: &str) -> Answer {
        let request = request(Method::GET, path)
            .header(header::COOKIE, self.cookie_header())
            .body(Body::empty())
            .unwrap();
        let answer = server.send(request).await;
        self.keep_cookies(&answer);
        answer
    }

    pub async fn approve(&mut self, server: &TestServer, page: &Answer, secret: &str) -> Answer {
        self.decide(server, page, &[("secret", secret), ("decision", "approve")])
            .await
    }

    pub async fn deny(&mut self, server: &TestServer, page: &Answer) -> Answer {
        self.decide(server, page, &[("decision", "deny")]).await
    }

    /// Sends the page's form with `fields` filled in.
    pub async fn decide(
        &mut self,
        server: &TestServer,
        page: &Answer,
        fields: &[(&str, &str)],
    ) -> Answer {
        let answer = server.send_from(HOME, self.form(page, fields)).await;
        self.keep_cookies(&answer);
        answer
    }

    pub fn form(&self, page: &Answer, fields: &[(&str, &str)]) -> Request<Body> {
        let transaction = transaction(page);
        let mut all = vec![("transaction", transaction.as_str())];
        all.extend(fields);
        let mut request = form("/consent", &all);
        request
            .headers_mut()
            .insert(header::COOKIE, self.cookie_header().parse().unwrap());
        request
    }

    fn cookie_header(&self) -> String {
        let pairs: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("; ")
    }

    fn keep_cookies(&mut self, answer: &Answer) {
        for value in answer.headers.get_all(header::SET_COOKIE) {
            let pair = value.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// The hidden field of a consent page.
#[track_caller]
pub fn transaction(page: &Answer) -> String {
    let text = page.text();
    let field = text
        .split("name=\"transaction\"")
        .nth(1)
        .unwrap_or_else(|| panic!("no form: {page:#?}"));
    let value = field.split("value=\"").nth(1).unwrap();
    value.split('"').next().unwrap().to_owned()
}
