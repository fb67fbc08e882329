//! Reads ahead of the batches: the clicks behind a batch that a conversion in it may still owe itself to.

use std::collections::HashSet;

use crate::{
    core::{AccountId, Click, ClickId, Record, UnixMillis, payload},
    shipper::ShipError,
    wal::{Position, Reader, Wal},
};

/// Clicks that are handed over at a time.
const CLICKS_MAX: usize = 10_000;
/// By how much the order of the log and that of arrival may differ: a step of the system's clock.
const DISORDER_MILLIS: i64 = 5000;

/// A reader of its own, which goes on where it stopped.
#[derive(Default)]
pub(super) struct LookAhead {
    reader: Option<Reader>,
}

impl std::fmt::Debug for LookAhead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookAhead").field("at", &self.reader.as_ref().map(Reader::position)).finish()
    }
}

/// Some clicks, each with the position that follows it.
pub(super) struct Ahead {
    pub(super) clicks: Vec<(Click, u64)>,
    /// There may be more.
    pub(super) more: bool,
}

/// Those of the numbers that were issued to a click which stands at or after `from` and was accepted up to `until`.
pub(super) fn issued(
    wal: &Wal,
    from: Position,
    until: UnixMillis,
    numbers: &HashSet<(AccountId, ClickId)>,
) -> Result<HashSet<(AccountId, ClickId)>, ShipError> {
    let mut issued = HashSet::new();
    let mut reader = LookAhead::default();
    let mut more = !numbers.is_empty();
    while more {
        let ahead = reader.read(wal, from, until)?;
        let keyless = ahead.clicks.iter().map(|(click, _)| click).filter(|click| click.key.is_none());
        issued.extend(keyless.map(|click| (click.account_id, click.id)).filter(|of| numbers.contains(of)));
        more = ahead.more;
    }
    Ok(issued)
}

impl LookAhead {
    /// The next clicks at or after `from` that were accepted up to `until`, as far as the log is durable. Everything
    /// else is skipped without being decoded.
    pub(super) fn read(&mut self, wal: &Wal, from: Position, until: UnixMillis) -> Result<Ahead, ShipError> {
        self.reader = self.reader.take().filter(|reader| reader.position().lsn >= from.lsn);
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(wal.reader(from)?),
        };
        let mut clicks = Vec::new();
        while let Some(entry) = reader.next()? {
            if !payload::is_click(entry.payload) {
                continue;
            }
            let lsn = entry.lsn;
            let record =
                payload::decode(entry.payload).map_err(|source| ShipError::Record { lsn, source })?;
            let Record::Click(click) = record else { continue };
            let late = click.received_at > until.plus(DISORDER_MILLIS);
            clicks.push((click, lsn + 1));
            if late || clicks.len() >= CLICKS_MAX {
                return Ok(Ahead { clicks, more: !late });
            }
        }
        Ok(Ahead { clicks, more: false })
    }

    /// Reads again from the batch on, next time.
    pub(super) fn begin_anew(&mut self) {
        self.reader = None;
    }
}
