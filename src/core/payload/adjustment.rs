//! An adjustment's bytes.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DecodeError;
use crate::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, ConversionId, Money, OrderKey, UnixMillis,
};

#[derive(Serialize, Deserialize)]
pub(super) struct AdjustmentV1<'a> {
    id: u128,
    account_id: u32,
    conversion_id: u128,
    kind: u8,
    value_micros: Option<u64>,
    key: Option<u128>,
    reason: &'a str,
    received_at_ms: i64,
    unverified: bool,
}

impl<'a> From<&'a Adjustment> for AdjustmentV1<'a> {
    fn from(from: &'a Adjustment) -> Self {
        Self {
            id: from.id.0.as_u128(),
            account_id: from.account_id.0,
            conversion_id: from.conversion_id.0.as_u128(),
            kind: match from.kind {
                AdjustmentKind::Refund => 1,
                AdjustmentKind::Correction => 2,
                AdjustmentKind::Approve => 3,
                AdjustmentKind::Reject => 4,
            },
            value_micros: from.value.map(Money::micros),
            key: from.key.map(|key| key.0),
            reason: &from.reason,
            received_at_ms: from.received_at.0,
            unverified: from.unverified,
        }
    }
}

impl AdjustmentV1<'_> {
    pub(super) fn read(self) -> Result<Adjustment, DecodeError> {
        let value = self.value_micros.map(|micros| Money::from_micros(micros).ok_or(DecodeError::Malformed));
        Ok(Adjustment {
            id: AdjustmentId(Uuid::from_u128(self.id)),
            account_id: AccountId(self.account_id),
            conversion_id: ConversionId(Uuid::from_u128(self.conversion_id)),
            kind: match self.kind {
                1 => AdjustmentKind::Refund,
                2 => AdjustmentKind::Correction,
                3 => AdjustmentKind::Approve,
                4 => AdjustmentKind::Reject,
                _ => return Err(DecodeError::Malformed),
            },
            value: value.transpose()?,
            key: self.key.map(OrderKey),
            reason: self.reason.to_owned(),
            received_at: UnixMillis(self.received_at_ms),
            unverified: self.unverified,
        })
    }
}
