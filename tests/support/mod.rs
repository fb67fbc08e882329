//! Helpers of the process tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod accounts;
pub mod bulk;
pub mod command;
pub mod daemon;
pub mod download;
pub mod engine;
pub mod faults;
pub mod gateway;
pub mod grafana;
pub mod hooks;
pub mod http;
pub mod metrics;
pub mod port;
pub mod proxy;
pub mod records;
pub mod seed;
pub mod track;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tally::embedded::EmbeddedConfig;

/// Long enough for a loaded machine; every wait ends at its condition.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// An engine's configuration, run by the program under test.
pub fn config(folder: &Path) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(folder);
    config.program = Some(env!("CARGO_BIN_EXE_tally").into());
    config
}

/// Waits for a condition, at most until the deadline.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_within(DEADLINE, what, condition);
}

/// The same, for what takes longer.
pub fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}
