//! The names of the network inside (`sealed.rs`), and the hosts of documents that they lead to: a
//! name server, and a server for HTTPS at every address, public or not.

mod names;

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer, server::Acceptor};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::OnceCell,
    time::sleep,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

use self::names::Names;
pub use self::names::Trouble;
use super::{case::Missing, sealed};

/// Where every host has its document, if nothing else is asked for.
const PATH: &str = "/client";
/// Longer than anybody waits for a document.
const LONG: Duration = Duration::from_mins(1);
/// A flood ends after as many bytes, if nobody ends it before.
const FLOOD: usize = 64 * 1024 * 1024;

pub struct Internet {
    /// The certificate that programs inside are to trust, as `SSL_CERT_FILE` has it.
    pub certificate: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
    names: Arc<Names>,
    hosts: Arc<Hosts>,
}

#[derive(Default)]
struct Hosts {
    named: Mutex<HashMap<String, Arc<Host>>>,
    /// Connections by address.
    reached: Mutex<HashMap<IpAddr, usize>>,
}

/// What a host does with those who ask it.
#[derive(Clone)]
pub enum Does {
    /// Publishes a good document wherever it is looked for, after this long.
    Publishes(Duration),
    /// Sends these bytes after the request's head, and closes.
    Answers(Vec<u8>),
    /// Sends these, and then one more byte every so often.
    Drips(Vec<u8>),
    /// Sends these, and then the last of them again and again.
    Floods(Vec<u8>),
    /// Reads the request, and that is all.
    Nothing,
    /// Does not even speak TLS.
    NoTls,
    Resets,
}

/// What a host shows for its name.
#[derive(Clone, Copy, Debug)]
pub enum Certificate {
    Good,
    /// The good one of another name.
    OfAnother,
    Expired,
    SelfSigned,
}

/// A host with a name of its own, at a public address of its own.
#[derive(Clone)]
pub struct Site {
    pub name: String,
    pub address: IpAddr,
    pub internet: &'static Internet,
    host: Arc<Host>,
}

struct Host {
    tls: Arc<ServerConfig>,
    does: Mutex<Does>,
    /// The addresses that it was reached at.
    connections: Mutex<Vec<IpAddr>>,
    /// The paths that were asked for.
    requests: Mutex<Vec<String>>,
}

impl Internet {
    /// The one that there is, inside.
    pub async fn here() -> Result<&'static Self, Missing> {
        static HERE: OnceCell<Internet> = OnceCell::const_new();
        let folder = sealed::folder().ok_or(Missing("there is no network of its own"))?;
        let certificate = folder.join("certificate.pem");
        Ok(HERE.get_or_init(|| Self::start(certificate)).await)
    }

    async fn start(certificate: PathBuf) -> Self {
        let mut authority = CertificateParams::default();
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "The authority inside");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(authority, key).unwrap();
        let text = BASE64_STANDARD.encode(issuer.as_ref().der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        fs::write(&certificate, pem).unwrap();
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 443)).await;
        let listener = listener.unwrap();
        let hosts = Arc::<Hosts>::default();
        let serving = Arc::clone(&hosts);
        TaskTracker::new().spawn(async move {
            let connections = TaskTracker::new();
            while let Ok((stream, _)) = listener.accept().await {
                // One who has seen enough breaks off.
                connections.spawn(Arc::clone(&serving).serve(stream));
            }
        });
        Self {
            certificate,
            issuer,
            key: KeyPair::generate().unwrap(),
            names: Names::start().await,
            hosts,
        }
    }

    /// A new host that publishes its document.
    pub fn site(&'static self) -> Site {
        self.site_with(Certificate::Good)
    }

    pub fn site_with(&'static self, certificate: Certificate) -> Site {
        let mut hosts = self.hosts.named.lock().unwrap();
        let number = u16::try_from(hosts.len() + 1).unwrap();
        let name = format!("client{number}.example");
        let [high, low] = number.to_be_bytes();
        let address = Ipv4Addr::new(93, 184, high, low).into();
        let host = Arc::new(Host {
            tls: Arc::new(self.tls(&name, certificate)),
            does: Mutex::new(Does::Publishes(Duration::ZERO)),
            connections: Mutex::default(),
            requests: Mutex::default(),
        });
        hosts.insert(name.clone(), Arc::clone(&host));
        self.names.lead(&name, &[], vec![vec![address]]);
        Site {
            name,
            address,
            internet: self,
            host,
        }
    }

    /// How many connections there were to `address`, by whomever.
    pub fn reached(&self, address: IpAddr) -> usize {
        let reached = self.hosts.reached.lock().unwrap();
        reached.get(&address).copied().unwrap_or_default()
    }

    fn tls(&self, name: &str, certificate: Certificate) -> ServerConfig {
        let name = match certificate {
            Certificate::OfAnother => "another.example",
            _ => name,
        };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if let Certificate::Expired = certificate {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let certificate = match certificate {
            Certificate::SelfSigned => params.self_signed(&self.key),
            _ => params.signed_by(&self.key, &self.issuer),
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.unwrap().der().clone()], key)
            .unwrap()
    }
}

