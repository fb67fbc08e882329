//! What became of hits: one conversion by its id, and what was refused.

mod dto;
mod explain;

use hyper::{StatusCode, http::request::Parts};
use serde::Serialize;
use uuid::Uuid;

pub(super) use self::dto::{AdjustmentJson, NetJson};
use self::{dto::ConversionJson, explain::ExplanationJson};
use super::{
    client,
    error::{ApiError, ErrorCode},
    page::{Parameters, invalid},
    report::{self, report_error},
    response::{self, Answer},
    services::{Reports, Services},
    times,
};
use crate::core::{ConversionId, ConversionLookup, GoalId, Refusal, RefusalQuery};

/// Longest code that may be asked for; there is none as long.
const CODE_BYTES_MAX: usize = 64;

/// `GET /api/v1/conversions/{id}`; with `?explain=1`, why each click did or did not earn it.
pub(super) async fn read<I: Sync, R: Reports>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let parameters = Parameters::read(head.uri.query(), &["explain"])?;
    let explain = parameters.number("explain", 0..=1u8)? == Some(1);
    let id = Uuid::try_parse(id).map(ConversionId).map_err(|_| ErrorCode::ConversionNotFound)?;
    let permit = if explain {
        report::permit(services, account).await?
    } else {
        report::lookup_permit(services, account).await?
    };
    let found = services.reports.conversion(&permit, account, id).await.map_err(report_error)?;
    match found {
        ConversionLookup::Counted(stored) => {
            let mut answer = ConversionJson::from(&*stored);
            if explain {
                let candidates = services.reports.candidates(&permit, &stored).await.map_err(report_error)?;
                answer.explain(ExplanationJson::new(&stored, &candidates, services.limits.settle_seconds));
            }
            Ok(response::data(StatusCode::OK, &answer))
        }
        ConversionLookup::Duplicate { goal_id, received_at, original } => {
            let duplicate = DuplicateJson {
                conversion_id: id.to_string(),
                duplicate: true,
                original_conversion_id: original.to_string(),
                goal_id: goal_id.0,
                received_at: times::utc(received_at),
            };
            Ok(response::data(StatusCode::OK, &duplicate))
        }
        ConversionLookup::Unknown => Err(ErrorCode::ConversionNotFound.into()),
    }
}

/// `GET /api/v1/conversions/rejections?goal_id=&code=`: newest first.
pub(super) async fn rejections<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account_id = client::account(&services.catalog.snapshot(), &head.headers)?;
    let parameters = Parameters::read(head.uri.query(), &["goal_id", "code", "page", "per_page"])?;
    let page = parameters.page()?;
    // A deleted goal's rejections stay readable: the query carries the account, so no other's can be seen.
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    let code = parameters.text("code").map(known_code).transpose()?;
    let query = RefusalQuery { account_id, goal_id, code, page: page.number, per_page: page.size };
    let permit = report::permit(services, account_id).await?;
    let found = services.reports.refusals(&permit, query).await.map_err(report_error)?;
    let refusals: Vec<_> = found.refusals.iter().map(RejectionJson::from).collect();
    Ok(response::list(&refusals, page, found.total))
}

fn known_code(code: &str) -> Result<String, ApiError> {
    let known = code == "duplicate" || ErrorCode::ALL.iter().any(|known| known.as_str() == code);
    if known && code.len() <= CODE_BYTES_MAX {
        Ok(code.to_owned())
    } else {
        Err(invalid("code", "`code` is `duplicate` or one of the documented error codes.".into()))
    }
}

#[derive(Serialize)]
struct DuplicateJson {
    conversion_id: String,
    duplicate: bool,
    original_conversion_id: String,
    goal_id: u32,
    received_at: String,
}

#[derive(Serialize)]
pub(super) struct RejectionJson<'a> {
    received_at: String,
    goal_id: u32,
    code: &'a str,
    field: Option<&'a str>,
    message: &'a str,
    order_id: Option<&'a str>,
    conversion_id: Option<String>,
    original_conversion_id: Option<String>,
    source: &'static str,
    request: &'a str,
}

impl<'a> From<&'a Refusal> for RejectionJson<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        let filled = |text: &'a str| (!text.is_empty()).then_some(text);
        Self {
            received_at: times::utc(refusal.received_at),
            goal_id: refusal.goal_id.0,
            code: &refusal.code,
            field: filled(&refusal.field),
            message: &refusal.message,
            order_id: filled(&refusal.order_id),
            conversion_id: refusal.conversion_id.map(|id| id.to_string()),
            original_conversion_id: refusal.original_id.map(|id| id.to_string()),
            source: refusal.source.as_str(),
            request: &refusal.request,
        }
    }
}
