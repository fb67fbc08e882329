//! Why a goal's numbers look wrong: findings over counted facts, decided by a pure function ([`examine`]).
//!
//! Every finding has a threshold, so that a healthy goal has none: single refusals and repeated postbacks are part of
//! every day.

mod examine;

use std::collections::BTreeMap;

pub use self::examine::examine;
use super::{AccountId, DUPLICATE, GoalId, Refusal, UnixMillis};

/// Examples of each code of refusal that are shown.
pub const HEALTH_EXAMPLES_MAX: u32 = 3;

/// Asks for the facts of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// One goal, or all of the account's.
    pub goal_id: Option<GoalId>,
    /// The period's start, inclusive.
    pub from: UnixMillis,
    /// The period's end, exclusive.
    pub to: UnixMillis,
}

/// What was counted in the period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthReport {
    /// Conversions that count.
    pub conversions: ConversionFacts,
    /// What became of their attribution, by the run in force.
    pub attribution: AttributionFacts,
    /// What was not counted, by code, the most frequent first; duplicates among it.
    pub refused: Vec<RefusedFacts>,
    /// Clicks of the whole account: a click has no goal.
    pub clicks: ClickFacts,
}

/// Conversions that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConversionFacts {
    /// How many.
    pub count: u64,
    /// When the last one was accepted.
    pub last_received_at: Option<UnixMillis>,
    /// Reported by a server.
    pub by_postback: u64,
    /// Reported by a browser.
    pub by_pixel: u64,
    /// Reported with an API key.
    pub by_api: u64,
    /// With neither an order id nor an `Idempotency-Key`: copies of these are counted again.
    pub without_order_id: u64,
    /// Worth nothing.
    pub without_value: u64,
    /// Of the visitor who has most of them, about.
    pub of_one_visitor: u64,
}

/// What became of the attribution of conversions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttributionFacts {
    /// A click that was named earned them.
    pub by_click_id: u64,
    /// A click of the same address and user agent earned them.
    pub by_ip_user_agent: u64,
    /// No click did, by reason.
    pub unattributed: BTreeMap<&'static str, u64>,
}

/// What was refused under one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFacts {
    /// The error's stable code, or `duplicate`.
    pub code: String,
    /// How many.
    pub count: u64,
    /// Of duplicates: with another value or currency than the first.
    pub conflicts: u64,
    /// Of duplicates: those of the conversion that has most of them, about.
    pub of_one_conversion: u64,
    /// The latest ones, newest first.
    pub examples: Vec<Refusal>,
}

/// Clicks of the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClickFacts {
    /// All, robots among them.
    pub count: u64,
    /// Of people.
    pub human: u64,
    /// Reported without a link.
    pub without_link: u64,
}

/// What is configured, and what the daemon saw since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSetup {
    /// The account's plan has no conversion tracking.
    pub plan_without_tracking: bool,
    /// Goals whose endpoint answered 410 and is not called any more.
    pub postbacks_disabled: u64,
    /// Only sales are looked at: they should have order ids and values.
    pub purchases: bool,
    /// Hits with fields that mean nothing here.
    pub hits_with_ignored_fields: u64,
    /// The names of those fields, the most frequent first.
    pub ignored_fields: Vec<String>,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Numbers are missing or wrong.
    Error,
    /// Numbers are probably incomplete or misleading.
    Warning,
    /// Good to know when reading them.
    Info,
}

impl Severity {
    /// The public name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something that explains why numbers look wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthFinding {
    /// Stable.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is the case, in a plain sentence.
    pub message: String,
    /// What to do about it.
    pub action: &'static str,
}

/// The facts added up, as findings and answers use them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Everything that came: counted, duplicate or refused.
    pub received: u64,
    /// Refused, without duplicates.
    pub refused: u64,
    /// Copies of what was counted.
    pub duplicates: u64,
    /// Copies with another value or currency.
    pub conflicts: u64,
    /// Conversions that a click earned.
    pub attributed: u64,
    /// Conversions that none earned.
    pub unattributed: u64,
    /// Clicks of robots and of browsers that look ahead.
    pub robots: u64,
}

impl Health {
    /// The sums of a report.
    #[must_use]
    pub fn of(report: &HealthReport) -> Self {
        let sum = |duplicates: bool| -> u64 {
            let of = report.refused.iter().filter(|refused| (refused.code == DUPLICATE) == duplicates);
            of.map(|refused| refused.count).sum()
        };
        let (duplicates, refused) = (sum(true), sum(false));
        Self {
            received: report.conversions.count + duplicates + refused,
            refused,
            duplicates,
            conflicts: report.refused.iter().map(|refused| refused.conflicts).sum(),
            attributed: report.attribution.by_click_id + report.attribution.by_ip_user_agent,
            unattributed: report.attribution.unattributed.values().sum(),
            robots: report.clicks.count.saturating_sub(report.clicks.human),
        }
    }
}
