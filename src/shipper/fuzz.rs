//! Entries for the fuzz targets: checkpoint, sealed batches, dead letters.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use bytes::Bytes;

use super::{Checkpoint, Content, Cut, dead_letters};
use crate::core::{Record, UnixMillis};

/// Bytes as a checkpoint, as they are and sealed well.
pub fn checkpoint(data: &[u8]) {
    let mut framed = b"tallyCP\x01".to_vec();
    framed.extend_from_slice(data);
    for bytes in [data.to_vec(), sealed(data), sealed(&framed)] {
        if let Ok(read) = Checkpoint::decode(&bytes) {
            assert_eq!(read.encode(), bytes, "one spelling");
        }
    }
}

/// Bytes as a sealed batch: as they are, sealed well, and as header and rows with good framing.
pub fn sealed_batch(data: &[u8]) {
    let mut framed = b"tallyCUT\x01".to_vec();
    let header = usize::from(data.first().copied().unwrap_or_default()) * 4;
    framed.extend_from_slice(&u32::try_from(header).expect("small").to_le_bytes());
    framed.extend_from_slice(data.get(1..).unwrap_or_default());
    for bytes in [data.to_vec(), sealed(data), sealed(&framed)] {
        let Ok(read) = Cut::decode(&Bytes::from(bytes)) else { continue };
        assert_eq!(Cut::decode(&Bytes::from(read.encode())).as_ref(), Ok(&read));
        let _ = (read.inserted(crate::core::Kind::Click), read.late(), read.goals().count());
        if let Ok(content) = read.content() {
            let again = Cut::new(read.batch_id, read.parent, read.origin.clone(), &content);
            assert_eq!(again.content().map(|content| content.records()), Ok(content.records()));
        }
    }
}

/// Bytes as a dead letter. What is read is written and read again as the same.
pub fn dead_letter(data: &[u8]) {
    let Ok(letter) = dead_letters::read("fuzz", data) else { return };
    let dead_letters::Letter::Record(record) = letter else { return };
    if let Record::Refusal(refusal) = &*record {
        let content = Content { refusals: vec![refusal.clone()], ..Content::default() };
        let written = dead_letters::write(&content, "why", Some(1), UnixMillis(0));
        assert_eq!(
            dead_letters::read("fuzz", &written).expect("own bytes"),
            dead_letters::Letter::Record(record)
        );
    }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    bytes
}
