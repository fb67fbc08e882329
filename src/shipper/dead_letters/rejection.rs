//! A refused hit or a late duplicate in a dead letter.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::text::{hex, key_of, source};
use crate::core::{AccountId, ConversionId, GoalId, OrderKey, Refusal, UnixMillis};

#[derive(Default, Serialize, Deserialize)]
pub(super) struct RejectionJson {
    account_id: u32,
    goal_id: u32,
    received_at_ms: i64,
    code: String,
    field: String,
    message: String,
    pub(super) order_id: String,
    /// Of a late duplicate: its key, hexadecimal; else empty.
    order_key: String,
    conversion_id: Option<Uuid>,
    original_id: Option<Uuid>,
    source: String,
    request: String,
}

impl RejectionJson {
    pub(super) fn new(from: &Refusal, key: Option<OrderKey>) -> Self {
        Self {
            account_id: from.account_id.0,
            goal_id: from.goal_id.0,
            received_at_ms: from.received_at.0,
            code: from.code.clone(),
            field: from.field.clone(),
            message: from.message.clone(),
            order_id: from.order_id.clone(),
            order_key: hex(key),
            conversion_id: from.conversion_id.map(|id| id.0),
            original_id: from.original_id.map(|id| id.0),
            source: from.source.as_str().to_owned(),
            request: from.request.clone(),
        }
    }

    /// The refusal, and the key of a late duplicate.
    pub(super) fn read(self) -> Result<(Refusal, Option<OrderKey>), String> {
        let key = key_of("order_key", &self.order_key)?;
        let refusal = Refusal {
            account_id: AccountId(self.account_id),
            goal_id: GoalId(self.goal_id),
            received_at: UnixMillis(self.received_at_ms),
            code: self.code,
            field: self.field,
            message: self.message,
            order_id: self.order_id,
            conversion_id: self.conversion_id.map(ConversionId),
            original_id: self.original_id.map(ConversionId),
            source: source(&self.source)?,
            request: self.request,
        };
        Ok((refusal, key))
    }
}
