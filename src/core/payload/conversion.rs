//! A conversion's bytes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DecodeError;
use crate::core::{
    AccountId, ClickId, Conversion, ConversionId, Currency, DedupScope, GoalId, Matching, Money, OrderId,
    OrderKey, Source, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ConversionV1<'a> {
    id: u128,
    account_id: u32,
    goal_id: u32,
    order_id: &'a str,
    key: Option<(u128, bool)>,
    value_micros: u64,
    currency: &'a str,
    received_at_ms: i64,
    /// Before `received_at_ms`: nearly always 0, which is one byte.
    converted_before_ms: i64,
    window_seconds: u32,
    source: u8,
    click_id: Option<u64>,
    ip: Option<IpAddr>,
    user_agent: &'a str,
    visitor_key: u64,
    #[serde(borrow)]
    matching: MatchingV1<'a>,
    unverified: bool,
}

#[derive(Serialize, Deserialize)]
enum MatchingV1<'a> {
    Unknown,
    PrivateAddress,
    #[serde(borrow)]
    Keys(std::borrow::Cow<'a, [u64]>),
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
            converted_before_ms: from.received_at.0.wrapping_sub(from.converted_at.0),
            window_seconds: from.window_seconds,
            source: source_code(from.source),
            click_id: from.click_id.map(|click| click.0),
            ip: from.ip,
            user_agent: &from.user_agent,
            visitor_key: from.visitor_key,
            matching: match &from.matching {
                Matching::Unknown => MatchingV1::Unknown,
                Matching::PrivateAddress => MatchingV1::PrivateAddress,
                Matching::Keys(keys) => MatchingV1::Keys(keys.as_slice().into()),
            },
            unverified: from.unverified,
        }
    }
}

impl ConversionV1<'_> {
    pub(super) fn read(self) -> Result<Conversion, DecodeError> {
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
            converted_at: UnixMillis(self.received_at_ms.wrapping_sub(self.converted_before_ms)),
            window_seconds: self.window_seconds,
            source: source_of(self.source)?,
            click_id: self.click_id.map(ClickId),
            ip: self.ip,
            user_agent: self.user_agent.to_owned(),
            visitor_key: self.visitor_key,
            matching: match self.matching {
                MatchingV1::Unknown => Matching::Unknown,
                MatchingV1::PrivateAddress => Matching::PrivateAddress,
                MatchingV1::Keys(keys) => Matching::Keys(keys.into_owned()),
            },
            unverified: self.unverified,
        })
    }
}

pub(super) fn source_code(source: Source) -> u8 {
    match source {
        Source::Postback => 1,
        Source::Pixel => 2,
        Source::Api => 3,
    }
}

pub(super) fn source_of(code: u8) -> Result<Source, DecodeError> {
    match code {
        1 => Ok(Source::Postback),
        2 => Ok(Source::Pixel),
        3 => Ok(Source::Api),
        _ => Err(DecodeError::Malformed),
    }
}
