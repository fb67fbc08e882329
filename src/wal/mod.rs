//! The write-ahead log: opaque records, made durable in groups before anybody is told that they are safe.
//!
//! It knows nothing of hits. Goals: an acknowledged record survives a kill and a power cut; one `fdatasync` serves
//! everybody who waits at that moment; no wake-up and no system call per record; a full disk is refused at the door.
//! Non-goals: random access, several readers, replication, compression.
//!
//! # How a record becomes durable
//!
//! ```text
//! worker: Appender::append ─▶ its own buffer ─(once a turn: "I have something", crossbeam)─▶ writer thread
//! writer: take every buffer ▶ one block ▶ write ▶ fdatasync ▶ mark done ─(one wake-up a worker)─▶ pump
//! pump (a task of the worker): wake the tasks that wait, all on their own thread
//! ```
//!
//! Waking is what costs (several microseconds against a few hundred nanoseconds for everything else), so it happens
//! per group and worker, never per record.
//!
//! # What must hold
//!
//! 1. A ticket is done only after `fdatasync` returned for the block that holds its record.
//! 2. A block is written only after the one before it was synced, so at most one block can be torn, the last.
//! 3. A write or sync that fails poisons the log: what the page cache then holds is unknown, so nothing is
//!    acknowledged until a restart has read the disk again.
//! 4. Space is taken ahead of time, a whole segment filled or recycled before its first record: a full disk refuses
//!    new records ([`AppendError::Full`]) and never tears one.
//! 5. A segment is removed only below the position that the caller settled.
//! 6. `noted end <= durable end`, and a start at which the log ends before the noted end is refused: acknowledged records
//!    are missing. Bytes that stand behind the end are set aside, never dropped.
//!
//! # What damage goes unnoticed
//!
//! Zeroed last blocks look like space that was never written. The noted end recognises them, but for what it lags behind:
//! after a kill of the process, at most the groups of the last 100 ms under load and none when idle; after a power cut,
//! those since its last sync, a few seconds. Everything else is recognised: blocks and headers carry checksums, a segment
//! has a fixed size, and a damaged block is followed by an intact one, is named by the noted end, or
//! is set aside.

mod appender;
mod block;
mod durable_end;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod grouped;
mod open;
mod reader;
mod salvage;
mod segment;
mod shared;
mod spare;
mod tail;
#[cfg(test)]
mod tests;
mod ticket;
mod writer;

use std::{
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
    thread::JoinHandle,
};

use parking_lot::Mutex;

pub use self::{
    appender::{Appender, Durable, Group, Pump},
    open::{OpenError, check, has_segments},
    reader::{Entry, ReadError, Reader},
    salvage::{Gap, Salvage, SalvageError, salvage},
    spare::Shortage,
    tail::{SetAside, TornTail, set_aside},
    ticket::{AppendError, Lost, Ticket, TicketStatus},
};
use self::{durable_end::DurableEnd, shared::Shared, spare::SpareKeeper};

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// How many records stand before this place; the number of the record that follows it.
    pub lsn: u64,
    /// The segment that it lies in.
    pub segment: u64,
    /// The byte offset of a block in that segment; the record may lie inside the block.
    pub offset: u64,
}

impl Position {
    /// The beginning of an empty log.
    pub const START: Self = Self { lsn: 0, segment: 0, offset: segment::HEADER_BYTES };
}

/// How the log is kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder; nothing else lives there but `durable-end` and what was set aside.
    pub dir: PathBuf,
    /// Size of one segment file.
    pub segment_bytes: u64,
    /// Most bytes of segments; past that, records are refused.
    pub spool_bytes_max: u64,
    /// Least free bytes on the disk; below that, no new segment is taken and records are refused.
    pub disk_free_bytes_min: u64,
    /// How many appenders there will be: one per worker thread.
    pub appenders: u16,
}

/// How the log is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Bytes of segment files that hold unsettled records or are being filled.
    pub bytes: u64,
    /// Most of them.
    pub bytes_max: u64,
    /// The number of such files.
    pub segments: u64,
    /// A write or sync failed: only a restart helps.
    pub poisoned: bool,
    /// Why records are being refused, if they are.
    pub shortage: Option<Shortage>,
}

