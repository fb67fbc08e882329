//! What comes in from HTTP, and what goes back.

use std::{net::IpAddr, time::Duration};

use crate::core::{
    AccountId, AdjustmentId, AdjustmentKind, Campaign, ClickId, ClickSource, ConversionId, Currency, GoalId,
    LinkId, Money, OrderId, SUBS, Source, Traffic, UnixMillis,
};

/// A hit of a known goal, parsed and within its limits: what the caller sent, after the goal's defaults.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Whose goal it is.
    pub account_id: AccountId,
    /// What was completed.
    pub goal_id: GoalId,
    /// The caller's order id, if any.
    pub order_id: Option<OrderId>,
    /// `Idempotency-Key`, if any; counts only where there is no order id.
    pub idempotency_key: Option<String>,
    /// The value: the request's, else the goal's, else 0.
    pub value: Money,
    /// The currency: the request's, else the goal's, else USD.
    pub currency: Currency,
    /// The click that the caller names.
    pub click_id: Option<ClickId>,
    /// The visitor's full address; it is reduced to what privacy allows before it is kept.
    pub ip: Option<IpAddr>,
    /// The visitor's user agent.
    pub user_agent: String,
    /// How it came.
    pub source: Source,
    /// When it came.
    pub received_at: UnixMillis,
    /// When it happened.
    pub converted_at: UnixMillis,
    /// The goal's attribution window, in seconds.
    pub window_seconds: u32,
}

/// What became of a submission. The first three are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Counted. `201`.
    New(ConversionId),
    /// Not counted again. `200`.
    Duplicate {
        /// The conversion that counted.
        original: ConversionId,
        /// The first copy had another value or currency.
        conflict: bool,
    },
    /// Kept, and counted if it turns out to be new. `202`.
    Unverified(ConversionId),
    /// A queue, the spool or the disk is full: nothing was kept. `503`.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log has failed: nothing can be promised until the daemon is restarted. `503`.
    Unavailable,
}

/// A click, parsed and within its limits.
#[derive(Clone, Debug)]
pub struct ClickSubmission {
    /// Whose it is.
    pub account_id: AccountId,
    /// The link of the account; none: a click from elsewhere that names none.
    pub link_id: Option<LinkId>,
    /// The caller's own number for it, unique within the account; none: one is issued.
    pub click_id: Option<ClickId>,
    /// When it happened.
    pub clicked_at: UnixMillis,
    /// When it came.
    pub received_at: UnixMillis,
    /// How it came.
    pub source: ClickSource,
    /// Who or what clicked.
    pub traffic: Traffic,
    /// Where the visitor came from.
    pub campaign: Campaign,
    /// The A/B variant that was shown; empty: none.
    pub variant: String,
    /// Free values of the caller; empty: not given.
    pub subs: [String; SUBS],
    /// The visitor's full address; it is reduced to what privacy allows before it is kept.
    pub ip: Option<IpAddr>,
    /// The visitor's user agent; empty: not known.
    pub user_agent: String,
}

/// What became of a click. The first three are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickOutcome {
    /// Counted. `201`.
    New(ClickId),
    /// The account has reported a click of this number before. `200`.
    Duplicate(ClickId),
    /// Kept, and counted if its number turns out to be new. `202`.
    Unverified(ClickId),
    /// A queue, the spool or the disk is full: nothing was kept. `503`.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log has failed: nothing can be promised until the daemon is restarted. `503`.
    Unavailable,
}

/// Whether a copy says what the first of its key said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// It does, as far as it is compared.
    Same,
    /// It does not.
    Different,
    /// Memory does not hold what the first one said; the database does.
    Unknown,
}

/// An adjustment of a conversion that ClickHouse has, parsed and within its limits.
#[derive(Clone, Debug)]
pub struct AdjustmentSubmission {
    /// Whose conversion it is.
    pub account_id: AccountId,
    /// The conversion.
    pub conversion_id: ConversionId,
    /// What it does.
    pub kind: AdjustmentKind,
    /// How much, in the conversion's currency.
    pub value: Option<Money>,
    /// `Idempotency-Key`, if any: unique within the account for 24 hours.
    pub idempotency_key: Option<String>,
    /// The caller's reason, at most 500 bytes.
    pub reason: String,
    /// When it came.
    pub received_at: UnixMillis,
}

/// What became of an adjustment. The first three are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustOutcome {
    /// Applied. `201`.
    New(AdjustmentId),
    /// Not applied: another one came under the same `Idempotency-Key`. `200` where it was the same call, else `422`.
    Duplicate {
        /// The adjustment that was applied.
        original: AdjustmentId,
        /// Whether it was the same call.
        sameness: Sameness,
    },
    /// Kept, and applied if its key turns out to be new. `202`.
    Unverified(AdjustmentId),
    /// A queue, the spool or the disk is full: nothing was kept. `503`.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The log has failed: nothing can be promised until the daemon is restarted. `503`.
    Unavailable,
}
