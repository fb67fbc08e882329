//! Records in files, in the order in which they came. Each file is only ever appended to, and goes as a whole.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::PastClicksError;

/// A file that is as large, or covers as much time, is not appended to any more.
const BYTES_MAX: u64 = if cfg!(test) { 2000 } else { 256 << 20 };
const SPAN_MILLIS_MAX: i64 = 30 * 86_400_000;

/// A file of records, as the manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChunkSpan {
    /// Where its first record is among all records.
    pub(super) start: u64,
    /// What of it counts; what follows was not finished.
    pub(super) bytes: u64,
    /// When the oldest click of it was accepted,
    pub(super) oldest: i64,
    /// and the newest.
    pub(super) newest: i64,
}

/// An open one.
#[derive(Debug)]
pub(super) struct Chunk {
    path: PathBuf,
    file: File,
    pub(super) span: ChunkSpan,
}

impl Chunk {
    pub(super) fn open(folder: &Path, span: ChunkSpan) -> Result<Self, PastClicksError> {
        let path = folder.join(span.file_name());
        let file =
            OpenOptions::new().read(true).write(true).open(&path).map_err(PastClicksError::io(&path))?;
        let length = file.metadata().map_err(PastClicksError::io(&path))?.len();
        if length < span.bytes {
            return Err(PastClicksError::Damaged { path });
        }
        Ok(Self { path, file, span })
    }

    /// A new one.
    pub(super) fn create(folder: &Path, start: u64, at: i64) -> Result<Self, PastClicksError> {
        let span = ChunkSpan { start, bytes: 0, oldest: at, newest: at };
        let path = folder.join(span.file_name());
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(PastClicksError::io(&path))?, path, span })
    }

    /// Whether more, accepted from `oldest` on, may be appended.
    pub(super) fn takes(&self, oldest: i64) -> bool {
        self.span.bytes < BYTES_MAX && (self.span.oldest - oldest).abs() < SPAN_MILLIS_MAX
    }

    /// Appends records and makes them durable.
    pub(super) fn append(&mut self, records: &[u8], oldest: i64, newest: i64) -> Result<(), PastClicksError> {
        let written = self.file.write_all_at(records, self.span.bytes).and_then(|()| self.file.sync_data());
        written.map_err(PastClicksError::io(&self.path))?;
        self.span.bytes += records.len() as u64;
        self.span.oldest = self.span.oldest.min(oldest);
        self.span.newest = self.span.newest.max(newest);
        Ok(())
    }

    /// Reads the record at `offset` of all records.
    pub(super) fn read(&self, offset: u64, bytes: usize, into: &mut Vec<u8>) -> Result<(), PastClicksError> {
        into.resize(bytes, 0);
        let read = self.file.read_exact_at(into, offset - self.span.start);
        read.map_err(PastClicksError::io(&self.path))
    }

    pub(super) fn damaged(&self) -> PastClicksError {
        PastClicksError::Damaged { path: self.path.clone() }
    }
}

impl ChunkSpan {
    pub(super) fn file_name(&self) -> String {
        format!("{:014x}.records", self.start)
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        (self.start..self.end()).contains(&offset)
    }
}
