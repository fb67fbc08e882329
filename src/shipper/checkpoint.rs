//! How far the log is settled, and what became of everything before that: one small file, replaced whole.

use std::{io, path::Path};

use crate::{core::BatchId, durable_file, wal::Position};

/// Everything before `position` is settled, and so is every batch up to `settled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the shipper goes on reading.
    pub position: Position,
    /// Cuts up to this id are settled, whatever files of theirs are still there.
    pub settled: BatchId,
    /// Conversions at or after `position` that are settled already: a refused batch settles piece by piece.
    pub ahead: u64,
    /// Since the data folder was made.
    pub totals: Totals,
}

/// What became of the records of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Conversions that are settled: the sum of the next three.
    pub accepted: u64,
    /// Of those: in ClickHouse.
    pub inserted: u64,
    /// Of those: accepted as unverified, then found to be duplicates.
    pub duplicates: u64,
    /// Of those: refused by ClickHouse and kept as dead letters.
    pub dead_lettered: u64,
    /// Refused hits, in ClickHouse.
    pub refusals: u64,
    /// Refused hits that ClickHouse refused too, kept as dead letters.
    pub refusals_dead_lettered: u64,
}

/// The checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It can't be read or written.
    #[error("the checkpoint can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is not a checkpoint. Starting without it would count everything in the log again.
    #[error("the checkpoint is damaged; restore it from a backup of the data folder")]
    Damaged,
    /// A newer tally wrote it.
    #[error("the checkpoint has format {0}, which this version of tally does not know")]
    Version(u8),
}

const MAGIC: [u8; 7] = *b"tallyCP";
const VERSION: u8 = 1;
const WORDS: usize = 11;

impl Checkpoint {
    /// Of a new data folder.
    pub const NEW: Self = Self {
        position: Position::START,
        settled: BatchId(0),
        ahead: 0,
        totals: Totals {
            accepted: 0,
            inserted: 0,
            duplicates: 0,
            dead_lettered: 0,
            refusals: 0,
            refusals_dead_lettered: 0,
        },
    };

    /// Reads the file; [`Checkpoint::NEW`] where there is none.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        match std::fs::read(path) {
            Ok(bytes) => Self::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::NEW),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it the checkpoint, durably.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        durable_file::replace(path, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        for word in self.words() {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn words(&self) -> [u64; WORDS] {
        let (at, totals) = (self.position, self.totals);
        [
            at.lsn,
            at.segment,
            at.offset,
            self.settled.0,
            self.ahead,
            totals.accepted,
            totals.inserted,
            totals.duplicates,
            totals.dead_lettered,
            totals.refusals,
            totals.refusals_dead_lettered,
        ]
    }

    fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(CheckpointError::Damaged)?;
        let words = body.strip_prefix(&MAGIC).ok_or(CheckpointError::Damaged)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return Err(CheckpointError::Damaged);
        }
        let (&version, words) = words.split_first().ok_or(CheckpointError::Damaged)?;
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        let (words, rest) = words.as_chunks::<8>();
        let words: [[u8; 8]; WORDS] = words.try_into().map_err(|_| CheckpointError::Damaged)?;
        if !rest.is_empty() {
            return Err(CheckpointError::Damaged);
        }
        let [
            lsn,
            segment,
            offset,
            settled,
            ahead,
            accepted,
            inserted,
            duplicates,
            dead_lettered,
            refusals,
            refusals_dead_lettered,
        ] = words.map(u64::from_le_bytes);
        Ok(Self {
            position: Position { lsn, segment, offset },
            settled: BatchId(settled),
            ahead,
            totals: Totals {
                accepted,
                inserted,
                duplicates,
                dead_lettered,
                refusals,
                refusals_dead_lettered,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back(words: [u64; 11]) {
            let mut bytes = MAGIC.to_vec();
            bytes.push(VERSION);
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            let read = Checkpoint::decode(&bytes).expect("whole");
            prop_assert_eq!(read.encode(), bytes);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200), version: u8) {
            let _ = Checkpoint::decode(&bytes);
            // Nonsense that is framed and sealed well.
            let mut sealed = [MAGIC.as_slice(), &[version], &bytes].concat();
            sealed.extend(crc32fast::hash(&sealed).to_le_bytes());
            let _ = Checkpoint::decode(&sealed);
        }

        #[test]
        fn damage_is_noticed(at in 0usize..100, bit in 0u8..8) {
            let mut bytes = Checkpoint::NEW.encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Checkpoint::decode(&bytes).is_err());
            bytes.truncate(at);
            prop_assert!(Checkpoint::decode(&bytes).is_err());
        }
    }

    /// What a released version wrote is read for ever: a change of these bytes needs a new version and both readers.
    #[test]
    fn the_format_stays() {
        let bytes = Checkpoint { settled: BatchId(5), ahead: 3, ..Checkpoint::NEW }.encode();
        assert_eq!((bytes.len(), crc32fast::hash(&bytes[..bytes.len() - 4])), (100, 3_757_350_181));
    }

    #[test]
    fn a_new_folder_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("checkpoint");
        assert_eq!(Checkpoint::load(&path).expect("new"), Checkpoint::NEW);
        let later = Checkpoint { ahead: 3, ..Checkpoint::NEW };
        later.store(&path).expect("stored");
        assert_eq!(Checkpoint::load(&path).expect("stored"), later);
    }
}
