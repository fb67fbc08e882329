//! What adjustments change, given the conversions that they are about and what was learned about those before.
//!
//! Whatever the order in which adjustments arrive here, the changes of one conversion add up to the difference between
//! its gross value and [`net`] over all of them: each is counted as what the whole becomes by it.

use std::collections::HashMap;

use crate::{
    clickhouse::Adjusted,
    core::{
        AccountId, Adjustment, ConversionId, CountedAdjustment, GoalId, OrderKey, Refusal, RunId, Source, net,
    },
    dedup::SettledKey,
    shipper::LateDuplicate,
};

/// The conversions that the adjustments are about, each once.
#[must_use]
pub(super) fn questions(adjustments: &[Adjustment]) -> Vec<(AccountId, ConversionId)> {
    let mut asked: Vec<_> =
        adjustments.iter().map(|adjustment| (adjustment.account_id, adjustment.conversion_id)).collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}

/// Counts the adjustments. Those of a conversion that is not there any more change nothing and are told in `late`.
#[must_use]
pub(super) fn count(
    adjustments: Vec<Adjustment>,
    mut known: HashMap<(AccountId, ConversionId), Adjusted>,
    run: RunId,
    late: &mut Vec<LateDuplicate>,
) -> Vec<CountedAdjustment> {
    let mut counted = Vec::with_capacity(adjustments.len());
    for adjustment in adjustments {
        let Some(of) = known.get_mut(&(adjustment.account_id, adjustment.conversion_id)) else {
            late.push(of_nothing(&adjustment));
            continue;
        };
        let before = net(of.value, &of.adjustments);
        of.adjustments.push(adjustment.clone());
        let (net_value_change, net_conversions_change) = net(of.value, &of.adjustments).change_since(before);
        counted.push(CountedAdjustment {
            adjustment,
            goal_id: of.goal_id,
            currency: of.currency,
            converted_at: of.converted_at,
            earned: of.earned.clone(),
            net_value_change,
            net_conversions_change,
            run,
        });
    }
    counted
}

/// The row of an adjustment whose conversion was removed from ClickHouse after it was accepted.
fn of_nothing(adjustment: &Adjustment) -> LateDuplicate {
    let refusal = Refusal {
        account_id: adjustment.account_id,
        goal_id: GoalId(0),
        received_at: adjustment.received_at,
        code: "unknown_conversion".to_owned(),
        field: "conversion_id".to_owned(),
        message: "the conversion that it is about was removed after the adjustment was accepted".to_owned(),
        order_id: String::new(),
        conversion_id: Some(ConversionId(adjustment.id.0)),
        original_id: Some(adjustment.conversion_id),
        source: Source::Api,
        request: String::new(),
    };
    let key = adjustment.key.unwrap_or(OrderKey(0));
    LateDuplicate { refusal, key: SettledKey { key, counted: ConversionId(adjustment.id.0) } }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        core::{AdjustmentId, AdjustmentKind, Money, UnixMillis},
        shipper::samples::{conversion, id},
    };

    fn adjustment(n: u32, of: u32, kind: AdjustmentKind, micros: Option<u64>) -> Adjustment {
        Adjustment {
            id: AdjustmentId(Uuid::from_u128(n.into())),
            account_id: AccountId(1),
            conversion_id: id(of),
            kind,
            value: micros.and_then(Money::from_micros),
            key: None,
            reason: String::new(),
            received_at: UnixMillis(n.into()),
            unverified: false,
        }
    }

    /// The first conversion, with what was learned about it before.
    fn known(adjustments: Vec<Adjustment>) -> HashMap<(AccountId, ConversionId), Adjusted> {
        let of = conversion(1);
        let adjusted = Adjusted {
            goal_id: of.goal_id,
            value: Money::from_micros(100).expect("fits"),
            currency: of.currency,
            converted_at: of.converted_at,
            earned: None,
            adjustments,
        };
        HashMap::from([((of.account_id, of.id), adjusted)])
    }

    fn changes(batch: Vec<Adjustment>, before: Vec<Adjustment>) -> (Vec<(i64, i8)>, Vec<LateDuplicate>) {
        let mut late = Vec::new();
        let counted = count(batch, known(before), RunId(3), &mut late);
        assert!(counted.iter().all(|counted| counted.run == RunId(3)));
        (counted.iter().map(|c| (c.net_value_change, c.net_conversions_change)).collect(), late)
    }

    #[test]
    fn those_of_one_batch_build_on_each_other() {
        let refund = |n, micros| adjustment(n, 1, AdjustmentKind::Refund, Some(micros));
        let batch = vec![
            refund(2, 30),
            adjustment(3, 1, AdjustmentKind::Reject, None),
            refund(4, 30),
            adjustment(5, 1, AdjustmentKind::Approve, None),
            adjustment(6, 1, AdjustmentKind::Refund, None),
        ];
        assert_eq!(questions(&batch), [(AccountId(1), id(1))]);
        let (changes, late) = changes(batch, vec![refund(1, 20)]);
        assert_eq!(changes, [(-30, 0), (-50, -1), (0, 0), (20, 1), (-20, 0)]);
        assert!(late.is_empty());
    }

    #[test]
    fn one_that_was_overtaken_still_adds_up() {
        let refund = adjustment(1, 1, AdjustmentKind::Refund, None);
        let correction = adjustment(2, 1, AdjustmentKind::Correction, Some(120));
        let sum = |changes: Vec<(i64, i8)>| changes.iter().map(|(value, _)| value).sum::<i64>();
        let in_order = changes(vec![refund.clone(), correction.clone()], Vec::new()).0;
        assert_eq!(in_order, [(-100, 0), (20, 0)]);
        let overtaken = changes(vec![refund], vec![correction]).0;
        assert_eq!(sum(overtaken) + 20, sum(in_order), "the correction had counted as +20");
    }

    #[test]
    fn one_of_nothing_is_told() {
        let (changes, late) = changes(vec![adjustment(1, 2, AdjustmentKind::Reject, None)], Vec::new());
        assert!(changes.is_empty());
        assert_eq!(late[0].refusal.code, "unknown_conversion");
        assert_eq!(late[0].refusal.original_id, Some(id(2)));
    }
}
