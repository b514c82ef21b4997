//! A name server (RFC 1035 §4) that says of each name what it is told.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::UdpSocket, time::sleep};
use tokio_util::task::TaskTracker;

/// Kinds of records.
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;

/// How lookups fail (RFC 1035 §4.1.1).
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;

/// Of what was asked, in a message: where the name in question stands.
const QUESTION: [u8; 2] = [0xc0, 12];

#[derive(Default)]
pub struct Names(Mutex<HashMap<String, Name>>);

#[derive(Default)]
struct Name {
    /// It is an alias of the first, that of the second, and so on.
    aliases: Vec<String>,
    /// The addresses at each lookup; the last are given for ever.
    addresses: VecDeque<Vec<IpAddr>>,
    lookups: usize,
    trouble: Option<Trouble>,
}

/// What keeps a name from being found.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// The server says that it failed.
    Failure,
    /// It says nothing.
    Silence,
    /// It says what it should, so much later.
    Delay(Duration),
}

impl Names {
    pub async fn start() -> Arc<Self> {
        let names = Arc::<Self>::default();
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:53").await.unwrap());
        let serving = Arc::clone(&names);
        TaskTracker::new().spawn(async move { serving.serve(&socket).await });
        names
    }

    pub fn lead(&self, name: &str, aliases: &[&str], addresses: Vec<Vec<IpAddr>>) {
        let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
        let mut names = self.0.lock().unwrap();
        let name = names.entry(name.to_owned()).or_default();
        name.aliases = aliases;
        name.addresses = addresses.into();
    }

    /// `None`: nothing does any longer.
    pub fn trouble(&self, name: &str, trouble: Option<Trouble>) {
        let mut names = self.0.lock().unwrap();
        names.entry(name.to_owned()).or_default().trouble = trouble;
    }

    pub fn lookups(&self, name: &str) -> usize {
        self.0.lock().unwrap()[name].lookups
    }

    async fn serve(&self, socket: &Arc<UdpSocket>) -> io::Result<()> {
        let (mut message, delayed) = ([0; 512], TaskTracker::new());
        loop {
            let (length, from) = socket.recv_from(&mut message).await?;
            if let Some((answer, after)) = self.answer(&message[..length]) {
                let socket = Arc::clone(socket);
                delayed.spawn(async move {
                    sleep(after).await;
                    socket.send_to(&answer, from).await
                });
            }
        }
    }

    /// The whole message that answers `asked`, which has one question, and after how long; `None`
    /// if it is malformed, or nothing is to be said.
    fn answer(&self, asked: &[u8]) -> Option<(Vec<u8>, Duration)> {
        let (id, mut rest) = (asked.get(..2)?, asked.get(12..)?);
        let mut labels = Vec::new();
        while let [length, after @ ..] = rest
            && *length > 0
        {
            let (label, after) = after.split_at_checked((*length).into())?;
            labels.push(std::str::from_utf8(label).ok()?);
            rest = after;
        }
        let [0, kind @ .., _, _] = rest.get(..5)? else {
            return None;
        };
        let kind = u16::from_be_bytes(kind.try_into().ok()?);
        let question = &asked[12..asked.len() - rest.len() + 5];

        let name = labels.join(".");
        let trouble = self.0.lock().unwrap().get(&name).and_then(|it| it.trouble);
        let records = match trouble {
            Some(Trouble::Silence) => return None,
            Some(Trouble::Failure) => Err(SERVER_FAILURE),
            Some(Trouble::Delay(_)) | None => self.records(&name, kind).ok_or(NO_SUCH_NAME),
        };
        let after = match trouble {
            Some(Trouble::Delay(after)) => after,
            _ => Duration::ZERO,
        };
        let code = records.as_ref().err().copied().unwrap_or_default();
        // A response; the rest as a resolver has it.
        let flags = [0x81, 0x80 | code];
        let records = records.unwrap_or_default();
        let count = u16::try_from(records.len()).ok()?.to_be_bytes();
        let answer = [
            id,
            &flags,
            &[0, 1],
            &count,
            &[0; 4],
            question,
            &records.concat(),
        ];
        Some((answer.concat(), after))
    }

    /// The records of that kind, behind those of the aliases. `None` if there is no such name.
    fn records(&self, name: &str, kind: u16) -> Option<Vec<Vec<u8>>> {
        let mut names = self.0.lock().unwrap();
        let name = names.get_mut(name)?;
        let mut owner = QUESTION.to_vec();
        let mut records = Vec::new();
        for alias in &name.aliases {
            records.push(record(&owner, CNAME, &encoded(alias)));
            owner = encoded(alias);
        }
        let now = name.addresses.front()?;
        let of_kind = now.iter().filter_map(|address| match address {
            IpAddr::V4(address) if kind == A => Some(address.octets().to_vec()),
            IpAddr::V6(address) if kind == AAAA => Some(address.octets().to_vec()),
            _ => None,
        });
        records.extend(of_kind.map(|address| record(&owner, kind, &address)));
        // A lookup asks for both kinds, for this one last.
        if kind == AAAA {
            name.lookups += 1;
            if name.addresses.len() > 1 {
                name.addresses.pop_front();
            }
        }
        Some(records)
    }
}

/// A record that nobody may keep.
fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let class_and_life = [0, 1, 0, 0, 0, 0];
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [owner, &kind.to_be_bytes(), &class_and_life, &length, data].concat()
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.');
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| {
            let length = u8::try_from(label.len()).unwrap();
            [length].into_iter().chain(label.bytes())
        })
        .collect();
    bytes.push(0);
    bytes
}
