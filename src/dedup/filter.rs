//! The filter in front of everything: 'never seen' or 'maybe'.
//!
//! Bloom filters in shards, so that workers rarely meet at one lock. A shard that has filled up gets a second filter
//! of twice the size and half the error rate, so that the sum of the errors stays below
//! [`FILTER_FALSE_POSITIVE_RATE`] however far it grows.

use bloomfilter::Bloom;
use parking_lot::RwLock;

use crate::core::OrderKey;

/// How often a key that was never seen is 'maybe', at most, with every layer full. Each costs a query, which takes the
/// engine some 4 ms of processor time whatever it asks for: at one in a thousand hits that would be 4 us for every hit, more
/// than to insert it.
pub const FILTER_FALSE_POSITIVE_RATE: f64 = 0.000_15;

const SHARDS: usize = 64;
/// The first layer's keys at least: 64 shards of 128 Ki are 8.4 million keys, 19 MB of which what was never touched takes
/// no memory. Each layer costs every new key a walk to memory or two, more than all else that is done for it in memory; so
/// filters don't begin small and grow.
const SHARD_KEYS_MIN: usize = 128 << 10;
const SNAPSHOT_MAGIC: &[u8; 8] = b"tallyflt";
const SNAPSHOT_VERSION: u8 = 1;

/// A set of keys that may say 'maybe' too often, and 'never' only when it is true.
pub struct Filter {
    shards: Vec<RwLock<Vec<Layer>>>,
}

/// A filter's figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FilterStats {
    /// Keys put in.
    pub keys: u64,
    /// Keys that the layers there are can take before another is added.
    pub capacity: u64,
    /// Memory of the bit tables.
    pub bytes: u64,
}

/// The bytes are not a filter's snapshot, or were broken. Build the filter anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an intact snapshot of the filter")]
pub struct SnapshotError;

struct Layer {
    bloom: Bloom<u128>,
    keys: usize,
    capacity: usize,
}

impl Filter {
    /// An empty filter with room for that many keys before it grows.
    #[must_use]
    pub fn with_capacity(keys: u64) -> Self {
        let shard_keys = usize::try_from(keys.div_ceil(SHARDS as u64)).unwrap_or(usize::MAX);
        Self::with_shards_of(shard_keys.max(SHARD_KEYS_MIN))
    }

    fn with_shards_of(shard_keys: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::new(vec![Layer::new(shard_keys, 0)])).collect() }
    }

    /// Whether the key may have been put in.
    #[must_use]
    pub fn may_contain(&self, key: OrderKey) -> bool {
        self.shard(key).read().iter().any(|layer| layer.bloom.check(&key.0))
    }

    /// Puts a key in. Twice is once, but for the count.
    pub fn insert(&self, key: OrderKey) {
        let mut layers = self.shard(key).write();
        let depth = layers.len();
        let Some(last) = layers.last_mut() else { return };
        last.bloom.set(&key.0);
        last.keys += 1;
        if last.keys >= last.capacity {
            let capacity = last.capacity * 2;
            layers.push(Layer::new(capacity, depth));
        }
    }

    /// Makes room for that many more keys at once, where growing by doubling would take many layers.
    pub fn reserve(&self, keys: u64) {
        let shard_keys = usize::try_from(keys.div_ceil(SHARDS as u64)).unwrap_or(usize::MAX);
        for shard in &self.shards {
            let mut layers = shard.write();
            let depth = layers.len();
            if layers.last().is_some_and(|last| last.capacity - last.keys < shard_keys) {
                layers.push(Layer::new(shard_keys, depth));
            }
        }
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> FilterStats {
        let mut stats = FilterStats { keys: 0, capacity: 0, bytes: 0 };
        for shard in &self.shards {
            for layer in shard.read().iter() {
                stats.keys += layer.keys as u64;
                stats.capacity += layer.capacity as u64;
                stats.bytes += layer.bloom.len() / 8;
            }
        }
        stats
    }

    /// Its bytes. Keys put in meanwhile may or may not be among them.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut bytes = SNAPSHOT_MAGIC.to_vec();
        bytes.push(SNAPSHOT_VERSION);
        for shard in &self.shards {
            let layers = shard.read();
            push_u64(&mut bytes, layers.len());
            for layer in layers.iter() {
                push_u64(&mut bytes, layer.keys);
                push_u64(&mut bytes, layer.capacity);
                push_u64(&mut bytes, layer.bloom.as_slice().len());
                bytes.extend_from_slice(layer.bloom.as_slice());
            }
        }
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The filter whose [`Self::snapshot`] this is.
    pub fn restore(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or(SnapshotError)?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return Err(SnapshotError);
        }
        let mut rest = content.strip_prefix(SNAPSHOT_MAGIC).ok_or(SnapshotError)?;
        rest = rest.strip_prefix(&[SNAPSHOT_VERSION]).ok_or(SnapshotError)?;
        let mut shards = Vec::with_capacity(SHARDS);
        for _ in 0..SHARDS {
            let mut layers = Vec::new();
            for _ in 0..take_u64(&mut rest)? {
                let (keys, capacity) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
                let length = take_u64(&mut rest)?;
                let (table, after) = rest.split_at_checked(length).ok_or(SnapshotError)?;
                rest = after;
                let bloom = Bloom::from_slice(table).map_err(|_| SnapshotError)?;
                // A key takes several bits. A layer that claims room for more would never be full.
                if keys.max(capacity) as u64 > bloom.len() {
                    return Err(SnapshotError);
                }
                layers.push(Layer { bloom, keys, capacity });
            }
            if layers.is_empty() {
                return Err(SnapshotError);
            }
            shards.push(RwLock::new(layers));
        }
        if rest.is_empty() { Ok(Self { shards }) } else { Err(SnapshotError) }
    }

    fn shard(&self, key: OrderKey) -> &RwLock<Vec<Layer>> {
        // The bloom filters hash the key again, so its top bits are free for this.
        let top = usize::try_from(key.0 >> 122).unwrap_or_default();
        &self.shards[top % SHARDS]
    }
}

