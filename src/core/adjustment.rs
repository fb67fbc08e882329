//! Adjustments: what is learned about a conversion after it was counted. Gross stays; net changes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{AccountId, AdjustmentId, ConversionId, Money, OrderKey, UnixMillis};

/// What an adjustment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdjustmentKind {
    /// Money went back: the net value falls by the adjustment's value, or to nothing where it names none.
    Refund,
    /// The value was another one: the net value becomes the adjustment's value, less the refunds.
    Correction,
    /// The conversion is good after all: undoes a rejection.
    Approve,
    /// The conversion is not accepted: it counts as none, and is worth nothing.
    Reject,
}

impl AdjustmentKind {
    /// Every kind, in the order in which errors list them.
    pub const ALL: [Self; 4] = [Self::Refund, Self::Correction, Self::Approve, Self::Reject];

    /// The public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refund => "refund",
            Self::Correction => "correction",
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }

    /// The kind of that public name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// An adjustment as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// Its public name.
    pub id: AdjustmentId,
    /// Whose it is.
    pub account_id: AccountId,
    /// What it is about; it was in ClickHouse when the adjustment was accepted.
    pub conversion_id: ConversionId,
    /// What it does.
    pub kind: AdjustmentKind,
    /// How much, in the conversion's currency, for refunds and corrections.
    pub value: Option<Money>,
    /// The key of its `Idempotency-Key` within the account, unique for 24 hours.
    pub key: Option<OrderKey>,
    /// The caller's reason, at most 500 bytes.
    pub reason: String,
    /// When it was accepted.
    pub received_at: UnixMillis,
    /// Accepted without knowing whether the key is new (`202`).
    pub unverified: bool,
}

/// Stands for all that a call for an adjustment said, in the memory of one process: two calls under one
/// `Idempotency-Key` are the same call if theirs are equal.
#[must_use]
pub fn adjustment_fingerprint(
    conversion_id: ConversionId,
    kind: AdjustmentKind,
    value: Option<Money>,
    reason: &str,
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (conversion_id, kind, value, reason).hash(&mut hasher);
    hasher.finish()
}

/// What a conversion is worth after its adjustments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// Its value; never below nothing.
    pub value: Money,
    /// Whether it counts.
    pub counts: bool,
}

/// What a conversion of that gross value is worth after `adjustments`. They apply in the order in which they were
/// accepted, whatever the order in which they are handed in, so that the result is a function of the set alone.
///
/// A refund without a value takes all that is left at its time, and counts as a refund of that much: a later correction
/// upwards is worth the difference. A rejection hides the rest and changes none of it: undone, all is as it was.
#[must_use]
pub fn net<'a>(gross: Money, adjustments: impl IntoIterator<Item = &'a Adjustment>) -> Net {
    let mut adjustments: Vec<_> = adjustments.into_iter().collect();
    adjustments.sort_unstable_by_key(|adjustment| (adjustment.received_at, adjustment.id));
    let (mut value, mut refunded, mut counts) = (gross.micros(), 0u64, true);
    for adjustment in adjustments {
        let named = adjustment.value.map(Money::micros);
        match adjustment.kind {
            AdjustmentKind::Refund => {
                let left = value.saturating_sub(refunded);
                refunded = refunded.saturating_add(named.unwrap_or(left));
            }
            AdjustmentKind::Correction => value = named.unwrap_or(value),
            AdjustmentKind::Approve => counts = true,
            AdjustmentKind::Reject => counts = false,
        }
    }
    let left = if counts { value.saturating_sub(refunded) } else { 0 };
    // No more than the gross value or a correction, both of which are amounts.
    Net { value: Money::from_micros(left).unwrap_or_default(), counts }
}

impl Net {
    /// Of a conversion without adjustments.
    #[must_use]
    pub fn gross(value: Money) -> Self {
        Self { value, counts: true }
    }

