//! What an operator asks for where a start was refused: every intact record is kept, and what is gone is counted.
//!
//! A stretch of damage becomes one block of kind [`Kind::Lost`], which stands for the records that were there; readers go
//! past it. Before anything is written, the damaged bytes are set aside. A segment that is missing, that lacks its end or
//! its header, gets them again. Running it twice changes nothing the second time.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    OpenError, Position,
    block::{self, HEADER_BYTES, Header, Kind, Seal},
    durable_end,
    reader::{Window, find_block},
    segment::{self, SegmentHeader},
    tail,
};

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Each stretch of damage.
    pub gaps: Vec<Gap>,
    /// Segments that were missing, or got their size or header again.
    pub segments_mended: Vec<u64>,
}

/// A stretch of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// In which segment.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
    /// How long.
    pub bytes: u64,
    /// How many records are gone.
    pub records: u64,
}

/// Why the log can't be salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The folder or what it says of the log's end.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file of it.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No header is left, and no `durable-end`: without the log's id, no block can be told from old bytes.
    #[error(
        "no segment of the log has an intact header: its records can't be recognised; restore the folder from a backup"
    )]
    NoLogId,
    /// A segment of another log.
    #[error("{path} belongs to another log: move it out of the folder", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Blocks stand where no tally writes them.
    #[error("{path} holds blocks from byte {offset} on that can't follow each other; restore the folder from a backup", path = path.display())]
    Unmendable {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// A segment of a newer format.
    #[error("{path} has format version {version}, which this version of tally can't read", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
}

/// Makes a log that can be opened of one that can't. `known_end`: up to where it is known to have been durable, by what
/// the caller has; what `durable-end` says is known besides. No daemon may run on it.
pub fn salvage(
    dir: &Path,
    segment_bytes: u64,
    settled: Position,
    known_end: Position,
) -> Result<Salvage, SalvageError> {
    let stored = durable_end::read(dir)?;
    let numbers: Vec<u64> = segment::list(dir)?.into_iter().filter(|&n| n >= settled.segment).collect();
    let log_id = log_id(dir, &numbers, stored.map(|stored| stored.log_id))?;
    let known_end = stored.map_or(known_end, |stored| known_end.max(stored.end));
    let mut work = Work { dir, segment_bytes, log_id, salvage: Salvage::default() };
    let mut last = known_end.segment.max(settled.segment);
    for &number in &numbers {
        if number > last && work.first_block(number, 0)?.is_some() {
            last = number;
        }
    }
    for number in settled.segment..=last {
        work.mend_file(number)?;
    }
    let mut at = settled;
    loop {
        at = work.segment(at, settled, last, known_end)?;
        if at.segment > last {
            // The last segment was ended: the next one is there from then on.
            work.mend_file(at.segment)?;
            return Ok(work.salvage);
        }
        if at.offset == 0 {
            return Ok(work.salvage);
        }
    }
}

struct Work<'a> {
    dir: &'a Path,
    segment_bytes: u64,
    log_id: u64,
    salvage: Salvage,
}

