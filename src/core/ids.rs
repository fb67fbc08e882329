//! Newtypes for the things that are counted and named.

use uuid::Uuid;

use super::UnixMillis;

/// The largest integer that leaves the daemon: JavaScript reads every one up to it exactly (2^53 - 1).
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// An account: the border that no query crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u32);

/// A goal: an action worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoalId(pub u32);

/// A link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// A click, ours or the caller's: below 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClickId(pub u64);

impl ClickId {
    /// Stands for a click id that was given and can't be one: no click has it, so the conversion that names it is owed to
    /// none, and is not matched by its visitor either.
    pub const UNUSABLE: Self = Self(0);

    /// Its number as a UUID: the name under which its key is known, where a conversion's key is known by the conversion.
    #[must_use]
    pub fn as_counted(self) -> ConversionId {
        ConversionId(Uuid::from_u128(self.0.into()))
    }
}

/// A batch cut by the shipper: grows with every cut of one data directory, never 0. Below 2^53, but for folders whose ids
/// were used up to there by a clock that was far ahead: those count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

impl BatchId {
    /// The end of the range: what every column and every signed number of a client holds.
    pub const MAX: Self = Self(i64::MAX as u64);
}

/// A conversion's public name: a UUID, version 7 (time-ordered), RFC 9562.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversionId(pub Uuid);

impl ConversionId {
    /// When it was made: the first 48 bits of a UUID of version 7.
    #[must_use]
    pub fn made_at(self) -> UnixMillis {
        let millis = self.0.as_u128() >> 80;
        UnixMillis(i64::try_from(millis).unwrap_or_default())
    }
}

impl std::fmt::Display for ConversionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// An adjustment's public name: a UUID, version 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdjustmentId(pub Uuid);

impl std::fmt::Display for AdjustmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}
