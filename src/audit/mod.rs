//! Whether everything that was acknowledged is accounted for: accepted = inserted + duplicate + dead-lettered + pending
//! for conversions, clicks and adjustments each, and whether SQL and the running daemon say the same.
//!
//! Reads the data folder, ClickHouse and a daemon's metrics, changes nothing, needs no daemon, and may run beside one.
//! Beside one, the batches up to the checkpoint's last settled one no longer change, so their rows are compared exactly;
//! what is in motion (the checkpoint's files, hours that are being written, metrics) is looked at again until it agrees or
//! time is up.

mod books;
mod daemon;
mod report;

use std::{path::Path, time::Duration};

use tokio::time::Instant;

pub use self::{
    books::Books,
    daemon::{DaemonSays, OpsAddress, OpsAddressError},
    report::{Audit, Check},
};
use crate::{
    clickhouse::{Database, Failure},
    shipper::{CutError, FolderError},
    wal::{self, ReadError},
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
    /// The log's folder.
    #[error("the log's folder can't be listed: {0}")]
    LogFolder(std::io::Error),
    /// The log would stop a start.
    #[error(transparent)]
    LogDamaged(#[from] wal::OpenError),
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

/// What is audited.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The data folder.
    pub data_dir: &'a Path,
    /// The log's folder.
    pub wal_dir: &'a Path,
    /// The size of its segments.
    pub segment_bytes: u64,
    /// The database that it ships to.
    pub database: &'a Database,
    /// Where the daemon that runs on the folder tells its metrics; none: no daemon runs.
    pub ops: Option<&'a OpsAddress>,
}

/// Audits a data folder, the database that it ships to, and the daemon that runs on it.
pub async fn audit(subject: Subject<'_>) -> Result<Audit, AuditError> {
    let Subject { data_dir, wal_dir, segment_bytes, database, ops } = subject;
    let deadline = Instant::now() + SETTLE_WITHIN;
    let books = still_books(data_dir, wal_dir, deadline).await?;
    // A daemon that runs has looked; what it is writing is no damage.
    let torn = match ops {
        None if wal_dir.exists() => wal::check(wal_dir, segment_bytes, books.checkpoint.position)?,
        _ => None,
    };
    let tables = database.count_tables(books.checkpoint.settled).await?;
    let mut groups_off = database.groups_off().await?;
    // A daemon that is shipping makes an hour differ for as long as an insert takes.
    while !groups_off.is_empty() && !books.is_quiet(data_dir) && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        groups_off = database.groups_off().await?;
    }
    let daemon = match ops {
        None => DaemonSays::NotRunning,
        Some(ops) => {
            let mut before = books.clone();
            loop {
                let metrics = daemon::metrics(ops).await;
                let after = still_books(data_dir, wal_dir, deadline).await?;
                let says = DaemonSays::new(metrics, &before, &after);
                if says.holds() || Instant::now() > deadline {
                    break says;
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                before = after;
            }
        }
    };
    Ok(Audit::new(&books, tables, groups_off, daemon).with_torn(torn))
}

/// The books as of one moment.
async fn still_books(data_dir: &Path, wal_dir: &Path, deadline: Instant) -> Result<Books, AuditError> {
    loop {
        match Books::read(data_dir, wal_dir) {
            Ok(Some(books)) => return Ok(books),
            Err(error) if Instant::now() > deadline => return Err(error),
            Ok(None) if Instant::now() > deadline => return Err(AuditError::Restless),
            // A segment may have been given up, or a block half written, while it was read.
            Ok(None) | Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
        }
    }
}
