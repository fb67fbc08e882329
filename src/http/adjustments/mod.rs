//! What is learned about a conversion after it was counted: `…/conversions/{id}/adjustments`.
//!
//! The conversion must be in ClickHouse: an adjustment of one that is not there could not be told from a mistyped id.

mod input;

use bytes::Bytes;
use hyper::{StatusCode, body::Body, http::request::Parts};
use serde::Serialize;
use uuid::Uuid;

use self::input::Wanted;
use super::{
    Connection,
    body::RequestBody,
    client,
    conversions::{AdjustmentJson, NetJson},
    error::{ApiError, ErrorCode},
    json,
    manage::json_body,
    page::Parameters,
    report::{self, report_error},
    response::{self, Answer},
    services::{Reports, Services, Submit},
    track,
};
use crate::{
    core::{
        AccountId, Adjustment, AdjustmentId, Conversion, ConversionId, ConversionLookup, StoredConversion,
        net,
    },
    intake::{AdjustOutcome, AdjustmentSubmission, Sameness},
};

/// Adjustments that one conversion takes.
const ADJUSTMENTS_MAX: usize = 1000;
/// What a client is told to wait when the log can't be written: that takes somebody.
const RETRY_AFTER_UNAVAILABLE: std::time::Duration = std::time::Duration::from_secs(30);

/// `POST /api/v1/conversions/{id}/adjustments`.
pub(super) async fn create<I, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    id: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    I: Submit,
    R: Reports,
    B: Body<Data = Bytes> + Unpin,
{
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let body = json_body(services, head, body).await?;
    let wanted = input::wanted(json::text(&body)?)?;
    let idempotency_key = track::idempotency_key(&head.headers)?;
    let stored = stored(services, account, conversion(id)?).await?;
    if stored.adjustments.len() >= ADJUSTMENTS_MAX {
        return Err(ErrorCode::TooManyAdjustments.into());
    }
    let received_at = services.clock.now();
    let submission = AdjustmentSubmission {
        account_id: account,
        conversion_id: stored.conversion.id,
        kind: wanted.kind,
        value: wanted.value,
        idempotency_key,
        reason: wanted.reason.clone(),
        received_at,
    };
    match services.intake.adjust(submission, &connection.gate).await {
        AdjustOutcome::New(id) => {
            Ok(applied(StatusCode::CREATED, Some(false), &stored, wanted, id, received_at))
        }
        AdjustOutcome::Unverified(id) => {
            Ok(applied(StatusCode::ACCEPTED, None, &stored, wanted, id, received_at))
        }
        AdjustOutcome::Duplicate { original, sameness } => {
            duplicate(services, stored, &wanted, original, sameness).await
        }
        AdjustOutcome::Overloaded { retry_after } => {
            Err(ApiError::new(ErrorCode::Overloaded).after(retry_after))
        }
        AdjustOutcome::Unavailable => {
            Err(ApiError::new(ErrorCode::Unavailable).after(RETRY_AFTER_UNAVAILABLE))
        }
    }
}

/// `GET /api/v1/conversions/{id}/adjustments`: in the order of acceptance.
pub(super) async fn list<I: Sync, R: Reports>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let page = Parameters::read(head.uri.query(), &["page", "per_page"])?.page()?;
    let stored = stored(services, account, conversion(id)?).await?;
    let all = &stored.adjustments;
    let some: Vec<_> =
        all.iter().skip(page.skip()).take(page.size as usize).map(AdjustmentJson::from).collect();
    Ok(response::list(&some, page, all.len() as u64))
}

fn conversion(id: &str) -> Result<ConversionId, ApiError> {
    Uuid::try_parse(id).map(ConversionId).map_err(|_| ErrorCode::ConversionNotFound.into())
}

