//! What a batch brings to ClickHouse: records, and what was decided about them.

use super::{
    Adjustment, Attribution, Click, Conversion, Currency, Earned, GoalId, Refusal, RunId, Unattributed,
    UnixMillis,
};

/// A conversion that counts, and what earned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedConversion {
    /// The conversion.
    pub conversion: Conversion,
    /// Which click earned it.
    pub attribution: Attribution,
    /// The newest run of attribution when this was decided: the decision is in force beside that run's.
    pub run: RunId,
}

impl CountedConversion {
    /// A conversion that no click earned.
    #[must_use]
    pub fn unattributed(conversion: Conversion, reason: Unattributed) -> Self {
        let attribution = Attribution { outcome: Err(reason), candidates: 0 };
        Self { conversion, attribution, run: RunId::default() }
    }
}

/// A click that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedClick {
    /// The click.
    pub click: Click,
    /// Whether statistics name its campaign and variant, rather than `(other)`: hostile values are bounded so.
    pub labelled: bool,
}

/// An adjustment, and what it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedAdjustment {
    /// The adjustment.
    pub adjustment: Adjustment,
    /// Of the conversion: its goal,
    pub goal_id: GoalId,
    /// its currency,
    pub currency: Currency,
    /// when it happened,
    pub converted_at: UnixMillis,
    /// and what it owes to a click.
    pub earned: Option<Earned>,
    /// By how much the net value changes, in millionths.
    pub net_value_change: i64,
    /// By how many the net number of conversions changes: -1, 0 or 1.
    pub net_conversions_change: i8,
    /// The newest run of attribution when this was decided.
    pub run: RunId,
}

/// One row of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A conversion.
    Conversion(CountedConversion),
    /// A click.
    Click(CountedClick),
    /// An adjustment.
    Adjustment(CountedAdjustment),
    /// Something that does not count.
    Refusal(Refusal),
}
