//! Rows as ClickHouse takes them: `RowBinary`, by hand, for the tables that the shipper writes.
//!
//! The order of the columns here and in [`Table::columns`] is one thing; the schema's own order does not matter. The
//! encoding is deterministic: the same record and batch give the same bytes, which is what exactly-once rests on.
//! Reading back serves a refused row, which must become something that a person can read.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use super::{
    AccountId, BatchId, ClickId, Conversion, ConversionId, Currency, DedupScope, GoalId, Money, OrderId,
    OrderKey, Record, Refusal, Source, UnixMillis,
};

/// A table that the shipper inserts into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Conversions that count.
    Conversions,
    /// Refused hits and duplicates.
    Rejections,
}

impl Table {
    /// Its name in ClickHouse.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conversions => "conversions",
            Self::Rejections => "rejections",
        }
    }

    /// The columns of a row, in the order in which they are encoded.
    #[must_use]
    pub fn columns(self) -> &'static str {
        match self {
            Self::Conversions => {
                "conversion_id, account_id, goal_id, order_id, order_key, key_scope, value, currency, received_at, \
                 source, click_id, ip, user_agent, visitor_key, batch_id"
            }
            Self::Rejections => {
                "account_id, goal_id, received_at, code, field, message, order_id, conversion_id, original_id, source, \
                 request, batch_id"
            }
        }
    }
}

/// The bytes are not rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not rows of this table")]
pub struct RowError;

/// Appends a conversion's row to `out`.
pub fn encode_conversion(conversion: &Conversion, batch: BatchId, out: &mut Vec<u8>) {
    put_uuid(out, conversion.id.0);
    out.extend_from_slice(&conversion.account_id.0.to_le_bytes());
    out.extend_from_slice(&conversion.goal_id.0.to_le_bytes());
    put_text(out, conversion.order_id.as_ref().map_or("", OrderId::as_str));
    let (key, scope) = match conversion.key {
        None => (0, 0),
        Some((key, DedupScope::Forever)) => (key.0, 1),
        Some((key, DedupScope::Day)) => (key.0, 2),
    };
    out.extend_from_slice(&key.to_le_bytes());
    out.push(scope);
    out.extend_from_slice(&conversion.value.micros().to_le_bytes());
    put_text(out, conversion.currency.as_str());
    out.extend_from_slice(&conversion.received_at.0.to_le_bytes());
    out.push(source_code(conversion.source));
    out.extend_from_slice(&conversion.click_id.map_or(0, |click| click.0).to_le_bytes());
    out.extend_from_slice(&address(conversion.ip).octets());
    put_text(out, &conversion.user_agent);
    out.extend_from_slice(&conversion.visitor_key.to_le_bytes());
    out.extend_from_slice(&batch.0.to_le_bytes());
}

/// Appends a refusal's row to `out`.
pub fn encode_rejection(refusal: &Refusal, batch: BatchId, out: &mut Vec<u8>) {
    out.extend_from_slice(&refusal.account_id.0.to_le_bytes());
    out.extend_from_slice(&refusal.goal_id.0.to_le_bytes());
    out.extend_from_slice(&refusal.received_at.0.to_le_bytes());
    put_text(out, &refusal.code);
    put_text(out, &refusal.field);
    put_text(out, &refusal.message);
    put_text(out, &refusal.order_id);
    put_uuid(out, refusal.conversion_id.map_or(Uuid::nil(), |id| id.0));
    put_uuid(out, refusal.original_id.map_or(Uuid::nil(), |id| id.0));
    out.push(source_code(refusal.source));
    put_text(out, &refusal.request);
    out.extend_from_slice(&batch.0.to_le_bytes());
}

/// Takes the first row off `bytes` and reads it back. What a row does not hold comes back as its absence: whether the
/// conversion was unverified, and that an IPv4 address was given as a mapped IPv6 one.
pub fn decode(table: Table, bytes: &mut &[u8]) -> Result<Record, RowError> {
    match table {
        Table::Conversions => decode_conversion(bytes).map(Record::Conversion),
        Table::Rejections => decode_rejection(bytes).map(Record::Refusal),
    }
}

fn decode_conversion(bytes: &mut &[u8]) -> Result<Conversion, RowError> {
    let id = ConversionId(take_uuid(bytes)?);
    let account_id = AccountId(u32::from_le_bytes(take(bytes)?));
    let goal_id = GoalId(u32::from_le_bytes(take(bytes)?));
    let order_id = OrderId::parse(&take_text(bytes)?).map_err(|_| RowError)?;
    let key = OrderKey(u128::from_le_bytes(take(bytes)?));
    let key = match take::<1>(bytes)? {
        [0] => None,
        [1] => Some((key, DedupScope::Forever)),
        [2] => Some((key, DedupScope::Day)),
        _ => return Err(RowError),
    };
    let value = Money::from_micros(u64::from_le_bytes(take(bytes)?)).ok_or(RowError)?;
    let currency = Currency::from_stored(&take_text(bytes)?).map_err(|_| RowError)?;
    let received_at = UnixMillis(i64::from_le_bytes(take(bytes)?));
    let source = source_of(take(bytes)?)?;
    let click_id = Some(u64::from_le_bytes(take(bytes)?)).filter(|click| *click != 0).map(ClickId);
    let ip = Ipv6Addr::from(take::<16>(bytes)?);
    let ip = (!ip.is_unspecified()).then(|| IpAddr::V6(ip).to_canonical());
    let user_agent = take_text(bytes)?;
    let visitor_key = u64::from_le_bytes(take(bytes)?);
    take::<8>(bytes)?;
    Ok(Conversion {
        id,
        account_id,
        goal_id,
        order_id,
        key,
        value,
        currency,
        received_at,
        source,
        click_id,
        ip,
        user_agent,
        visitor_key,
        unverified: false,
    })
}

