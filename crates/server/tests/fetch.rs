//! The guard around fetches of documents that strangers name, on real sockets and real TLS: a
//! local server stands behind addresses that the test makes up (CIM-02, CIM-05 to CIM-07).
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

#[path = "support/company_proxy.rs"]
#[expect(unreachable_pub, reason = "a part of several test programs")]
mod company_proxy;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use protocol::ports::{Fetch, FetchError, Fetched};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use server::{
    fetch::{GuardedFetch, Network, SystemNetwork},
    outgoing::OutgoingProxies,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;
use url::Url;

use company_proxy::CompanyProxy;

const HOST: &str = "client.example";
const URL: &str = "https://client.example/oauth/client.json";
const DOCUMENT: &str = r#"{"client_id":"https://client.example/oauth/client.json"}"#;
/// An address that passes; nothing is ever sent to it.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));

/// What the server does with each connection.
#[derive(Clone)]
enum Does {
    /// Sends these bytes after the request's head, and closes.
    Answers(Vec<u8>),
    /// Sends these, then one more byte every so often.
    Drips(Vec<u8>),
    /// Sends these, then more and more.
    Floods(Vec<u8>),
    /// Reads the request, and that is all.
    Nothing,
    /// Does not even speak TLS.
    NoTls,
}

/// A TLS server on a loopback port.
struct Publisher {
    port: u16,
    certificate: CertificateDer<'static>,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    names: Arc<Mutex<Vec<String>>>,
}

impl Publisher {
    async fn start(does: Does) -> Self {
        Self::with(CertificateParams::new(vec![HOST.to_owned()]).unwrap(), does).await
    }

    async fn with(certificate: CertificateParams, does: Does) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = certificate.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let publisher = Self {
            port: listener.local_addr().unwrap().port(),
            certificate,
            accepted: Arc::default(),
            requests: Arc::default(),
            names: Arc::default(),
        };
        let accepted = Arc::clone(&publisher.accepted);
        let requests = Arc::clone(&publisher.requests);
        let names = Arc::clone(&publisher.names);
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::SeqCst);
                let (tls, does) = (tls.clone(), does.clone());
                let (requests, names) = (Arc::clone(&requests), Arc::clone(&names));
                tasks.spawn(async move {
                    if matches!(does, Does::NoTls) {
                        sleep(Duration::from_mins(1)).await;
                        return;
                    }
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let name = stream.get_ref().1.server_name().unwrap_or_default();
                    names.lock().unwrap().push(name.to_owned());
                    // A client that has seen enough breaks off.
                    let _ = converse(stream, &does, &requests).await;
                });
            }
        });
        publisher
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// A guard that trusts this server's certificate.
    fn trusted(&self, network: impl Network + 'static) -> GuardedFetch {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        GuardedFetch::new(trusting(roots), network)
    }

    /// A network in which this server has the name and every address.
    fn network(&self, addresses: &[IpAddr]) -> FakeNetwork {
        FakeNetwork {
            answers: Arc::new(Mutex::new(vec![addresses.to_vec()])),
            port: self.port,
            connected: Arc::default(),
        }
    }

    /// Fetches the document from this server at a public address.
    async fn fetch(&self) -> Result<Fetched, FetchError> {
        let fetch = self.trusted(self.network(&[PUBLIC]));
        fetch.fetch(&Url::parse(URL).unwrap()).await
    }
}

