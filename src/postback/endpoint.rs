//! What is known of one endpoint while there is something for it: how many attempts it may have at a time, and whether
//! it is left in peace for a while.

use std::collections::HashSet;

use crate::core::{ConversionId, UnixMillis};

/// Attempts at a time to an endpoint that answers fast.
pub(super) const FAST_MAX: usize = 32;
/// Attempts at a time to one that is slow, or not known yet.
pub(super) const SLOW_MAX: usize = 2;
/// An answer within this is fast.
const FAST_MILLIS: u32 = 1_000;
/// So many failures in a row open the breaker.
const FAILURES_MAX: u32 = 5;
/// How long an open breaker rests at first, and at most: one attempt then shows whether it closes.
const REST_MILLIS: i64 = 5_000;
const REST_MILLIS_MAX: i64 = 60_000;

/// What an attempt says of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It works.
    Good,
    /// It answers, whatever it thinks of what it was told.
    Alive,
    /// It is down, overloaded or not there.
    Bad,
}

/// What a status, or none, says of the endpoint.
pub(super) fn sign(status: Option<u16>, whole: bool) -> Sign {
    match status {
        Some(200..300) if whole => Sign::Good,
        Some(429 | 500..) | None => Sign::Bad,
        Some(_) => Sign::Alive,
    }
}

/// An endpoint with something to do.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// Attempts on their way.
    pub(super) running: usize,
    /// Conversions whose attempts are on their way, or whose outcomes are not kept yet.
    pub(super) taken: HashSet<ConversionId>,
    /// It stands in a queue for its turn.
    pub(super) queued: bool,
    /// When it gets a turn although nothing happens.
    pub(super) timer: Option<UnixMillis>,
    failures: u32,
    fast: bool,
    rests_until: UnixMillis,
}

impl Endpoint {
    /// Whether it shares the room of the slow ones.
    pub(super) fn is_slow(&self) -> bool {
        !self.fast || self.failures > 0
    }

    /// How many more attempts it may have now.
    pub(super) fn free(&self) -> usize {
        let most = match (self.failures, self.is_slow()) {
            (FAILURES_MAX.., _) => 1,
            (_, true) => SLOW_MAX,
            (_, false) => FAST_MAX,
        };
        most.saturating_sub(self.running)
    }

    /// Until when it is left in peace; none: it is not.
    pub(super) fn rests(&self, now: UnixMillis) -> Option<UnixMillis> {
        (self.rests_until > now).then_some(self.rests_until)
    }

    /// Learns from an attempt. `jitter` is between 0 and 1.
    pub(super) fn learn(
        &mut self,
        sign: Sign,
        latency_millis: u32,
        retry_after: Option<u64>,
        now: UnixMillis,
        jitter: f64,
    ) {
        self.fast = latency_millis < FAST_MILLIS;
        self.failures = if sign == Sign::Bad { self.failures.saturating_add(1) } else { 0 };
        if sign != Sign::Bad {
            return;
        }
        let mut rest = 0;
        if self.failures >= FAILURES_MAX {
            let doubled = REST_MILLIS << (self.failures - FAILURES_MAX).min(8);
            let most = doubled.min(REST_MILLIS_MAX);
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "a minute at most"
            )]
            let earlier = (most as f64 * 0.2 * jitter.clamp(0.0, 1.0)) as i64;
            rest = most - earlier;
        }
        if let Some(seconds) = retry_after {
            rest = rest.max(seconds.min(crate::core::webhook::RETRY_AFTER_MAX).cast_signed() * 1000);
        }
        self.rests_until = self.rests_until.max(now.plus(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn an_endpoint_earns_its_room() {
        let mut endpoint = Endpoint::default();
        assert!(endpoint.is_slow() && endpoint.free() == SLOW_MAX, "not known yet");
        endpoint.learn(Sign::Good, 20, None, NOW, 0.0);
        assert!(!endpoint.is_slow() && endpoint.free() == FAST_MAX);
        endpoint.running = FAST_MAX - 1;
        assert_eq!(endpoint.free(), 1);
        endpoint.learn(Sign::Good, 10_000, None, NOW, 0.0);
        assert!(endpoint.is_slow() && endpoint.free() == 0, "slow now");
    }

    #[test]
    fn the_breaker_rests_longer_and_longer_and_closes_at_once() {
        let mut endpoint = Endpoint::default();
        let mut rests = Vec::new();
        for _ in 0..10 {
            endpoint.learn(Sign::Bad, 5, None, NOW, 0.0);
            rests.push(endpoint.rests(NOW).map_or(0, |until| until.0 - NOW.0));
        }
        assert_eq!(rests, [0, 0, 0, 0, 5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
        assert_eq!(endpoint.free(), 1, "one attempt shows whether it is back");
        endpoint.learn(Sign::Good, 5, None, NOW.plus(60_000), 0.0);
        assert!(endpoint.rests(NOW.plus(60_001)).is_none() && endpoint.free() == FAST_MAX);
    }

    #[test]
    fn who_asks_for_a_pause_gets_it() {
        let mut endpoint = Endpoint::default();
        endpoint.learn(sign(Some(429), true), 5, Some(30), NOW, 0.0);
        assert_eq!(endpoint.rests(NOW), Some(NOW.plus(30_000)));
        assert_eq!(sign(Some(404), true), Sign::Alive);
        assert_eq!(sign(Some(302), true), Sign::Alive);
        assert_eq!(sign(Some(200), false), Sign::Alive);
        assert_eq!(sign(None, false), Sign::Bad);
    }
}
