//! Numbers for clicks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::{ClickId, UnixMillis};

/// 2020-01-01T00:00:00Z, from which the milliseconds in a number are counted.
const EPOCH_MILLIS: i64 = 1_577_836_800_000;
/// Numbers of one millisecond.
const SEQUENCE_BITS: u32 = 12;

/// Gives out numbers that grow with time, below 2^53, none of them twice.
#[derive(Debug, Default)]
pub struct ClickIds {
    last: AtomicU64,
}

impl ClickIds {
    /// The next number.
    pub fn issue(&self, now: UnixMillis) -> ClickId {
        let millis = u64::try_from(now.0.saturating_sub(EPOCH_MILLIS)).unwrap_or_default();
        let earliest = millis << SEQUENCE_BITS;
        let next = |last: u64| (last + 1).max(earliest);
        let last = self.last.update(Ordering::Relaxed, Ordering::Relaxed, next);
        ClickId(next(last))
    }
}
