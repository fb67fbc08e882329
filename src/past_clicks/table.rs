//! A sorted, immutable table of entries in a file.
//!
//! ```text
//! entries, by hash │ of each bucket: where it begins, its checksum │ filter │ footer, with a checksum of all but the entries
//! ```
//!
//! Hashes are evenly spread, so those with the same first bits make a bucket of about the same size: finding a hash takes
//! one read of one bucket, whose checksum is verified each time. What follows the entries is read and verified once and
//! stays in memory: about 1.5 bytes an entry.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    PastClicksError,
    entry::{ENTRY_BYTES, Entry},
    filter::Filter,
};

const MAGIC: u64 = u64::from_le_bytes(*b"tallyck1");
const FOOTER_BYTES: usize = 36;
/// Entries of a bucket, at least, in the middle: about a kilobyte to read.
const PER_BUCKET: u64 = 32;
const BUFFER_BYTES: usize = 1 << 18;

/// An open table.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    file: File,
    entries: u64,
    bits: u32,
    buckets: Vec<Bucket>,
    filter: Filter,
}

/// Its first entry, and the checksum of all of its entries.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    start: u32,
    crc: u32,
}

/// Writes a table, entry after entry in their order.
pub(super) struct TableWriter {
    path: PathBuf,
    file: BufWriter<File>,
    bits: u32,
    buckets: Vec<Bucket>,
    filter: Filter,
    bucket: Vec<u8>,
    entries: u32,
}

impl Table {
    pub(super) fn open(path: &Path) -> Result<Self, PastClicksError> {
        let failed = PastClicksError::io(path);
        let damaged = || PastClicksError::Damaged { path: path.to_owned() };
        let mut file = File::open(path).map_err(&failed)?;
        let length = file.metadata().map_err(&failed)?.len();
        let at = length.checked_sub(FOOTER_BYTES as u64).ok_or_else(damaged)?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, at).map_err(&failed)?;
        let word = |n: usize| u64::from_le_bytes(std::array::from_fn(|i| footer[n * 8 + i]));
        let (magic, entries, bits, filter_bytes) = (word(0), word(1), word(2), word(3));
        let bits = u32::try_from(bits).ok().filter(|bits| *bits <= 32).ok_or_else(damaged)?;
        let buckets_bytes = 8u64 << bits;
        let start = u128::from(entries) * ENTRY_BYTES as u128;
        let expected = start + u128::from(buckets_bytes) + u128::from(filter_bytes) + FOOTER_BYTES as u128;
        if magic != MAGIC || expected != u128::from(length) || entries > u64::from(u32::MAX) {
            return Err(damaged());
        }
        file.seek(SeekFrom::Start(entries * ENTRY_BYTES as u64)).map_err(&failed)?;
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).map_err(&failed)?;
        let (summed, crc) = rest.split_last_chunk().ok_or_else(damaged)?;
        if crc32fast::hash(summed) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        let (buckets, rest) = rest
            .split_at_checked(usize::try_from(buckets_bytes).unwrap_or(usize::MAX))
            .ok_or_else(damaged)?;
        let filter = rest.len().checked_sub(FOOTER_BYTES).and_then(|end| Filter::from_bytes(&rest[..end]));
        let bucket = |bytes: &[u8; 8]| {
            let [start, crc] =
                [0, 4].map(|at| std::array::from_fn(|n| bytes[at + n])).map(u32::from_le_bytes);
            Bucket { start, crc }
        };
        let buckets: Vec<_> = buckets.as_chunks::<8>().0.iter().map(bucket).collect();
        let rising = buckets.windows(2).all(|two| two[0].start <= two[1].start);
        if !rising || buckets.last().is_some_and(|last| u64::from(last.start) > entries) {
            return Err(damaged());
        }
        Ok(Self { path: path.to_owned(), file, entries, bits, buckets, filter: filter.ok_or_else(damaged)? })
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Appends the entries of a hash.
    pub(super) fn find(
        &self,
        hash: u64,
        buffer: &mut Vec<u8>,
        found: &mut Vec<Entry>,
    ) -> Result<(), PastClicksError> {
        if !self.filter.may_contain(hash) {
            return Ok(());
        }
        let entries = self.bucket(bucket_of(hash, self.bits), buffer)?;
        let first = entries.partition_point(|bytes| Entry::from_bytes(*bytes).hash < hash);
        let of_hash = entries[first..].iter().map(|bytes| Entry::from_bytes(*bytes));
        found.extend(of_hash.take_while(|entry| entry.hash == hash));
        Ok(())
    }

    /// All entries, in their order, each bucket verified.
    pub(super) fn scan(&self) -> impl Iterator<Item = Result<Entry, PastClicksError>> + '_ {
        let mut file = &self.file;
        let rewound = file.seek(SeekFrom::Start(0)).map_err(PastClicksError::io(&self.path));
        let mut reader = io::BufReader::with_capacity(BUFFER_BYTES, file);
        let mut bytes = Vec::new();
        let buckets = (0..self.buckets.len()).map(move |number| {
            let (range, crc) = self.range(number);
            bytes.resize((range.end - range.start) * ENTRY_BYTES, 0);
            reader.read_exact(&mut bytes).map_err(PastClicksError::io(&self.path))?;
            self.verify(&bytes, crc)?;
            Ok(bytes.as_chunks().0.iter().map(|bytes| Entry::from_bytes(*bytes)).collect::<Vec<_>>())
        });
        let buckets = rewound.err().map(Err).into_iter().chain(buckets);
        buckets.flat_map(|bucket| {
            let (entries, error) = match bucket {
                Ok(entries) => (entries, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            entries.into_iter().map(Ok).chain(error)
        })
    }

    fn bucket<'a>(
        &self,
        number: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [[u8; ENTRY_BYTES]], PastClicksError> {
        let (range, crc) = self.range(number);
        buffer.resize((range.end - range.start) * ENTRY_BYTES, 0);
        let offset = (range.start * ENTRY_BYTES) as u64;
        self.file.read_exact_at(buffer, offset).map_err(PastClicksError::io(&self.path))?;
        self.verify(buffer, crc)?;
        Ok(buffer.as_chunks().0)
    }

    fn range(&self, bucket: usize) -> (std::ops::Range<usize>, u32) {
        let Bucket { start, crc } = self.buckets[bucket];
        let end = self.buckets.get(bucket + 1).map_or(self.entries, |next| next.start.into());
        (start as usize..usize::try_from(end).unwrap_or(usize::MAX), crc)
    }

    fn verify(&self, bytes: &[u8], crc: u32) -> Result<(), PastClicksError> {
        if crc32fast::hash(bytes) == crc {
            return Ok(());
        }
        Err(PastClicksError::Damaged { path: self.path.clone() })
    }
}

