//! The whole: taking clicks, finding them, and keeping the files few and young.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder},
    ops::Range,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    FOLDER, PastClicksError,
    chunk::{Chunk, ChunkSpan},
    clear,
    entry::{Entry, HashKey, Place},
    give_up, gone, is_void,
    manifest::{MANIFEST_FILE, Manifest, TableSpan},
    merge::{self, Merging, Run},
    recent::Recent,
    record::{self, Row, SharedLabels},
    table::{Table, TableWriter},
};
use crate::core::{BatchId, CANDIDATES_MAX, Candidate, CountedClick, UnixMillis};

/// Clicks in memory beyond which they go into a file: about 40 MB. Few under test.
const RECENT_MAX: usize = if cfg!(test) { 8 } else { 200_000 };
/// Tables beyond which nothing more is taken before a merge has ended.
const TABLES_MAX: usize = 12;

/// The clicks of a data folder. One at a time may be open.
#[derive(Debug)]
pub struct PastClicks {
    data_dir: PathBuf,
    folder: PathBuf,
    key: HashKey,
    /// As it is on disk, less what was done since.
    manifest: Manifest,
    /// Nothing is missing up to the batch that was taken last.
    complete: bool,
    taken: BatchId,
    chunks: Vec<Chunk>,
    /// Oldest first.
    runs: Vec<Arc<Run>>,
    recent: Recent,
    merging: Option<Merging>,
    next_number: u64,
    /// Clicks that were accepted before this are not found any more.
    kept_since: UnixMillis,
    reading: Reading,
}

/// What look-ups use again and again.
#[derive(Debug, Default)]
struct Reading {
    bucket: Vec<u8>,
    record: Vec<u8>,
    labels: SharedLabels,
}

impl PastClicks {
    /// Opens what the data folder has of the clicks of that table of ClickHouse; what is void, damaged or of another
    /// table is removed, and it begins empty.
    pub fn open(data_dir: &Path, origin: &str) -> Result<Self, PastClicksError> {
        let folder = data_dir.join(FOLDER);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(PastClicksError::io(&folder))?;
        if is_void(data_dir) {
            give_up(data_dir).map_err(PastClicksError::io(&folder))?;
        }
        let listed = Manifest::load(&folder).filter(|manifest| manifest.origin == origin);
        match listed.map(|manifest| Self::with(data_dir, &folder, manifest)) {
            Some(Ok(store)) => return Ok(store),
            Some(Err(error)) => tracing::warn!(%error, "the clicks in files are made anew"),
            None => {}
        }
        clear(&folder).map_err(PastClicksError::io(&folder))?;
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(std::io::Error::from).map_err(PastClicksError::io(&folder))?;
        Self::with(data_dir, &folder, Manifest::new(u128::from_le_bytes(key), origin))
    }

    fn with(data_dir: &Path, folder: &Path, manifest: Manifest) -> Result<Self, PastClicksError> {
        let damaged = || PastClicksError::Damaged { path: folder.join(MANIFEST_FILE) };
        let chunks: Vec<_> =
            manifest.chunks.iter().map(|span| Chunk::open(folder, *span)).collect::<Result<_, _>>()?;
        let mut runs = Vec::with_capacity(manifest.tables.len());
        for span in &manifest.tables {
            let table = Table::open(&folder.join(span.file_name()))?;
            runs.push(Arc::new(Run { table, span: *span }));
        }
        let end = manifest.tables.last().map_or(0, |last| last.to);
        let end = manifest.chunks.last().map_or(end, |last| last.end().max(end));
        let store = Self {
            data_dir: data_dir.to_owned(),
            folder: folder.to_owned(),
            key: HashKey(manifest.key().ok_or_else(damaged)?),
            complete: false,
            taken: BatchId(manifest.through),
            chunks,
            runs,
            recent: Recent::new(end),
            merging: None,
            next_number: manifest.tables.iter().map(|table| table.number + 1).max().unwrap_or(1),
            manifest,
            kept_since: UnixMillis(i64::MIN),
            reading: Reading::default(),
        };
        store.remove_unlisted()?;
        Ok(store)
    }

    /// The clicks of every batch up to this one are in the files. Those of later batches are missing after a start, and
    /// must be added; then it is [`Self::complete`].
    #[must_use]
    pub fn through(&self) -> BatchId {
        BatchId(self.manifest.through)
    }

    /// Whether everything that is settled can be found.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it was made void from outside: give it up.
    #[must_use]
    pub fn is_void(&self) -> bool {
        is_void(&self.data_dir)
    }

    /// Gives everything up, on disk too.
    pub fn give_up(mut self) -> Result<(), PastClicksError> {
        // It would leave a file behind.
        self.merging = None;
        give_up(&self.data_dir).map_err(PastClicksError::io(&self.folder))
    }

