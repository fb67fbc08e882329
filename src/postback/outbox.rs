//! The outbox on disk: what waits, by conversion and by when it is due, and what is still to be logged.
//!
//! One file of an embedded store with transactions that are durable when they return. Memory is bounded by the store's
//! cache, however much waits. It is not the truth about conversions, only about what must still be said of them.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
};

use super::{
    entry::Entry,
    log::{LogLine, Logged},
};
use crate::core::{BatchId, ConversionId, GoalId, UnixMillis};

/// Entries by conversion: of those that come again the last one counts.
const ENTRIES: TableDefinition<u128, &[u8]> = TableDefinition::new("entries");
/// Goal, when due, conversion: the order in which a goal's entries leave.
const DUE: TableDefinition<(u32, i64, u128), ()> = TableDefinition::new("due");
/// Attempts that ClickHouse does not have yet.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// Up to this size every page is checked when the file is opened: a fraction of a second.
const CHECKED_BYTES_MAX: u64 = 64 << 20;
/// Memory for pages.
const CACHE_BYTES: usize = 32 << 20;
/// Entries of batches that do not count yet that are passed over in one look: a whole batch may stand first.
const WAITING_MAX: usize = 1000;
/// Entries that are passed over in the search of the oldest.
const PASSED_OVER_MAX: usize = 1000;
/// Lines of the log that may wait; more are counted and not kept.
const LOG_LINES_MAX: u64 = 500_000;

/// The outbox can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the outbox can't be used: {0}")]
pub struct OutboxError(#[from] redb::Error);

/// The store has an error type for every step.
macro_rules! from_redb {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for OutboxError {
            fn from(error: redb::$error) -> Self {
                Self(error.into())
            }
        })*
    };
}
impl OutboxError {
    /// Whether another process has the outbox open.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self.0, redb::Error::DatabaseAlreadyOpen)
    }
}

from_redb! { DatabaseError TransactionError TableError StorageError CommitError }

impl From<std::io::Error> for OutboxError {
    fn from(error: std::io::Error) -> Self {
        Self(redb::Error::Io(error))
    }
}

/// What becomes of an entry after an attempt.
#[derive(Clone, Debug)]
pub(super) enum After {
    /// It is done with: delivered, or given up.
    Done,
    /// It waits for another attempt.
    Waits(Entry),
    /// It was dropped while the attempt was on its way.
    Forgotten,
}

/// An attempt whose outcome is to be kept.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) after: After,
    pub(super) line: LogLine,
}

impl Outcome {
    /// Of a conversion whose person is erased: nobody is told any more, and nothing of the answer is kept.
    pub(super) fn forget(&mut self) {
        self.after = After::Forgotten;
        self.line.0.next_attempt_at = None;
        self.line.0.answer.clear();
    }
}

/// What was found of conversions that are forgotten.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Entries that are dropped, by goal.
    pub(super) withdrawn: HashMap<GoalId, u64>,
    /// Lines of the log whose answers are blanked.
    pub(super) blanked: u64,
}

/// Entries that are due, and when the next one is.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) entries: Vec<Entry>,
    /// The next one that is not due yet.
    pub(super) next: Option<UnixMillis>,
}

/// The open outbox.
pub struct Outbox {
    store: Database,
}

