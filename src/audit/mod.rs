//! Whether every acknowledged conversion is accounted for: accepted = inserted + duplicate + dead-lettered + pending,
//! and whether SQL says the same.
//!
//! Reads the data folder and ClickHouse, changes nothing, needs no daemon, and may run beside one. Beside one, the
//! batches up to the checkpoint's last settled one no longer change, so their rows are compared exactly; what is in
//! motion (the checkpoint's files, hours that are being written) is looked at again until it agrees or time is up.

mod books;
mod report;

use std::{path::Path, time::Duration};

use tokio::time::Instant;

pub use self::{
    books::Books,
    report::{Audit, Check},
};
use crate::{
    clickhouse::{Database, Failure},
    shipper::{CutError, FolderError},
    wal::ReadError,
};

/// How long differences may be due to a batch in motion.
const SETTLE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The data folder's files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A record of the log can't be read.
    #[error("record {0} of the log can't be read by this version of tally")]
    Record(u64),
    /// A cut can't be read.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// ClickHouse.
    #[error("ClickHouse: {0}")]
    Database(#[from] Failure),
    /// The files changed every time they were looked at.
    #[error("the data folder would not hold still for {} seconds", SETTLE_WITHIN.as_secs())]
    Restless,
}

/// Audits a data folder and, if it is given, the database that it ships to.
pub async fn audit(
    data_dir: &Path,
    wal_dir: &Path,
    database: Option<&Database>,
) -> Result<Audit, AuditError> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    let books = loop {
        match Books::read(data_dir, wal_dir) {
            Ok(Some(books)) => break books,
            Err(error) if Instant::now() > deadline => return Err(error),
            Ok(None) if Instant::now() > deadline => return Err(AuditError::Restless),
            // A segment may have been given up, or a block half written, while it was read.
            Ok(None) | Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
        }
    };
    let Some(database) = database else { return Ok(Audit::new(&books, None)) };
    let tables = database.count_tables(books.checkpoint.settled).await?;
    let mut hours_off = database.hours_off().await?;
    // A daemon that is shipping makes an hour differ for as long as an insert takes.
    while !hours_off.is_empty() && !books.is_quiet(data_dir) && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        hours_off = database.hours_off().await?;
    }
    Ok(Audit::new(&books, Some((tables, hours_off))))
}
