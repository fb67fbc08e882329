//! The newest clicks, in memory, until there are enough of them for a table.

use std::collections::BTreeSet;

use super::{
    entry::{Entry, HashKey, Place},
    record::{self, Row},
};
use crate::core::Traffic;

/// Clicks whose records follow those in the files.
#[derive(Debug)]
pub(super) struct Recent {
    /// Where the first record is among all records.
    pub(super) start: u64,
    pub(super) records: Vec<u8>,
    pub(super) entries: BTreeSet<Entry>,
    /// Those that were added since [`Self::sort`], which can't be found yet.
    unsorted: Vec<Entry>,
    pub(super) clicks: usize,
    /// When the oldest was accepted,
    pub(super) oldest: i64,
    /// and the newest.
    pub(super) newest: i64,
}

impl Recent {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            records: Vec::new(),
            entries: BTreeSet::new(),
            unsorted: Vec::new(),
            clicks: 0,
            oldest: i64::MAX,
            newest: i64::MIN,
        }
    }

    pub(super) fn add(&mut self, key: HashKey, click: &Row<'_>) {
        let offset = self.end();
        let bytes = record::encode(click, &mut self.records);
        let account = click.account_id;
        let hash = key.of_click(account, click.click_id);
        self.unsorted.push(Entry { hash, place: Place::new(offset, bytes, false) });
        if click.traffic == Traffic::Human && click.visitor_key != 0 && !click.private_address {
            let hash = key.of_visitor(account, click.visitor_key);
            self.unsorted.push(Entry { hash, place: Place::new(offset, bytes, true) });
        }
        self.clicks += 1;
        self.oldest = self.oldest.min(click.received_at.0);
        self.newest = self.newest.max(click.received_at.0);
    }

    /// Makes what was added findable. In their order entries go in several times as fast as they come.
    pub(super) fn sort(&mut self) {
        self.unsorted.sort_unstable();
        self.entries.extend(self.unsorted.drain(..));
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    /// The record at a place, if it is here.
    pub(super) fn record(&self, place: Place) -> Option<&[u8]> {
        let from = usize::try_from(place.offset().checked_sub(self.start)?).ok()?;
        self.records.get(from..from + place.bytes())
    }
}