    /// By how much the value, in millionths, and the number of conversions change from `before` to this.
    #[must_use]
    pub fn change_since(self, before: Self) -> (i64, i8) {
        let micros = |net: Self| i64::try_from(net.value.micros()).unwrap_or(i64::MAX);
        (micros(self).saturating_sub(micros(before)), i8::from(self.counts) - i8::from(before.counts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::core::arbitrary;

    fn money(text: &str) -> Money {
        Money::parse(text).expect("an amount")
    }

    /// `refund 20`, `reject`, …, one after the other.
    fn after(gross: &str, events: &[&str]) -> (String, bool) {
        let adjustments: Vec<_> = (0..).zip(events).map(|(n, event)| nth(n, event)).collect();
        let net = net(money(gross), &adjustments);
        (net.value.to_string(), net.counts)
    }

    fn nth(n: i64, event: &str) -> Adjustment {
        let (kind, value) = event.split_once(' ').map_or((event, None), |(kind, value)| (kind, Some(value)));
        Adjustment {
            id: AdjustmentId(Uuid::nil()),
            account_id: AccountId(1),
            conversion_id: ConversionId(Uuid::nil()),
            kind: AdjustmentKind::parse(kind).expect("a kind"),
            value: value.map(money),
            key: None,
            reason: String::new(),
            received_at: UnixMillis(n),
            unverified: false,
        }
    }

    #[test]
    fn each_kind_does_what_it_says() {
        let is = |value: &str, counts| (value.to_owned(), counts);
        assert_eq!(after("100", &[]), is("100.00", true));
        assert_eq!(after("100", &["refund 20"]), is("80.00", true));
        assert_eq!(after("100", &["refund 20", "refund 90"]), is("0.00", true));
        assert_eq!(after("100", &["refund"]), is("0.00", true));
        assert_eq!(after("100", &["refund 20", "correction 50"]), is("30.00", true));
        assert_eq!(after("100", &["correction 50", "refund 20"]), is("30.00", true));
        assert_eq!(after("100", &["refund", "correction 120"]), is("20.00", true));
        assert_eq!(after("100", &["correction 0"]), is("0.00", true));
        assert_eq!(after("100", &["reject"]), is("0.00", false));
        assert_eq!(after("100", &["reject", "approve"]), is("100.00", true));
        assert_eq!(after("100", &["approve"]), is("100.00", true));
        assert_eq!(after("100", &["reject", "refund 20", "approve"]), is("80.00", true));
    }

    proptest! {
        #[test]
        fn never_below_nothing_nor_above_what_was_named(
            gross in 0..10u64.pow(18), adjustments in proptest::collection::vec(arbitrary::adjustments(), 0..12),
        ) {
            let gross = Money::from_micros(gross).expect("18 digits");
            let net = net(gross, &adjustments);
            let corrections = adjustments.iter().filter(|a| a.kind == AdjustmentKind::Correction);
            let named = corrections.filter_map(|a| a.value).chain([gross]).max();
            prop_assert!(Some(net.value) <= named);
            prop_assert!(net.counts || net.value == Money::ZERO);
        }

        #[test]
        fn the_order_of_arrival_is_of_no_matter(
            gross in 0..10u64.pow(18), adjustments in proptest::collection::vec(arbitrary::adjustments(), 0..8),
            turn in 0usize..8,
        ) {
            let gross = Money::from_micros(gross).expect("18 digits");
            let mut turned = adjustments.clone();
            turned.rotate_left(turn.min(adjustments.len()));
            turned.reverse();
            prop_assert_eq!(net(gross, &adjustments), net(gross, &turned));
        }

        #[test]
        fn changes_add_up_to_the_net_value(
            gross in 0..10u64.pow(18), adjustments in proptest::collection::vec(arbitrary::adjustments(), 1..8),
        ) {
            let gross = Money::from_micros(gross).expect("18 digits");
            let (mut value, mut count) = (i128::from(gross.micros()), 1i8);
            for known in 0..adjustments.len() {
                let before = net(gross, &adjustments[..known]);
                let (by, counts) = net(gross, &adjustments[..=known]).change_since(before);
                value += i128::from(by);
                count += counts;
                prop_assert!((-1..=1).contains(&counts));
            }
            let net = net(gross, &adjustments);
            prop_assert_eq!((value, count), (i128::from(net.value.micros()), i8::from(net.counts)));
        }
    }
}
