//! The ledger: what was sent and what was promised in return, one line a hit, in the order of the answers.
//!
//! A file's line is `goal id, order id, click id, kind, outcome, status, conversion id, duplicate`, separated by tabs,
//! `-` for nothing. It is appended through a buffer: the ledger must outlive the daemon, not the load client.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::generator::{Fault, HitKind};
use crate::text::ShortText;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx: the server has taken the hit over.
    Acked {
        /// 200, 201 or 202 (204 from the bare server).
        status: u16,
        /// The conversion that the answer names.
        conversion_id: Option<ShortText>,
        /// Whether it calls the hit a duplicate; `None` is `null`, or not said.
        duplicate: Option<bool>,
    },
    /// Any other status: the server has not taken it over.
    Refused {
        /// The status.
        status: u16,
    },
    /// The connection was lost before the answer: the hit may or may not have been accepted.
    Unknown,
    /// It never left the client.
    NotSent,
}

/// One hit and its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The goal; 0 if only its token is known.
    pub goal_id: u64,
    /// The order id that was sent, if any.
    pub order_id: Option<ShortText>,
    /// The click that a conversion names, or a click's own number.
    pub click_id: Option<u64>,
    /// What the sender knew about the hit.
    pub kind: HitKind,
    /// How it ended.
    pub outcome: Outcome,
}

/// Why a ledger could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing the file failed.
    #[error("the ledger's file: {0}")]
    Io(#[from] io::Error),
    /// A line that no ledger wrote.
    #[error("line {line} of the ledger is not an entry: {text:?}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// Where entries go: shared by all threads of a load.
#[derive(Debug)]
pub struct Ledger {
    store: Mutex<Store>,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<Entry>),
    /// The first error is kept for `finish`: the hot path has nobody to tell.
    File(BufWriter<File>, Option<io::Error>),
}

