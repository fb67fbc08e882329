//! What runs once the database may be written ([`super::database_check`]): the shipper, the catalog's copy, and the
//! filter's completion.
//!
//! On a thread of its own, below the priority of those who answer: a burst is acknowledged first and shipped after.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    State, database::Warehouse, database_check::DatabaseState, glue::Glue, retention, telling::Announcer,
    warm_up,
};
use crate::{
    catalog::{Catalog, keep_copied},
    clickhouse::Database,
    clock::{BelievedClock, Clock as _},
    config::Config,
    core::BatchId,
    dedup::Dedup,
    http::Strain,
    shipper::{self, Folder, Shipper},
    tasks,
    wal::{Position, Ticket, Wal},
};

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
    database_state: watch::Receiver<DatabaseState>,
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
        database_state: watch::Receiver<DatabaseState>,
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
            database_state,
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
        let newest_batch = tokio::select! {
            newest_batch = self.database_ready() => newest_batch?,
            () = self.stop.cancelled() => return Ok(()),
        };
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

    /// Waits until the database may be written; the newest batch in it.
    async fn database_ready(&self) -> Result<BatchId, String> {
        let mut state = self.database_state.clone();
        loop {
            if let DatabaseState::Ready(newest_batch) = *state.borrow_and_update() {
                return Ok(newest_batch);
            }
            state.changed().await.map_err(|_| "the check of the database has ended".to_owned())?;
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
