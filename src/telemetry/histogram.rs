//! A histogram for the hot path: fixed buckets in atomics, some 8 ns a sample, nothing to drain.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds, in nanoseconds, for what takes between a tenth of a millisecond and some seconds.
pub const SECONDS_BUCKETS: [u64; 16] = [
    100_000,
    200_000,
    300_000,
    500_000,
    700_000,
    1_000_000,
    1_500_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// Durations, counted by bucket.
#[derive(Debug)]
pub struct Histogram {
    bounds_nanos: &'static [u64],
    /// One per bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// Empty, with these upper bounds in nanoseconds, ascending.
    #[must_use]
    pub fn new(bounds_nanos: &'static [u64]) -> Self {
        debug_assert!(bounds_nanos.is_sorted());
        let counts = (0..=bounds_nanos.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_nanos, counts, sum_nanos: AtomicU64::new(0) }
    }

    /// Counts durations, those that follow each other in one bucket together.
    pub fn record(&self, durations: impl IntoIterator<Item = Duration>) {
        let (mut bucket, mut count, mut sum_nanos) = (0, 0, 0u64);
        for duration in durations {
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            let next = self.bounds_nanos.partition_point(|bound| *bound < nanos);
            if next != bucket && count > 0 {
                self.counts[bucket].fetch_add(count, Relaxed);
                count = 0;
            }
            (bucket, count) = (next, count + 1);
            sum_nanos = sum_nanos.saturating_add(nanos);
        }
        self.counts[bucket].fetch_add(count, Relaxed);
        self.sum_nanos.fetch_add(sum_nanos, Relaxed);
    }

    /// Appends the exposition's lines.
    pub fn render(&self, name: &str, help: &str, out: &mut String) {
        // Writing to a string has no error to report.
        let _ = self.write(name, help, out);
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum of seconds is read with 15 digits at most")]
    fn write(&self, name: &str, help: &str, out: &mut String) -> std::fmt::Result {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram")?;
        let mut below = 0;
        for (bound, count) in self.bounds_nanos.iter().zip(&self.counts) {
            below += count.load(Relaxed);
            writeln!(out, "{name}_bucket{{le=\"{}\"}} {below}", *bound as f64 / 1e9)?;
        }
        below += self.counts[self.bounds_nanos.len()].load(Relaxed);
        let sum = self.sum_nanos.load(Relaxed) as f64 / 1e9;
        writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {below}\n{name}_sum {sum}\n{name}_count {below}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_include_their_bound() {
        let histogram = Histogram::new(&[1_000, 2_000]);
        histogram.record([1_000, 1_001, 2_000, 9_000].map(Duration::from_nanos));
        histogram.record([]);
        let mut text = String::new();
        histogram.render("x_seconds", "Help.", &mut text);
        assert_eq!(
            text,
            "# HELP x_seconds Help.\n# TYPE x_seconds histogram\nx_seconds_bucket{le=\"0.000001\"} 1\n\
             x_seconds_bucket{le=\"0.000002\"} 3\nx_seconds_bucket{le=\"+Inf\"} 4\nx_seconds_sum 0.000013001\n\
             x_seconds_count 4\n\n"
        );
    }
}
