//! How much of a visitor's address is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the daemon keeps of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpStorage {
    /// Its network: /24 of IPv4, /48 of IPv6.
    #[default]
    Truncated,
    /// All of it.
    Full,
    /// Nothing.
    None,
}

impl IpStorage {
    /// The mode of that public name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "truncated" => Some(Self::Truncated),
            "full" => Some(Self::Full),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    /// The part of `address` that may be kept.
    #[must_use]
    pub fn keep(self, address: IpAddr) -> Option<IpAddr> {
        match (self, address.to_canonical()) {
            (Self::None, _) => None,
            (Self::Full, address) => Some(address),
            (Self::Truncated, IpAddr::V4(v4)) => {
                Some(Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << 8)).into())
            }
            (Self::Truncated, IpAddr::V6(v6)) => {
                Some(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_the_mode_allows() {
        let keep = |mode: IpStorage, text: &str| {
            mode.keep(text.parse().expect("an address")).map(|kept| kept.to_string())
        };
        assert_eq!(keep(IpStorage::Truncated, "203.0.113.77").as_deref(), Some("203.0.113.0"));
        assert_eq!(keep(IpStorage::Truncated, "::ffff:203.0.113.77").as_deref(), Some("203.0.113.0"));
        assert_eq!(keep(IpStorage::Truncated, "2001:db8:1:2:3::4").as_deref(), Some("2001:db8:1::"));
        assert_eq!(keep(IpStorage::Full, "203.0.113.77").as_deref(), Some("203.0.113.77"));
        assert_eq!(keep(IpStorage::None, "203.0.113.77"), None);
    }
}
