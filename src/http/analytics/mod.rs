//! `GET /api/v1/analytics/…`: what clicks and conversions add up to.

mod change;
mod conversions;
mod interval;
mod measures;
mod period;

pub(super) use conversions::conversions;
