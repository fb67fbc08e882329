//! What the intake counts, as handles taken once.

use std::sync::Arc;

use metrics::Counter;

use super::NotTaken;
use crate::{core::PerKind, telemetry::Histogram};

/// Everything that the intakes of all workers count.
pub(super) struct Counters {
    pub(super) outcomes: PerKind<Outcomes>,
    /// Visits through a link whose visitor was redirected and whose record is not there.
    pub(super) clicks_unrecorded: Counter,
    pub(super) filter_positives: Counter,
    pub(super) filter_false_positives: Counter,
    pub(super) ack_seconds: Arc<Histogram>,
}

/// What becomes of one kind of submission.
pub(super) struct Outcomes {
    new: Counter,
    duplicate: Counter,
    unverified: Counter,
    overloaded: Counter,
    unavailable: Counter,
    lost: Counter,
}

/// What is told once the record that it stands on is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledged {
    /// A record of its own counts.
    New,
    /// A record of its own counts if it turns out to be new.
    Unverified,
    /// Another's counts.
    Duplicate,
}

impl Counters {
    pub(super) fn new(ack_seconds: Arc<Histogram>) -> Self {
        Self {
            // In the order of the kinds.
            outcomes: PerKind([
                Outcomes::new("tally_hits_total"),
                Outcomes::new("tally_clicks_total"),
                Outcomes::new("tally_adjustments_total"),
            ]),
            clicks_unrecorded: metrics::counter!("tally_clicks_unrecorded_total"),
            filter_positives: metrics::counter!("tally_filter_positives_total"),
            filter_false_positives: metrics::counter!("tally_filter_false_positives_total"),
            ack_seconds,
        }
    }
}

impl Outcomes {
    fn new(name: &'static str) -> Self {
        let counter = |outcome: &'static str| metrics::counter!(name, "outcome" => outcome);
        Self {
            new: counter("new"),
            duplicate: counter("duplicate"),
            unverified: counter("unverified"),
            overloaded: counter("overloaded"),
            unavailable: counter("unavailable"),
            lost: counter("lost"),
        }
    }

    /// Counts submissions whose answers may leave.
    pub(super) fn acknowledged(&self, what: Acknowledged, submissions: u64) {
        match what {
            Acknowledged::New => self.new.increment(submissions),
            Acknowledged::Unverified => self.unverified.increment(submissions),
            Acknowledged::Duplicate => self.duplicate.increment(submissions),
        }
    }

    /// Counts submissions whose answers never may leave.
    pub(super) fn lost(&self, submissions: u64) {
        self.lost.increment(submissions);
    }

    /// Counts submissions of which nothing was kept.
    pub(super) fn not_taken(&self, why: NotTaken, submissions: u64) {
        match why {
            NotTaken::Overloaded(_) => self.overloaded.increment(submissions),
            NotTaken::Unavailable => self.unavailable.increment(submissions),
        }
    }
}
