//! The part of an MCP client and of its user's browser: from registration to tokens, and refresh.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use crate::load::{Answer, Connection, Worker};

/// Where an approved client would be sent; nobody listens there, the code is in the address.
const REDIRECT_URI: &str = "http://127.0.0.1:9/callback";
/// The pair of RFC 7636, appendix B.
const CODE_VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CODE_CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const STATE: &str = "bench-state";

/// The proxy as its clients and its user know it.
pub(crate) struct Site {
    address: SocketAddr,
    origin: String,
    resource: String,
    passphrase: String,
}

/// One approved client with its tokens.
#[derive(Clone)]
pub(crate) struct Session {
    client_id: String,
    pub(crate) access_token: String,
    refresh_token: String,
}

impl Site {
    pub(crate) fn new(address: SocketAddr, passphrase: &str) -> Self {
        let origin = format!("http://{address}");
        Self {
            address,
            resource: format!("{origin}/mcp"),
            origin,
            passphrase: passphrase.to_owned(),
        }
    }

    /// The four requests that make a session: registration, consent page, approval, tokens.
    async fn sign_in(&self, connection: &mut Connection) -> anyhow::Result<Session> {
        let client_id = self.register(connection).await?;
        let (transaction, cookie) = self.open_consent_page(connection, &client_id).await?;
        let code = self.approve(connection, &transaction, &cookie).await?;
        let request = self.form(
            "/token",
            "",
            &[
                ("grant_type", "authorization_code"),
                ("code", &code),
                ("redirect_uri", REDIRECT_URI),
                ("client_id", &client_id),
                ("code_verifier", CODE_VERIFIER),
                ("resource", &self.resource),
            ],
        );
        let tokens = json_answer(connection, &request, 200)
            .await
            .context("POST /token with a code")?;
        Ok(Session {
            access_token: text(&tokens, "access_token")?,
            refresh_token: text(&tokens, "refresh_token")?,
            client_id,
        })
    }

    async fn register(&self, connection: &mut Connection) -> anyhow::Result<String> {
        let metadata = json!({
            "client_name": "bench",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        });
        let request = self.post("/register", "application/json", "", &metadata.to_string());
        let client = json_answer(connection, &request, 201)
            .await
            .context("POST /register")?;
        text(&client, "client_id")
    }

    /// The consent page's transaction and the cookie that binds it to this browser.
    async fn open_consent_page(
        &self,
        connection: &mut Connection,
        client_id: &str,
    ) -> anyhow::Result<(String, String)> {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", REDIRECT_URI)
            .append_pair("code_challenge", CODE_CHALLENGE)
            .append_pair("code_challenge_method", "S256")
            .append_pair("state", STATE)
            .append_pair("resource", &self.resource)
            .finish();
        let request = format!(
            "GET /authorize?{query} HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\n\r\n",
            self.address
        );
        let answer = checked(connection, request.as_bytes(), 200)
            .await
            .context("GET /authorize")?;
        let cookie = connection
            .header(answer, "set-cookie")
            .and_then(|cookie| cookie.split(';').next())
            .context("the consent page sets no cookie")?
            .to_owned();
        let page = str::from_utf8(connection.body(answer))?;
        let transaction =
            hidden_field(page, "transaction").context("the consent page has no transaction")?;
        Ok((transaction.to_owned(), cookie))
    }

