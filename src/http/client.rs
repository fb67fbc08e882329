//! Who is calling: the visitor's address behind proxies, and the account behind a key.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};
use ipnet::IpNet;

use super::error::{ApiError, ErrorCode};
use crate::{catalog::Snapshot, core::AccountId};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The caller's address: the peer's, or behind trusted proxies the right-most one of `X-Forwarded-For` that is not
/// one of them. What stands to the left of it was written by the caller and proves nothing.
pub(super) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer.to_canonical();
    if trusted.is_empty() {
        return nearest;
    }
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let hops = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.to_str().unwrap_or("?").rsplit(',').map(hop));
    for hop in hops {
        match hop {
            Some(address) if is_trusted(nearest) => nearest = address,
            _ => break,
        }
    }
    nearest
}

/// One entry: an address, perhaps with a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|a: IpAddr| a.to_canonical())
}

/// The account whose key the request carries.
pub(super) fn account(snapshot: &Snapshot, headers: &HeaderMap) -> Result<AccountId, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = value.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    key.and_then(|key| snapshot.authenticate(key)).ok_or_else(|| ErrorCode::Unauthorized.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, line.parse().expect("a value"));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().expect("a network")).collect();
        address(peer.parse().expect("an address"), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let lan = &["10.0.0.0/8"];
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"], &[]), "203.0.113.9");
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"], lan), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1"], lan), "198.51.100.1");
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"], lan),
            "198.51.100.1",
            "1.1.1.1 is made up"
        );
        assert_eq!(seen("10.0.0.1", &["1.1.1.1", "198.51.100.1"], lan), "198.51.100.1", "two lines");
        assert_eq!(seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"], lan), "10.0.0.3", "all trusted");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1, unknown"], lan), "10.0.0.1", "garbage ends the chain");
        assert_eq!(seen("10.0.0.1", &["198.51.100.1:4711"], lan), "198.51.100.1");
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:4711"], lan), "2001:db8::1");
        assert_eq!(seen("::ffff:10.0.0.1", &["[2001:db8::1]"], lan), "2001:db8::1");
        assert_eq!(seen("10.0.0.1", &[], lan), "10.0.0.1");
    }
}
