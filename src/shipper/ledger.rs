//! The terms of 'accepted = inserted + duplicate + dead-lettered + pending', kind by kind, in memory and in metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::checkpoint::{Checkpoint, KindTotals};
use crate::{
    clickhouse::Failure,
    core::{BatchId, Kind, PerKind},
};

/// The terms of invariant 6 for one kind of record, since the data folder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Records that are durable in the log, or were.
    pub accepted: u64,
    /// Those in ClickHouse.
    pub inserted: u64,
    /// Those that were accepted as unverified and turned out to be duplicates.
    pub duplicate: u64,
    /// Those that lie as dead letters.
    pub dead_lettered: u64,
    /// Those still on their way.
    pub pending: u64,
}

/// Counts acknowledged records. Shared by the intake, which accepts, and the shipper, which settles.
#[derive(Debug, Default)]
pub struct Ledger {
    kinds: PerKind<Counts>,
    /// The last batch that is settled, and with it all before.
    batch: AtomicU64,
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    inserted: AtomicU64,
    duplicate: AtomicU64,
    dead_lettered: AtomicU64,
}

impl Ledger {
    /// From what the checkpoint and the log say at start.
    #[must_use]
    pub fn new(checkpoint: &Checkpoint, pending: PerKind<u64>) -> Self {
        let ledger = Self::default();
        for kind in Kind::ALL {
            ledger.accept(kind, checkpoint.totals.kinds[kind].accepted + pending[kind]);
        }
        ledger.settled(checkpoint);
        ledger
    }

    /// Records were taken into the log.
    pub fn accept(&self, kind: Kind, records: u64) {
        self.kinds[kind].accepted.fetch_add(records, Ordering::Release);
    }

    /// Records that were taken never became durable.
    pub fn retract(&self, kind: Kind, records: u64) {
        self.kinds[kind].accepted.fetch_sub(records, Ordering::Release);
    }

    /// How things stand. Between a record's fsync and [`Ledger::accept`] it is in none of the terms.
    #[must_use]
    pub fn terms(&self, kind: Kind) -> Terms {
        let counts = &self.kinds[kind];
        // What is settled first: it was accepted before.
        let inserted = counts.inserted.load(Ordering::Acquire);
        let duplicate = counts.duplicate.load(Ordering::Acquire);
        let dead_lettered = counts.dead_lettered.load(Ordering::Acquire);
        let settled = inserted + duplicate + dead_lettered;
        let accepted = counts.accepted.load(Ordering::Acquire).max(settled);
        Terms { accepted, inserted, duplicate, dead_lettered, pending: accepted - settled }
    }

    /// The last batch that is settled: what it and those before it hold is in ClickHouse, in every table, for good.
    #[must_use]
    pub fn settled_batch(&self) -> BatchId {
        BatchId(self.batch.load(Ordering::Acquire))
    }

    pub(super) fn settled(&self, checkpoint: &Checkpoint) {
        self.batch.store(checkpoint.settled.0, Ordering::Release);
        for kind in Kind::ALL {
            let KindTotals { inserted, duplicates, dead_lettered, .. } = checkpoint.totals.kinds[kind];
            let counts = &self.kinds[kind];
            counts.inserted.store(inserted, Ordering::Release);
            counts.duplicate.store(duplicates, Ordering::Release);
            counts.dead_lettered.store(dead_lettered, Ordering::Release);
        }
    }

    /// Publishes the terms.
    pub fn publish(&self) {
        for kind in Kind::ALL {
            let terms = self.terms(kind);
            let kind = kind.as_str();
            counter!("tally_hits_accepted_total", "kind" => kind).absolute(terms.accepted);
            counter!("tally_hits_inserted_total", "kind" => kind).absolute(terms.inserted);
            counter!("tally_hits_duplicate_total", "kind" => kind).absolute(terms.duplicate);
            // A gauge by nature: a replayed dead letter leaves it again.
            set_of("tally_hits_dead_lettered", kind, terms.dead_lettered);
            set_of("tally_hits_pending", kind, terms.pending);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set_of(name: &'static str, kind: &'static str, value: u64) {
    gauge!(name, "kind" => kind).set(value as f64);
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(name: &'static str, value: u64) {
    gauge!(name).set(value as f64);
}

/// Says what the shipper's metrics mean. Once, after the recorder is in force.
pub fn describe_metrics() {
    describe_counter!("tally_hits_accepted_total", Unit::Count, "Records acknowledged and durable, by kind.");
    describe_counter!("tally_hits_inserted_total", Unit::Count, "Records in ClickHouse, by kind.");
    describe_counter!(
        "tally_hits_duplicate_total",
        Unit::Count,
        "Records acknowledged as unverified that turned out to be duplicates, by kind."
    );
    describe_gauge!("tally_hits_dead_lettered", Unit::Count, "Records that lie as dead letters, by kind.");
    describe_gauge!(
        "tally_hits_pending",
        Unit::Count,
        "Records in the log, on their way to ClickHouse, by kind."
    );
    describe_gauge!(
        "tally_shipper_gives_way",
        Unit::Count,
        "1 while batches wait, for five seconds at most, since those who answer hits have no time to spare."
    );
    describe_gauge!("tally_dead_letters", Unit::Count, "Dead letters of any kind that wait for an operator.");
    describe_histogram!("tally_batch_rows", Unit::Count, "Rows of a batch.");
    describe_histogram!("tally_insert_seconds", Unit::Seconds, "Time of one insert, views included.");
    describe_counter!("tally_insert_errors_total", Unit::Count, "Inserts that failed, by class.");
    describe_counter!(
        "tally_batches_doubtful_total",
        Unit::Count,
        "Batches whose outcome was not known and that were looked at before they counted as done."
    );
    describe_counter!("tally_batches_resent_total", Unit::Count, "Batches sent again under a new token.");
    describe_counter!("tally_rollups_rebuilt_total", Unit::Count, "Repairs of hourly statistics or keys.");
    // There from the start: where a counter's first value is 1, nobody sees it rise.
    for class in Failure::CLASSES {
        counter!("tally_insert_errors_total", "class" => class).increment(0);
    }
    for name in ["tally_batches_doubtful_total", "tally_batches_resent_total", "tally_rollups_rebuilt_total"]
    {
        counter!(name).increment(0);
    }
}

pub(super) fn dead_letters(count: usize) {
    set("tally_dead_letters", count as u64);
}

pub(super) fn batch(rows: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a histogram of floats")]
    histogram!("tally_batch_rows").record(rows as f64);
}

pub(super) fn insert_failed(failure: &Failure) {
    counter!("tally_insert_errors_total", "class" => failure.class()).increment(1);
}
