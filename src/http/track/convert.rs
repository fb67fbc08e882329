//! A hit of a known goal: limit, plan, fields, intake; and the record of what was refused.

use std::{borrow::Cow, net::IpAddr, num::NonZeroU32, time::Duration};

use super::{notes::Notes, payload::Payload, raw_hit::RawHit, summary};
use crate::{
    catalog::Target,
    core::{
        CONFLICT_MESSAGE, ConversionId, Currency, DUPLICATE, Money, OrderId, Refusal, Source, UnixMillis,
    },
    http::{
        Connection,
        error::{ApiError, ErrorCode},
        fields::user_agent,
        services::{Services, Submit},
    },
    intake::{Outcome, Submission},
    rate_limit::Standing,
};

/// When to come back after the log failed: an operator has to act first.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(30);

/// A hit on its way, with what came with it.
pub(super) struct Hit<'a> {
    pub(super) source: Source,
    pub(super) received_at: UnixMillis,
    pub(super) payload: Payload<'a>,
    pub(super) idempotency_key: Option<&'a str>,
    /// The visitor's address and user agent, as far as the connection shows them.
    pub(super) ip: IpAddr,
    pub(super) user_agent: Cow<'a, str>,
    /// A browser loads an image. Its address may have anything in it, and no one reads an answer.
    pub(super) is_image: bool,
}

/// What a hit is answered.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) result: Result<Accepted, ApiError>,
    /// What is told beside it.
    pub(super) notes: Notes,
    /// Where the caller stands with its rate limit, if there is one.
    pub(super) standing: Option<Standing>,
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    New(ConversionId),
    Duplicate { original: ConversionId, conflict: bool },
    Unverified(ConversionId),
}

impl Verdict {
    pub(super) fn refused(error: impl Into<ApiError>) -> Self {
        Self { result: Err(error.into()), notes: Notes::default(), standing: None }
    }
}

impl<I: Submit, R> Services<I, R> {
    /// A hit of no known goal, or one that was refused before its goal was known: counted, not recorded.
    pub(super) fn refuse_unknown(&self, error: impl Into<ApiError>) -> Verdict {
        let error = error.into();
        self.metrics.hits_rejected.increment(1);
        self.metrics.rejected(error.code.as_str());
        Verdict::refused(error)
    }

