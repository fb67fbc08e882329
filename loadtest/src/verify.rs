//! The proof: what was acknowledged, held against the rows of `tally.conversions` and `tally.clicks`.
//!
//! A pure comparison; [`crate::clickhouse`] fetches the rows. Per order and goal at most one row, exactly one if any
//! copy was acknowledged, its id the one that every answer gave. A hit without an order id is looked for by the id of
//! its answer. What was refused as bad must not be there at all. Each acknowledged click is there once, and a conversion
//! that names one is attributed to it.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use crate::generator::HitKind;
use crate::ledger::{Entry, Outcome};
use crate::text::ShortText;
pub use crate::verdict::{Finding, Verdict};

/// A row of `tally.conversions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its goal.
    pub goal_id: u64,
    /// Its order, if any.
    pub order_id: Option<ShortText>,
    /// Its id.
    pub conversion_id: ShortText,
    /// The click that it names; 0: none.
    pub click_id: u64,
    /// It is attributed to that click.
    pub earned: bool,
}

/// Compares `entries` with `rows`; `rejected` are the ids in `tally.rejections`.
#[must_use]
pub fn compare<S: BuildHasher>(
    entries: impl IntoIterator<Item = Entry>,
    rows: impl IntoIterator<Item = Row>,
    rejected: &HashSet<ShortText, S>,
) -> Verdict {
    let mut comparison = Comparison::new(entries);
    for row in rows {
        comparison.add_row(&row);
    }
    comparison.finish(rejected)
}

/// A comparison under way, so that rows need not be held in memory.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// Some goal's id is unknown: orders are told apart by their id alone.
    ignore_goals: bool,
    orders: HashMap<(u64, ShortText), Group>,
    /// Conversion ids of hits without an order, and whether their row was seen.
    anonymous: HashMap<ShortText, bool>,
    clicks: HashMap<u64, Click>,
    verdict: Verdict,
}

/// All that is known of one order of one goal.
#[derive(Debug, Clone, Default)]
struct Group {
    /// Ids of 201s and 200s; nearly always one.
    ids: Vec<ShortText>,
    /// Ids of 202s.
    undecided: Vec<ShortText>,
    /// An answer without an id was an acknowledgement all the same.
    acknowledged: bool,
    bad: bool,
    /// The click that its hits name.
    click_id: u64,
    row: Option<ShortText>,
}

/// All that is known of one click.
#[derive(Debug, Clone, Copy, Default)]
struct Click {
    acknowledged: bool,
    row: bool,
}

