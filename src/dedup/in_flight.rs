//! The map of keys that ClickHouse may not know yet, and of those that it learned a short while ago.

use std::{
    collections::VecDeque,
    hash::{BuildHasherDefault, Hasher},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;

use crate::core::{ConversionId, Currency, DedupScope, Money, OrderKey, UnixMillis};

/// How long a settled key stays: retries of networks come within minutes, and a look-up must have ended by then.
const RESIDENCE_MILLIS: i64 = 10 * 60 * 1000;
/// Least time that a settled key stays however many there are: well above a look-up's time limit of a second.
const RESIDENCE_MILLIS_MIN: i64 = 5 * 1000;
/// Settled keys kept for convenience; more leave early.
const SETTLED_MAX: usize = 500_000;

/// Parts of the map that grow by themselves. A part that grows is moved, under its lock, to memory that the system has yet
/// to hand out; of so many each is small enough to be moved within the processor's caches.
const SHARDS: usize = 1024;

/// What is remembered of a copy, to tell whether a later one of its key says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A conversion's value and currency.
    Amount(Money, Currency),
    /// A hash of all that a call said.
    Call(u64),
    /// Nothing: only the key counts, or what counts under it is another record than the one that was kept here.
    Unknown,
}

/// The first copy of a key. When it came, its id says. Small, since there may be millions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First<T> {
    /// The conversion that counts.
    pub id: ConversionId,
    /// What it said.
    pub content: Content,
    /// Its record; `None`: durable since before this start.
    pub ticket: Option<T>,
}

/// What the map said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// The key was free; its record was taken.
    Admitted(First<T>),
    /// The key is taken; whether for good, its ticket says.
    Taken(First<T>),
    /// The map has no room and knows nothing of the key: accept as unverified, outside of the map. Until
    /// [`InFlight::bypassed`] is called, the map counts as incomplete.
    Full,
}

/// A key whose record was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettledKey {
    /// The key.
    pub key: OrderKey,
    /// The conversion that counts: another one than the record's for a late duplicate.
    pub counted: ConversionId,
}

/// Keys with their first copies. Bounded: past its size it takes no more ([`Admission::Full`]).
pub struct InFlight<T> {
    // The keys are hashes with a secret key already.
    map: DashMap<u128, First<T>, BuildHasherDefault<AlreadyHashed>>,
    keys_max: usize,
    /// Keys in the map; counted here, since the map's own count visits all its shards.
    keys: AtomicUsize,
    /// Records below this number may have keys that found no room in the map; 0: all have theirs in it.
    incomplete_below_lsn: AtomicU64,
    /// Records that are being taken without a place in the map: they have no number yet.
    bypassing: AtomicUsize,
    settled: Mutex<VecDeque<(UnixMillis, Vec<OrderKey>)>>,
}

