//! Few tables instead of many: neighbours merged into one, on a thread of its own.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::{
    PastClicksError,
    entry::Entry,
    manifest::TableSpan,
    table::{Table, TableWriter},
};
use crate::tasks;

const NAME: &str = "past-clicks";

/// A table with what it finds.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) table: Table,
    pub(super) span: TableSpan,
}

/// So many times as large as all newer ones together a table stays: a look-up asks few tables, and an entry is written
/// anew only a few times while the number of clicks grows tenfold.
const RATIO: u64 = 3;

/// Which of the tables, oldest first, are merged next: these and all newer ones.
pub(super) fn due(entries: &[u64]) -> Option<usize> {
    let newer = |from: usize| entries[from + 1..].iter().sum::<u64>();
    (0..entries.len().saturating_sub(1)).find(|&from| entries[from] < RATIO * newer(from))
}

type Merged = Result<Option<Table>, PastClicksError>;

/// A merge on its way.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) span: TableSpan,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Merged, tasks::Panicked>>>,
}

impl Merging {
    /// Begins to merge neighbouring tables into one in `folder`, without the entries of records that are not in `live`.
    pub(super) fn start(
        runs: Vec<Arc<Run>>,
        live: Vec<Range<u64>>,
        folder: &Path,
        span: TableSpan,
    ) -> Result<Self, PastClicksError> {
        let path = folder.join(span.file_name());
        let (stop, failed) = (Arc::new(AtomicBool::new(false)), PastClicksError::io(&path));
        let stopped = stop.clone();
        let merge = move || merge(&runs, &live, &path, &stopped);
        let thread = tasks::spawn_isolated_thread(NAME, merge).map_err(failed)?;
        Ok(Self { span, stop, thread: Some(thread) })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the table; none: its thread panicked, which is logged. The index is then built anew from ClickHouse, so
    /// that a defect here keeps no daemon from starting.
    pub(super) fn wait(mut self) -> Result<Option<Table>, PastClicksError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Ok(outcome))) => outcome,
            Some(Ok(Err(tasks::Panicked)) | Err(_)) | None => Ok(None),
        }
    }
}

/// Given up, it stops at once: its file may be written by somebody else soon.
impl Drop for Merging {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `None`: told to stop.
fn merge(
    runs: &[Arc<Run>],
    live: &[Range<u64>],
    path: &Path,
    stopped: &AtomicBool,
) -> Result<Option<Table>, PastClicksError> {
    let mut writer = TableWriter::create(path, runs.iter().map(|run| run.table.entries()).sum())?;
    let mut scans: Vec<_> = runs.iter().map(|run| run.table.scan()).collect();
    let mut heads = Vec::with_capacity(scans.len());
    for scan in &mut scans {
        heads.push(scan.next().transpose()?);
    }
    let is_live = |entry: &Entry| {
        let offset = entry.place.offset();
        let after = live.partition_point(|range| range.start <= offset);
        after > 0 && live[after - 1].contains(&offset)
    };
    while let Some((n, least)) =
        heads.iter().enumerate().filter_map(|(n, head)| Some((n, (*head)?))).min_by_key(|(_, head)| *head)
    {
        if stopped.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if is_live(&least) {
            writer.push(least)?;
        }
        heads[n] = scans[n].next().transpose()?;
    }
    writer.finish().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_few_and_are_written_seldom() {
        const FLUSHES: u64 = 1000;
        let (mut tables, mut written, mut most) = (Vec::new(), 0u64, 0);
        for _ in 0..FLUSHES {
            tables.push(1);
            if let Some(from) = due(&tables) {
                let merged = tables.drain(from..).sum();
                written += merged;
                tables.push(merged);
            }
            most = most.max(tables.len());
        }
        assert_eq!(tables.iter().sum::<u64>(), FLUSHES);
        assert!(most <= 6, "{most} tables");
        assert!(written < 13 * FLUSHES, "each entry {} times", written / FLUSHES);
    }
}
