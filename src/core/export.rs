//! Which rows are exported, in which order, and how.

use super::{AccountId, BatchId, ClickId, ConversionId, GoalId, UnixMillis};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// Conversions, with what they owe to a click and what is left of their value.
    Conversions,
    /// Clicks.
    Clicks,
}

impl ExportKind {
    /// Its name in addresses and file names.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conversions => "conversions",
            Self::Clicks => "clicks",
        }
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// Comma-separated values, the names of the columns in the first line.
    Csv,
    /// A JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// The place of a row in the order of an export. Every row has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportKey {
    /// Of a conversion: by goal, then by time.
    Conversion {
        /// Its goal.
        goal_id: GoalId,
        /// When it happened.
        converted_at: UnixMillis,
        /// Tells those of one millisecond apart, in the database's own order of ids.
        id: ConversionId,
    },
    /// Of a click: by number.
    Click {
        /// Its number.
        id: ClickId,
        /// Whether the number is the caller's: it may be one that was issued for another click.
        is_callers: bool,
    },
}

impl ExportKey {
    /// Of what it is a key.
    #[must_use]
    pub fn kind(self) -> ExportKind {
        match self {
            Self::Conversion { .. } => ExportKind::Conversions,
            Self::Click { .. } => ExportKind::Clicks,
        }
    }
}

/// Names a row by what its first column shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportRow {
    /// A conversion.
    Conversion(ConversionId),
    /// A click; where two have that number, the last of them.
    Click(ClickId),
}

/// The rows of an export. They stay the same while new ones come in: `batch` is their upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportQuery {
    /// The caller's account.
    pub account_id: AccountId,
    /// Of what.
    pub kind: ExportKind,
    /// Conversions or clicks that happened from then on.
    pub from: UnixMillis,
    /// And before that.
    pub to: UnixMillis,
    /// Only rows of this batch and of earlier ones: all of them are in, in every table.
    pub batch: BatchId,
    /// Only rows after this one.
    pub after: Option<ExportKey>,
    /// Only rows up to this one, it included.
    pub until: Option<ExportKey>,
}