impl<T: Copy> InFlight<T> {
    /// An empty map for that many keys.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self {
            map: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            keys_max,
            keys: AtomicUsize::new(0),
            incomplete_below_lsn: AtomicU64::new(0),
            bypassing: AtomicUsize::new(0),
            settled: Mutex::default(),
        }
    }

    /// Gives the key to a new record, made by `take` under the key's lock, unless it is taken. `is_lost` tells of a
    /// ticket whether its record never became durable: such a key is free.
    pub fn admit<E>(
        &self,
        key: OrderKey,
        scope: DedupScope,
        now: UnixMillis,
        is_lost: impl Fn(T) -> bool,
        take: impl FnOnce() -> Result<First<T>, E>,
    ) -> Result<Admission<T>, E>
    where
        T: Copy,
    {
        match self.map.entry(key.0) {
            Entry::Occupied(mut occupied) => {
                let first = *occupied.get();
                if !is_free(&first, scope, now, is_lost) {
                    return Ok(Admission::Taken(first));
                }
                let first = take()?;
                occupied.insert(first);
                Ok(Admission::Admitted(first))
            }
            Entry::Vacant(vacant) => {
                if self.keys.load(Ordering::Relaxed) >= self.keys_max {
                    // Under the key's lock: whoever is given the key after this sees that the map is incomplete.
                    self.bypassing.fetch_add(1, Ordering::AcqRel);
                    return Ok(Admission::Full);
                }
                let first = take()?;
                vacant.insert(first);
                self.keys.fetch_add(1, Ordering::Relaxed);
                Ok(Admission::Admitted(first))
            }
        }
    }

    /// The first copy of a key, if the map has it and it still stands.
    pub fn get(
        &self,
        key: OrderKey,
        scope: DedupScope,
        now: UnixMillis,
        is_lost: impl Fn(T) -> bool,
    ) -> Option<First<T>> {
        let first = *self.map.get(&key.0)?;
        (!is_free(&first, scope, now, is_lost)).then_some(first)
    }

    /// Whether the map has the key, whatever became of its record.
    pub fn contains(&self, key: OrderKey) -> bool {
        self.map.contains_key(&key.0)
    }

    /// Takes back an unsettled record at start, if there is room; the first of a key stays.
    pub fn recover(&self, key: OrderKey, first: First<T>, log_end_lsn: u64) {
        if self.keys.load(Ordering::Relaxed) >= self.keys_max {
            self.incomplete_below_lsn.fetch_max(log_end_lsn, Ordering::AcqRel);
        } else if let Entry::Vacant(vacant) = self.map.entry(key.0) {
            vacant.insert(first);
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// After [`Admission::Full`]: the record was taken, or not, and its number is below `lsn`.
    pub fn bypassed(&self, lsn: u64) {
        self.incomplete_below_lsn.fetch_max(lsn, Ordering::AcqRel);
        self.bypassing.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether every unsettled key is in the map: only then does 'absent' in ClickHouse prove that a key is new. To be
    /// asked before the look-up, and again where the record is made.
    pub fn is_complete(&self) -> bool {
        self.bypassing.load(Ordering::Acquire) == 0 && self.incomplete_below_lsn.load(Ordering::Acquire) == 0
    }

    /// How many keys the map holds.
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether the map holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// ClickHouse knows these keys now, and every record below `lsn`: the keys may leave after a while.
    pub fn settle(&self, settled: &[SettledKey], lsn: u64, now: UnixMillis) {
        let mut keys = Vec::with_capacity(settled.len());
        for &SettledKey { key, counted } in settled {
            if let Some(mut first) = self.map.get_mut(&key.0) {
                // Of a late duplicate's call nothing is left: another one counts.
                if first.id != counted && matches!(first.content, Content::Call(_)) {
                    first.content = Content::Unknown;
                }
                first.id = counted;
                keys.push(key);
            }
        }
        self.settled.lock().push_back((now, keys));
        let incomplete = self.incomplete_below_lsn.load(Ordering::Acquire);
        if incomplete <= lsn {
            // Where a new bypass came in between, the larger number stays.
            let _ = self.incomplete_below_lsn.compare_exchange(
                incomplete,
                0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
        self.evict(now);
    }

    /// Lets settled keys go whose time has passed.
    pub fn evict(&self, now: UnixMillis) {
        let mut settled = self.settled.lock();
        let mut count: usize = settled.iter().map(|(_, keys)| keys.len()).sum();
        while let Some((since, keys)) = settled.front() {
            let age = now.0.saturating_sub(since.0);
            let due = age >= RESIDENCE_MILLIS || (count > SETTLED_MAX && age >= RESIDENCE_MILLIS_MIN);
            if !due {
                break;
            }
            for key in keys {
                if self.map.remove(&key.0).is_some() {
                    self.keys.fetch_sub(1, Ordering::Relaxed);
                }
            }
            count -= keys.len();
            settled.pop_front();
        }
    }

    /// Visits every key.
    pub fn for_each_key(&self, mut visit: impl FnMut(OrderKey)) {
        for entry in &self.map {
            visit(OrderKey(*entry.key()));
        }
    }
}

fn is_free<T: Copy>(
    first: &First<T>,
    scope: DedupScope,
    now: UnixMillis,
    is_lost: impl Fn(T) -> bool,
) -> bool {
    let expired =
        scope.horizon_millis().is_some_and(|horizon| now.0.saturating_sub(first.id.made_at().0) >= horizon);
    expired || first.ticket.is_some_and(is_lost)
}

/// Passes the low half of a hash on.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        let low = hash & u128::from(u64::MAX);
        self.0 = u64::try_from(low).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const KEY: OrderKey = OrderKey(42);

    fn first(id: u8, at: UnixMillis) -> First<u32> {
        let millis = u64::try_from(at.0).expect("after 1970");
        First {
            id: ConversionId(uuid::Builder::from_unix_timestamp_millis(millis, &[id; 10]).into_uuid()),
            content: Content::Call(id.into()),
            ticket: Some(7),
        }
    }

    fn admit(map: &InFlight<u32>, scope: DedupScope, id: u8, at: UnixMillis, lost: bool) -> Admission<u32> {
        map.admit(KEY, scope, at, |_| lost, || Ok::<_, ()>(first(id, at))).expect("the record is taken")
    }

    #[test]
    fn the_first_wins_and_a_lost_one_frees_its_key() {
        let map = InFlight::new(10);
        assert_eq!(admit(&map, DedupScope::Forever, 1, NOW, false), Admission::Admitted(first(1, NOW)));
        assert_eq!(admit(&map, DedupScope::Forever, 2, NOW, false), Admission::Taken(first(1, NOW)));
        assert_eq!(admit(&map, DedupScope::Forever, 3, NOW, true), Admission::Admitted(first(3, NOW)));
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn a_record_that_is_not_taken_leaves_no_key() {
        let map = InFlight::<u32>::new(10);
        let refused = map.admit(KEY, DedupScope::Forever, NOW, |_| false, || Err("full"));
        assert_eq!(refused, Err("full"));
        assert!(map.is_empty() && map.get(KEY, DedupScope::Forever, NOW, |_| false).is_none());
    }

    #[test]
    fn idempotency_keys_last_a_day() {
        let map = InFlight::new(10);
        admit(&map, DedupScope::Day, 1, NOW, false);
        let before = NOW.plus(24 * 3600 * 1000 - 1);
        assert_eq!(admit(&map, DedupScope::Day, 2, before, false), Admission::Taken(first(1, NOW)));
        let after = NOW.plus(24 * 3600 * 1000);
        assert_eq!(admit(&map, DedupScope::Day, 3, after, false), Admission::Admitted(first(3, after)));
    }

    #[test]
    fn a_full_map_takes_nothing_and_says_that_it_is_not_complete() {
        let map = InFlight::<u32>::new(0);
        let taken = Cell::new(false);
        let admission = map.admit(
            KEY,
            DedupScope::Forever,
            NOW,
            |_| false,
            || {
                taken.set(true);
                Ok::<_, ()>(first(1, NOW))
            },
        );
        assert_eq!((admission, taken.get()), (Ok(Admission::Full), false));
        assert!(!map.is_complete(), "the record may be anywhere");
        map.bypassed(11);
        map.settle(&[], 10, NOW);
        assert!(!map.is_complete(), "record 10 is not settled");
        map.settle(&[], 11, NOW);
        assert!(map.is_complete());
    }

    #[test]
    fn settled_keys_stay_a_while_and_point_to_what_counted() {
        let map = InFlight::new(10);
        admit(&map, DedupScope::Forever, 1, NOW, false);
        let counted = first(9, NOW).id;
        map.evict(NOW.plus(RESIDENCE_MILLIS * 2));
        assert_eq!(map.len(), 1, "an unsettled key never leaves");
        map.settle(&[SettledKey { key: KEY, counted }], 1, NOW);
        let seen = map.get(KEY, DedupScope::Forever, NOW, |_| false).map(|first| (first.id, first.content));
        assert_eq!(seen, Some((counted, Content::Unknown)), "what the late one said is not what counts");
        map.evict(NOW.plus(RESIDENCE_MILLIS));
        assert!(map.is_empty());
    }
}
