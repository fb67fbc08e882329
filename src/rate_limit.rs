//! The rate limit of a goal's token: a token bucket that holds one minute's hits.
//!
//! Buckets are kept by goal, outside the catalog: changing a goal or rotating its token does not refill its bucket.

use std::{num::NonZeroU32, time::Duration};

use dashmap::DashMap;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::core::GoalId;

type Bucket<C> = RateLimiter<NotKeyed, InMemoryState, C, StateInformationMiddleware>;

/// The buckets of all goals that were hit.
pub struct RateLimits<C: Clock + Clone = DefaultClock> {
    clock: C,
    buckets: DashMap<GoalId, Entry<C>, ahash::RandomState>,
}

struct Entry<C: Clock> {
    per_minute: NonZeroU32,
    bucket: Bucket<C>,
}

/// Where a caller stands with its limit: the `RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Hits a minute.
    pub limit: u32,
    /// Hits that would be let through now.
    pub remaining: u32,
    /// Seconds until the bucket is full again, rounded up.
    pub reset_seconds: u32,
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Where the caller stands.
    pub standing: Standing,
    /// When the next hit will be let through.
    pub retry_after: Duration,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self::new(DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    /// No goal was hit yet.
    #[must_use]
    pub fn new(clock: C) -> Self {
        Self { clock, buckets: DashMap::with_hasher(ahash::RandomState::new()) }
    }

    /// Takes one hit from the goal's bucket. A changed quota starts a new, full bucket.
    pub fn take(&self, goal: GoalId, per_minute: NonZeroU32) -> Result<Standing, Limited> {
        if let Some(entry) = self.buckets.get(&goal)
            && entry.per_minute == per_minute
        {
            return entry.take(&self.clock);
        }
        let fresh = || Entry {
            per_minute,
            bucket: RateLimiter::direct_with_clock(Quota::per_minute(per_minute), self.clock.clone())
                .with_middleware::<StateInformationMiddleware>(),
        };
        let mut entry = self.buckets.entry(goal).or_insert_with(fresh);
        if entry.per_minute != per_minute {
            *entry = fresh();
        }
        entry.take(&self.clock)
    }
}

impl<C: Clock> Entry<C> {
    fn take(&self, clock: &C) -> Result<Standing, Limited> {
        let standing = |remaining: u32| {
            let limit = self.per_minute.get();
            let missing = u64::from(limit.saturating_sub(remaining));
            let reset = (missing * 60).div_ceil(u64::from(limit));
            Standing { limit, remaining, reset_seconds: u32::try_from(reset).unwrap_or(60) }
        };
        match self.bucket.check() {
            Ok(state) => Ok(standing(state.remaining_burst_capacity())),
            Err(until) => {
                Err(Limited { standing: standing(0), retry_after: until.wait_time_from(clock.now()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn quota(per_minute: u32) -> NonZeroU32 {
        NonZeroU32::new(per_minute).expect("not zero")
    }

    #[test]
    fn the_burst_is_a_minute_and_refills_evenly() {
        let clock = FakeRelativeClock::default();
        let limits = RateLimits::new(clock.clone());
        let goal = GoalId(1);
        for left in (0..60).rev() {
            assert_eq!(limits.take(goal, quota(60)).map(|standing| standing.remaining), Ok(left));
        }
        let limited = limits.take(goal, quota(60)).expect_err("empty");
        assert_eq!(limited.standing, Standing { limit: 60, remaining: 0, reset_seconds: 60 });
        assert!(limited.retry_after <= Duration::from_secs(1), "{limited:?}");
        clock.advance(Duration::from_secs(1));
        assert!(limits.take(goal, quota(60)).is_ok());
        assert!(limits.take(goal, quota(60)).is_err());
        assert!(limits.take(GoalId(2), quota(60)).is_ok(), "another goal has its own bucket");
    }

    #[test]
    fn a_changed_quota_counts_at_once() {
        let limits = RateLimits::new(FakeRelativeClock::default());
        assert!(limits.take(GoalId(1), quota(1)).is_ok());
        assert!(limits.take(GoalId(1), quota(1)).is_err());
        assert_eq!(limits.take(GoalId(1), quota(5)).map(|standing| standing.remaining), Ok(4));
    }
}
