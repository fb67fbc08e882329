//! Which of a batch's records count: the duplicates that could not be told when they were accepted.

use std::collections::{HashMap, HashSet};

use crate::{
    clickhouse::{KeyQuery, KnownKey},
    core::{
        AccountId, Adjustment, CLICK_ID_FIELD, Click, ClickId, Conversion, ConversionId, DUPLICATE,
        DedupScope, GoalId, OrderKey, Record, Refusal, Source, UnixMillis,
    },
    dedup::SettledKey,
    shipper::LateDuplicate,
};

/// The goal of keys that belong to no goal: of clicks and of adjustments.
const NO_GOAL: GoalId = GoalId(0);

/// What stands for the key of a record that has none: nothing is ever asked by it.
const NO_KEY: OrderKey = OrderKey(0);

/// A batch's records by kind, duplicates set apart.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    pub(super) clicks: Vec<Click>,
    pub(super) conversions: Vec<Conversion>,
    pub(super) adjustments: Vec<Adjustment>,
    pub(super) late: Vec<LateDuplicate>,
    pub(super) refusals: Vec<Refusal>,
}

/// The questions that must be answered before the records can be divided: the key of every record that was accepted
/// as unverified, or of every record at all (`all`: dead letters, whose keys may have come again meanwhile).
#[must_use]
pub(super) fn questions(records: &[Record], all: bool) -> Vec<KeyQuery> {
    records
        .iter()
        .filter_map(Keyed::of)
        .filter(|keyed| all || keyed.unverified)
        .map(Keyed::question)
        .collect()
}

/// The numbers of the same records' clicks. A click that was issued its number here has no key, so that it, or its report by
/// that number, is found by the number alone.
pub(super) fn numbers(records: &[Record], all: bool) -> impl Iterator<Item = (AccountId, ClickId)> {
    records.iter().filter_map(move |record| match record {
        Record::Click(click) if all || click.unverified => Some((click.account_id, click.id)),
        _ => None,
    })
}

/// Whether it was reported by a number that another click may have.
pub(super) fn may_be_report(click: &Click) -> bool {
    click.unverified && click.key.is_some()
}

/// Divides the records. `answers` are those to [`questions`], in their order; `taken` are those of [`numbers`] that a click
/// in ClickHouse has. Of several records with one key, the first counts; of a click and its report, the click, whichever
/// stands first: a caller may have guessed the number.
#[must_use]
pub(super) fn divide(
    records: Vec<Record>,
    all: bool,
    answers: &[Option<KnownKey>],
    taken: &HashSet<(AccountId, ClickId)>,
) -> Fresh {
    let mut fresh = Fresh::default();
    let issued = issued_among(&records, all);
    let mut answers = answers.iter();
    let mut seen: HashMap<OrderKey, (ConversionId, UnixMillis)> = HashMap::new();
    for record in records {
        let keyed = Keyed::of(&record);
        let by_key = keyed.as_ref().and_then(|keyed| {
            let asked = all || keyed.unverified;
            let known = if asked { answers.next().copied().flatten() } else { None };
            let here = seen.get(&keyed.key).filter(|(_, at)| within(keyed.scope, *at, keyed.at));
            known.map(|known| keyed.original(&known)).or_else(|| here.map(|(name, _)| *name))
        });
        let by_number = || match &record {
            Record::Click(of) if all || of.unverified => {
                let number = (of.account_id, of.id);
                let known = taken.contains(&number) || of.key.is_some() && issued.contains(&number);
                known.then(|| of.id.as_counted())
            }
            _ => None,
        };
        if let Some(original) = by_key.or_else(by_number) {
            let key = SettledKey { key: keyed.map_or(NO_KEY, |keyed| keyed.key), counted: original };
            fresh.late.extend(refusal(&record, original).map(|refusal| LateDuplicate { refusal, key }));
            continue;
        }
        if let Some(keyed) = keyed {
            seen.insert(keyed.key, (keyed.name, keyed.at));
        }
        match record {
            Record::Click(click) => fresh.clicks.push(click),
            Record::Conversion(conversion) => fresh.conversions.push(conversion),
            Record::Adjustment(adjustment) => fresh.adjustments.push(adjustment),
            Record::Refusal(refusal) => fresh.refusals.push(refusal.to_be_stored()),
        }
    }
    fresh
}

/// The numbers of clicks without a key, where any report could be of one.
fn issued_among(records: &[Record], all: bool) -> HashSet<(AccountId, ClickId)> {
    if numbers(records, all).next().is_none() {
        return HashSet::new();
    }
    let issued = records.iter().filter_map(|record| match record {
        Record::Click(click) if click.key.is_none() => Some((click.account_id, click.id)),
        _ => None,
    });
    issued.collect()
}