async fn converse(
    mut stream: TlsStream<TcpStream>,
    does: &Does,
    requests: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    requests
        .lock()
        .unwrap()
        .push(String::from_utf8(head).unwrap());
    match does {
        Does::Answers(bytes) => {
            stream.write_all(bytes).await?;
            stream.shutdown().await
        }
        Does::Drips(bytes) => {
            stream.write_all(bytes).await?;
            loop {
                stream.write_all(b"x").await?;
                stream.flush().await?;
                sleep(Duration::from_millis(200)).await;
            }
        }
        Does::Floods(bytes) => {
            stream.write_all(bytes).await?;
            loop {
                stream.write_all(&bytes[bytes.len() - 64..]).await?;
            }
        }
        Does::Nothing | Does::NoTls => {
            sleep(Duration::from_mins(1)).await;
            Ok(())
        }
    }
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A network in which names mean what the test says, and every address leads to one local port.
#[derive(Clone)]
struct FakeNetwork {
    /// The last answer is given for ever.
    answers: Arc<Mutex<Vec<Vec<IpAddr>>>>,
    port: u16,
    connected: Arc<Mutex<Vec<SocketAddr>>>,
}

impl FakeNetwork {
    fn connected(&self) -> Vec<SocketAddr> {
        self.connected.lock().unwrap().clone()
    }
}

#[async_trait]
impl Network for FakeNetwork {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        let mut answers = self.answers.lock().unwrap();
        Ok(if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        })
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.connected.lock().unwrap().push(address);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await
    }
}

fn answer(head: &str, body: &str) -> Does {
    let length = body.len();
    Does::Answers(format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}").into())
}

#[track_caller]
fn failed(outcome: Result<Fetched, FetchError>) -> FetchError {
    match outcome {
        Ok(fetched) => panic!("a document came: {fetched:?}"),
        Err(error) => error,
    }
}

/// CI-07, CIM-07: the connection goes to the address that was judged, under the name that was asked for.
#[tokio::test]
async fn ci_07_a_document_is_fetched_from_the_address_that_was_judged() {
    let head = "200 OK\r\ncontent-type: application/json\r\ncache-control: max-age=300";
    let publisher = Publisher::start(answer(head, DOCUMENT)).await;
    let network = publisher.network(&[PUBLIC]);
    let fetch = publisher.trusted(network.clone());

    let fetched = fetch.fetch(&Url::parse(URL).unwrap()).await.unwrap();

    assert_eq!(fetched.body, DOCUMENT);
    assert_eq!(fetched.headers["cache-control"], "max-age=300");
    assert_eq!(network.connected(), [SocketAddr::new(PUBLIC, 443)]);
    assert_eq!(*publisher.names.lock().unwrap(), [HOST]);
    let requests = publisher.requests.lock().unwrap();
    let [request] = &requests[..] else {
        panic!("{requests:?}")
    };
    let mut lines: Vec<&str> = request.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let agent = concat!("user-agent: mcp-oauth-proxy/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        lines,
        [
            "GET /oauth/client.json HTTP/1.1",
            "accept-encoding: identity",
            "accept: application/json",
            "connection: close",
            "host: client.example",
            agent,
        ]
    );
}

/// CIM-02
// N-CI-17
#[tokio::test]
async fn ci_07_redirects_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let head = format!("{status} Elsewhere\r\nlocation: {URL}");
        let publisher = Publisher::start(answer(&head, DOCUMENT)).await;
        let error = failed(publisher.fetch().await);
        assert!(
            matches!(error, FetchError::Status(got) if got == status),
            "{error:?}"
        );
        assert_eq!(publisher.accepted(), 1);
    }
    let page = "<meta http-equiv=refresh content='0; url=/other'>";
    let head = "200 OK\r\ncontent-type: text/html; charset=utf-8\r\nrefresh: 0; url=/other";
    let publisher = Publisher::start(answer(head, page)).await;
    assert!(matches!(failed(publisher.fetch().await), FetchError::Html));
    assert_eq!(publisher.accepted(), 1);
}

/// CIM-02
// N-CI-18
#[tokio::test]
async fn ci_07_only_status_200_is_a_document() {
    for status in [201, 202, 204, 206, 304, 400, 403, 404, 410, 429, 500, 503] {
        let publisher = Publisher::start(answer(&format!("{status} X"), "")).await;
        let error = failed(publisher.fetch().await);
        assert!(
            matches!(error, FetchError::Status(got) if got == status),
            "{error:?}"
        );
    }
}

