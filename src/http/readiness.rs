//! Whether the daemon should get hits, and what it can't do while it takes them.
//!
//! Two kinds of reasons, for two kinds of readers. A load balancer must take a daemon out that can't keep hits: that is
//! [`NotReady`]. What only keeps numbers from moving is [`Degraded`]: hits are durable and safe in the log, so to take
//! the daemon out would lose what it can still take. Both are in `/readyz`, in the metrics and in the alerts.

use std::sync::atomic::{AtomicU32, Ordering};

/// Why the daemon should get no hits now: it could not take them, or not keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NotReady {
    /// On its way out.
    ShuttingDown,
    /// The log failed: only a restart helps.
    Poisoned,
    /// Still reading what the last run left.
    Recovering,
    /// Too few file descriptors are left to accept connections.
    DescriptorsLow,
    /// Too little free disk space.
    DiskLow,
    /// As much waits for the database as may.
    SpoolFull,
}

impl NotReady {
    /// Every reason, the most lasting first.
    pub const ALL: [Self; 6] = [
        Self::ShuttingDown,
        Self::Poisoned,
        Self::Recovering,
        Self::DescriptorsLow,
        Self::DiskLow,
        Self::SpoolFull,
    ];

    /// The reason's public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting_down",
            Self::Poisoned => "poisoned",
            Self::Recovering => "recovering",
            Self::DescriptorsLow => "descriptors_low",
            Self::DiskLow => "disk_low",
            Self::SpoolFull => "spool_full",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// What does not work while hits are taken and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Degraded {
    /// The clock disagrees with itself or with the log: it is not believed for batch ids and retention.
    ClockImplausible,
    /// ClickHouse answers no statement: hits wait in the log, reports and look-ups fail.
    EngineDown,
    /// The schema is not up to date or not checked yet: hits wait in the log.
    SchemaPending,
    /// Records wait, and none has reached ClickHouse for a while.
    ShippingStalled,
    /// Reports fail although ClickHouse answers.
    ReportsUnavailable,
}

impl Degraded {
    /// Every reason.
    pub const ALL: [Self; 5] = [
        Self::ClockImplausible,
        Self::EngineDown,
        Self::SchemaPending,
        Self::ShippingStalled,
        Self::ReportsUnavailable,
    ];

    /// The reason's public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClockImplausible => "clock_implausible",
            Self::EngineDown => "engine_down",
            Self::SchemaPending => "schema_pending",
            Self::ShippingStalled => "shipping_stalled",
            Self::ReportsUnavailable => "reports_unavailable",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// The reasons that hold. Shared: each part sets and clears its own.
#[derive(Debug)]
pub struct Readiness {
    not_ready: AtomicU32,
    degraded: AtomicU32,
}

impl Default for Readiness {
    /// Recovering, with an engine that has not answered and a schema that was not checked, until told otherwise.
    fn default() -> Self {
        Self {
            not_ready: AtomicU32::new(NotReady::Recovering.bit()),
            degraded: AtomicU32::new(Degraded::EngineDown.bit() | Degraded::SchemaPending.bit()),
        }
    }
}

impl Readiness {
    /// Says that a reason to get no hits holds, or holds no more.
    pub fn set(&self, reason: NotReady, holds: bool) {
        set(&self.not_ready, reason.bit(), holds);
    }

    /// Says that something does not work, or works again.
    pub fn set_degraded(&self, reason: Degraded, holds: bool) {
        set(&self.degraded, reason.bit(), holds);
    }

    /// The reasons to get no hits that hold; none: ready.
    pub fn reasons(&self) -> impl Iterator<Item = NotReady> {
        let held = self.not_ready.load(Ordering::Relaxed);
        NotReady::ALL.into_iter().filter(move |reason| held & reason.bit() != 0)
    }

    /// What does not work.
    pub fn degraded(&self) -> impl Iterator<Item = Degraded> {
        let held = self.degraded.load(Ordering::Relaxed);
        Degraded::ALL.into_iter().filter(move |reason| held & reason.bit() != 0)
    }

    /// Whether a reason to get no hits holds.
    #[must_use]
    pub fn is(&self, reason: NotReady) -> bool {
        self.not_ready.load(Ordering::Relaxed) & reason.bit() != 0
    }

    /// Whether that does not work.
    #[must_use]
    pub fn is_degraded(&self, reason: Degraded) -> bool {
        self.degraded.load(Ordering::Relaxed) & reason.bit() != 0
    }
}

fn set(held: &AtomicU32, bit: u32, holds: bool) {
    if holds {
        held.fetch_or(bit, Ordering::Relaxed);
    } else {
        held.fetch_and(!bit, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_set_and_cleared_alone() {
        let readiness = Readiness::default();
        for reason in NotReady::ALL {
            readiness.set(reason, true);
        }
        for reason in Degraded::ALL {
            readiness.set_degraded(reason, true);
        }
        assert!(readiness.reasons().eq(NotReady::ALL) && readiness.degraded().eq(Degraded::ALL));
        for reason in NotReady::ALL {
            readiness.set(reason, false);
            assert!(!readiness.is(reason) && !readiness.reasons().any(|held| held == reason));
        }
        for reason in Degraded::ALL {
            readiness.set_degraded(reason, false);
            assert!(!readiness.is_degraded(reason) && !readiness.degraded().any(|held| held == reason));
        }
    }
}