/// What makes a record unique.
struct Keyed {
    goal_id: GoalId,
    key: OrderKey,
    scope: DedupScope,
    at: UnixMillis,
    /// Under which id the key is known once this record counts.
    name: ConversionId,
    is_click: bool,
    unverified: bool,
}

impl Keyed {
    fn of(record: &Record) -> Option<Self> {
        match record {
            Record::Conversion(of) => {
                let (key, scope) = of.key?;
                let (goal_id, at, unverified) = (of.goal_id, of.received_at, of.unverified);
                Some(Self { goal_id, key, scope, at, name: of.id, is_click: false, unverified })
            }
            Record::Click(of) => Some(Self {
                goal_id: NO_GOAL,
                key: of.key?,
                scope: DedupScope::Forever,
                at: of.received_at,
                name: of.id.as_counted(),
                is_click: true,
                unverified: of.unverified,
            }),
            Record::Adjustment(of) => Some(Self {
                goal_id: NO_GOAL,
                key: of.key?,
                scope: DedupScope::Day,
                at: of.received_at,
                name: ConversionId(of.id.0),
                is_click: false,
                unverified: of.unverified,
            }),
            Record::Refusal(_) => None,
        }
    }

    fn question(self) -> KeyQuery {
        KeyQuery { goal_id: self.goal_id, key: self.key, scope: self.scope, at: self.at }
    }

    /// The record that counts under a known key. A click's key is made of its number, so it is the same number.
    fn original(&self, known: &KnownKey) -> ConversionId {
        if self.is_click { self.name } else { known.conversion_id }
    }
}

fn within(scope: DedupScope, first: UnixMillis, second: UnixMillis) -> bool {
    scope.horizon_millis().is_none_or(|reach| second.0.saturating_sub(first.0) < reach)
}

/// The row of a record that does not count; of a refused hit there is none.
fn refusal(record: &Record, original: ConversionId) -> Option<Refusal> {
    let (account_id, goal_id, received_at, field, own, source) = match record {
        Record::Conversion(of) => {
            let field = if of.order_id.is_some() { "order_id" } else { "" };
            (of.account_id, of.goal_id, of.received_at, field, of.id, of.source)
        }
        Record::Click(of) => without_goal(of.account_id, of.received_at, CLICK_ID_FIELD, of.id.as_counted()),
        Record::Adjustment(of) => {
            without_goal(of.account_id, of.received_at, "idempotency_key", ConversionId(of.id.0))
        }
        Record::Refusal(_) => return None,
    };
    Some(Refusal {
        account_id,
        goal_id,
        received_at,
        code: DUPLICATE.to_owned(),
        field: field.to_owned(),
        message: "accepted while it could not be told whether it was new, then found to be a duplicate"
            .to_owned(),
        // It is the original's, and goes with it when that is erased.
        order_id: String::new(),
        conversion_id: Some(own),
        original_id: Some(original),
        source,
        request: String::new(),
    })
}

