//! Case 30: the program in the network of a company, which is left through a proxy alone. Names
//! mean nothing here, so what arrives by a name came through it.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Response, header};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use serde_json::json;
use support::{
    UPSTREAM_KEY,
    client::{Client, Http},
    company_proxy::CompanyProxy,
    proxy::Proxy,
    upstream::{USUAL, Upstream},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// An authority that the program is to trust.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let text = BASE64_STANDARD.encode(issuer.as_ref().der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        fs::write(folder.path().join("authority.pem"), pem).unwrap();
        Self { folder, issuer }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// A server of that name, which takes the TLS off what goes to `address`.
    async fn takes_tls_off(&self, name: &str, address: SocketAddr) -> SocketAddr {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tasks.spawn(async move {
                    let mut stream = tls.accept(stream).await?;
                    let mut server = TcpStream::connect(address).await?;
                    copy_bidirectional(&mut stream, &mut server).await
                });
            }
        });
        at
    }
}

/// A proxy in front of the MCP server at `url`, which trusts `authority`.
fn in_front_of(url: &str, upstream: &Upstream, authority: &Authority, lines: &str) -> Proxy {
    let lines = format!("store = \"sqlite\"\n{lines}");
    let mut proxy = Proxy::prepared(upstream.address, &lines);
    proxy.reconfigure(&format!("http://{}/mcp", upstream.address), url);
    proxy.set("SSL_CERT_FILE", authority.file().to_str().unwrap());
    proxy
}

const PASSWORD: &str = "Zx9CvBnM3LkJhGf";

fn address_of(proxy: &CompanyProxy) -> String {
    format!("http://me:{PASSWORD}@{}", proxy.address)
}

/// What the proxy of the company is sent for [`PASSWORD`].
fn authorization() -> String {
    let pair = BASE64_STANDARD.encode(format!("me:{PASSWORD}"));
    format!("proxy-authorization: basic {pair}").to_lowercase()
}

#[tokio::test]
async fn an_mcp_server_is_called_through_the_proxy() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let tls = authority
        .takes_tls_off("up.example", upstream.address)
        .await;
    let company = CompanyProxy::leading(&[("up.example:443", tls)]).await;
    let mut proxy = in_front_of("https://up.example/mcp", &upstream, &authority, "");
    proxy.set("HTTPS_PROXY", &address_of(&company));
    let line = format!(
        "http://{} (HTTPS_PROXY) for upstream one, client documents",
        company.address
    );
    let said = String::from_utf8(proxy.check()).unwrap();
    assert!(
        said.contains(&format!("outgoing proxy               {line}\n")),
        "{said}"
    );
    proxy.set("RUST_LOG", "trace");
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;

    let answer = client.call(&tokens).await.expect(200);

    assert_eq!(answer.text(), USUAL);
    let heads = company.heads();
    assert_eq!(company.asked_for(), ["CONNECT up.example:443 HTTP/1.1"]);
    assert!(
        heads[0].to_lowercase().contains(&authorization()),
        "{heads:?}"
    );
    let got = upstream.last();
    assert_eq!(
        got.headers()["authorization"],
        format!("Bearer {UPSTREAM_KEY}")
    );
    assert_eq!(got.headers()["host"], "up.example");
    assert!(!got.headers().contains_key("proxy-authorization"));

    // The twin: NO_PROXY names it, and there is no other way.
    proxy.stop().await;
    let before = company.heads().len();
    proxy.set("NO_PROXY", "*.example");
    proxy.start().await;
    let _ = client.call(&tokens).await.expect(502);
    assert_eq!(company.heads().len(), before);
    proxy.stop().await;
    let output = proxy.output();
    assert!(
        output.contains(&format!("Outgoing proxy: {line}\n")),
        "{output}"
    );
    let pair = BASE64_STANDARD.encode(format!("me:{PASSWORD}"));
    for secret in [PASSWORD, &pair] {
        assert!(!output.contains(secret) && !said.contains(secret));
    }
}

/// A neighbour of case 30: without TLS, the proxy reads what it passes on.
#[tokio::test]
async fn an_mcp_server_without_tls_is_called_through_the_proxy_too() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let company = CompanyProxy::leading(&[("up.example:80", upstream.address)]).await;
    let mut proxy = in_front_of("http://up.example/mcp", &upstream, &authority, "");
    proxy.set("http_proxy", &address_of(&company));
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;

    let answer = client.call(&tokens).await.expect(200);

    assert_eq!(answer.text(), USUAL);
    let asked_for = company.asked_for();
    assert_eq!(asked_for, ["POST http://up.example/mcp HTTP/1.1"]);
    let heads = company.heads();
    assert!(
        heads[0].to_lowercase().contains(&authorization()),
        "{heads:?}"
    );
}

