//! What comes in from HTTP, and what goes back.

use std::{net::IpAddr, time::Duration};

use crate::core::{AccountId, ClickId, ConversionId, Currency, GoalId, Money, OrderId, Source, UnixMillis};

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
