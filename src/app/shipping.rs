//! What runs once ClickHouse answers: migrations, the check of the schema, the shipper, the catalog's copy, and the
//! filter's completion.
//!
//! On a thread of its own, below the priority of those who answer: a burst is acknowledged first and shipped after.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{State, database::Warehouse, glue::Glue, retention, telling::Announcer, warm_up};
use crate::{
    catalog::{Catalog, keep_copied},
    clickhouse::{CheckError, Database, Failure, MigrationError},
    clock::{BelievedClock, Clock as _},
    config::Config,
    core::{BatchId, INTEGER_MAX},
    dedup::Dedup,
    http::{Degraded, Readiness, Strain},
    shipper::{self, Folder, Shipper},
    tasks,
    wal::{Position, Ticket, Wal},
};

/// How long ClickHouse may be silent before somebody is told.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// How long until ClickHouse is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long until ClickHouse is asked again to take the catalog's copy.
const CATALOG_COPY_RETRY: Duration = Duration::from_secs(2);
/// How often the filter is saved, so that a start after a crash has little to read.
const SAVE_EVERY: Duration = Duration::from_mins(10);
/// How often it is looked for requests that an older version kept.
const BLANK_EVERY: Duration = Duration::from_hours(24);
/// Below the priority of threads that answer hits.
const NICENESS: i32 = 10;

/// The running shipper.
pub(super) struct Shipping {
    stop: CancellationToken,
    finish: CancellationToken,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    data_dir: PathBuf,
    dedup: Arc<Dedup<Ticket>>,
}

/// Whom the shipper tells, and whom it gives way to.
pub(super) struct Partners {
    /// Told how far the log is settled.
    pub(super) settled: Arc<Mutex<Position>>,
    /// Told of every batch.
    pub(super) announcer: Announcer,
    /// Of those who answer hits.
    pub(super) strain: Strain,
    /// Told when the schema can be written to.
    pub(super) readiness: Arc<Readiness>,
    /// The time.
    pub(super) clock: Arc<BelievedClock>,
}

/// What the thread works with.
struct Work {
    wal: Wal,
    dedup: Arc<Dedup<Ticket>>,
    ledger: Arc<shipper::Ledger>,
    database: Database,
    catalog: Arc<Catalog>,
    data_dir: PathBuf,
    settle: Duration,
    partners: Partners,
    filter_through: BatchId,
    click_retention_days: u32,
    stop: CancellationToken,
}

impl Shipping {
    /// Starts the thread.
    pub(super) fn start(
        state: &State,
        warehouse: &Warehouse,
        catalog: Arc<Catalog>,
        config: &Config,
        partners: Partners,
    ) -> std::io::Result<Self> {
        let (stop, finish) = (CancellationToken::new(), CancellationToken::new());
        let work = Work {
            wal: state.wal.clone(),
            dedup: state.dedup.clone(),
            ledger: state.recovered.ledger.clone(),
            database: warehouse.database(),
            catalog,
            data_dir: config.data_dir.clone(),
            settle: Duration::from_secs(config.settle_seconds.into()),
            partners,
            filter_through: state.filter_through,
            click_retention_days: state.click_retention_days,
            stop: stop.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        let dropped = finish.clone();
        let thread = tasks::spawn_event_loop("shipper", runtime, move || async move {
            if let Err(error) = rustix::process::nice(NICENESS) {
                tracing::debug!(%error, "the shipper keeps the priority of everything else");
            }
            // Dropped at the end, whatever that is.
            let _end: oneshot::Sender<()> = end;
            tokio::select! {
                outcome = work.run() => outcome,
                () = dropped.cancelled() => Ok(()),
            }
        })?;
        Ok(Self {
            stop,
            finish,
            ended,
            thread,
            data_dir: config.data_dir.clone(),
            dedup: state.dedup.clone(),
        })
    }

    /// Ships what it can within that time; what is left is safe in the log.
    pub(super) async fn stop(self, within: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(within, self.ended).await.is_err() {
            tracing::info!("the rest is shipped at the next start");
        }
        self.finish.cancel();
        let (thread, dedup, data_dir) = (self.thread, self.dedup, self.data_dir);
        tasks::blocking(move || {
            // It catches and reports its own panic.
            let _ = thread.join();
            save_filter(&data_dir, &dedup);
        })
        .await;
    }
}

impl Work {
    async fn run(self) -> Result<(), String> {
        let ready = self.prepare_database();
        let newest_batch = tokio::select! {
            outcome = ready => outcome?,
            () = self.stop.cancelled() => return Ok(()),
        };
        self.partners.readiness.set_degraded(Degraded::SchemaPending, false);
        let complete = warm_up::complete(self.dedup.clone(), self.database.clone(), self.filter_through);
        drop(tasks::spawn_finite("filter-warm-up", complete));
        let copied = keep_copied(self.catalog.clone(), Glue(self.database.clone()), CATALOG_COPY_RETRY);
        drop(tasks::spawn_finite("catalog-copy", copied));
        drop(tasks::spawn("filter-snapshot", keep_saved(self.data_dir.clone(), self.dedup.clone())));
        let (database, clock) = (self.database.clone(), self.partners.clock.clone());
        let removing = retention::keep_removing(database, clock, self.click_retention_days);
        drop(tasks::spawn("retention", removing));
        drop(tasks::spawn("rejected-requests", blank_rejected_requests(self.database.clone())));
        let (dedup, Partners { settled, announcer, mut strain, clock, .. }) = (self.dedup, self.partners);
        let settled_clock = clock.clone();
        let on_settled = Box::new(move |keys: &[crate::dedup::SettledKey], position: Position| {
            dedup.settle(keys, position.lsn, settled_clock.now());
            *settled.lock() = position;
        });
        let folder = Folder::new(&self.data_dir);
        let shipper = Shipper::new(
            shipper::Config {
                settle: self.settle,
                click_retention_days: self.click_retention_days,
                ..shipper::Config::default()
            },
            folder,
            self.wal,
            self.database,
            Box::new(clock),
            self.ledger,
            on_settled,
        )
        .counting_on_from(newest_batch)
        .announcing(Box::new(announcer))
        .giving_way(Box::new(move || strain.is_high()));
        shipper.run(self.stop).await.map_err(|error| format!("the shipper can't go on: {error}"))
    }

