//! Dead letters: rows that ClickHouse refuses, kept where an operator can read, mend and replay them.
//!
//! One JSON file a row. `record` holds every field of it; mend it with an editor, then `tally dead-letters replay`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    cut::Content,
    folder::{Folder, FolderError},
};
use crate::core::{
    AccountId, ClickId, Conversion, ConversionId, Currency, DedupScope, GoalId, Money, OrderId, OrderKey,
    Record, Refusal, Source, UnixMillis,
};

/// A dead letter, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name: what `replay --id` takes.
    pub id: String,
    /// When ClickHouse refused it.
    pub refused_at: String,
    /// What ClickHouse said.
    pub reason: String,
    /// Its code.
    pub code: Option<i32>,
    /// Of which goal.
    pub goal_id: u32,
    /// The order id, if any.
    pub order_id: String,
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
            let (goal_id, order_id) = match &file.record {
                RecordJson::Conversion(record) => (record.goal_id, record.order_id.clone()),
                RecordJson::Rejection(record) => (record.goal_id, record.order_id.clone()),
            };
            Ok(Summary {
                id,
                refused_at: file.refused_at,
                reason: file.reason,
                code: file.code,
                goal_id,
                order_id,
            })
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
    let record = content
        .conversions
        .first()
        .map(|counted| RecordJson::Conversion(ConversionJson::from(&counted.conversion)))
        .or_else(|| {
            let late = content.late.first();
            let key = late.map(|late| format!("{:032x}", late.key.key.0)).unwrap_or_default();
            let refusal = late.map(|late| &late.refusal).or(content.refusals.first())?;
            Some(RecordJson::Rejection(RejectionJson::new(refusal, key)))
        });
    let file = FileJson {
        version: 1,
        refused_at: iso(refused_at),
        reason: reason.to_owned(),
        code,
        record: record.unwrap_or_else(|| RecordJson::Rejection(RejectionJson::default())),
    };
    // These types have no map keys or floats that could fail.
    serde_json::to_vec_pretty(&file).unwrap_or_default()
}

/// Reads a dead letter back, as it may have been mended.
pub fn read(id: &str, json: &[u8]) -> Result<Letter, DeadLetterError> {
    let malformed = |what: &str| DeadLetterError::Malformed { id: id.to_owned(), what: what.to_owned() };
    match parse(id, json)?.record {
        RecordJson::Conversion(record) => {
            record.read().map(Record::Conversion).map(Letter::Record).map_err(|what| malformed(&what))
        }
        RecordJson::Rejection(record) => {
            let key = u128::from_str_radix(&record.order_key, 16).ok().map(OrderKey);
            let refusal = record.read().map_err(|what| malformed(&what))?;
            Ok(match (refusal.conversion_id, key) {
                (Some(_), Some(key)) => Letter::LateDuplicate { refusal, key },
                _ => Letter::Record(Record::Refusal(refusal)),
            })
        }
    }
}

/// What a dead letter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Letter {
    /// A record as the log has them.
    Record(Record),
    /// A duplicate that was told from its original already.
    LateDuplicate {
        /// Its row.
        refusal: Refusal,
        /// Its key.
        key: OrderKey,
    },
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
    Conversion(ConversionJson),
    Rejection(RejectionJson),
}

#[derive(Serialize, Deserialize)]
struct ConversionJson {
    conversion_id: Uuid,
    account_id: u32,
    goal_id: u32,
    order_id: String,
    /// Hexadecimal; empty: none.
    order_key: String,
    /// `none`, `forever` or `day`.
    key_scope: String,
    value: String,
    currency: String,
    received_at_ms: i64,
    source: String,
    click_id: Option<u64>,
    ip: Option<IpAddr>,
    user_agent: String,
    visitor_key: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct RejectionJson {
    account_id: u32,
    goal_id: u32,
    received_at_ms: i64,
    code: String,
    field: String,
    message: String,
    order_id: String,
    order_key: String,
    conversion_id: Option<Uuid>,
    original_id: Option<Uuid>,
    source: String,
    request: String,
}

impl From<&Conversion> for ConversionJson {
    fn from(from: &Conversion) -> Self {
        let (order_key, key_scope) = match from.key {
            None => (String::new(), "none"),
            Some((key, DedupScope::Forever)) => (format!("{:032x}", key.0), "forever"),
            Some((key, DedupScope::Day)) => (format!("{:032x}", key.0), "day"),
        };
        Self {
            conversion_id: from.id.0,
            account_id: from.account_id.0,
            goal_id: from.goal_id.0,
            order_id: from.order_id.as_ref().map(OrderId::as_str).unwrap_or_default().to_owned(),
            order_key,
            key_scope: key_scope.to_owned(),
            value: from.value.to_string(),
            currency: from.currency.to_string(),
            received_at_ms: from.received_at.0,
            source: from.source.as_str().to_owned(),
            click_id: from.click_id.map(|click| click.0),
            ip: from.ip,
            user_agent: from.user_agent.clone(),
            visitor_key: from.visitor_key,
        }
    }
}

impl ConversionJson {
    fn read(self) -> Result<Conversion, String> {
        let key = u128::from_str_radix(&self.order_key, 16).map(OrderKey);
        let key = match (&*self.key_scope, key) {
            ("none", _) => None,
            ("forever", Ok(key)) => Some((key, DedupScope::Forever)),
            ("day", Ok(key)) => Some((key, DedupScope::Day)),
            _ => return Err("order_key or key_scope is not one".to_owned()),
        };
        Ok(Conversion {
            id: ConversionId(self.conversion_id),
            account_id: AccountId(self.account_id),
            goal_id: GoalId(self.goal_id),
            order_id: OrderId::parse(&self.order_id).map_err(|error| format!("order_id: {error}"))?,
            key,
            value: Money::parse(&self.value).map_err(|error| format!("value: {error}"))?,
            currency: Currency::from_stored(&self.currency).map_err(|error| format!("currency: {error}"))?,
            received_at: UnixMillis(self.received_at_ms),
            converted_at: UnixMillis(self.received_at_ms),
            window_seconds: 30 * 86_400,
            matching: crate::core::Matching::Unknown,
            source: source(&self.source)?,
            click_id: self.click_id.map(ClickId),
            ip: self.ip,
            user_agent: self.user_agent,
            visitor_key: self.visitor_key,
            unverified: false,
        })
    }
}

impl RejectionJson {
    fn new(from: &Refusal, order_key: String) -> Self {
        Self {
            account_id: from.account_id.0,
            goal_id: from.goal_id.0,
            received_at_ms: from.received_at.0,
            code: from.code.clone(),
            field: from.field.clone(),
            message: from.message.clone(),
            order_id: from.order_id.clone(),
            order_key,
            conversion_id: from.conversion_id.map(|id| id.0),
            original_id: from.original_id.map(|id| id.0),
            source: from.source.as_str().to_owned(),
            request: from.request.clone(),
        }
    }

