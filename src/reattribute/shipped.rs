//! Waiting until everything that was on its way when a run was numbered is in ClickHouse.
//!
//! A batch is read from the log before its decisions are stamped, and cut after. So a batch that bears an older stamp lies
//! in the log before the end that is seen once the new number is durable: when that end is settled, so is the batch.
//! Batches of dead letters are seen by their files, which go only when their cut is there.

use std::{path::Path, time::Duration};

use tokio::time::Instant;

use super::ReattributeError;
use crate::{
    core::BatchId,
    shipper::{Checkpoint, Folder},
    wal::Reader,
};

/// Whether a daemon brings what waits to ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipping {
    /// It does.
    Running,
    /// None runs on the folder.
    Stopped,
}

/// How long nothing may move.
const STUCK_AFTER: Duration = Duration::from_mins(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long the log may refuse to be read while it is written and trimmed.
const RESTLESS_MAX: Duration = Duration::from_secs(30);

/// Waits.
pub(super) async fn wait(
    folder: &Folder,
    wal_dir: &Path,
    shipping: Shipping,
    note: &mut impl FnMut(String),
) -> Result<(), ReattributeError> {
    let letters = folder.replays()?;
    let end = end_of_log(folder, wal_dir).await?;
    let mut cuts: Option<Vec<BatchId>> = None;
    let mut moved = (Instant::now(), None);
    let mut told = false;
    loop {
        let checkpoint = folder.load_checkpoint()?;
        let replaying = folder.replays()?.iter().filter(|name| letters.contains(name)).count() as u64;
        if replaying == 0 && cuts.is_none() {
            cuts = Some(folder.cut_ids()?);
        }
        let of_before = cuts.iter().flatten().filter(|id| **id > checkpoint.settled).count() as u64;
        let records = end.saturating_sub(checkpoint.position.lsn);
        if records == 0 && replaying == 0 && of_before == 0 {
            return Ok(());
        }
        if shipping == Shipping::Stopped {
            return Err(ReattributeError::NobodyShips { records, batches: of_before + replaying });
        }
        if !told {
            note(format!("Waiting until {records} records that came before the run are in ClickHouse."));
            told = true;
        }
        let state: Option<(Checkpoint, u64)> = Some((checkpoint, replaying));
        if state != moved.1 {
            moved = (Instant::now(), state);
        } else if moved.0.elapsed() > STUCK_AFTER {
            return Err(ReattributeError::Stuck(STUCK_AFTER.as_secs()));
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

/// The number of the record that will come next.
async fn end_of_log(folder: &Folder, wal_dir: &Path) -> Result<u64, ReattributeError> {
    let deadline = Instant::now() + RESTLESS_MAX;
    loop {
        let position = folder.load_checkpoint()?.position;
        let read = || {
            let mut reader = Reader::open(wal_dir, position)?;
            let mut end = position.lsn;
            while let Some(entry) = reader.next()? {
                end = entry.lsn + 1;
            }
            Ok(end)
        };
        match read() {
            Ok(end) => return Ok(end),
            Err(error) if Instant::now() > deadline => return Err(ReattributeError::Log(error)),
            // A segment may have been given up, or a block half written, while it was read.
            Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
        }
    }
}
