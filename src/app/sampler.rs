//! What is measured by looking, once a second: gauges, and the reasons not to be ready.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use parking_lot::Mutex;

use super::{descriptors, progress::Progress};
use crate::{
    clock::{BelievedClock, Clock as _},
    core::payload,
    dedup::Dedup,
    http::{Degraded, NotReady, Readiness},
    shipper::Ledger,
    telemetry::Exposition,
    wal::{Position, ReadError, Shortage, Ticket, Wal},
};

const PERIOD: Duration = Duration::from_secs(1);

/// What is looked at.
pub(super) struct Sampler {
    pub(super) wal: Wal,
    pub(super) dedup: Arc<Dedup<Ticket>>,
    /// Where the shipper has settled the log.
    pub(super) settled: Arc<Mutex<Position>>,
    pub(super) progress: Progress,
    pub(super) ledger: Arc<Ledger>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) exposition: Exposition,
    pub(super) clock: Arc<BelievedClock>,
    pub(super) data_dir: PathBuf,
    pub(super) disk_free_bytes_min: u64,
    /// How often the embedded engine was started again.
    pub(super) engine_restarts: Arc<AtomicU64>,
    /// Whether the oldest record could not be read the last time.
    pub(super) unreadable: bool,
}

impl Sampler {
    /// Looks until it is dropped.
    pub(super) async fn run(mut self) {
        gauge!("tally_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        set("tally_disk_free_bytes_min", self.disk_free_bytes_min);
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            self.sample();
            self.exposition.run_upkeep();
        }
    }

    fn sample(&mut self) {
        let log = self.wal.status();
        set("tally_spool_bytes_max", log.bytes_max);
        // Here and not only in the shipper, who may be waiting for ClickHouse: hits are accepted meanwhile.
        self.ledger.publish();
        set("tally_spool_bytes", log.bytes);
        set("tally_spool_segments", log.segments);
        let standstill = self.observe_progress();
        match self.oldest_age_seconds() {
            Ok(age) => {
                set("tally_spool_oldest_age_seconds", age);
                self.unreadable = false;
            }
            Err(error) => {
                // What can't be read waits at least as long as nothing has moved, and is no younger than it was.
                set("tally_spool_oldest_age_seconds", standstill.as_secs().max(1));
                if !self.unreadable {
                    tracing::error!(%error, "the oldest record of the log can't be read");
                }
                self.unreadable = true;
            }
        }
        set("tally_keys_in_flight", self.dedup.in_flight().len() as u64);
        let filter = self.dedup.filter().stats();
        set("tally_filter_keys", filter.keys);
        set("tally_filter_capacity_keys", filter.capacity);
        set("tally_filter_bytes", filter.bytes);
        set("tally_filter_warm", u64::from(self.dedup.is_warm()));
        counter!("tally_engine_restarts_total").absolute(self.engine_restarts.load(Ordering::Relaxed));
        let free = self.disk_free_bytes();
        if let Some(free) = free {
            set("tally_disk_free_bytes", free);
        }
        // A disk that can't be asked is not a disk with room.
        let disk_low = free.is_none_or(|free| free < self.disk_free_bytes_min);
        self.readiness.set(NotReady::DiskLow, disk_low || log.shortage == Some(Shortage::DiskLow));
        self.readiness.set(NotReady::DescriptorsLow, descriptors::are_low());
        self.readiness.set(NotReady::SpoolFull, log.shortage == Some(Shortage::SpoolFull));
        self.readiness.set(NotReady::Poisoned, log.poisoned);
        self.sample_clock();
        self.publish_readiness();
    }

    fn sample_clock(&self) {
        let seen = self.clock.observe();
        self.readiness.set_degraded(Degraded::ClockImplausible, !seen.believed);
        set("tally_clock_believed", u64::from(seen.believed));
        let ahead = seen.system.seconds().saturating_sub(seen.now.seconds());
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        gauge!("tally_clock_ahead_seconds").set(ahead as f64);
    }

    /// Each reason, whether it holds or not: an alert must tell 'no' from 'not known'.
    fn publish_readiness(&self) {
        let ready = self.readiness.reasons().next().is_none();
        set("tally_ready", u64::from(ready));
        for reason in NotReady::ALL {
            let holds = u8::from(self.readiness.is(reason));
            gauge!("tally_not_ready", "reason" => reason.as_str()).set(holds);
        }
        for reason in Degraded::ALL {
            let holds = u8::from(self.readiness.is_degraded(reason));
            gauge!("tally_degraded", "reason" => reason.as_str()).set(holds);
        }
    }