    /// Types the passphrase, approves, and takes the code from where the browser is sent.
    async fn approve(
        &self,
        connection: &mut Connection,
        transaction: &str,
        cookie: &str,
    ) -> anyhow::Result<String> {
        let headers = format!(
            "Cookie: {cookie}\r\nOrigin: {}\r\nSec-Fetch-Site: same-origin\r\n",
            self.origin
        );
        let request = self.form(
            "/consent",
            &headers,
            &[
                ("transaction", transaction),
                ("secret", &self.passphrase),
                ("decision", "approve"),
            ],
        );
        let answer = checked(connection, &request, 303)
            .await
            .context("POST /consent")?;
        let location = connection
            .header(answer, "location")
            .context("the approval leads nowhere")?;
        let location = Url::parse(location)?;
        let parameter = |name: &str| {
            location
                .query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        ensure!(
            parameter("state").as_deref() == Some(STATE),
            "the approval does not return the state"
        );
        parameter("code").context("the approval carries no code")
    }

    async fn refresh(
        &self,
        connection: &mut Connection,
        session: &mut Session,
    ) -> anyhow::Result<()> {
        let request = self.form(
            "/token",
            "",
            &[
                ("grant_type", "refresh_token"),
                ("refresh_token", &session.refresh_token),
                ("client_id", &session.client_id),
                ("resource", &self.resource),
            ],
        );
        let tokens = json_answer(connection, &request, 200)
            .await
            .context("POST /token with a refresh token")?;
        let successor = text(&tokens, "refresh_token")?;
        ensure!(
            successor != session.refresh_token,
            "the refresh token was not rotated"
        );
        session.access_token = text(&tokens, "access_token")?;
        session.refresh_token = successor;
        Ok(())
    }

    fn form(&self, path: &str, headers: &str, fields: &[(&str, &str)]) -> Bytes {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.post(path, "application/x-www-form-urlencoded", headers, &body)
    }

    fn post(&self, path: &str, content_type: &str, headers: &str, body: &str) -> Bytes {
        Bytes::from(format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {content_type}\r\n\
             {headers}Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        ))
    }
}

async fn checked(
    connection: &mut Connection,
    request: &[u8],
    status: u16,
) -> anyhow::Result<Answer> {
    let answer = connection.call(request).await?;
    ensure!(
        answer.status == status,
        "answered with status {} instead of {status}: {}",
        answer.status,
        String::from_utf8_lossy(connection.body(answer))
            .chars()
            .take(200)
            .collect::<String>()
    );
    Ok(answer)
}

async fn json_answer(
    connection: &mut Connection,
    request: &[u8],
    status: u16,
) -> anyhow::Result<Value> {
    let answer = checked(connection, request, status).await?;
    Ok(serde_json::from_slice(connection.body(answer))?)
}

fn text(object: &Value, name: &str) -> anyhow::Result<String> {
    let text = object
        .get(name)
        .and_then(Value::as_str)
        .with_context(|| format!("the answer has no {name}"))?;
    Ok(text.to_owned())
}

/// The value of the hidden input called `name`, which holds nothing that HTML escapes.
fn hidden_field<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let named = format!("name=\"{name}\"");
    page.split("<input")
        .skip(1)
        .filter_map(|rest| rest.split('>').next())
        .find(|tag| tag.contains(&named))?
        .split_once("value=\"")?
        .1
        .split('"')
        .next()
}

/// A person who connects one new client after the other.
pub(crate) struct NewClients {
    connection: Connection,
    site: Arc<Site>,
}

impl NewClients {
    pub(crate) async fn new(site: Arc<Site>) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(site.address).await?,
            site,
        })
    }
}

impl Worker for NewClients {
    async fn step(&mut self) -> anyhow::Result<()> {
        self.site.sign_in(&mut self.connection).await?;
        Ok(())
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        self.connection.reopen().await
    }
}

/// A client that refreshes its tokens, each time with the refresh token that it got last.
pub(crate) struct Refresher {
    connection: Connection,
    site: Arc<Site>,
    session: Session,
}

impl Refresher {
    pub(crate) async fn new(site: Arc<Site>, session: Session) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(site.address).await?,
            site,
            session,
        })
    }

    pub(crate) fn into_session(self) -> Session {
        self.session
    }
}

impl Worker for Refresher {
    async fn step(&mut self) -> anyhow::Result<()> {
        self.site
            .refresh(&mut self.connection, &mut self.session)
            .await
    }

    async fn recover(&mut self) -> anyhow::Result<()> {
        self.connection.reopen().await
    }
}

/// Signs in `count` clients.
pub(crate) async fn sign_in_sessions(site: &Site, count: u32) -> anyhow::Result<Vec<Session>> {
    let mut connection = Connection::open(site.address).await?;
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(site.sign_in(&mut connection).await?);
    }
    Ok(sessions)
}
