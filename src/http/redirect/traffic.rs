//! Who follows a link: a person, a robot, or a browser that looks ahead; and the same visitor again.

use std::{hash::Hasher as _, net::IpAddr};

use hyper::{HeaderMap, Method};
use siphasher::sip::SipHasher13;

use crate::{
    core::{LinkId, Traffic, is_bot},
    http::track::browser,
};

/// What follows the link. A robot stays one when it looks ahead.
pub(super) fn of(method: &Method, headers: &HeaderMap, user_agent: &str) -> Traffic {
    if is_bot(user_agent) {
        Traffic::Bot
    } else if *method == Method::HEAD || browser::is_looking_ahead(headers) {
        Traffic::Prefetch
    } else {
        Traffic::Human
    }
}

/// A number that is the same whenever this visitor follows this link, also after a restart, and unrelated to the one at
/// another link. It chooses what is shown, is kept nowhere, and so needs no secret.
pub(super) fn visitor(link: LinkId, ip: IpAddr, user_agent: &str) -> u64 {
    let ip = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut hasher = SipHasher13::new();
    hasher.write(&link.0.to_le_bytes());
    hasher.write(&ip.octets());
    hasher.write(user_agent.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";

    #[test]
    fn people_robots_and_browsers_that_look_ahead_are_told_apart() {
        let mut ahead = HeaderMap::new();
        ahead.insert("sec-purpose", "prefetch;prerender".parse().expect("a value"));
        let none = HeaderMap::new();
        for (method, headers, agent, traffic) in [
            (Method::GET, &none, FIREFOX, Traffic::Human),
            (Method::GET, &none, "", Traffic::Human),
            (Method::HEAD, &none, FIREFOX, Traffic::Prefetch),
            (Method::GET, &ahead, FIREFOX, Traffic::Prefetch),
            (Method::GET, &none, "Twitterbot/1.0", Traffic::Bot),
            (Method::HEAD, &ahead, "Twitterbot/1.0", Traffic::Bot),
        ] {
            assert_eq!(of(&method, headers, agent), traffic, "{method} {agent}");
        }
    }

    /// These numbers choose variants: another version of tally must come to the same ones.
    #[test]
    fn a_visitor_stays_the_same() {
        let number = |link, ip: &str, agent| visitor(LinkId(link), ip.parse().expect("an address"), agent);
        let first = number(1, "203.0.113.7", FIREFOX);
        assert_eq!(first, number(1, "::ffff:203.0.113.7", FIREFOX));
        assert_ne!(first, number(2, "203.0.113.7", FIREFOX));
        assert_ne!(first, number(1, "203.0.113.8", FIREFOX));
        assert_ne!(first, number(1, "203.0.113.7", "curl/8"));
        assert_eq!(first % 1000, 335);
    }

    #[test]
    fn visitors_spread_evenly() {
        let mut counts = [0_u32; 4];
        for host in 0..4000_u32 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from_bits(0xCB00_0000 + host));
            counts[usize::try_from(visitor(LinkId(1), ip, FIREFOX) % 4).expect("small")] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }
}
