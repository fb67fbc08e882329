//! Where time comes from, and whether it is believed.
//!
//! The system's clock can be wrong by years: a dead battery, a bad time server, a virtual machine restored. Ids, keys that
//! expire and everything that deletes by age would act on it at once. So the daemon has a clock of its own,
//! [`BelievedClock`], and everything else is handed that one. What it promises:
//!
//! 1. It runs on with the time since the machine's start (`CLOCK_BOOTTIME`, which nobody sets) and follows the system's
//!    clock only while that is within [`DAY_MILLIS`] of what is expected. A jump beyond is reported and not believed,
//!    whichever way it goes; back within a day, the system's clock is believed again by itself.
//! 2. What is expected is kept in the data folder (`clock.json`), so that a restart is no way around it: exactly while the
//!    machine was not restarted meanwhile, and otherwise as a lower bound. A machine that was off may find up to
//!    [`OFF_DAYS_MAX`] days gone.
//! 3. Only an operator (`tally clock confirm`) makes it follow any other jump.
//! 4. It never leaves [`EARLIEST`] to [`END`], between which every format can hold it.
//! 5. What deletes by age asks [`BelievedClock::retention_time`] instead: that one moves at most two days for each day
//!    that the daemon runs, so that even a wrong time that was believed deletes nothing at once.
//!
//! Hits that arrive while the system's clock is not believed are taken as always, at the believed time.

mod believed;
mod file;
mod rule;

use std::sync::Arc;

pub use self::{
    believed::{BelievedClock, ClockError, Observation, confirm, inspect, text},
    rule::{DAY_MILLIS, EARLIEST, END, OFF_DAYS_MAX},
};
use crate::core::UnixMillis;

/// The one source of the present. Handed in, so that every rule about time can be tested.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> UnixMillis;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> UnixMillis {
        C::now(self)
    }
}

/// The system's clock as it is. Nothing but [`BelievedClock`] and tests may act on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is handed")]
    fn now(&self) -> UnixMillis {
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}