impl Outbox {
    /// Opens the file, or makes it, for the owner alone. After a kill this reads it through once.
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let bytes = file.metadata()?.len();
        let mut store = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(redb::backends::FileBackend::new(file)?)?;
        // A page that is damaged is an error now and not when its webhook is due. A large file takes too long for a start.
        if bytes <= CHECKED_BYTES_MAX {
            store.check_integrity()?;
        }
        let change = store.begin_write()?;
        change.open_table(ENTRIES)?;
        change.open_table(DUE)?;
        change.open_table(LOG)?;
        change.commit()?;
        Ok(Self { store })
    }

    /// How many entries each goal has.
    pub(super) fn goals(&self) -> Result<HashMap<GoalId, u64>, OutboxError> {
        let due = self.store.begin_read()?.open_table(DUE)?;
        let mut goals = HashMap::new();
        for item in due.iter()? {
            let (goal, _, _) = item?.0.value();
            *goals.entry(GoalId(goal)).or_default() += 1;
        }
        Ok(goals)
    }

    /// Lays entries down, durably; one of the same conversion is replaced. Says how many are new, by goal.
    pub(super) fn put(&self, entries: &[Entry]) -> Result<HashMap<GoalId, u64>, OutboxError> {
        let mut added = HashMap::new();
        let change = self.store.begin_write()?;
        {
            let mut by_id = change.open_table(ENTRIES)?;
            let mut by_due = change.open_table(DUE)?;
            for entry in entries {
                let (key, goal) = (entry.key(), entry.event.goal_id);
                let old = by_id.insert(key, entry.encode().as_slice())?;
                match old.and_then(|old| Entry::decode(old.value()).ok()) {
                    Some(old) => {
                        by_due.remove((old.event.goal_id.0, old.due.0, key))?;
                    }
                    None => *added.entry(goal).or_default() += 1,
                }
                by_due.insert((goal.0, entry.due.0, key), ())?;
            }
        }
        change.commit()?;
        Ok(added)
    }

    /// Up to `limit` entries of a goal that are due, oldest first, without those in `skip` and those of batches that do
    /// not count yet.
    pub(super) fn due(
        &self,
        goal: GoalId,
        now: UnixMillis,
        settled: BatchId,
        skip: &HashSet<ConversionId>,
        limit: usize,
    ) -> Result<Due, OutboxError> {
        let read = self.store.begin_read()?;
        let (by_id, by_due) = (read.open_table(ENTRIES)?, read.open_table(DUE)?);
        let (mut found, mut waiting) = (Due::default(), 0);
        for item in by_due.range((goal.0, i64::MIN, 0)..=(goal.0, i64::MAX, u128::MAX))? {
            let (_, at, key) = item?.0.value();
            if at > now.0 {
                found.next = Some(UnixMillis(at));
                break;
            }
            if skip.contains(&ConversionId(uuid::Uuid::from_u128(key))) {
                continue;
            }
            if found.entries.len() >= limit {
                found.next = Some(now);
                break;
            }
            let Some(bytes) = by_id.get(key)? else { continue };
            match Entry::decode(bytes.value()) {
                // Its release wakes the courier.
                Ok(entry) if entry.batch > settled => {
                    waiting += 1;
                    if waiting > WAITING_MAX {
                        break;
                    }
                }
                Ok(entry) => found.entries.push(entry),
                Err(_) => tracing::error!(goal = goal.0, "an entry of the outbox can't be read; it stays"),
            }
        }
        Ok(found)
    }

    /// Keeps what came of attempts, durably and all at once. Says how many lines of the log there was no room for.
    pub(super) fn keep(&self, outcomes: &[Outcome]) -> Result<u64, OutboxError> {
        let mut unlogged = 0;
        let change = self.store.begin_write()?;
        {
            let mut by_id = change.open_table(ENTRIES)?;
            let mut by_due = change.open_table(DUE)?;
            let mut log = change.open_table(LOG)?;
            let mut number = log.last()?.map_or(0, |(number, _)| number.value() + 1);
            let mut lines = log.len()?;
            for outcome in outcomes {
                let key = outcome.line.0.conversion_id.0.as_u128();
                // What is there may have been queued anew meanwhile.
                let old = by_id.remove(key)?.and_then(|old| Entry::decode(old.value()).ok());
                if let Some(old) = old {
                    by_due.remove((old.event.goal_id.0, old.due.0, key))?;
                }
                if let After::Waits(entry) = &outcome.after {
                    by_id.insert(key, entry.encode().as_slice())?;
                    by_due.insert((entry.event.goal_id.0, entry.due.0, key), ())?;
                }
                if lines < LOG_LINES_MAX {
                    log.insert(number, outcome.line.encode().as_slice())?;
                    (number, lines) = (number + 1, lines + 1);
                } else {
                    unlogged += 1;
                }
            }
        }
        change.commit()?;
        Ok(unlogged)
    }

    /// Drops up to `limit` entries of a goal that nobody is to be told of any more. Says how many.
    pub(super) fn withdraw(&self, goal: GoalId, limit: usize) -> Result<u64, OutboxError> {
        let mut dropped = 0;
        let change = self.store.begin_write()?;
        {
            let mut by_id = change.open_table(ENTRIES)?;
            let mut by_due = change.open_table(DUE)?;
            let range = (goal.0, i64::MIN, 0)..=(goal.0, i64::MAX, u128::MAX);
            let keys: Vec<_> = by_due
                .range(range)?
                .take(limit)
                .map(|item| item.map(|(key, _)| key.value()))
                .collect::<Result<_, _>>()?;
            for key in keys {
                by_due.remove(key)?;
                by_id.remove(key.2)?;
                dropped += 1;
            }
        }
        change.commit()?;
        Ok(dropped)
    }

    /// Drops the entries of these conversions, and blanks what was answered to them.
    pub(super) fn forget(&self, conversions: &HashSet<ConversionId>) -> Result<Found, OutboxError> {
        let mut found = Found::default();
        let change = self.store.begin_write()?;
        {
            let mut by_id = change.open_table(ENTRIES)?;
            let mut by_due = change.open_table(DUE)?;
            for conversion in conversions {
                let key = conversion.0.as_u128();
                let entry = by_id.remove(key)?.and_then(|bytes| Entry::decode(bytes.value()).ok());
                if let Some(entry) = entry {
                    by_due.remove((entry.event.goal_id.0, entry.due.0, key))?;
                    *found.withdrawn.entry(entry.event.goal_id).or_default() += 1;
                }
            }
            let mut log = change.open_table(LOG)?;
            let mut blank = Vec::new();
            for item in log.iter()? {
                let (number, bytes) = item?;
                if let Some(mut line) = LogLine::decode(bytes.value())
                    && conversions.contains(&line.0.conversion_id)
                    && !line.0.answer.is_empty()
                {
                    line.0.answer.clear();
                    blank.push((number.value(), line));
                }
            }
            for (number, line) in &blank {
                log.insert(*number, line.encode().as_slice())?;
            }
            found.blanked = blank.len() as u64;
        }
        change.commit()?;
        Ok(found)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> Result<u64, OutboxError> {
        Ok(self.store.begin_read()?.open_table(ENTRIES)?.len()?)
    }

    /// When the oldest conversion came whose postback waits, but for goals that are passed over.
    pub(super) fn oldest(
        &self,
        passed_over: impl Fn(GoalId) -> bool,
    ) -> Result<Option<UnixMillis>, OutboxError> {
        let entries = self.store.begin_read()?.open_table(ENTRIES)?;
        for item in entries.iter()?.take(PASSED_OVER_MAX) {
            let (key, bytes) = item?;
            if !Entry::decode(bytes.value()).is_ok_and(|entry| passed_over(entry.event.goal_id)) {
                return Ok(Some(ConversionId(uuid::Uuid::from_u128(key.value())).made_at()));
            }
        }
        Ok(None)
    }

    /// The oldest lines of the log, and the number of the last of them.
    pub(super) fn log_lines(&self, limit: usize) -> Result<Logged, OutboxError> {
        let log = self.store.begin_read()?.open_table(LOG)?;
        let mut found = Logged::default();
        for item in log.iter()?.take(limit) {
            let (number, bytes) = item?;
            found.last = number.value();
            if let Some(line) = LogLine::decode(bytes.value()) {
                found.lines.push(line.0);
            } else {
                tracing::error!("a line of the log of deliveries can't be read; it is dropped");
            }
        }
        Ok(found)
    }

    /// Drops the lines of the log up to that number.
    pub(super) fn drop_log_lines(&self, last: u64) -> Result<(), OutboxError> {
        let change = self.store.begin_write()?;
        change.open_table(LOG)?.retain_in(..=last, |_, _| false)?;
        change.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::webhook::{Event, sample};

    fn entry(number: u128, goal: u32, due: i64, batch: u64) -> Entry {
        let event = Event {
            conversion_id: ConversionId(uuid::Uuid::from_u128(number)),
            goal_id: GoalId(goal),
            ..sample()
        };
        Entry::new(event, BatchId(batch), UnixMillis(due))
    }

    fn keys(due: &Due) -> Vec<u128> {
        due.entries.iter().map(Entry::key).collect()
    }

    #[test]
    fn entries_leave_in_order_once_their_batch_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("outbox");
        let outbox = Outbox::open(&path).expect("made");
        let entries = [entry(3, 1, 10, 5), entry(2, 1, 20, 6), entry(1, 1, 99, 5), entry(4, 2, 1, 5)];
        assert_eq!(outbox.put(&entries).expect("kept"), HashMap::from([(GoalId(1), 3), (GoalId(2), 1)]));
        assert_eq!(outbox.put(&entries).expect("kept"), HashMap::new(), "the same names");
        drop(outbox);

        let outbox = Outbox::open(&path).expect("there");
        assert_eq!(outbox.goals().expect("read"), HashMap::from([(GoalId(1), 3), (GoalId(2), 1)]));
        let oldest = |over: u32| outbox.oldest(|goal| goal.0 == over).expect("read").expect("one");
        let made_at = |number| ConversionId(uuid::Uuid::from_u128(number)).made_at();
        assert_eq!((oldest(9), oldest(1)), (made_at(1), made_at(4)));
        let none = HashSet::new();
        let due = |settled, skip: &HashSet<ConversionId>, limit| {
            outbox.due(GoalId(1), UnixMillis(50), BatchId(settled), skip, limit).expect("read")
        };
        assert_eq!(keys(&due(4, &none, 9)), [] as [u128; 0], "nothing counts yet");
        assert_eq!(keys(&due(5, &none, 9)), [3]);
        let all = due(6, &none, 9);
        assert_eq!((keys(&all), all.next), (vec![3, 2], Some(UnixMillis(99))));
        assert_eq!(keys(&due(6, &HashSet::from([ConversionId(uuid::Uuid::from_u128(3))]), 9)), [2]);
        let first = due(6, &none, 1);
        assert_eq!((keys(&first), first.next), (vec![3], Some(UnixMillis(50))), "more are due");
    }

    /// An attempt's line, with an answer.
    fn line(entry: &Entry) -> LogLine {
        let mut line = crate::postback::log::tests::delivery(entry.key());
        (line.conversion_id, line.answer) = (entry.event.conversion_id, "ok".into());
        LogLine(line)
    }

    #[test]
    fn what_is_forgotten_leaves_no_trace_but_that_it_was_tried() {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = Outbox::open(&folder.path().join("outbox")).expect("made");
        let (mine, other) = (entry(1, 1, 10, 0), entry(2, 1, 10, 0));
        outbox.put(&[mine.clone(), other.clone()]).expect("kept");
        let outcomes = [&mine, &other].map(|entry| Outcome {
            after: After::Waits(Entry { attempts: 1, ..entry.clone() }),
            line: line(entry),
        });
        outbox.keep(&outcomes).expect("kept");
        let ids = HashSet::from([mine.event.conversion_id, ConversionId(uuid::Uuid::from_u128(99))]);
        let found = outbox.forget(&ids).expect("forgotten");
        assert_eq!((found.withdrawn, found.blanked), (HashMap::from([(GoalId(1), 1)]), 1));
        let due = outbox.due(GoalId(1), UnixMillis(50), BatchId(0), &HashSet::new(), 9).expect("read");
        assert_eq!(keys(&due), [2], "the other one waits on");
        let lines = outbox.log_lines(9).expect("read").lines;
        let answers: Vec<_> = lines.iter().map(|line| (line.conversion_id, line.answer.as_str())).collect();
        assert_eq!(answers, [(mine.event.conversion_id, ""), (other.event.conversion_id, "ok")]);
        let again = outbox.forget(&ids).expect("forgotten");
        assert_eq!((again.withdrawn.len(), again.blanked), (0, 0));
    }

    #[test]
    fn outcomes_and_their_lines_are_one_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = Outbox::open(&folder.path().join("outbox")).expect("made");
        let (done, again) = (entry(1, 1, 10, 0), entry(2, 1, 10, 0));
        outbox.put(&[done.clone(), again.clone()]).expect("kept");
        // Queued anew while it was on its way: the old place in the order goes too.
        outbox.put(&[entry(1, 1, 30, 0)]).expect("kept");
        let later = Entry { attempts: 1, due: UnixMillis(500), ..again.clone() };
        let outcomes = [
            Outcome { after: After::Done, line: line(&done) },
            Outcome { after: After::Waits(later.clone()), line: line(&again) },
        ];
        assert_eq!(outbox.keep(&outcomes).expect("kept"), 0);
        assert_eq!(outbox.len().expect("read"), 1);
        let due = outbox.due(GoalId(1), UnixMillis(500), BatchId(0), &HashSet::new(), 9).expect("read");
        assert_eq!(due.entries, [later]);
        let logged = outbox.log_lines(9).expect("read");
        assert_eq!((logged.lines.len(), logged.last), (2, 1));
        outbox.drop_log_lines(0).expect("dropped");
        assert_eq!(outbox.log_lines(9).expect("read").lines.len(), 1);
        assert_eq!(outbox.withdraw(GoalId(1), 9).expect("dropped"), 1);
        assert_eq!((outbox.len().expect("read"), outbox.oldest(|_| false).expect("read")), (0, None));
    }
}
