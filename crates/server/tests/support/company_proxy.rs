//! The proxy of a company, through which requests leave it: for tunnels, and for plain requests.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

/// It knows some hosts, and refuses others.
#[derive(Clone)]
pub struct CompanyProxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl CompanyProxy {
    /// It leads each of these, a host and a port, to an address.
    pub async fn leading(hosts: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            heads: Arc::default(),
        };
        let hosts: HashMap<_, _> = hosts
            .iter()
            .map(|(host, address)| ((*host).to_owned(), *address))
            .collect();
        let hosts = Arc::new(hosts);
        let heads = Arc::clone(&proxy.heads);
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (hosts, heads) = (Arc::clone(&hosts), Arc::clone(&heads));
                tasks.spawn(async move {
                    // A caller that has read enough closes the connection.
                    let _ = pass_on(stream, &hosts, &heads).await;
                });
            }
        });
        proxy
    }

    /// The heads of the requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Their first lines, each once: how often a server is tried is no matter here.
    pub fn asked_for(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for head in self.heads() {
            let line = head.lines().next().unwrap().to_owned();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

async fn pass_on(
    mut stream: TcpStream,
    hosts: &HashMap<String, SocketAddr>,
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8(head.clone()).unwrap();
    heads.lock().unwrap().push(text.clone());
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let host = match target.strip_prefix("http://") {
        Some(below) => format!("{}:80", below.split('/').next().unwrap()),
        None => target.to_owned(),
    };
    let Some(address) = hosts.get(&host) else {
        return stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            .await;
    };
    let mut server = TcpStream::connect(address).await?;
    if method == "CONNECT" {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    } else {
        server.write_all(&head).await?;
    }
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}
