//! ClickHouse's native compressed blocks: what `decompress=1` and `compress=1` mean.
//!
//! A stream is a sequence of blocks, each `checksum (16) | method (1) | compressed size with this header (4) |
//! uncompressed size (4) | payload`. The checksum is CityHash128 (1.0.2) of everything after it. Sizes are bounded and
//! the checksum is verified before anything is decompressed.

use std::io::{self, Read};

/// Checksum, method and the two sizes.
const HEADER_BYTES: usize = 25;
/// Of which the compressed size counts the last nine.
const COUNTED_HEADER_BYTES: usize = 9;
const CHECKSUM_BYTES: usize = 16;
/// Clients cut blocks at about 1 MiB; the `clickhouse` crate at 256 KiB.
const BLOCK_BYTES_MAX: usize = 64 << 20;

const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
const METHOD_ZSTD: u8 = 0x90;

/// Why a block was refused. A client's data is damaged, or it is not compressed at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// More bytes are needed than there are.
    #[error("a compressed block is cut off")]
    Truncated,
    /// A size that no client sends.
    #[error("a compressed block says that it has {0} bytes")]
    Size(usize),
    /// The bytes are not what was sent.
    #[error("a compressed block's checksum is wrong")]
    Checksum,
    /// A codec that is not served.
    #[error("a compressed block is of method {0:#04x}")]
    Method(u8),
    /// The payload does not decompress to its promised size.
    #[error("a compressed block is damaged: {0}")]
    Payload(String),
}

/// The first block's content and its length in `input`.
pub(crate) fn decode(input: &[u8]) -> Result<(Vec<u8>, usize), BlockError> {
    let header = input.first_chunk::<HEADER_BYTES>().ok_or(BlockError::Truncated)?;
    let (total, size) = sizes(header)?;
    let block = input.get(..total).ok_or(BlockError::Truncated)?;
    let (checksum, counted) = block.split_at(CHECKSUM_BYTES);
    if checksum != self::checksum(counted) {
        return Err(BlockError::Checksum);
    }
    let payload = &counted[COUNTED_HEADER_BYTES..];
    let content = match header[CHECKSUM_BYTES] {
        METHOD_NONE => payload.to_vec(),
        METHOD_LZ4 => lz4_flex::block::decompress(payload, size)
            .map_err(|error| BlockError::Payload(error.to_string()))?,
        METHOD_ZSTD => {
            zstd::bulk::decompress(payload, size).map_err(|error| BlockError::Payload(error.to_string()))?
        }
        method => return Err(BlockError::Method(method)),
    };
    if content.len() != size {
        return Err(BlockError::Payload(format!("{} bytes in place of {size}", content.len())));
    }
    Ok((content, total))
}

/// One LZ4 block.
pub(crate) fn encode(content: &[u8]) -> Vec<u8> {
    let payload = lz4_flex::block::compress(content);
    let mut block = vec![0; CHECKSUM_BYTES];
    block.push(METHOD_LZ4);
    // Callers cut their content at far less than 4 GiB (`BLOCK_BYTES_MAX`).
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    block.extend_from_slice(&size(payload.len() + COUNTED_HEADER_BYTES));
    block.extend_from_slice(&size(content.len()));
    block.extend_from_slice(&payload);
    let sum = checksum(&block[CHECKSUM_BYTES..]);
    block[..CHECKSUM_BYTES].copy_from_slice(&sum);
    block
}

/// Decompresses a stream of blocks while it is read.
pub(crate) struct BlockReader<R> {
    inner: R,
    content: Vec<u8>,
    position: usize,
}

impl<R: Read> BlockReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, content: Vec::new(), position: 0 }
    }

    /// Reads the next block; `false` at a clean end.
    fn refill(&mut self) -> io::Result<bool> {
        let mut block = Vec::new();
        self.inner.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            return Ok(false);
        }
        let header = block.first_chunk::<HEADER_BYTES>().ok_or(BlockError::Truncated).map_err(invalid)?;
        let (total, _) = sizes(header).map_err(invalid)?;
        self.inner.by_ref().take((total - HEADER_BYTES) as u64).read_to_end(&mut block)?;
        (self.content, _) = decode(&block).map_err(invalid)?;
        self.position = 0;
        Ok(true)
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.position == self.content.len() {
            if out.is_empty() || !self.refill()? {
                return Ok(0);
            }
        }
        let count = out.len().min(self.content.len() - self.position);
        out[..count].copy_from_slice(&self.content[self.position..self.position + count]);
        self.position += count;
        Ok(count)
    }
}

fn invalid(error: BlockError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The block's whole length and its content's length.
fn sizes(header: &[u8; HEADER_BYTES]) -> Result<(usize, usize), BlockError> {
    let size =
        |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (compressed, content) = (size(CHECKSUM_BYTES + 1), size(CHECKSUM_BYTES + 5));
    if !(COUNTED_HEADER_BYTES..=BLOCK_BYTES_MAX).contains(&compressed) {
        return Err(BlockError::Size(compressed));
    }
    if content > BLOCK_BYTES_MAX {
        return Err(BlockError::Size(content));
    }
    Ok((compressed + CHECKSUM_BYTES, content))
}

/// Gives a block whatever checksum it needs to be looked at further.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn seal(block: &mut [u8]) {
    if let Some((sum, counted)) = block.split_first_chunk_mut::<CHECKSUM_BYTES>() {
        *sum = checksum(counted);
    }
}

/// ClickHouse stores the two halves of CityHash128 low half first.
fn checksum(counted: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(counted).rotate_left(64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flipped_bit_is_found() {
        let mut block = encode(b"hello hello hello hello");
        block[27] ^= 1;
        assert_eq!(decode(&block), Err(BlockError::Checksum));
    }

    #[test]
    fn a_huge_size_is_refused_before_it_is_allocated() {
        let mut block = encode(b"x");
        block[21..25].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&block), Err(BlockError::Size(u32::MAX as usize)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..4),
        ) {
            let stream: Vec<u8> = contents.iter().flat_map(|content| encode(content)).collect();
            let mut read = Vec::new();
            BlockReader::new(stream.as_slice()).read_to_end(&mut read).expect("reads");
            prop_assert_eq!(read, contents.concat());
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = BlockReader::new(bytes.as_slice()).read_to_end(&mut Vec::new());
        }

        /// Past the checksum: a block whose checksum is right and whose rest is anything.
        #[test]
        fn any_payload_is_survived(
            method in prop::sample::select(vec![METHOD_NONE, METHOD_LZ4, METHOD_ZSTD, 0]),
            size in 0_u32..5000,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut block = vec![0; CHECKSUM_BYTES];
            block.push(method);
            block.extend_from_slice(&u32::try_from(payload.len() + 9).expect("small").to_le_bytes());
            block.extend_from_slice(&size.to_le_bytes());
            block.extend_from_slice(&payload);
            let sum = checksum(&block[CHECKSUM_BYTES..]);
            block[..CHECKSUM_BYTES].copy_from_slice(&sum);
            if let Ok((content, used)) = decode(&block) {
                prop_assert_eq!((content.len(), used), (size as usize, block.len()));
            }
        }

        #[test]
        fn a_cut_stream_is_an_error(cut in 1_usize..40) {
            let block = encode(b"some content that is long enough");
            let cut = &block[..block.len() - cut.min(block.len() - 1)];
            let result = BlockReader::new(cut).read_to_end(&mut Vec::new());
            prop_assert!(result.is_err());
        }
    }
}