/// A neighbour of case 30: a proxy to which one speaks TLS.
#[tokio::test]
async fn the_proxy_may_speak_tls_itself() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let tls = authority
        .takes_tls_off("up.example", upstream.address)
        .await;
    let company = CompanyProxy::leading(&[("up.example:443", tls)]).await;
    let secure = authority.takes_tls_off("localhost", company.address).await;
    let mut proxy = in_front_of("https://up.example/mcp", &upstream, &authority, "");
    let address = format!("https://localhost:{}", secure.port());
    proxy.set("ALL_PROXY", &address);
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
    assert_eq!(company.asked_for(), ["CONNECT up.example:443 HTTP/1.1"]);
}

#[tokio::test]
async fn this_computer_is_never_reached_through_the_proxy() {
    let (upstream, company) = (Upstream::start().await, CompanyProxy::leading(&[]).await);
    let mut proxy = Proxy::prepared(upstream.address, "clients.documents = false");
    proxy.set("HTTP_PROXY", &address_of(&company));
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(200);
    assert_eq!(company.heads(), Vec::<String>::new());
    let line = "Outgoing proxy: HTTP_PROXY is set, and nothing goes through it\n";
    let output = proxy.says(0, line).await;
    assert!(!output.contains(PASSWORD), "{output}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_in_the_log() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let company = CompanyProxy::leading(&[]).await;
    let mut proxy = in_front_of("https://up.example/mcp", &upstream, &authority, "");
    proxy.set("HTTPS_PROXY", &address_of(&company));
    proxy.start().await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    let _ = client.call(&tokens).await.expect(502);
    let named = format!(
        "the outgoing proxy http://{} (HTTPS_PROXY) gave no connection",
        company.address
    );
    let output = proxy.says(0, &named).await;
    assert!(!output.contains(PASSWORD), "{output}");
}

/// Documents of hosts that the operator named are asked for by name: nothing here knows public
/// names, as in many companies. Those of others are not, since nobody can judge their addresses.
#[tokio::test]
async fn documents_of_clients_are_fetched_through_the_proxy() {
    let (upstream, authority) = (Upstream::start().await, Authority::new());
    let publisher = Upstream::start().await;
    let tls = authority
        .takes_tls_off("client.example", publisher.address)
        .await;
    let hosts = [("client.example:443", tls), ("other.example:443", tls)];
    let company = CompanyProxy::leading(&hosts).await;
    let lines = "clients.document_hosts = [\"client.example\"]";
    let id = "https://client.example/oauth/client.json";
    let mut proxy = in_front_of("https://up.example/mcp", &upstream, &authority, lines);
    proxy.set("HTTPS_PROXY", &address_of(&company));
    proxy.start().await;
    let document = json!({
        "client_id": id,
        "client_name": "Published",
        "redirect_uris": ["https://client.example/cb"],
        "token_endpoint_auth_method": "none",
    });
    let document = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(document.to_string()))
        .unwrap();
    publisher.answers(async { document });
    let http = Http::to(proxy.address);

    let page = http.get(&authorization_request(id)).await.expect(200);

    assert!(page.text().contains("Published"), "{}", page.text());
    // The first is asked for by the start, and by no document.
    let asked_for = [
        "CONNECT up.example:443 HTTP/1.1",
        "CONNECT client.example:443 HTTP/1.1",
    ];
    assert_eq!(company.asked_for(), asked_for);

    proxy.stop().await;
    proxy.reconfigure(lines, "");
    proxy.start().await;
    let other = id.replace("client.", "other.");
    let page = http.get(&authorization_request(&other)).await;
    assert!(page.status.is_client_error(), "{page:?}");
    assert_eq!(company.asked_for(), asked_for);
    let _ = proxy
        .says(0, "it cannot be checked for a public address")
        .await;
}

fn authorization_request(client_id: &str) -> String {
    let query = support::client::Parameters::of(&[
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", "https://client.example/cb"),
        (
            "code_challenge",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        ),
        ("code_challenge_method", "S256"),
        ("state", "x"),
    ]);
    format!("/authorize?{}", query.encoded())
}
