//! How far the log is known to be durable, in a small file beside the segments: `durable-end`.
//!
//! A log whose last blocks are damaged or zeroed looks like one that ends earlier, or like one whose last write was torn
//! before it was acknowledged. This file tells them apart: what it names was durable, and so may have been acknowledged.
//!
//! ```text
//! two slots, at bytes 0 and 512, written in turn:
//! magic 8 | version u32 | 0 u32 | sequence u64 | log_id u64 | lsn u64 | segment u64 | offset u64 | 0 u32 | crc32 u32
//! ```
//!
//! The writer overwrites a slot after a group was acknowledged, without a sync: that survives a kill of the process.
//! Another thread syncs the file every few seconds, for a power cut. The file may lag behind the log, and never leads:
//! `stored end <= durable end`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::{OpenError, Position};
use crate::durable_file;

/// Its name in the log's folder.
pub(super) const FILE_NAME: &str = "durable-end";

const MAGIC: &[u8; 8] = b"tallyEND";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 64;
/// Sectors of their own: a torn write of one leaves the other.
const SLOT_OFFSETS: [u64; 2] = [0, 512];
const FILE_BYTES: usize = 1024;

/// What the file said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) log_id: u64,
    pub(super) end: Position,
    pub(super) sequence: u64,
}

/// Where it lies.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// Reads the file; `None` where there is none, as in a folder of an older version.
pub(super) fn read(dir: &Path) -> Result<Option<Stored>, OpenError> {
    let path = path(dir);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::File { path, source }),
    };
    match decode(&bytes) {
        Ok(stored) => Ok(Some(stored)),
        Err(Some(version)) => Err(OpenError::DurableEndVersion { path, version }),
        Err(None) => Err(OpenError::DurableEnd { path }),
    }
}

/// The newer intact slot; otherwise the version that this tally does not know, if that is why.
pub(super) fn decode(bytes: &[u8]) -> Result<Stored, Option<u32>> {
    let slots = SLOT_OFFSETS.map(|offset| {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        decode_slot(bytes.get(offset..offset.saturating_add(SLOT_BYTES)).unwrap_or_default())
    });
    let newest = slots.iter().filter_map(|slot| slot.as_ref().ok()).max_by_key(|stored| stored.sequence);
    newest.copied().ok_or_else(|| slots.iter().find_map(|slot| slot.err().flatten()))
}

fn decode_slot(slot: &[u8]) -> Result<Stored, Option<u32>> {
    let slot: &[u8; SLOT_BYTES] = slot.try_into().map_err(|_| None)?;
    let (words, _) = slot.as_chunks::<8>();
    let word = |n: usize| words.get(n).copied().map_or(0, u64::from_le_bytes);
    if &slot[..8] != MAGIC || crc32fast::hash(&slot[..60]).to_le_bytes() != slot[60..] {
        return Err(None);
    }
    let version = u32::try_from(word(1) & u64::from(u32::MAX)).unwrap_or(0);
    if version != VERSION {
        return Err(Some(version));
    }
    let end = Position { lsn: word(4), segment: word(5), offset: word(6) };
    Ok(Stored { log_id: word(3), end, sequence: word(2) })
}

pub(super) fn encode_slot(log_id: u64, end: Position, sequence: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (n, word) in (2..).zip([sequence, log_id, end.lsn, end.segment, end.offset]) {
        slot[n * 8..n * 8 + 8].copy_from_slice(&word.to_le_bytes());
    }
    let crc = crc32fast::hash(&slot[..60]);
    slot[60..].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// The file, open for the writer's notes.
pub(super) struct DurableEnd {
    file: File,
    log_id: u64,
    /// Of the slot that was written last.
    sequence: Mutex<u64>,
    /// Notes that are not synced.
    unsynced: AtomicBool,
    /// Told of a failure already: the log itself goes on without this file.
    failed: AtomicBool,
}

impl DurableEnd {
    /// Opens the file, or makes it, and notes the end at which the log was opened, durably.
    pub(super) fn start(dir: &Path, log_id: u64, end: Position, stored: Option<Stored>) -> io::Result<Self> {
        let path = path(dir);
        let sequence = stored.map_or(0, |stored| stored.sequence);
        if stored.is_none() {
            let mut bytes = vec![0; FILE_BYTES];
            bytes[..SLOT_BYTES].copy_from_slice(&encode_slot(log_id, end, sequence));
            durable_file::replace(&path, &bytes)?;
        }
        let file = OpenOptions::new().write(true).open(&path)?;
        let unsynced = AtomicBool::new(false);
        let started = Self { file, log_id, sequence: Mutex::new(sequence), unsynced, failed: false.into() };
        started.write(end)?;
        started.file.sync_data()?;
        started.unsynced.store(false, Ordering::Relaxed);
        Ok(started)
    }

    /// Notes that the log is durable up to `end`, for a kill of the process; [`Self::sync`] makes it last.
    pub(super) fn note(&self, end: Position) {
        self.report(self.write(end));
    }

    /// Makes the last note durable. Blocks for as long as the disk does.
    pub(super) fn sync(&self) {
        if self.unsynced.swap(false, Ordering::Relaxed) {
            self.report(self.file.sync_data());
        }
    }

    fn write(&self, end: Position) -> io::Result<()> {
        let mut sequence = self.sequence.lock();
        *sequence += 1;
        let offset = if sequence.is_multiple_of(2) { SLOT_OFFSETS[0] } else { SLOT_OFFSETS[1] };
        self.file.write_all_at(&encode_slot(self.log_id, end, *sequence), offset)?;
        self.unsynced.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Acknowledgements don't depend on this file: a failure is said once, and only later damage is harder to recognise.
    fn report(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the end of the log can't be noted in wal/durable-end; if its last blocks are damaged, the next start may not notice");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(lsn: u64) -> Position {
        Position { lsn, segment: 3, offset: 64 + lsn * 8 }
    }

    #[test]
    fn the_last_note_is_read_back_and_a_torn_slot_leaves_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path();
        assert_eq!(read(dir).expect("none"), None);
        let file = DurableEnd::start(dir, 7, end(1), None).expect("made");
        for lsn in 2..5 {
            file.note(end(lsn));
            let stored = read(dir).expect("readable").expect("there");
            assert_eq!((stored.log_id, stored.end), (7, end(lsn)));
        }
        let stored = read(dir).expect("readable");
        let file = DurableEnd::start(dir, 7, end(5), stored).expect("opened");
        file.note(end(6));
        for (slot, left) in [(0, [end(5), end(6)]), (512, [end(5), end(6)])] {
            let mut bytes = std::fs::read(path(dir)).expect("readable");
            bytes[slot + 20] ^= 1;
            assert!(left.contains(&decode(&bytes).expect("the other slot").end));
        }
    }

    #[test]
    fn damage_of_both_slots_is_no_missing_file_and_a_newer_format_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(path(folder.path()), [1; 700]).expect("written");
        assert!(matches!(read(folder.path()), Err(OpenError::DurableEnd { .. })));
        let mut slot = encode_slot(7, end(1), 1);
        slot[8] = 9;
        let crc = crc32fast::hash(&slot[..60]);
        slot[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&slot), Err(Some(9)));
        assert_eq!(decode(b""), Err(None));
    }

    /// What a released version wrote is read for ever.
    #[test]
    fn the_format_stays() {
        let slot = encode_slot(0x0102_0304_0506_0708, Position { lsn: 9, segment: 10, offset: 11 }, 12);
        assert_golden!("log-durable-end-1", &slot);
    }
}
