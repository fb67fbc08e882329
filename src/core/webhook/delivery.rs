//! What is kept of attempts, and what is asked of them.

use uuid::Uuid;

use crate::core::{AccountId, ConversionId, GoalId, UnixMillis};

/// An attempt's public name: a UUID, version 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub Uuid);

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// One attempt to tell a goal's owner of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// Whose goal it is.
    pub account_id: AccountId,
    /// The goal.
    pub goal_id: GoalId,
    /// The conversion.
    pub conversion_id: ConversionId,
    /// Which attempt it was, from 1; a replay counts anew.
    pub attempt: u8,
    /// What was answered; none: no answer came.
    pub status: Option<u16>,
    /// Why no answer came, or why it does not count; empty: nothing went wrong with it.
    pub error: String,
    /// From the start of the attempt to its end.
    pub latency_millis: u32,
    /// When it began.
    pub at: UnixMillis,
    /// When the next one is due; none: there is none.
    pub next_attempt_at: Option<UnixMillis>,
    /// The first KB of the answer's body, as text.
    pub answer: String,
}

/// Which attempts are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Whose.
    pub account_id: AccountId,
    /// Of that conversion only.
    pub conversion_id: Option<ConversionId>,
    /// Of that goal only.
    pub goal_id: Option<GoalId>,
    /// Only those that failed.
    pub failed: bool,
    /// From 1.
    pub page: u32,
    /// At most so many.
    pub per_page: u32,
}

/// Some of the attempts, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryPage {
    /// Those of the page.
    pub deliveries: Vec<Delivery>,
    /// How many there are.
    pub total: u64,
}

/// Which conversions are told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackfillQuery {
    /// Whose goal it is.
    pub account_id: AccountId,
    /// The goal.
    pub goal_id: GoalId,
    /// Those that happened from then on,
    pub from: UnixMillis,
    /// and before that.
    pub to: UnixMillis,
    /// At most so many.
    pub limit: u32,
}

/// The conversions of a [`BackfillQuery`], oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backfill {
    /// How many were queued.
    pub queued: u64,
    /// There are more: go on from this moment. Those of the same moment may be told twice, under the same name.
    pub next_from: Option<UnixMillis>,
}

/// What an endpoint answered to a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestAnswer {
    /// The sample's name.
    pub webhook_id: String,
    /// What was answered; none: no answer came.
    pub status: Option<u16>,
    /// Why not; empty: nothing went wrong.
    pub error: String,
    /// How long it took.
    pub latency_millis: u32,
    /// The first KB of the answer's body, as text.
    pub answer: String,
}
