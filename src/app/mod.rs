//! The daemon: the parts put together, and taken apart in order.
//!
//! Start: the folder and everything in it, the database as far as it answers, then the public listener: what can't be kept
//! is refused before the first hit. A database that does not answer comes later, since hits are taken without it. Stop: not ready → no new connections → answer what is open → close the log (its last sync) →
//! the shipper gets a deadline, what is left is safe → the engine.

mod banner;
pub mod commands;
pub mod corrections;
pub mod data_dir;
pub mod database;
mod database_check;
mod descriptors;
mod engine_watch;
mod exporting;
mod glue;
pub mod keys;
pub mod log_damage;
mod parts;
mod progress;
mod renewal;
mod retention;
mod sampler;
mod shipping;
mod signals;
mod telling;
pub mod time;
mod warm_up;
mod worker;

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

pub use descriptors::{TooFewDescriptors, raise_limit};

use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::{
    data_dir::{DataDir, DataDirError, DatabaseUse},
    database::{Warehouse, WarehouseError},
    database_check::{DatabaseCheck, Subject},
    exporting::Exporter,
    glue::Glue,
    progress::Progress,
    sampler::Sampler,
    shipping::{Partners, Shipping},
    signals::Signals,
    telling::{Announcer, Desk, Telling},
    worker::Worker,
};
use crate::{
    catalog::{Catalog, OpenError as CatalogError},
    clock::{BelievedClock, Clock, ClockError},
    config::Config,
    core::{ConversionId, OrderKey, Record, adjustment_fingerprint},
    dedup::{Content, Dedup, First, KeyHasher, Lookup},
    http::{
        self, BodyBudget, DatabaseSlots, IgnoredFields, Limits, NotReady, Ops, Readiness, Services, Volume,
        server::{ConnectionLimits, Server},
    },
    intake::{ClickIds, ClickIdsError, Intake, IntakeShared, Parts, VisitorKeysError, Visitors},
    postback::{self, Guard, OutboxError, Postbacks, SystemResolver},
    rate_limit::RateLimits,
    report_slots,
    shipper::{self, Folder, ShipError},
    tasks::{self, TaskFailure},
    telemetry::{self, Exposition, Metrics, TelemetryError},
    wal::{self, Wal},
};

/// The log's folder in the data folder.
pub const LOG_FOLDER: &str = "wal";
/// The embedded engine's data in the data folder.
pub(crate) const ENGINE_FOLDER: &str = "clickhouse";
/// Size of one segment of the log.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Keys that deduplication holds in memory until ClickHouse has them, about 100 bytes each at most: twice what may wait in
/// the log because of a burst, so that a burst alone makes nothing unverified.
const KEYS_IN_FLIGHT_MAX: u64 = 2 * shipper::RECORDS_WAITING_MAX;
/// Connections that wait to be accepted.
const CONNECTIONS_WAITING_MAX: u32 = 1024;
/// How long a start waits for the copy of a catalog that is not in the folder: an engine may have to start for it.
const CATALOG_COPY_WITHIN: Duration = Duration::from_secs(30);
/// How long the shipper may go on at the end.
const SHIP_WITHIN: Duration = Duration::from_millis(2500);
/// How long postbacks that are on their way may go on at the end. Together with the draining of connections (3 s), the
/// shipper and the engine it stays below the ten seconds that a stop may take.
const TELL_WITHIN: Duration = Duration::from_millis(1200);
/// How long the engine may take to end.
const ENGINE_WITHIN: Duration = Duration::from_secs(3);
/// How long all of that may take where a thread or task is gone that others wait for.
const END_AFTER_FAILURE_WITHIN: Duration = Duration::from_secs(15);

