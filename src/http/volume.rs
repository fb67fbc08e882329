//! Bounds on what strangers and callers can make an account write or ask, so that none fills the disk of all or takes
//! every core: by account, since tokens and keys are made by the dozen.

use std::num::NonZeroU32;

use hyper::{HeaderMap, header::HeaderName, header::HeaderValue};

use super::{
    client,
    error::{ApiError, ErrorCode},
    response::{self, Answer},
    services::Services,
};
use crate::{
    core::{AccountId, GoalId},
    rate_limit::{RateLimits, Standing},
};

pub(super) const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
pub(super) const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
pub(super) const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Refused hits and duplicates that are recorded in any minute, of one goal and of one account. More are only counted.
const GOAL_REFUSALS_MAX: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");
const ACCOUNT_REFUSALS_MAX: NonZeroU32 = NonZeroU32::new(5000).expect("not zero");
/// Bytes of them that are recorded in any day, of one account.
const ACCOUNT_REFUSAL_BYTES_MAX: NonZeroU32 = NonZeroU32::new(64 << 20).expect("not zero");
/// What a recorded one takes beside its texts.
const REFUSAL_BYTES_FIXED: usize = 160;

/// What was written and asked of late, by account.
#[derive(Default)]
pub struct Volume {
    goal_refusals: RateLimits<GoalId>,
    account_refusals: RateLimits<AccountId>,
    refusal_bytes: RefusalBytes,
    clicks: RateLimits<AccountId>,
    calls: RateLimits<AccountId>,
}

struct RefusalBytes(RateLimits<AccountId>);

impl Default for RefusalBytes {
    fn default() -> Self {
        Self(RateLimits::per_day())
    }
}

impl Volume {
    /// Whether a refused hit with texts of that many bytes may be recorded.
    pub(super) fn takes_refusal(&self, account: AccountId, goal: GoalId, text_bytes: usize) -> bool {
        let bytes = u32::try_from(text_bytes + REFUSAL_BYTES_FIXED).unwrap_or(u32::MAX);
        self.goal_refusals.take(goal, GOAL_REFUSALS_MAX).is_ok()
            && self.account_refusals.take(account, ACCOUNT_REFUSALS_MAX).is_ok()
            && self.refusal_bytes.0.take_many(account, bytes, ACCOUNT_REFUSAL_BYTES_MAX).is_ok()
    }

    /// Whether one more visit through an account's links may be recorded.
    pub(super) fn takes_click(&self, account: AccountId, per_minute: Option<NonZeroU32>) -> bool {
        per_minute.is_none_or(|per_minute| self.clicks.take(account, per_minute).is_ok())
    }
}

/// Counts a call of the API against its account's limit. One without a good key is refused by its handler.
pub(super) fn take_call<I, R>(services: &Services<I, R>, headers: &HeaderMap) -> Result<(), Box<Answer>> {
    let Some(per_minute) = services.limits.api_rate_limit_per_minute else { return Ok(()) };
    let Ok(account) = client::account(&services.catalog.snapshot(), headers) else { return Ok(()) };
    services.volume.calls.take(account, per_minute).map(drop).map_err(|limited| {
        let error = ApiError::new(ErrorCode::RateLimited)
            .because(format!("The account made {per_minute} calls within a minute; see Retry-After."))
            .after(limited.retry_after);
        let mut answer = response::error(&error);
        tell(&mut answer, limited.standing);
        Box::new(answer)
    })
}

/// Says where the caller stands with its limit.
pub(super) fn tell(answer: &mut Answer, standing: Standing) {
    let headers = answer.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(standing.limit));
    headers.insert(REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RESET, HeaderValue::from(standing.reset_seconds));
}
