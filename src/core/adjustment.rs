//! Adjustments: what is learned about a conversion after it was counted. Gross stays; net changes.

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
