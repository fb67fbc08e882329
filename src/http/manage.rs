//! Changes to the catalog: their bodies, their way to the disk, and what is said of those that are not made.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{body::Body, header, http::request::Parts};

use super::{
    body::{self, RequestBody},
    error::{ApiError, ErrorCode},
    services::Services,
};
use crate::{
    catalog::{Catalog, ChangeError, EntryKind},
    core::PlanRefusal,
    tasks,
};

/// When to come back after so much was deleted that ClickHouse has to learn of it first.
const COPY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A body that is JSON by its Content-Type or by its look: `curl -d` calls everything a form.
pub(super) async fn json_body<I, R, B>(
    services: &Services<I, R>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
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
pub(super) async fn change_catalog<I, R, T: Send + 'static>(
    services: &Services<I, R>,
    change: impl FnOnce(&Catalog) -> Result<T, ChangeError> + Send + 'static,
) -> Result<T, ApiError> {
    let catalog = Arc::clone(&services.catalog);
    tasks::blocking(move || change(&catalog)).await.map_err(|error| refused(&error))
}

fn refused(error: &ChangeError) -> ApiError {
    match error {
        ChangeError::Plan(refusal) => {
            let refused = plan_required(*refusal);
            match refusal {
                PlanRefusal::Window => refused.at("attribution_window_days"),
                PlanRefusal::Tracking => refused,
            }
        }
        ChangeError::Unknown(kind) => match kind {
            EntryKind::Account => ErrorCode::AccountNotFound.into(),
            EntryKind::Key => ErrorCode::KeyNotFound.into(),
            EntryKind::Goal => ErrorCode::GoalNotFound.into(),
            EntryKind::Link => ErrorCode::LinkNotFound.into(),
        },
        ChangeError::TooMany { kind, .. } => match kind {
            EntryKind::Account => ErrorCode::TooManyAccounts.into(),
            EntryKind::Key => ErrorCode::TooManyKeys.into(),
            EntryKind::Goal => ErrorCode::TooManyGoals.into(),
            EntryKind::Link => ErrorCode::TooManyLinks.into(),
        },
        ChangeError::SlugTaken => ApiError::new(ErrorCode::SlugTaken).at("slug"),
        ChangeError::NameTaken => ApiError::new(ErrorCode::NameTaken).at("name"),
        ChangeError::CopyBehind(_) => ApiError::new(ErrorCode::DatabaseUnavailable).after(COPY_RETRY_AFTER),
        ChangeError::Storage(_) | ChangeError::Random(_) => {
            tracing::error!(%error, "the catalog was not changed");
            ErrorCode::Internal.into()
        }
    }
}

fn plan_required(refusal: PlanRefusal) -> ApiError {
    ApiError::new(ErrorCode::PlanRequired).because(format!("Refused: {refusal}."))
}
