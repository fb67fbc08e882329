//! Entries for the fuzz targets: what strangers send to the public listener.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use std::net::{IpAddr, Ipv4Addr};

use hyper::{HeaderMap, header::HeaderValue};

pub use super::track::fuzz::hit;
use super::{bulk, client, fields, json};
use crate::core::UnixMillis;

/// Bytes as a body of the API, as lines of a bulk call, as the fields that calls share, and as a proxy's header.
pub fn api_input(data: &[u8]) {
    if let Ok(text) = json::text(data) {
        for (_, raw) in json::object(text).unwrap_or_default() {
            let _ = json::scalar(raw);
        }
        let now = UnixMillis(1_768_996_800_000);
        let _ = (fields::time("t", text, now, 400), fields::address("ip", text), fields::click_id(text));
        assert!(fields::user_agent(text).len() <= 512);
        if bulk::is_bulk(Some(text), data) {
            let lines = bulk::lines(data).unwrap_or_default();
            assert!(lines.iter().map(|line| line.bytes.len()).sum::<usize>() <= data.len());
        }
    }
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let trusted = ["127.0.0.0/8".parse().expect("a network")];
        let _ = client::address(peer, &HeaderMap::from_iter([(client::X_FORWARDED_FOR, value)]), &trusted);
    }
}
