//! `POST /api/v1/clicks`: clicks that a shortener or an ad server has seen, one or many.

mod input;

use std::time::Duration;

use bytes::Bytes;
use hyper::{StatusCode, body::Body, header, http::request::Parts};
use serde::Serialize;

use super::{
    Connection,
    body::{self, RequestBody},
    bulk::{self, Line, LineResult, Results},
    client,
    error::{ApiError, ErrorCode},
    response::{self, Answer},
    services::{Services, Submit},
};
use crate::{
    core::{AccountId, ClickId, ClickSource, Traffic, UnixMillis, is_bot},
    intake::{ClickOutcome, ClickSubmission},
};

/// When to come back after the log failed: an operator has to act first.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct ClickJson {
    click_id: u64,
    /// `null`: not known yet.
    duplicate: Option<bool>,
}

/// One JSON object, or up to 10,000 lines of them.
pub(super) async fn create<I: Submit, R, B>(
    services: &Services<I, R>,
    connection: &Connection<I::Gate>,
    head: &Parts,
    body: &mut RequestBody<'_, B>,
) -> Result<Answer, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    // The key first: nobody else may send so much.
    let account = client::account(&services.catalog.snapshot(), &head.headers)?;
    let body = body::read_bulk(body, bulk::BODY_BYTES_MAX).await?;
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let now = services.clock.now();
    if bulk::is_bulk(content_type, &body) {
        return services.report_clicks(connection, account, bulk::lines(&body)?, now).await;
    }
    let click = services.read_click(account, &body, now)?;
    let outcome = services.intake.click(click, &connection.gate).await;
    match result_of(outcome)? {
        LineResult::Accepted(status, click) => Ok(response::data(status, &click)),
        LineResult::Duplicate(click) => Ok(response::data(StatusCode::OK, &click)),
        LineResult::Refused(error) => Err(error),
    }
}

impl<I: Submit, R> Services<I, R> {
    async fn report_clicks(
        &self,
        connection: &Connection<I::Gate>,
        account: AccountId,
        lines: Vec<Line<'_>>,
        now: UnixMillis,
    ) -> Result<Answer, ApiError> {
        let mut clicks = Vec::with_capacity(lines.len());
        let mut refused = Vec::with_capacity(lines.len());
        for (at, line) in lines.iter().enumerate() {
            match self.read_click(account, line.bytes, now) {
                Ok(click) => {
                    clicks.push(click);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
            bulk::breathe(at).await;
        }
        let mut outcomes = self.intake.clicks(clicks, &connection.gate).await.into_iter();
        let mut results = Results::with_capacity(lines.len());
        for (line, refused) in lines.iter().zip(refused) {
            let result = match refused {
                Some(error) => LineResult::Refused(error),
                // Nothing was kept of any line: that is the answer to all of them.
                None => result_of(outcomes.next().unwrap_or(ClickOutcome::Unavailable))?,
            };
            results.push(line.number, result);
        }
        Ok(results.answer())
    }

    fn read_click(
        &self,
        account_id: AccountId,
        body: &[u8],
        now: UnixMillis,
    ) -> Result<ClickSubmission, ApiError> {
        let read = input::read(body, now, self.limits.click_retention_days).and_then(|click| {
            let mut campaign = click.campaign;
            if let Some(id) = click.link_id {
                let snapshot = self.catalog.snapshot();
                let link = snapshot.link(account_id, id);
                let link = link.ok_or_else(|| ApiError::new(ErrorCode::UnknownLink).at("link_id"))?;
                campaign = campaign.or(&link.campaign);
            }
            let traffic = if is_bot(&click.user_agent) { Traffic::Bot } else { Traffic::Human };
            Ok(ClickSubmission {
                account_id,
                link_id: click.link_id,
                click_id: click.click_id,
                clicked_at: click.clicked_at.unwrap_or(now),
                received_at: now,
                source: ClickSource::Api,
                traffic,
                campaign,
                variant: click.variant,
                subs: click.subs,
                ip: click.ip,
                user_agent: click.user_agent,
            })
        });
        read.inspect_err(|error| {
            self.metrics.clicks_rejected.increment(1);
            self.metrics.rejected(error.code.as_str());
        })
    }
}

/// What a line is told, or why nothing was kept.
fn result_of(outcome: ClickOutcome) -> Result<LineResult<ClickJson>, ApiError> {
    let click = |ClickId(click_id), duplicate| ClickJson { click_id, duplicate };
    match outcome {
        ClickOutcome::New(id) => Ok(LineResult::Accepted(StatusCode::CREATED, click(id, Some(false)))),
        ClickOutcome::Duplicate(id) => Ok(LineResult::Duplicate(click(id, Some(true)))),
        ClickOutcome::Unverified(id) => Ok(LineResult::Accepted(StatusCode::ACCEPTED, click(id, None))),
        ClickOutcome::Overloaded { retry_after } => {
            Err(ApiError::new(ErrorCode::Overloaded).after(retry_after))
        }
        ClickOutcome::Unavailable => {
            Err(ApiError::new(ErrorCode::Unavailable).after(UNAVAILABLE_RETRY_AFTER))
        }
    }
}