/// CIM-05
// N-CI-22
#[tokio::test]
async fn ci_07_a_document_has_at_most_five_kibibytes() {
    let chunked = |size: usize| {
        let body = "x".repeat(size);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Does::Answers(format!("{head}{size:x}\r\n{body}\r\n0\r\n\r\n").into())
    };
    for does in [answer("200 OK", &"x".repeat(5120)), chunked(5120)] {
        let publisher = Publisher::start(does).await;
        assert_eq!(publisher.fetch().await.unwrap().body.len(), 5120);
    }
    let endless = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    for does in [
        answer("200 OK", &"x".repeat(5121)),
        chunked(5121),
        Does::Answers(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".to_vec()),
        Does::Floods(format!("{endless}{}", " ".repeat(64)).into()),
    ] {
        let publisher = Publisher::start(does).await;
        let error = failed(publisher.fetch().await);
        assert!(matches!(error, FetchError::TooLarge), "{error:?}");
    }
    // What bot challenges answer with is known by its head, however large it is.
    let head = "200 OK\r\ncontent-type: text/html";
    let publisher = Publisher::start(answer(head, &"x".repeat(9000))).await;
    assert!(matches!(failed(publisher.fetch().await), FetchError::Html));
}

/// CIM-05: a bomb is not even unpacked.
// N-CI-22
#[tokio::test]
async fn ci_07_a_compressed_document_is_refused() {
    for encoding in ["gzip", "br", "zstd", "deflate", "identity, gzip"] {
        let head = format!("200 OK\r\ncontent-encoding: {encoding}");
        let publisher = Publisher::start(answer(&head, DOCUMENT)).await;
        let error = failed(publisher.fetch().await);
        assert!(matches!(error, FetchError::Encoded), "{error:?}");
    }
    let plain = answer("200 OK\r\ncontent-encoding: identity", DOCUMENT);
    assert!(Publisher::start(plain).await.fetch().await.is_ok());
}

// N-CI-22
#[tokio::test]
async fn ci_07_broken_answers_are_no_documents() {
    let headers = "x: y\r\n".repeat(200);
    for bytes in [
        String::new(),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".into(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}".into(),
        "SSH-2.0-OpenSSH_9.9\r\n".into(),
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n{{}}"),
        format!(
            "HTTP/1.1 200 OK\r\nx: {}\r\n\r\n{{}}",
            "y".repeat(32 * 1024)
        ),
    ] {
        let publisher = Publisher::start(Does::Answers(bytes.into())).await;
        let error = failed(publisher.fetch().await);
        assert!(matches!(error, FetchError::Broken(_)), "{error:?}");
    }
}

/// CIM-05
// N-CI-22
#[tokio::test]
async fn ci_07_a_slow_answer_is_given_up_after_five_seconds() {
    let slow = |does: Does, seconds: u64| async move {
        let publisher = Publisher::start(does).await;
        let start = Instant::now();
        let error = failed(publisher.fetch().await);
        let took = start.elapsed();
        assert!(matches!(error, FetchError::TimedOut), "{error:?}");
        // Not sooner either, or it would not be the time that ended it.
        assert!(took >= Duration::from_secs(seconds), "{took:?}");
        assert!(took < Duration::from_secs(seconds + 2), "{took:?}");
    };
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec();
    tokio::join!(
        slow(Does::Nothing, 5),
        slow(Does::Drips(head), 5),
        slow(Does::Drips(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), 5),
        slow(Does::NoTls, 3),
    );
}

// N-CI-22
#[tokio::test]
async fn ci_07_a_wrong_certificate_gets_no_request() {
    let named = |name: &str| CertificateParams::new(vec![name.to_owned()]).unwrap();
    let mut expired = named(HOST);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for (certificate, is_good) in [
        (named(HOST), true),
        (named("other.example"), false),
        (named("*.client.example"), false),
        (expired, false),
    ] {
        let publisher = Publisher::with(certificate, answer("200 OK", DOCUMENT)).await;
        let outcome = publisher.fetch().await;
        assert_eq!(outcome.is_ok(), is_good, "{outcome:?}");
        assert_eq!(
            publisher.requests.lock().unwrap().len(),
            usize::from(is_good)
        );
        assert_eq!(publisher.accepted(), 1);
    }
    // Good in itself, but signed by nobody whom we trust.
    let publisher = Publisher::start(answer("200 OK", DOCUMENT)).await;
    let other = Publisher::start(Does::Nothing).await;
    let fetch = other.trusted(publisher.network(&[PUBLIC]));
    let error = failed(fetch.fetch(&Url::parse(URL).unwrap()).await);
    assert!(matches!(error, FetchError::Unreachable(_)), "{error:?}");
    assert_eq!(publisher.accepted(), 1);
    assert!(publisher.requests.lock().unwrap().is_empty());
}

/// CI-07, CIM-06
// N-CI-13, N-CI-14
#[tokio::test]
async fn ci_07_a_name_with_a_special_address_is_not_connected_to() {
    let publisher = Publisher::start(answer("200 OK", DOCUMENT)).await;
    for special in [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001::80ff:fffe",
        "2606:4700::5efe:7f00:1",
        "2606:4700::200:5efe:a00:1",
    ] {
        let special: IpAddr = special.parse().unwrap();
        for addresses in [
            vec![special],
            vec![PUBLIC, special],
            vec![special, PUBLIC],
            vec![PUBLIC, PUBLIC, PUBLIC, PUBLIC, special],
        ] {
            let network = publisher.network(&addresses);
            let fetch = publisher.trusted(network.clone());
            let error = failed(fetch.fetch(&Url::parse(URL).unwrap()).await);
            assert!(matches!(error, FetchError::Refused), "{addresses:?}");
            assert!(network.connected().is_empty(), "{addresses:?}");
        }
    }
    assert_eq!(publisher.accepted(), 0);
    // The same way leads there when the address is public.
    assert!(publisher.fetch().await.is_ok());
    assert_eq!(publisher.accepted(), 1);
}

/// Resolves as the system does, and counts connections instead of opening them.
#[derive(Clone, Default)]
struct Watched(Arc<AtomicUsize>);

#[async_trait]
impl Network for Watched {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        SystemNetwork.resolve(host).await
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<TcpStream> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::other("not in this test"))
    }
}

