//! The shipper: log → batch → cut → insert → checkpoint. Every record reaches ClickHouse exactly once, or lies as a
//! dead letter where an operator can read, mend and replay it.
//!
//! # The steps, and a crash after each of them
//!
//! | Step | What is on disk | What the next start does |
//! |---|---|---|
//! | 1. read records from the checkpoint on, tell late duplicates | nothing new | reads them again |
//! | 2. make the cut durable | the cut | takes it up, *doubtful*: whether it was sent is not known |
//! | 3. send it under its token | the same | sends the same bytes under the same token, then looks |
//! | 4. (doubtful only) look, mend, or choose the next token | the same, and the token's number *before* it is used | looks again: every repair is idempotent or begins by undoing itself |
//! | 5. replace the checkpoint: position, totals, the id of the settled cut | cut and checkpoint | cuts up to that id are settled: removes the file, sends nothing |
//! | 6. remove the cut | the checkpoint | goes on reading at the position |
//! | 7. trim the log | the same | trims with the next batch |
//!
//! While cuts are unsettled nothing new is cut, and the smallest id is always settled first; so one number, the
//! greatest settled id, says of every file what it is. The position moves only with the last cut of its range.
//!
//! A refused cut of several rows is replaced by two halves with ids, tokens and files of their own: both are durable
//! before the whole is removed, and nothing of them is sent before that. If the whole is found beside a piece, the piece
//! was never sent and is dropped. Before halving, whatever the refused insert left is taken out again (a view that
//! refuses leaves the raw rows). A single refused row becomes a dead letter, durable before it counts.
//!
//! Dead letters on their way again are cut like records of the log, without a range. Their files go once the cut is
//! durable, which then holds their rows; if the removal is interrupted, the cut names the files that must go.
//!
//! While those who answer hits have no time to spare, nothing is cut from the log, within bounds (`give_way`).
//!
//! Totals change in the same atomic replacement as the position, so a crash can neither lose nor repeat a count.

mod backoff;
mod batch;
mod checkpoint;
mod cut;
pub mod dead_letters;
mod decide;
mod deliver;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod give_way;
#[cfg(test)]
mod golden;
mod ledger;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod warehouse;
mod worker;

use std::{io, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

pub use self::{
    backoff::Backoff,
    batch::Limits,
    checkpoint::{Checkpoint, CheckpointError, KindTotals, Totals},
    cut::{Content, Cut, CutError, LateDuplicate, Origin},
    folder::{BATCHES_FOLDER, CHECKPOINT_FILE, DEAD_LETTERS_FOLDER, Folder, FolderError},
    give_way::{RECORDS_WAITING_MAX, Strained},
    ledger::{Ledger, Terms, describe_metrics},
    warehouse::Warehouse,
    worker::sealed_at,
};
use self::{
    give_way::GiveWay,
    worker::{Step, Surroundings, Worker},
};
use crate::{
    clock::Clock,
    core::{BatchId, CountedConversion, GoalId, Kind, PerKind, Record, payload},
    dedup::SettledKey,
    wal::{Position, ReadError, Wal},
};

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How large a batch may be.
    pub limits: Limits,
    /// How long a batch waits for more records.
    pub linger: Duration,
    /// For how long a conversion may overtake its click: one that could still meet a click waits that long.
    pub settle: Duration,
    /// How often the log is looked at when there is nothing to do: being woken would cost the hot path more.
    pub poll: Duration,
    /// The first pause after a failure.
    pub backoff_min: Duration,
    /// The longest one.
    pub backoff_max: Duration,
    /// How long clicks are kept: nothing is held against those that went by age.
    pub click_retention_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits { rows_max: 100_000, bytes_max: 16 << 20 },
            linger: Duration::from_secs(1),
            settle: Duration::from_secs(5),
            poll: Duration::from_millis(200),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            click_retention_days: 400,
        }
    }
}

impl Config {
    fn backoff(&self) -> Backoff {
        Backoff::new(self.backoff_min, self.backoff_max)
    }
}

/// Called after every settled cut: these keys can be found in ClickHouse now, and everything before the position is
/// settled.
pub type OnSettled = Box<dyn FnMut(&[SettledKey], Position) + Send>;

/// Is told of what a batch brings before the batch counts as settled.
pub trait Announce: Send {
    /// Whether anything is to be said of a goal's conversions. Most batches bring nothing of the kind, and are not read
    /// back for it.
    fn listens(&self, goal: GoalId) -> bool;

    /// Keeps what is to be said of these conversions, durably; they are in ClickHouse. May be called again with the
    /// same batch, if it could not be settled after all.
    fn prepare(&mut self, batch: BatchId, conversions: &[CountedConversion]) -> io::Result<()>;

    /// The batch, and every one before it, is settled.
    fn release(&mut self, batch: BatchId);
}

/// Why the shipper can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// Its files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What is to be said of a batch can't be kept.
    #[error("what is to be said of a batch can't be kept: {0}")]
    Announce(io::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A batch was made of records that the log does not hold any more; new ones would take their numbers.
    #[error(
        "batch {batch} goes up to record {to} of the log, and the log ends at record {end}: its last blocks are gone; \
         restore the data folder from a backup, or run `tally log salvage`"
    )]
    LogTooShort {
        /// The batch.
        batch: u64,
        /// Where it ends.
        to: u64,
        /// Where the log ends.
        end: u64,
    },
    /// A record of the log can't be read: a newer tally wrote it, or it is a defect.
    #[error("record {lsn} of the log: {source}")]
    Record {
        /// Its number.
        lsn: u64,
        /// What is wrong.
        source: payload::DecodeError,
    },
    /// The next batch's id exists already.
    #[error(
        "batch {} is to be sealed, but there is a batch of that id in the folder `cuts`: another daemon wrote to this data \
         folder; stop it, keep the file, and start again", .0.0
    )]
    IdTaken(BatchId),
    /// No id is left.
    #[error("the ids of batches are used up ({}): no further batch can be told from those before it", BatchId::MAX.0)]
    IdsUsedUp,
    /// A cut's rows can't be read back: a defect.
    #[error("a cut's rows can't be read back: {0}")]
    Rows(CutError),
}

