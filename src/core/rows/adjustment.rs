//! Rows of `adjustments`.

use super::{
    RowError,
    attribution::{put_earned, take_earned},
    bytes::{
        put_text, put_time, put_uuid, take, take_currency, take_money, take_text, take_time, take_u32,
        take_uuid,
    },
    conversion::method_code,
};
use crate::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, BatchId, Campaign, ClickId, ConversionId,
    CountedAdjustment, Earned, GoalId, Method, OrderKey, RunId, UnixMillis,
};

pub(super) const COLUMNS: &str = "adjustment_id, account_id, goal_id, conversion_id, adjustment_key, kind, value, \
    currency, reason, received_at, converted_at, net_value_change, net_conversions_change, attribution_run, batch_id, \
    method, click_id, link_id, clicked_at, seconds_to_convert, utm_source, utm_medium, utm_campaign, utm_term, \
    utm_content, variant, labelled";

/// Appends an adjustment's row to `out`.
pub fn encode(counted: &CountedAdjustment, batch: BatchId, out: &mut Vec<u8>) {
    let adjustment = &counted.adjustment;
    put_uuid(out, adjustment.id.0);
    out.extend_from_slice(&adjustment.account_id.0.to_le_bytes());
    out.extend_from_slice(&counted.goal_id.0.to_le_bytes());
    put_uuid(out, adjustment.conversion_id.0);
    out.extend_from_slice(&adjustment.key.map_or(0, |key| key.0).to_le_bytes());
    out.push(kind_code(adjustment.kind));
    match adjustment.value {
        None => out.push(1),
        Some(value) => {
            out.push(0);
            out.extend_from_slice(&value.micros().to_le_bytes());
        }
    }
    put_text(out, counted.currency.as_str());
    put_text(out, &adjustment.reason);
    put_time(out, adjustment.received_at);
    put_time(out, counted.converted_at);
    out.extend_from_slice(&counted.net_value_change.to_le_bytes());
    out.extend_from_slice(&counted.net_conversions_change.to_le_bytes());
    out.extend_from_slice(&counted.run.0.to_le_bytes());
    out.extend_from_slice(&batch.0.to_le_bytes());
    out.push(counted.earned.as_ref().map_or(0, |earned| method_code(earned.method)));
    match &counted.earned {
        Some(earned) => put_earned(out, earned),
        None => put_earned(out, &nothing()),
    }
}

/// Takes the first row off `bytes`.
pub fn decode(bytes: &mut &[u8]) -> Result<CountedAdjustment, RowError> {
    let id = AdjustmentId(take_uuid(bytes)?);
    let account_id = AccountId(take_u32(bytes)?);
    let goal_id = GoalId(take_u32(bytes)?);
    let conversion_id = ConversionId(take_uuid(bytes)?);
    let key = Some(u128::from_le_bytes(take(bytes)?)).filter(|key| *key != 0).map(OrderKey);
    let [kind] = take(bytes)?;
    let kind = AdjustmentKind::ALL.into_iter().find(|known| kind_code(*known) == kind).ok_or(RowError)?;
    let value = match take(bytes)? {
        [1] => None,
        [0] => Some(take_money(bytes)?),
        _ => return Err(RowError),
    };
    let currency = take_currency(bytes)?;
    let reason = take_text(bytes)?;
    let received_at = take_time(bytes)?;
    let converted_at = take_time(bytes)?;
    let net_value_change = i64::from_le_bytes(take(bytes)?);
    let net_conversions_change = i8::from_le_bytes(take(bytes)?);
    let run = RunId(take_u32(bytes)?);
    take::<8>(bytes)?;
    let [method] = take(bytes)?;
    let earned = take_earned(bytes, method)?;
    let adjustment = Adjustment {
        id,
        account_id,
        conversion_id,
        kind,
        value,
        key,
        reason,
        received_at,
        unverified: false,
    };
    Ok(CountedAdjustment {
        adjustment,
        goal_id,
        currency,
        converted_at,
        earned,
        net_value_change,
        net_conversions_change,
        run,
    })
}

/// The number of a kind in the schema's enum.
fn kind_code(kind: AdjustmentKind) -> u8 {
    match kind {
        AdjustmentKind::Refund => 1,
        AdjustmentKind::Correction => 2,
        AdjustmentKind::Approve => 3,
        AdjustmentKind::Reject => 4,
    }
}

/// The columns of a conversion that no click earned; its method, 0, stands before them.
fn nothing() -> Earned {
    Earned {
        method: Method::ClickId,
        click_id: ClickId(0),
        link_id: None,
        clicked_at: UnixMillis(0),
        seconds_to_convert: 0,
        campaign: Campaign::default(),
        variant: String::new(),
        labelled: false,
    }
}
