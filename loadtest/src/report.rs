//! What a load run found: counts by outcome and latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::ledger::Outcome;

/// Latencies above this are counted as this.
const LATENCY_MAX: Duration = Duration::from_mins(10);

/// How many hits ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// 201, and any other 2xx that is none of those below.
    pub created: u64,
    /// 200: known already.
    pub duplicates: u64,
    /// 202: not decided yet.
    pub undecided: u64,
    /// 503.
    pub overloaded: u64,
    /// 503 without `Retry-After`.
    pub overloaded_without_retry: u64,
    /// 429.
    pub limited: u64,
    /// Any other 4xx.
    pub bad: u64,
    /// Anything else: a fault of the server.
    pub failed: u64,
    /// Lost before the answer.
    pub unknown: u64,
    /// Never sent.
    pub not_sent: u64,
}

impl Counts {
    /// Counts `outcome`.
    pub fn add(&mut self, outcome: &Outcome, retry_after: bool) {
        let counter = match outcome {
            Outcome::Acked { status: 200, .. } => &mut self.duplicates,
            Outcome::Acked { status: 202, .. } => &mut self.undecided,
            Outcome::Acked { .. } => &mut self.created,
            Outcome::Refused { status: 503 } => {
                self.overloaded_without_retry += u64::from(!retry_after);
                &mut self.overloaded
            }
            Outcome::Refused { status: 429 } => &mut self.limited,
            Outcome::Refused { status: 400..500 } => &mut self.bad,
            Outcome::Refused { .. } => &mut self.failed,
            Outcome::Unknown => &mut self.unknown,
            Outcome::NotSent => &mut self.not_sent,
        };
        *counter += 1;
    }

    /// Hits that were acknowledged.
    #[must_use]
    pub const fn acked(&self) -> u64 {
        self.created + self.duplicates + self.undecided
    }

    /// Hits that were answered.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.acked() + self.overloaded + self.limited + self.bad + self.failed
    }

    /// All that were to be sent.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.answered() + self.unknown + self.not_sent
    }

    pub(crate) const fn merge(&mut self, other: &Self) {
        self.created += other.created;
        self.duplicates += other.duplicates;
        self.undecided += other.undecided;
        self.overloaded += other.overloaded;
        self.overloaded_without_retry += other.overloaded_without_retry;
        self.limited += other.limited;
        self.bad += other.bad;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.not_sent += other.not_sent;
    }
}

/// Times, to a tenth of a per cent.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(100, nanos(LATENCY_MAX), 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("the bounds are constants that fit")))
    }

    /// Notes one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(nanos(latency));
    }

    /// The time that `percent` of them kept within.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent))
    }

    /// The shortest.
    #[must_use]
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }

    /// How many were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles that are printed.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        Quantiles { p50_ms: ms(50.0), p99_ms: ms(99.0), p999_ms: ms(99.9), max_ms: ms(100.0) }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so every value of one fits the other.
        let _ = self.0.add(&other.0);
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half of them.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1,000.
    pub p999_ms: f64,
    /// All.
    pub max_ms: f64,
}

/// What the watched server used in the measured window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerUse {
    /// CPU time of the process itself.
    pub cpu: Duration,
    /// CPU time of its children.
    pub children_cpu: Duration,
    /// CPU time that neither it, its children nor this client used: a machine that is not quiet.
    pub others_cpu: Duration,
    /// Largest resident set of the process itself.
    pub rss_bytes_max: u64,
}

/// The outcome of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Length of the measured window.
    pub window: Duration,
    /// Every hit of the run, warm-up included.
    pub total: Counts,
    /// Those answered within the window.
    pub measured: Counts,
    /// Latency of the acknowledged ones.
    pub acked: Latency,
    /// Latency of the refused, the lost and (as long as they waited) the never sent.
    pub others: Latency,
    /// How late hits were sent, against their schedule (open loop).
    pub lag: Latency,
    /// What the server used, if one is watched.
    pub server: Option<ServerUse>,
}

impl Report {
    /// Answers a second in the window.
    #[must_use]
    pub fn answered_per_second(&self) -> f64 {
        rate(self.measured.answered(), self.window)
    }

    /// Acknowledgements a second in the window.
    #[must_use]
    pub fn acked_per_second(&self) -> f64 {
        rate(self.measured.acked(), self.window)
    }

    /// The server's CPU microseconds for each answer in the window.
    #[must_use]
    pub fn cpu_us_per_hit(&self) -> Option<f64> {
        self.us_per_hit(self.server?.cpu)
    }

    /// The same of the server's children.
    #[must_use]
    pub fn children_cpu_us_per_hit(&self) -> Option<f64> {
        self.us_per_hit(self.server?.children_cpu)
    }

    /// Cores that others kept busy in the window.
    #[must_use]
    pub fn others_cores(&self) -> Option<f64> {
        Some(self.server?.others_cpu.as_secs_f64() / self.window.as_secs_f64().max(1e-9))
    }

    fn us_per_hit(&self, cpu: Duration) -> Option<f64> {
        let hits = self.measured.answered();
        (hits > 0).then(|| cpu.as_secs_f64() * 1e6 / float(hits))
    }

    /// Takes in what another thread found.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.total.merge(&other.total);
        self.measured.merge(&other.measured);
        self.acked.merge(&other.acked);
        self.others.merge(&other.others);
        self.lag.merge(&other.lag);
    }
}

fn rate(count: u64, window: Duration) -> f64 {
    float(count) / window.as_secs_f64().max(1e-9)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_once_each() {
        let mut counts = Counts::default();
        let acked = |status| Outcome::Acked { status, conversion_id: None, duplicate: None };
        let refused = |status| Outcome::Refused { status };
        for outcome in
            [acked(201), acked(204), acked(200), acked(202), refused(422), refused(429), refused(500)]
        {
            counts.add(&outcome, false);
        }
        counts.add(&refused(503), true);
        counts.add(&refused(503), false);
        counts.add(&Outcome::Unknown, false);
        assert_eq!((counts.created, counts.duplicates, counts.undecided), (2, 1, 1));
        assert_eq!((counts.bad, counts.limited, counts.failed), (1, 1, 1));
        assert_eq!((counts.overloaded, counts.overloaded_without_retry, counts.unknown), (2, 1, 1));
        assert_eq!((counts.acked(), counts.answered()), (4, 9));
    }

    #[test]
    fn percentiles_of_merged_latencies() {
        let (mut low, mut high) = (Latency::new(), Latency::new());
        for _ in 0..50 {
            low.record(Duration::from_millis(1));
            high.record(Duration::from_millis(100));
        }
        low.merge(&high);
        assert_eq!(low.count(), 100);
        assert!((low.quantiles().p50_ms - 1.0).abs() < 0.01);
        assert!((low.quantiles().p99_ms - 100.0).abs() < 0.5);
    }
}
