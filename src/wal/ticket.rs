//! What a record's taker holds until it is decided, and what may become of it.

use std::num::NonZeroU64;

use super::spare::Shortage;

/// Stands for a record that was taken: who waits on it learns whether it became durable.
///
/// Eight bytes, also as an `Option`: deduplication keeps one with every key in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(NonZeroU64);

impl Ticket {
    const APPENDER_BITS: u32 = 16;

    /// Batches count from 1 and stay below 2^48: at a million a second, for nine years.
    pub(super) fn new(appender: u16, batch: u64) -> Self {
        let bits = batch << Self::APPENDER_BITS | u64::from(appender);
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    pub(super) fn appender(self) -> usize {
        usize::try_from(self.0.get() & u64::from(u16::MAX)).unwrap_or_default()
    }

    pub(super) fn batch(self) -> u64 {
        self.0.get() >> Self::APPENDER_BITS
    }
}

/// What became of a record by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketStatus {
    /// Not yet synced.
    Pending,
    /// Safe.
    Durable,
    /// Never to be durable: nobody may be told that it is.
    Lost(Lost),
}

/// Why a record that was taken is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// There was no room for it; a later record may fit.
    #[error("the log has no room: {0}")]
    Full(Shortage),
    /// Writing or syncing failed; only a restart helps.
    #[error("the log has failed")]
    Poisoned,
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk does not keep up; try again shortly.
    #[error("the log's queue is full")]
    Overloaded,
    /// There is no room on the disk or in the spool.
    #[error("the log has no room: {0}")]
    Full(Shortage),
    /// Writing or syncing failed; only a restart helps.
    #[error("the log has failed")]
    Poisoned,
    /// The daemon is shutting down.
    #[error("the log is closed")]
    Closed,
    /// Larger than a record may be.
    #[error("the record is too large")]
    TooLarge,
}
