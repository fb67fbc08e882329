//! What the API asks: always inside one account, always with bound parameters.

mod analytics;
mod candidates;
mod conversions;
mod funnel;
mod health;
mod refusals;
mod variants;

pub(super) use self::conversions::{ADJUSTMENT_COLUMNS, AdjustmentRow, EARNED_COLUMNS, EarnedRow};
use super::Failure;
use crate::core::{GoalId, Source};

fn goal_filter(goal: Option<GoalId>) -> &'static str {
    if goal.is_some() { "AND goal_id = {goal: UInt32}" } else { "" }
}

fn source(name: &str) -> Result<Source, Failure> {
    [Source::Postback, Source::Pixel, Source::Api]
        .into_iter()
        .find(|source| source.as_str() == name)
        .ok_or_else(|| Failure::unreadable("source"))
}
