//! Goals: create, list, read, change, delete, rotate the token.

mod dto;
mod input;

use std::sync::Arc;

use bytes::Bytes;
use dto::GoalJson;
use hyper::{StatusCode, body::Body, header, http::request::Parts};

use super::{
    body, client,
    error::{ApiError, ErrorCode},
    json,
    page::Parameters,
    response::{self, Answer},
    services::Services,
};
use crate::{
    catalog::{Catalog, ChangeError},
    core::{AccountId, Goal, GoalId},
};

/// `GET /api/v1/conversions/goals`.
pub(super) fn list<I, R>(services: &Services<I, R>, head: &Parts) -> Result<Answer, ApiError> {
    let snapshot = services.catalog.snapshot();
    let account = client::account(&snapshot, &head.headers)?;
    let page = Parameters::read(head.uri.query(), &["page", "per_page"])?.page()?;
    let total = snapshot.goals(account).count() as u64;
    let goals: Vec<_> =
        snapshot.goals(account).skip(page.skip()).take(page.size as usize).map(GoalJson::from).collect();
    Ok(response::list(&goals, page, total))
}

/// `GET /api/v1/conversions/goals/{id}`.
pub(super) fn read<I, R>(services: &Services<I, R>, id: &str, head: &Parts) -> Result<Answer, ApiError> {
    let snapshot = services.catalog.snapshot();
    let account = client::account(&snapshot, &head.headers)?;
    let goal = snapshot.goal(account, goal_id(id)?).ok_or(ErrorCode::GoalNotFound)?;
    Ok(response::data(StatusCode::OK, &GoalJson::from(goal)))
}

/// `POST /api/v1/conversions/goals`.
pub(super) async fn create<I, R, B>(
    services: &Services<I, R>,
    head: &Parts,
    body: B,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let body = json_body(services, head, body).await?;
    let draft = input::draft(json::text(&body)?)?;
    let now = services.clock.now();
    let goal = change_catalog(services, move |catalog| catalog.create_goal(account, draft, now)).await?;
    Ok(response::data(StatusCode::CREATED, &GoalJson::from(&goal)))
}

/// `PATCH /api/v1/conversions/goals/{id}`: what is not named stays; `null` takes away what may be absent.
pub(super) async fn change<I, R, B>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
    body: B,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (account, id) = caller(services, id, head)?;
    let body = json_body(services, head, body).await?;
    let patch = input::patch(json::text(&body)?)?;
    answer(change_catalog(services, move |catalog| catalog.change_goal(account, id, patch)).await)
}

/// `DELETE /api/v1/conversions/goals/{id}`: answers the goal as it was, in the envelope of every other answer.
pub(super) async fn delete<I, R>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let (account, id) = caller(services, id, head)?;
    answer(change_catalog(services, move |catalog| catalog.delete_goal(account, id)).await)
}

/// `POST /api/v1/conversions/goals/{id}/rotate-token`: the old token is unknown at once.
pub(super) async fn rotate_token<I, R>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let (account, id) = caller(services, id, head)?;
    answer(change_catalog(services, move |catalog| catalog.rotate_token(account, id)).await)
}

fn caller<I, R>(services: &Services<I, R>, id: &str, head: &Parts) -> Result<(AccountId, GoalId), ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    Ok((account, goal_id(id)?))
}

fn answer(goal: Result<Goal, ApiError>) -> Result<Answer, ApiError> {
    goal.map(|goal| response::data(StatusCode::OK, &GoalJson::from(&goal)))
}

fn goal_id(text: &str) -> Result<GoalId, ApiError> {
    text.parse().map(GoalId).map_err(|_| ErrorCode::GoalNotFound.into())
}

/// A body that is JSON by its Content-Type or by its look: `curl -d` calls everything a form.
pub(super) async fn json_body<I, R, B>(
    services: &Services<I, R>,
    head: &Parts,
    body: B,
) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let body = body::read(body, services.limits.body_bytes_max).await?;
    let is_json = head.headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json") || essence.ends_with("+json")
    });
    if is_json || body.trim_ascii_start().starts_with(b"{") {
        Ok(body)
    } else {
        Err(ErrorCode::UnsupportedMediaType.into())
    }
}

/// Runs a change where waiting for the disk holds nobody up.
async fn change_catalog<I, R>(
    services: &Services<I, R>,
    change: impl FnOnce(&Catalog) -> Result<Goal, ChangeError> + Send + 'static,
) -> Result<Goal, ApiError> {
    let catalog = Arc::clone(&services.catalog);
    match tokio::task::spawn_blocking(move || change(&catalog)).await {
        Ok(Ok(goal)) => Ok(goal),
        Ok(Err(error)) => Err(refused(&error)),
        Err(error) => {
            tracing::error!(%error, "a change of the catalog broke off");
            Err(ErrorCode::Internal.into())
        }
    }
}

fn refused(error: &ChangeError) -> ApiError {
    match error {
        ChangeError::Plan(refusal) => {
            let refused = ApiError::new(ErrorCode::PlanRequired).because(format!("Refused: {refusal}."));
            match refusal {
                crate::core::PlanRefusal::Window => refused.at("attribution_window_days"),
                crate::core::PlanRefusal::Tracking => refused,
            }
        }
        ChangeError::UnknownGoal => ErrorCode::GoalNotFound.into(),
        ChangeError::TooManyGoals => ErrorCode::TooManyGoals.into(),
        ChangeError::Storage(_) | ChangeError::Random(_) => {
            tracing::error!(%error, "the catalog was not changed");
            ErrorCode::Internal.into()
        }
    }
}
