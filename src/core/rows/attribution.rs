//! Rows of `attributions`, and what a row owes to a click wherever else it stands.

use super::{
    RowError,
    bytes::{
        put_text, put_time, put_uuid, take, take_bool, take_money, take_text, take_time, take_u32, take_u64,
        take_uuid,
    },
    conversion::{method_code, method_of},
};
use crate::core::{
    AccountId, BatchId, Campaign, ClickId, ConversionId, CountedConversion, Earned, LinkId, Money, RunId,
    UnixMillis,
};

pub(super) const COLUMNS: &str = "run_id, attribution_run, account_id, goal_id, conversion_id, converted_at, \
    received_at, value, currency, visitor_key, candidates, batch_id, method, click_id, link_id, clicked_at, \
    seconds_to_convert, utm_source, utm_medium, utm_campaign, utm_term, utm_content, variant, labelled";

/// What a row says of its conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributionRow {
    /// The account.
    pub account_id: AccountId,
    /// The conversion.
    pub conversion_id: ConversionId,
    /// When it happened.
    pub converted_at: UnixMillis,
    /// Its value.
    pub value: Money,
    /// What it owes.
    pub earned: Earned,
}

/// Appends the row of a conversion that a click earned to `out`; of others there is none.
pub fn encode(counted: &CountedConversion, batch: BatchId, out: &mut Vec<u8>) {
    let Ok(earned) = &counted.attribution.outcome else { return };
    let conversion = &counted.conversion;
    // As it was decided when it came: run 0.
    out.extend_from_slice(&RunId::default().0.to_le_bytes());
    out.extend_from_slice(&counted.run.0.to_le_bytes());
    out.extend_from_slice(&conversion.account_id.0.to_le_bytes());
    out.extend_from_slice(&conversion.goal_id.0.to_le_bytes());
    put_uuid(out, conversion.id.0);
    put_time(out, conversion.converted_at);
    put_time(out, conversion.received_at);
    out.extend_from_slice(&conversion.value.micros().to_le_bytes());
    put_text(out, conversion.currency.as_str());
    out.extend_from_slice(&conversion.visitor_key.to_le_bytes());
    out.extend_from_slice(&counted.attribution.candidates.to_le_bytes());
    out.extend_from_slice(&batch.0.to_le_bytes());
    out.push(method_code(earned.method));
    put_earned(out, earned);
}

/// Takes the first row off `bytes`.
pub fn decode(bytes: &mut &[u8]) -> Result<AttributionRow, RowError> {
    // Both runs.
    take::<8>(bytes)?;
    let account_id = AccountId(take_u32(bytes)?);
    // The goal.
    take::<4>(bytes)?;
    let conversion_id = ConversionId(take_uuid(bytes)?);
    let converted_at = take_time(bytes)?;
    // When it was accepted.
    take::<8>(bytes)?;
    let value = take_money(bytes)?;
    take_text(bytes)?;
    // Visitor key, candidates and batch.
    take::<18>(bytes)?;
    let [method] = take(bytes)?;
    let earned = take_earned(bytes, method)?.ok_or(RowError)?;
    Ok(AttributionRow { account_id, conversion_id, converted_at, value, earned })
}

/// Everything that is known of the click but how it was found.
pub(super) fn put_earned(out: &mut Vec<u8>, earned: &Earned) {
    out.extend_from_slice(&earned.click_id.0.to_le_bytes());
    out.extend_from_slice(&earned.link_id.map_or(0, |link| link.0).to_le_bytes());
    put_time(out, earned.clicked_at);
    out.extend_from_slice(&earned.seconds_to_convert.to_le_bytes());
    put_campaign(out, &earned.campaign);
    put_text(out, &earned.variant);
    out.push(earned.labelled.into());
}

/// Reads it back; of method 0 it says nothing.
pub(super) fn take_earned(bytes: &mut &[u8], method: u8) -> Result<Option<Earned>, RowError> {
    let click_id = ClickId(take_u64(bytes)?);
    let link_id = Some(take_u32(bytes)?).filter(|link| *link != 0).map(LinkId);
    let clicked_at = take_time(bytes)?;
    let seconds_to_convert = take_u32(bytes)?;
    let campaign = take_campaign(bytes)?;
    let variant = take_text(bytes)?;
    let labelled = take_bool(bytes)?;
    if method == 0 {
        return Ok(None);
    }
    let method = method_of(method)?;
    Ok(Some(Earned {
        method,
        click_id,
        link_id,
        clicked_at,
        seconds_to_convert,
        campaign,
        variant,
        labelled,
    }))
}

pub(super) fn put_campaign(out: &mut Vec<u8>, campaign: &Campaign) {
    let Campaign { source, medium, campaign, term, content } = campaign;
    for text in [source, medium, campaign, term, content] {
        put_text(out, text);
    }
}

pub(super) fn take_campaign(bytes: &mut &[u8]) -> Result<Campaign, RowError> {
    Ok(Campaign {
        source: take_text(bytes)?,
        medium: take_text(bytes)?,
        campaign: take_text(bytes)?,
        term: take_text(bytes)?,
        content: take_text(bytes)?,
    })
}
