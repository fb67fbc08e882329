//! The block: what one group commit writes.
//!
//! ```text
//! body_bytes u32 | records u32 | first_lsn u64 | kind u32 | crc32 u32 | body: (length u32, payload) x records
//! ```
//!
//! Little endian. The checksum covers everything else in the block, and is seeded with the log's secret id and the
//! segment's number: neither the old bytes of a recycled file nor a payload that imitates a block can pass for one.
//! A block of kind [`Kind::Seal`] ends a segment; one of kind [`Kind::Lost`] stands where `tally log salvage` found
//! damage. Blocks begin at multiples of 8 bytes, the space between is zero. With every block the place of the next one's
//! header is written as zeros: behind the end of the log the space is plainly unwritten, in recycled files too.

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 24;
/// Largest body: a bound on what one group and one read hold in memory.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// Where blocks may begin.
pub(super) const ALIGNMENT: u64 = 8;
/// Bytes before each record.
pub(super) const RECORD_HEADER_BYTES: usize = 4;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Holds records.
    Records,
    /// The segment ends here.
    Seal,
    /// Stands for records that were damaged; its body is whatever was found in their place.
    Lost,
}

/// A block's header, checked for plausibility but not yet against the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) body_bytes: usize,
    pub(super) records: u32,
    pub(super) first_lsn: u64,
    pub(super) kind: Kind,
    crc: u32,
}

/// Seeds the checksum of one segment's blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    pub(super) log_id: u64,
    pub(super) segment: u64,
}

/// The bytes that a block of `bytes` takes in the file.
pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// Fills in the header of `block`, whose first [`HEADER_BYTES`] are room for it and whose rest is the body.
pub(super) fn finish(block: &mut [u8], seal: Seal, kind: Kind, records: u32, first_lsn: u64) {
    let body_bytes = u32::try_from(block.len() - HEADER_BYTES).unwrap_or(u32::MAX);
    block[0..4].copy_from_slice(&body_bytes.to_le_bytes());
    block[4..8].copy_from_slice(&records.to_le_bytes());
    block[8..16].copy_from_slice(&first_lsn.to_le_bytes());
    let kind_code: u32 = match kind {
        Kind::Records => 1,
        Kind::Seal => 2,
        Kind::Lost => 3,
    };
    block[16..20].copy_from_slice(&kind_code.to_le_bytes());
    let crc = checksum(block, seal);
    block[20..24].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a header; `None` if no block can start with these bytes.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
    let u32_at =
        |at: usize| bytes[at..at + 4].iter().rev().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
    let first_lsn = bytes[8..16].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let kind = match u32_at(16) {
        1 => Kind::Records,
        2 => Kind::Seal,
        3 => Kind::Lost,
        _ => return None,
    };
    let body_bytes = usize::try_from(u32_at(0)).ok().filter(|&bytes| bytes <= BODY_BYTES_MAX)?;
    Some(Header { body_bytes, records: u32_at(4), first_lsn, kind, crc: u32_at(20) })
}

/// Whether `block` (header and body) is what its checksum says.
pub(super) fn is_intact(block: &[u8], header: &Header, seal: Seal) -> bool {
    block.len() == HEADER_BYTES + header.body_bytes && checksum(block, seal) == header.crc
}

/// Splits the first record off a body; `None` if the body does not hold one.
pub(super) fn split_record(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn checksum(block: &[u8], seal: Seal) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seal.log_id.to_le_bytes());
    hasher.update(&seal.segment.to_le_bytes());
    hasher.update(&block[..20]);
    hasher.update(&block[HEADER_BYTES..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEAL: Seal = Seal { log_id: 7, segment: 3 };

    fn block(body: &[u8]) -> Vec<u8> {
        let mut block = vec![0; HEADER_BYTES];
        block.extend_from_slice(body);
        finish(&mut block, SEAL, Kind::Records, 1, 42);
        block
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_seen(body in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8) {
            let mut bytes = block(&body);
            let intact = header(&bytes).expect("own header");
            prop_assert!(is_intact(&bytes, &intact, SEAL));
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            let seen = header(&bytes).is_none_or(|header| !is_intact(&bytes, &header, SEAL));
            prop_assert!(seen);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(header) = header(&bytes) {
                let _ = is_intact(&bytes, &header, SEAL);
            }
            let _ = split_record(&bytes);
        }
    }

    /// What a released version wrote is read for ever: a change of these bytes needs a new version and both readers.
    #[test]
    fn the_format_stays() {
        let bytes = block(b"\x02\0\0\0hi");
        assert_golden!("log-block-1", &bytes);
        for (kind, code) in [(Kind::Records, 1), (Kind::Seal, 2), (Kind::Lost, 3)] {
            let mut bytes = vec![0; HEADER_BYTES];
            finish(&mut bytes, SEAL, kind, 0, 42);
            assert_eq!((bytes[16], header(&bytes).map(|header| header.kind)), (code, Some(kind)));
        }
        assert_eq!(split_record(&bytes[HEADER_BYTES..]), Some((&b"hi"[..], &b""[..])));
    }

    #[test]
    fn another_segment_or_log_does_not_pass() {
        let bytes = block(b"body");
        let header = header(&bytes).expect("own header");
        assert!(!is_intact(&bytes, &header, Seal { segment: 4, ..SEAL }));
        assert!(!is_intact(&bytes, &header, Seal { log_id: 8, ..SEAL }));
    }
}
