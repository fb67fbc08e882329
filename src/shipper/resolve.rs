//! Which of a batch's conversions count: the duplicates that could not be told when they were accepted.

use std::collections::HashMap;

use super::cut::{Content, LateDuplicate};
use crate::{
    clickhouse::{KeyQuery, KnownKey},
    core::{Conversion, ConversionId, DedupScope, OrderId, OrderKey, Record, Refusal, UnixMillis},
    dedup::SettledKey,
};

/// The questions that must be answered before the records can be cut: the key of every conversion that was accepted
/// as unverified, or of every conversion at all (`all`: dead letters, whose keys may have come again meanwhile).
#[must_use]
pub(super) fn questions(records: &[Record], all: bool) -> Vec<KeyQuery> {
    records
        .iter()
        .filter_map(|record| match record {
            Record::Conversion(conversion) if all || conversion.unverified => question(conversion),
            _ => None,
        })
        .collect()
}

/// Divides the records. `answers` are those to [`questions`], in their order. Of several records with one key, the
/// first counts.
#[must_use]
pub(super) fn resolve(records: Vec<Record>, all: bool, answers: &[Option<KnownKey>]) -> Content {
    let mut content = Content::default();
    let mut answers = answers.iter();
    let mut seen: HashMap<OrderKey, (ConversionId, UnixMillis)> = HashMap::new();
    for record in records {
        let conversion = match record {
            Record::Refusal(refusal) => {
                content.refusals.push(refusal);
                continue;
            }
            Record::Conversion(conversion) => conversion,
            Record::Click(_) | Record::Adjustment(_) => continue,
        };
        let Some((key, scope)) = conversion.key else {
            content.conversions.push(conversion);
            continue;
        };
        let asked = all || conversion.unverified;
        let known = if asked { answers.next().copied().flatten() } else { None };
        let here = seen.get(&key).filter(|(_, at)| within(scope, *at, conversion.received_at));
        let original = known.map(|known| known.conversion_id).or_else(|| here.map(|(id, _)| *id));
        if let Some(original) = original {
            content.late.push(late(&conversion, key, original));
        } else {
            seen.insert(key, (conversion.id, conversion.received_at));
            content.conversions.push(conversion);
        }
    }
    content
}

fn question(conversion: &Conversion) -> Option<KeyQuery> {
    let (key, scope) = conversion.key?;
    Some(KeyQuery { goal_id: conversion.goal_id, key, scope, at: conversion.received_at })
}

fn within(scope: DedupScope, first: UnixMillis, second: UnixMillis) -> bool {
    scope.horizon_millis().is_none_or(|reach| second.0.saturating_sub(first.0) < reach)
}

fn late(conversion: &Conversion, key: OrderKey, original: ConversionId) -> LateDuplicate {
    let refusal = Refusal {
        account_id: conversion.account_id,
        goal_id: conversion.goal_id,
        received_at: conversion.received_at,
        code: "duplicate".to_owned(),
        field: if conversion.order_id.is_some() { "order_id" } else { "" }.to_owned(),
        message: "accepted while it could not be told whether it was new, then found to be a duplicate"
            .to_owned(),
        order_id: conversion.order_id.as_ref().map(OrderId::as_str).unwrap_or_default().to_owned(),
        conversion_id: Some(conversion.id),
        original_id: Some(original),
        source: conversion.source,
        request: String::new(),
    };
    LateDuplicate { refusal, key: SettledKey { key, counted: original } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipper::samples::{NOVEMBER, conversion, id, refusal};

    fn unverified(n: u32) -> Conversion {
        Conversion { unverified: true, ..conversion(n) }
    }

    fn known(n: u32) -> KnownKey {
        let c = conversion(n);
        KnownKey { conversion_id: c.id, value: c.value, currency: c.currency, received_at: c.received_at }
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
        let content = resolve(records, false, &[Some(known(1)), None]);
        assert_eq!(content.conversions.iter().map(|c| c.id).collect::<Vec<_>>(), [id(0), id(2)]);
        assert_eq!(content.refusals, [refusal(3)]);
        assert_eq!(content.late.len(), 1);
        assert_eq!(content.late[0].refusal.conversion_id, Some(id(50)));
        assert_eq!(content.late[0].refusal.original_id, Some(id(1)));
        assert_eq!(content.late[0].key, SettledKey { key: OrderKey(1001), counted: id(1) });
    }

    #[test]
    fn of_one_batch_the_first_counts() {
        let again = |n, of| Conversion { id: id(n), key: conversion(of).key, ..unverified(n) };
        let records =
            [unverified(0), again(1, 0), again(2, 0), unverified(3)].map(Record::Conversion).to_vec();
        let content = resolve(records, false, &[None, None, None, None]);
        assert_eq!(content.conversions.iter().map(|c| c.id).collect::<Vec<_>>(), [id(0), id(3)]);
        assert!(content.late.iter().all(|late| late.key.counted == id(0)));
        assert_eq!(content.late.len(), 2);
    }

    #[test]
    fn a_key_of_a_day_is_free_after_it() {
        let at = |n, hours: i64| Conversion {
            key: Some((OrderKey(7), DedupScope::Day)),
            received_at: UnixMillis(NOVEMBER + hours * 3_600_000),
            ..conversion(n)
        };
        let records = [at(1, 0), at(2, 23), at(3, 24), at(4, 25)].map(Record::Conversion).to_vec();
        let content = resolve(records, false, &[]);
        assert_eq!(content.conversions.iter().map(|c| c.id).collect::<Vec<_>>(), [id(1), id(3)]);
        assert_eq!(content.late.iter().map(|late| late.key.counted).collect::<Vec<_>>(), [id(1), id(3)]);
    }
}
