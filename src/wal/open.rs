//! Opening: what is there, is it whole, and where does it end.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    Config, Position, ReadError, block,
    durable_end::{self, Stored},
    reader::Reader,
    segment::{self, Origin, SegmentHeader},
    tail::{self, TornTail},
};

/// Why a log can't be opened. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be used.
    #[error("the log's folder can't be used: {0}")]
    Io(#[from] io::Error),
    /// A file of it can't be used.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A segment is damaged, unreadable or from a newer version.
    #[error("{0}{remedy}", remedy = if matches!(.0, ReadError::Damaged { .. }) { REMEDY } else { "" })]
    Read(#[from] ReadError),
    /// A segment that must be there is not.
    #[error("segment {0} of the log is missing (wal/{0:020}.wal){REMEDY}")]
    Missing(u64),
    /// A segment lacks its end.
    #[error("{path} has {found} bytes instead of {expected}: the rest of it is gone{REMEDY}", path = path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Its size from the day it was made.
        expected: u64,
        /// What is left.
        found: u64,
    },
    /// Something is named like a segment that can't be one.
    #[error("{path} is named like a segment of the log and is none: move it out of the folder", path = path.display())]
    NotASegment {
        /// The file, folder or link.
        path: PathBuf,
    },
    /// The log ends before records that were acknowledged.
    #[error(
        "segment {segment} of the log ends at byte {offset}, and {records} acknowledged records that stood behind it \
         are gone: its last blocks are damaged (wal/{segment:020}.wal){REMEDY}"
    )]
    Lost {
        /// Which segment.
        segment: u64,
        /// Where the last intact block ends in its file.
        offset: u64,
        /// How many are known to be gone.
        records: u64,
    },
    /// What was known of the log's end can't be read.
    #[error(
        "{path} is damaged: restore it from a backup, or remove it to start without knowing whether the last blocks of \
         the log are all there",
        path = path.display()
    )]
    DurableEnd {
        /// The file.
        path: PathBuf,
    },
    /// The same, written by a newer tally.
    #[error("{path} has format version {version}, which this version of tally can't read", path = path.display())]
    DurableEndVersion {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// `durable-end` and the segments are of two logs.
    #[error("{path} and the segments beside it belong to different logs: restore the folder wal/ as a whole", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// What stands behind the end can't be kept.
    #[error(
        "the damaged tail of segment {segment} can't be set aside in the log's folder, which needs {bytes} bytes: {source}"
    )]
    SetAside {
        /// Which segment.
        segment: u64,
        /// How much room that takes.
        bytes: u64,
        /// The cause.
        source: io::Error,
    },
}

/// What helps where records are damaged.
const REMEDY: &str = "; restore the data folder from a backup, or run `tally log salvage`, which keeps every intact \
                      record and counts those that are gone";

/// A log that can be written on.
pub(super) struct Opened {
    pub(super) log_id: u64,
    pub(super) tail: Tail,
    pub(super) segments: Segments,
    /// What was known of the end before.
    pub(super) stored: Option<Stored>,
}

/// Where writing goes on.
pub(super) struct Tail {
    pub(super) file: File,
    pub(super) position: Position,
}

/// What segment files there are.
pub(super) struct Segments {
    /// From the oldest that is not settled to the one being written.
    pub(super) live: Vec<u64>,
    /// Settled ones.
    pub(super) recyclable: Vec<u64>,
    /// One that is ready but unused.
    pub(super) spare: Option<(u64, File)>,
}

/// Whether the folder has any segment.
pub fn has_segments(dir: &Path) -> Result<bool, OpenError> {
    Ok(!segment::list(dir)?.is_empty())
}

pub(super) fn open(config: &Config, settled: Position) -> Result<Opened, OpenError> {
    let dir = &config.dir;
    std::fs::create_dir_all(dir)?;
    let beside = dir.join("segment.new");
    match std::fs::remove_file(&beside) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(OpenError::File { path: beside, source });
        }
        _ => {}
    }
    let stored = durable_end::read(dir)?;
    if stored.is_none() && settled == Position::START && segment::list(dir)?.is_empty() {
        let log_id = getrandom::u64().map_err(io::Error::from)?;
        segment::create(dir, 0, log_id, config.segment_bytes)?;
    }
    let Examined { log_id, end, origin, live, behind, mut recyclable, torn } =
        examine(dir, config.segment_bytes, settled, stored)?;

    let file = segment::open(dir, end.segment)?;
    if let Some(torn) = torn {
        let path = tail::keep_torn(dir, &file, &torn).map_err(|source| OpenError::SetAside {
            segment: torn.segment,
            bytes: torn.bytes,
            source,
        })?;
        tracing::warn!(
            segment = torn.segment, offset = torn.offset, bytes = torn.bytes, records = torn.records, path = %path.display(),
            "the log ended in a block that is not whole: left by a write that was cut short and never acknowledged, or \
             damaged since; its bytes are set aside"
        );
    }
    tail::clear(&file, origin, end)?;
    let spare = match behind.first() {
        Some(&number) => Some((number, ready_spare(dir, number, log_id)?)),
        None => None,
    };
    for &number in behind.iter().skip(1) {
        std::fs::remove_file(segment::path(dir, number))?;
    }
    // Recycled, a short one would grow with its records.
    recyclable.retain(|&number| segment::check_size(dir, number, config.segment_bytes).is_ok());
    // What a sync that failed left in the page cache may have been read as intact: it is acknowledged by now, as
    // recovered, so it must be durable.
    file.sync_data()?;
    Ok(Opened {
        log_id,
        tail: Tail { file, position: end },
        segments: Segments { live, recyclable, spare },
        stored,
    })
}

