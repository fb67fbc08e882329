//! Whether what waits in the log moves on: told from the checkpoint, since a shipper that runs may still ship nothing.

use std::time::{Duration, Instant};

/// How long nothing may move, beyond the time that conversions wait for their clicks. An insert may take a minute.
const STANDSTILL_MAX: Duration = Duration::from_secs(90);

/// Watches the log's low watermark.
pub(super) struct Progress {
    standstill_max: Duration,
    settled_lsn: u64,
    /// When it moved last, or nothing waited.
    moved_at: Instant,
}

impl Progress {
    /// Of conversions that wait for their clicks for `settle`.
    pub(super) fn new(settle: Duration, settled_lsn: u64, now: Instant) -> Self {
        Self { standstill_max: STANDSTILL_MAX + settle, settled_lsn, moved_at: now }
    }

    /// For how long records have waited while none was settled. `end_lsn >= settled_lsn`: where the log is durable.
    pub(super) fn observe(&mut self, settled_lsn: u64, end_lsn: u64, now: Instant) -> Duration {
        if settled_lsn != self.settled_lsn || settled_lsn >= end_lsn {
            self.settled_lsn = settled_lsn;
            self.moved_at = now;
        }
        now.saturating_duration_since(self.moved_at)
    }

    /// Whether that is too long.
    pub(super) fn is_stalled(&self, standstill: Duration) -> bool {
        standstill >= self.standstill_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_and_does_not_move_is_stalled() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::new(Duration::from_secs(5), 10, start);
        assert_eq!(progress.observe(10, 10, at(1000)), Duration::ZERO, "nothing waits");
        let standstill = progress.observe(10, 11, at(1094));
        assert!(!progress.is_stalled(standstill), "{standstill:?}");
        let standstill = progress.observe(10, 500, at(1095));
        assert!(progress.is_stalled(standstill), "{standstill:?}");
        assert_eq!(progress.observe(11, 500, at(1096)), Duration::ZERO, "it moves");
        let standstill = progress.observe(11, 500, at(2000));
        assert!(progress.is_stalled(standstill));
        assert_eq!(progress.observe(500, 500, at(2001)), Duration::ZERO, "all of it is shipped");
    }
}
