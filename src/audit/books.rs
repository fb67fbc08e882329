//! What the data folder says.

use std::path::Path;

use super::AuditError;
use crate::{
    core::{BatchId, Kind, PerKind, payload},
    shipper::{Checkpoint, Folder, Terms},
    wal::{self, Reader, SetAside},
};

/// The checkpoint, the log behind it, the cuts and the dead letters, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Records in the log that the checkpoint does not count yet.
    pub pending: PerKind<u64>,
    /// Cuts that are not settled.
    pub cuts: Vec<BatchId>,
    /// Rows in dead-letter files, in those on their way again, and in cuts made of such.
    pub dead_letters: u64,
    /// What is set aside of the log, damaged.
    pub set_aside: Vec<SetAside>,
}

impl Books {
    /// Reads the folder. `None`: it changed meanwhile; read again.
    pub(super) fn read(data_dir: &Path, wal_dir: &Path) -> Result<Option<Self>, AuditError> {
        let folder = Folder::new(data_dir);
        let (checkpoint, cuts) = state(&folder)?;
        let mut dead_letters = (folder.dead_letters()?.len() + folder.replays()?.len()) as u64;
        for &id in &cuts {
            let cut = folder.load_cut(id)?;
            if cut.is_replay() {
                dead_letters += cut.records();
            }
        }
        if state(&folder)? != (checkpoint, cuts.clone()) {
            return Ok(None);
        }
        let mut pending = records_behind(&checkpoint, wal_dir)?;
        for kind in Kind::ALL {
            pending[kind] = pending[kind].saturating_sub(checkpoint.ahead[kind]);
        }
        let set_aside = wal::set_aside(wal_dir).map_err(AuditError::LogFolder)?;
        Ok(Some(Self { checkpoint, pending, cuts, dead_letters, set_aside }))
    }

    /// The four terms of a kind and their sum's other side.
    #[must_use]
    pub fn terms(&self, kind: Kind) -> Terms {
        let (totals, pending) = (self.checkpoint.totals.kinds[kind], self.pending[kind]);
        Terms {
            accepted: totals.accepted + pending,
            inserted: totals.inserted,
            duplicate: totals.duplicates,
            dead_lettered: totals.dead_lettered,
            pending,
        }
    }

    /// Whether nothing is on its way, and nothing moved since.
    pub(super) fn is_quiet(&self, data_dir: &Path) -> bool {
        self.cuts.is_empty()
            && state(&Folder::new(data_dir))
                .is_ok_and(|(now, cuts)| now == self.checkpoint && cuts.is_empty())
    }
}

/// The checkpoint and the cuts that it does not count as settled.
fn state(folder: &Folder) -> Result<(Checkpoint, Vec<BatchId>), AuditError> {
    let checkpoint = folder.load_checkpoint()?;
    let mut cuts = folder.cut_ids()?;
    cuts.retain(|id| *id > checkpoint.settled);
    Ok((checkpoint, cuts))
}

fn records_behind(checkpoint: &Checkpoint, wal_dir: &Path) -> Result<PerKind<u64>, AuditError> {
    let mut records = PerKind::default();
    let mut reader = Reader::open(wal_dir, checkpoint.position)?;
    while let Some(entry) = reader.next()? {
        let lsn = entry.lsn;
        let record = payload::decode(entry.payload).map_err(|_| AuditError::Record(lsn))?;
        if let Some(kind) = record.kind() {
            records[kind] += 1;
        }
    }
    Ok(records)
}
