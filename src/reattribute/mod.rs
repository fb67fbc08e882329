//! `tally reattribute`: history decided anew, by another window or model, beside the decisions that were made.
//!
//! A run has a number, its own rows and a row that says how far it came; nothing that was decided before is touched. In
//! order:
//!
//! 1. The number becomes the newest one, durably: what the shipper cuts from then on is stamped with it, and stands
//!    beside the run.
//! 2. Everything that was cut or waited before then is let into ClickHouse: clicks that a decision could see must be there,
//!    and of every conversion it is certain whether it came before the run.
//! 3. History is decided piece by piece. If that breaks off, the run is marked as failed and its rows are removed; a run
//!    whose process was killed is found by the next one, and treated so. No piece is done twice within one run.
//! 4. The run is whole: it is compared with what is in force, and put in force, in one atomic insert.

mod report;
mod shipped;

use std::{fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};

pub use self::{report::Outcome, shipped::Shipping};
use crate::{
    clickhouse::{Database, Failure, Rules, Run, RunState},
    core::{Model, RunId, UnixMillis},
    shipper::{Folder, FolderError},
    wal::ReadError,
};

/// Held while a run is computed, so that there is one at a time.
const LOCK_FILE: &str = "reattribute.lock";
const HOUR_MILLIS: i64 = 3_600_000;

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How old a click may be, in seconds, whatever the goal.
    pub window_seconds: u32,
    /// Which of several clicks wins.
    pub model: Model,
    /// Conversions from the start of this hour on.
    pub since: UnixMillis,
    /// How long after a conversion a click may be accepted and still count, in milliseconds.
    pub settle_millis: i64,
    /// How far back clicks are kept, in milliseconds.
    pub clicks_kept_millis: i64,
    /// Whether the run is put in force.
    pub put_in_force: bool,
}

/// Why there is no run, or why it does not count.
#[derive(Debug, thiserror::Error)]
pub enum ReattributeError {
    /// Another one is at work.
    #[error("another `tally reattribute` is at work on this folder")]
    AtWork,
    /// The lock's file.
    #[error("{LOCK_FILE} can't be used: {0}")]
    Lock(std::io::Error),
    /// The data folder's files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// Something is on its way and nobody ships it.
    #[error(
        "{records} records of the log and {batches} batches are not in ClickHouse yet, and no daemon runs to bring them \
         there: start it, and run this again once it has caught up"
    )]
    NobodyShips {
        /// In the log.
        records: u64,
        /// Cut, or dead letters on their way again.
        batches: u64,
    },
    /// Something is on its way and does not arrive.
    #[error("what is on its way to ClickHouse has not moved for {0} seconds: see the daemon's log")]
    Stuck(u64),
    /// ClickHouse.
    #[error("ClickHouse: {0}")]
    Database(#[from] Failure),
    /// The run's rows and its statistics differ: a defect or a broken table.
    #[error("run {run} attributed {rows} conversions and its statistics count {hours}; it is not used")]
    Uneven {
        /// The run.
        run: u32,
        /// Its rows.
        rows: u64,
        /// What its statistics count.
        hours: u64,
    },
    /// There is no such run.
    #[error("there is no run {0} that is whole; `tally reattribute --list` shows them")]
    NoSuchRun(u32),
    /// Numbers have run out.
    #[error("there are no more numbers for runs")]
    TooMany,
}

