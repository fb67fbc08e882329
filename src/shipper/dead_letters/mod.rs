//! Dead letters: rows that ClickHouse refuses, kept where an operator can read, mend and replay them.
//!
//! One JSON file a row. `record` holds every field of it; mend it with an editor, then `tally dead-letters replay`.

mod adjustment;
mod click;
mod conversion;
mod rejection;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

use self::{
    adjustment::AdjustmentJson, click::ClickJson, conversion::ConversionJson, rejection::RejectionJson,
};
use super::{
    cut::Content,
    folder::{Folder, FolderError},
};
use crate::core::{OrderKey, Record, Refusal, UnixMillis};

/// A dead letter, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name: what `replay --id` takes.
    pub id: String,
    /// What it is.
    pub kind: &'static str,
    /// When ClickHouse refused it.
    pub refused_at: String,
    /// What ClickHouse said.
    pub reason: String,
    /// Its code.
    pub code: Option<i32>,
    /// What an operator knows it by: the order id, the click's number, the conversion that is adjusted.
    pub about: String,
}

/// Why a dead letter can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// There is none of that name.
    #[error("there is no dead letter {0}")]
    Missing(String),
    /// It does not say what it should.
    #[error("dead letter {id}: {what}")]
    Malformed {
        /// Which one.
        id: String,
        /// Where and how.
        what: String,
    },
    /// The disk.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Every dead letter that lies still.
pub fn list(folder: &Folder) -> Result<Vec<Summary>, DeadLetterError> {
    folder
        .dead_letters()?
        .into_iter()
        .map(|id| {
            let file = parse(&id, &folder.read_dead_letter(&id)?)?;
            let (kind, about) = file.record.kind_and_name();
            Ok(Summary { id, kind, refused_at: file.refused_at, reason: file.reason, code: file.code, about })
        })
        .collect()
}

/// Sends dead letters on their way again: all, or those named. A running daemon takes them up at once, another one at
/// its start. Returns how many; nothing is moved if one of them can't be read.
pub fn replay(folder: &Folder, ids: Option<&[String]>) -> Result<usize, DeadLetterError> {
    let there = folder.dead_letters()?;
    let ids = match ids {
        None => there,
        Some(ids) => match ids.iter().find(|id| !there.contains(id)) {
            Some(id) => return Err(DeadLetterError::Missing(id.clone())),
            None => ids.to_vec(),
        },
    };
    for id in &ids {
        read(id, &folder.read_dead_letter(id)?)?;
    }
    for id in &ids {
        folder.start_replay(id)?;
    }
    Ok(ids.len())
}

/// The file of a refused row: the only one of its cut.
#[must_use]
pub fn write(content: &Content, reason: &str, code: Option<i32>, refused_at: UnixMillis) -> Vec<u8> {
    let file = FileJson {
        version: 1,
        refused_at: iso(refused_at),
        reason: reason.to_owned(),
        code,
        record: RecordJson::of(content),
    };
    // These types have no map keys or floats that could fail.
    serde_json::to_vec_pretty(&file).unwrap_or_default()
}

/// Reads a dead letter back, as it may have been mended.
pub fn read(id: &str, json: &[u8]) -> Result<Letter, DeadLetterError> {
    let letter = match parse(id, json)?.record {
        RecordJson::Conversion(record) => record.read().map(Record::Conversion).map(Letter::from),
        RecordJson::Click(record) => record.read().map(Record::Click).map(Letter::from),
        RecordJson::Adjustment(record) => record.read().map(Record::Adjustment).map(Letter::from),
        RecordJson::Rejection(record) => {
            record.read().map(|(refusal, key)| match (refusal.conversion_id, key) {
                (Some(_), Some(key)) => Letter::LateDuplicate { refusal, key },
                _ => Record::Refusal(refusal).into(),
            })
        }
    };
    letter.map_err(|what| DeadLetterError::Malformed { id: id.to_owned(), what })
}

/// What a dead letter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// A record as the log has them.
    Record(Box<Record>),
    /// A duplicate that was told from its original already.
    LateDuplicate {
        /// Its row.
        refusal: Refusal,
        /// Its key.
        key: OrderKey,
    },
}

impl From<Record> for Letter {
    fn from(record: Record) -> Self {
        Self::Record(Box::new(record))
    }
}

#[derive(Serialize, Deserialize)]
struct FileJson {
    version: u32,
    refused_at: String,
    reason: String,
    code: Option<i32>,
    record: RecordJson,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordJson {
    Conversion(Box<ConversionJson>),
    Click(Box<ClickJson>),
    Adjustment(Box<AdjustmentJson>),
    Rejection(Box<RejectionJson>),
}

impl RecordJson {
    /// The first record.
    fn of(content: &Content) -> Self {
        if let Some(counted) = content.clicks.first() {
            return Self::Click(Box::new(ClickJson::from(&counted.click)));
        }
        if let Some(counted) = content.conversions.first() {
            return Self::Conversion(Box::new(ConversionJson::from(&counted.conversion)));
        }
        if let Some(counted) = content.adjustments.first() {
            return Self::Adjustment(Box::new(AdjustmentJson::from(&counted.adjustment)));
        }
        let late = content.late.first().map(|late| RejectionJson::new(&late.refusal, Some(late.key.key)));
        let refused = || content.refusals.first().map(|refusal| RejectionJson::new(refusal, None));
        Self::Rejection(Box::new(late.or_else(refused).unwrap_or_default()))
    }

    fn kind_and_name(&self) -> (&'static str, String) {
        match self {
            Self::Conversion(record) => ("conversion", record.order_id.clone()),
            Self::Click(record) => ("click", record.click_id.to_string()),
            Self::Adjustment(record) => ("adjustment", record.conversion_id.to_string()),
            Self::Rejection(record) => ("rejection", record.order_id.clone()),
        }
    }
}

fn parse(id: &str, json: &[u8]) -> Result<FileJson, DeadLetterError> {
    let file: FileJson = serde_json::from_slice(json)
        .map_err(|error| DeadLetterError::Malformed { id: id.to_owned(), what: error.to_string() })?;
    if file.version == 1 {
        Ok(file)
    } else {
        let what = format!("version {} is not known to this version of tally", file.version);
        Err(DeadLetterError::Malformed { id: id.to_owned(), what })
    }
}

fn iso(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|at| at.to_string()).unwrap_or_default()
}
