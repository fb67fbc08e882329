//! Entries for the fuzz targets: blocks, headers and whole segments.
#![expect(clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use std::{fs::OpenOptions, os::unix::fs::FileExt as _};

use super::{
    Position, Reader, SalvageError,
    block::{self, HEADER_BYTES, Kind, Seal},
    check, durable_end, salvage,
    segment::{self, HEADER_LENGTH, Origin},
    tail,
};

const SEAL: Seal = Seal { log_id: 7, segment: 0 };
const SEGMENT_BYTES: u64 = 4096;

/// Bytes as a block, a segment's header and a slot of `durable-end`; and the same bytes as a body, sealed well.
pub fn log_block(data: &[u8]) {
    if let Some(header) = block::header(data) {
        assert!(header.body_bytes <= block::BODY_BYTES_MAX, "bounded");
        let _ = block::is_intact(data, &header, SEAL);
    }
    let mut body = data;
    while let Some((record, rest)) = block::split_record(body) {
        assert_eq!(record.len() + rest.len() + block::RECORD_HEADER_BYTES, body.len());
        body = rest;
    }
    let mut sealed = vec![0; HEADER_BYTES];
    sealed.extend_from_slice(data);
    let kind = [Kind::Records, Kind::Seal, Kind::Lost][data.len() % 3];
    block::finish(&mut sealed, SEAL, kind, 3, u64::MAX);
    let header = block::header(&sealed).expect("its own header");
    assert!(block::is_intact(&sealed, &header, SEAL));
    assert_eq!((header.kind, header.records, header.first_lsn), (kind, 3, u64::MAX));

    if let Some(header) = data.first_chunk::<HEADER_LENGTH>() {
        let _ = segment::decode_header(header);
    }
    if let Ok(stored) = durable_end::decode(data) {
        let slot = durable_end::encode_slot(stored.log_id, stored.end, stored.sequence);
        assert_eq!(durable_end::decode(&slot), Ok(stored));
    }
    if let Ok(name) = std::str::from_utf8(data) {
        let _ = (tail::parse_name(name), tail::is_segment_name(name));
    }
}

/// Bytes as what a segment holds: raw, and as a list of blocks that are sealed well but say anything. Whatever stands
/// there, reading ends, and a log that is salvaged can be opened.
pub fn log_segment(data: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let number = 0;
    segment::create(dir, number, SEAL.log_id, SEGMENT_BYTES).expect("made");
    let file = OpenOptions::new().read(true).write(true).open(segment::path(dir, number)).expect("there");
    if data.first().is_some_and(|byte| byte & 128 != 0) {
        segment::write_header(&file, number, SEAL.log_id, Origin::Recycled).expect("written");
    }
    let mut at = segment::HEADER_BYTES;
    let mut rest = data.get(1..).unwrap_or_default();
    let mut lsn = 0u64;
    while let [what, length, more @ ..] = rest {
        let (body, others) = more.split_at(usize::from(*length).min(more.len()));
        rest = others;
        let room = usize::try_from(SEGMENT_BYTES - at).expect("small");
        let mut bytes = body.to_vec();
        if what & 8 == 0 {
            // A block whose checksum is right; its numbers need not be.
            bytes = vec![0; HEADER_BYTES];
            let mut records = 0;
            for record in body.chunks(16) {
                bytes.extend_from_slice(&u32::try_from(record.len()).expect("small").to_le_bytes());
                bytes.extend_from_slice(record);
                records += 1;
            }
            if what & 16 != 0 {
                bytes.truncate(HEADER_BYTES);
                bytes.extend_from_slice(body);
            }
            let first = lsn.saturating_add(u64::from(what >> 5));
            let kind = [Kind::Records, Kind::Records, Kind::Seal, Kind::Lost][usize::from(what & 3)];
            block::finish(&mut bytes, SEAL, kind, records, first);
            if what & 4 == 0 {
                lsn = first + u64::from(records);
            }
            bytes.resize(block::padded(bytes.len()), 0);
        }
        if bytes.len() > room {
            break;
        }
        file.write_all_at(&bytes, at).expect("written");
        at += block::padded(bytes.len()) as u64;
    }

    let start = Position::START;
    if let Ok(mut reader) = Reader::open(dir, start) {
        let mut last = None;
        while let Ok(Some(entry)) = reader.next() {
            assert!(last.is_none_or(|last| entry.lsn > last), "in order");
            last = Some(entry.lsn);
        }
    }
    let before = check(dir, SEGMENT_BYTES, start);
    let done = match salvage(dir, SEGMENT_BYTES, start, start) {
        // Blocks that no tally writes behind each other.
        Err(SalvageError::Unmendable { .. }) => return assert!(before.is_err()),
        done => done.expect("nothing else of this stops it"),
    };
    if before.is_ok() {
        assert!(done.gaps.is_empty(), "a log that can be opened is left alone: {done:?}");
    }
    check(dir, SEGMENT_BYTES, start).expect("a salvaged log can be opened");
    assert!(salvage(dir, SEGMENT_BYTES, start, start).expect("again").gaps.is_empty());
}