impl Work<'_> {
    /// Gives a segment what it lacks of file, size and header.
    fn mend_file(&mut self, number: u64) -> Result<(), SalvageError> {
        let path = segment::path(self.dir, number);
        let at = |source| SalvageError::File { path: path.clone(), source };
        let mut file = match segment::open(self.dir, number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                segment::create(self.dir, number, self.log_id, self.segment_bytes).map_err(at)?;
                self.salvage.segments_mended.push(number);
                return Ok(());
            }
            opened => opened.map_err(at)?,
        };
        let mut mended = false;
        if file.metadata().map_err(at)?.len() < self.segment_bytes {
            segment::lengthen(&mut file, self.segment_bytes).map_err(at)?;
            mended = true;
        }
        if !matches!(segment::read_header(&file).map_err(at)?, SegmentHeader::Of { .. }) {
            segment::rewrite_header(&file, number, self.log_id).map_err(at)?;
            mended = true;
        }
        if mended {
            self.salvage.segments_mended.push(number);
        }
        Ok(())
    }

    /// Goes through one segment from `at` on; the place to go on at, with offset 0 at the end of the log.
    fn segment(
        &mut self,
        at: Position,
        settled: Position,
        last: u64,
        known_end: Position,
    ) -> Result<Position, SalvageError> {
        let path = segment::path(self.dir, at.segment);
        let fail = |source| SalvageError::File { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        let seal = Seal { log_id: self.log_id, segment: at.segment };
        let mut window = Window::default();
        let (mut lsn, mut offset) = (at.lsn, at.offset);
        loop {
            // Only the block that the settled position lies in may begin before the record wanted.
            let may_begin_before = offset == settled.offset && at.segment == settled.segment;
            match find_block(&mut window, &file, offset, seal, 0).map_err(fail)? {
                Some((found, header)) if header.first_lsn < lsn && !(may_begin_before && found == offset) => {
                    return Err(SalvageError::Unmendable { path, offset: found });
                }
                Some((found, header)) if found == offset && header.first_lsn <= lsn => {
                    if header.kind == Kind::Seal {
                        return Ok(next_segment(lsn, at.segment));
                    }
                    lsn = lsn.max(header.first_lsn.saturating_add(u64::from(header.records)));
                    offset += block::padded(HEADER_BYTES + header.body_bytes) as u64;
                }
                Some((found, header)) => {
                    let records = header.first_lsn.saturating_sub(lsn);
                    self.skip(&file, Place { seal, offset, lsn }, found, records)?;
                    window = Window::default();
                    (lsn, offset) = (lsn.max(header.first_lsn), found);
                }
                None if at.segment < last => {
                    let next = self.next_lsn(at.segment + 1..=last, lsn)?.unwrap_or(known_end.lsn);
                    let records = next.saturating_sub(lsn);
                    if records > 0 {
                        let end = offset + HEADER_BYTES as u64;
                        self.skip(&file, Place { seal, offset, lsn }, end, records)?;
                        offset = end;
                    }
                    if offset + HEADER_BYTES as u64 > self.segment_bytes {
                        return Err(SalvageError::Unmendable { path, offset });
                    }
                    let mut end = [0; HEADER_BYTES];
                    block::finish(&mut end, seal, Kind::Seal, 0, lsn + records);
                    write(&file, &end, offset).map_err(fail)?;
                    return Ok(next_segment(lsn + records, at.segment));
                }
                None => {
                    if known_end.lsn > lsn {
                        let shortest = offset + HEADER_BYTES as u64;
                        let same = known_end.segment == at.segment;
                        let end = if same { known_end.offset.max(shortest) } else { shortest };
                        self.skip(&file, Place { seal, offset, lsn }, end, known_end.lsn - lsn)?;
                    }
                    return Ok(Position { lsn, segment: at.segment, offset: 0 });
                }
            }
        }
    }

    /// Lets blocks that stand for `records` lost ones take the place of the bytes up to `end`.
    fn skip(&mut self, file: &File, at: Place, end: u64, records: u64) -> Result<(), SalvageError> {
        let segment = at.seal.segment;
        let fail = |source| SalvageError::File { path: segment::path(self.dir, segment), source };
        let bytes = end - at.offset;
        if bytes < HEADER_BYTES as u64 || end + HEADER_BYTES as u64 > self.segment_bytes {
            return Err(SalvageError::Unmendable {
                path: segment::path(self.dir, segment),
                offset: at.offset,
            });
        }
        let damaged = tail::last_written(file, at.offset, end).map_err(fail)?;
        let kept = damaged.map_or(0, |last| last - at.offset);
        let source = (kept > 0).then_some(file);
        tail::keep_lost(self.dir, source, (segment, at.offset), kept, records).map_err(fail)?;
        // Backwards: until the first of them is written, readers stop at the damage as before.
        let most = (HEADER_BYTES + block::BODY_BYTES_MAX) as u64;
        let mut starts: Vec<u64> = Vec::new();
        let mut start = at.offset;
        while start < end {
            starts.push(start);
            // What is left must hold a header too.
            start += if end - start <= most { end - start } else { most - HEADER_BYTES as u64 };
        }
        let mut next = end;
        for (n, &start) in starts.iter().enumerate().rev() {
            let mut bytes = vec![0; usize::try_from(next - start).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, start).map_err(fail)?;
            let (first_lsn, count) = if n == 0 { (at.lsn, records) } else { (at.lsn + records, 0) };
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            block::finish(&mut bytes, at.seal, Kind::Lost, count, first_lsn);
            write(file, &bytes[..HEADER_BYTES], start).map_err(fail)?;
            next = start;
        }
        self.salvage.gaps.push(Gap { segment, offset: at.offset, bytes, records });
        Ok(())
    }

    /// The number of the first record in these segments that is not before `lsn`.
    fn next_lsn(
        &self,
        numbers: std::ops::RangeInclusive<u64>,
        lsn: u64,
    ) -> Result<Option<u64>, SalvageError> {
        for number in numbers {
            if let Some(header) = self.first_block(number, lsn)? {
                return Ok(Some(header.first_lsn));
            }
        }
        Ok(None)
    }

    fn first_block(&self, number: u64, lsn: u64) -> Result<Option<Header>, SalvageError> {
        let path = segment::path(self.dir, number);
        let seal = Seal { log_id: self.log_id, segment: number };
        let found = File::open(&path)
            .and_then(|file| find_block(&mut Window::default(), &file, segment::HEADER_BYTES, seal, lsn));
        Ok(found.map_err(|source| SalvageError::File { path, source })?.map(|(_, header)| header))
    }
}

/// Where a gap begins.
#[derive(Clone, Copy)]
struct Place {
    seal: Seal,
    offset: u64,
    lsn: u64,
}

fn next_segment(lsn: u64, number: u64) -> Position {
    Position { lsn, segment: number + 1, offset: segment::HEADER_BYTES }
}

fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    file.sync_data()
}

/// The id that the log's blocks are sealed with, by `durable-end` or the first intact header.
fn log_id(dir: &Path, numbers: &[u64], stored: Option<u64>) -> Result<u64, SalvageError> {
    let mut id = stored;
    for &number in numbers {
        let path = segment::path(dir, number);
        let header = File::open(&path).and_then(|file| segment::read_header(&file));
        match header.map_err(|source| SalvageError::File { path: path.clone(), source })? {
            SegmentHeader::Of { number: own, log_id, .. } => {
                if own != number || *id.get_or_insert(log_id) != log_id {
                    return Err(SalvageError::Foreign { path });
                }
            }
            SegmentHeader::Version(version) => return Err(SalvageError::Version { path, version }),
            SegmentHeader::Damaged => {}
        }
    }
    id.ok_or(SalvageError::NoLogId)
}
