//! Reading the log in order, block by block, record by record.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Position,
    block::{self, Header, Kind, Seal},
    segment::{self, SegmentHeader},
    shared::Shared,
};

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its number.
    pub lsn: u64,
    /// Its bytes.
    pub payload: &'a [u8],
    /// Where to go on after it.
    pub end: Position,
}

/// Why the log can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk does not answer.
    #[error("segment {segment} of the log can't be read: {source}")]
    Io {
        /// Which segment.
        segment: u64,
        /// The cause.
        source: io::Error,
    },
    /// What stands there was not written by tally, or is broken.
    #[error("segment {segment} of the log is damaged at byte {offset}: {what} (wal/{segment:020}.wal)")]
    Damaged {
        /// Which segment.
        segment: u64,
        /// Where in its file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by a newer tally.
    #[error(
        "segment {segment} of the log has format version {version}, which this version of tally can't read"
    )]
    Version {
        /// Which segment.
        segment: u64,
        /// Its format.
        version: u32,
    },
}

/// Reads records in order. Memory: one block, at most 16 MiB.
pub struct Reader {
    dir: PathBuf,
    log_id: u64,
    /// Where the log is durable; `None`: read as far as blocks are intact.
    shared: Option<Arc<Shared>>,
    file: File,
    window: Window,
    /// The first record wanted.
    from_lsn: u64,
    /// The next record.
    position: Position,
    /// The block that `position` is in: its bytes, and how many of them are read.
    block: Vec<u8>,
    read_bytes: usize,
    /// Where the next block begins.
    next_offset: u64,
}

impl Reader {
    /// Reads a log that nobody may be writing to, up to its last intact block.
    pub fn open(dir: &Path, from: Position) -> Result<Self, ReadError> {
        Self::new(dir, from, None)
    }

    pub(super) fn following(dir: &Path, from: Position, shared: Arc<Shared>) -> Result<Self, ReadError> {
        Self::new(dir, from, Some(shared))
    }

    fn new(dir: &Path, from: Position, shared: Option<Arc<Shared>>) -> Result<Self, ReadError> {
        let (file, log_id) = open_segment(dir, from.segment, None)?;
        Ok(Self {
            dir: dir.to_owned(),
            log_id,
            shared,
            file,
            window: Window::default(),
            from_lsn: from.lsn,
            position: from,
            block: Vec::new(),
            read_bytes: 0,
            next_offset: from.offset,
        })
    }

    /// The next record; `None` at the end, which may move on later.
    #[expect(clippy::should_implement_trait, reason = "an entry borrows the reader, so this is no Iterator")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        loop {
            if self.read_bytes == self.block.len() {
                if self.next_block()?.is_none() {
                    return Ok(None);
                }
                continue;
            }
            let start = self.read_bytes + block::RECORD_HEADER_BYTES;
            let Some((payload, rest)) = block::split_record(&self.block[self.read_bytes..]) else {
                return Err(self.damaged("a record is longer than its block"));
            };
            let (length, left) = (payload.len(), rest.len());
            let lsn = self.position.lsn;
            self.read_bytes = start + length;
            self.position.lsn += 1;
            if left == 0 {
                self.position.offset = self.next_offset;
            }
            if lsn >= self.from_lsn {
                let payload = &self.block[start..start + length];
                return Ok(Some(Entry { lsn, payload, end: self.position }));
            }
        }
    }

    /// Where the next record will be.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    pub(super) fn log_id(&self) -> u64 {
        self.log_id
    }

    /// Goes on to the next block with records, over the ends of segments; `None` at the end.
    pub(super) fn next_block(&mut self) -> Result<Option<u32>, ReadError> {
        loop {
            let end = self.shared.as_ref().map(|shared| shared.durable_end());
            if end.is_some_and(|end| (self.position.segment, self.next_offset) >= (end.segment, end.offset)) {
                return Ok(None);
            }
            let readable =
                end.filter(|end| end.segment == self.position.segment).map_or(u64::MAX, |end| end.offset);
            let Some(header) = self.load(readable)? else {
                return if end.is_some() {
                    Err(self.damaged("a block that was durable is gone"))
                } else {
                    Ok(None)
                };
            };
            // Only the block that reading starts in may begin before the record wanted.
            let expected = self.position.lsn;
            if header.first_lsn != expected && !(header.first_lsn < expected && expected == self.from_lsn) {
                return Err(self.damaged("a block is out of order"));
            }
            match header.kind {
                Kind::Records => {}
                Kind::Seal => {
                    self.next_segment()?;
                    continue;
                }
                Kind::Lost => {
                    self.skip_lost(&header);
                    continue;
                }
            }
            self.position.lsn = header.first_lsn;
            self.position.offset = self.next_offset;
            self.next_offset += block::padded(block::HEADER_BYTES + header.body_bytes) as u64;
            return Ok(Some(header.records));
        }
    }

    /// Counts the current block's records as read: for whoever only checks.
    pub(super) fn skip_block(&mut self, records: u32) {
        self.position.lsn += u64::from(records);
        self.position.offset = self.next_offset;
        self.read_bytes = self.block.len();
    }

    /// Whether an intact block stands anywhere behind the end: then the end is damage, not a torn tail.
    pub(super) fn finds_block_behind(&mut self) -> Result<bool, ReadError> {
        let (seal, segment) = (self.seal(), self.position.segment);
        let found = find_block(&mut self.window, &self.file, self.next_offset, seal, self.position.lsn);
        Ok(found.map_err(io_at(segment))?.is_some())
    }

    /// Goes past records that were damaged.
    fn skip_lost(&mut self, header: &Header) {
        self.position.lsn = self.position.lsn.max(header.first_lsn.saturating_add(u64::from(header.records)));
        self.next_offset += block::padded(block::HEADER_BYTES + header.body_bytes) as u64;
        self.position.offset = self.next_offset;
        self.block.clear();
    }

    /// Loads the block at `next_offset` into `block`; `None` if there is no intact one.
    fn load(&mut self, readable: u64) -> Result<Option<Header>, ReadError> {
        let offset = self.next_offset;
        let seal = self.seal();
        let segment = self.position.segment;
        self.block.clear();
        self.read_bytes = 0;
        let Some(bytes) =
            self.window.at(&self.file, offset, block::HEADER_BYTES, readable).map_err(io_at(segment))?
        else {
            return Ok(None);
        };
        let Some(header) = block::header(bytes) else { return Ok(None) };
        let length = block::HEADER_BYTES + header.body_bytes;
        let Some(whole) = self.window.at(&self.file, offset, length, readable).map_err(io_at(segment))?
        else {
            return Ok(None);
        };
        if !block::is_intact(whole, &header, seal) {
            return Ok(None);
        }
        self.block.extend_from_slice(&whole[block::HEADER_BYTES..]);
        Ok(Some(header))
    }

    fn next_segment(&mut self) -> Result<(), ReadError> {
        let number = self.position.segment + 1;
        (self.file, _) = open_segment(&self.dir, number, Some(self.log_id))?;
        self.window = Window::default();
        self.position = Position { lsn: self.position.lsn, segment: number, offset: segment::HEADER_BYTES };
        self.next_offset = segment::HEADER_BYTES;
        Ok(())
    }

    fn seal(&self) -> Seal {
        Seal { log_id: self.log_id, segment: self.position.segment }
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { segment: self.position.segment, offset: self.next_offset, what }
    }
}