/// Why the daemon can't run, or can't run on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Logs or metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database's address or the engine's folder.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// The system's clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The catalog.
    #[error("the catalog can't be opened: {0}")]
    Catalog(#[from] CatalogError),
    /// The numbers of clicks.
    #[error(transparent)]
    ClickIds(#[from] ClickIdsError),
    /// The visitors' keys.
    #[error(transparent)]
    VisitorKeys(#[from] VisitorKeysError),
    /// The catalog's file is gone, and its copy is out of reach.
    #[error(
        "{path} is missing from a data folder that is in use, and its copy in ClickHouse can't be read ({reason}): \
         restore the file from a backup, or start again when ClickHouse answers", path = path.display()
    )]
    CatalogLost {
        /// The file.
        path: PathBuf,
        /// Why there is no copy.
        reason: String,
    },
    /// The checkpoint, the cuts or the records of the log.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The outbox.
    #[error(
        "{path} can't be used: {source}; restore it from a backup of the data folder, or give up the webhooks that wait to \
         be delivered by `tally repair --accept-loss outbox`", path = path.display()
    )]
    Outbox {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: OutboxError,
    },
    /// The log.
    #[error(
        "the log in {path} can't be used: {source}; restore the data folder from a backup, keep what is whole of it by `tally log \
         salvage`, or give up the hits in it by `tally repair --accept-loss log`", path = path.display()
    )]
    Log {
        /// Its folder.
        path: PathBuf,
        /// Why.
        source: wal::OpenError,
    },
    /// The database must not be written.
    #[error("{0}")]
    Database(String),
    /// A folder of an earlier version has no checkpoint, and the database can't say whether it should.
    #[error(
        "{path} is missing, and whether hits were shipped is not known, since ClickHouse does not answer: restore the file \
         from a backup, or start again when ClickHouse answers", path = path.display()
    )]
    CheckpointUnknown {
        /// The checkpoint.
        path: PathBuf,
    },
    /// An address can't be listened on.
    #[error("{address} can't be listened on: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Too few files and connections may be open.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// Threads or signals can't be had.
    #[error("the system refuses threads or signals: {0}")]
    System(#[from] io::Error),
    /// A thread or task ended that must not have.
    #[error(transparent)]
    Task(#[from] TaskFailure),
}

/// Runs until a signal ends it (see `signals`), or until a part fails.
pub fn serve(config: &Config) -> Result<(), ServeError> {
    telemetry::install_logs(config.log_format, &config.log_level)?;
    tasks::install_panic_hook();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run(config));
    runtime.shutdown_timeout(Duration::from_millis(500));
    outcome
}

