//! What the intake counts, as handles taken once.

use std::sync::Arc;

use metrics::Counter;

use super::NotTaken;
use crate::telemetry::Histogram;

/// Everything that the intakes of all workers count.
pub(super) struct Counters {
    pub(super) hits: Outcomes,
    pub(super) clicks: Outcomes,
    pub(super) adjustments: Outcomes,
    /// Visits through a link whose visitor was redirected and whose record is not there.
    pub(super) clicks_unrecorded: Counter,
    pub(super) filter_positives: Counter,
    pub(super) filter_false_positives: Counter,
    pub(super) ack_seconds: Arc<Histogram>,
}

/// What becomes of one kind of submission.
pub(super) struct Outcomes {
    pub(super) new: Counter,
    pub(super) duplicate: Counter,
    pub(super) unverified: Counter,
    pub(super) overloaded: Counter,
    pub(super) unavailable: Counter,
    pub(super) lost: Counter,
}

impl Counters {
    pub(super) fn new(ack_seconds: Arc<Histogram>) -> Self {
        Self {
            hits: Outcomes::new("tally_hits_total"),
            clicks: Outcomes::new("tally_clicks_total"),
            adjustments: Outcomes::new("tally_adjustments_total"),
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

    /// Counts submissions of which nothing was kept.
    pub(super) fn not_taken(&self, why: NotTaken, submissions: u64) {
        match why {
            NotTaken::Overloaded(_) => self.overloaded.increment(submissions),
            NotTaken::Unavailable => self.unavailable.increment(submissions),
        }
    }
}
