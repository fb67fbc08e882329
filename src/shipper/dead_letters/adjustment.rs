//! An adjustment in a dead letter. What it changes is decided anew when it is replayed.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::text::{hex, key_of, one_of};
use crate::core::{AccountId, Adjustment, AdjustmentId, AdjustmentKind, ConversionId, Money, UnixMillis};

#[derive(Serialize, Deserialize)]
pub(super) struct AdjustmentJson {
    adjustment_id: Uuid,
    account_id: u32,
    pub(super) conversion_id: Uuid,
    kind: String,
    value: Option<String>,
    /// Hexadecimal; empty: none.
    adjustment_key: String,
    reason: String,
    received_at_ms: i64,
}

impl From<&Adjustment> for AdjustmentJson {
    fn from(from: &Adjustment) -> Self {
        Self {
            adjustment_id: from.id.0,
            account_id: from.account_id.0,
            conversion_id: from.conversion_id.0,
            kind: from.kind.as_str().to_owned(),
            value: from.value.map(|value| value.to_string()),
            adjustment_key: hex(from.key),
            reason: from.reason.clone(),
            received_at_ms: from.received_at.0,
        }
    }
}

impl AdjustmentJson {
    pub(super) fn read(self) -> Result<Adjustment, String> {
        let value = self.value.map(|value| Money::parse(&value)).transpose();
        Ok(Adjustment {
            id: AdjustmentId(self.adjustment_id),
            account_id: AccountId(self.account_id),
            conversion_id: ConversionId(self.conversion_id),
            kind: one_of("kind", &self.kind, &AdjustmentKind::ALL, AdjustmentKind::as_str)?,
            value: value.map_err(|error| format!("value: {error}"))?,
            key: key_of("adjustment_key", &self.adjustment_key)?,
            reason: self.reason,
            received_at: UnixMillis(self.received_at_ms),
            unverified: false,
        })
    }
}
