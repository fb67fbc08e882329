//! The bytes of a refused hit.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    DecodeError,
    conversion::{source_code, source_of},
};
use crate::core::{AccountId, ConversionId, GoalId, Refusal, UnixMillis};

#[derive(Serialize, Deserialize)]
pub(super) struct RefusalV1<'a> {
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
    pub(super) fn read(self) -> Result<Refusal, DecodeError> {
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
