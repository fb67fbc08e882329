//! Exports: an account's conversions or clicks as a stream of bytes, made of stretches that are read one at a time.
//!
//! A stretch is asked for by its first and last key, held whole, and asked for again if it fails: so an error of
//! ClickHouse, also one in the middle of its answer, never reaches a file; a slow reader keeps no query running; and an
//! export holds a few megabytes, however long it is.

mod columns;
mod parquet;
mod queries;

use std::time::Duration;

use bytes::Bytes;
use clickhouse::query::BytesCursor;
use uuid::Uuid;

use self::parquet::Joiner;
use super::{Database, Failure};
use crate::core::{
    AccountId, ClickId, ConversionId, ExportFormat, ExportKey, ExportKind, ExportQuery, ExportRow, GoalId,
    UnixMillis,
};

/// How long a stretch may take.
const WITHIN: Duration = Duration::from_mins(1);
/// Rows of a stretch of text: about 7 MB of conversions.
const TEXT_ROWS: u64 = 20_000;
/// Rows of a stretch of Parquet, which is a row group: about 5 MB.
const PARQUET_ROWS: u64 = 100_000;
/// Bytes of a stretch. One of more bytes is asked for again in parts.
const BYTES_MAX: usize = 16 << 20;

/// An export under way.
pub struct ExportStream {
    database: Database,
    /// What is still to come.
    rest: ExportQuery,
    format: ExportFormat,
    /// Rows of the next stretch.
    rows: u64,
    joiner: Option<Joiner>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    UnderWay,
    Ended,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConversionKeyRow {
    goal_id: u32,
    converted_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ClickKeyRow {
    click_id: u64,
    is_callers: u8,
}

/// A stretch as it came.
enum Stretch {
    Whole(Vec<Bytes>),
    TooLarge,
}

impl Database {
    /// Begins an export. Nothing is sent before its first [`ExportStream::next`].
    #[must_use]
    pub fn export(&self, query: ExportQuery, format: ExportFormat) -> ExportStream {
        let parquet = format == ExportFormat::Parquet;
        ExportStream {
            database: self.clone(),
            rest: query,
            format,
            rows: if parquet { PARQUET_ROWS } else { TEXT_ROWS },
            joiner: parquet.then(Joiner::default),
            state: State::New,
        }
    }

    /// The key of the `n`th row of an export, from 1, and whether there is another one after it.
    pub async fn export_key(
        &self,
        query: &ExportQuery,
        n: u64,
    ) -> Result<(Option<ExportKey>, bool), Failure> {
        let keys = self.export_keys(query, n, 2).await?;
        Ok((keys.first().copied(), keys.len() > 1))
    }

    /// Where an account's row stands in the order of its export.
    pub async fn export_position(
        &self,
        account: AccountId,
        row: ExportRow,
    ) -> Result<Option<ExportKey>, Failure> {
        match row {
            ExportRow::Conversion(id) => {
                let sql = "SELECT goal_id, converted_at, conversion_id FROM conversions \
                    WHERE account_id = {account: UInt32} AND conversion_id = {id: UUID} \
                    AND received_at = fromUnixTimestamp64Milli({at: Int64}, 'UTC') LIMIT 1";
                let query = self.report_query(sql).param("account", account.0).param("id", id.to_string());
                let query = query.param("at", id.made_at().0);
                let found = self.read(query.fetch_optional::<ConversionKeyRow>()).await?;
                Ok(found.map(ExportKey::from))
            }
            ExportRow::Click(id) => {
                let sql = "SELECT click_id, click_key != 0 AS is_callers FROM clicks \
                    WHERE account_id = {account: UInt32} AND click_id = {id: UInt64} \
                    ORDER BY is_callers DESC LIMIT 1";
                let query = self.report_query(sql).param("account", account.0).param("id", id.0);
                let found = self.read(query.fetch_optional::<ClickKeyRow>()).await?;
                Ok(found.map(ExportKey::from))
            }
        }
    }

    async fn export_keys(&self, range: &ExportQuery, n: u64, count: u8) -> Result<Vec<ExportKey>, Failure> {
        let query = queries::keys_at(self, range, n, count);
        Ok(match range.kind {
            ExportKind::Conversions => {
                let rows: Vec<ConversionKeyRow> = within(query.fetch_all()).await?;
                rows.into_iter().map(ExportKey::from).collect()
            }
            ExportKind::Clicks => {
                let rows: Vec<ClickKeyRow> = within(query.fetch_all()).await?;
                rows.into_iter().map(ExportKey::from).collect()
            }
        })
    }

    fn export_query(&self, sql: &str) -> clickhouse::query::Query {
        self.report_query(sql).with_setting("max_execution_time", WITHIN.as_secs().to_string())
    }
}

impl ExportStream {
    /// The next piece of the file; none: it is whole. After a failure the same piece may be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Failure> {
        if self.state == State::Ended {
            return Ok(None);
        }
        let (stretch, last) = loop {
            let end = self.database.export_keys(&self.rest, self.rows, 1).await?.first().copied();
            let range = ExportQuery { until: end.or(self.rest.until), ..self.rest };
            match self.read(&range).await? {
                Stretch::Whole(stretch) => break (stretch, end),
                Stretch::TooLarge if self.rows > 1 => self.rows = self.rows.div_ceil(4),
                Stretch::TooLarge => return Err(Failure::unreadable("a row of many megabytes")),
            }
        };
        let piece = match &mut self.joiner {
            Some(joiner) => {
                let file = stretch.concat().into();
                let added =
                    joiner.add(&file).and_then(|()| if last.is_none() { joiner.finish() } else { Ok(()) });
                added.map_err(|error| {
                    Failure::unreadable(&format!("not the Parquet that was expected: {error}"))
                })?;
                vec![joiner.take()]
            }
            None if self.state == State::New && self.format == ExportFormat::Csv => {
                let header = Bytes::from(columns::header(self.rest.kind));
                std::iter::once(header).chain(stretch).collect()
            }
            None => stretch,
        };
        self.state = if last.is_some() { State::UnderWay } else { State::Ended };
        self.rest.after = last.or(self.rest.after);
        Ok(Some(piece))
    }

    async fn read(&self, range: &ExportQuery) -> Result<Stretch, Failure> {
        let format = match self.format {
            ExportFormat::Csv => "CSV",
            ExportFormat::Ndjson => "JSONEachRow",
            ExportFormat::Parquet => "Parquet",
        };
        let mut cursor = queries::rows(&self.database, range, self.format).fetch_bytes(format)?;
        within(collect(&mut cursor)).await.and_then(|stretch| match stretch {
            Stretch::Whole(pieces) if !self.is_whole(&pieces) => Err(Failure::broken_off()),
            stretch => Ok(stretch),
        })
    }

    /// Whether it ends as a whole result does. A server that fails in the middle of an answer says so at its end.
    fn is_whole(&self, pieces: &[Bytes]) -> bool {
        let end = tail(pieces);
        match self.format {
            ExportFormat::Parquet => end.ends_with(b"PAR1"),
            ExportFormat::Csv | ExportFormat::Ndjson => {
                end.is_empty() || (end.ends_with(b"\n") && !end.ends_with(b"__exception__\r\n"))
            }
        }
    }
}

async fn collect(cursor: &mut BytesCursor) -> clickhouse::error::Result<Stretch> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    while let Some(piece) = cursor.next().await? {
        bytes += piece.len();
        if bytes > BYTES_MAX {
            return Ok(Stretch::TooLarge);
        }
        pieces.push(piece);
    }
    Ok(Stretch::Whole(pieces))
}

async fn within<T>(answer: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, Failure> {
    super::database::within(WITHIN, answer).await
}

/// The last bytes, over the border of pieces.
fn tail(pieces: &[Bytes]) -> Vec<u8> {
    const TAIL_BYTES: usize = 32;
    let mut tail: Vec<u8> =
        pieces.iter().rev().flat_map(|piece| piece.iter().rev()).take(TAIL_BYTES).copied().collect();
    tail.reverse();
    tail
}

impl From<ConversionKeyRow> for ExportKey {
    fn from(row: ConversionKeyRow) -> Self {
        Self::Conversion {
            goal_id: GoalId(row.goal_id),
            converted_at: UnixMillis(row.converted_at),
            id: ConversionId(row.conversion_id),
        }
    }
}

impl From<ClickKeyRow> for ExportKey {
    fn from(row: ClickKeyRow) -> Self {
        Self::Click { id: ClickId(row.click_id), is_callers: row.is_callers != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_seen_over_the_border_of_pieces() {
        let pieces = ["1,2\n", "", "\r\n__exce", "ption__\r\n"].map(Bytes::from);
        assert!(tail(&pieces).ends_with(b"__exception__\r\n"));
        assert_eq!(tail(&[]), b"");
    }
}