    fn read(self) -> Result<Refusal, String> {
        Ok(Refusal {
            account_id: AccountId(self.account_id),
            goal_id: GoalId(self.goal_id),
            received_at: UnixMillis(self.received_at_ms),
            code: self.code,
            field: self.field,
            message: self.message,
            order_id: self.order_id,
            conversion_id: self.conversion_id.map(ConversionId),
            original_id: self.original_id.map(ConversionId),
            source: source(&self.source)?,
            request: self.request,
        })
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

fn source(name: &str) -> Result<Source, String> {
    [Source::Postback, Source::Pixel, Source::Api]
        .into_iter()
        .find(|source| source.as_str() == name)
        .ok_or_else(|| "source: must be postback, pixel or api".to_owned())
}

fn iso(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::CountedConversion;
    use crate::shipper::samples::{conversion, counted, late_duplicate, refusal};

    fn content(conversions: Vec<CountedConversion>) -> Content {
        Content { conversions, ..Content::default() }
    }

    #[test]
    fn what_is_written_reads_back() {
        let json = write(&content(vec![counted(1)]), "no", Some(469), UnixMillis(0));
        assert_eq!(read("1-0", &json).expect("own"), Letter::Record(Record::Conversion(conversion(1))));
        let only = Content { refusals: vec![refusal(2)], ..Content::default() };
        let json = write(&only, "no", None, UnixMillis(0));
        assert_eq!(read("1-0", &json).expect("own"), Letter::Record(Record::Refusal(refusal(2))));
        let late = late_duplicate(3, 1);
        let json =
            write(&Content { late: vec![late.clone()], ..Content::default() }, "no", None, UnixMillis(0));
        let expected = Letter::LateDuplicate { refusal: late.refusal, key: late.key.key };
        assert_eq!(read("1-0", &json).expect("own"), expected);
    }

    #[test]
    fn a_person_can_read_it() {
        let json = write(&content(vec![counted(1)]), "Constraint is violated", Some(469), UnixMillis(0));
        let text = String::from_utf8(json).expect("text");
        for part in
            ["\"value\": \"1.000001\"", "\"order_id\": \"ORDER-1\"", "\"code\": 469", "1970-01-01T00:00:00Z"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_bad_edit_is_named() {
        let json = write(&content(vec![counted(1)]), "no", None, UnixMillis(0));
        let text = String::from_utf8(json).expect("text").replace("1.000001", "ten");
        let error = read("5-0", text.as_bytes()).expect_err("bad").to_string();
        assert_eq!(error, "dead letter 5-0: value: not a decimal number");
        assert!(read("5-0", b"{").is_err());
    }

    #[test]
    fn replay_moves_all_or_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = Folder::new(root.path());
        folder.create().expect("made");
        let json = write(&content(vec![counted(1)]), "no", None, UnixMillis(0));
        folder.store_dead_letter("1-0", &json).expect("stored");
        folder.store_dead_letter("2-0", b"{}").expect("stored");
        assert!(replay(&folder, None).is_err());
        assert!(matches!(replay(&folder, Some(&["9-0".to_owned()])), Err(DeadLetterError::Missing(_))));
        assert_eq!(folder.replays().expect("listed").len(), 0);
        assert_eq!(replay(&folder, Some(&["1-0".to_owned()])).expect("moved"), 1);
        assert_eq!(folder.replays().expect("listed"), ["1-0"]);
        assert_eq!(folder.dead_letters().expect("listed"), ["2-0"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read("1-0", &bytes);
        }

        /// As an operator's slip would leave it: one byte of a good file is another, or the rest is gone.
        #[test]
        fn any_edit_is_answered(at: prop::sample::Index, byte: u8, which in 0..3) {
            let kept = match which {
                0 => content(vec![counted(1)]),
                1 => Content { refusals: vec![refusal(2)], ..Content::default() },
                _ => Content { late: vec![late_duplicate(3, 1)], ..Content::default() },
            };
            let mut json = write(&kept, "no", Some(469), UnixMillis(0));
            let at = at.index(json.len());
            json[at] = byte;
            let _ = read("1-0", &json);
            json.truncate(at);
            prop_assert!(read("1-0", &json).is_err());
        }
    }
}
