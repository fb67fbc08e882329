//! Segment files: their names, their headers, and taking their space ahead of time.
//!
//! A segment is `<number, 20 digits>.wal`: a header of 64 bytes (magic, format version, segment number, the log's
//! secret id, checksum), then blocks. Its space is written before its first record: overwriting blocks that exist
//! costs a sync a third less than growing a file, and can't run out of disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::durable_file;

/// Bytes before the first block.
pub(super) const HEADER_BYTES: u64 = HEADER_LENGTH as u64;

const HEADER_LENGTH: usize = 64;

const MAGIC: &[u8; 8] = b"tallywal";
const FORMAT_VERSION: u32 = 1;

/// What stands at the beginning of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    /// The header of segment `number` of log `log_id`.
    Of { number: u64, log_id: u64 },
    /// Written by a newer version of the format.
    Version(u32),
    /// Not a header.
    Damaged,
}

/// Where segment `number` lies.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.wal"))
}

/// The numbers of the segment files in `dir`, in order.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".wal"));
        numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
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
/// pass for blocks of the new number.
pub(super) fn recycle(dir: &Path, old: u64, number: u64, log_id: u64) -> io::Result<File> {
    let beside = dir.join("segment.new");
    std::fs::rename(path(dir, old), &beside)?;
    let file = OpenOptions::new().read(true).write(true).open(&beside)?;
    file.write_all_at(&header(number, log_id), 0)?;
    file.sync_all()?;
    let path = path(dir, number);
    std::fs::rename(&beside, &path)?;
    durable_file::sync_parent(&path)?;
    Ok(file)
}

/// Reads a segment's header.
pub(super) fn read_header(file: &File) -> io::Result<SegmentHeader> {
    let mut bytes = [0; HEADER_LENGTH];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(SegmentHeader::Damaged),
        other => other?,
    }
    let u64_at =
        |at: usize| bytes[at..at + 8].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    let version = bytes[8..12].iter().rev().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
    if &bytes[..8] != MAGIC || crc32fast::hash(&bytes[..60]).to_le_bytes() != bytes[60..] {
        return Ok(SegmentHeader::Damaged);
    }
    if version != FORMAT_VERSION {
        return Ok(SegmentHeader::Version(version));
    }
    Ok(SegmentHeader::Of { number: u64_at(16), log_id: u64_at(24) })
}

fn header(number: u64, log_id: u64) -> [u8; HEADER_LENGTH] {
    let mut bytes = [0; HEADER_LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    bytes[24..32].copy_from_slice(&log_id.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn fill(file: &mut File, number: u64, log_id: u64, bytes: u64) -> io::Result<()> {
    static CHUNK: [u8; 64 << 10] = [0; 64 << 10];
    file.write_all(&header(number, log_id))?;
    let mut left = bytes.saturating_sub(HEADER_BYTES);
    while left > 0 {
        let now = left.min(CHUNK.len() as u64);
        file.write_all(&CHUNK[..usize::try_from(now).unwrap_or(CHUNK.len())])?;
        left -= now;
    }
    file.sync_all()
}
