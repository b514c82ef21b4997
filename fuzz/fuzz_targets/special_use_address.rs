//! Z07: which addresses a stranger may send us to, against a slow walk through the registries.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fuzz::judge;
use ipnet::{IpNet, Ipv6Net};
use libfuzzer_sys::fuzz_target;
use server::fetch::special_use::is_public;

/// IANA's registries of special-purpose addresses, multicast, and what was given back.
const SPECIAL: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 \
    172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 \
    198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 2001::/23 2001:db8::/32 2002::/16 \
    3fff::/20";

fn is_public_by_table(address: IpAddr) -> bool {
    let in_table = |address: IpAddr| {
        SPECIAL
            .split_whitespace()
            .any(|range| range.parse::<IpNet>().expect("a range").contains(&address))
    };
    let IpAddr::V6(v6) = address else {
        return !in_table(address);
    };
    let within = |range: &str| range.parse::<Ipv6Net>().expect("a range").contains(&v6);
    if within("64:ff9b::/96") {
        let [.., a, b, c, d] = v6.octets();
        return !in_table(Ipv4Addr::new(a, b, c, d).into());
    }
    // An IPv4 address in the interface identifier, of any network.
    let is_isatap = matches!(v6.segments()[4..6], [0 | 0x100 | 0x200 | 0x300, 0x5efe]);
    within("2000::/3") && !in_table(address) && !is_isatap
}

fuzz_target!(|input: &[u8]| judge(|| {
    if let Some(octets) = input.first_chunk::<4>() {
        let address = Ipv4Addr::from(*octets);
        assert_eq!(
            is_public(address.into()),
            is_public_by_table(address.into()),
            "{address}"
        );
        // However it is wrapped, a special address stays out, and so does a public one that
        // nobody would wrap.
        let bits = u128::from(address.to_bits());
        for wrapped in [
            bits,
            0xffff_0000_0000 | bits,
            (0x2002 << 112) | (bits << 80),
        ] {
            assert!(!is_public(Ipv6Addr::from_bits(wrapped).into()), "{address}");
        }
    }
    if let Some(octets) = input.first_chunk::<16>() {
        let address = IpAddr::from(Ipv6Addr::from(*octets));
        assert_eq!(is_public(address), is_public_by_table(address), "{address}");
    }
}));
