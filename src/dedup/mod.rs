//! Which hits are the first of their key.
//!
//! ```text
//! filter ── never seen ────────────────────────────────▶ admit, unless the in-flight map has it
//!    └───── maybe ──▶ in-flight map ── there ─────────▶ duplicate (once the first copy's record is durable)
//!                          └───────── not there ──▶ ClickHouse's key table, many keys a query ──▶ admit / duplicate
//! ```
//!
//! What must hold:
//! - A key is in the map only together with the ticket of its record ([`InFlight::admit`] takes the record under the
//!   map's lock): it becomes known with its record, and is forgotten with it.
//! - A key leaves the map only after its record is settled in ClickHouse and a while has passed, longer than any
//!   look-up takes, so that at every moment the map or the key table knows it.
//! - Where the map could not take a key (it is bounded), 'absent' proves nothing until that record is settled:
//!   [`InFlight::is_complete`] is false, and hits are accepted unverified.

mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod in_flight;
mod key;
mod lookup;

use std::sync::atomic::{AtomicBool, Ordering};

pub use self::{
    filter::{FILTER_FALSE_POSITIVE_RATE, Filter, FilterStats, SnapshotError},
    in_flight::{Admission, Content, First, InFlight, SettledKey},
    key::{KeyHasher, SECRET_BYTES},
    lookup::{KeyRef, KeySource, KnownKey, Lookup, LookupUnavailable},
};
use crate::core::{OrderKey, UnixMillis};

/// The filter and the map together.
pub struct Dedup<T> {
    filter: Filter,
    warm: AtomicBool,
    in_flight: InFlight<T>,
}

impl<T: Copy> Dedup<T> {
    /// Starts with what `filter` holds. Until [`Self::set_warm`], every key may have been seen.
    #[must_use]
    pub fn new(keys_in_flight_max: usize, filter: Filter) -> Self {
        Self { filter, warm: AtomicBool::new(false), in_flight: InFlight::new(keys_in_flight_max) }
    }

    /// The map of keys that ClickHouse may not know yet.
    pub fn in_flight(&self) -> &InFlight<T> {
        &self.in_flight
    }

    /// The filter; it takes keys at any time.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// ClickHouse knows these keys now, and every record below `lsn`. They go into the filter before they may leave the
    /// map: off the hot path, where an insertion costs as much as all else of deduplication.
    pub fn settle(&self, keys: &[SettledKey], lsn: u64, now: UnixMillis) {
        for settled in keys {
            self.filter.insert(settled.key);
        }
        self.in_flight.settle(keys, lsn, now);
    }

    /// False: the key is in the map, or was never seen. True: ask further.
    pub fn may_be_known(&self, key: OrderKey) -> bool {
        !self.is_warm() || self.filter.may_contain(key)
    }

    /// The filter holds every key of the key table now, and each one settled since is put in.
    pub fn set_warm(&self) {
        self.warm.store(true, Ordering::Release);
    }

    /// Whether the filter may be believed.
    pub fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Acquire)
    }
}
