//! What is known of one endpoint while there is something for it: how many attempts it may have at a time, and whether
//! it is left in peace for a while.

use std::collections::HashSet;

use crate::core::{ConversionId, UnixMillis};

/// Attempts at a time to an endpoint that answers fast.
pub(super) const FAST_MAX: usize = 32;
/// Attempts at a time to one that is slow or fails.
pub(super) const SLOW_MAX: usize = 2;
/// Attempts at a time to one that has not answered yet: the first shows what it is.
pub(super) const NEW_MAX: usize = 1;
/// An answer within this is fast; so long without any, it is slow.
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

/// What is thought of an endpoint. The attempts of each lane have room of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// It answers fast.
    Fast,
    /// It has not answered yet.
    New,
    /// It takes its time, says nothing, or fails.
    Slow,
}

impl Lane {
    /// In the order of their turns.
    pub(super) const ALL: [Self; 3] = [Self::Fast, Self::New, Self::Slow];
}

/// An endpoint with something to do, or one that is remembered to be fast.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// Conversions whose attempts are on their way, or whose outcomes are not kept yet.
    pub(super) taken: HashSet<ConversionId>,
    /// It stands in the queue of a lane for its turn.
    pub(super) stands: bool,
    /// When it gets a turn although nothing happens.
    pub(super) timer: Option<UnixMillis>,
    /// What waits for it is being dropped.
    pub(super) withdrawing: bool,
    /// Attempts on their way.
    running: usize,
    /// When the last attempt ended; or, with none on its way before, when one began.
    heard: UnixMillis,
    /// Whether its last answer was fast; none: it has not answered yet.
    fast: Option<bool>,
    failures: u32,
    rests_until: UnixMillis,
}

impl Endpoint {
    /// Where it belongs now.
    pub(super) fn lane(&self, now: UnixMillis) -> Lane {
        let silent = self.running > 0 && now.0 - self.heard.0 > i64::from(FAST_MILLIS);
        match self.fast {
            _ if silent || self.failures > 0 => Lane::Slow,
            Some(true) => Lane::Fast,
            Some(false) => Lane::Slow,
            None => Lane::New,
        }
    }

    /// How many more attempts it may have now.
    pub(super) fn free(&self, now: UnixMillis) -> usize {
        let most = match (self.failures, self.lane(now)) {
            (FAILURES_MAX.., _) => 1,
            (_, Lane::Slow) => SLOW_MAX,
            (_, Lane::New) => NEW_MAX,
            (_, Lane::Fast) => FAST_MAX,
        };
        most.saturating_sub(self.running)
    }

    /// Whether nothing is under way for it.
    pub(super) fn is_idle(&self) -> bool {
        self.taken.is_empty() && !self.stands && self.timer.is_none() && !self.withdrawing
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, conversion: ConversionId, now: UnixMillis) {
        self.taken.insert(conversion);
        if self.running == 0 {
            self.heard = now;
        }
        self.running += 1;
    }

    /// Until when it is left in peace; none: it is not.
    pub(super) fn rests(&self, now: UnixMillis) -> Option<UnixMillis> {
        (self.rests_until > now).then_some(self.rests_until)
    }

    /// Learns from an attempt that ended. `jitter` is between 0 and 1.
    pub(super) fn learn(
        &mut self,
        sign: Sign,
        latency_millis: u32,
        retry_after: Option<u64>,
        now: UnixMillis,
        jitter: f64,
    ) {
        self.running = self.running.saturating_sub(1);
        self.heard = now;
        self.fast = Some(latency_millis < FAST_MILLIS);
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

    fn begin(endpoint: &mut Endpoint, count: u128, now: UnixMillis) {
        for number in 0..count {
            endpoint.begin(ConversionId(uuid::Uuid::from_u128(number)), now);
        }
    }

    #[test]
    fn an_endpoint_earns_its_room() {
        let mut endpoint = Endpoint::default();
        assert_eq!((endpoint.lane(NOW), endpoint.free(NOW)), (Lane::New, NEW_MAX));
        begin(&mut endpoint, 1, NOW);
        endpoint.learn(Sign::Good, 20, None, NOW, 0.0);
        assert_eq!((endpoint.lane(NOW), endpoint.free(NOW)), (Lane::Fast, FAST_MAX));
        begin(&mut endpoint, FAST_MAX as u128 - 1, NOW);
        assert_eq!(endpoint.free(NOW), 1);
        endpoint.learn(Sign::Good, 10_000, None, NOW, 0.0);
        assert_eq!((endpoint.lane(NOW), endpoint.free(NOW)), (Lane::Slow, 0), "slow now");
    }

    #[test]
    fn one_that_falls_silent_gets_no_more() {
        let mut endpoint = Endpoint::default();
        begin(&mut endpoint, 1, NOW);
        endpoint.learn(Sign::Good, 20, None, NOW, 0.0);
        begin(&mut endpoint, 3, NOW.plus(60_000));
        assert_eq!(endpoint.lane(NOW.plus(61_000)), Lane::Fast, "it may take a second");
        let later = NOW.plus(61_001);
        assert_eq!((endpoint.lane(later), endpoint.free(later)), (Lane::Slow, 0));
        endpoint.learn(Sign::Good, 900, None, later, 0.0);
        assert_eq!(endpoint.lane(later), Lane::Fast, "it speaks again");
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
        assert_eq!(endpoint.free(NOW), 1, "one attempt shows whether it is back");
        let later = NOW.plus(60_001);
        endpoint.learn(Sign::Good, 5, None, later, 0.0);
        assert!(endpoint.rests(later).is_none() && endpoint.free(later) == FAST_MAX);
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
