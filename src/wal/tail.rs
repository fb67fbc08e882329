//! What stands behind the end of the log: unwritten space, or what is left of a block; and what was set aside of it.
//!
//! A power cut or a kill may leave half a block that was never acknowledged. Damage of a block that was looks the same,
//! unless `durable-end` knows better. So such a tail is never dropped in silence: its bytes are set aside in
//! a file of the log's folder, which the metrics and `tally audit` show for as long as it lies there.
//!
//! ```text
//! torn-<segment>-<offset>.bytes             behind the end of the log at a start; not known to have been acknowledged
//! lost-<segment>-<offset>-<records>.bytes   damage that `tally log salvage` skipped: records that were acknowledged
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    Position,
    block::{self, HEADER_BYTES, Kind},
    segment::{self, Origin},
};
use crate::durable_file;

/// Torn tails that are kept; beyond it the oldest goes.
const TORN_TAILS_MAX: usize = 8;
const CHUNK_BYTES: usize = 1 << 20;

/// What is left of a block behind the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Which segment.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
    /// How many bytes up to the last that is not zero; of a recycled segment, as many as the block would take.
    pub bytes: u64,
    /// How many records its header names, if that is there.
    pub records: Option<u32>,
}

/// Bytes of the log that could not be read as records, kept for an operator until they are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The file.
    pub path: PathBuf,
    /// The segment that they stood in.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
    /// How many acknowledged records are gone with them; `None`: not known to hold an acknowledged one.
    pub records_lost: Option<u64>,
    /// How many bytes.
    pub bytes: u64,
}

/// Everything that lies in the log's folder set aside, oldest segment first.
pub fn set_aside(dir: &Path) -> io::Result<Vec<SetAside>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some((segment, offset, records_lost)) = name.to_str().and_then(parse_name) else { continue };
        let bytes = entry.metadata()?.len();
        found.push(SetAside { path: entry.path(), segment, offset, records_lost, bytes });
    }
    found.sort_by_key(|file| (file.segment, file.offset));
    Ok(found)
}

/// Looks at what stands behind the end of the log. `first_start`: no version that clears tails ran on this folder, so
/// old bytes of a recycled segment may stand there.
pub(super) fn inspect(
    file: &File,
    origin: Origin,
    end: Position,
    first_start: bool,
) -> io::Result<Option<TornTail>> {
    let length = file.metadata()?.len();
    let mut next = [0; HEADER_BYTES];
    let room = usize::try_from(length.saturating_sub(end.offset)).unwrap_or(usize::MAX).min(HEADER_BYTES);
    file.read_exact_at(&mut next[..room], end.offset)?;
    let header = block::header(&next)
        .filter(|header| header.kind == Kind::Records && header.first_lsn == end.lsn && header.records > 0);
    let whole = match header {
        Some(header) => (block::padded(HEADER_BYTES + header.body_bytes) as u64).min(length - end.offset),
        None => length.saturating_sub(end.offset).min((HEADER_BYTES + block::BODY_BYTES_MAX) as u64),
    };
    let torn = |bytes| TornTail {
        segment: end.segment,
        offset: end.offset,
        bytes,
        records: header.map(|header| header.records),
    };
    match origin {
        // Old bytes stand there; only the place of the next header was cleared, with the last write.
        Origin::Recycled => Ok(next.iter().any(|&byte| byte != 0).then(|| torn(whole))),
        Origin::New => {
            let last = last_written(file, end.offset, length)?;
            let old = first_start && header.is_none();
            Ok(last.filter(|_| !old).map(|last| torn((last - end.offset).max(1))))
        }
    }
}

