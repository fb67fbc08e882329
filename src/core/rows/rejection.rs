//! Rows of `rejections`.

use uuid::Uuid;

use super::{
    RowError,
    bytes::{
        put_source, put_text, put_time, put_uuid, take, take_source, take_text, take_time, take_u32,
        take_uuid,
    },
};
use crate::core::{AccountId, BatchId, ConversionId, GoalId, Refusal};

pub(super) const COLUMNS: &str = "account_id, goal_id, received_at, code, field, message, order_id, conversion_id, \
    original_id, source, request, batch_id";

/// Appends a refusal's row to `out`.
pub fn encode(refusal: &Refusal, batch: BatchId, out: &mut Vec<u8>) {
    out.extend_from_slice(&refusal.account_id.0.to_le_bytes());
    out.extend_from_slice(&refusal.goal_id.0.to_le_bytes());
    put_time(out, refusal.received_at);
    put_text(out, &refusal.code);
    put_text(out, &refusal.field);
    put_text(out, &refusal.message);
    put_text(out, &refusal.order_id);
    put_uuid(out, refusal.conversion_id.map_or(Uuid::nil(), |id| id.0));
    put_uuid(out, refusal.original_id.map_or(Uuid::nil(), |id| id.0));
    put_source(out, refusal.source);
    put_text(out, &refusal.request);
    out.extend_from_slice(&batch.0.to_le_bytes());
}

/// Takes the first row off `bytes`.
pub fn decode(bytes: &mut &[u8]) -> Result<Refusal, RowError> {
    let refusal = Refusal {
        account_id: AccountId(take_u32(bytes)?),
        goal_id: GoalId(take_u32(bytes)?),
        received_at: take_time(bytes)?,
        code: take_text(bytes)?,
        field: take_text(bytes)?,
        message: take_text(bytes)?,
        order_id: take_text(bytes)?,
        conversion_id: Some(take_uuid(bytes)?).filter(|id| !id.is_nil()).map(ConversionId),
        original_id: Some(take_uuid(bytes)?).filter(|id| !id.is_nil()).map(ConversionId),
        source: take_source(bytes)?,
        request: take_text(bytes)?,
    };
    take::<8>(bytes)?;
    Ok(refusal)
}
