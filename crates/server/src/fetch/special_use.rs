//! Which addresses belong to the public internet, and which to a private or special use
//! (RFC 6890 and the registries that it started).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a stranger may have us connect to `address`.
///
/// IPv6 is judged the other way round than IPv4: only what is given out for general use is public.
/// No form that hides an IPv4 address is, except the one that a NAT64 network answers with for
/// every public IPv4 host (RFC 6052 §3.1): there the hidden address decides.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

#[expect(
    clippy::unnested_or_patterns,
    reason = "each range stands as its registry has it"
)]
fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        // This network, private, loopback.
        [0 | 10 | 127, ..]
        // Shared by customers of a provider (RFC 6598).
        | [100, 64..=127, ..]
        // Link-local, where clouds keep their metadata.
        | [169, 254, ..]
        | [172, 16..=31, ..]
        // Protocol assignments, documentation.
        | [192, 0, 0 | 2, _]
        // Relays of 6to4.
        | [192, 88, 99, _]
        | [192, 168, ..]
        // Benchmarks.
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        // Multicast, reserved, broadcast.
        | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // ISATAP in any network: an IPv4 address behind a mark (RFC 5214 §6.1).
        [_, _, _, _, mark, 0x5efe, ..] if mark & !0x0300 == 0 => false,
        // Protocol assignments, Teredo among them; documentation; 6to4; documentation again.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use ipnet::{IpNet, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    /// Each special range as its registry writes it.
    const SPECIAL: [&str; 30] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001::/32",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];

    /// The plain reading: a walk through the table.
    fn is_public_by_table(address: IpAddr) -> bool {
        let in_table = SPECIAL
            .iter()
            .any(|range| range.parse::<IpNet>().unwrap().contains(&address));
        let IpAddr::V6(v6) = address else {
            return !in_table;
        };
        let nat64: Ipv6Net = "64:ff9b::/96".parse().unwrap();
        if nat64.contains(&v6) {
            let hidden = Ipv4Addr::from_bits(u32::try_from(v6.to_bits() & 0xffff_ffff).unwrap());
            return is_public_by_table(hidden.into());
        }
        let interface = format!("{:016x}", v6.to_bits() & u128::from(u64::MAX));
        let isatap = ["00005efe", "01005efe", "02005efe", "03005efe"];
        let unicast: Ipv6Net = "2000::/3".parse().unwrap();
        unicast.contains(&v6) && !in_table && !isatap.contains(&&interface[..8])
    }

    /// CIM-06
    // N-CI-13
    #[test]
    fn cim_06_every_special_range_is_refused_from_its_first_to_its_last_address() {
        for range in SPECIAL {
            let range: IpNet = range.parse().unwrap();
            for address in [range.network(), range.broadcast()] {
                assert!(!is_public(address), "{address}");
            }
        }
    }

    /// CIM-06: each special IPv4 range in each form that hides it.
    #[test]
    fn cim_06_a_hidden_private_address_is_refused() {
        for range in SPECIAL {
            let Ok(IpNet::V4(range)) = range.parse() else {
                continue;
            };
            for hidden in [range.network(), range.broadcast()] {
                let bits = u128::from(hidden.to_bits());
                for form in [
                    bits,
                    0xffff_0000_0000 | bits,
                    0xffff_0000_0000_0000 | bits,
                    (0x0064_ff9b << 96) | bits,
                    (0x0064_ff9b_0001 << 80) | bits,
                    (0x2002 << 112) | (bits << 80) | 1,
                    (0x2001 << 112) | (!bits & 0xffff_ffff),
                    (0x2606_4700 << 96) | (0x5efe << 32) | bits,
                    (0x2606_4700 << 96) | (0x0200_5efe << 32) | bits,
                ] {
                    let form = Ipv6Addr::from_bits(form);
                    assert!(!is_public(form.into()), "{hidden} as {form}");
                }
            }
        }
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "160.79.104.10",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::6810:1",
            "3ffe::1",
            "3fff:1000::1",
            "64:ff9b::1.1.1.1",
            "2606:4700::1:5efe:1:1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    /// Addresses everywhere, and more of them where the edges are.
    fn near_an_edge() -> impl Strategy<Value = u128> {
        let ranges: Vec<u128> = SPECIAL
            .iter()
            .filter_map(|range| match range.parse().unwrap() {
                IpNet::V4(_) => None,
                IpNet::V6(range) => Some(range.network().to_bits()),
            })
            .chain([0x2000 << 112, 0x4000 << 112, 0x0064_ff9b << 96])
            .collect();
        let edge = prop::sample::select(ranges);
        (edge, any::<u128>(), 0..128_u32, any::<bool>()).prop_map(|(edge, noise, shift, below)| {
            let noise = noise >> shift;
            if below {
                edge.wrapping_sub(noise)
            } else {
                edge.wrapping_add(noise)
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn cim_06_the_quick_reading_is_the_plain_one_for_ipv4(bits: u32) {
            let address = IpAddr::from(Ipv4Addr::from_bits(bits));
            prop_assert_eq!(is_public(address), is_public_by_table(address));
        }

        #[test]
        fn cim_06_the_quick_reading_is_the_plain_one_for_ipv6(bits in prop_oneof![any::<u128>(), near_an_edge()]) {
            let address = IpAddr::from(Ipv6Addr::from_bits(bits));
            prop_assert_eq!(is_public(address), is_public_by_table(address));
        }

        #[test]
        fn cim_06_a_mark_of_isatap_is_seen_in_every_network(network: u64, mark in 0..5_u128, hidden: u32) {
            let interface = (mark << 56) | (0x5efe << 32) | u128::from(hidden);
            let address = IpAddr::from(Ipv6Addr::from_bits((u128::from(network) << 64) | interface));
            prop_assert_eq!(is_public(address), is_public_by_table(address));
        }
    }

    /// Every IPv4 network of 16 bits, and of 24 where a range is that small.
    #[test]
    fn cim_06_the_quick_reading_is_the_plain_one_for_every_ipv4_network() {
        let special: Vec<IpNet> = SPECIAL.iter().map(|range| range.parse().unwrap()).collect();
        let wide = (0..1 << 16_u32).map(|network| network << 16);
        let narrow = [192, 198, 203]
            .into_iter()
            .flat_map(|first: u32| (0..1 << 16_u32).map(move |rest| (first << 24) | (rest << 8)));
        for bits in wide.chain(narrow) {
            let address = IpAddr::from(Ipv4Addr::from_bits(bits));
            let in_table = special.iter().any(|range| range.contains(&address));
            assert_eq!(is_public(address), !in_table, "{address}");
        }
    }
}
