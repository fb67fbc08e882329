//! Segment files: their names, their headers, and taking their space ahead of time.
//!
//! A segment is `<number, 20 digits>.wal`: a header of 64 bytes, then blocks. Its space is written before its first
//! record: overwriting blocks that exist costs a sync a third less than growing a file, and can't run out of disk.
//!
//! ```text
//! "tallywal" | version u32 | flags u32 (1: recycled) | number u64 | log_id u64 | 28 zeros | crc32 u32     little-endian
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{OpenError, block, tail};
use crate::durable_file;

/// Bytes before the first block.
pub(super) const HEADER_BYTES: u64 = HEADER_LENGTH as u64;

pub(super) const HEADER_LENGTH: usize = 64;

const MAGIC: &[u8; 8] = b"tallywal";
const FORMAT_VERSION: u32 = 1;
const FLAG_RECYCLED: u32 = 1;

/// What stands at the beginning of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    /// The header of segment `number` of log `log_id`.
    Of { number: u64, log_id: u64, origin: Origin },
    /// Written by a newer version of the format.
    Version(u32),
    /// Not a header.
    Damaged,
}

/// What stands in a segment's unwritten space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Zeros.
    New,
    /// What the file held under its older number, but for zeros where the next block's header will be. Versions before
    /// `durable-end` set no flag and no zeros: such a segment counts as new.
    Recycled,
}

/// The name of segment `number`.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:020}.wal")
}

/// Where segment `number` lies.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}

/// The numbers of the segment files in `dir`, in order. What only looks like one is refused: a folder, a link (renamed,
/// it would take another file's place), a name that no segment has.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, OpenError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(tail::is_segment_name) else { continue };
        let (Ok(number), true) = (number, entry.file_type()?.is_file()) else {
            return Err(OpenError::NotASegment { path: entry.path() });
        };
        numbers.push(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Refuses a segment that is shorter than every segment is from the beginning: the rest of it is gone.
pub(super) fn check_size(dir: &Path, number: u64, expected: u64) -> Result<(), OpenError> {
    let path = path(dir, number);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() >= expected => Ok(()),
        Ok(metadata) => Err(OpenError::Short { path, expected, found: metadata.len() }),
        Err(source) => Err(OpenError::File { path, source }),
    }
}

/// Opens a segment for reading and writing.
pub(super) fn open(dir: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path(dir, number))
}

/// Makes segment `number`, its space written and durable, its name too.
pub(super) fn create(dir: &Path, number: u64, log_id: u64, bytes: u64) -> io::Result<File> {
    let beside = dir.join("segment.new");
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let filled = fill(&mut file, number, log_id, bytes);
    if let Err(error) = filled {
        // Half a segment must not keep the space that the rest of the machine is short of.
        let _ = std::fs::remove_file(&beside);
        return Err(error);
    }
    let path = path(dir, number);
    std::fs::rename(&beside, &path)?;
    durable_file::sync_parent(&path)?;
    Ok(file)
}

/// Makes segment `number` of a settled one: the file is renamed and given a new header; its old bytes stay, and can't
/// pass for blocks of the new number. Only the place of the first block's header is cleared, so that the segment's end
/// is plainly unwritten.
pub(super) fn recycle(dir: &Path, old: u64, number: u64, log_id: u64) -> io::Result<File> {
    let beside = dir.join("segment.new");
    std::fs::rename(path(dir, old), &beside)?;
    let file = OpenOptions::new().read(true).write(true).open(&beside)?;
    write_header(&file, number, log_id, Origin::Recycled)?;
    let path = path(dir, number);
    std::fs::rename(&beside, &path)?;
    durable_file::sync_parent(&path)?;
    Ok(file)
}

/// Gives a segment a header, durably, and makes it empty.
pub(super) fn write_header(file: &File, number: u64, log_id: u64, origin: Origin) -> io::Result<()> {
    let mut bytes = header(number, log_id, origin).to_vec();
    bytes.extend_from_slice(&[0; block::HEADER_BYTES]);
    file.write_all_at(&bytes, 0)?;
    file.sync_all()
}

/// Gives a segment its header again, and leaves its blocks alone.
pub(super) fn rewrite_header(file: &File, number: u64, log_id: u64) -> io::Result<()> {
    // What stands behind its blocks is not known: as in a recycled one.
    file.write_all_at(&header(number, log_id, Origin::Recycled), 0)?;
    file.sync_all()
}

/// Reads a segment's header.
pub(super) fn read_header(file: &File) -> io::Result<SegmentHeader> {
    let mut bytes = [0; HEADER_LENGTH];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(SegmentHeader::Damaged),
        other => other?,
    }
    Ok(decode_header(&bytes))
}

pub(super) fn decode_header(bytes: &[u8; HEADER_LENGTH]) -> SegmentHeader {
    let u64_at =
        |at: usize| bytes[at..at + 8].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let u32_at =
        |at: usize| bytes[at..at + 4].iter().rev().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
    if &bytes[..8] != MAGIC || crc32fast::hash(&bytes[..60]).to_le_bytes() != bytes[60..] {
        return SegmentHeader::Damaged;
    }
    if u32_at(8) != FORMAT_VERSION {
        return SegmentHeader::Version(u32_at(8));
    }
    let origin = if u32_at(12) & FLAG_RECYCLED == 0 { Origin::New } else { Origin::Recycled };
    SegmentHeader::Of { number: u64_at(16), log_id: u64_at(24), origin }
}

fn header(number: u64, log_id: u64, origin: Origin) -> [u8; HEADER_LENGTH] {
    let mut bytes = [0; HEADER_LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let flags = if origin == Origin::Recycled { FLAG_RECYCLED } else { 0 };
    bytes[12..16].copy_from_slice(&flags.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes[24..32].copy_from_slice(&log_id.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn fill(file: &mut File, number: u64, log_id: u64, bytes: u64) -> io::Result<()> {
    file.write_all(&header(number, log_id, Origin::New))?;
    write_zeros(file, bytes.saturating_sub(HEADER_BYTES))?;
    file.sync_all()
}

fn write_zeros(file: &mut File, bytes: u64) -> io::Result<()> {
    static CHUNK: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK.len() as u64);
        file.write_all(&CHUNK[..usize::try_from(now).unwrap_or(CHUNK.len())])?;
        left -= now;
    }
    Ok(())
}

/// Gives a segment that was cut short its size again, in zeros, durably.
pub(super) fn lengthen(file: &mut File, bytes: u64) -> io::Result<()> {
    let length = file.seek(io::SeekFrom::End(0))?;
    write_zeros(file, bytes.saturating_sub(length))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a released version wrote is read for ever: a change of these bytes needs a new version and both readers.
    #[test]
    fn the_format_stays() {
        let new = header(7, 0x0102_0304_0506_0708, Origin::New);
        assert_golden!("log-segment-header-1", &new);
        let recycled = header(7, 0x0102_0304_0506_0708, Origin::Recycled);
        assert_golden!("log-segment-header-recycled-1", &recycled);
        for (bytes, origin) in [(new, Origin::New), (recycled, Origin::Recycled)] {
            let read = SegmentHeader::Of { number: 7, log_id: 0x0102_0304_0506_0708, origin };
            assert_eq!(decode_header(&bytes), read);
        }
    }
}
