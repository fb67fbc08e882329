//! The terms of 'accepted = inserted + duplicate + dead-lettered + pending', in memory and in metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::checkpoint::{Checkpoint, Totals};
use crate::clickhouse::Failure;

/// The terms of invariant 6, since the data folder was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Conversions that are durable in the log, or were.
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

/// Counts conversions. Shared by the intake, which accepts, and the shipper, which settles.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: AtomicU64,
    inserted: AtomicU64,
    duplicate: AtomicU64,
    dead_lettered: AtomicU64,
}

impl Ledger {
    /// From what the checkpoint and the log say at start.
    #[must_use]
    pub fn new(checkpoint: &Checkpoint, pending: u64) -> Self {
        let ledger = Self::default();
        ledger.accepted.store(checkpoint.totals.accepted + pending, Ordering::Relaxed);
        ledger.settled(&checkpoint.totals);
        ledger
    }

    /// Conversions were taken into the log.
    pub fn accept(&self, conversions: u64) {
        self.accepted.fetch_add(conversions, Ordering::Release);
    }

    /// Conversions that were taken never became durable.
    pub fn retract(&self, conversions: u64) {
        self.accepted.fetch_sub(conversions, Ordering::Release);
    }

    /// How things stand. Between a record's fsync and [`Ledger::accept`] it is in none of the terms.
    #[must_use]
    pub fn terms(&self) -> Terms {
        // What is settled first: it was accepted before.
        let inserted = self.inserted.load(Ordering::Acquire);
        let duplicate = self.duplicate.load(Ordering::Acquire);
        let dead_lettered = self.dead_lettered.load(Ordering::Acquire);
        let settled = inserted + duplicate + dead_lettered;
        let accepted = self.accepted.load(Ordering::Acquire).max(settled);
        Terms { accepted, inserted, duplicate, dead_lettered, pending: accepted - settled }
    }

    pub(super) fn settled(&self, totals: &Totals) {
        self.inserted.store(totals.inserted, Ordering::Release);
        self.duplicate.store(totals.duplicates, Ordering::Release);
        self.dead_lettered.store(totals.dead_lettered, Ordering::Release);
    }

    /// Publishes the terms.
    pub fn publish(&self) {
        let terms = self.terms();
        counter!("tally_hits_accepted_total").absolute(terms.accepted);
        counter!("tally_hits_inserted_total").absolute(terms.inserted);
        counter!("tally_hits_duplicate_total").absolute(terms.duplicate);
        // A gauge by nature: a replayed dead letter leaves it again.
        set("tally_hits_dead_lettered", terms.dead_lettered);
        set("tally_hits_pending", terms.pending);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(name: &'static str, value: u64) {
    gauge!(name).set(value as f64);
}

/// Says what the shipper's metrics mean. Once, after the recorder is in force.
pub fn describe_metrics() {
    describe_counter!("tally_hits_accepted_total", Unit::Count, "Conversions acknowledged and durable.");
    describe_counter!("tally_hits_inserted_total", Unit::Count, "Conversions in ClickHouse.");
    describe_counter!(
        "tally_hits_duplicate_total",
        Unit::Count,
        "Conversions acknowledged as unverified that turned out to be duplicates."
    );
    describe_gauge!("tally_hits_dead_lettered", Unit::Count, "Conversions that lie as dead letters.");
    describe_gauge!("tally_hits_pending", Unit::Count, "Conversions in the log, on their way to ClickHouse.");
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
