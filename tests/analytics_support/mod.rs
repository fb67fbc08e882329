//! Random histories of clicks, conversions and adjustments on a real engine, and the slow obvious model of what reports
//! say about them.
#![allow(unreachable_pub, reason = "as in the other tests' helpers")]

pub mod history;
pub mod model;

use crate::support::engine::NOVEMBER;

pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;
/// Run 1 reaches back to an hour within a day.
pub const SINCE: i64 = NOVEMBER + 4 * DAY + 7 * HOUR;
