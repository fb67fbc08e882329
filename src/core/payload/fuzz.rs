//! Entry for the fuzz target: bytes as a record of the log.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use super::{decode, encode, is_click};
use crate::core::Record;

/// What is read is written and read again as the same record, whatever spelling it came in.
pub fn log_payload(data: &[u8]) {
    let click = is_click(data);
    for bytes in [data.to_vec(), [&[super::VERSION], data].concat()] {
        let Ok(record) = decode(&bytes) else { continue };
        let mut encoded = Vec::new();
        encode(&record, &mut encoded);
        assert_eq!(decode(&encoded).expect("own bytes"), record);
        assert!(encoded.len() <= bytes.len() + 64, "no record grows by being read");
    }
    if click && let Ok(record) = decode(data) {
        assert!(matches!(record, Record::Click(_)));
    }
}