#[expect(clippy::too_many_lines, reason = "the order of a start is to be read in one place")]
async fn run(config: &Config) -> Result<(), ServeError> {
    let mut signals = Signals::listen()?;
    let (exposition, metrics) = install_metrics()?;
    let readiness = Arc::new(Readiness::default());
    let stop = CancellationToken::new();
    let workers = config.workers.unwrap_or_else(default_workers);
    let connection_limits = connection_limits(config, workers)?;

    let folder = Arc::new(DataDir::take(&config.data_dir, data_dir::SERVE)?);
    let embedded = config.clickhouse_url.is_none();
    let found = folder.examine(embedded)?;
    folder.make_private()?;
    let clock = time::open(folder.path())?;
    let ops = Ops { readiness: readiness.clone(), exposition: exposition.clone() };
    let ops_address = serve_ops(config.ops_listen, ops).await?;
    // Bound at once, so that a port in use is reported; nothing connects before everything is checked.
    let socket = bind(config.listen)?;
    let address = socket.local_addr()?;

    let hasher = KeyHasher::new(&folder.secret()?);
    let unused = embedded && folder.database() == DatabaseUse::New;
    let warehouse = Warehouse::start(config, unused)?;
    let check = DatabaseCheck::start(Subject {
        database: warehouse.database(),
        folder: folder.clone(),
        checkpoint: found.unwrap_or(shipper::Checkpoint::NEW),
        disk_free_bytes_min: config.disk_free_bytes_min,
        embedded,
        unused: warehouse.unused_flag(),
        readiness: readiness.clone(),
    });
    let catalog = open_catalog(&folder, &warehouse, &check, &*clock).await?;
    if found.is_none() {
        begin_files(&folder, &warehouse, &check).await?;
    }
    let state = recover(config, &folder, unused)?;
    let postbacks = open_postbacks(config, &folder, &catalog, &clock, &state).await?;
    let (lookup, lookups) = Lookup::new(Glue(warehouse.database()));
    drop(tasks::spawn("key-lookups", lookups));

    let (click_ids, visitors) = open_ids(config, &folder, &clock)?;
    folder.finish_initialising()?;
    tokio::select! {
        checked = check.before_first_hit(&warehouse) => {
            if !checked.map_err(ServeError::Database)? {
                tracing::warn!("ClickHouse does not answer; hits are taken and wait in the log");
            }
        }
        () = signals.told_to_stop() => return Ok(()),
    }
    let intake = Arc::new(IntakeShared::new(Parts {
        wal: state.wal.clone(),
        dedup: state.dedup.clone(),
        lookup,
        hasher,
        ip_storage: config.ip_storage,
        visitors,
        click_ids,
        ledger: state.recovered.ledger.clone(),
        ack_seconds: metrics.ack_seconds.clone(),
    }));
    let (rate_limits, volume, ignored_fields) = <SharedCounts>::default();
    let body_budget = Arc::new(BodyBudget::new(config.body_bytes_max));
    let (database_slots, backfills) = (DatabaseSlots::new(default_workers()), telling::backfill_slots());
    let exports = Exporter::start(warehouse.database(), &state.recovered.ledger, &database_slots.reports);
    let handlers = (0..workers).map(|index| {
        let appender = state.wal.appender(u16::try_from(index).unwrap_or(u16::MAX));
        let services = Services {
            catalog: catalog.clone(),
            intake: Intake::new(intake.clone(), appender.clone()),
            reports: Glue(warehouse.database()),
            database_slots: database_slots.clone(),
            postbacks: Arc::new(Desk::new(&postbacks, &catalog, &warehouse, &backfills)),
            exports: exports.clone(),
            rate_limits: rate_limits.clone(),
            volume: volume.clone(),
            ignored_fields: ignored_fields.clone(),
            body_budget: body_budget.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            limits: Limits::from(config),
        };
        Worker { services: Arc::new(services), appender }
    });
    let server = Arc::new(Server::start(handlers, connection_limits, stop.clone())?);

    let settled = Arc::new(Mutex::new(state.checkpoint.position));
    let settle = Duration::from_secs(config.settle_seconds.into());
    let sampler = Sampler {
        progress: Progress::new(settle, state.checkpoint.position.lsn, Instant::now()),
        wal: state.wal.clone(),
        dedup: state.dedup.clone(),
        settled: settled.clone(),
        ledger: state.recovered.ledger.clone(),
        readiness: readiness.clone(),
        exposition,
        clock: clock.clone(),
        data_dir: config.data_dir.clone(),
        disk_free_bytes_min: config.disk_free_bytes_min,
        engine_restarts: warehouse.watch_restarts(),
        unreadable: false,
    };
    watch(sampler, &warehouse, &readiness);
    let telling = Telling::start(postbacks.clone(), &warehouse)?;
    let partners =
        Partners { settled, announcer: Announcer(postbacks), strain: server.strain(), clock: clock.clone() };
    let shipping = Shipping::start(&state, &warehouse, catalog, config, partners, check.state())?;
    let listener = socket.listen(CONNECTIONS_WAITING_MAX);
    let listener = listener.map_err(|source| ServeError::Listen { address, source })?;
    let accepting = tasks::spawn("accept", accept(server.clone(), listener));
    readiness.set(NotReady::Recovering, false);
    tracing::info!(%address, ops = %ops_address, data_dir = %config.data_dir.display(), "tally takes hits");
    println!("{}", banner::banner(address, ops_address, &config.data_dir, config.clickhouse_url.is_none()));

    end_is_due(&mut signals).await;
    tracing::info!("stopping");
    tasks::begin_stop();
    readiness.set(NotReady::ShuttingDown, true);
    stop.cancel();
    // Accepting ends with the token; nothing else holds the server.
    let _ = accepting.await;
    end_or_give_up(end_in_order(server, state.wal, shipping, telling, warehouse)).await;
    time::keep(&clock);
    tasks::failure().map_or(Ok(()), |failure| Err(failure.into()))
}

/// Waits for a signal, or for a part that fails.
async fn end_is_due(signals: &mut Signals) {
    tokio::select! {
        () = signals.told_to_stop() => {}
        _ = tasks::first_failure() => {}
    }
}

async fn accept(server: Arc<Server>, listener: TcpListener) {
    server.accept(listener).await;
}

/// Starts what only looks.
fn watch(sampler: Sampler, warehouse: &Warehouse, readiness: &Arc<Readiness>) {
    drop(tasks::spawn("log-damage", log_damage::watch(sampler.data_dir.join(LOG_FOLDER))));
    drop(tasks::spawn("sampler", sampler.run()));
    drop(tasks::spawn("part-count", parts::watch(warehouse.database())));
    drop(tasks::spawn("engine-watch", engine_watch::watch(warehouse.database(), readiness.clone())));
}

/// Waits for an ordered end, but not for ever once a part is gone that others may wait for.
async fn end_or_give_up(end: impl Future<Output = ()>) {
    let patience = async {
        tasks::first_failure().await;
        sleep(END_AFTER_FAILURE_WITHIN).await;
    };
    tokio::select! {
        () = end => tracing::info!("stopped"),
        () = patience => {
            tracing::error!("some parts did not end; the next start reads back what is in the log");
        }
    }
}

