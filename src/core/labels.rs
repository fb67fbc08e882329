//! Bounded statistics: which combinations of link, campaign and variant statistics may name.
//!
//! These values come from public URLs: whoever likes to can make up a million of them. Each account may add a certain
//! number of new combinations a day; a click with another one is kept as it came and counts as `(other)`. A combination
//! that says nothing but the link is always named: there are no more of those than links.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
};

use super::{AccountId, Campaign, Click, LinkId, UnixMillis};

/// Combinations that an account may add a day (UTC).
pub const LABELS_PER_DAY_MAX: u32 = 2_000;
/// Combinations of all accounts together that are remembered: about 20 MB. Beyond it, no account adds any that day.
const LABELS_ALL_MAX: usize = 1_000_000;

/// What statistics tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<'a> {
    /// Whose it is.
    pub account_id: AccountId,
    /// The link, if any.
    pub link_id: Option<LinkId>,
    /// `utm_source`.
    pub source: &'a str,
    /// `utm_medium`.
    pub medium: &'a str,
    /// `utm_campaign`.
    pub campaign: &'a str,
    /// The variant that was shown.
    pub variant: &'a str,
}

/// A day (UTC): days since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(i64);

/// The combinations of one day. Asked again about one that it admitted, it says the same.
#[derive(Debug)]
pub struct LabelBook {
    day: Day,
    /// Hashes under a key of this book's own: nobody can aim at a collision.
    admitted: HashSet<u64>,
    added: HashMap<AccountId, u32>,
    hasher: RandomState,
}

impl Day {
    /// The day of that instant.
    #[must_use]
    pub fn of(at: UnixMillis) -> Self {
        Self(at.seconds().div_euclid(86_400))
    }

    /// Its first instant.
    #[must_use]
    pub fn start(self) -> UnixMillis {
        UnixMillis(self.0.saturating_mul(86_400_000))
    }

    /// The first instant that is not in it any more.
    #[must_use]
    pub fn end(self) -> UnixMillis {
        self.start().plus(86_400_000)
    }
}

impl<'a> Label<'a> {
    /// That of a click.
    #[must_use]
    pub fn of(click: &'a Click) -> Self {
        let Campaign { source, medium, campaign, .. } = &click.campaign;
        let (account_id, link_id, variant) = (click.account_id, click.link_id, &click.variant);
        Self { account_id, link_id, source, medium, campaign, variant }
    }

    fn says_nothing(&self) -> bool {
        [self.source, self.medium, self.campaign, self.variant].iter().all(|value| value.is_empty())
    }
}

impl LabelBook {
    /// An empty one.
    #[must_use]
    pub fn new(day: Day, hasher: RandomState) -> Self {
        Self { day, admitted: HashSet::new(), added: HashMap::new(), hasher }
    }

    /// The day whose combinations it knows.
    #[must_use]
    pub fn day(&self) -> Day {
        self.day
    }

    /// Whether statistics name the combination; if there is room, it is added.
    pub fn admit(&mut self, label: &Label<'_>) -> bool {
        if label.says_nothing() {
            return true;
        }
        let hash = self.hasher.hash_one(label);
        if self.admitted.contains(&hash) {
            return true;
        }
        let added = self.added.get(&label.account_id).copied().unwrap_or(0);
        if added >= LABELS_PER_DAY_MAX || self.admitted.len() >= LABELS_ALL_MAX {
            return false;
        }
        self.added.insert(label.account_id, added + 1);
        self.admitted.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(account: u32, link: u32, source: &str) -> Label<'_> {
        Label {
            account_id: AccountId(account),
            link_id: Some(LinkId(link)),
            source,
            medium: "",
            campaign: "",
            variant: "",
        }
    }

    #[test]
    fn an_account_adds_so_many_a_day_and_no_more() {
        let mut book = LabelBook::new(Day(1), RandomState::new());
        let names: Vec<_> = (0..LABELS_PER_DAY_MAX + 500).map(|n| format!("made-up-{n}")).collect();
        let admitted = names.iter().filter(|name| book.admit(&label(1, 1, name))).count();
        assert_eq!(admitted, LABELS_PER_DAY_MAX as usize);
        // What is named stays named, in any order; what is not, does not become so.
        let again: Vec<_> = names.iter().rev().map(|name| book.admit(&label(1, 1, name))).collect();
        assert_eq!(again.iter().filter(|named| **named).count(), admitted);
        assert!(!again[0] && again[names.len() - 1]);
        // Another link is another combination; another account has a number of its own.
        assert!(!book.admit(&label(1, 2, "made-up-0")));
        assert!(book.admit(&label(2, 1, "made-up-0")));
        assert!(book.admit(&label(1, 99, "")), "a link alone is always named");
    }

    #[test]
    fn memory_is_bounded_over_all_accounts() {
        let mut book = LabelBook::new(Day(1), RandomState::new());
        book.admitted.extend(0..LABELS_ALL_MAX as u64);
        assert!(!book.admit(&label(1, 1, "new")));
        assert!(book.added.is_empty());
    }

    #[test]
    fn days_begin_at_midnight() {
        let day = Day::of(UnixMillis(86_400_000 * 3 - 1));
        assert_eq!((day.start(), day.end()), (UnixMillis(86_400_000 * 2), UnixMillis(86_400_000 * 3)));
        assert!(Day::of(day.end()) > day);
    }
}
