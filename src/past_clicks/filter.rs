//! Which hashes a table does not have: answered from one cache line, without reading the file.

/// Bits for each hash: of those that are not there, about 1 in 100 is looked for in vain.
const BITS_PER_HASH: u64 = 10;
const BLOCK_WORDS: usize = 8;
const PROBES: u32 = 6;

/// A Bloom filter in blocks of 512 bits. The blocks follow the order of the hashes.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<[u64; BLOCK_WORDS]>);

impl Filter {
    pub(super) fn with_capacity(hashes: u64) -> Self {
        let blocks = (hashes * BITS_PER_HASH).div_ceil(512).max(1);
        Self(vec![[0; BLOCK_WORDS]; usize::try_from(blocks).unwrap_or(usize::MAX)])
    }

    pub(super) fn insert(&mut self, hash: u64) {
        let block = self.block(hash);
        let words = &mut self.0[block];
        probes(hash).for_each(|(word, bit)| words[word] |= bit);
    }

    /// `false`: certainly not there.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let words = &self.0[self.block(hash)];
        probes(hash).all(|(word, bit)| words[word] & bit != 0)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `None`: these bytes are no filter.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let (blocks, more) = words.as_chunks::<BLOCK_WORDS>();
        (rest.is_empty() && more.is_empty() && !blocks.is_empty()).then(|| Self(blocks.to_vec()))
    }

    fn block(&self, hash: u64) -> usize {
        let scaled = u128::from(hash) * self.0.len() as u128;
        usize::try_from(scaled >> 64).unwrap_or_default()
    }
}

/// Which bits of its block stand for a hash: other bits of it than those that chose the block.
fn probes(hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash.rotate_left(29);
    (0..PROBES).map(move |n| {
        let bits = (mixed >> (9 * n)) & 511;
        (usize::try_from(bits / 64).unwrap_or_default(), 1 << (bits % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_nothing_and_lets_few_strangers_through() {
        let hash = |n: u64| crate::past_clicks::entry::HashKey(1).of_visitor(crate::core::AccountId(1), n);
        let mut filter = Filter::with_capacity(100_000);
        (0..100_000).for_each(|n| filter.insert(hash(n)));
        let filter = Filter::from_bytes(&filter.to_bytes()).expect("a filter");
        assert!((0..100_000).all(|n| filter.may_contain(hash(n))));
        let strangers = (100_000..200_000).filter(|n| filter.may_contain(hash(*n))).count();
        assert!(strangers < 2500, "{strangers} of 100,000");
        assert!(Filter::from_bytes(&[0; 63]).is_none() && Filter::from_bytes(&[]).is_none());
    }
}