/// The conversion that is to be adjusted.
async fn stored<I: Sync, R: Reports>(
    services: &Services<I, R>,
    account: AccountId,
    id: ConversionId,
) -> Result<Box<StoredConversion>, ApiError> {
    let not_found = || ApiError::new(ErrorCode::ConversionNotFound);
    let permit = report::lookup_permit(services, account).await?;
    match services.reports.conversion(&permit, account, id).await.map_err(report_error)? {
        ConversionLookup::Counted(stored) => Ok(stored),
        ConversionLookup::Duplicate { original, .. } => Err(not_found()
            .because(format!("This conversion is a duplicate and does not count; adjust {original} instead."))),
        ConversionLookup::Unknown => Err(not_found().because(
            "There is no such conversion, or it has not reached the database yet: try again in a minute if it was \
             accepted just now.",
        )),
    }
}

/// The answer where an adjustment was kept. The net value is that of what the database knows, with this one.
fn applied(
    status: StatusCode,
    is_duplicate: Option<bool>,
    stored: &StoredConversion,
    wanted: Wanted,
    id: AdjustmentId,
    received_at: crate::core::UnixMillis,
) -> Answer {
    let adjustment = Adjustment {
        id,
        account_id: stored.conversion.account_id,
        conversion_id: stored.conversion.id,
        kind: wanted.kind,
        value: wanted.value,
        key: None,
        reason: wanted.reason,
        received_at,
        unverified: is_duplicate.is_none(),
    };
    let net = net(stored.conversion.value, stored.adjustments.iter().chain([&adjustment]));
    let answer = AppliedJson {
        duplicate: is_duplicate,
        conversion_id: stored.conversion.id.to_string(),
        adjustment: AdjustmentJson::from(&adjustment),
        currency: stored.conversion.currency.to_string(),
        net: net.into(),
    };
    response::data(status, &answer)
}

/// The answer where the same `Idempotency-Key` came before: what the first call did, once the database has it, if this is
/// the same call. A key belongs to one call: with another conversion or another body nothing is kept.
async fn duplicate<I: Sync, R: Reports>(
    services: &Services<I, R>,
    mut stored: Box<StoredConversion>,
    wanted: &Wanted,
    original: AdjustmentId,
    sameness: Sameness,
) -> Result<Answer, ApiError> {
    let is_original = |adjustment: &Adjustment| adjustment.id == original;
    if sameness == Sameness::Unknown && !stored.adjustments.iter().any(is_original) {
        // The database has the first call's adjustment by now: if not with this conversion, then with another one.
        let Conversion { account_id, id, .. } = stored.conversion;
        stored = self::stored(services, account_id, id).await?;
    }
    let found = stored.adjustments.iter().find(|adjustment| is_original(adjustment));
    let is_same = match sameness {
        Sameness::Same => true,
        Sameness::Different => false,
        Sameness::Unknown => found.is_some_and(|first| {
            (first.kind, first.value, &first.reason) == (wanted.kind, wanted.value, &wanted.reason)
        }),
    };
    if !is_same {
        return Err(ErrorCode::IdempotencyKeyReused.into());
    }
    let Some(adjustment) = found else {
        let answer = OriginalJson { adjustment_id: original.to_string(), duplicate: true };
        return Ok(response::data(StatusCode::OK, &answer));
    };
    let answer = AppliedJson {
        duplicate: Some(true),
        conversion_id: stored.conversion.id.to_string(),
        adjustment: AdjustmentJson::from(adjustment),
        currency: stored.conversion.currency.to_string(),
        net: stored.net().into(),
    };
    Ok(response::data(StatusCode::OK, &answer))
}

#[derive(Serialize)]
struct AppliedJson<'a> {
    #[serde(flatten)]
    adjustment: AdjustmentJson<'a>,
    /// Null: not known yet.
    duplicate: Option<bool>,
    conversion_id: String,
    currency: String,
    #[serde(flatten)]
    net: NetJson,
}

#[derive(Serialize)]
struct OriginalJson {
    adjustment_id: String,
    duplicate: bool,
}