impl Comparison {
    /// Takes in the ledger.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut comparison = Self::default();
        for entry in entries {
            comparison.add_entry(&entry);
        }
        if comparison.ignore_goals {
            // Order ids are unique across the goals of a run, so no two groups meet here.
            let orders = std::mem::take(&mut comparison.orders);
            comparison.orders = orders.into_iter().map(|((_, order), group)| ((0, order), group)).collect();
        }
        comparison
    }

    /// Whether any hit was answered with 202, so that the rejections matter.
    #[must_use]
    pub fn has_undecided(&self) -> bool {
        self.orders.values().any(|group| !group.undecided.is_empty())
    }

    /// Whether there are clicks in the ledger, so that the table of clicks matters.
    #[must_use]
    pub fn has_clicks(&self) -> bool {
        !self.clicks.is_empty()
    }

    fn add_entry(&mut self, entry: &Entry) {
        if let (HitKind::Click, Some(id)) = (entry.kind, entry.click_id) {
            let click = self.clicks.entry(id).or_default();
            if matches!(entry.outcome, Outcome::Acked { .. }) {
                click.acknowledged = true;
                self.verdict.acknowledged += 1;
            }
            return;
        }
        self.ignore_goals |= entry.goal_id == 0;
        let bad = matches!(entry.kind, HitKind::Bad(_));
        let Some(order_id) = entry.order_id else {
            if let Outcome::Acked { conversion_id, .. } = entry.outcome {
                self.verdict.acknowledged += 1;
                match conversion_id {
                    Some(id) if self.anonymous.insert(id, false).is_some() => {
                        self.verdict
                            .mismatched
                            .add(|| format!("{id} was given to two hits without an order id"));
                    }
                    Some(_) => {}
                    None => {
                        self.verdict.mismatched.add(|| "an acknowledgement without a conversion id".into());
                    }
                }
            }
            return;
        };
        let group = self.orders.entry((entry.goal_id, order_id)).or_default();
        group.bad |= bad;
        group.click_id = entry.click_id.unwrap_or(0);
        if let Outcome::Acked { status, conversion_id, .. } = entry.outcome {
            self.verdict.acknowledged += 1;
            if bad {
                self.verdict
                    .bad_acknowledged
                    .add(|| format!("{order_id}: {:?} answered {status}", entry.kind));
                return;
            }
            group.acknowledged = true;
            let Some(id) = conversion_id else {
                self.verdict
                    .mismatched
                    .add(|| format!("{order_id}: answered {status} without a conversion id"));
                return;
            };
            let ids = if status == 202 { &mut group.undecided } else { &mut group.ids };
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }

    /// Takes in a row.
    pub fn add_row(&mut self, row: &Row) {
        let id = row.conversion_id;
        let Some(order_id) = row.order_id else {
            match self.anonymous.get_mut(&id) {
                Some(seen) => {
                    self.verdict.rows += 1;
                    if std::mem::replace(seen, true) {
                        self.verdict.doubled.add(|| format!("{id}, without an order id, has another row"));
                    }
                }
                None => self.verdict.foreign_rows += 1,
            }
            return;
        };
        let goal_id = if self.ignore_goals { 0 } else { row.goal_id };
        let Some(group) = self.orders.get_mut(&(goal_id, order_id)) else {
            self.verdict.foreign_rows += 1;
            return;
        };
        self.verdict.rows += 1;
        if group.bad {
            self.verdict.bad_accepted.add(|| format!("{order_id} is {id}"));
        }
        if let Some(first) = group.row {
            self.verdict.doubled.add(|| format!("{order_id} of goal {} is {first} and {id}", row.goal_id));
        } else {
            group.row = Some(id);
        }
        if row.click_id != group.click_id {
            self.verdict
                .mismatched
                .add(|| format!("{order_id} names click {} and not {}", row.click_id, group.click_id));
        } else if row.click_id != 0
            && !row.earned
            && self.clicks.get(&row.click_id).is_some_and(|click| click.acknowledged)
        {
            self.verdict.unearned.add(|| format!("{order_id} names click {}", row.click_id));
        }
    }

    /// Takes in a row of the table of clicks.
    pub fn add_click(&mut self, id: u64) {
        let Some(click) = self.clicks.get_mut(&id) else {
            self.verdict.foreign_rows += 1;
            return;
        };
        self.verdict.rows += 1;
        if std::mem::replace(&mut click.row, true) {
            self.verdict.doubled.add(|| format!("click {id} has another row"));
        }
    }

    /// Says what was found.
    #[must_use]
    pub fn finish<S: BuildHasher>(self, rejected: &HashSet<ShortText, S>) -> Verdict {
        let mut verdict = self.verdict;
        verdict.checked = (self.orders.len() + self.anonymous.len() + self.clicks.len()) as u64;
        for (id, click) in self.clicks {
            if click.acknowledged && !click.row {
                verdict.missing.add(|| format!("click {id}"));
            } else if click.row && !click.acknowledged {
                verdict.unknown_accepted += 1;
            }
        }
        for (id, seen) in self.anonymous {
            if !seen {
                verdict.missing.add(|| format!("{id}, without an order id"));
            }
        }
        for ((goal_id, order_id), group) in self.orders {
            let name = || format!("{order_id} of goal {goal_id}");
            let Some(row) = group.row else {
                if group.acknowledged {
                    verdict
                        .missing
                        .add(|| format!("{} (answered {:?} {:?})", name(), group.ids, group.undecided));
                }
                continue;
            };
            if !group.acknowledged && !group.bad {
                verdict.unknown_accepted += 1;
            }
            for id in &group.ids {
                // A copy may have been told the id of a 202 that lost later.
                if *id != row && !group.undecided.contains(id) {
                    verdict.mismatched.add(|| format!("{} was answered {id} and is {row}", name()));
                }
            }
            for id in group.undecided.iter().filter(|id| **id != row) {
                if rejected.contains(id) {
                    verdict.late_duplicates += 1;
                } else {
                    verdict.unresolved.add(|| format!("{} was answered 202 {id} and is {row}", name()));
                }
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Fault;

    fn text(text: &str) -> ShortText {
        ShortText::from_bytes(text.as_bytes()).unwrap()
    }

    fn entry(order: &str, kind: HitKind, outcome: Outcome) -> Entry {
        Entry {
            goal_id: 1,
            order_id: (!order.is_empty()).then(|| text(order)),
            click_id: None,
            kind,
            outcome,
        }
    }

    fn acked(status: u16, id: &str) -> Outcome {
        let duplicate = if status == 202 { None } else { Some(status == 200) };
        Outcome::Acked { status, conversion_id: Some(text(id)), duplicate }
    }

    fn row(order: &str, id: &str) -> Row {
        let order_id = (!order.is_empty()).then(|| text(order));
        Row { goal_id: 1, order_id, conversion_id: text(id), click_id: 0, earned: false }
    }

    fn verdict(entries: &[Entry], rows: &[Row]) -> Verdict {
        compare(entries.iter().copied(), rows.iter().copied(), &HashSet::from([text("rejected")]))
    }

    #[test]
    fn each_acknowledged_once_holds() {
        let entries = [
            entry("a", HitKind::New, acked(201, "1")),
            entry("a", HitKind::Repeat, acked(200, "1")),
            entry("b", HitKind::New, Outcome::Unknown),
            entry("c", HitKind::New, Outcome::Unknown),
            entry("d", HitKind::New, Outcome::Refused { status: 503 }),
            entry("e", HitKind::New, Outcome::NotSent),
            entry("f", HitKind::Bad(Fault::Malformed), Outcome::Refused { status: 400 }),
            entry("", HitKind::Anonymous, acked(201, "2")),
        ];
        let verdict = verdict(&entries, &[row("a", "1"), row("b", "3"), row("", "2"), row("other", "9")]);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!((verdict.checked, verdict.rows, verdict.acknowledged), (7, 3, 3));
        assert_eq!((verdict.unknown_accepted, verdict.foreign_rows), (1, 1));
    }

    #[test]
    fn a_lost_row_is_missing() {
        let entries =
            [entry("a", HitKind::New, acked(201, "1")), entry("", HitKind::Anonymous, acked(201, "2"))];
        let verdict = verdict(&entries, &[]);
        assert_eq!(verdict.missing.count, 2);
        assert!(verdict.only_missing() && !verdict.holds());
    }

    #[test]
    fn a_second_row_is_doubled_even_of_a_lost_answer() {
        let entries = [
            entry("a", HitKind::New, acked(201, "1")),
            entry("b", HitKind::New, Outcome::Unknown),
            entry("", HitKind::Anonymous, acked(201, "2")),
        ];
        let rows = [row("a", "1"), row("a", "1"), row("b", "3"), row("b", "4"), row("", "2"), row("", "2")];
        let verdict = verdict(&entries, &rows);
        assert_eq!(verdict.doubled.count, 3);
        assert!(!verdict.only_missing());
    }

    #[test]
    fn answers_must_name_the_row() {
        let entries = [
            entry("a", HitKind::New, acked(201, "1")),
            entry("a", HitKind::LateCopy, acked(200, "2")),
            entry("b", HitKind::New, Outcome::Acked { status: 201, conversion_id: None, duplicate: None }),
        ];
        assert_eq!(verdict(&entries, &[row("a", "1"), row("b", "3")]).mismatched.count, 2);
    }

    #[test]
    fn two_created_answers_for_one_order_do_not_hold() {
        let entries =
            [entry("a", HitKind::New, acked(201, "1")), entry("a", HitKind::Repeat, acked(201, "2"))];
        assert_eq!(verdict(&entries, &[row("a", "1")]).mismatched.count, 1);
    }

    #[test]
    fn an_undecided_hit_is_there_or_rejected() {
        let entries = [
            entry("a", HitKind::New, acked(201, "1")),
            entry("a", HitKind::LateCopy, acked(202, "rejected")),
            entry("b", HitKind::New, acked(202, "2")),
        ];
        let good = verdict(&entries, &[row("a", "1"), row("b", "2")]);
        assert!(good.holds(), "{good}");
        assert_eq!(good.late_duplicates, 1);
        let entries =
            [entry("a", HitKind::New, acked(201, "1")), entry("a", HitKind::LateCopy, acked(202, "gone"))];
        assert_eq!(verdict(&entries, &[row("a", "1")]).unresolved.count, 1);
    }

    #[test]
    fn bad_hits_must_not_be_there() {
        let bad = |outcome| [entry("a", HitKind::Bad(Fault::NegativeValue), outcome)];
        assert_eq!(verdict(&bad(Outcome::Unknown), &[row("a", "1")]).bad_accepted.count, 1);
        assert_eq!(verdict(&bad(acked(201, "1")), &[]).bad_acknowledged.count, 1);
    }

    fn with_clicks(entries: &[Entry], rows: &[Row], clicks: &[u64]) -> Verdict {
        let mut comparison = Comparison::new(entries.iter().copied());
        for click in clicks {
            comparison.add_click(*click);
        }
        for row in rows {
            comparison.add_row(row);
        }
        comparison.finish(&HashSet::<ShortText>::new())
    }

    #[test]
    fn each_acknowledged_click_is_there_once_and_earns_what_names_it() {
        let click = |id, outcome| Entry { click_id: Some(id), ..entry("", HitKind::Click, outcome) };
        let created = Outcome::Acked { status: 201, conversion_id: None, duplicate: Some(false) };
        let order = |name, id| Entry { click_id: Some(id), ..entry(name, HitKind::New, acked(201, name)) };
        let entries = [
            click(7, created),
            click(7, Outcome::Acked { status: 200, conversion_id: None, duplicate: Some(true) }),
            click(8, Outcome::Unknown),
            click(9, Outcome::Unknown),
            order("a", 7),
            order("b", 8),
            order("c", 10),
        ];
        let naming = |name, click_id, earned| Row { click_id, earned, ..row(name, name) };
        let rows = [naming("a", 7, true), naming("b", 8, true), naming("c", 10, false)];
        let good = with_clicks(&entries, &rows, &[7, 8]);
        assert!(good.holds(), "{good}");
        assert_eq!((good.unknown_accepted, good.rows, good.acknowledged), (1, 5, 5));

        assert_eq!(with_clicks(&entries, &rows, &[8]).missing.count, 1);
        assert_eq!(with_clicks(&entries, &rows, &[7, 8, 8]).doubled.count, 1);
        let unearned = [naming("a", 7, false), naming("b", 8, false), naming("c", 10, false)];
        assert_eq!(with_clicks(&entries, &unearned, &[7, 8]).unearned.count, 1);
        let other = [naming("a", 0, false), naming("b", 8, true), naming("c", 10, false)];
        assert_eq!(with_clicks(&entries, &other, &[7, 8]).mismatched.count, 1);
    }

    #[test]
    fn the_same_order_of_another_goal_is_another_order_unless_goals_are_unknown() {
        let other = Row { goal_id: 2, ..row("a", "1") };
        let known = entry("a", HitKind::New, acked(201, "1"));
        assert_eq!(verdict(&[known], &[other]).missing.count, 1);
        assert!(verdict(&[Entry { goal_id: 0, ..known }], &[other]).holds());
    }
}
