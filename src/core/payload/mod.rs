//! The log's payload: one versioned codec between [`Record`] and bytes.
//!
//! The first byte is the version of all that follows; a version once released is read for ever. What follows is
//! postcard's specified wire format of the structs in this folder, which exist for this alone: a change of the domain
//! or of JSON can't change the disk.

mod adjustment;
mod click;
mod conversion;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod refusal;
#[cfg(test)]
mod tests;

use adjustment::AdjustmentV1;
use click::ClickV1;
use conversion::ConversionV1;
use refusal::RefusalV1;
use serde::{Deserialize, Serialize};

use super::{Conversion, Record};

const VERSION: u8 = 1;

/// The bytes are not a record. Behind the log's checksum this means a newer daemon wrote them, or a defect.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer version.
    #[error("payload version {0} is not known to this version of tally")]
    Version(u8),
    /// Not this format.
    #[error("payload is malformed")]
    Malformed,
}

/// Appends the record's bytes to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Conversion(conversion) => encode_conversion(conversion, out),
        Record::Refusal(refusal) => write(&RecordV1::Refusal(RefusalV1::from(refusal)), out),
        Record::Click(click) => write(&RecordV1::Click(ClickV1::from(click)), out),
        Record::Adjustment(adjustment) => {
            write(&RecordV1::Adjustment(AdjustmentV1::from(adjustment)), out);
        }
    }
}

/// Appends a conversion's bytes to `out`: the hot path's way, without a [`Record`] around it.
pub fn encode_conversion(conversion: &Conversion, out: &mut Vec<u8>) {
    write(&RecordV1::Conversion(ConversionV1::from(conversion)), out);
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let (&version, rest) = bytes.split_first().ok_or(DecodeError::Malformed)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (record, unread) =
        postcard::take_from_bytes::<RecordV1<'_>>(rest).map_err(|_| DecodeError::Malformed)?;
    if !unread.is_empty() {
        return Err(DecodeError::Malformed);
    }
    match record {
        RecordV1::Conversion(conversion) => conversion.read().map(Record::Conversion),
        RecordV1::Refusal(refusal) => refusal.read().map(Record::Refusal),
        RecordV1::Click(click) => click.read().map(Record::Click),
        RecordV1::Adjustment(adjustment) => adjustment.read().map(Record::Adjustment),
    }
}

/// Whether the bytes are a click's, without reading the rest: whoever looks ahead for clicks skips everything else.
#[must_use]
pub fn is_click(bytes: &[u8]) -> bool {
    bytes.starts_with(&[VERSION, CLICK])
}

fn write(record: &RecordV1<'_>, out: &mut Vec<u8>) {
    out.push(VERSION);
    // Writing to memory has no error to report; a short payload would be refused by `decode`.
    let _ = postcard::to_io(record, &mut *out);
}

/// The place of [`RecordV1::Click`], which postcard writes first.
const CLICK: u8 = 2;

#[derive(Serialize, Deserialize)]
enum RecordV1<'a> {
    #[serde(borrow)]
    Conversion(ConversionV1<'a>),
    #[serde(borrow)]
    Refusal(RefusalV1<'a>),
    #[serde(borrow)]
    Click(ClickV1<'a>),
    #[serde(borrow)]
    Adjustment(AdjustmentV1<'a>),
}
