//! The log's payload: one versioned codec between [`Record`] and bytes.
//!
//! The first byte is the version of all that follows; a version once released is read for ever. What follows is
//! postcard's specified wire format of the structs below, which exist for this alone: a change of the domain or of
//! JSON can't change the disk.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    AccountId, ClickId, Conversion, ConversionId, Currency, DedupScope, GoalId, Money, OrderId, OrderKey,
    Record, Refusal, Source, UnixMillis,
};

const VERSION: u8 = 1;

/// The bytes are not a record. Behind the log's checksum this means a newer daemon wrote them, or a defect.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer version.
    #[error("payload version {0} is not known to this version of tally")]
    Version(u8),
    /// Not this format.
    #[error("payload is malformed")]
    Malformed,
}

/// Appends the record's bytes to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Conversion(conversion) => encode_conversion(conversion, out),
        Record::Refusal(refusal) => write(&RecordV1::Refusal(RefusalV1::from(refusal)), out),
    }
}

/// Appends a conversion's bytes to `out`: the hot path's way, without a [`Record`] around it.
pub fn encode_conversion(conversion: &Conversion, out: &mut Vec<u8>) {
    write(&RecordV1::Conversion(ConversionV1::from(conversion)), out);
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (&version, rest) = bytes.split_first().ok_or(DecodeError::Malformed)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (record, unread) =
        postcard::take_from_bytes::<RecordV1<'_>>(rest).map_err(|_| DecodeError::Malformed)?;
    if !unread.is_empty() {
        return Err(DecodeError::Malformed);
    }
    match record {
        RecordV1::Conversion(conversion) => conversion.read().map(Record::Conversion),
        RecordV1::Refusal(refusal) => refusal.read().map(Record::Refusal),
    }
}

fn write(record: &RecordV1<'_>, out: &mut Vec<u8>) {
    out.push(VERSION);
    // Writing to memory has no error to report; a short payload would be refused by `decode`.
    let _ = postcard::to_io(record, &mut *out);
}

#[derive(Serialize, Deserialize)]
enum RecordV1<'a> {
    #[serde(borrow)]
    Conversion(ConversionV1<'a>),
    #[serde(borrow)]
    Refusal(RefusalV1<'a>),
}

#[derive(Serialize, Deserialize)]
struct ConversionV1<'a> {
    id: u128,
    account_id: u32,
    goal_id: u32,
    order_id: &'a str,
    key: Option<(u128, bool)>,
    value_micros: u64,
    currency: &'a str,
    received_at_ms: i64,
    source: u8,
    click_id: Option<u64>,
    ip: Option<IpAddr>,
    user_agent: &'a str,
    visitor_key: u64,
    unverified: bool,
}

#[derive(Serialize, Deserialize)]
struct RefusalV1<'a> {
    account_id: u32,
    goal_id: u32,
    received_at_ms: i64,
    code: &'a str,
    field: &'a str,
    message: &'a str,
    order_id: &'a str,
    conversion_id: Option<u128>,
    original_id: Option<u128>,
    source: u8,
    request: &'a str,
}

impl<'a> From<&'a Conversion> for ConversionV1<'a> {
    fn from(from: &'a Conversion) -> Self {
        Self {
            id: from.id.0.as_u128(),
            account_id: from.account_id.0,
            goal_id: from.goal_id.0,
            order_id: from.order_id.as_ref().map_or("", OrderId::as_str),
            key: from.key.map(|(key, scope)| (key.0, scope == DedupScope::Day)),
            value_micros: from.value.micros(),
            currency: from.currency.as_str(),
            received_at_ms: from.received_at.0,
            source: source_code(from.source),
            click_id: from.click_id.map(|click| click.0),
            ip: from.ip,
            user_agent: &from.user_agent,
            visitor_key: from.visitor_key,
            unverified: from.unverified,
        }
    }
}