/// However this machine is named, and whatever is no name over TLS.
// N-CI-13
#[tokio::test]
async fn ci_07_this_machine_is_not_connected_to() {
    let network = Watched::default();
    let fetch = GuardedFetch::new(trusting(RootCertStore::empty()), network.clone());
    for url in [
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://127.0.0.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://0177.0.0.1/x",
        "https://127.1/x",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://169.254.169.254/x",
        "https://93.184.216.34/x",
        "https://client.example:8443/x",
        "http://client.example/x",
        "ftp://client.example/x",
    ] {
        let error = failed(fetch.fetch(&Url::parse(url).unwrap()).await);
        let is_refused = matches!(error, FetchError::Refused)
            || (url.contains("LOCALHOST.") && matches!(error, FetchError::Unreachable(_)));
        assert!(is_refused, "{url}: {error:?}");
    }
    assert_eq!(network.0.load(Ordering::SeqCst), 0);
}

/// CIM-07
// N-CI-15
#[tokio::test]
async fn cim_07_a_name_that_changes_its_address_is_judged_each_time() {
    let publisher = Publisher::start(answer("200 OK", DOCUMENT)).await;
    let network = FakeNetwork {
        answers: Arc::new(Mutex::new(vec![
            vec![PUBLIC],
            vec![Ipv4Addr::LOCALHOST.into()],
        ])),
        ..publisher.network(&[])
    };
    let fetch = publisher.trusted(network.clone());
    let url = Url::parse(URL).unwrap();
    assert!(fetch.fetch(&url).await.is_ok());
    assert!(matches!(
        failed(fetch.fetch(&url).await),
        FetchError::Refused
    ));
    assert_eq!(network.connected(), [SocketAddr::new(PUBLIC, 443)]);
}

