//! When hits arrive: a schedule that knows nothing of answers.

use std::time::Duration;

use crate::rng::SplitMix64;

/// How arrivals follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// At equal distances.
    Uniform,
    /// Each independent of the others, as visitors are.
    Poisson,
}

/// Arrivals as times since the start; endless.
#[derive(Debug, Clone)]
pub struct Schedule {
    rng: SplitMix64,
    spacing: Spacing,
    mean_seconds: f64,
    at_seconds: f64,
}

impl Schedule {
    /// `per_second` arrivals (more than 0) a second.
    #[must_use]
    pub fn new(per_second: f64, spacing: Spacing, seed: u64) -> Self {
        debug_assert!(per_second > 0.0, "a rate of 0 never arrives");
        Self { rng: SplitMix64::new(seed), spacing, mean_seconds: 1.0 / per_second, at_seconds: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = Duration::try_from_secs_f64(self.at_seconds).ok()?;
        self.at_seconds += match self.spacing {
            Spacing::Uniform => self.mean_seconds,
            Spacing::Poisson => -self.mean_seconds * (1.0 - self.rng.unit()).ln(),
        };
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_arrivals_keep_their_distance() {
        let times: Vec<_> = Schedule::new(1_000.0, Spacing::Uniform, 1).take(1_001).collect();
        assert_eq!(times[0], Duration::ZERO);
        assert_eq!(times[1_000].as_millis(), 1_000);
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_scatter() {
        let times: Vec<_> = Schedule::new(1_000.0, Spacing::Poisson, 1).take(100_001).collect();
        assert!((times[100_000].as_secs_f64() - 100.0).abs() < 1.0);
        let gaps: Vec<f64> =
            times.windows(2).map(|pair| (pair[1].as_secs_f64() - pair[0].as_secs_f64()) * 1e3).collect();
        let variance = gaps.iter().map(|gap| (gap - 1.0).powi(2)).sum::<f64>() / 1e5;
        assert!(
            (variance - 1.0).abs() < 0.05,
            "an exponential gap's variance is its mean squared: {variance}"
        );
        assert!(times.is_sorted());
    }
}
