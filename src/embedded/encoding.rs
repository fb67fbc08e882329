//! Compression of bodies: `Content-Encoding` in, `Accept-Encoding` and `compress=1` out.

use std::io::{self, Read, Write};

use super::blocks;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Not at all.
    Identity,
    /// An LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// zlib, which HTTP calls 'deflate'.
    Deflate,
    /// ClickHouse's own blocks; not a `Content-Encoding`.
    Blocks,
}

/// ClickHouse cuts its blocks at this size.
const BLOCK_CONTENT_BYTES: usize = 1 << 20;

impl Encoding {
    /// Of a `Content-Encoding` header; `None` if it is not served.
    pub(crate) fn of_content(header: Option<&str>) -> Option<Self> {
        Some(match header.map(str::trim).unwrap_or_default() {
            "" | "identity" => Self::Identity,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            _ => return None,
        })
    }

    /// The cheapest of what an `Accept-Encoding` header takes.
    pub(crate) fn accepted(header: Option<&str>) -> Self {
        let taken = |name: &str| {
            header.unwrap_or_default().split(',').any(|offer| {
                let (offered, parameters) = offer.split_once(';').unwrap_or((offer, ""));
                let refused = matches!(parameters.trim().replace(' ', "").as_str(), "q=0" | "q=0.0");
                offered.trim().eq_ignore_ascii_case(name) && !refused
            })
        };
        [(Self::Lz4, "lz4"), (Self::Zstd, "zstd"), (Self::Gzip, "gzip"), (Self::Deflate, "deflate")]
            .into_iter()
            .find_map(|(encoding, name)| taken(name).then_some(encoding))
            .unwrap_or(Self::Identity)
    }

    /// The `Content-Encoding` header to answer with.
    pub(crate) fn header(self) -> Option<&'static str> {
        match self {
            Self::Identity | Self::Blocks => None,
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::Deflate => Some("deflate"),
        }
    }

    /// Decompresses while reading.
    pub(crate) fn reader(self, body: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Identity => Box::new(body),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(body)?),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(body)),
            Self::Blocks => Box::new(blocks::BlockReader::new(body)),
        })
    }
}

/// Compresses a body piece by piece; what is written can be taken after each.
pub(crate) enum Encoder {
    /// See [`Encoding`].
    Identity(Vec<u8>),
    /// See [`Encoding`].
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    /// See [`Encoding`].
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// See [`Encoding`].
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    /// See [`Encoding`].
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
    /// See [`Encoding`].
    Blocks(Vec<u8>),
}

impl Encoder {
    pub(crate) fn new(encoding: Encoding) -> io::Result<Self> {
        let fast = flate2::Compression::fast();
        Ok(match encoding {
            Encoding::Identity => Self::Identity(Vec::new()),
            Encoding::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
            Encoding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), 1)?),
            Encoding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), fast)),
            Encoding::Deflate => Self::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), fast)),
            Encoding::Blocks => Self::Blocks(Vec::new()),
        })
    }

    /// Compresses a piece and returns what is ready to be sent, which includes the whole piece.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        let sink = match self {
            Self::Identity(sink) => {
                sink.extend_from_slice(piece);
                sink
            }
            Self::Blocks(sink) => {
                for content in piece.chunks(BLOCK_CONTENT_BYTES) {
                    sink.extend_from_slice(&blocks::encode(content));
                }
                sink
            }
            Self::Lz4(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Zstd(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
            Self::Deflate(encoder) => {
                encoder.write_all(piece)?;
                encoder.flush()?;
                encoder.get_mut()
            }
        };
        Ok(std::mem::take(sink))
    }

    /// Ends the body and returns its last bytes.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(sink) | Self::Blocks(sink) => Ok(sink),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_client_takes() {
        assert_eq!(Encoding::accepted(Some("gzip, lz4")), Encoding::Lz4);
        assert_eq!(Encoding::accepted(Some("lz4;q=0, zstd")), Encoding::Zstd);
        assert_eq!(Encoding::accepted(Some("br")), Encoding::Identity);
        assert_eq!(Encoding::of_content(Some("br")), None);
    }

    const ALL: [Encoding; 6] = [
        Encoding::Identity,
        Encoding::Lz4,
        Encoding::Zstd,
        Encoding::Gzip,
        Encoding::Deflate,
        Encoding::Blocks,
    ];

    proptest! {
        #[test]
        fn what_is_compressed_is_decompressed(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5),
            encoding in prop::sample::select(ALL.to_vec()),
        ) {
            let mut encoder = Encoder::new(encoding).expect("an encoder");
            let mut body = Vec::new();
            for piece in &pieces {
                body.extend(encoder.write(piece).expect("written"));
            }
            body.extend(encoder.finish().expect("finished"));
            let mut read = Vec::new();
            encoding.reader(io::Cursor::new(body)).expect("a reader").read_to_end(&mut read).expect("reads");
            prop_assert_eq!(read, pieces.concat());
        }

        #[test]
        fn any_bytes_are_survived(
            body in prop::collection::vec(any::<u8>(), 0..300),
            encoding in prop::sample::select(ALL.to_vec()),
        ) {
            let mut read = Vec::new();
            if let Ok(reader) = encoding.reader(io::Cursor::new(body)) {
                let _ = reader.take(1 << 20).read_to_end(&mut read);
            }
        }
    }
}