    /// Waits for ClickHouse, brings its schema up to date, and refuses one that can't be written exactly once. Returns the
    /// newest batch in it.
    async fn prepare_database(&self) -> Result<BatchId, String> {
        let started = Instant::now();
        let mut told = false;
        loop {
            let failure = match self.migrate_and_check().await {
                Ok(newest_batch) => return Ok(newest_batch),
                Err(Obstacle::Lasting(reason)) => return Err(reason),
                Err(Obstacle::Passing(failure)) => failure,
            };
            // An engine that is being started is no news.
            if !told && started.elapsed() > SILENT_FOR {
                tracing::warn!(%failure, "ClickHouse does not answer yet; hits are taken and wait in the log");
                told = true;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    async fn migrate_and_check(&self) -> Result<BatchId, Obstacle> {
        for name in self.database.migrate().await? {
            tracing::info!(name, "the schema was brought up to date");
        }
        self.database.check().await?;
        let newest_batch = self.database.newest_batch().await?;
        if newest_batch == BatchId(INTEGER_MAX) {
            tracing::error!(
                "batch ids were used up by a clock that was far ahead, under an earlier version: hits that were acknowledged \
                 since may be missing, and `tally audit` says how many; new ones count on under ids beyond 2^53"
            );
        }
        Ok(newest_batch)
    }
}

/// Why the database can't be used.
enum Obstacle {
    /// Try again.
    Passing(Failure),
    /// An operator must act.
    Lasting(String),
}

impl From<MigrationError> for Obstacle {
    fn from(error: MigrationError) -> Self {
        match error {
            MigrationError::Failed(failure) => failure.into(),
            MigrationError::Statement { failure, .. } if !matches!(failure, Failure::Reject { .. }) => {
                Self::Passing(failure)
            }
            other => Self::Lasting(other.to_string()),
        }
    }
}

impl From<CheckError> for Obstacle {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Failed(failure) => failure.into(),
            unsafe_schema @ CheckError::Unsafe(_) => Self::Lasting(unsafe_schema.to_string()),
        }
    }
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reject { .. } => Self::Lasting(failure.to_string()),
            passing => Self::Passing(passing),
        }
    }
}

async fn keep_saved(data_dir: PathBuf, dedup: Arc<Dedup<Ticket>>) {
    let mut ticks = tokio::time::interval(SAVE_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        save_filter(&data_dir, &dedup);
    }
}

/// Removes what older versions kept of refused hits and must not. Again every day, since a batch that such a version
/// sealed is inserted as it is after the first time.
async fn blank_rejected_requests(database: Database) {
    let mut ticks = tokio::time::interval(BLANK_EVERY);
    loop {
        ticks.tick().await;
        match database.blank_rejected_requests().await {
            Ok(0) => {}
            Ok(rows) => {
                tracing::info!(rows, "requests that an older version kept were blanked in rejections");
            }
            Err(error) => tracing::warn!(
                %error, "requests that an older version kept can't be blanked in rejections; tried again in a day"
            ),
        }
    }
}

/// The checkpoint first: a batch that settles in between is in the filter and not promised to be.
fn save_filter(data_dir: &Path, dedup: &Dedup<Ticket>) {
    match Folder::new(data_dir).load_checkpoint() {
        Ok(checkpoint) => warm_up::save(data_dir, dedup, checkpoint.settled),
        Err(error) => tracing::error!(%error, "the checkpoint can't be read; the filter is not saved"),
    }
}
