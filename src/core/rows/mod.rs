//! Rows as ClickHouse takes them: `RowBinary`, by hand, for the tables that the shipper writes.
//!
//! The order of the columns in each file's `COLUMNS` and in its encoder is one thing; the schema's own order does not
//! matter. The encoding is deterministic: the same entry and batch give the same bytes, which is what exactly-once rests
//! on. Reading back serves a refused row, which must become something that a person can read. What a row does not hold
//! comes back as its absence: whether a record was unverified, and that an IPv4 address was given as a mapped IPv6 one.

mod adjustment;
mod attribution;
mod bytes;
mod click;
mod conversion;
mod rejection;
#[cfg(test)]
mod tests;

pub use self::{
    adjustment::{decode as decode_adjustment, encode as encode_adjustment},
    attribution::{AttributionRow, decode as decode_attribution, encode as encode_attribution},
    click::{decode as decode_click, encode as encode_click},
    conversion::{ConversionRow, decode as decode_conversion, encode as encode_conversion},
    rejection::{decode as decode_rejection, encode as encode_rejection},
};

/// A table that the shipper inserts into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Clicks.
    Clicks,
    /// Conversions that count.
    Conversions,
    /// What attributed conversions owe to their clicks.
    Attributions,
    /// Adjustments of conversions.
    Adjustments,
    /// Refused hits and duplicates.
    Rejections,
}

impl Table {
    /// Every table, in the order in which a batch is sent.
    pub const ALL: [Self; 5] =
        [Self::Clicks, Self::Conversions, Self::Attributions, Self::Adjustments, Self::Rejections];

    /// Its name in ClickHouse.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clicks => "clicks",
            Self::Conversions => "conversions",
            Self::Attributions => "attributions",
            Self::Adjustments => "adjustments",
            Self::Rejections => "rejections",
        }
    }

    /// The columns of a row, in the order in which they are encoded.
    #[must_use]
    pub fn columns(self) -> &'static str {
        match self {
            Self::Clicks => click::COLUMNS,
            Self::Conversions => conversion::COLUMNS,
            Self::Attributions => attribution::COLUMNS,
            Self::Adjustments => adjustment::COLUMNS,
            Self::Rejections => rejection::COLUMNS,
        }
    }
}

/// The bytes are not rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not rows of this table")]
pub struct RowError;
