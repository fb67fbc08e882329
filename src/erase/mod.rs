//! `tally erase`: a person's data removed from the raw tables, the log of deliveries and the outbox.
//!
//! Rows stay, so that counts, values and deduplication do; what says who somebody was goes: addresses, user agents,
//! visitors' keys, order ids, free text, what endpoints answered. Postbacks that wait are withdrawn: nobody is told of
//! the person any more. Erasing again finds nothing and does no harm. Beside a running daemon, what is
//! still on its way is counted and left: it must have arrived before it can be erased.

mod report;
mod waiting;

use std::path::Path;

pub use self::report::Report;
use crate::{
    clickhouse::{Database, Erased, Failure, Person},
    core::AccountId,
    past_clicks,
    postback::{self, ForgetError},
    shipper::{FolderError, dead_letters::DeadLetterError},
    wal::ReadError,
};

/// Why not everything could be erased. It may be done again.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// ClickHouse.
    #[error("ClickHouse: {0}")]
    Database(#[from] Failure),
    /// The data folder's files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] ForgetError),
    /// A dead letter.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The log.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The copy of the clicks in files can't be removed.
    #[error("clicks in files: {0}")]
    PastClicks(std::io::Error),
    /// A record of the log can't be read.
    #[error("record {0} of the log can't be read by this version of tally")]
    Record(u64),
}

/// Erases a person's data, in one account or in all.
pub async fn erase(
    data_dir: &Path,
    wal_dir: &Path,
    database: &Database,
    person: &Person,
    account: Option<AccountId>,
) -> Result<Report, EraseError> {
    // Looked for first: what arrives meanwhile is counted as waiting rather than missed.
    let waiting = waiting::look(data_dir, wal_dir, person, account).await?;
    let traces = database.traces(person, account).await?;
    // Before the rows by which it was found are blank: if it breaks off, it can be done again.
    let ids: Vec<_> = traces.conversions.iter().map(|(_, id)| *id).collect();
    let forgotten = postback::forget(data_dir, &ids).await?;
    let mut tables = database.erase(&traces, account).await?;
    tables.push(Erased {
        table: "outbox",
        how: "postbacks that waited withdrawn",
        rows: forgotten.withdrawn,
    });
    tables.push(Erased { table: "outbox's log", how: "endpoints' answers blanked", rows: forgotten.blanked });
    // Always: an earlier try may have broken off after the rows were gone, so that nothing is found of them any more.
    past_clicks::void(data_dir).map_err(EraseError::PastClicks)?;
    Ok(Report { conversions: traces.conversions, clicks: traces.clicks, tables, waiting })
}
