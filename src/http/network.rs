//! What counts as one caller where callers get shares.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// An address, and of IPv6 the network that one customer gets: /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network(IpAddr);

impl Network {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }

    /// Whether it is in one of these, or one of these is in it.
    pub(super) fn is_in(self, networks: &[IpNet]) -> bool {
        networks.iter().any(|network| network.contains(&self.0) || Self::of(network.addr()) == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Network {
        Network::of(text.parse().expect("an address"))
    }

    #[test]
    fn neighbours_in_one_network_are_one_caller() {
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:203.0.113.1"), of("203.0.113.1"));
        assert_ne!(of("203.0.113.2"), of("203.0.113.1"));
    }

    #[test]
    fn a_network_is_trusted_as_it_was_named() {
        let trusted = ["10.0.0.0/8", "2001:db8::7/128"].map(|network| network.parse().expect("a network"));
        assert!(of("10.1.2.3").is_in(&trusted) && of("2001:db8::7").is_in(&trusted));
        assert!(!of("11.0.0.1").is_in(&trusted) && !of("2001:db8:0:1::7").is_in(&trusted));
    }
}
