//! Rate limits: in no window of time, wherever it begins, more than so many.
//!
//! A window is counted in spans, each a sixtieth of it. What was let through in the present span and the sixty before it
//! never exceeds the limit, and any window lies within as many spans: so the limit holds for every window, and what was let
//! through counts for at most one span longer than it must. What is refused does not count.
//!
//! Windows are kept by goal or account, outside the catalog: changing a goal or rotating its token forgets nothing.

use std::{
    hash::Hash,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::core::GoalId;

/// A window that begins within a span ends within the sixtieth after it.
const SPANS: usize = 61;

/// The windows of all keys that were met.
pub struct RateLimits<K = GoalId> {
    started: Instant,
    span_seconds: u64,
    windows: DashMap<K, Mutex<Window>, ahash::RandomState>,
}

/// Where a caller stands with its limit: the `RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Hits a window.
    pub limit: u32,
    /// Hits that would be let through now.
    pub remaining: u32,
    /// Seconds until none of those that were let through counts any more, rounded up.
    pub reset_seconds: u32,
}

/// As many were let through as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Where the caller stands.
    pub standing: Standing,
    /// When the next hit will be let through.
    pub retry_after: Duration,
}

impl<K: Eq + Hash + Copy> Default for RateLimits<K> {
    fn default() -> Self {
        Self::per_minute()
    }
}

impl<K: Eq + Hash + Copy> RateLimits<K> {
    /// Limits of any sixty seconds.
    #[must_use]
    pub fn per_minute() -> Self {
        Self::of_spans(1)
    }

    /// Limits of any twenty-four hours.
    #[must_use]
    pub fn per_day() -> Self {
        Self::of_spans(24 * 60)
    }

    fn of_spans(span_seconds: u64) -> Self {
        Self {
            started: Instant::now(),
            span_seconds,
            windows: DashMap::with_hasher(ahash::RandomState::new()),
        }
    }

    /// Lets one hit of the key through, if its limit allows it. A changed limit counts at once.
    pub fn take(&self, key: K, limit: NonZeroU32) -> Result<Standing, Limited> {
        self.take_many(key, 1, limit)
    }

    /// The same for what counts as `cost` hits.
    pub fn take_many(&self, key: K, cost: u32, limit: NonZeroU32) -> Result<Standing, Limited> {
        self.take_at(key, cost, limit, self.started.elapsed())
    }

    fn take_at(&self, key: K, cost: u32, limit: NonZeroU32, now: Duration) -> Result<Standing, Limited> {
        if let Some(window) = self.windows.get(&key) {
            return window.lock().take(cost, limit.get(), now, self.span_seconds);
        }
        let window = self.windows.entry(key).or_default();
        window.lock().take(cost, limit.get(), now, self.span_seconds)
    }
}

/// What was let through in each of the last spans. `sum` is the sum of `counts`.
struct Window {
    /// The present span's number.
    newest: u64,
    /// By a span's number modulo their length.
    counts: [u32; SPANS],
    sum: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self { newest: 0, counts: [0; SPANS], sum: 0 }
    }
}

impl Window {
    fn take(&mut self, cost: u32, limit: u32, now: Duration, span_seconds: u64) -> Result<Standing, Limited> {
        self.advance(now.as_secs() / span_seconds);
        // A span counts until the one after the last of those that a window from its start may reach.
        let counts_for =
            |span: u64| Duration::from_secs((span + SPANS as u64) * span_seconds).saturating_sub(now);
        let standing = |sum: u32, last: Duration| Standing {
            limit,
            remaining: limit.saturating_sub(sum),
            reset_seconds: u32::try_from(last.as_secs() + u64::from(last.subsec_nanos() > 0))
                .unwrap_or(u32::MAX),
        };
        if let Some(sum) = self.sum.checked_add(cost).filter(|sum| *sum <= limit) {
            self.counts[place(self.newest)] += cost;
            self.sum = sum;
            return Ok(standing(sum, counts_for(self.newest)));
        }
        let excess = self.sum.saturating_add(cost).saturating_sub(limit);
        Err(Limited {
            standing: standing(self.sum, self.last_of(u32::MAX).map_or(Duration::ZERO, counts_for)),
            retry_after: self.last_of(excess).map_or(Duration::ZERO, counts_for),
        })
    }

    /// Forgets the spans that no window reaches any more. A thread that read the clock before another one did counts with
    /// that one's span.
    fn advance(&mut self, present: u64) {
        let passed = present.saturating_sub(self.newest);
        for n in 1..=passed.min(SPANS as u64) {
            self.sum -= std::mem::take(&mut self.counts[place(self.newest + n)]);
        }
        self.newest += passed;
    }

