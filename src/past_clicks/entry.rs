//! What the index is made of: a hash of what a click is looked for by, and where its record is.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::core::{AccountId, ClickId};

/// Bytes of an entry in a file.
pub(super) const ENTRY_BYTES: usize = 16;
const LENGTH_BITS: u32 = 16;
const BY_VISITOR: u64 = 1 << 63;

/// Where a record is, and what the entry finds it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// Ordered by hash; those of one hash in the order in which their records came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) hash: u64,
    pub(super) place: Place,
}

/// The key of this index's hashes: nobody outside can aim at one part of it.
#[derive(Clone, Copy)]
pub(super) struct HashKey(pub(super) u128);

/// It is not for logs.
impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey")
    }
}

impl Place {
    /// The record of `bytes` length at `offset`, which is below 2^47: 140 TB of records.
    pub(super) fn new(offset: u64, bytes: u16, by_visitor: bool) -> Self {
        Self(offset << LENGTH_BITS | u64::from(bytes) | if by_visitor { BY_VISITOR } else { 0 })
    }

    pub(super) fn offset(self) -> u64 {
        (self.0 & !BY_VISITOR) >> LENGTH_BITS
    }

    pub(super) fn bytes(self) -> usize {
        usize::from(self.0.to_le_bytes()[0]) | usize::from(self.0.to_le_bytes()[1]) << 8
    }

    pub(super) fn is_by_visitor(self) -> bool {
        self.0 & BY_VISITOR != 0
    }
}

impl Entry {
    /// The entries of a hash lie between these two.
    pub(super) fn all_of(hash: u64) -> std::ops::RangeInclusive<Self> {
        Self { hash, place: Place(0) }..=Self { hash, place: Place(u64::MAX) }
    }

    pub(super) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        (u128::from(self.hash) | u128::from(self.place.0) << 64).to_le_bytes()
    }

    pub(super) fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [hash, place] = [0, 8].map(|at| std::array::from_fn(|n| bytes[at + n])).map(u64::from_le_bytes);
        Self { hash, place: Place(place) }
    }
}

impl HashKey {
    pub(super) fn of_click(self, account: AccountId, click: ClickId) -> u64 {
        self.hash(account, click.0, 0)
    }

    pub(super) fn of_visitor(self, account: AccountId, visitor: u64) -> u64 {
        self.hash(account, visitor, 1)
    }

    fn hash(self, account: AccountId, number: u64, kind: u8) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0.to_le_bytes());
        hasher.write_u64(number);
        hasher.write_u64(u64::from(account.0) << 8 | u64::from(kind));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for (offset, bytes, by_visitor) in [(0, 0, false), ((1 << 47) - 1, u16::MAX, true), (77, 300, true)] {
            let place = Place::new(offset, bytes, by_visitor);
            assert_eq!((place.offset(), place.bytes()), (offset, usize::from(bytes)));
            assert_eq!(place.is_by_visitor(), by_visitor);
            let entry = Entry { hash: !offset, place };
            assert_eq!(Entry::from_bytes(entry.to_bytes()), entry);
            assert!(Entry::all_of(!offset).contains(&entry));
        }
    }

    #[test]
    fn accounts_and_kinds_have_hashes_of_their_own() {
        let key = HashKey(7);
        let of = [
            key.of_click(AccountId(1), ClickId(5)),
            key.of_click(AccountId(2), ClickId(5)),
            key.of_visitor(AccountId(1), 5),
            key.of_visitor(AccountId(2), 5),
        ];
        assert!((0..4).all(|n| !of[..n].contains(&of[n])));
    }
}
