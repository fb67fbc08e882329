//! Entries for the fuzz targets: the index of clicks on disk.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use super::{
    filter::Filter,
    manifest::Manifest,
    record::{self, Row, SharedLabels},
    table::Table,
};

/// Bytes as a table, raw and with a good checksum behind a good footer; as a manifest; as a filter; as a record.
pub fn click_index(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.table");
    let mut framed = data.to_vec();
    // Without entries, with two buckets: what is left is the filter.
    let filter_bytes = (data.len() as u64).saturating_sub(16);
    for word in [u64::from_le_bytes(*b"tallyck1"), 0, 1, filter_bytes] {
        framed.extend_from_slice(&word.to_le_bytes());
    }
    framed.extend_from_slice(&crc32fast::hash(&framed).to_le_bytes());
    for bytes in [data, &framed] {
        std::fs::write(&path, bytes).expect("written");
        let Ok(table) = Table::open(&path) else { continue };
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for hash in [0, u64::MAX / 3, u64::MAX] {
            let _ = table.find(hash, &mut buffer, &mut found);
        }
        assert!(table.scan().take(100_000).count() as u64 <= table.entries() + 2);
    }
    if let Some(filter) = Filter::from_bytes(data) {
        assert_eq!(filter.to_bytes(), data);
        let _ = filter.may_contain(u64::MAX);
    }
    let crc = format!("{:08x}\n", crc32fast::hash(data));
    let manifest = folder.path().join(super::manifest::MANIFEST_FILE);
    for bytes in [data.to_vec(), [crc.as_bytes(), data].concat()] {
        std::fs::write(&manifest, bytes).expect("written");
        if let Some(read) = Manifest::load(folder.path()) {
            read.save(folder.path()).expect("saved");
            assert_eq!(Manifest::load(folder.path()), Some(read));
        }
    }
    let mut shared = SharedLabels::default();
    let crc = crc32fast::hash(data).to_le_bytes();
    for bytes in [data.to_vec(), [&crc, data].concat()] {
        let Ok(click) = record::decode(&bytes, 5, &mut shared) else { continue };
        let mut again = Vec::new();
        let length = record::encode(&Row::from(&click), &mut again);
        assert_eq!(usize::from(length), again.len());
        let read = record::decode(&again, 5, &mut SharedLabels::default()).expect("own bytes");
        assert_eq!(read, click);
    }
}
