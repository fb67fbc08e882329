//! Rows of `conversions`.

use super::{
    RowError,
    bytes::{
        put_address, put_length, put_source, put_text, put_time, put_uuid, take, take_address, take_bool,
        take_currency, take_length, take_money, take_source, take_text, take_time, take_u32, take_u64,
        take_uuid,
    },
};
use crate::core::{
    AccountId, BatchId, ClickId, Conversion, ConversionId, CountedConversion, DedupScope, GoalId, Matching,
    Method, OrderId, OrderKey, RunId, Unattributed,
};

pub(super) const COLUMNS: &str = "conversion_id, account_id, goal_id, order_id, order_key, key_scope, value, \
    currency, received_at, converted_at, window_seconds, source, click_id, ip, user_agent, visitor_key, \
    visitor_keys, private_address, attribution_method, attribution_reason, candidates, attribution_run, batch_id";

/// A conversion as it stands in its row. What it owes to a click stands in `attributions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionRow {
    /// The conversion.
    pub conversion: Conversion,
    /// How its click was found, or why none was.
    pub attribution: Result<Method, Unattributed>,
    /// How many clicks it could have been.
    pub candidates: u16,
    /// The newest run of attribution when it was decided.
    pub run: RunId,
}

/// Appends a conversion's row to `out`.
pub fn encode(counted: &CountedConversion, batch: BatchId, out: &mut Vec<u8>) {
    let CountedConversion { conversion, attribution, run } = counted;
    put_uuid(out, conversion.id.0);
    out.extend_from_slice(&conversion.account_id.0.to_le_bytes());
    out.extend_from_slice(&conversion.goal_id.0.to_le_bytes());
    put_text(out, conversion.order_id.as_ref().map_or("", OrderId::as_str));
    let (key, scope) = match conversion.key {
        None => (0, 0),
        Some((key, DedupScope::Forever)) => (key.0, 1),
        Some((key, DedupScope::Day)) => (key.0, 2),
    };
    out.extend_from_slice(&key.to_le_bytes());
    out.push(scope);
    out.extend_from_slice(&conversion.value.micros().to_le_bytes());
    put_text(out, conversion.currency.as_str());
    put_time(out, conversion.received_at);
    put_time(out, conversion.converted_at);
    out.extend_from_slice(&conversion.window_seconds.to_le_bytes());
    put_source(out, conversion.source);
    out.extend_from_slice(&conversion.click_id.map_or(0, |click| click.0).to_le_bytes());
    put_address(out, conversion.ip);
    put_text(out, &conversion.user_agent);
    out.extend_from_slice(&conversion.visitor_key.to_le_bytes());
    let keys: &[u64] = if let Matching::Keys(keys) = &conversion.matching { keys } else { &[] };
    put_length(out, keys.len());
    for key in keys {
        out.extend_from_slice(&key.to_le_bytes());
    }
    out.push((conversion.matching == Matching::PrivateAddress).into());
    out.push(attribution.outcome.as_ref().map_or(0, |earned| method_code(earned.method)));
    out.push(attribution.outcome.as_ref().map_or_else(|reason| reason_code(*reason), |_| 0));
    out.extend_from_slice(&attribution.candidates.to_le_bytes());
    out.extend_from_slice(&run.0.to_le_bytes());
    out.extend_from_slice(&batch.0.to_le_bytes());
}

/// Takes the first row off `bytes`.
pub fn decode(bytes: &mut &[u8]) -> Result<ConversionRow, RowError> {
    let id = ConversionId(take_uuid(bytes)?);
    let account_id = AccountId(take_u32(bytes)?);
    let goal_id = GoalId(take_u32(bytes)?);
    let order_id = OrderId::parse(&take_text(bytes)?).map_err(|_| RowError)?;
    let key = OrderKey(u128::from_le_bytes(take(bytes)?));
    let key = match take(bytes)? {
        [0] => None,
        [1] => Some((key, DedupScope::Forever)),
        [2] => Some((key, DedupScope::Day)),
        _ => return Err(RowError),
    };
    let conversion = Conversion {
        id,
        account_id,
        goal_id,
        order_id,
        key,
        value: take_money(bytes)?,
        currency: take_currency(bytes)?,
        received_at: take_time(bytes)?,
        converted_at: take_time(bytes)?,
        window_seconds: take_u32(bytes)?,
        source: take_source(bytes)?,
        click_id: Some(take_u64(bytes)?).filter(|click| *click != 0).map(ClickId),
        ip: take_address(bytes)?,
        user_agent: take_text(bytes)?,
        visitor_key: take_u64(bytes)?,
        matching: take_matching(bytes)?,
        unverified: false,
    };
    let attribution = match (take(bytes)?, take(bytes)?) {
        ([method], [0]) => Ok(method_of(method)?),
        ([0], [reason]) => Err(reason_of(reason)?),
        _ => return Err(RowError),
    };
    let candidates = u16::from_le_bytes(take(bytes)?);
    let run = RunId(take_u32(bytes)?);
    take::<8>(bytes)?;
    Ok(ConversionRow { conversion, attribution, candidates, run })
}

fn take_matching(bytes: &mut &[u8]) -> Result<Matching, RowError> {
    let count = take_length(bytes)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(take_u64(bytes)?);
    }
    let private = take_bool(bytes)?;
    match (keys.is_empty(), private) {
        (false, false) => Ok(Matching::Keys(keys)),
        (true, true) => Ok(Matching::PrivateAddress),
        (true, false) => Ok(Matching::Unknown),
        (false, true) => Err(RowError),
    }
}

/// The number of a method in the schema's enum; 0: none.
pub(super) fn method_code(method: Method) -> u8 {
    match method {
        Method::ClickId => 1,
        Method::IpUserAgent => 2,
    }
}

pub(super) fn method_of(code: u8) -> Result<Method, RowError> {
    match code {
        1 => Ok(Method::ClickId),
        2 => Ok(Method::IpUserAgent),
        _ => Err(RowError),
    }
}

/// The number of a reason in the schema's enum; 0: attributed.
fn reason_code(reason: Unattributed) -> u8 {
    match reason {
        Unattributed::ClickNotFound => 1,
        Unattributed::OutsideWindow => 2,
        Unattributed::AfterConversion => 3,
        Unattributed::NoCandidate => 4,
        Unattributed::PrivateAddress => 5,
        Unattributed::NoVisitor => 6,
    }
}

fn reason_of(code: u8) -> Result<Unattributed, RowError> {
    Unattributed::ALL.into_iter().find(|reason| reason_code(*reason) == code).ok_or(RowError)
}