impl ShipError {
    fn damaged(error: CutError) -> Self {
        Self::Rows(error)
    }

    /// Whether another try may go better: the disk did not answer, or is full.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Folder(
                FolderError::Io { .. } | FolderError::Checkpoint { source: CheckpointError::Io(_), .. }
            ) | Self::Log(ReadError::Io { .. })
                | Self::Announce(_)
        )
    }
}

/// What was found at start.
#[derive(Debug)]
pub struct Recovered {
    /// Counts from here on; the intake tells it of every accepted record.
    pub ledger: Arc<Ledger>,
    /// Records in the log that are not settled.
    pub records: u64,
    /// Acknowledged ones among them, less those that a half-settled batch has settled already.
    pub pending: PerKind<u64>,
}

/// Hands every unsettled record, with its number, to `each`, so that deduplication knows their keys before the first
/// hit comes. Call it before the shipper runs and before anything is appended. The folder is an initialised one.
pub fn recover(
    folder: &Folder,
    wal: &Wal,
    mut each: impl FnMut(u64, Record),
) -> Result<Recovered, ShipError> {
    folder.remove_unfinished()?;
    let checkpoint = folder.load_checkpoint()?;
    check_batches(folder, wal, &checkpoint)?;
    let mut reader = wal.reader(checkpoint.position)?;
    let (mut records, mut pending) = (0, PerKind::<u64>::default());
    while let Some(entry) = reader.next()? {
        let lsn = entry.lsn;
        let record = payload::decode(entry.payload).map_err(|source| ShipError::Record { lsn, source })?;
        records += 1;
        if let Some(kind) = record.kind() {
            pending[kind] += 1;
        }
        each(lsn, record);
    }
    for kind in Kind::ALL {
        pending[kind] = pending[kind].saturating_sub(checkpoint.ahead[kind]);
    }
    let ledger = Arc::new(Ledger::new(&checkpoint, pending));
    Ok(Recovered { ledger, records, pending })
}

/// The shipper goes on behind the batches that are waiting: the log must reach as far.
fn check_batches(folder: &Folder, wal: &Wal, checkpoint: &Checkpoint) -> Result<(), ShipError> {
    let end = wal.durable_end().lsn;
    for id in folder.cut_ids()?.into_iter().filter(|&id| id > checkpoint.settled) {
        match folder.load_cut(id)?.origin {
            Origin::Log { to, .. } if to.lsn > end => {
                return Err(ShipError::LogTooShort { batch: id.0, to: to.lsn, end });
            }
            Origin::Log { .. } | Origin::DeadLetters(_) => {}
        }
    }
    Ok(())
}

/// Ships batches until it is told to stop.
pub struct Shipper<W> {
    around: Surroundings<W>,
}

impl<W: Warehouse> Shipper<W> {
    /// Over that folder and log, into that database. The database is this shipper's own: its connections live in the
    /// runtime that runs it.
    #[must_use]
    pub fn new(
        config: Config,
        folder: Folder,
        wal: Wal,
        warehouse: W,
        clock: Box<dyn Clock>,
        ledger: Arc<Ledger>,
        on_settled: OnSettled,
    ) -> Self {
        let stop = CancellationToken::new();
        Self {
            around: Surroundings {
                config,
                folder,
                wal,
                warehouse,
                clock,
                ledger,
                on_settled,
                announce: None,
                give_way: None,
                newest_batch: BatchId(0),
                stop,
            },
        }
    }

    /// Gives every batch a higher id than the newest one in the database.
    #[must_use]
    pub fn counting_on_from(mut self, newest: BatchId) -> Self {
        self.around.newest_batch = newest;
        self
    }

    /// Tells somebody of every batch before it counts as settled.
    #[must_use]
    pub fn announcing(mut self, announce: Box<dyn Announce>) -> Self {
        self.around.announce = Some(announce);
        self
    }

    /// Lets batches wait, within bounds, while those who answer hits have no time to spare.
    #[must_use]
    pub fn giving_way(mut self, strained: Strained) -> Self {
        self.around.give_way = Some(GiveWay::new(strained, self.around.config.settle));
        self
    }

    /// Runs until `stop` is cancelled and everything in the log is shipped, or ClickHouse fails while stopping. It may
    /// also be dropped at any time: what is left is safe, and the next start goes on with it. Fails only where going
    /// on would be wrong.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ShipError> {
        self.around.stop = stop.clone();
        let mut backoff = self.around.config.backoff();
        loop {
            match self.work(&mut backoff).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_passing() => {
                    tracing::error!(%error, "the shipper's files or the log can't be used; trying again");
                    if !deliver::pause(&stop, backoff.next_wait()).await {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn work(&mut self, backoff: &mut Backoff) -> Result<(), ShipError> {
        let mut worker = Worker::open(&self.around)?;
        loop {
            match worker.step(&mut self.around).await? {
                Step::Worked => backoff.reset(),
                Step::Stopped => return Ok(()),
                Step::Idle => {
                    self.around.ledger.publish();
                    // Cancelled, the next step ships what came meanwhile and then says so.
                    let _ = deliver::pause(&self.around.stop, self.around.config.poll).await;
                }
            }
        }
    }
}