    fn disk_free_bytes(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.data_dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// For how long records have waited while none was settled.
    fn observe_progress(&mut self) -> Duration {
        let (settled, end) = (self.settled.lock().lsn, self.wal.durable_end().lsn);
        let standstill = self.progress.observe(settled, end, Instant::now());
        set("tally_shipping_standstill_seconds", standstill.as_secs());
        let stalled = self.progress.is_stalled(standstill);
        if stalled && !self.readiness.is_degraded(Degraded::ShippingStalled) {
            let seconds = standstill.as_secs();
            tracing::error!(seconds, records = end - settled, "records wait and none reaches ClickHouse");
        }
        self.readiness.set_degraded(Degraded::ShippingStalled, stalled);
        standstill
    }

    /// The age of the oldest record that is not settled; 0 where there is none.
    fn oldest_age_seconds(&self) -> Result<u64, Unreadable> {
        let settled = *self.settled.lock();
        let mut reader = match self.wal.reader(settled) {
            Ok(reader) => reader,
            Err(error) => return self.moved_on(settled, error),
        };
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(0),
            Err(error) => return self.moved_on(settled, error),
        };
        let received_at = payload::decode(entry.payload)?.received_at();
        let age = self.clock.now().seconds().saturating_sub(received_at.seconds());
        // A clock that was set back makes a record of the future; the clock's own checks report that.
        Ok(u64::try_from(age).unwrap_or(0))
    }

    /// A segment that the shipper has settled and removed meanwhile is no damage: the next look finds the new place.
    fn moved_on(&self, from: Position, error: ReadError) -> Result<u64, Unreadable> {
        if *self.settled.lock() == from { Err(error.into()) } else { Ok(0) }
    }
}

/// The oldest record can't be told.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Record(#[from] payload::DecodeError),
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn set(name: &'static str, value: u64) {
    gauge!(name).set(value as f64);
}

/// Says what the metrics of log, deduplication and machine mean. Once, after the recorder is in force.
pub(super) fn describe_metrics() {
    describe_gauge!("tally_build_info", Unit::Count, "Always 1; the labels say which tally it is.");
    describe_gauge!("tally_ready", Unit::Count, "1 while hits are welcome, 0 while /readyz says why not.");
    describe_gauge!(
        "tally_not_ready",
        Unit::Count,
        "1 while that is a reason to get no hits, as in /readyz."
    );
    describe_gauge!("tally_degraded", Unit::Count, "1 while that does not work although hits are taken.");
    describe_gauge!(
        "tally_shipping_standstill_seconds",
        Unit::Seconds,
        "For how long records have waited while none was settled in ClickHouse."
    );
    describe_gauge!(
        "tally_clock_believed",
        Unit::Count,
        "1 while the system clock is believed, 0 after a jump of more than a day."
    );
    describe_gauge!(
        "tally_clock_ahead_seconds",
        Unit::Seconds,
        "How far the system clock is ahead of the time that the daemon goes by."
    );
    describe_gauge!("tally_spool_bytes", Unit::Bytes, "Log segments that hold unsettled records.");
    describe_gauge!("tally_spool_bytes_max", Unit::Bytes, "Most of them: past it hits are refused.");
    describe_gauge!("tally_spool_segments", Unit::Count, "The number of those segments.");
    describe_gauge!(
        "tally_spool_oldest_age_seconds",
        Unit::Seconds,
        "Age of the oldest record not in ClickHouse."
    );
    describe_gauge!("tally_disk_free_bytes", Unit::Bytes, "Free space on the disk of the data folder.");
    describe_gauge!("tally_disk_free_bytes_min", Unit::Bytes, "Free space below which hits are refused.");
    describe_gauge!("tally_keys_in_flight", Unit::Count, "Keys that deduplication holds in memory.");
    describe_gauge!("tally_filter_keys", Unit::Count, "Keys in the filter.");
    describe_gauge!("tally_filter_capacity_keys", Unit::Count, "Keys that the filter takes before it grows.");
    describe_gauge!("tally_filter_bytes", Unit::Bytes, "Memory of the filter's tables.");
    describe_gauge!("tally_filter_warm", Unit::Count, "1 when the filter knows every key of ClickHouse.");
    describe_counter!(
        "tally_filter_positives_total",
        Unit::Count,
        "Hits whose key the filter may have seen."
    );
    describe_counter!(
        "tally_filter_false_positives_total",
        Unit::Count,
        "Of those, hits whose key neither memory nor ClickHouse knew."
    );
    describe_counter!("tally_lookup_queries_total", Unit::Count, "Queries for order keys.");
    describe_histogram!("tally_lookup_query_keys", Unit::Count, "Keys of one query.");
    describe_histogram!("tally_lookup_query_seconds", Unit::Seconds, "Time of one query for order keys.");
    describe_counter!(
        "tally_lookups_unanswered_total",
        Unit::Count,
        "Hits accepted as unverified, since the key table did not answer in time."
    );
    describe_histogram!("tally_wal_sync_seconds", Unit::Seconds, "Time of one fdatasync of the log.");
    describe_histogram!("tally_wal_group_records", Unit::Count, "Records that one sync made durable.");
    describe_counter!("tally_engine_restarts_total", Unit::Count, "Restarts of the embedded ClickHouse.");
}