/// Ends what hands to others before those that it hands to.
async fn end_in_order(
    server: Arc<Server>,
    log: Wal,
    shipping: Shipping,
    telling: Telling,
    warehouse: Warehouse,
) {
    if let Some(server) = Arc::into_inner(server) {
        tasks::blocking(move || server.drained()).await;
    }
    tasks::blocking(move || log.close()).await;
    shipping.stop(SHIP_WITHIN).await;
    telling.stop(TELL_WITHIN).await;
    if timeout(ENGINE_WITHIN, warehouse.stop()).await.is_err() {
        tracing::warn!("the embedded ClickHouse did not end in time and is killed");
    }
}

/// What the workers count together: hits by token, refusals by goal, and names that mean nothing.
type SharedCounts = (Arc<RateLimits>, Arc<Volume>, Arc<IgnoredFields>);

/// What a start finds on disk.
struct State {
    wal: Wal,
    dedup: Arc<Dedup<wal::Ticket>>,
    recovered: shipper::Recovered,
    checkpoint: shipper::Checkpoint,
    filter_through: crate::core::BatchId,
    click_retention_days: u32,
}

/// Opens the log and reads back what is not settled, so that deduplication knows it before the first hit.
fn recover(config: &Config, folder: &DataDir, new_database: bool) -> Result<State, ServeError> {
    let cuts = Folder::new(folder.path());
    // Of what holds something nothing is missing; an empty folder may be.
    cuts.create().map_err(ShipError::from)?;
    let checkpoint = cuts.load_checkpoint().map_err(ShipError::from)?;
    let log = log_config(config);
    let path = log.dir.clone();
    let wal = Wal::open(log, checkpoint.position).map_err(|source| ServeError::Log { path, source })?;
    let restored = warm_up::restore(folder.path(), checkpoint.settled);
    let complete = restored.is_complete(checkpoint.settled, new_database);
    let dedup =
        Arc::new(Dedup::new(usize::try_from(KEYS_IN_FLIGHT_MAX).unwrap_or(usize::MAX), restored.filter));
    if complete {
        dedup.set_warm();
    }
    let end = wal.durable_end().lsn;
    let recovered = shipper::recover(&cuts, &wal, |_, record| {
        if let Some((key, first)) = first_of(&record) {
            dedup.in_flight().recover(key, first, end);
        }
    })?;
    if recovered.records > 0 {
        tracing::info!(records = recovered.records, "read back what was not in ClickHouse yet");
    }
    Ok(State {
        wal,
        dedup,
        recovered,
        checkpoint,
        filter_through: restored.through,
        click_retention_days: config.click_retention_days,
    })
}

/// How the log is kept.
fn log_config(config: &Config) -> wal::Config {
    let workers = config.workers.unwrap_or_else(default_workers);
    wal::Config {
        dir: config.data_dir.join(LOG_FOLDER),
        segment_bytes: SEGMENT_BYTES,
        spool_bytes_max: config.spool_bytes_max,
        disk_free_bytes_min: config.disk_free_bytes_min,
        appenders: u16::try_from(workers).unwrap_or(u16::MAX),
    }
}