fn decode_rejection(bytes: &mut &[u8]) -> Result<Refusal, RowError> {
    let refusal = Refusal {
        account_id: AccountId(u32::from_le_bytes(take(bytes)?)),
        goal_id: GoalId(u32::from_le_bytes(take(bytes)?)),
        received_at: UnixMillis(i64::from_le_bytes(take(bytes)?)),
        code: take_text(bytes)?,
        field: take_text(bytes)?,
        message: take_text(bytes)?,
        order_id: take_text(bytes)?,
        conversion_id: Some(take_uuid(bytes)?).filter(|id| !id.is_nil()).map(ConversionId),
        original_id: Some(take_uuid(bytes)?).filter(|id| !id.is_nil()).map(ConversionId),
        source: source_of(take(bytes)?)?,
        request: take_text(bytes)?,
    };
    take::<8>(bytes)?;
    Ok(refusal)
}

/// ClickHouse keeps a UUID as two 64-bit halves, each little-endian.
fn put_uuid(out: &mut Vec<u8>, id: Uuid) {
    let (high, low) = id.as_u64_pair();
    out.extend_from_slice(&high.to_le_bytes());
    out.extend_from_slice(&low.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    loop {
        let [low, ..] = length.to_le_bytes();
        length >>= 7;
        if length == 0 {
            out.push(low & 0x7f);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(text.as_bytes());
}

fn address(ip: Option<IpAddr>) -> Ipv6Addr {
    match ip {
        None => Ipv6Addr::UNSPECIFIED,
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
        Some(IpAddr::V6(v6)) => v6,
    }
}

/// The number of `source` in the schema's enum.
fn source_code(source: Source) -> u8 {
    match source {
        Source::Postback => 1,
        Source::Pixel => 2,
        Source::Api => 3,
    }
}

fn source_of(code: [u8; 1]) -> Result<Source, RowError> {
    match code {
        [1] => Ok(Source::Postback),
        [2] => Ok(Source::Pixel),
        [3] => Ok(Source::Api),
        _ => Err(RowError),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], RowError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(RowError)?;
    *bytes = rest;
    Ok(*head)
}

fn take_uuid(bytes: &mut &[u8]) -> Result<Uuid, RowError> {
    Ok(Uuid::from_u64_pair(u64::from_le_bytes(take(bytes)?), u64::from_le_bytes(take(bytes)?)))
}

fn take_text(bytes: &mut &[u8]) -> Result<String, RowError> {
    let mut length = 0usize;
    for shift in (0..28).step_by(7) {
        let [byte] = take(bytes)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (text, rest) = bytes.split_at_checked(length).ok_or(RowError)?;
            *bytes = rest;
            return std::str::from_utf8(text).map(str::to_owned).map_err(|_| RowError);
        }
    }
    Err(RowError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BATCH: BatchId = BatchId(7);

    prop_compose! {
        fn conversions()(
            id: u128, account: u32, goal: u32, order in "[A-Za-z0-9-]{0,200}", key in 1u128.., scope in 0u8..3,
            micros in 0..10u64.pow(18), at: i64, source in 1u8..=3, click: u64, ip: Option<std::net::Ipv4Addr>,
            user_agent in ".{0,200}", visitor_key: u64,
        ) -> Conversion {
            Conversion {
                id: ConversionId(Uuid::from_u128(id)),
                account_id: AccountId(account),
                goal_id: GoalId(goal),
                order_id: OrderId::parse(&order).expect("fits"),
                key: match scope {
                    0 => None,
                    1 => Some((OrderKey(key), DedupScope::Forever)),
                    _ => Some((OrderKey(key), DedupScope::Day)),
                },
                value: Money::from_micros(micros).expect("18 digits"),
                currency: Currency::USD,
                received_at: UnixMillis(at),
                source: source_of([source]).expect("known"),
                click_id: Some(click).filter(|click| *click != 0).map(ClickId),
                ip: ip.map(IpAddr::V4),
                user_agent,
                visitor_key,
                unverified: false,
            }
        }
    }

    prop_compose! {
        fn refusals()(
            account: u32, goal: u32, at: i64, code in "[a-z_]{1,30}", message in ".{0,200}", id: Option<u128>,
            original: Option<u128>, request in ".{0,300}",
        ) -> Refusal {
            let id_of = |id: u128| ConversionId(Uuid::from_u128(id.max(1)));
            Refusal {
                account_id: AccountId(account),
                goal_id: GoalId(goal),
                received_at: UnixMillis(at),
                code,
                field: String::new(),
                message,
                order_id: "A-1".into(),
                conversion_id: id.map(id_of),
                original_id: original.map(id_of),
                source: Source::Pixel,
                request,
            }
        }
    }

    proptest! {
        #[test]
        fn rows_read_back_one_after_the_other(conversion in conversions(), refusal in refusals()) {
            let mut bytes = Vec::new();
            encode_conversion(&conversion, BATCH, &mut bytes);
            encode_conversion(&conversion, BATCH, &mut bytes);
            let mut rest = &bytes[..];
            for _ in 0..2 {
                prop_assert_eq!(decode(Table::Conversions, &mut rest), Ok(Record::Conversion(conversion.clone())));
            }
            prop_assert!(rest.is_empty());

            bytes.clear();
            encode_rejection(&refusal, BATCH, &mut bytes);
            let mut rest = &bytes[..];
            prop_assert_eq!(decode(Table::Rejections, &mut rest), Ok(Record::Refusal(refusal)));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(Table::Conversions, &mut &bytes[..]);
            let _ = decode(Table::Rejections, &mut &bytes[..]);
        }
    }
}
