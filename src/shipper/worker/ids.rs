//! Batch ids: milliseconds since 2020 and 12 random bits, and always more than the last one.
//!
//! The time keeps folders that share a server apart and lets one read a batch's age off its id; that each id is used once
//! does not depend on it. An id is never clamped: where the range ends, so does the shipper, with an error.

use crate::core::{BatchId, INTEGER_MAX, UnixMillis};

/// 2020-01-01T00:00:00Z, from which the milliseconds in an id are counted: below 2^53 until 2089.
const EPOCH_MILLIS: i64 = 1_577_836_800_000;
const RANDOM_BITS: u32 = 12;

/// The id after `last`; none: the range is at its end. A time that ids of 53 bits can't hold is not taken.
pub(super) fn next(last: BatchId, now: UnixMillis) -> Option<BatchId> {
    let next = last.0.checked_add(1)?;
    let millis = now.0.checked_sub(EPOCH_MILLIS).and_then(|millis| u64::try_from(millis).ok());
    let fresh = millis
        .filter(|millis| *millis <= INTEGER_MAX >> RANDOM_BITS)
        .map_or(0, |millis| (millis << RANDOM_BITS) | u64::from(rand::random::<u16>() & 0xfff));
    Some(BatchId(next.max(fresh))).filter(|id| *id <= BatchId::MAX)
}

/// When a batch was sealed, by its id: of one that counts on from a later one, that one's time.
#[must_use]
pub fn sealed_at(id: BatchId) -> UnixMillis {
    UnixMillis(
        i64::try_from(id.0 >> RANDOM_BITS).map_or(i64::MAX, |millis| millis.saturating_add(EPOCH_MILLIS)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_796_000_000_000);

    #[test]
    fn an_id_tells_its_time_and_counts_on_where_the_clock_is_behind() {
        let first = next(BatchId(0), NOW).expect("one");
        assert_eq!(sealed_at(first), NOW);
        for behind in [NOW.plus(-86_400_000), UnixMillis(0), UnixMillis(i64::MIN), UnixMillis(i64::MAX)] {
            assert_eq!(next(first, behind), Some(BatchId(first.0 + 1)));
        }
    }

    #[test]
    fn a_folder_that_was_used_up_to_2_to_53_counts_on() {
        let stuck = BatchId(INTEGER_MAX);
        let after = next(stuck, NOW).expect("one");
        assert_eq!(after, BatchId(1 << 53));
        assert_eq!(next(after, NOW), Some(BatchId((1 << 53) + 1)));
        assert_eq!(next(BatchId::MAX, NOW), None, "and never repeats one");
        assert_eq!(next(BatchId(u64::MAX), NOW), None);
    }

    proptest! {
        #[test]
        fn ids_grow(times in proptest::collection::vec(any::<i64>(), 1..50), last in 0..=BatchId::MAX.0) {
            let mut last = BatchId(last);
            for at in times {
                let Some(id) = next(last, UnixMillis(at)) else { break };
                prop_assert!(id > last && id <= BatchId::MAX);
                last = id;
            }
        }
    }
}