impl Ledger {
    /// A ledger in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self { store: Mutex::new(Store::Memory(Vec::new())) }
    }

    /// A ledger in a new file (or an emptied one).
    pub fn create(path: &Path) -> Result<Self, LedgerError> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { store: Mutex::new(Store::File(file, None)) })
    }

    /// Adds `entries`.
    pub fn append(&self, entries: &[Entry]) {
        match &mut *self.lock() {
            Store::Memory(all) => all.extend_from_slice(entries),
            Store::File(file, failed) => {
                if let Some(error) = entries.iter().find_map(|entry| write_entry(file, entry).err()) {
                    failed.get_or_insert(error);
                }
            }
        }
    }

    /// What has been noted so far, if the ledger is in memory.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        match &*self.lock() {
            Store::Memory(all) => all.clone(),
            Store::File(..) => Vec::new(),
        }
    }

    /// How much has been noted so far, if the ledger is in memory.
    #[must_use]
    pub fn noted(&self) -> usize {
        match &*self.lock() {
            Store::Memory(all) => all.len(),
            Store::File(..) => 0,
        }
    }

    /// Writes out what is buffered; an earlier failure to write is reported here.
    pub fn finish(&self) -> Result<(), LedgerError> {
        match &mut *self.lock() {
            Store::Memory(_) => Ok(()),
            Store::File(file, failed) => match failed.take() {
                Some(error) => Err(error.into()),
                None => Ok(file.flush()?),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a ledger's file, entry by entry.
pub fn read(path: &Path) -> Result<impl Iterator<Item = Result<Entry, LedgerError>>, LedgerError> {
    let lines = BufReader::new(File::open(path)?).lines();
    Ok(lines.enumerate().map(|(index, line)| {
        let text = line?;
        parse_entry(&text).ok_or(LedgerError::Line { line: index + 1, text })
    }))
}

fn write_entry(file: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let text = |text: &Option<ShortText>| text.unwrap_or(DASH);
    let kind = match entry.kind {
        HitKind::New => "new",
        HitKind::Repeat => "repeat",
        HitKind::LateCopy => "late",
        HitKind::Anonymous => "anonymous",
        HitKind::Bad(Fault::Malformed) => "bad:malformed",
        HitKind::Bad(Fault::NegativeValue) => "bad:negative",
        HitKind::Bad(Fault::UnknownCurrency) => "bad:currency",
        HitKind::Bad(Fault::UnknownToken) => "bad:token",
        HitKind::Click => "click",
    };
    write!(file, "{}\t{}\t", entry.goal_id, text(&entry.order_id))?;
    match entry.click_id {
        Some(click) => write!(file, "{click}\t{kind}\t")?,
        None => write!(file, "-\t{kind}\t")?,
    }
    match &entry.outcome {
        Outcome::Acked { status, conversion_id, duplicate } => {
            let duplicate = match duplicate {
                Some(true) => "true",
                Some(false) => "false",
                None => "-",
            };
            writeln!(file, "acked\t{status}\t{}\t{duplicate}", text(conversion_id))
        }
        Outcome::Refused { status } => writeln!(file, "refused\t{status}\t-\t-"),
        Outcome::Unknown => writeln!(file, "unknown\t-\t-\t-"),
        Outcome::NotSent => writeln!(file, "not-sent\t-\t-\t-"),
    }
}

const DASH: ShortText = ShortText::dash();

fn parse_entry(line: &str) -> Option<Entry> {
    let mut fields = line.split('\t');
    let mut field = || fields.next();
    let text = |text: &str| match text {
        "-" => Some(None),
        text => ShortText::from_bytes(text.as_bytes()).map(Some),
    };
    let goal_id = field()?.parse().ok()?;
    let order_id = text(field()?)?;
    let click_id = match field()? {
        "-" => None,
        click => Some(click.parse().ok()?),
    };
    let kind = match field()? {
        "new" => HitKind::New,
        "repeat" => HitKind::Repeat,
        "late" => HitKind::LateCopy,
        "anonymous" => HitKind::Anonymous,
        "bad:malformed" => HitKind::Bad(Fault::Malformed),
        "bad:negative" => HitKind::Bad(Fault::NegativeValue),
        "bad:currency" => HitKind::Bad(Fault::UnknownCurrency),
        "bad:token" => HitKind::Bad(Fault::UnknownToken),
        "click" => HitKind::Click,
        _ => return None,
    };
    let (outcome, status, conversion_id, duplicate) = (field()?, field()?, text(field()?)?, field()?);
    let outcome = match outcome {
        "acked" => {
            let duplicate = match duplicate {
                "true" => Some(true),
                "false" => Some(false),
                "-" => None,
                _ => return None,
            };
            Outcome::Acked { status: status.parse().ok()?, conversion_id, duplicate }
        }
        "refused" => Outcome::Refused { status: status.parse().ok()? },
        "unknown" => Outcome::Unknown,
        "not-sent" => Outcome::NotSent,
        _ => return None,
    };
    field().is_none().then_some(Entry { goal_id, order_id, click_id, kind, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let text = |text: &str| ShortText::from_bytes(text.as_bytes());
        let acked = |status, duplicate| Outcome::Acked { status, conversion_id: text("c-1"), duplicate };
        let entry =
            |kind, outcome| Entry { goal_id: 3, order_id: text("ORDER-1"), click_id: None, kind, outcome };
        vec![
            entry(HitKind::New, acked(201, Some(false))),
            entry(HitKind::Repeat, acked(200, Some(true))),
            entry(HitKind::LateCopy, acked(202, None)),
            entry(HitKind::Bad(Fault::Malformed), Outcome::Refused { status: 400 }),
            entry(HitKind::Bad(Fault::UnknownToken), Outcome::Refused { status: 404 }),
            entry(HitKind::New, Outcome::Unknown),
            entry(HitKind::New, Outcome::NotSent),
            Entry { order_id: None, ..entry(HitKind::Anonymous, acked(201, Some(false))) },
            Entry { click_id: Some(1 << 52), ..entry(HitKind::New, Outcome::Unknown) },
            Entry { order_id: None, click_id: Some(7), ..entry(HitKind::Click, Outcome::Unknown) },
        ]
    }

    #[test]
    fn a_file_gives_back_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = Ledger::create(&path).unwrap();
        ledger.append(&entries());
        ledger.finish().unwrap();
        let back: Vec<Entry> = read(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(back, entries());
    }

    #[test]
    fn memory_keeps_the_order() {
        let ledger = Ledger::memory();
        ledger.append(&entries()[..2]);
        ledger.append(&entries()[2..]);
        assert_eq!(ledger.entries(), entries());
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        std::fs::write(&path, "1\t-\t-\tanonymous\tunknown\t-\t-\t-\n1\tORD").unwrap();
        let results: Vec<_> = read(&path).unwrap().collect();
        assert!(results[0].is_ok());
        assert!(matches!(results[1], Err(LedgerError::Line { line: 2, .. })));
    }
}