/// Whether the log in `dir` could be opened, and what stands behind its end. Changes nothing; for a log that no daemon
/// is writing to.
pub fn check(dir: &Path, segment_bytes: u64, settled: Position) -> Result<Option<TornTail>, OpenError> {
    let stored = durable_end::read(dir)?;
    if stored.is_none() && settled == Position::START && segment::list(dir)?.is_empty() {
        return Ok(None);
    }
    Ok(examine(dir, segment_bytes, settled, stored)?.torn)
}

/// What a log was found to be.
struct Examined {
    log_id: u64,
    end: Position,
    /// Of the segment that it ends in.
    origin: Origin,
    live: Vec<u64>,
    /// Segments behind the end, without a block.
    behind: Vec<u64>,
    recyclable: Vec<u64>,
    torn: Option<TornTail>,
}

/// Reads everything from `settled` on. Only a torn tail is let pass.
fn examine(
    dir: &Path,
    segment_bytes: u64,
    settled: Position,
    stored: Option<Stored>,
) -> Result<Examined, OpenError> {
    let (recyclable, numbers): (Vec<u64>, Vec<u64>) =
        segment::list(dir)?.into_iter().partition(|&number| number < settled.segment);
    for (&number, expected) in numbers.iter().zip(settled.segment..) {
        if number != expected {
            return Err(OpenError::Missing(expected));
        }
    }
    if numbers.is_empty() {
        return Err(OpenError::Missing(settled.segment));
    }
    for &number in &numbers {
        segment::check_size(dir, number, segment_bytes)?;
    }
    let mut reader = Reader::open(dir, settled)?;
    let log_id = reader.log_id();
    if stored.is_some_and(|stored| stored.log_id != log_id) {
        return Err(OpenError::Foreign { path: durable_end::path(dir) });
    }
    while let Some(records) = reader.next_block()? {
        reader.skip_block(records);
    }
    let end = reader.position();
    let (live, behind): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|&n| n <= end.segment);
    if reader.finds_block_behind()? || holds_blocks(dir, &behind, end, log_id)? {
        let what = "it ends here, but records follow";
        return Err(ReadError::Damaged { segment: end.segment, offset: end.offset, what }.into());
    }
    if let Some(known) = stored.map(|stored| stored.end).filter(|known| known.lsn > end.lsn) {
        let records = known.lsn - end.lsn;
        return Err(OpenError::Lost { segment: end.segment, offset: end.offset, records });
    }
    let file = File::open(segment::path(dir, end.segment))?;
    let origin = match segment::read_header(&file)? {
        SegmentHeader::Of { origin, .. } => origin,
        // It was read a moment ago.
        SegmentHeader::Version(_) | SegmentHeader::Damaged => Origin::New,
    };
    let torn = tail::inspect(&file, origin, end, stored.is_none())?;
    Ok(Examined { log_id, end, origin, live, behind, recyclable, torn })
}

/// Opens a segment that is ready to be written. One that a version without `durable-end` recycled is made ready.
fn ready_spare(dir: &Path, number: u64, log_id: u64) -> Result<File, OpenError> {
    let file = segment::open(dir, number)?;
    let mut first = [0; block::HEADER_BYTES];
    file.read_exact_at(&mut first, segment::HEADER_BYTES)?;
    if first.iter().any(|&byte| byte != 0) {
        segment::write_header(&file, number, log_id, Origin::Recycled)?;
    }
    Ok(file)
}

/// Whether any of these segments, which should be spares, has records.
fn holds_blocks(dir: &Path, numbers: &[u64], end: Position, log_id: u64) -> Result<bool, OpenError> {
    for &number in numbers {
        let file = segment::open(dir, number)?;
        let header = segment::read_header(&file)?;
        if !matches!(header, SegmentHeader::Of { number: n, log_id: id, .. } if (n, id) == (number, log_id)) {
            let what = "its header is broken or names another segment";
            return Err(ReadError::Damaged { segment: number, offset: 0, what }.into());
        }
        let start = Position { lsn: end.lsn, segment: number, offset: segment::HEADER_BYTES };
        // A block out of order is a block all the same.
        match Reader::open(dir, start)?.next_block() {
            Ok(None) => {}
            Ok(Some(_)) | Err(ReadError::Damaged { .. }) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
