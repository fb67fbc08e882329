//! `GET /api/v1/analytics/…`: what clicks and conversions add up to.

mod conversions;
mod period;

pub(super) use conversions::conversions;