/// The first intact block at or behind `from`, none of whose records stands before `lsn`.
pub(super) fn find_block(
    window: &mut Window,
    file: &File,
    from: u64,
    seal: Seal,
    lsn: u64,
) -> io::Result<Option<(u64, Header)>> {
    let mut offset = from;
    loop {
        let Some(bytes) = window.at(file, offset, block::HEADER_BYTES, u64::MAX)? else { return Ok(None) };
        if let Some(header) = block::header(bytes).filter(|header| header.first_lsn >= lsn) {
            let length = block::HEADER_BYTES + header.body_bytes;
            let whole = window.at(file, offset, length, u64::MAX)?;
            if whole.is_some_and(|whole| block::is_intact(whole, &header, seal)) {
                return Ok(Some((offset, header)));
            }
        }
        offset += block::ALIGNMENT;
    }
}

fn io_at(segment: u64) -> impl Fn(io::Error) -> ReadError {
    move |source| ReadError::Io { segment, source }
}

/// Opens a segment that must exist and belong to the log.
fn open_segment(dir: &Path, number: u64, log_id: Option<u64>) -> Result<(File, u64), ReadError> {
    let io = io_at(number);
    let damaged = |what| ReadError::Damaged { segment: number, offset: 0, what };
    let file = File::open(segment::path(dir, number)).map_err(&io)?;
    match segment::read_header(&file).map_err(&io)? {
        SegmentHeader::Of { number: stored, .. } if stored != number => {
            Err(damaged("its header names another segment"))
        }
        SegmentHeader::Of { log_id: stored, .. } if log_id.is_some_and(|expected| expected != stored) => {
            Err(damaged("it belongs to another log"))
        }
        SegmentHeader::Of { log_id, .. } => Ok((file, log_id)),
        SegmentHeader::Version(version) => Err(ReadError::Version { segment: number, version }),
        SegmentHeader::Damaged => Err(damaged("its header is broken")),
    }
}

/// A stretch of a file in memory, so that small blocks don't cost a system call each.
#[derive(Default)]
pub(super) struct Window {
    bytes: Vec<u8>,
    start: u64,
}

impl Window {
    const BYTES: usize = 256 << 10;

    /// `length` bytes from `offset` on; `None` where the file, or what is `readable` of it, ends before that.
    pub(super) fn at(
        &mut self,
        file: &File,
        offset: u64,
        length: usize,
        readable: u64,
    ) -> io::Result<Option<&[u8]>> {
        let end = offset.saturating_add(length as u64);
        if end > readable {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let wanted = (Self::BYTES.max(length) as u64).min(readable - offset);
            self.bytes.resize(usize::try_from(wanted).unwrap_or(length), 0);
            self.start = offset;
            let mut filled = 0;
            while filled < self.bytes.len() {
                match file.read_at(&mut self.bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.bytes.clear();
                        return Err(error);
                    }
                }
            }
            self.bytes.truncate(filled);
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(at..at.saturating_add(length)))
    }
}
