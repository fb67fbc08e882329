//! What is asked of the database and what it answers, shared by those who ask and those who look it up.

use super::{
    AccountId, Adjustment, Attribution, Candidate, Conversion, ConversionId, GoalId, Model, Net, Refusal,
    RunId, UnixMillis, net,
};

/// Why a report could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The database can't be reached or answered too late: the same question may be asked again.
    #[error("the database is not available")]
    Unavailable,
    /// The question costs more time or memory than one may: a narrower one may be asked.
    #[error("the report takes more time or memory than one may")]
    TooExpensive,
    /// The database refused the question: a defect, logged where it was met.
    #[error("the database refused the query")]
    Refused,
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
