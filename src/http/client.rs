//! Who is calling: the visitor's address behind proxies, and the account behind a key.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
    http::{request::Parts, uri::Authority},
};
use ipnet::IpNet;

use super::error::{ApiError, ErrorCode};
use crate::{catalog::Snapshot, core::AccountId};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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

/// Scheme, host and port under which the caller reached this daemon: by its Host header, and by what the nearest
/// trusted proxy says of the scheme. Empty where the header is none; what follows is then an address on this host.
pub(super) fn base_url(peer: IpAddr, head: &Parts, trusted: &[IpNet]) -> String {
    // A target with a host counts, whatever `Host` says. (RFC 9112, 3.2.2)
    let host = head.uri.authority().map(Authority::as_str);
    let host = host.or_else(|| head.headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    let fits = |host: &Authority| !host.host().is_empty() && !host.as_str().contains('@');
    let Some(host) = host.parse::<Authority>().ok().filter(fits) else { return String::new() };
    let peer = peer.to_canonical();
    let proxied = trusted.iter().any(|network| network.contains(&peer));
    let said = head.headers.get_all(X_FORWARDED_PROTO).iter().next_back().filter(|_| proxied);
    let said = said.and_then(|value| value.to_str().ok()?.rsplit(',').next()).unwrap_or_default();
    let scheme = if said.trim().eq_ignore_ascii_case("https") { "https" } else { "http" };
    format!("{scheme}://{host}")
}

/// The account whose key the request carries.
pub(super) fn account(snapshot: &Snapshot, headers: &HeaderMap) -> Result<AccountId, ApiError> {
    key(headers).and_then(|key| snapshot.authenticate(key)).ok_or_else(|| ErrorCode::Unauthorized.into())
}

/// Whoever runs the daemon: the request carries the first key of all.
pub(super) fn operator(snapshot: &Snapshot, headers: &HeaderMap) -> Result<(), ApiError> {
    account(snapshot, headers)?;
    let first = key(headers).is_some_and(|key| snapshot.is_first_key(key));
    if first { Ok(()) } else { Err(ErrorCode::FirstKeyRequired.into()) }
}

fn key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, key) = value?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_called_as_its_owner_called_this() {
        let base = |host: &str, proto: &[&str], trusted: &[&str]| {
            let mut request = hyper::Request::builder().uri("/api/v1/links").header("host", host);
            for proto in proto {
                request = request.header("x-forwarded-proto", *proto);
            }
            let (head, ()) = request.body(()).expect("a request").into_parts();
            let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().expect("a network")).collect();
            base_url("10.0.0.1".parse().expect("an address"), &head, &trusted)
        };
        let lan = &["10.0.0.0/8"];
        assert_eq!(base("go.example", &[], lan), "http://go.example");
        assert_eq!(base("go.example:8080", &["https"], lan), "https://go.example:8080");
        assert_eq!(base("[2001:db8::1]:80", &["http", "HTTPS"], lan), "https://[2001:db8::1]:80");
        assert_eq!(base("go.example", &["http, https"], lan), "https://go.example");
        assert_eq!(base("go.example", &["https"], &[]), "http://go.example", "nobody's proxy");
        assert_eq!(base("go.example", &["javascript"], lan), "http://go.example");
        for host in ["", "a b", "a/b", "u@go.example", "<script>", "a?b"] {
            assert_eq!(base(host, &["https"], lan), "", "{host}");
        }
    }

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
