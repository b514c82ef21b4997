//! Whose request it is: the peer's address, unless the peer is a proxy that the operator trusts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client: of a trusted peer's `X-Forwarded-For`, the right-most address that
/// is not itself a trusted proxy's. Whatever stands left of it, anybody could have written.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let mut nearest = peer;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in value.to_str().unwrap_or_default().rsplit(',') {
            let Some(address) = address(hop.trim()) else {
                return nearest;
            };
            nearest = address.to_canonical();
            if !is_trusted(nearest) {
                return nearest;
            }
        }
    }
    nearest
}

/// An address as proxies write it: some with the port, some with brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<SocketAddr>().ok().map(|it| it.ip());
    let in_brackets = || {
        hop.strip_prefix('[')?
            .strip_suffix(']')?
            .parse::<Ipv6Addr>()
            .ok()
    };
    let plain = hop.parse().ok();
    plain
        .or_else(with_port)
        .or_else(|| in_brackets().map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn address_of(peer: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(value));
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn s1_09_a_stranger_cannot_name_another_address() {
        assert_eq!(address_of("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_names_the_right_most_untrusted_address() {
        assert_eq!(address_of("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            address_of("::ffff:10.0.0.1", &["198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            address_of("10.0.0.1", &["6.6.6.6, 198.51.100.7, 10.2.3.4"]),
            "198.51.100.7"
        );
        assert_eq!(
            address_of("10.0.0.1", &["6.6.6.6", "198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(address_of("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
    }

    #[test]
    fn an_address_is_known_with_its_port_and_in_brackets() {
        for (forwarded, address) in [
            ("198.51.100.7:5678", "198.51.100.7"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:5678", "2001:db8::1"),
            ("6.6.6.6, 198.51.100.7:1, 10.2.3.4:2", "198.51.100.7"),
            ("[198.51.100.7]", "10.0.0.1"),
            ("198.51.100.7:", "10.0.0.1"),
        ] {
            assert_eq!(address_of("10.0.0.1", &[forwarded]), address, "{forwarded}");
        }
    }

    #[test]
    fn garbage_ends_the_search_at_the_last_good_address() {
        assert_eq!(
            address_of("10.0.0.1", &["198.51.100.7, unknown"]),
            "10.0.0.1"
        );
        assert_eq!(
            address_of("10.0.0.1", &["198.51.100.7, fe80::1%eth0, 10.9.9.9"]),
            "10.9.9.9"
        );
        assert_eq!(address_of("10.0.0.1", &[]), "10.0.0.1");
    }
}
