//! What was written reads back, and any bytes are answered.

use proptest::prelude::*;

use super::*;
use crate::core::arbitrary;

fn records() -> impl Strategy<Value = Record> {
    prop_oneof![
        (arbitrary::conversions(), any::<bool>())
            .prop_map(|(c, unverified)| Record::Conversion(Conversion { unverified, ..c })),
        arbitrary::clicks().prop_map(Record::Click),
        arbitrary::adjustments().prop_map(Record::Adjustment),
        arbitrary::refusals().prop_map(Record::Refusal),
    ]
}

proptest! {
    #[test]
    fn records_read_back(record in records()) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        prop_assert_eq!(is_click(&bytes), matches!(record, Record::Click(_)));
        prop_assert_eq!(decode(&bytes).expect("own bytes"), record);
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn broken_bytes_are_answered(record in records(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = Vec::new();
        encode(&record, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = decode(&bytes);
    }
}
