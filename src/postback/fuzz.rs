//! Entry for the fuzz target: bytes as an entry and a log line of the outbox.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use super::{entry::Entry, log::LogLine};

/// What is read is written and read again as the same.
pub fn outbox_entry(data: &[u8]) {
    for bytes in [data.to_vec(), [&[1], data].concat()] {
        if let Ok(entry) = Entry::decode(&bytes) {
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }
        if let Some(line) = LogLine::decode(&bytes) {
            assert_eq!(LogLine::decode(&line.encode()), Some(line));
        }
    }
}
