//! Goals: create, list, read, change, delete, rotate the token.

mod dto;
mod input;

use bytes::Bytes;
use dto::GoalJson;
use hyper::{StatusCode, body::Body, http::request::Parts};

use super::{
    body::RequestBody,
    client,
    error::{ApiError, ErrorCode},
    json,
    manage::{change_catalog, json_body},
    page::Parameters,
    response::{self, Answer},
    services::Services,
};
use crate::{
    catalog::Catalog,
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
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let body = json_body(services, head, body).await?;
    let draft = input::draft(json::text(&body)?)?;
    vet(services, draft.postback_url.as_deref()).await?;
    let now = services.clock.now();
    let goal = change_catalog(services, move |catalog| catalog.create_goal(account, draft, now)).await?;
    Ok(response::data(StatusCode::CREATED, &GoalJson::with_secret(&goal)))
}

/// `PATCH /api/v1/conversions/goals/{id}`: what is not named stays; `null` takes away what may be absent.
pub(super) async fn change<I, R, B>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (account, id) = caller(services, id, head)?;
    let body = json_body(services, head, body).await?;
    let patch = input::patch(json::text(&body)?)?;
    vet(services, patch.postback_url.iter().flatten().next().map(String::as_str)).await?;
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

/// `POST /api/v1/conversions/goals/{id}/rotate-postback-secret`: the old secret signs beside the new one for a day.
pub(super) async fn rotate_postback_secret<I, R>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let (account, id) = caller(services, id, head)?;
    let now = services.clock.now();
    let rotated = move |catalog: &Catalog| catalog.rotate_postback_secret(account, id, now);
    let goal = change_catalog(services, rotated).await?;
    Ok(response::data(StatusCode::OK, &GoalJson::with_secret(&goal)))
}

/// Refuses a URL that must not be called.
async fn vet<I, R>(services: &Services<I, R>, url: Option<&str>) -> Result<(), ApiError> {
    let Some(url) = url else { return Ok(()) };
    let refused = services.postbacks.vet(url.to_owned()).await.err();
    refused.map_or(Ok(()), |reason| {
        Err(super::input::wrong("postback_url", format!("`postback_url` is refused: {reason}.")))
    })
}

pub(super) fn caller<I, R>(
    services: &Services<I, R>,
    id: &str,
    head: &Parts,
) -> Result<(AccountId, GoalId), ApiError> {
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    Ok((account, goal_id(id)?))
}

fn answer(goal: Result<Goal, ApiError>) -> Result<Answer, ApiError> {
    goal.map(|goal| response::data(StatusCode::OK, &GoalJson::from(&goal)))
}

fn goal_id(text: &str) -> Result<GoalId, ApiError> {
    text.parse().map(GoalId).map_err(|_| ErrorCode::GoalNotFound.into())
}
