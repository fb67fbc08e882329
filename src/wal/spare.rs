//! Space, taken ahead of time: the segment after the current one, and which segments exist.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{Config, durable_end::DurableEnd, open::Segments, segment, shared::Shared};
use crate::tasks;

const NAME: &str = "wal-spare";
/// Settled segments kept to be used again; more are deleted.
const RECYCLABLE_MAX: usize = 2;
/// How long until a disk that had no room is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How often the noted end of the log is made durable.
const SYNC_END_EVERY: Duration = Duration::from_secs(5);

/// Why there is no room for more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The log has reached its configured size: ClickHouse does not keep up, or is down.
    #[error("the spool is full")]
    SpoolFull,
    /// The disk has less free space than configured, or none.
    #[error("the disk is low on space")]
    DiskLow,
}

/// Keeps one segment ready, and the books on the others.
pub(super) struct SpareKeeper {
    dir: PathBuf,
    log_id: u64,
    segment_bytes: u64,
    segments_max: usize,
    disk_free_bytes_min: u64,
    shared: Arc<Shared>,
    durable_end: Option<Arc<DurableEnd>>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// In use: from the oldest with unsettled records to the one being written.
    live: VecDeque<u64>,
    recyclable: Vec<u64>,
    spare: Option<(u64, File)>,
    shortage: Option<Shortage>,
    closed: bool,
}

impl SpareKeeper {
    pub(super) fn new(
        config: &Config,
        log_id: u64,
        segments: Segments,
        shared: Arc<Shared>,
        durable_end: Option<Arc<DurableEnd>>,
    ) -> Self {
        let segments_max =
            usize::try_from(config.spool_bytes_max / config.segment_bytes).unwrap_or(usize::MAX);
        let state = State {
            live: segments.live.into(),
            recyclable: segments.recyclable,
            spare: segments.spare,
            shortage: None,
            closed: false,
        };
        Self {
            dir: config.dir.clone(),
            log_id,
            segment_bytes: config.segment_bytes,
            segments_max: segments_max.max(2),
            disk_free_bytes_min: config.disk_free_bytes_min,
            shared,
            durable_end,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn spawn(self: Arc<Self>) -> io::Result<JoinHandle<()>> {
        tasks::spawn_finite_thread(NAME, move || self.run())
    }

    /// The next segment. Waits while one is being made; a shortage is answered at once, and shuts the door.
    pub(super) fn take(&self) -> Result<(u64, File), Shortage> {
        let mut state = self.state.lock();
        loop {
            if let Some((number, file)) = state.spare.take() {
                state.live.push_back(number);
                self.changed.notify_all();
                return Ok((number, file));
            }
            if let Some(shortage) = state.shortage {
                self.shared.set_shortage(Some(shortage));
                return Err(shortage);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Gives up the segments below number `below`.
    pub(super) fn trim(&self, below: u64) {
        let mut state = self.state.lock();
        while state.live.len() > 1 && state.live.front().is_some_and(|&oldest| oldest < below) {
            let Some(oldest) = state.live.pop_front() else { break };
            if state.recyclable.len() < RECYCLABLE_MAX {
                state.recyclable.push(oldest);
            } else if let Err(error) = std::fs::remove_file(segment::path(&self.dir, oldest)) {
                tracing::warn!(%error, segment = oldest, "a settled segment could not be removed; the next start removes it");
            }
        }
        self.changed.notify_all();
    }

    /// How many segments are in use, and what is missing for another.
    pub(super) fn status(&self) -> (u64, Option<Shortage>) {
        let state = self.state.lock();
        (state.live.len() as u64, state.shortage)
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn run(&self) {
        let _guard = RefuseOnPanic(self);
        let mut synced_at = Instant::now();
        let mut state = self.state.lock();
        while !state.closed {
            tasks::failpoint(NAME);
            if synced_at.elapsed() >= SYNC_END_EVERY {
                parking_lot::MutexGuard::unlocked(&mut state, || self.sync_durable_end());
                synced_at = Instant::now();
                continue;
            }
            if state.spare.is_some() {
                self.changed.wait_for(&mut state, SYNC_END_EVERY.saturating_sub(synced_at.elapsed()));
                continue;
            }
            if state.live.len() >= self.segments_max {
                self.lack(&mut state, Shortage::SpoolFull);
                self.changed.wait_for(&mut state, SYNC_END_EVERY.saturating_sub(synced_at.elapsed()));
                continue;
            }
            let number = state.live.back().map_or(0, |last| last + 1);
            let old = state.recyclable.pop();
            // Filling a segment takes a while: the writer and the shipper go on meanwhile.
            let made = parking_lot::MutexGuard::unlocked(&mut state, || self.make(number, old));
            match made {
                Ok(file) => {
                    state.spare = Some((number, file));
                    state.shortage = None;
                    self.shared.set_shortage(None);
                    self.changed.notify_all();
                }
                Err(error) => {
                    if state.shortage.is_none() {
                        tracing::warn!(%error, "no room for another segment of the log");
                    }
                    self.lack(&mut state, Shortage::DiskLow);
                    self.changed.wait_for(&mut state, RETRY_AFTER);
                }
            }
        }
    }

    /// Makes what was noted of the log's end durable. Blocks for as long as the disk does.
    pub(super) fn sync_durable_end(&self) {
        if let Some(durable_end) = &self.durable_end {
            durable_end.sync();
        }
    }

    /// Tells a waiting writer at once; the door itself is shut when the writer needs the room.
    fn lack(&self, state: &mut State, shortage: Shortage) {
        state.shortage = Some(shortage);
        self.changed.notify_all();
    }

    fn make(&self, number: u64, old: Option<u64>) -> io::Result<File> {
        if let Some(old) = old {
            return segment::recycle(&self.dir, old, number, self.log_id);
        }
        let disk = rustix::fs::statvfs(&self.dir)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < self.disk_free_bytes_min.saturating_add(self.segment_bytes) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{free} bytes are free, {} are kept free", self.disk_free_bytes_min),
            ));
        }
        segment::create(&self.dir, number, self.log_id, self.segment_bytes)
    }
}

/// A writer that waits for its next segment must not wait for a thread that is gone.
struct RefuseOnPanic<'a>(&'a SpareKeeper);

impl Drop for RefuseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lack(&mut self.0.state.lock(), Shortage::DiskLow);
        }
    }
}