impl TableWriter {
    /// A new file, for at most so many entries.
    pub(super) fn create(path: &Path, entries_max: u64) -> Result<Self, PastClicksError> {
        if entries_max > u64::from(u32::MAX) {
            return Err(PastClicksError::TooMany);
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(BUFFER_BYTES, file.map_err(PastClicksError::io(path))?),
            bits: (entries_max / PER_BUCKET).checked_ilog2().unwrap_or(0),
            buckets: vec![Bucket { start: 0, crc: 0 }],
            filter: Filter::with_capacity(entries_max),
            bucket: Vec::new(),
            entries: 0,
        })
    }

    pub(super) fn push(&mut self, entry: Entry) -> Result<(), PastClicksError> {
        let bucket = bucket_of(entry.hash, self.bits);
        while self.buckets.len() <= bucket {
            self.end_bucket().map_err(PastClicksError::io(&self.path))?;
            self.buckets.push(Bucket { start: self.entries, crc: 0 });
        }
        self.filter.insert(entry.hash);
        self.bucket.extend_from_slice(&entry.to_bytes());
        self.entries += 1;
        Ok(())
    }

    /// Makes it durable, and opens it.
    pub(super) fn finish(mut self) -> Result<Table, PastClicksError> {
        self.write_rest().map_err(PastClicksError::io(&self.path))?;
        Table::open(&self.path)
    }

    fn write_rest(&mut self) -> io::Result<()> {
        while self.buckets.len() < 1 << self.bits {
            self.end_bucket()?;
            self.buckets.push(Bucket { start: self.entries, crc: 0 });
        }
        self.end_bucket()?;
        let mut rest = Vec::new();
        for Bucket { start, crc } in &self.buckets {
            rest.extend_from_slice(&start.to_le_bytes());
            rest.extend_from_slice(&crc.to_le_bytes());
        }
        let filter = self.filter.to_bytes();
        rest.extend_from_slice(&filter);
        for word in [MAGIC, self.entries.into(), self.bits.into(), filter.len() as u64] {
            rest.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32fast::hash(&rest);
        rest.extend_from_slice(&crc.to_le_bytes());
        self.file.write_all(&rest)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    fn end_bucket(&mut self) -> io::Result<()> {
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.crc = crc32fast::hash(&self.bucket);
        }
        self.file.write_all(&self.bucket)?;
        self.bucket.clear();
        Ok(())
    }
}

fn bucket_of(hash: u64, bits: u32) -> usize {
    usize::try_from(hash.unbounded_shr(64 - bits)).unwrap_or(usize::MAX)
}
