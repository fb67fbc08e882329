//! What is measured by looking, once a second: gauges, and the reasons not to be ready.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use parking_lot::Mutex;

use crate::{
    clock::Clock,
    core::payload,
    dedup::Dedup,
    http::{Degraded, NotReady, Readiness},
    shipper::Ledger,
    telemetry::Exposition,
    wal::{Position, Shortage, Ticket, Wal},
};

const PERIOD: Duration = Duration::from_secs(1);

/// What is looked at.
pub(super) struct Sampler {
    pub(super) wal: Wal,
    pub(super) dedup: Arc<Dedup<Ticket>>,
    /// Where the shipper has settled the log.
    pub(super) settled: Arc<Mutex<Position>>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) exposition: Exposition,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) data_dir: PathBuf,
    pub(super) disk_free_bytes_min: u64,
    /// How often the embedded engine was started again.
    pub(super) engine_restarts: Arc<AtomicU64>,
}

impl Sampler {
    /// Looks until it is dropped.
    pub(super) async fn run(self) {
        gauge!("tally_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        set("tally_disk_free_bytes_min", self.disk_free_bytes_min);
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            self.sample();
            self.exposition.run_upkeep();
        }
    }

    fn sample(&self) {
        let log = self.wal.status();
        set("tally_spool_bytes_max", log.bytes_max);
        // Here and not only in the shipper, who may be waiting for ClickHouse: hits are accepted meanwhile.
        self.ledger.publish();
        set("tally_spool_bytes", log.bytes);
        set("tally_spool_segments", log.segments);
        set("tally_spool_oldest_age_seconds", self.oldest_age_seconds());
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
        self.readiness.set(NotReady::SpoolFull, log.shortage == Some(Shortage::SpoolFull));
        self.readiness.set(NotReady::Poisoned, log.poisoned);
        self.publish_readiness();
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

    /// The age of the oldest record that is not settled; 0 where there is none.
    fn oldest_age_seconds(&self) -> u64 {
        let settled = *self.settled.lock();
        let Ok(mut reader) = self.wal.reader(settled) else { return 0 };
        let Ok(Some(entry)) = reader.next() else { return 0 };
        let Ok(record) = payload::decode(entry.payload) else { return 0 };
        let received_at = record.received_at();
        let age = self.clock.now().seconds().saturating_sub(received_at.seconds());
        u64::try_from(age).unwrap_or_default()
    }
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
