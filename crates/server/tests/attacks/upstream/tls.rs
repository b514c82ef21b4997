//! Upstreams that do not prove who they are (N-UP-16).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::{puppet, refusal::Refusal::JsonRpc, world::World};

pub async fn is_demanded(world: Arc<World>) {
    let authority = Authority::new();
    let server = Server::start().await;
    let mut world = world.another("").await;
    let client = world.client().await;
    let tokens = client.sign_in().await;
    world.serves(&client, &tokens).await;
    world.proxy.stop().await;
    let plain = format!("http://{}", world.upstream.address);
    world
        .proxy
        .reconfigure(&plain, &format!("https://{}", server.address));
    // The roots that this proxy trusts are this one.
    let roots = world.proxy.data_dir().with_file_name("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    world
        .proxy
        .set("SSL_CERT_FILE", &roots.display().to_string());
    world.proxy.start().await;

    let is_served = async || {
        server.greets_with(authority.certifies(&for_name("127.0.0.1")));
        let _ = client.call(&tokens).await.expect(200);
        assert!(server.heard().iter().all(|first| *first == HANDSHAKE));
    };
    is_served().await;
    let dated = |year| {
        let mut params = for_name("127.0.0.1");
        (params.not_before, params.not_after) = (
            rcgen::date_time_ymd(year, 1, 1),
            rcgen::date_time_ymd(year + 1, 1, 1),
        );
        authority.certifies(&params)
    };
    for (what, greeting) in [
        ("expired", dated(2020)),
        ("not yet valid", dated(2090)),
        (
            "another name",
            authority.certifies(&for_name("other.example")),
        ),
        (
            "another address",
            authority.certifies(&for_name("127.0.0.2")),
        ),
        (
            "no name",
            authority.certifies(&CertificateParams::new([]).unwrap()),
        ),
        ("signed by itself", signed_by_itself()),
        (
            "an authority that nobody trusts",
            Authority::new().certifies(&for_name("127.0.0.1")),
        ),
        ("SSL 3.0", server_hello([3, 0])),
        ("TLS 1.0", server_hello([3, 1])),
        ("TLS 1.1", server_hello([3, 2])),
        // `protocol_version` (RFC 8446 §6), as servers say it that know nothing newer.
        ("no version in common", bytes(b"\x15\x03\x01\0\x02\x02\x46")),
        (
            "no TLS",
            bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
        ),
        (
            "a hint to come without",
            bytes(b"HTTP/1.1 400 The plain HTTP request was sent to HTTPS port\r\n\r\n"),
        ),
        ("a close", bytes(b"")),
    ] {
        server.greets_with(greeting);
        let answer = world.unchanged(client.call(&tokens)).await;
        assert_eq!(answer.status, 502, "{what}: {answer:#?}");
        JsonRpc(502).check(&answer, &world.issuer);
        let heard = server.heard();
        // Nobody but the one who proved it hears more than an offer to speak TLS.
        assert!(!heard.is_empty(), "{what}: nobody asked");
        assert!(heard.iter().all(|first| *first == HANDSHAKE), "{what}");
    }
    is_served().await;
}

/// The first byte of a connection that begins with TLS (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

fn for_name(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

fn bytes(bytes: &'static [u8]) -> Greeting {
    Greeting::Bytes(bytes.to_vec())
}

/// The answer of a server that speaks no later version than this one (RFC 2246 §7.4.1.3).
fn server_hello(version: [u8; 2]) -> Greeting {
    // TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
    let hello = [&version[..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let length = u8::try_from(hello.len()).unwrap();
    let handshake = [&[2, 0, 0, length][..], &hello].concat();
    let head = [HANDSHAKE, version[0], version[1], 0, length + 4];
    Greeting::Bytes([&head[..], &handshake].concat())
}

fn signed_by_itself() -> Greeting {
    let key = KeyPair::generate().unwrap();
    let certificate = for_name("127.0.0.1").self_signed(&key).unwrap();
    Greeting::certificate(&certificate, &key)
}

/// Who vouches for servers.
struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    fn pem(&self) -> String {
        let content = BASE64_STANDARD.encode(self.certificate.der());
        format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")
    }

    fn certifies(&self, params: &CertificateParams) -> Greeting {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Greeting::certificate(&certificate, &key)
    }
}

/// What a server does with a connection.
#[derive(Clone)]
enum Greeting {
    /// Speaks TLS with a certificate, and then as usual.
    Certificate(TlsAcceptor),
    /// Sends this, and closes.
    Bytes(Vec<u8>),
}

impl Greeting {
    fn certificate(certificate: &Certificate, key: &KeyPair) -> Self {
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        Self::Certificate(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A server that greets as it is told.
struct Server {
    address: SocketAddr,
    greeting: Arc<Mutex<Greeting>>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let greeting = Arc::new(Mutex::new(bytes(b"")));
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let tasks = TaskTracker::new();
        let (now, hearing, connections) = (greeting.clone(), heard.clone(), tasks.clone());
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut first = [0];
                if stream.peek(&mut first).await.unwrap_or(0) == 0 {
                    continue;
                }
                hearing.lock().unwrap().push(first[0]);
                let greeting = now.lock().unwrap().clone();
                connections.spawn(async move {
                    match greeting {
                        Greeting::Certificate(tls) => {
                            if let Ok(mut stream) = tls.accept(stream).await {
                                read_call(&mut stream).await;
                                stream.write_all(&puppet::usual()).await.unwrap();
                                stream.shutdown().await.unwrap();
                            }
                        }
                        Greeting::Bytes(bytes) => {
                            let _ = stream.read(&mut [0; 4096]).await;
                            let _ = stream.write_all(&bytes).await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            greeting,
            heard,
        }
    }

    fn greets_with(&self, greeting: Greeting) {
        *self.greeting.lock().unwrap() = greeting;
    }

    /// The first byte of each connection since this was asked before.
    fn heard(&self) -> Vec<u8> {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

async fn read_call(stream: &mut (impl AsyncRead + Unpin)) {
    let mut call = Vec::new();
    while !call.ends_with(b"}") {
        if stream.read_buf(&mut call).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
