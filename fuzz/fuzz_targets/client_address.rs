//! Z16: the address of a client is one that a trusted proxy named, and no stranger's invention.
#![no_main]

use std::net::IpAddr;

use arbitrary::Arbitrary;
use fuzz::judge;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use protocol::forward::client_address::client_address;

#[derive(Arbitrary, Debug)]
struct Input {
    peer: Address,
    headers: Vec<Vec<Hop>>,
    trusted: Vec<(IpAddr, u8)>,
}

#[derive(Arbitrary, Debug, Clone)]
enum Address {
    Any(IpAddr),
    /// In a network that is often trusted.
    Inside(u8),
    Mapped(u8),
}

#[derive(Arbitrary, Debug)]
enum Hop {
    Address(Address, bool),
    Text(String),
}

impl Address {
    fn ip(&self) -> IpAddr {
        match *self {
            Self::Any(address) => address,
            Self::Inside(last) => [10, 0, 0, last].into(),
            Self::Mapped(last) => [0, 0, 0, 0, 0, 0xffff, 0x0a00, u16::from(last)].into(),
        }
    }
}

fuzz_target!(|input: Input| judge(|| {
    let trusted: Vec<IpNet> = input
        .trusted
        .iter()
        .filter_map(|(address, length)| IpNet::new(*address, length % 129).ok())
        .collect();
    let trusts = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut headers = HeaderMap::new();
    let mut chain: Vec<String> = Vec::new();
    for hops in &input.headers {
        let value: Vec<String> = hops
            .iter()
            .map(|hop| match hop {
                Hop::Address(address, is_spaced) => {
                    format!("{}{}", if *is_spaced { " \t" } else { "" }, address.ip())
                }
                Hop::Text(text) => text.clone(),
            })
            .collect();
        let value = value.join(",");
        if let Ok(header) = HeaderValue::from_bytes(value.as_bytes()) {
            // What is no text is one hop that nobody can read.
            let text = header.to_str().unwrap_or_default();
            chain.extend(text.split(',').map(str::to_owned));
            headers.append("x-forwarded-for", header);
        }
    }
    let peer = input.peer.ip();

    // The plain reading: from the peer leftwards, as long as who speaks is trusted and makes sense.
    let mut expected = peer.to_canonical();
    while trusts(expected)
        && let Some(hop) = chain.pop()
        && let Ok(address) = hop.trim().parse::<IpAddr>()
    {
        expected = address.to_canonical();
    }
    assert_eq!(client_address(peer, &headers, &trusted), expected);
}));