#[tokio::test]
async fn a_name_without_an_address_cannot_be_reached() {
    let publisher = Publisher::start(Does::Nothing).await;
    let fetch = publisher.trusted(publisher.network(&[]));
    let error = failed(fetch.fetch(&Url::parse(URL).unwrap()).await);
    assert!(matches!(error, FetchError::Unreachable(_)), "{error:?}");
}

/// The first address of a name swallows what it gets, the second refuses, the third works.
#[derive(Clone)]
struct HalfDead(FakeNetwork);

#[async_trait]
impl Network for HalfDead {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.resolve(host).await
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        match address.ip().to_string().as_str() {
            "1.1.1.1" => std::future::pending().await,
            "1.1.1.2" => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => self.0.connect(address).await,
        }
    }
}

#[tokio::test]
async fn an_address_that_is_dead_leaves_time_for_the_next() {
    let publisher = Publisher::start(answer("200 OK", DOCUMENT)).await;
    let addresses = ["1.1.1.1", "1.1.1.2", "1.1.1.3"].map(|address| address.parse().unwrap());
    let fetch = publisher.trusted(HalfDead(publisher.network(&addresses)));
    assert!(fetch.fetch(&Url::parse(URL).unwrap()).await.is_ok());
}

/// CIM-15: the test above once more, in an environment that names a proxy for everything.
#[test]
fn cim_15_proxies_of_the_environment_have_no_say() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "ci_07_a_document_is_fetched_from_the_address_that_was_judged",
        ])
        .envs(
            ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
                .map(|name| (name, "http://127.0.0.1:9")),
        )
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// The proxy that the environment names.
fn way_through(company: &CompanyProxy) -> OutgoingProxies {
    let variable = (
        "HTTPS_PROXY".to_owned(),
        format!("http://{}", company.address),
    );
    OutgoingProxies::of(&[variable].into_iter().collect()).0
}

/// Case 30, CIM-15: behind the proxy of a company, documents still come from public addresses only:
/// it is told the address that was judged, not a name that may lead elsewhere there.
#[tokio::test]
async fn cim_15_a_proxy_is_told_the_address_that_was_judged() {
    let publisher = Publisher::start(answer("200 OK", DOCUMENT)).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, publisher.port));
    let company = CompanyProxy::leading(&[("93.184.216.34:443", at)]).await;
    let network = publisher.network(&[PUBLIC]);
    let fetch = publisher
        .trusted(network.clone())
        .through(way_through(&company), Vec::new());

    let fetched = fetch.fetch(&Url::parse(URL).unwrap()).await.unwrap();

    assert_eq!(fetched.body, DOCUMENT);
    assert_eq!(company.asked_for(), ["CONNECT 93.184.216.34:443 HTTP/1.1"]);
    assert_eq!(network.connected(), []);
    assert_eq!(*publisher.names.lock().unwrap(), [HOST]);
}

/// Case 30: what is refused without a proxy is refused with one, and nothing reaches it.
#[tokio::test]
async fn cim_15_a_special_address_is_not_asked_for_through_a_proxy_either() {
    let publisher = Publisher::start(answer("200 OK", DOCUMENT)).await;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, publisher.port));
    let everywhere = ["10.0.0.5:443", "93.184.216.34:443", "client.example:443"];
    let company = CompanyProxy::leading(&everywhere.map(|host| (host, at))).await;
    let inside = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 5));
    for addresses in [&[inside][..], &[PUBLIC, inside]] {
        let fetch = publisher
            .trusted(publisher.network(addresses))
            .through(way_through(&company), Vec::new());
        let error = failed(fetch.fetch(&Url::parse(URL).unwrap()).await);
        assert!(matches!(error, FetchError::Refused), "{error:?}");
    }
    for address in [
        "https://10.0.0.5/x",
        "https://localhost/x",
        "http://client.example/x",
    ] {
        let fetch = publisher
            .trusted(publisher.network(&[inside]))
            .through(way_through(&company), Vec::new());
        let error = failed(fetch.fetch(&Url::parse(address).unwrap()).await);
        assert!(matches!(error, FetchError::Refused), "{address}: {error:?}");
    }
    assert_eq!(company.heads(), Vec::<String>::new());
}
