//! Outgoing postbacks: what became of them, and sending them again.

mod dto;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{StatusCode, body::Body, http::request::Parts};
use uuid::Uuid;

use self::dto::{BackfillJson, DeliveryJson, ReplayJson, TestJson};
use super::{
    body::RequestBody,
    client,
    error::{ApiError, ErrorCode},
    goals, json,
    manage::json_body,
    page::{Parameters, invalid},
    report::{self, report_error},
    response::{self, Answer},
    services::Services,
};
use crate::{
    core::{
        AccountId, ConversionId, Goal, GoalId, ReportError, UnixMillis,
        webhook::{Backfill, BackfillQuery, DeliveryId, DeliveryPage, DeliveryQuery, TestAnswer},
    },
    report_slots::ReportPermit,
};

/// Conversions that one backfill queues; the answer says where to go on.
const BACKFILL_MAX: u32 = 100_000;

/// When to come back where an account's own calls are under way: a test call takes some seconds at most.
const RETRY_AFTER_BUSY: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a postback is not sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostbackError {
    /// The database could not say of what.
    Report(ReportError),
    /// There is no such delivery.
    Unknown,
    /// The goal has no endpoint, or none that is called.
    NoEndpoint,
    /// As many wait as may.
    Full,
    /// The account has as many test calls under way as it may have.
    TooManyTests,
    /// The account has a backfill under way.
    TooManyBackfills,
    /// It could not be made durable.
    Storage,
}

/// What handlers need of outgoing postbacks.
pub trait Postbacks: Send + Sync {
    /// Whether a URL may be called; if not, why.
    fn vet(&self, url: String) -> BoxFuture<'_, Result<(), String>>;

    /// Sends a sample to a goal's endpoint.
    fn test(&self, goal: Goal) -> BoxFuture<'_, Result<TestAnswer, PostbackError>>;

    /// Some of an account's attempts.
    fn deliveries(
        &self,
        permit: ReportPermit,
        query: DeliveryQuery,
    ) -> BoxFuture<'_, Result<DeliveryPage, ReportError>>;

    /// Queues the postback of an account's attempt once more.
    fn replay(
        &self,
        permit: ReportPermit,
        account: AccountId,
        id: DeliveryId,
    ) -> BoxFuture<'_, Result<ConversionId, PostbackError>>;

    /// Queues the postbacks of conversions that came before there was an endpoint.
    fn backfill(
        &self,
        permit: ReportPermit,
        query: BackfillQuery,
    ) -> BoxFuture<'_, Result<Backfill, PostbackError>>;
}

/// `GET /api/v1/postbacks/deliveries?conversion_id=&goal_id=&failed=`: newest first.
pub(super) async fn list<I, R>(services: &Services<I, R>, head: &Parts) -> Result<Answer, ApiError> {
    let account_id = client::account(&services.catalog.snapshot(), &head.headers)?;
    let known = ["conversion_id", "goal_id", "failed", "page", "per_page"];
    let parameters = Parameters::read(head.uri.query(), &known)?;
    let page = parameters.page()?;
    let conversion_id = match parameters.text("conversion_id") {
        Some(text) => Some(
            Uuid::try_parse(text.strip_prefix("msg_").unwrap_or(text))
                .map(ConversionId)
                .map_err(|_| invalid("conversion_id", "`conversion_id` is a conversion's id.".into()))?,
        ),
        None => None,
    };
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    let failed = parameters.number("failed", 0..=1u8)? == Some(1);
    let query =
        DeliveryQuery { account_id, conversion_id, goal_id, failed, page: page.number, per_page: page.size };
    let permit = report::permit(services, account_id).await?;
    let found = services.postbacks.deliveries(permit, query).await.map_err(report_error)?;
    let deliveries: Vec<_> = found.deliveries.iter().map(DeliveryJson::from).collect();
    Ok(response::list(&deliveries, page, found.total))
}

/// `POST /api/v1/postbacks/deliveries/{id}/replay`: the same `webhook-id`, and all attempts anew.
pub(super) async fn replay<I, R>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let id = Uuid::try_parse(id).map(DeliveryId).map_err(|_| ErrorCode::DeliveryNotFound)?;
    let permit = report::permit(services, account).await?;
    let conversion = services.postbacks.replay(permit, account, id).await.map_err(refused)?;
    Ok(response::data(StatusCode::ACCEPTED, &ReplayJson::from(conversion)))
}

/// `POST /api/v1/conversions/goals/{id}/backfill {"from":…,"to":…}`: conversions that happened from then on, and before
/// then, are told once more under their own `webhook-id`.
pub(super) async fn backfill<I, R, B>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let goal = called(services, id, head)?;
    let body = json_body(services, head, body).await?;
    let (mut from, mut to) = (None, services.clock.now());
    for (name, raw) in json::object(json::text(&body)?)? {
        match name.as_ref() {
            "from" => from = Some(time("from", raw.get())?),
            "to" => to = time("to", raw.get())?,
            _ => return Err(super::input::unknown(&name, &["from", "to"])),
        }
    }
    let from = super::input::required("from", from)?;
    if from >= to {
        return Err(super::input::wrong("to", "`to` is after `from`."));
    }
    let query =
        BackfillQuery { account_id: goal.account_id, goal_id: goal.id, from, to, limit: BACKFILL_MAX };
    let permit = report::permit(services, query.account_id).await?;
    let queued = services.postbacks.backfill(permit, query).await.map_err(refused)?;
    Ok(response::data(StatusCode::ACCEPTED, &BackfillJson::from(&queued)))
}

/// `POST /api/v1/conversions/goals/{id}/test`: what the endpoint answers to a sample that is marked as one.
pub(super) async fn test<I, R>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let goal = called(services, id, head)?;
    let answer = services.postbacks.test(goal).await.map_err(refused)?;
    Ok(response::data(StatusCode::OK, &TestJson::from(&answer)))
}

/// The caller's goal, if its endpoint is called.
fn called<I, R>(services: &Services<I, R>, id: &str, head: &Parts) -> Result<Goal, ApiError> {
    let (account, id) = goals::caller(services, id, head)?;
    let snapshot = services.catalog.snapshot();
    let goal = snapshot.goal(account, id).ok_or(ErrorCode::GoalNotFound)?;
    if snapshot.tells(id) { Ok(goal.clone()) } else { Err(ErrorCode::NoEndpoint.into()) }
}

fn time(field: &'static str, raw: &str) -> Result<UnixMillis, ApiError> {
    let text: Option<String> = serde_json::from_str(raw).ok();
    let at = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    at.map(|at| UnixMillis(at.as_millisecond())).ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidTime)
            .because(format!("`{field}` is a time such as 2026-11-01T12:00:00Z."))
            .at(field)
    })
}

fn refused(error: PostbackError) -> ApiError {
    match error {
        PostbackError::Report(error) => report_error(error),
        PostbackError::Unknown => ErrorCode::DeliveryNotFound.into(),
        PostbackError::NoEndpoint => ErrorCode::NoEndpoint.into(),
        PostbackError::TooManyTests => ApiError::new(ErrorCode::TooManyTests).after(RETRY_AFTER_BUSY),
        PostbackError::TooManyBackfills => ApiError::new(ErrorCode::TooManyBackfills).after(RETRY_AFTER_BUSY),
        PostbackError::Full => ApiError::new(ErrorCode::Overloaded).after(std::time::Duration::from_secs(30)),
        PostbackError::Storage => ErrorCode::Internal.into(),
    }
}
