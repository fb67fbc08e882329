//! What is asked of the database and what it answers, shared by those who ask and those who look it up.

use super::{
    AccountId, Adjustment, Attribution, Candidate, Conversion, ConversionId, Currency, GoalId, LinkId, Model,
    Net, Refusal, RunId, UnixMillis, money::write_micros, net,
};

/// Why a report could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The database can't be reached or answered too late: the same question may be asked again.
    #[error("the database is not available")]
    Unavailable,
    /// The database refused the question: a defect, logged where it was met.
    #[error("the database refused the query")]
    Refused,
}

/// Asks for the conversions of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversionQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// One goal, or all of the account's.
    pub goal_id: Option<GoalId>,
    /// Only what clicks on this link earned; none: everything, what no click earned among it.
    pub link_id: Option<LinkId>,
    /// The period's start, inclusive: the start of a day in `tz`.
    pub from: UnixMillis,
    /// The period's end, exclusive.
    pub to: UnixMillis,
    /// The IANA time zone whose days are meant, e.g. `UTC`; it is known to exist.
    pub tz: String,
}

/// The clicks and conversions of a period. Points stand in any order; one may stand for an hour or a day; those of one
/// day are added up by the reader, and days on which nothing happened may be left out. Reports over the whole period are
/// the sum of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversionReport {
    /// Clicks: of the link, or of all. A click has no goal.
    pub clicks: Vec<ClickPoint>,
    /// Conversions.
    pub points: Vec<ReportPoint>,
    /// How long the attributed ones took; none: there are none.
    pub time_to_convert: Option<TimeToConvert>,
}

/// Clicks of one span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClickPoint {
    /// When the span starts.
    pub start: UnixMillis,
    /// All clicks, robots among them.
    pub clicks: u64,
    /// Clicks of people: what rates are made of.
    pub human_clicks: u64,
}

/// Conversions of one span of time, in one currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportPoint {
    /// When the span starts.
    pub start: UnixMillis,
    /// How many conversions, and what they are worth.
    pub total: CurrencyTotal,
    /// How many of them a click earned, by the run of attribution that is in force.
    pub attributed: u64,
    /// How many are left after rejections.
    pub net_conversions: u64,
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

/// What was counted in one currency. Currencies are never added together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrencyTotal {
    /// The currency.
    pub currency: Currency,
    /// How many conversions.
    pub conversions: u64,
    /// The sum of their values.
    pub value: MoneySum,
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
}

impl std::fmt::Display for MoneySum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write_micros(f, self.0)
    }
}

/// Asks for refused hits and duplicates, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// One goal, or all of the account's.
    pub goal_id: Option<GoalId>,
    /// One code, or all.
    pub code: Option<String>,
    /// Which page, from 1.
    pub page: u32,
    /// How many a page.
    pub per_page: u32,
}

/// One page of refused hits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalPage {
    /// The page.
    pub refusals: Vec<Refusal>,
    /// How many there are on all pages.
    pub total: u64,
}

/// A conversion as it stands in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConversion {
    /// The conversion.
    pub conversion: Conversion,
    /// What it owes to a click, by the run of attribution that is in force.
    pub attribution: Attribution,
    /// The run that decided so; 0: it was decided when the conversion came.
    pub run: RunId,
    /// What was learned about it since, in the order of acceptance.
    pub adjustments: Vec<Adjustment>,
}

impl StoredConversion {
    /// What it is worth after its adjustments.
    #[must_use]
    pub fn net(&self) -> Net {
        net(self.conversion.value, &self.adjustments)
    }
}

/// The clicks that a conversion could have met, and the rules of the decision in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The clicks, newest first.
    pub clicks: Vec<Candidate>,
    /// Whether there are more, older ones.
    pub is_truncated: bool,
    /// How old a click may be, in seconds.
    pub window_seconds: u32,
    /// Which of several clicks wins.
    pub model: Model,
}

/// What became of a conversion id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConversionLookup {
    /// It counts.
    Counted(Box<StoredConversion>),
    /// It was accepted as unverified and turned out to be a duplicate: it does not count.
    Duplicate {
        /// The goal.
        goal_id: GoalId,
        /// When it came.
        received_at: UnixMillis,
        /// The conversion that counted.
        original: ConversionId,
    },
    /// Not there: never given out, of another account, or not inserted yet.
    Unknown,
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
}
