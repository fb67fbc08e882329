//! How far the log is settled, and what became of everything before that: one small file, replaced whole.

use std::{io, path::Path};

use crate::{
    core::{BatchId, Kind, PerKind},
    durable_file,
    wal::Position,
};

/// Everything before `position` is settled, and so is every batch up to `settled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where the shipper goes on reading.
    pub position: Position,
    /// Cuts up to this id are settled, whatever files of theirs are still there.
    pub settled: BatchId,
    /// Records at or after `position` that are settled already: a refused batch settles piece by piece.
    pub ahead: PerKind<u64>,
    /// Since the data folder was made.
    pub totals: Totals,
}

/// What became of the records of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of those that were acknowledged, kind by kind.
    pub kinds: PerKind<KindTotals>,
    /// Refused hits, in ClickHouse.
    pub refusals: u64,
    /// Refused hits that ClickHouse refused too, kept as dead letters.
    pub refusals_dead_lettered: u64,
}

/// What became of the acknowledged records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindTotals {
    /// Those that are settled: the sum of the next three.
    pub accepted: u64,
    /// Of those: in ClickHouse.
    pub inserted: u64,
    /// Of those: accepted as unverified, then found to be duplicates.
    pub duplicates: u64,
    /// Of those: refused by ClickHouse and kept as dead letters.
    pub dead_lettered: u64,
}

/// The checkpoint can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It can't be read or written.
    #[error("the checkpoint can't be read: {0}")]
    Io(#[from] io::Error),
    /// There is none. A start without it would ship everything in the log again.
    #[error("the checkpoint is missing; restore it from a backup of the data folder")]
    Missing,
    /// It is not a checkpoint. Starting without it would count everything in the log again.
    #[error("the checkpoint is damaged; restore it from a backup of the data folder")]
    Damaged,
    /// A newer tally wrote it.
    #[error("the checkpoint has format {0}, which this version of tally does not know: use a newer tally")]
    Version(u8),
}

const MAGIC: [u8; 7] = *b"tallyCP";
const VERSION: u8 = 1;
/// The position, the last settled cut, the refusals; then what is ahead and the totals of each kind.
const WORDS: usize = 6 + 5 * Kind::ALL.len();

impl Checkpoint {
    /// Of a new data folder.
    pub const NEW: Self = Self {
        position: Position::START,
        settled: BatchId(0),
        ahead: PerKind([0; Kind::ALL.len()]),
        totals: Totals {
            kinds: PerKind(
                [KindTotals { accepted: 0, inserted: 0, duplicates: 0, dead_lettered: 0 }; Kind::ALL.len()],
            ),
            refusals: 0,
            refusals_dead_lettered: 0,
        },
    };

    /// Reads the file. One that is missing is an error: only the first start of a data folder makes it.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        match std::fs::read(path) {
            Ok(bytes) => Self::decode(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CheckpointError::Missing),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes it the checkpoint, durably.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        durable_file::replace(path, &self.encode())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        let (at, totals) = (self.position, &self.totals);
        let common =
            [at.lsn, at.segment, at.offset, self.settled.0, totals.refusals, totals.refusals_dead_lettered];
        let kinds = Kind::ALL.into_iter().flat_map(|kind| {
            let of = totals.kinds[kind];
            [self.ahead[kind], of.accepted, of.inserted, of.duplicates, of.dead_lettered]
        });
        for word in common.into_iter().chain(kinds) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
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
        let words = words.map(u64::from_le_bytes);
        let [lsn, segment, offset, settled, refusals, refusals_dead_lettered, kinds @ ..] = words;
        let (kinds, _) = kinds.as_chunks::<5>();
        let mut checkpoint = Self {
            position: Position { lsn, segment, offset },
            settled: BatchId(settled),
            totals: Totals { refusals, refusals_dead_lettered, ..Totals::default() },
            ..Self::NEW
        };
        for (kind, &[ahead, accepted, inserted, duplicates, dead_lettered]) in
            Kind::ALL.into_iter().zip(kinds)
        {
            checkpoint.ahead[kind] = ahead;
            checkpoint.totals.kinds[kind] = KindTotals { accepted, inserted, duplicates, dead_lettered };
        }
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back(words: [u64; WORDS]) {
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
        fn damage_is_noticed(at in 0usize..180, bit in 0u8..8) {
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
        let bytes = Checkpoint { settled: BatchId(5), ahead: PerKind([3, 2, 1]), ..Checkpoint::NEW }.encode();
        assert_eq!((bytes.len(), crc32fast::hash(&bytes[..bytes.len() - 4])), (180, 3_985_172_547));
    }

    #[test]
    fn a_missing_one_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("checkpoint");
        assert!(matches!(Checkpoint::load(&path), Err(CheckpointError::Missing)));
        let later = Checkpoint { ahead: PerKind([3, 2, 1]), ..Checkpoint::NEW };
        later.store(&path).expect("stored");
        assert_eq!(Checkpoint::load(&path).expect("stored"), later);
    }
}