impl ConversionV1<'_> {
    fn read(self) -> Result<Conversion, DecodeError> {
        Ok(Conversion {
            id: ConversionId(Uuid::from_u128(self.id)),
            account_id: AccountId(self.account_id),
            goal_id: GoalId(self.goal_id),
            order_id: OrderId::parse(self.order_id).map_err(|_| DecodeError::Malformed)?,
            key: self
                .key
                .map(|(key, day)| (OrderKey(key), if day { DedupScope::Day } else { DedupScope::Forever })),
            value: Money::from_micros(self.value_micros).ok_or(DecodeError::Malformed)?,
            currency: Currency::from_stored(self.currency).map_err(|_| DecodeError::Malformed)?,
            received_at: UnixMillis(self.received_at_ms),
            source: source_of(self.source)?,
            click_id: self.click_id.map(ClickId),
            ip: self.ip,
            user_agent: self.user_agent.to_owned(),
            visitor_key: self.visitor_key,
            unverified: self.unverified,
        })
    }
}

impl<'a> From<&'a Refusal> for RefusalV1<'a> {
    fn from(from: &'a Refusal) -> Self {
        Self {
            account_id: from.account_id.0,
            goal_id: from.goal_id.0,
            received_at_ms: from.received_at.0,
            code: &from.code,
            field: &from.field,
            message: &from.message,
            order_id: &from.order_id,
            conversion_id: from.conversion_id.map(|id| id.0.as_u128()),
            original_id: from.original_id.map(|id| id.0.as_u128()),
            source: source_code(from.source),
            request: &from.request,
        }
    }
}

impl RefusalV1<'_> {
    fn read(self) -> Result<Refusal, DecodeError> {
        Ok(Refusal {
            account_id: AccountId(self.account_id),
            goal_id: GoalId(self.goal_id),
            received_at: UnixMillis(self.received_at_ms),
            code: self.code.to_owned(),
            field: self.field.to_owned(),
            message: self.message.to_owned(),
            order_id: self.order_id.to_owned(),
            conversion_id: self.conversion_id.map(|id| ConversionId(Uuid::from_u128(id))),
            original_id: self.original_id.map(|id| ConversionId(Uuid::from_u128(id))),
            source: source_of(self.source)?,
            request: self.request.to_owned(),
        })
    }
}

fn source_code(source: Source) -> u8 {
    match source {
        Source::Postback => 1,
        Source::Pixel => 2,
        Source::Api => 3,
    }
}

fn source_of(code: u8) -> Result<Source, DecodeError> {
    match code {
        1 => Ok(Source::Postback),
        2 => Ok(Source::Pixel),
        3 => Ok(Source::Api),
        _ => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn conversions()(
            id: u128, account_id: u32, goal_id: u32, order in "[A-Za-z0-9-]{0,60}", key: Option<(u128, bool)>,
            micros in 0..10u64.pow(18), at: i64, source in 1u8..=3, click: Option<u64>, ip: Option<IpAddr>,
            user_agent in ".{0,80}", visitor_key: u64, unverified: bool,
        ) -> Conversion {
            Conversion {
                id: ConversionId(Uuid::from_u128(id)),
                account_id: AccountId(account_id),
                goal_id: GoalId(goal_id),
                order_id: OrderId::parse(&order).expect("fits"),
                key: key.map(|(k, day)| (OrderKey(k), if day { DedupScope::Day } else { DedupScope::Forever })),
                value: Money::from_micros(micros).expect("18 digits"),
                currency: Currency::USD,
                received_at: UnixMillis(at),
                source: source_of(source).expect("known"),
                click_id: click.map(ClickId),
                ip, user_agent, visitor_key, unverified,
            }
        }
    }

    proptest! {
        #[test]
        fn conversions_read_back(conversion in conversions()) {
            let mut bytes = Vec::new();
            encode_conversion(&conversion, &mut bytes);
            prop_assert_eq!(decode(&bytes).expect("own bytes"), Record::Conversion(conversion));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn broken_bytes_are_answered(conversion in conversions(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = Vec::new();
            encode_conversion(&conversion, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = decode(&bytes);
        }
    }
}