impl Status {
    /// The share of its space that the log takes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn share(&self) -> f64 {
        self.bytes as f64 / self.bytes_max.max(1) as f64
    }
}

/// An open log: one writer thread, appenders for the workers, readers for the shipper. Clones are handles on it.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<Shared>,
    spares: Arc<SpareKeeper>,
    config: Arc<Config>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Wal {
    /// Opens the log, or makes a new one. Everything from `settled` on is checked: the torn tail of the last segment is
    /// set aside, any other damage stops the opening with its place named.
    pub fn open(config: Config, settled: Position) -> Result<Self, OpenError> {
        let opened = open::open(&config, settled)?;
        let durable_end = note_end(&config, &opened);
        let shared = Arc::new(Shared::new(config.appenders, config.segment_bytes, opened.tail.position));
        let spares =
            SpareKeeper::new(&config, opened.log_id, opened.segments, shared.clone(), durable_end.clone());
        let spares = Arc::new(spares);
        let config = Arc::new(config);
        let keeper = spares.clone().spawn()?;
        let log_id = opened.log_id;
        let writer =
            writer::spawn(shared.clone(), spares.clone(), &config, log_id, opened.tail, durable_end)?;
        Ok(Self { shared, spares, config, threads: Arc::new(Mutex::new(vec![writer, keeper])) })
    }

    /// The appender of worker `index`, below [`Config::appenders`]. Its [`Pump`] must run on that worker.
    #[must_use]
    pub fn appender(&self, index: u16) -> Appender {
        Appender::new(self.shared.clone(), index)
    }

    /// Completes when the ticket's record is durable, or lost.
    #[must_use]
    pub fn wait(&self, ticket: Ticket) -> Durable {
        Durable::new(self.shared.clone(), ticket)
    }

    /// Completes when every record that was taken before the call, by whichever appender, is decided: what is taken
    /// afterwards stands behind them in the log. Between appenders nothing else says which record comes first.
    pub async fn catch_up(&self) {
        for ticket in self.shared.undecided() {
            // A record that is lost stands nowhere.
            let _ = self.wait(ticket).await;
        }
    }

    /// Ready when the ticket's record is durable, or lost; until then the task is woken when it is.
    pub fn poll_decided(&self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.shared.poll_decided(ticket, context)
    }

    /// Whether the ticket's record is durable by now.
    #[must_use]
    pub fn status_of(&self, ticket: Ticket) -> TicketStatus {
        self.shared.status_of(ticket)
    }

    /// Up to where the log is durable.
    #[must_use]
    pub fn durable_end(&self) -> Position {
        self.shared.durable_end()
    }

    /// A number above that of every record taken so far, durable or not.
    #[must_use]
    pub fn taken_end_lsn(&self) -> u64 {
        self.shared.taken_end_lsn()
    }

    /// Reads from `from` on, never past what is durable at the time of each call.
    pub fn reader(&self, from: Position) -> Result<Reader, ReadError> {
        Reader::following(&self.config.dir, from, self.shared.clone())
    }

    /// Gives up the segments that lie wholly below `settled`.
    pub fn trim(&self, settled: Position) {
        self.spares.trim(settled.segment);
    }

    /// How the log is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let (segments, shortage) = self.spares.status();
        Status {
            bytes: segments * self.config.segment_bytes,
            bytes_max: self.config.spool_bytes_max,
            segments,
            poisoned: self.shared.is_poisoned(),
            shortage,
        }
    }

    /// Refuses new records, makes the ones taken durable, and ends the threads. Blocks for as long as the disk does.
    pub fn close(&self) {
        self.shared.close();
        self.spares.close();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A panic of the thread has been reported by its own hook; there is nothing left to close.
            let _ = thread.join();
        }
        self.spares.sync_durable_end();
    }
}

/// Notes the end of a log that was just opened. Without room for that file the log is kept all the same: hits are worth
/// more than knowing of damage that has not happened.
fn note_end(config: &Config, opened: &open::Opened) -> Option<Arc<DurableEnd>> {
    let started = DurableEnd::start(&config.dir, opened.log_id, opened.tail.position, opened.stored);
    match started {
        Ok(file) => Some(Arc::new(file)),
        Err(error) => {
            tracing::warn!(%error, "wal/durable-end can't be written; if the last blocks of the log are damaged, the next start may not notice");
            None
        }
    }
}
