//! Funnels: how many visitors completed one goal after another. The terms of the question and of its answer.
//!
//! # Who is one visitor
//!
//! A conversion has *keys*: where it names a click, the key of the visitor who clicked (or the click itself, where its
//! visitor is not known); otherwise the keys that its visitor has in every epoch that its attribution window touches,
//! the newest first. Without any, nobody can say whose it is, and it is in no funnel.
//!
//! A *way* through the funnel consists of conversions that all share one key. Since keys reach as far back as the
//! attribution window, a way is followed over the end of an epoch as long as it takes no longer than that.
//!
//! Visitors who enter are counted by one key each: that of the first of two epochs, counted in twos from the one in
//! which the period begins. So nobody is counted twice within a period of 30 days, where attribution windows are not
//! shorter than that; over longer periods whoever enters again may be counted once in 60 days.
//!
//! # Which way counts
//!
//! Each conversion of the first goal within the period begins a way; each further step is the first conversion of its
//! goal after the step before it (of two in the same millisecond the order of the goals decides), within the window from
//! the first one. Of a visitor's ways the one that gets furthest counts; of several, the earliest.
//!
//! Strict is `windowFunnel`'s `strict_order`, for each way by itself: it ends where a conversion of a later goal comes
//! before that of the next one. Repeating a step that was passed ends nothing.

use super::{AccountId, GoalId, LinkId, UnixMillis};

/// Fewest goals of a funnel.
pub const FUNNEL_GOALS_MIN: usize = 2;
/// Most goals of a funnel.
pub const FUNNEL_GOALS_MAX: usize = 10;
/// How long the whole way may take where the question does not say: as long as attribution looks back by default, so that
/// the end of an epoch is no obstacle.
pub const FUNNEL_WINDOW_SECONDS_DEFAULT: u32 = 30 * 86_400;
/// The longest that it may take.
pub const FUNNEL_WINDOW_SECONDS_MAX: u32 = 90 * 86_400;

/// Asks how visitors went through goals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// The goals in their order, all different.
    pub goals: Vec<GoalId>,
    /// Only conversions that clicks on this link earned.
    pub link_id: Option<LinkId>,
    /// Ways begin from then on.
    pub from: UnixMillis,
    /// Ways begin before; they may end later.
    pub to: UnixMillis,
    /// How long a way may take from its first step to its last.
    pub window_seconds: u32,
    /// Whether a later goal may not come before the next one.
    pub strict: bool,
}

/// One step of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunnelStep {
    /// The goal.
    pub goal_id: GoalId,
    /// Its conversions in the period, whatever came before them.
    pub conversions: u64,
    /// Of those: by nobody knows whom. They are in no visitor's way.
    pub conversions_without_visitor: u64,
    /// Visitors who came this far.
    pub visitors: u64,
    /// Half of them took no longer from the step before; none: nobody came, or it is the first step.
    pub median_seconds_from_previous: Option<u64>,
}