impl Layer {
    fn new(capacity: usize, depth: usize) -> Self {
        let halvings = i32::try_from(depth + 1).unwrap_or(i32::MAX);
        let rate = FILTER_FALSE_POSITIVE_RATE * 0.5f64.powi(halvings.min(20));
        let bytes = Bloom::<u128>::compute_bitmap_size(capacity, rate);
        // The seed need not be secret, the keys are hashed with a secret already; but its two halves key two hash
        // functions, which must differ.
        let seed = std::array::from_fn(|at| depth.to_le_bytes()[0] ^ at.to_le_bytes()[0]);
        let bloom = Bloom::new_with_seed(bytes, capacity, &seed);
        Self { bloom: bloom.unwrap_or_else(|_| fallback(capacity)), keys: 0, capacity }
    }
}

/// The crate refuses sizes of zero alone, which no layer has.
fn fallback(capacity: usize) -> Bloom<u128> {
    match Bloom::new(capacity.max(64), capacity.max(1)) {
        Ok(bloom) => bloom,
        Err(reason) => unreachable!("a filter of a positive size is refused: {reason}"),
    }
}

fn push_u64(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&(number as u64).to_le_bytes());
}

fn take_u64(bytes: &mut &[u8]) -> Result<usize, SnapshotError> {
    let (number, rest) = bytes.split_first_chunk::<8>().ok_or(SnapshotError)?;
    *bytes = rest;
    usize::try_from(u64::from_le_bytes(*number)).map_err(|_| SnapshotError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key as the keyed hash makes them.
    fn key(n: u64) -> OrderKey {
        use std::hash::Hasher as _;
        let mut hasher = siphasher::sip128::SipHasher13::new();
        hasher.write_u64(n);
        OrderKey(siphasher::sip128::Hasher128::finish128(&hasher).as_u128())
    }

    #[test]
    fn it_never_forgets_and_rarely_errs_also_after_growing() {
        let shard_keys = 16 << 10;
        let filter = Filter::with_shards_of(shard_keys);
        let keys = 2 * SHARDS as u64 * shard_keys as u64;
        (0..keys).for_each(|n| filter.insert(key(n)));
        assert!((0..keys).all(|n| filter.may_contain(key(n))), "a key was forgotten");
        let wrong = (keys..keys + 1_000_000).filter(|&n| filter.may_contain(key(n))).count();
        // The expected number is 110 to 150; by chance it is not above 200.
        assert!(wrong < 200, "{wrong} of 1,000,000 unseen keys are 'maybe': more than 0.015 %");
        let stats = filter.stats();
        assert!(stats.keys == keys && stats.capacity >= keys);
    }

    /// What a released version wrote is read for ever: the layout, how a table is laid out and where a key lies in it.
    #[test]
    fn the_format_stays() {
        let filter = Filter::with_shards_of(64);
        (0..1000).for_each(|n| filter.insert(key(n)));
        let bytes = filter.snapshot();
        assert_golden!("filter-snapshot-1", &bytes);
        let restored = Filter::restore(&bytes).expect("own snapshot");
        assert!((0..1000).all(|n| restored.may_contain(key(n))));
        assert_eq!(restored.stats(), filter.stats());
    }

    #[test]
    fn a_full_layer_costs_at_most_two_and_a_half_bytes_a_key() {
        let stats = Filter::with_capacity(64 * 100_000).stats();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let bytes_per_key = stats.bytes as f64 / stats.capacity as f64;
        assert!(bytes_per_key <= 2.5, "{bytes_per_key} bytes a key");
    }

    #[test]
    fn a_snapshot_is_the_filter_and_a_broken_one_is_refused() {
        let filter = Filter::with_capacity(0);
        (0..50_000).for_each(|n| filter.insert(key(n)));
        let mut bytes = filter.snapshot();
        let restored = Filter::restore(&bytes).expect("own snapshot");
        assert!((0..50_000).all(|n| restored.may_contain(key(n))));
        assert_eq!(restored.stats(), filter.stats());
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        assert!(Filter::restore(&bytes).is_err());
        assert!(Filter::restore(&bytes[..100]).is_err());
        assert!(Filter::restore(b"").is_err());
    }

    /// A snapshot whose shards all have one layer, sealed well.
    fn sealed(keys: u64, capacity: u64, length: Option<u64>, table: &[u8]) -> Vec<u8> {
        let mut bytes = SNAPSHOT_MAGIC.to_vec();
        bytes.push(SNAPSHOT_VERSION);
        for _ in 0..SHARDS {
            let length = length.unwrap_or(table.len() as u64);
            bytes.extend([1, keys, capacity, length].into_iter().flat_map(u64::to_le_bytes));
            bytes.extend_from_slice(table);
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            keys: u64,
            capacity: u64,
            length: Option<u64>,
        ) {
            let _ = Filter::restore(&bytes);
            let nonsense = sealed(keys, capacity, length, &bytes);
            if let Ok(filter) = Filter::restore(&nonsense) {
                let _ = filter.may_contain(key(1));
                let _ = filter.stats();
            }
        }

        /// A good table of which a byte is another, under a good seal.
        #[test]
        fn any_table_is_answered(at: prop::sample::Index, byte: u8) {
            let mut table = Layer::new(64, 0).bloom.as_slice().to_vec();
            let at = at.index(table.len());
            table[at] = byte;
            let _ = Filter::restore(&sealed(0, 64, None, &table)).map(|filter| filter.stats());
        }
    }
}
