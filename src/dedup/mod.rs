//! Which hits are the first of their key.
//!
//! ```text
//! filter ── never seen ───────────────────────────────▶ admit
//!    └───── maybe ──▶ in-flight map ── there ─────────▶ duplicate (once the first copy's record is durable)
//!                          └───────── not there ──▶ ClickHouse's key table, many keys a query ──▶ admit / duplicate
//! ```
//!
//! What must hold:
//! - A key is in the map only together with the ticket of its record ([`Dedup::admit`] takes the record under the
//!   map's lock): it becomes known with its record, and is forgotten with it.
//! - A key leaves the map only after its record is settled in ClickHouse and a while has passed, longer than any
//!   look-up takes, so that at every moment the map or the key table knows it.
//! - Where the map could not take a key (it is bounded), 'absent' proves nothing until that record is settled:
//!   [`Dedup::is_complete`] is false, and hits are accepted unverified.

mod filter;
mod in_flight;
mod key;
mod lookup;

use parking_lot::RwLock;

pub use self::{
    filter::{FILTER_FALSE_POSITIVE_RATE, Filter, FilterStats, SnapshotError},
    in_flight::{Admission, First, InFlight, SettledKey},
    key::{KeyHasher, SECRET_BYTES},
    lookup::{KeyRef, KeySource, KnownKey, Lookup, LookupUnavailable},
};
use crate::core::OrderKey;

/// The filter and the map together.
pub struct Dedup<T> {
    filter: RwLock<Option<Filter>>,
    in_flight: InFlight<T>,
}

impl<T: Copy> Dedup<T> {
    /// Knows nothing yet: until [`Self::warmed`], every key may have been seen.
    #[must_use]
    pub fn new(keys_in_flight_max: usize) -> Self {
        Self { filter: RwLock::new(None), in_flight: InFlight::new(keys_in_flight_max) }
    }

    /// The map of keys that ClickHouse may not know yet.
    pub fn in_flight(&self) -> &InFlight<T> {
        &self.in_flight
    }

    /// False: the key was never seen. True: ask further.
    pub fn may_be_known(&self, key: OrderKey) -> bool {
        self.filter.read().as_ref().is_none_or(|filter| filter.may_contain(key))
    }

    /// Remembers a key that was admitted.
    pub fn note(&self, key: OrderKey) {
        if let Some(filter) = &*self.filter.read() {
            filter.insert(key);
        }
    }

    /// Puts a filter in charge that holds every key of the key table; the map's keys are added to it first.
    pub fn warmed(&self, filter: Filter) {
        let mut place = self.filter.write();
        // Under the write lock nobody notes a key, and each key noted before is in the map: none is missed.
        self.in_flight.for_each_key(|key| filter.insert(key));
        *place = Some(filter);
    }

    /// Whether a filter is in charge.
    pub fn is_warm(&self) -> bool {
        self.filter.read().is_some()
    }

    /// The filter's figures; `None` until it is warm.
    pub fn filter_stats(&self) -> Option<FilterStats> {
        self.filter.read().as_ref().map(Filter::stats)
    }

    /// The filter's bytes, for the next start; `None` until it is warm.
    pub fn filter_snapshot(&self) -> Option<Vec<u8>> {
        self.filter.read().as_ref().map(Filter::snapshot)
    }
}