    /// Takes the hit, or refuses it and keeps why. `raw` may have been decoded already to find the goal.
    pub(super) async fn convert<'a>(
        &self,
        connection: &Connection<I::Gate>,
        target: Target,
        hit: Hit<'a>,
        raw: Option<RawHit<'a>>,
    ) -> Verdict {
        let standing = match self.take_from_limit(target) {
            Ok(standing) => standing,
            Err((standing, error)) => {
                self.refuse(target, &hit, "", &error);
                return Verdict { standing: Some(standing), ..Verdict::refused(error) };
            }
        };
        match self.read(target, &hit, raw) {
            Ok((submission, notes)) => {
                let outcome = self.intake.submit(submission, &connection.gate).await;
                Verdict { result: self.conclude(target, &hit, outcome), notes, standing }
            }
            Err(refused) => {
                self.refuse(target, &hit, &refused.order_id, &refused.error);
                Verdict { standing, ..Verdict::refused(refused.error) }
            }
        }
    }

    pub(super) fn take_from_limit(&self, target: Target) -> Result<Option<Standing>, (Standing, ApiError)> {
        let per_minute = match target.rate_limit_per_minute {
            Some(own) => NonZeroU32::new(own),
            None => self.limits.rate_limit_per_minute,
        };
        let Some(per_minute) = per_minute else { return Ok(None) };
        match self.rate_limits.take(target.goal_id, per_minute) {
            Ok(standing) => Ok(Some(standing)),
            Err(limited) => {
                let error = ApiError::new(ErrorCode::RateLimited).after(limited.retry_after);
                Err((limited.standing, error))
            }
        }
    }

    /// The hit's fields with the goal's defaults, and what is told about them.
    pub(super) fn read<'a>(
        &self,
        target: Target,
        hit: &Hit<'a>,
        raw: Option<RawHit<'a>>,
    ) -> Result<(Submission, Notes), RefusedFields> {
        target.plan.allows_tracking().map_err(|refusal| {
            ApiError::new(ErrorCode::PlanRequired).because(format!("Refused: {refusal}."))
        })?;
        let idempotency_key = hit.idempotency_key.map(idempotency_key).transpose()?;
        let raw = match raw {
            Some(raw) => raw,
            None => hit.payload.decode()?,
        };
        let named =
            |error| RefusedFields { error, order_id: raw.order_id.as_deref().unwrap_or_default().to_owned() };
        if raw.is_foreign() && !hit.is_image {
            return Err(no_known_field(&raw).into());
        }
        let fields = raw.read().map_err(named)?;
        let mut notes = Notes { ignored: raw.unknown.told().collect(), warnings: fields.warnings };
        let mut converted_at = hit.received_at;
        let mut visitor = None;
        if hit.source == Source::Api || target.trust_client_fields {
            let days = self.limits.click_retention_days;
            let reported = raw.reported(hit.received_at, days).map_err(named)?;
            converted_at = reported.converted_at.unwrap_or(converted_at);
            // Who calls with a key is a server; and of somebody who reports a visitor, neither half is the visitor's.
            if hit.source == Source::Api || reported.ip.is_some() || reported.user_agent.is_some() {
                visitor = Some((reported.ip, reported.user_agent.unwrap_or_default()));
            }
        } else {
            notes.ignored.extend(raw.trusted_fields().map(String::from));
        }
        if !notes.ignored.is_empty() {
            self.metrics.hits_with_ignored_fields.increment(1);
            self.ignored_fields.count(target.goal_id, &notes.ignored);
        }
        let (ip, user_agent) = visitor.unwrap_or_else(|| (Some(hit.ip), user_agent(&hit.user_agent)));
        let submission = Submission {
            account_id: target.account_id,
            goal_id: target.goal_id,
            order_id: fields.order_id,
            idempotency_key,
            value: fields.value.or(target.value).unwrap_or(Money::ZERO),
            currency: fields.currency.or(target.currency).unwrap_or(Currency::USD),
            click_id: fields.click_id,
            ip,
            user_agent,
            source: hit.source,
            received_at: hit.received_at,
            converted_at,
            window_seconds: target.window_seconds,
        };
        Ok((submission, notes))
    }

    /// What the caller is told. An error: nothing was kept.
    pub(super) fn conclude(
        &self,
        target: Target,
        hit: &Hit<'_>,
        outcome: Outcome,
    ) -> Result<Accepted, ApiError> {
        match outcome {
            Outcome::New(id) => Ok(Accepted::New(id)),
            Outcome::Duplicate { original, conflict } => {
                let message = if conflict { CONFLICT_MESSAGE } else { "Reported before." };
                // Its order id is read from the first report: once that is erased, no copy may bring it back.
                self.record(target, hit, "", (DUPLICATE, "", message), Some(original));
                Ok(Accepted::Duplicate { original, conflict })
            }
            Outcome::Unverified(id) => Ok(Accepted::Unverified(id)),
            // Nothing is recorded of these: the log is what is full or broken.
            Outcome::Overloaded { retry_after } => {
                Err(ApiError::new(ErrorCode::Overloaded).after(retry_after))
            }
            Outcome::Unavailable => Err(ApiError::new(ErrorCode::Unavailable).after(UNAVAILABLE_RETRY_AFTER)),
        }
    }

    pub(super) fn refuse(&self, target: Target, hit: &Hit<'_>, order_id: &str, error: &ApiError) {
        self.metrics.hits_rejected.increment(1);
        // Names of unknown fields may be anything: the answer has them, and the summary those that look like names.
        let message = match error.code {
            ErrorCode::NoKnownField => error.code.message(),
            _ => &*error.message,
        };
        self.record(target, hit, order_id, (error.code.as_str(), &error.field, message), None);
    }

    /// Counts what was not counted as a conversion, and keeps it readable as long as there are not too many.
    fn record(
        &self,
        target: Target,
        hit: &Hit<'_>,
        order_id: &str,
        (code, field, message): (&'static str, &str, &str),
        original_id: Option<ConversionId>,
    ) {
        self.metrics.rejected(code);
        let (order_id, request) = (order_id.trim(), summary::of(&hit.payload));
        let text_bytes = order_id.len() + field.len() + message.len() + request.len();
        if !self.volume.takes_refusal(target.account_id, target.goal_id, text_bytes) {
            self.metrics.rejections_unrecorded.increment(1);
            return;
        }
        // One that can't be an order id can't be erased as one.
        let order_id = OrderId::parse(order_id).ok().flatten();
        let recorded = self.intake.refuse(Refusal {
            account_id: target.account_id,
            goal_id: target.goal_id,
            received_at: hit.received_at,
            code: code.to_owned(),
            field: field.to_owned(),
            message: message.to_owned(),
            order_id: order_id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
            conversion_id: None,
            original_id,
            source: hit.source,
            request,
        });
        if !recorded {
            self.metrics.rejections_unrecorded.increment(1);
        }
    }
}

/// Why a hit's fields were refused, with the order id where one could be read.
pub(super) struct RefusedFields {
    pub(super) error: ApiError,
    pub(super) order_id: String,
}

impl From<ApiError> for RefusedFields {
    fn from(error: ApiError) -> Self {
        Self { error, order_id: String::new() }
    }
}

/// What came is somebody else's: it would count once for each of its retries.
fn no_known_field(raw: &RawHit<'_>) -> ApiError {
    let names: Vec<String> = raw.unknown.told().map(|name| format!("`{name}`")).collect();
    ApiError::new(ErrorCode::NoKnownField).because(format!(
        "None of the fields that came tells of a sale: {}. Send `value`, `order_id` or `click_id`.",
        names.join(", ")
    ))
}

/// A key as it may be.
pub(super) fn idempotency_key(text: &str) -> Result<String, ApiError> {
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if fits { Ok(text.to_owned()) } else { Err(ErrorCode::InvalidIdempotencyKey.into()) }
}
