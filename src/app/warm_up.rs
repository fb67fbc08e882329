//! The filter's life between starts: restored from its snapshot, completed from ClickHouse, saved again.
//!
//! A snapshot names the last batch that was settled before it was taken: the filter gets a key when its batch is
//! settled, so every key of that batch and of those before it is in. What is missing are the keys of later batches; those
//! that are not settled are read back from the log.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    clickhouse::Database,
    core::BatchId,
    dedup::{Dedup, Filter},
    durable_file,
    wal::Ticket,
};

const FILE_NAME: &str = "filter.snapshot";
/// How long until a database that could not be read is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What a start begins with.
pub(super) struct Restored {
    /// The filter of the snapshot, or an empty one.
    pub(super) filter: Filter,
    /// Batches up to this one are in it; 0: none.
    pub(super) through: BatchId,
}

/// Reads the snapshot. Without one, or with a broken one, the filter is built from ClickHouse: slower, never wrong.
pub(super) fn restore(data_dir: &Path, settled: BatchId) -> Restored {
    let empty = || Restored { filter: Filter::with_capacity(0), through: BatchId(0) };
    let Ok(bytes) = std::fs::read(data_dir.join(FILE_NAME)) else { return empty() };
    let Some((through, bytes)) = bytes.split_first_chunk::<8>() else { return empty() };
    let through = BatchId(u64::from_le_bytes(*through));
    match Filter::restore(bytes) {
        // A snapshot of the future belongs to another checkpoint: a backup was restored in part.
        Ok(filter) if through <= settled => Restored { filter, through },
        _ => {
            tracing::warn!("the snapshot of the filter can't be used; it is built from ClickHouse");
            empty()
        }
    }
}

impl Restored {
    /// Whether nothing is missing: ClickHouse need not be asked. Of a folder that has settled nothing yet that is only
    /// true if its ClickHouse is as new as itself; another one may hold keys from before.
    pub(super) fn is_complete(&self, settled: BatchId, new_database: bool) -> bool {
        self.through == settled && (settled > BatchId(0) || new_database)
    }
}

/// Completes the filter from ClickHouse, however long that takes; until then every key counts as 'maybe'.
pub(super) async fn complete(dedup: Arc<Dedup<Ticket>>, database: Database, through: BatchId) {
    if dedup.is_warm() {
        return;
    }
    while let Err(failure) = read_keys(&dedup, &database, through).await {
        tracing::warn!(%failure, "the filter can't be built yet; trying again");
        tokio::time::sleep(RETRY_AFTER).await;
    }
    dedup.set_warm();
    tracing::info!(keys = dedup.filter().stats().keys, "the filter is warm");
}

/// Saves the filter; batches up to `settled` are in it. Losing the snapshot costs time at the next start, nothing else.
pub(super) fn save(data_dir: &Path, dedup: &Dedup<Ticket>, settled: BatchId) {
    if !dedup.is_warm() {
        return;
    }
    let mut bytes = settled.0.to_le_bytes().to_vec();
    bytes.append(&mut dedup.filter().snapshot());
    if let Err(error) = durable_file::replace(&data_dir.join(FILE_NAME), &bytes) {
        tracing::warn!(%error, "the snapshot of the filter could not be written");
    }
}

async fn read_keys(
    dedup: &Dedup<Ticket>,
    database: &Database,
    through: BatchId,
) -> Result<(), crate::clickhouse::Failure> {
    let filter = dedup.filter();
    if through == BatchId(0) {
        filter.reserve(database.count_order_keys().await?);
    }
    database.scan_keys_after(through, |key| filter.insert(key)).await?;
    Ok(())
}
