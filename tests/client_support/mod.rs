//! What the clients' tests need: the guide, programs that run its examples, a browser, and a shop for it to visit.
#![allow(unreachable_pub, reason = "as in the other tests' helpers")]

pub mod browser;
pub mod guide;
pub mod page;
pub mod program;

/// Where missing programs come from.
pub const TOOLS: &str = "is everything there? `make test-tools` installs what the tests need";
