//! Helpers of the process tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod engine;
pub mod faults;
pub mod proxy;

use std::{path::Path, time::Duration};

use tally::embedded::EmbeddedConfig;

/// Long enough for a loaded machine; every wait ends at its condition.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// An engine's configuration, run by the program under test.
pub fn config(folder: &Path) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(folder);
    config.program = Some(env!("CARGO_BIN_EXE_tally").into());
    config
}