    /// The last span of the oldest ones that hold so many, or all.
    fn last_of(&self, count: u32) -> Option<u64> {
        let oldest = self.newest.saturating_sub(SPANS as u64 - 1);
        let (mut held, mut last) = (0, None);
        for span in oldest..=self.newest {
            let own = self.counts[place(span)];
            if own > 0 && held < count {
                held += own;
                last = Some(span);
            }
        }
        last
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number % SPANS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: GoalId = GoalId(1);

    fn quota(limit: u32) -> NonZeroU32 {
        NonZeroU32::new(limit).expect("not zero")
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_takes_the_minute_and_comes_back_when_it_is_over() {
        let limits = RateLimits::per_minute();
        for left in (0..60).rev() {
            let standing = limits.take_at(A, 1, quota(60), at(300));
            assert_eq!(standing.map(|standing| standing.remaining), Ok(left));
        }
        let limited = limits.take_at(A, 1, quota(60), at(1_500)).expect_err("all are taken");
        assert_eq!(limited.standing, Standing { limit: 60, remaining: 0, reset_seconds: 60 });
        assert_eq!(limited.retry_after, at(59_500));
        assert!(limits.take_at(A, 1, quota(60), at(60_999)).is_err(), "no bucket that fills up meanwhile");
        assert!(limits.take_at(A, 60, quota(60), at(61_000)).is_ok());
        assert!(limits.take_at(GoalId(2), 1, quota(60), at(61_000)).is_ok(), "another goal has its own");
    }

    #[test]
    fn a_changed_limit_counts_at_once_and_forgets_nothing() {
        let limits = RateLimits::per_minute();
        assert!(limits.take_at(A, 1, quota(1), at(0)).is_ok());
        assert!(limits.take_at(A, 1, quota(1), at(0)).is_err());
        assert_eq!(limits.take_at(A, 1, quota(5), at(0)).map(|standing| standing.remaining), Ok(3));
        assert!(limits.take_at(A, 1, quota(1), at(0)).is_err());
    }

    #[test]
    fn what_costs_more_than_is_left_is_refused_whole() {
        let limits = RateLimits::<GoalId>::per_day();
        let hour = Duration::from_hours(1);
        assert!(limits.take_at(A, 60, quota(100), hour).is_ok());
        let limited = limits.take_at(A, 41, quota(100), 2 * hour).expect_err("too much");
        assert_eq!(limited.standing.remaining, 40);
        assert!(limits.take_at(A, 40, quota(100), 2 * hour).is_ok());
        assert!(limits.take_at(A, 41, quota(100), 2 * hour + limited.retry_after).is_ok());
        assert!(limits.take_at(A, u32::MAX, quota(u32::MAX), 3 * hour).is_err(), "sums do not overflow");
    }

    proptest! {
        /// The two promises, for every window and every history: never more than the limit in sixty seconds, and never a
        /// refusal while fewer were let through in the last sixty-one.
        #[test]
        fn no_window_holds_more_and_none_holds_less_for_long(
            steps in prop::collection::vec((0u64..4_000, 1usize..40), 1..200),
            limit in 1u32..60,
        ) {
            let limits = RateLimits::per_minute();
            let (mut now, mut let_through) = (0, Vec::new());
            for (step, hits) in steps {
                now += step;
                for _ in 0..hits {
                    let recent = |window: u64| {
                        let since = now.saturating_sub(window);
                        let_through.iter().filter(|&&then| then > since || window > now).count()
                    };
                    let before = (recent(60_000), recent(61_000));
                    match limits.take_at(A, 1, quota(limit), at(now)) {
                        Ok(standing) => {
                            prop_assert!(before.0 < limit as usize, "{before:?}");
                            let_through.push(now);
                            prop_assert!(standing.remaining < limit);
                        }
                        Err(limited) => {
                            prop_assert!(before.1 >= limit as usize, "{before:?}");
                            let then = at(now) + limited.retry_after;
                            prop_assert!(limited.retry_after <= at(61_000));
                            // The answer is true: not before then, and then it is let through.
                            let copy = copy(&limits);
                            prop_assert!(copy.take_at(A, 1, quota(limit), then.saturating_sub(at(1))).is_err());
                            prop_assert!(copy.take_at(A, 1, quota(limit), then).is_ok());
                        }
                    }
                }
            }
        }
    }

    fn copy(limits: &RateLimits) -> RateLimits {
        let copy = RateLimits::per_minute();
        for window in &limits.windows {
            let Window { newest, counts, sum } = &*window.value().lock();
            copy.windows
                .insert(*window.key(), Mutex::new(Window { newest: *newest, counts: *counts, sum: *sum }));
        }
        copy
    }
}