/// Makes what a folder without a checkpoint needs: one that is initialised, or one of an earlier version that has shipped
/// nothing, if the database agrees.
async fn begin_files(
    folder: &DataDir,
    warehouse: &Warehouse,
    check: &DatabaseCheck,
) -> Result<(), ServeError> {
    if !folder.is_initialising() && !check.before_first_hit(warehouse).await.map_err(ServeError::Database)? {
        return Err(ServeError::CheckpointUnknown { path: folder.path().join(shipper::CHECKPOINT_FILE) });
    }
    if folder.is_initialising() {
        // Nothing was ever in it, and a kill may have left half of one.
        match std::fs::remove_file(folder.path().join(postback::FILE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Folder::new(folder.path()).initialise().map_err(ShipError::from)?;
    Ok(())
}

/// What deduplication must know of a record before the first hit comes.
fn first_of(record: &Record) -> Option<(OrderKey, First<wal::Ticket>)> {
    let (key, id, content) = match record {
        Record::Conversion(of) => (of.key?.0, of.id, Content::Amount(of.value, of.currency)),
        // The number is in the key.
        Record::Click(of) => (of.key?, ConversionId(uuid::Uuid::nil()), Content::Unknown),
        Record::Adjustment(of) => {
            let said = adjustment_fingerprint(of.conversion_id, of.kind, of.value, &of.reason);
            (of.key?, ConversionId(of.id.0), Content::Call(said))
        }
        Record::Refusal(_) => return None,
    };
    Some((key, First { id, content, ticket: None }))
}

/// Opens the outbox, away from the threads that answer probes: after a kill it is read through.
async fn open_postbacks(
    config: &Config,
    folder: &DataDir,
    catalog: &Arc<Catalog>,
    clock: &Arc<BelievedClock>,
    state: &State,
) -> Result<Arc<Postbacks>, ServeError> {
    let guard = Guard::new(&config.postback_allow, SystemResolver);
    let (path, settled) = (folder.path().to_owned(), state.checkpoint.settled);
    let (catalog, clock) = (catalog.clone(), clock.clone());
    let open = move || Postbacks::open(&path, catalog, clock, guard, settled);
    let path = folder.path().join(postback::FILE_NAME);
    Ok(Arc::new(tasks::blocking(open).await.map_err(|source| ServeError::Outbox { path, source })?))
}

/// Opens what clicks are numbered and visitors are hashed with.
fn open_ids(
    config: &Config,
    folder: &DataDir,
    clock: &Arc<BelievedClock>,
) -> Result<(Arc<ClickIds>, Arc<Visitors>), ServeError> {
    let now = clock.now();
    let click_ids = ClickIds::open(folder.path(), now)?;
    let (days, private) = (config.click_retention_days, config.match_private_addresses);
    let visitors = Visitors::open(folder.path(), days, private, now, clock.retention_time())?;
    let (click_ids, visitors) = (Arc::new(click_ids), Arc::new(visitors));
    let renewal = renewal::keep_renewed(click_ids.clone(), visitors.clone(), clock.clone());
    drop(tasks::spawn("lease-renewal", renewal));
    Ok((click_ids, visitors))
}

/// Opens the catalog; where its file is missing, from its copy in ClickHouse, if that is at hand.
async fn open_catalog(
    folder: &DataDir,
    warehouse: &Warehouse,
    check: &DatabaseCheck,
    clock: &dyn Clock,
) -> Result<Arc<Catalog>, ServeError> {
    let mut copy = None;
    if !Catalog::exists(folder.path()) && !folder.is_initialising() {
        use crate::catalog::CatalogCopy as _;
        let glue = Glue(warehouse.database());
        let load = async {
            // Another installation's database has another catalog.
            if !check.before_first_hit(warehouse).await? {
                return Err("ClickHouse does not answer".into());
            }
            let rows = glue.load().await.map_err(|error| error.to_string())?;
            rows.filter(|rows| !rows.accounts.is_empty()).ok_or_else(|| "the copy is empty".to_owned())
        };
        // A new catalog in its place would give out numbers that are taken.
        let loaded =
            timeout(CATALOG_COPY_WITHIN, load).await.unwrap_or_else(|_| Err("no answer in time".into()));
        let path = folder.path().join(crate::catalog::FILE_NAME);
        copy = Some(loaded.map_err(|reason| ServeError::CatalogLost { path: path.clone(), reason })?);
        tracing::warn!(path = %path.display(), "the catalog's file was missing and is restored from its copy in ClickHouse");
    }
    let opened = Catalog::open(folder.path(), clock, copy)?;
    if let Some(key) = opened.first_key {
        let path = folder.path().join(crate::catalog::KEY_FILE_NAME);
        println!("{}", banner::key(&key, &path, io::stdout().is_terminal()));
    }
    Ok(Arc::new(opened.catalog))
}

fn install_metrics() -> Result<(Exposition, Arc<Metrics>), TelemetryError> {
    let prometheus = telemetry::install_metrics()?;
    let metrics = Arc::new(Metrics::new());
    shipper::describe_metrics();
    sampler::describe_metrics();
    log_damage::describe_metrics();
    tasks::describe_metrics();
    retention::describe_metrics();
    postback::describe_metrics();
    report_slots::describe_metrics();
    Ok((Exposition::new(prometheus, metrics.histograms()), metrics))
}

/// Until the very end: whoever probes is told that the daemon is on its way out.
async fn serve_ops(address: SocketAddr, ops: Ops) -> Result<SocketAddr, ServeError> {
    let listener = listen(address).await?;
    let address = listener.local_addr()?;
    let served = http::server::serve_ops(listener, ops, CancellationToken::new());
    drop(tasks::spawn("ops-accept", served));
    Ok(address)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// What the configuration gives connections, as far as descriptors allow it.
fn connection_limits(config: &Config, workers: usize) -> Result<ConnectionLimits, TooFewDescriptors> {
    Ok(ConnectionLimits {
        connections_max: descriptors::connections_max(config.connections_max, workers)?,
        keep_alive: config.keep_alive,
        trusted_proxies: config.trusted_proxies.clone(),
    })
}

/// Takes an address on which nothing can connect yet.
fn bind(address: SocketAddr) -> Result<TcpSocket, ServeError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|source| ServeError::Listen { address, source })
}

fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
