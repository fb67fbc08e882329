//! A random history of clicks and conversions, a sender that repeats what was not acknowledged, and the slow obvious
//! model of what each conversion must be attributed to.
#![allow(unreachable_pub, reason = "as in the other tests' helpers")]

pub mod api;
pub mod history;
pub mod model;
pub mod stored;
