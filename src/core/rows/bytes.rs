//! Values in `RowBinary`.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use super::RowError;
use crate::core::{Currency, Money, Source, UnixMillis};

/// ClickHouse keeps a UUID as two 64-bit halves, each little-endian.
pub(super) fn put_uuid(out: &mut Vec<u8>, id: Uuid) {
    let (high, low) = id.as_u64_pair();
    out.extend_from_slice(&high.to_le_bytes());
    out.extend_from_slice(&low.to_le_bytes());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// An unsigned LEB128.
pub(super) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(super) fn put_time(out: &mut Vec<u8>, at: UnixMillis) {
    out.extend_from_slice(&at.0.to_le_bytes());
}

pub(super) fn put_address(out: &mut Vec<u8>, ip: Option<IpAddr>) {
    let address = match ip {
        None => Ipv6Addr::UNSPECIFIED,
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
    };
    out.extend_from_slice(&address.octets());
}

/// The number of `source` in the schema's enum.
pub(super) fn put_source(out: &mut Vec<u8>, source: Source) {
    out.push(match source {
        Source::Postback => 1,
        Source::Pixel => 2,
        Source::Api => 3,
    });
}

pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], RowError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(RowError)?;
    *bytes = rest;
    Ok(*head)
}

pub(super) fn take_u32(bytes: &mut &[u8]) -> Result<u32, RowError> {
    Ok(u32::from_le_bytes(take(bytes)?))
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Result<u64, RowError> {
    Ok(u64::from_le_bytes(take(bytes)?))
}

pub(super) fn take_bool(bytes: &mut &[u8]) -> Result<bool, RowError> {
    match take(bytes)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(RowError),
    }
}

pub(super) fn take_time(bytes: &mut &[u8]) -> Result<UnixMillis, RowError> {
    Ok(UnixMillis(i64::from_le_bytes(take(bytes)?)))
}

pub(super) fn take_uuid(bytes: &mut &[u8]) -> Result<Uuid, RowError> {
    Ok(Uuid::from_u64_pair(take_u64(bytes)?, take_u64(bytes)?))
}

pub(super) fn take_text(bytes: &mut &[u8]) -> Result<String, RowError> {
    let length = take_length(bytes)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(RowError)?;
    *bytes = rest;
    std::str::from_utf8(text).map(str::to_owned).map_err(|_| RowError)
}

pub(super) fn take_length(bytes: &mut &[u8]) -> Result<usize, RowError> {
    let mut length = 0usize;
    for shift in (0..28).step_by(7) {
        let [byte] = take(bytes)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(RowError)
}

pub(super) fn take_address(bytes: &mut &[u8]) -> Result<Option<IpAddr>, RowError> {
    let ip = Ipv6Addr::from(take::<16>(bytes)?);
    Ok((!ip.is_unspecified()).then(|| IpAddr::V6(ip).to_canonical()))
}

pub(super) fn take_source(bytes: &mut &[u8]) -> Result<Source, RowError> {
    match take(bytes)? {
        [1] => Ok(Source::Postback),
        [2] => Ok(Source::Pixel),
        [3] => Ok(Source::Api),
        _ => Err(RowError),
    }
}

pub(super) fn take_money(bytes: &mut &[u8]) -> Result<Money, RowError> {
    Money::from_micros(take_u64(bytes)?).ok_or(RowError)
}

pub(super) fn take_currency(bytes: &mut &[u8]) -> Result<Currency, RowError> {
    Currency::from_stored(&take_text(bytes)?).map_err(|_| RowError)
}
