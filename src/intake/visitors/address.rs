//! Addresses that name no visitor: everybody's own, or one for many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Networks of version 4 whose addresses mean something else everywhere, or stand for many at once.
const V4: [Ipv4Net; 9] = [
    v4([0, 0, 0, 0], 8),      // this network: RFC 1122, 3.2.1.3
    v4([10, 0, 0, 0], 8),     // private: RFC 1918
    v4([100, 64, 0, 0], 10),  // shared by a carrier (CGNAT): RFC 6598
    v4([127, 0, 0, 0], 8),    // loopback: RFC 1122, 3.2.1.3
    v4([169, 254, 0, 0], 16), // link-local: RFC 3927
    v4([172, 16, 0, 0], 12),  // private: RFC 1918
    v4([192, 0, 0, 0], 24),   // protocol assignments, DS-Lite's carrier side among them: RFC 6890, RFC 6333
    v4([192, 168, 0, 0], 16), // private: RFC 1918
    v4([198, 18, 0, 0], 15),  // benchmarks inside a network: RFC 2544
];

/// The same of version 6. Addresses that embed one of version 4 are looked at as that one.
const V6: [Ipv6Net; 6] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),        // unspecified: RFC 4291, 2.5.2
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),        // loopback: RFC 4291, 2.5.3
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), // translation inside a network: RFC 8215
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),     // unique local: RFC 4193
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),    // link-local: RFC 4291, 2.5.6
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),    // site-local of old: RFC 3879
];

/// Whether the address is private, a carrier's, or this machine's: two visits from it need not be of one visitor.
/// (std's `is_global` would say so, and is not stable.)
pub(super) fn names_nobody(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => V6.iter().any(|net| net.contains(&address)),
    }
}

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(s0, s1, s2, s3, s4, s5, s6, s7), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_end_where_their_documents_say() {
        for (text, nobody) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("127.0.0.1", true),
            ("169.254.1.1", true),
            ("169.255.0.0", false),
            ("172.15.255.255", false),
            ("172.16.0.0", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.0.0.8", true),
            ("192.0.2.1", false),
            ("192.168.255.255", true),
            ("192.169.0.0", false),
            ("198.17.255.255", false),
            ("198.19.255.255", true),
            ("203.0.113.7", false),
            ("0.0.0.0", true),
            ("::", true),
            ("::1", true),
            ("::2", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:203.0.113.7", false),
            ("fbff::1", false),
            ("fc00::1", true),
            ("fdff::1", true),
            ("fe80::1", true),
            ("fec0::1", true),
            ("ff02::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(names_nobody(text.parse().expect("an address")), nobody, "{text}");
        }
    }
}