    /// Adds a click that is in ClickHouse, each once. It is found from the next [`Self::settled`] on.
    pub fn add(&mut self, click: &Candidate) -> Result<(), PastClicksError> {
        self.add_row(&Row::from(click))
    }

    /// Adds one as it was shipped.
    pub fn add_counted(&mut self, click: &CountedClick) -> Result<(), PastClicksError> {
        self.add_row(&Row::from(click))
    }

    fn add_row(&mut self, click: &Row<'_>) -> Result<(), PastClicksError> {
        self.recent.add(self.key, click);
        // Until everything is there nothing is listed, and the batch's other clicks may follow in another file.
        if !self.complete && self.recent.clicks >= RECENT_MAX { self.flush() } else { Ok(()) }
    }

    /// Everything that is missing has been added, as far as `settled`.
    pub fn complete(&mut self, settled: BatchId) -> Result<(), PastClicksError> {
        self.complete = true;
        self.recent.sort();
        self.taken = self.taken.max(settled);
        let listed = self.manifest.tables.last().map(|last| last.number);
        if self.runs.last().map(|last| last.span.number) == listed {
            return Ok(());
        }
        // What is in files is not listed yet.
        self.flush()?;
        self.list()
    }

    /// A batch was settled, and all of its clicks are added: the time to tidy up. Clicks that were accepted before
    /// `kept_since` go.
    pub fn settled(&mut self, batch: BatchId, kept_since: UnixMillis) -> Result<(), PastClicksError> {
        self.taken = self.taken.max(batch);
        self.kept_since = kept_since;
        self.recent.sort();
        if self.complete && self.recent.clicks >= RECENT_MAX {
            self.flush()?;
            self.list()?;
        }
        self.end_merge()?;
        self.drop_old()?;
        self.begin_merge()
    }

    pub(super) fn key(&self) -> HashKey {
        self.key
    }

    /// The entries of a hash: of files first, oldest first.
    pub(super) fn entries(&mut self, hash: u64, into: &mut Vec<Entry>) -> Result<(), PastClicksError> {
        into.clear();
        for run in &self.runs {
            run.table.find(hash, &mut self.reading.bucket, into)?;
        }
        // One more than a decision looks at tells that there are too many.
        into.extend(self.recent.entries.range(Entry::all_of(hash)).take(usize::from(CANDIDATES_MAX) + 1));
        Ok(())
    }

    /// The click at a place; none: it has outlived its time.
    pub(super) fn candidate(
        &mut self,
        place: Place,
        visitor: u64,
    ) -> Result<Option<Candidate>, PastClicksError> {
        let Reading { record, labels, .. } = &mut self.reading;
        let click = if let Some(bytes) = self.recent.record(place) {
            let damaged = |_| PastClicksError::Damaged { path: self.folder.clone() };
            record::decode(bytes, visitor, labels).map_err(damaged)?
        } else {
            let after = self.chunks.partition_point(|chunk| chunk.span.start <= place.offset());
            let chunk = after.checked_sub(1).map(|n| &self.chunks[n]);
            let Some(chunk) = chunk.filter(|chunk| chunk.span.contains(place.offset())) else {
                return Ok(None);
            };
            chunk.read(place.offset(), place.bytes(), record)?;
            record::decode(record, visitor, labels).map_err(|_| chunk.damaged())?
        };
        Ok(Some(click).filter(|click| click.received_at >= self.kept_since))
    }

    /// Writes the recent clicks into files, durable and not listed yet.
    fn flush(&mut self) -> Result<(), PastClicksError> {
        self.recent.sort();
        let recent = &self.recent;
        if recent.clicks == 0 {
            return Ok(());
        }
        if self.chunks.last().is_none_or(|last| last.span.end() != recent.start || !last.takes(recent.oldest))
        {
            self.chunks.push(Chunk::create(&self.folder, recent.start, recent.oldest)?);
        }
        if let Some(last) = self.chunks.last_mut() {
            last.append(&recent.records, recent.oldest, recent.newest)?;
        }
        let (from, to) = (recent.start, recent.end());
        let span = TableSpan { number: self.next_number, from, to, live: to - from };
        self.next_number += 1;
        let path = self.folder.join(span.file_name());
        let mut writer = TableWriter::create(&path, recent.entries.len() as u64)?;
        recent.entries.iter().try_for_each(|entry| writer.push(*entry))?;
        self.runs.push(Arc::new(Run { table: writer.finish()?, span }));
        self.recent = Recent::new(span.to);
        if self.runs.len() > TABLES_MAX {
            self.wait_for_merge()?;
        }
        self.end_merge()?;
        self.begin_merge()
    }

