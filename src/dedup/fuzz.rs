//! Entry for the fuzz target: bytes as a snapshot of the filter.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use super::Filter;
use crate::core::OrderKey;

/// As they are and sealed well. What is restored is snapshot and restored as the same.
pub fn filter_snapshot(data: &[u8]) {
    let sealed = [data, &crc32fast::hash(data).to_le_bytes()].concat();
    for bytes in [data, &sealed] {
        let Ok(filter) = Filter::restore(bytes) else { continue };
        let stats = filter.stats();
        assert!(stats.bytes <= 2 * bytes.len() as u64 + 1024, "memory is bounded by what was read");
        let again = Filter::restore(&filter.snapshot()).expect("own snapshot");
        assert_eq!(again.stats(), stats);
        for key in [0, u128::MAX / 3, u128::MAX] {
            assert_eq!(again.may_contain(OrderKey(key)), filter.may_contain(OrderKey(key)));
        }
    }
}
