//! A conversion in a dead letter.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::text::{hex, key_of, source};
use crate::core::{
    AccountId, ClickId, Conversion, ConversionId, Currency, DedupScope, GoalId, Matching, Money, OrderId,
    UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct ConversionJson {
    conversion_id: Uuid,
    account_id: u32,
    goal_id: u32,
    pub(super) order_id: String,
    /// Hexadecimal; empty: none.
    order_key: String,
    /// `none`, `forever` or `day`.
    key_scope: String,
    value: String,
    currency: String,
    received_at_ms: i64,
    converted_at_ms: i64,
    window_seconds: u32,
    source: String,
    click_id: Option<u64>,
    ip: Option<IpAddr>,
    user_agent: String,
    visitor_key: u64,
    /// Of every epoch of the attribution window, newest first.
    visitor_keys: Vec<u64>,
    private_address: bool,
}

impl From<&Conversion> for ConversionJson {
    fn from(from: &Conversion) -> Self {
        let (order_key, key_scope) = match from.key {
            None => (String::new(), "none"),
            Some((key, DedupScope::Forever)) => (hex(Some(key)), "forever"),
            Some((key, DedupScope::Day)) => (hex(Some(key)), "day"),
        };
        Self {
            conversion_id: from.id.0,
            account_id: from.account_id.0,
            goal_id: from.goal_id.0,
            order_id: from.order_id.as_ref().map(OrderId::as_str).unwrap_or_default().to_owned(),
            order_key,
            key_scope: key_scope.to_owned(),
            value: from.value.to_string(),
            currency: from.currency.to_string(),
            received_at_ms: from.received_at.0,
            converted_at_ms: from.converted_at.0,
            window_seconds: from.window_seconds,
            source: from.source.as_str().to_owned(),
            click_id: from.click_id.map(|click| click.0),
            ip: from.ip,
            user_agent: from.user_agent.clone(),
            visitor_key: from.visitor_key,
            visitor_keys: match &from.matching {
                Matching::Keys(keys) => keys.clone(),
                Matching::PrivateAddress | Matching::Unknown => Vec::new(),
            },
            private_address: from.matching == Matching::PrivateAddress,
        }
    }
}

impl ConversionJson {
    pub(super) fn read(self) -> Result<Conversion, String> {
        let key = match (&*self.key_scope, key_of("order_key", &self.order_key)?) {
            ("none", None) => None,
            ("forever", Some(key)) => Some((key, DedupScope::Forever)),
            ("day", Some(key)) => Some((key, DedupScope::Day)),
            _ => return Err("key_scope: must be forever or day beside an order_key, else none".to_owned()),
        };
        let matching = match (self.visitor_keys.is_empty(), self.private_address) {
            (false, false) => Matching::Keys(self.visitor_keys),
            (true, true) => Matching::PrivateAddress,
            (true, false) => Matching::Unknown,
            (false, true) => return Err("visitor_keys: must be empty for a private address".to_owned()),
        };
        Ok(Conversion {
            id: ConversionId(self.conversion_id),
            account_id: AccountId(self.account_id),
            goal_id: GoalId(self.goal_id),
            order_id: OrderId::parse(&self.order_id).map_err(|error| format!("order_id: {error}"))?,
            key,
            value: Money::parse(&self.value).map_err(|error| format!("value: {error}"))?,
            currency: Currency::from_stored(&self.currency).map_err(|error| format!("currency: {error}"))?,
            received_at: UnixMillis(self.received_at_ms),
            converted_at: UnixMillis(self.converted_at_ms),
            window_seconds: self.window_seconds,
            matching,
            source: source(&self.source)?,
            click_id: self.click_id.map(ClickId),
            ip: self.ip,
            user_agent: self.user_agent,
            visitor_key: self.visitor_key,
            unverified: false,
        })
    }
}