type RefusalParts = (AccountId, GoalId, UnixMillis, &'static str, ConversionId, Source);

fn without_goal(account: AccountId, at: UnixMillis, field: &'static str, own: ConversionId) -> RefusalParts {
    (account, NO_GOAL, at, field, own, Source::Api)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::samples::{NOVEMBER, click, conversion, id, refusal};

    fn unverified(n: u32) -> Conversion {
        Conversion { unverified: true, ..conversion(n) }
    }

    fn known(n: u32) -> KnownKey {
        let c = conversion(n);
        KnownKey { conversion_id: c.id, value: c.value, currency: c.currency, received_at: c.received_at }
    }

    /// Records of the log that an older version wrote.
    #[test]
    fn a_request_kept_word_for_word_is_not_stored() {
        let stored = |refusal: Refusal| {
            let fresh = divide(vec![Record::Refusal(refusal)], false, &[], &HashSet::new());
            (fresh.refusals[0].order_id.clone(), fresh.refusals[0].request.clone())
        };
        let word_for_word = "value=x&i%70=203.0.113.9".to_owned();
        let refused = Refusal { order_id: "A-1".into(), request: word_for_word, ..refusal(1) };
        assert_eq!(stored(refused.clone()), ("A-1".into(), String::new()));
        let summary = r#"{"body_bytes":7,"value":"-1"}"#.to_owned();
        let duplicate = Refusal { code: DUPLICATE.into(), request: summary.clone(), ..refused };
        assert_eq!(stored(duplicate), (String::new(), summary));
    }

    #[test]
    fn only_what_is_unverified_is_asked() {
        let keyless = Conversion { key: None, unverified: true, ..conversion(3) };
        let records = [conversion(1), unverified(2), keyless].map(Record::Conversion);
        let asked = questions(&records, false);
        assert_eq!(asked.iter().map(|query| query.key).collect::<Vec<_>>(), [OrderKey(1002)]);
        assert_eq!(questions(&records, true).len(), 2);
    }

    #[test]
    fn a_known_key_makes_a_late_duplicate() {
        let same = Conversion { id: id(50), ..unverified(1) };
        let records = vec![
            Record::Conversion(conversion(0)),
            Record::Conversion(same),
            Record::Refusal(refusal(3)),
            Record::Conversion(unverified(2)),
        ];
        let fresh = divide(records, false, &[Some(known(1)), None], &HashSet::new());
        assert_eq!(fresh.conversions.iter().map(|c| c.id).collect::<Vec<_>>(), [id(0), id(2)]);
        assert_eq!(fresh.refusals, [refusal(3).to_be_stored()]);
        assert_eq!(fresh.late.len(), 1);
        assert_eq!(fresh.late[0].refusal.conversion_id, Some(id(50)));
        assert_eq!(fresh.late[0].refusal.original_id, Some(id(1)));
        assert_eq!(fresh.late[0].key, SettledKey { key: OrderKey(1001), counted: id(1) });
    }

    #[test]
    fn of_one_batch_the_first_counts() {
        let again = |n, of| Conversion { id: id(n), key: conversion(of).key, ..unverified(n) };
        let records =
            [unverified(0), again(1, 0), again(2, 0), unverified(3)].map(Record::Conversion).to_vec();
        let fresh = divide(records, false, &[None, None, None, None], &HashSet::new());
        assert_eq!(fresh.conversions.iter().map(|c| c.id).collect::<Vec<_>>(), [id(0), id(3)]);
        assert!(fresh.late.iter().all(|late| late.key.counted == id(0)));
        assert_eq!(fresh.late.len(), 2);
    }

    #[test]
    fn a_key_of_a_day_is_free_after_it() {
        let at = |n, hours: i64| Conversion {
            key: Some((OrderKey(7), DedupScope::Day)),
            received_at: UnixMillis(NOVEMBER + hours * 3_600_000),
            ..conversion(n)
        };
        let records = [at(1, 0), at(2, 23), at(3, 24), at(4, 25)].map(Record::Conversion).to_vec();
        let fresh = divide(records, false, &[], &HashSet::new());
        assert_eq!(fresh.conversions.iter().map(|c| c.id).collect::<Vec<_>>(), [id(1), id(3)]);
        assert_eq!(fresh.late.iter().map(|late| late.key.counted).collect::<Vec<_>>(), [id(1), id(3)]);
    }

    fn issued(n: u32) -> Click {
        Click { key: None, ..click(n) }
    }

    /// The report, by its caller, of the number that a click was issued.
    fn reported(n: u32) -> Click {
        Click { key: Some(OrderKey(u128::from(n))), unverified: true, ..click(n) }
    }

    fn counted(fresh: &Fresh) -> Vec<(u32, u64, bool)> {
        fresh.clicks.iter().map(|of| (of.account_id.0, of.id.0, of.key.is_none())).collect()
    }

    #[test]
    fn the_report_of_an_issued_number_is_a_late_duplicate() {
        let of_another = Click { account_id: AccountId(2), key: Some(OrderKey(8)), ..reported(1) };
        // In the order of the log, and the other way round.
        for records in [[issued(1), reported(1)], [reported(1), issued(1)]] {
            let records: Vec<_> =
                records.into_iter().chain([of_another.clone()]).map(Record::Click).collect();
            assert_eq!(numbers(&records, false).count(), 2);
            let fresh = divide(records, false, &[None, None], &HashSet::new());
            assert_eq!(counted(&fresh), [(1, 7001, true), (2, 7001, false)]);
            let key = SettledKey { key: OrderKey(1), counted: ClickId(7001).as_counted() };
            assert_eq!(fresh.late.iter().map(|late| late.key).collect::<Vec<_>>(), [key]);
        }
        // Issued in an earlier batch.
        let records = [reported(1), reported(5)].map(Record::Click).to_vec();
        let taken = HashSet::from([(AccountId(1), ClickId(7001))]);
        let fresh = divide(records, false, &[None, None], &taken);
        assert_eq!((counted(&fresh), fresh.late.len()), (vec![(1, 7005, false)], 1));
    }

    #[test]
    fn a_dead_letter_on_its_way_again_is_asked_for_by_its_number() {
        // As letters are read: that they were not verified is forgotten.
        let again = |n| Click { unverified: false, ..reported(n) };
        let records = [again(1), issued(1), again(3), issued(5), issued(7)].map(Record::Click).to_vec();
        assert_eq!(numbers(&records, true).count(), 5);
        let taken = HashSet::from([3, 5].map(|n| (AccountId(1), ClickId(7000 + n))));
        let fresh = divide(records, true, &[None, None], &taken);
        assert_eq!(counted(&fresh), [(1, 7001, true), (1, 7007, true)]);
        assert_eq!(fresh.late.iter().map(|late| late.key.key.0).collect::<Vec<_>>(), [1, 3, 0]);
    }
}
