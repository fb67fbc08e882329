//! A daemon of its own for a test, requests to it byte by byte, and faults on order.

pub mod daemon;
pub mod shim;
pub mod wire;

use std::time::{Duration, Instant};

/// Long enough for a loaded machine; every wait ends at its condition.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// Waits for a condition, at most until the deadline.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