impl Hosts {
    async fn serve(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let address = stream.local_addr()?.ip().to_canonical();
        *self.reached.lock().unwrap().entry(address).or_default() += 1;
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let name = start
            .client_hello()
            .server_name()
            .unwrap_or_default()
            .to_owned();
        let host = self.named.lock().unwrap().get(&name).map(Arc::clone);
        let Some(host) = host else { return Ok(()) };
        host.connections.lock().unwrap().push(address);
        let does = host.does.lock().unwrap().clone();
        match does {
            Does::NoTls => sleep(LONG).await,
            Does::Resets => start.io.set_zero_linger()?,
            does => {
                let mut stream = start.into_stream(Arc::clone(&host.tls)).await?;
                let path = asked_for(&mut stream).await?;
                host.requests.lock().unwrap().push(path.clone());
                answer(stream, does, &format!("https://{name}{path}")).await?;
            }
        }
        Ok(())
    }
}

/// The path in the head of a request.
async fn asked_for(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    Ok(head.split(' ').nth(1).unwrap().to_owned())
}

async fn answer(mut stream: TlsStream<TcpStream>, does: Does, id: &str) -> io::Result<()> {
    match does {
        Does::Publishes(after) => {
            sleep(after).await;
            stream.write_all(&good(&document(id))).await?;
        }
        Does::Answers(bytes) => stream.write_all(&bytes).await?,
        Does::Drips(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(b" ").await?;
                stream.flush().await?;
                sleep(Duration::from_secs(1)).await;
            }
        }
        Does::Floods(bytes) => {
            stream.write_all(&bytes).await?;
            let last = &bytes[bytes.len().saturating_sub(64)..];
            for _ in 0..FLOOD / last.len() {
                stream.write_all(last).await?;
            }
        }
        Does::Nothing | Does::NoTls | Does::Resets => sleep(LONG).await,
    }
    stream.shutdown().await
}

/// The document of the client of that name.
pub fn document(id: &str) -> Value {
    json!({
        "client_id": id,
        "client_name": "Published",
        "redirect_uris": ["https://client.example/cb"],
        "token_endpoint_auth_method": "none",
    })
}

/// An answer that brings `document`.
pub fn good(document: &Value) -> Vec<u8> {
    with_head("200 OK\r\ncontent-type: application/json", document)
}

/// The same with another head.
pub fn with_head(head: &str, body: &impl ToString) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

impl Site {
    /// The client whose document this host has.
    pub fn id(&self) -> String {
        self.id_at(PATH)
    }

    pub fn id_at(&self, path: &str) -> String {
        format!("https://{}{path}", self.name)
    }

    /// The good document of [`Site::id`].
    pub fn document(&self) -> Value {
        document(&self.id())
    }

    pub fn does(&self, does: Does) {
        *self.host.does.lock().unwrap() = does;
    }

    pub fn publishes(&self, document: &Value) {
        self.does(Does::Answers(good(document)));
    }

    /// Its name leads there: at the first lookup, at the second, and at all that follow the last.
    pub fn leads_to(&self, lookups: Vec<Vec<IpAddr>>) {
        self.internet.names.lead(&self.name, &[], lookups);
    }

    /// The same by way of other names, each an alias of the next.
    pub fn is_alias_of(&self, names: &[&str], lookups: Vec<Vec<IpAddr>>) {
        self.internet.names.lead(&self.name, names, lookups);
    }

    /// Who looks for its name has this trouble; `None`: no longer.
    pub fn is_hard_to_find(&self, trouble: Option<Trouble>) {
        self.internet.names.trouble(&self.name, trouble);
    }

    /// How often its name was looked up.
    pub fn lookups(&self) -> usize {
        self.internet.names.lookups(&self.name)
    }

    /// The addresses that it was reached at.
    pub fn connections(&self) -> Vec<IpAddr> {
        self.host.connections.lock().unwrap().clone()
    }

    /// The paths that were asked for.
    pub fn requests(&self) -> Vec<String> {
        self.host.requests.lock().unwrap().clone()
    }
}
