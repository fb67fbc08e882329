//! Opening: what is there, is it whole, and where does it end.

use std::{fs::File, io, path::Path};

use super::{
    Config, Position, ReadError,
    reader::Reader,
    segment::{self, SegmentHeader},
};

/// Why a log can't be opened. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be used.
    #[error("the log's folder can't be used: {0}")]
    Io(#[from] io::Error),
    /// A segment is damaged, unreadable or from a newer version.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A segment that must be there is not.
    #[error("segment {0} of the log is missing")]
    Missing(u64),
}

/// A log that can be written on.
pub(super) struct Opened {
    pub(super) log_id: u64,
    pub(super) tail: Tail,
    pub(super) segments: Segments,
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

pub(super) fn open(config: &Config, settled: Position) -> Result<Opened, OpenError> {
    let dir = &config.dir;
    std::fs::create_dir_all(dir)?;
    let beside = dir.join("segment.new");
    if beside.exists() {
        std::fs::remove_file(beside)?;
    }
    let mut numbers = segment::list(dir)?;
    if numbers.is_empty() && settled == Position::START {
        let log_id = getrandom::u64().map_err(io::Error::from)?;
        segment::create(dir, 0, log_id, config.segment_bytes)?;
        numbers.push(0);
    }
    let (recyclable, numbers): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|&n| n < settled.segment);
    for (&number, expected) in numbers.iter().zip(settled.segment..) {
        if number != expected {
            return Err(OpenError::Missing(expected));
        }
    }
    if numbers.is_empty() {
        return Err(OpenError::Missing(settled.segment));
    }

    let mut reader = Reader::open(dir, settled)?;
    while let Some(records) = reader.next_block()? {
        reader.skip_block(records);
    }
    let position = reader.position();
    let (live, behind): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|&n| n <= position.segment);
    if reader.finds_block_behind()? || holds_blocks(dir, &behind, position, reader.log_id())? {
        let what = "it ends here, but records follow";
        return Err(ReadError::Damaged { segment: position.segment, offset: position.offset, what }.into());
    }
    let spare = match behind.first() {
        Some(&number) => Some((number, segment::open(dir, number)?)),
        None => None,
    };
    for &number in behind.iter().skip(1) {
        std::fs::remove_file(segment::path(dir, number))?;
    }
    let file = segment::open(dir, position.segment)?;
    // What a sync that failed left in the page cache may have been read as intact: it is acknowledged by now, as
    // recovered, so it must be durable.
    file.sync_data()?;
    Ok(Opened {
        log_id: reader.log_id(),
        tail: Tail { file, position },
        segments: Segments { live, recyclable, spare },
    })
}

/// Whether any of these segments, which should be spares, has records.
fn holds_blocks(dir: &Path, numbers: &[u64], end: Position, log_id: u64) -> Result<bool, OpenError> {
    for &number in numbers {
        let file = segment::open(dir, number)?;
        let header = segment::read_header(&file)?;
        if header != (SegmentHeader::Of { number, log_id }) {
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
