//! The one thread that writes: take what is there, one block, one sync, tell who waits.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use metrics::Histogram;

use super::{
    Config, Position,
    block::{self, Kind, Seal},
    durable_end::DurableEnd,
    open::Tail,
    shared::{Message, Shared},
    spare::SpareKeeper,
    ticket::Lost,
};
use crate::tasks;

const NAME: &str = "wal-writer";
/// A group's buffer that grew past this is given back.
const GROUP_BYTES_KEPT: usize = 1 << 20;
/// How often the end is noted while groups follow each other; otherwise when there is nothing else to do.
const NOTE_EVERY: Duration = Duration::from_millis(100);

/// Starts the writer at the log's tail. It ends when the log is closed.
pub(super) fn spawn(
    shared: Arc<Shared>,
    spares: Arc<SpareKeeper>,
    config: &Config,
    log_id: u64,
    tail: Tail,
    durable_end: Option<Arc<DurableEnd>>,
) -> io::Result<JoinHandle<()>> {
    let writer = Writer {
        shared,
        spares,
        segment_bytes: config.segment_bytes,
        log_id,
        file: tail.file,
        position: tail.position,
        poisoned: false,
        durable_end,
        noted_lsn: tail.position.lsn,
        noted_at: Instant::now(),
        sync_seconds: metrics::histogram!("tally_wal_sync_seconds"),
        group_records: metrics::histogram!("tally_wal_group_records"),
    };
    tasks::spawn_finite_thread(NAME, move || writer.run())
}

/// Without its writer the log keeps nothing: those who wait are told so at once, and so are those who come.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.decide(Err(Lost::Poisoned));
            // What was not taken yet; no more is added, since the log is poisoned by now.
            self.0.take_pending(&mut Vec::new());
            self.0.decide(Err(Lost::Poisoned));
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    spares: Arc<SpareKeeper>,
    segment_bytes: u64,
    log_id: u64,
    file: File,
    position: Position,
    poisoned: bool,
    durable_end: Option<Arc<DurableEnd>>,
    /// Up to which record the end was noted, and when.
    noted_lsn: u64,
    noted_at: Instant,
    sync_seconds: Histogram,
    group_records: Histogram,
}

impl Writer {
    fn run(mut self) {
        let _guard = PoisonOnPanic(self.shared.clone());
        let mut group = Vec::new();
        let mut closing = false;
        let mut left_over = false;
        loop {
            let idle = !left_over && self.shared.announced.is_empty();
            if self.noted_lsn < self.position.lsn && (idle || self.noted_at.elapsed() >= NOTE_EVERY) {
                self.note_end();
            }
            if !left_over {
                match self.shared.announced.recv() {
                    Ok(message) => closing |= self.hear(message),
                    // `shared` holds the sending end, so this can't happen while it is used here.
                    Err(_) => return,
                }
            }
            while let Ok(message) = self.shared.announced.try_recv() {
                closing |= self.hear(message);
            }
            group.clear();
            group.resize(block::HEADER_BYTES, 0);
            let taken = self.shared.take_pending(&mut group);
            tasks::failpoint(NAME);
            left_over = taken.left_over;
            if taken.records > 0 {
                let outcome = self.commit(&mut group, taken.records);
                self.shared.decide(outcome);
            }
            group.shrink_to(GROUP_BYTES_KEPT);
            if closing && taken.records == 0 && !left_over {
                self.note_end();
                return;
            }
            // Appenders refuse by now; one more round takes what came in before that.
            left_over |= closing;
        }
    }

    fn hear(&self, message: Message) -> bool {
        match message {
            Message::Ready(appender) => {
                self.shared.heard(appender);
                false
            }
            Message::Close => true,
        }
    }

    fn commit(&mut self, group: &mut Vec<u8>, records: u32) -> Result<Position, Lost> {
        if self.poisoned {
            return Err(Lost::Poisoned);
        }
        if !self.fits(group.len()) {
            let (number, file) = self.spares.take().map_err(Lost::Full)?;
            self.seal_and_move(number, file).map_err(|error| self.poison("sealing a segment", &error))?;
        }
        block::finish(group, self.seal(), Kind::Records, records, self.position.lsn);
        let bytes = block::padded(group.len());
        // Where the next header will be, nothing stands: not even what a recycled file held there.
        group.resize(bytes + block::HEADER_BYTES, 0);
        self.write_and_sync(group).map_err(|error| self.poison("writing a group", &error))?;
        self.position.lsn += u64::from(records);
        self.position.offset += bytes as u64;
        self.group_records.record(records);
        Ok(self.position)
    }

    /// Whether a block of that size leaves room for the seal.
    fn fits(&self, bytes: usize) -> bool {
        self.position.offset + (block::padded(bytes) + block::HEADER_BYTES) as u64 <= self.segment_bytes
    }

    /// Ends the segment, durably: a block in the next one proves that nothing is missing from this one.
    fn seal_and_move(&mut self, number: u64, file: File) -> io::Result<()> {
        let mut end = [0; block::HEADER_BYTES];
        block::finish(&mut end, self.seal(), Kind::Seal, 0, self.position.lsn);
        self.write_and_sync(&end)?;
        self.file = file;
        self.position =
            Position { lsn: self.position.lsn, segment: number, offset: super::segment::HEADER_BYTES };
        Ok(())
    }

    fn write_and_sync(&self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.position.offset)?;
        let start = Instant::now();
        self.file.sync_data()?;
        self.sync_seconds.record(start.elapsed());
        Ok(())
    }

    /// Everything up to the position is durable, and told so: a write and no sync, on nobody's way.
    fn note_end(&mut self) {
        if let Some(durable_end) = self.durable_end.as_ref().filter(|_| !self.poisoned) {
            durable_end.note(self.position);
        }
        (self.noted_lsn, self.noted_at) = (self.position.lsn, Instant::now());
    }

    fn seal(&self) -> Seal {
        Seal { log_id: self.log_id, segment: self.position.segment }
    }

    fn poison(&mut self, doing: &str, error: &io::Error) -> Lost {
        self.poisoned = true;
        tracing::error!(%error, segment = self.position.segment, offset = self.position.offset, "the log failed while {doing}; nothing is accepted until a restart");
        Lost::Poisoned
    }
}
