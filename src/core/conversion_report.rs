//! What clicks and conversions of a period add up to: what is asked, what is answered, and the formulas.

use std::collections::BTreeMap;

use super::{AccountId, Currency, GoalId, LinkId, UnixMillis, money::write_micros};

/// Asks for the clicks and conversions of a period. Statistics are kept by the hour, so every instant here is the start of
/// an hour (UTC), and an hour counts as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// One goal, or all of the account's.
    pub goal_id: Option<GoalId>,
    /// Only what clicks on this link earned; none: everything, what no click earned among it.
    pub link_id: Option<LinkId>,
    /// When a conversion counts.
    pub basis: Basis,
    /// What groups are made by; none: there are none.
    pub group_by: Option<GroupBy>,
    /// The start of the period before: it ends where the period starts.
    pub before: UnixMillis,
    /// Where the spans of the series start, ascending; the first is the period's start, and is always there.
    pub starts: Vec<UnixMillis>,
    /// The period's end, exclusive.
    pub to: UnixMillis,
}

/// When a conversion counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// When it happened; those that no click earned count, too.
    Conversion,
    /// When the click came that earned it, whenever it happened itself. What no click earned has no such time.
    Click,
}

/// What groups are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The click's link.
    Link,
    /// The goal.
    Goal,
    /// The click's `utm_source`.
    UtmSource,
    /// The click's `utm_medium`.
    UtmMedium,
    /// The click's `utm_campaign`.
    UtmCampaign,
    /// The A/B variant that the click was shown.
    Variant,
    /// The value's currency.
    Currency,
}

impl GroupBy {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Link,
        Self::Goal,
        Self::UtmSource,
        Self::UtmMedium,
        Self::UtmCampaign,
        Self::Variant,
        Self::Currency,
    ];

    /// Its name, of the parameter and of what holds it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Goal => "goal",
            Self::UtmSource => "utm_source",
            Self::UtmMedium => "utm_medium",
            Self::UtmCampaign => "utm_campaign",
            Self::Variant => "variant",
            Self::Currency => "currency",
        }
    }

    /// Whether a click has it: then each click belongs to one group. Otherwise all clicks stand beside every group.
    #[must_use]
    pub fn is_of_clicks(self) -> bool {
        !matches!(self, Self::Goal | Self::Currency)
    }
}

/// The clicks and conversions of a period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversionReport {
    /// The whole period.
    pub whole: Measures,
    /// The period before.
    pub before: Measures,
    /// Its spans, by their starts; those in which nothing happened may be left out.
    pub series: BTreeMap<UnixMillis, Measures>,
    /// Its groups, the one with the most conversions first; what no click earned and what was not worth a group last.
    pub groups: Vec<Group>,
    /// Whether groups were put together since there are too many.
    pub groups_truncated: bool,
}

/// A part of a period's clicks and conversions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they have in common.
    pub key: GroupKey,
    /// What they add up to.
    pub measures: Measures,
}

/// What the clicks and conversions of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupKey {
    /// This link or goal; 0: no link.
    Id(u32),
    /// This text.
    Text(String),
    /// No click earned these.
    Unattributed,
    /// Nothing: what is left over.
    Other,
}

/// What clicks and conversions add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// All clicks, robots among them. A click has no goal.
    pub clicks: u64,
    /// Clicks of people: what rates are made of.
    pub human_clicks: u64,
    /// How many people clicked, about.
    pub visitors: u64,
    /// Conversions that a click earned, by the run of attribution that is in force.
    pub attributed: u64,
    /// How many visitors those are of, about.
    pub converting_visitors: u64,
    /// Conversions that are left after rejections.
    pub net_conversions: u64,
    /// Conversions and their worth. Currencies are never added together.
    pub by_currency: BTreeMap<Currency, CurrencySums>,
    /// How long the attributed ones took; none: there are none.
    pub time_to_convert: Option<TimeToConvert>,
}

/// What was counted in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CurrencySums {
    /// How many conversions.
    pub conversions: u64,
    /// The sum of their values.
    pub value: MoneySum,
    /// What they are worth after all adjustments.
    pub net_value: MoneySum,
}

/// How long it took from click to conversion, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToConvert {
    /// The mean.
    pub average_seconds: u64,
    /// Half took no longer, about.
    pub median_seconds: u64,
    /// Nineteen of twenty took no longer, about.
    pub p95_seconds: u64,
}

impl Measures {
    /// How many conversions.
    #[must_use]
    pub fn conversions(&self) -> u64 {
        self.by_currency.values().map(|sums| sums.conversions).sum()
    }

    /// Attributed conversions of a hundred human clicks; no clicks: 0.
    #[must_use]
    pub fn rate(&self) -> f64 {
        percent(self.attributed, self.human_clicks)
    }

    /// Visitors who converted of a hundred who clicked; nobody clicked: 0.
    #[must_use]
    pub fn unique_rate(&self) -> f64 {
        percent(self.converting_visitors, self.visitors)
    }

    /// The highest value in any one currency: what decides between equal numbers.
    #[must_use]
    pub fn value_max(&self) -> MoneySum {
        self.by_currency.values().map(|sums| sums.value).max().unwrap_or_default()
    }
}

/// To hundredths.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let (part, whole) = (part as f64, whole as f64);
    (part / whole * 10_000.0).round() / 100.0
}

/// A sum or an average of [`super::Money`], in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MoneySum(pub u128);

impl MoneySum {
    /// The mean of `count` values that sum up to this, rounded half up: to hundredths from one unit on, to millionths
    /// below, so that the average of tiny payouts does not vanish.
    #[must_use]
    pub fn average(self, count: u64) -> Self {
        const UNIT: u128 = 1_000_000;
        const HUNDREDTH: u128 = UNIT / 100;
        let count = u128::from(count.max(1));
        let rounded = |step: u128| (self.0.saturating_mul(2) + count * step) / (2 * count * step) * step;
        let exact = rounded(1);
        Self(if exact < UNIT { exact } else { rounded(HUNDREDTH) })
    }

    /// What this is more than `other`, as text, with a minus if it is less.
    #[must_use]
    pub fn less(self, other: Self) -> String {
        let sign = if self < other { "-" } else { "" };
        format!("{sign}{}", Self(self.0.abs_diff(other.0)))
    }
}

impl std::fmt::Display for MoneySum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_micros(f, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_round_half_up() {
        let average = |micros, count| MoneySum(micros).average(count).to_string();
        assert_eq!(average(123_450_000, 12), "10.29");
        assert_eq!(average(3_000_000, 2), "1.50");
        assert_eq!(average(10_000, 3), "0.003333");
        assert_eq!(average(0, 0), "0.00");
    }

    #[test]
    fn differences_have_a_sign() {
        let less = |a, b| MoneySum(a).less(MoneySum(b));
        assert_eq!(less(12_340_000, 2_000_000), "10.34");
        assert_eq!(less(2_000_000, 12_340_000), "-10.34");
        assert_eq!(less(5, 5), "0.00");
    }

    #[test]
    fn rates_are_percentages_to_hundredths() {
        let measures = Measures {
            human_clicks: 48,
            attributed: 6,
            visitors: 3,
            converting_visitors: 4,
            ..Measures::default()
        };
        assert_eq!((measures.rate(), measures.unique_rate()), (12.5, 133.33));
        assert_eq!((Measures::default().rate(), Measures::default().unique_rate()), (0.0, 0.0));
    }
}