/// Sets a torn tail aside.
pub(super) fn keep_torn(dir: &Path, file: &File, torn: &TornTail) -> io::Result<PathBuf> {
    let path = dir.join(format!("torn-{:020}-{}.bytes", torn.segment, torn.offset));
    copy(file, torn.offset, torn.bytes, &path)?;
    let mut kept: Vec<_> = set_aside(dir)?.into_iter().filter(|file| file.records_lost.is_none()).collect();
    while kept.len() > TORN_TAILS_MAX {
        let oldest = kept.remove(0);
        tracing::warn!(path = %oldest.path.display(), "an older torn tail of the log is removed to make room");
        std::fs::remove_file(oldest.path)?;
    }
    Ok(path)
}

/// Sets damaged bytes aside, whose `records` were acknowledged and are gone.
pub(super) fn keep_lost(
    dir: &Path,
    file: Option<&File>,
    at: (u64, u64),
    bytes: u64,
    records: u64,
) -> io::Result<()> {
    let (segment, offset) = at;
    let path = dir.join(format!("lost-{segment:020}-{offset}-{records}.bytes"));
    match file {
        Some(file) => copy(file, offset, bytes, &path),
        None => durable_file::replace(&path, &[]),
    }
}

/// Makes the space behind the end unwritten again, durably.
pub(super) fn clear(file: &File, origin: Origin, end: Position) -> io::Result<()> {
    let length = file.metadata()?.len();
    let to = match origin {
        Origin::Recycled => length.min(end.offset + HEADER_BYTES as u64),
        Origin::New => last_written(file, end.offset, length)?.unwrap_or(end.offset),
    };
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = end.offset;
    while at < to {
        let now = usize::try_from(to - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write_all_at(&zeros[..now], at)?;
        at += now as u64;
    }
    file.sync_data()
}

/// The place behind the last byte of `from..to` that is not zero.
pub(super) fn last_written(file: &File, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut end = to;
    while end > from {
        let start = end.saturating_sub(CHUNK_BYTES as u64).max(from);
        let bytes = &mut chunk[..usize::try_from(end - start).unwrap_or(CHUNK_BYTES)];
        file.read_exact_at(bytes, start)?;
        if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
            return Ok(Some(start + last as u64 + 1));
        }
        end = start;
    }
    Ok(None)
}

fn copy(file: &File, offset: u64, bytes: u64, path: &Path) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < bytes {
        let now = usize::try_from(bytes - done).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.read_exact_at(&mut chunk[..now], offset + done)?;
        to.write_all(&chunk[..now])?;
        done += now as u64;
    }
    to.sync_all()?;
    std::fs::rename(&beside, path)?;
    durable_file::sync_parent(path)
}

/// The segment, the offset and the lost records that a file's name stands for.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64, Option<u64>)> {
    let stem = name.strip_suffix(".bytes")?;
    let (kind, rest) = stem.split_once('-')?;
    let mut numbers = rest.split('-').map(str::parse::<u64>);
    let (segment, offset) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    match (kind, numbers.next(), numbers.next()) {
        ("torn", None, None) => Some((segment, offset, None)),
        ("lost", Some(records), None) => Some((segment, offset, Some(records.ok()?))),
        _ => None,
    }
}

/// Whether a file of the log's folder is a segment by its name: a name that only looks like one is refused.
pub(super) fn is_segment_name(name: &str) -> Option<Result<u64, ()>> {
    let stem = name.strip_suffix(".wal")?;
    let number = stem.parse::<u64>().map_err(|_| ());
    Some(number.and_then(|number| if segment::file_name(number) == name { Ok(number) } else { Err(()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_gone() {
        assert_eq!(parse_name("torn-00000000000000000007-4096.bytes"), Some((7, 4096, None)));
        assert_eq!(parse_name("lost-00000000000000000007-64-12.bytes"), Some((7, 64, Some(12))));
        for other in ["lost-7-64.bytes", "torn-7-64-1.bytes", "torn-x-1.bytes", "7.wal", "torn-7-64.new"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert_eq!(is_segment_name("00000000000000000007.wal"), Some(Ok(7)));
        assert_eq!(is_segment_name("7.wal"), Some(Err(())));
        assert_eq!(is_segment_name("durable-end"), None);
    }
}
