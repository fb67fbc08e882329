//! Instants, as the domain counts them.

/// Milliseconds since 1970-01-01T00:00:00Z. Always handed in, never read from a clock here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The start of this instant's UTC hour, in seconds since the epoch: the key of the hourly statistics.
    #[must_use]
    pub fn hour_start_seconds(self) -> i64 {
        self.seconds().div_euclid(3600) * 3600
    }

    /// This instant moved by `millis`, kept inside the representable range.
    #[must_use]
    pub fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}