    /// Lists what is in files. It must be all that was taken, but for what is in memory: nothing of the batch `through`.
    fn list(&mut self) -> Result<(), PastClicksError> {
        if self.recent.clicks == 0 {
            self.manifest.through = self.taken.0;
        }
        self.manifest.chunks = self.chunks.iter().map(|chunk| chunk.span).collect();
        self.manifest.tables = self.runs.iter().map(|run| run.span).collect();
        durable(&self.folder)?;
        self.manifest.save(&self.folder)?;
        self.remove_unlisted()
    }

    fn begin_merge(&mut self) -> Result<(), PastClicksError> {
        if self.merging.is_some() {
            return Ok(());
        }
        let entries: Vec<_> = self.runs.iter().map(|run| run.table.entries()).collect();
        let of = match (merge::due(&entries), self.mostly_gone()) {
            (Some(from), _) => from..self.runs.len(),
            (None, Some(one)) => one..one + 1,
            (None, None) => return Ok(()),
        };
        let runs = self.runs[of].to_vec();
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(()) };
        let mut span = TableSpan { number: self.next_number, live: 0, ..first.span };
        self.next_number += 1;
        span.to = last.span.to;
        let live = self.live();
        span.live = overlap(&live, &span);
        self.merging = Some(Merging::start(runs, live, &self.folder, span)?);
        Ok(())
    }

    /// Takes the merged table for those that it was made of, if it is there.
    fn end_merge(&mut self) -> Result<(), PastClicksError> {
        if self.merging.as_ref().is_some_and(Merging::is_finished) { self.wait_for_merge() } else { Ok(()) }
    }

    pub(super) fn wait_for_merge(&mut self) -> Result<(), PastClicksError> {
        let Some(merging) = self.merging.take() else { return Ok(()) };
        let span = merging.span;
        let died = || PastClicksError::Damaged { path: self.folder.join(span.file_name()) };
        let table = merging.wait()?.ok_or_else(died)?;
        let replaced = |run: &Arc<Run>| span.from <= run.span.from && run.span.to <= span.to;
        let at = self.runs.iter().position(replaced).unwrap_or(self.runs.len());
        self.runs.retain(|run| !replaced(run));
        if table.entries() > 0 {
            self.runs.insert(at, Arc::new(Run { table, span }));
        }
        if self.complete { self.list() } else { self.remove_unlisted() }
    }

    /// Lets go of files whose clicks have all outlived their time.
    fn drop_old(&mut self) -> Result<(), PastClicksError> {
        if self.complete && self.chunks.iter().any(|chunk| chunk.span.newest < self.kept_since.0) {
            self.chunks.retain(|chunk| chunk.span.newest >= self.kept_since.0);
            let live = self.live();
            self.runs.retain(|run| overlap(&live, &run.span) > 0 || self.merging.is_some());
            self.list()?;
        }
        Ok(())
    }

    /// A table of whose records a quarter is gone.
    fn mostly_gone(&self) -> Option<usize> {
        let live = self.live();
        self.runs.iter().position(|run| overlap(&live, &run.span) < run.span.live / 4 * 3)
    }

    fn live(&self) -> Vec<Range<u64>> {
        self.chunks.iter().map(|chunk| chunk.span.start..chunk.span.end()).collect()
    }

    /// Removes every file that is neither listed nor in use.
    fn remove_unlisted(&self) -> Result<(), PastClicksError> {
        let failed = PastClicksError::io(&self.folder);
        let chunks = self.manifest.chunks.iter().chain(self.chunks.iter().map(|chunk| &chunk.span));
        let runs = self.runs.iter().map(|run| &run.span);
        let merging = self.merging.iter().map(|merging| &merging.span);
        let tables = self.manifest.tables.iter().chain(runs).chain(merging);
        let mut used: HashSet<_> = chunks.map(ChunkSpan::file_name).collect();
        used.extend(tables.map(TableSpan::file_name));
        used.insert(MANIFEST_FILE.to_owned());
        for file in fs::read_dir(&self.folder).map_err(&failed)? {
            let file = file.map_err(&failed)?;
            if !file.file_name().to_str().is_some_and(|name| used.contains(name)) {
                // Whoever made everything void may have been faster.
                gone(fs::remove_file(file.path())).map_err(&failed)?;
            }
        }
        Ok(())
    }
}

/// How many bytes of a table's records are there.
fn overlap(live: &[Range<u64>], span: &TableSpan) -> u64 {
    live.iter().map(|range| range.end.min(span.to).saturating_sub(range.start.max(span.from))).sum()
}

/// Makes the creation of the files in a folder durable.
fn durable(folder: &Path) -> Result<(), PastClicksError> {
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(PastClicksError::io(folder))
}
