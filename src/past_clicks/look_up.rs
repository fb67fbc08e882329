//! Finding many clicks at a time: in the order of the tables, then in that of the records, so that neighbours are read
//! together and the disk is read forwards.

use super::{
    PastClicksError,
    entry::{Entry, Place},
    store::PastClicks,
};
use crate::core::{AccountId, CANDIDATES_MAX, Candidate, ClickId};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The clicks of the numbers that were asked for, each in its account. Who their visitors are, is not told.
    pub named: Vec<Candidate>,
    /// The clicks of the visitors that were asked for, as far as conversions may be matched to them.
    pub of_visitors: Vec<Candidate>,
    /// Visitors with more clicks than a decision looks at: only ClickHouse can tell the newest.
    pub crowds: Vec<(AccountId, u64)>,
}

/// A question on its way. Nothing may be added meanwhile.
#[derive(Debug)]
pub struct LookUp {
    /// By hash.
    sought: Vec<(u64, Sought)>,
    /// How many of them have been looked for.
    sought_done: usize,
    /// Where records are; by place, once all were looked for.
    places: Vec<(Place, Sought)>,
    read_done: usize,
    found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sought {
    Click(AccountId, ClickId),
    Visitor(AccountId, u64),
}

impl LookUp {
    /// Once there is nothing left to do.
    #[must_use]
    pub fn found(self) -> Found {
        self.found
    }
}

impl PastClicks {
    /// Begins to look for clicks by number and by visitor.
    #[must_use]
    pub fn look_up(&self, named: &[(AccountId, ClickId)], visitors: &[(AccountId, u64)]) -> LookUp {
        let key = self.key();
        let clicks = named.iter().map(|&(of, id)| (key.of_click(of, id), Sought::Click(of, id)));
        let visitors = visitors.iter().map(|&(of, id)| (key.of_visitor(of, id), Sought::Visitor(of, id)));
        let mut sought: Vec<_> = clicks.chain(visitors).collect();
        sought.sort_unstable_by_key(|(hash, _)| *hash);
        let places = Vec::with_capacity(sought.len());
        LookUp { sought, sought_done: 0, places, read_done: 0, found: Found::default() }
    }

    /// Goes on for at most so many reads of a table or a record. `true`: there is nothing left to do.
    pub fn proceed(&mut self, of: &mut LookUp, at_most: usize) -> Result<bool, PastClicksError> {
        if of.sought_done < of.sought.len() {
            let end = of.sought.len().min(of.sought_done + at_most);
            let mut entries = Vec::new();
            for n in of.sought_done..end {
                let (hash, sought) = of.sought[n];
                self.entries(hash, &mut entries)?;
                of.take(sought, &entries);
            }
            of.sought_done = end;
            if end == of.sought.len() {
                of.places.sort_unstable_by_key(|(place, _)| *place);
            }
            return Ok(false);
        }
        let end = of.places.len().min(of.read_done + at_most);
        for &(place, sought) in &of.places[of.read_done..end] {
            match sought {
                Sought::Click(account, id) => {
                    let click = self.candidate(place, 0)?;
                    let asked = |click: &Candidate| (click.account_id, click.click_id) == (account, id);
                    of.found.named.extend(click.filter(asked));
                }
                Sought::Visitor(account, key) => {
                    let click = self.candidate(place, key)?;
                    of.found.of_visitors.extend(click.filter(|click| click.account_id == account));
                }
            }
        }
        of.read_done = end;
        Ok(end == of.places.len())
    }
}

impl LookUp {
    fn take(&mut self, sought: Sought, entries: &[Entry]) {
        match sought {
            Sought::Visitor(account, key) if entries.len() > usize::from(CANDIDATES_MAX) => {
                self.found.crowds.push((account, key));
            }
            _ => {
                let by_visitor = matches!(sought, Sought::Visitor(..));
                let of_kind = entries.iter().filter(|entry| entry.place.is_by_visitor() == by_visitor);
                self.places.extend(of_kind.map(|entry| (entry.place, sought)));
            }
        }
    }
}