/// Decides history anew. `note` is told what is being done, for people who wait.
pub async fn reattribute(
    data_dir: &Path,
    wal_dir: &Path,
    database: &Database,
    request: &Request,
    shipping: Shipping,
    now: UnixMillis,
    mut note: impl FnMut(String),
) -> Result<Outcome, ReattributeError> {
    let _alone = lock(data_dir)?;
    let folder = Folder::new(data_dir);
    let runs = database.attribution_runs().await?;
    for broken in runs.iter().filter(|run| run.state == RunState::Running) {
        note(format!("Run {} broke off; its rows are removed.", broken.id.0));
        give_up(database, broken.id).await?;
    }
    let newest = runs.iter().map(|run| run.id).max().unwrap_or_default().max(folder.attribution_run()?);
    let run = Run {
        id: RunId(newest.0.checked_add(1).ok_or(ReattributeError::TooMany)?),
        // Statistics are by the hour: a run reaches back to the start of one.
        since: UnixMillis(request.since.0.div_euclid(HOUR_MILLIS) * HOUR_MILLIS),
        window_seconds: request.window_seconds,
        model: request.model,
        state: RunState::Running,
        is_current: false,
        started_at: now,
    };
    folder.store_attribution_run(run.id)?;
    shipped::wait(&folder, wal_dir, shipping, &mut note).await?;
    database.begin_run(&run).await?;
    match compute(database, &run, request, &mut note).await {
        Ok(attributed) => {
            let before = runs.iter().find(|run| run.is_current).map_or(RunId(0), |run| run.id);
            let outcome = Outcome {
                before,
                attributed,
                differences: database.run_difference(before, run.id).await?,
                narrower: database.conversions_with_narrower_window(&run).await?,
                is_in_force: request.put_in_force,
                clicks_kept_since: now.plus(-request.clicks_kept_millis),
                run: Run { state: RunState::Done, is_current: request.put_in_force, ..run },
            };
            if request.put_in_force {
                database.put_in_force(outcome.run.id).await?;
            }
            Ok(outcome)
        }
        Err(error) => {
            if let Err(failure) = give_up(database, run.id).await {
                note(format!("Run {} can't be removed now; the next one will: {failure}.", run.id.0));
            }
            Err(error)
        }
    }
}

/// Puts a run that is whole in force, or the decisions as conversions came in (0).
pub async fn put_in_force(database: &Database, run: RunId) -> Result<(), ReattributeError> {
    let is_whole = |known: &Run| known.id == run && known.state == RunState::Done;
    if run != RunId(0) && !database.attribution_runs().await?.iter().any(is_whole) {
        return Err(ReattributeError::NoSuchRun(run.0));
    }
    Ok(database.put_in_force(run).await?)
}

/// Every run.
pub async fn list(database: &Database, json: bool) -> Result<String, ReattributeError> {
    let runs = database.attribution_runs().await?;
    Ok(if json { report::runs_json(&runs) } else { report::runs_table(&runs) })
}

/// Decides piece after piece; how many conversions were attributed.
async fn compute(
    database: &Database,
    run: &Run,
    request: &Request,
    note: &mut impl FnMut(String),
) -> Result<u64, ReattributeError> {
    let rules = Rules {
        run: run.id,
        window_seconds: run.window_seconds,
        model: run.model,
        settle_millis: request.settle_millis,
    };
    let chunks = database.run_chunks(run.id, run.since).await?;
    let all: u64 = chunks.iter().map(|chunk| chunk.conversions).sum();
    let mut done = 0;
    for chunk in &chunks {
        database.decide_chunk(&rules, chunk).await?;
        done += chunk.conversions;
        note(format!("Run {}: {done} of {all} conversions decided.", run.id.0));
    }
    let (rows, hours) = database.count_run(run.id).await?;
    if rows != hours {
        return Err(ReattributeError::Uneven { run: run.id.0, rows, hours });
    }
    database.end_run(run.id, RunState::Done).await?;
    Ok(rows)
}

/// A run that broke off counts for nothing.
async fn give_up(database: &Database, run: RunId) -> Result<(), Failure> {
    database.end_run(run, RunState::Failed).await?;
    database.remove_run_rows(run).await
}

fn lock(data_dir: &Path) -> Result<File, ReattributeError> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(data_dir.join(LOCK_FILE))
        .map_err(ReattributeError::Lock)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ReattributeError::AtWork),
        Err(error) => Err(ReattributeError::Lock(error.into())),
    }
}
