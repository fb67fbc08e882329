//! `GET /api/v1/analytics/…`: what clicks and conversions add up to.

mod change;
mod conversions;
mod funnel;
mod health;
mod interval;
mod measures;
mod period;
mod variants;

pub(super) use conversions::conversions;
pub(super) use funnel::funnel;
pub(super) use health::health;
pub(super) use variants::variants;
