//! The SQL of exports.
//!
//! An order that a primary key serves, and rows by ranges of it: so every query reads a bounded stretch of the tables,
//! whatever their size, and the right sides of its joins hold no more than that stretch.

use clickhouse::query::Query;

use super::columns::select_list;
use crate::clickhouse::Database;
use crate::core::{ExportFormat, ExportKey, ExportKind, ExportQuery};

/// Which conversions, and which rows about them: every table that a conversion's row is made of has these columns.
const CONVERSIONS: &str = "account_id = {account: UInt32} AND batch_id <= {batch: UInt64} \
    AND converted_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
    AND converted_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')";
/// Nested, so that its ranges of goal and time can be read off the key.
const CONVERSIONS_AFTER: &str = "goal_id >= {after_goal: UInt32} AND (goal_id > {after_goal: UInt32} \
    OR (converted_at >= fromUnixTimestamp64Milli({after_at: Int64}, 'UTC') \
    AND (converted_at > fromUnixTimestamp64Milli({after_at: Int64}, 'UTC') OR conversion_id > {after_id: UUID})))";
const CONVERSIONS_UNTIL: &str = "goal_id <= {until_goal: UInt32} AND (goal_id < {until_goal: UInt32} \
    OR (converted_at <= fromUnixTimestamp64Milli({until_at: Int64}, 'UTC') \
    AND (converted_at < fromUnixTimestamp64Milli({until_at: Int64}, 'UTC') OR conversion_id <= {until_id: UUID})))";

const CLICKS: &str = "account_id = {account: UInt32} AND batch_id <= {batch: UInt64} \
    AND clicked_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
    AND clicked_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')";
const CLICKS_AFTER: &str = "click_id >= {after_id: UInt64} \
    AND (click_id > {after_id: UInt64} OR (click_key != 0) > {after_callers: Bool})";
const CLICKS_UNTIL: &str = "click_id <= {until_id: UInt64} \
    AND (click_id < {until_id: UInt64} OR (click_key != 0) <= {until_callers: Bool})";

/// What a query may take of the server's memory. A stretch of rows takes some ten megabytes.
const MEMORY_BYTES_MAX: &str = "512000000";

/// One stretch of rows.
pub(super) fn rows(database: &Database, range: &ExportQuery, format: ExportFormat) -> Query {
    let list = select_list(range.kind, format);
    let filter = filter(range);
    let sql = match range.kind {
        ExportKind::Conversions => format!(
            "SELECT {list} FROM (SELECT * FROM conversions WHERE {filter}) AS c \
             LEFT ANY JOIN (SELECT * FROM attributions_current WHERE {filter}) AS e \
                 ON e.conversion_id = c.conversion_id \
             LEFT ANY JOIN (SELECT conversion_id, sum(adjustments.net_value_change) AS net_value_change, \
                 sum(toInt64(adjustments.net_conversions_change)) AS net_conversions_change \
                 FROM adjustments WHERE {filter} GROUP BY conversion_id) AS x ON x.conversion_id = c.conversion_id \
             ORDER BY c.goal_id, c.converted_at, c.conversion_id"
        ),
        ExportKind::Clicks => format!(
            "SELECT {list} FROM (SELECT * FROM clicks WHERE {filter}) AS c ORDER BY c.click_id, c.click_key != 0"
        ),
    };
    bound(database, &sql, range)
        .with_setting("max_memory_usage", MEMORY_BYTES_MAX)
        // Stretches are read one after another; what runs beside them is the ingest.
        .with_setting("max_threads", "1")
        .with_setting("join_use_nulls", "0")
        // A stretch is whole or an error, never something in between.
        .with_setting("wait_end_of_query", "1")
        .with_setting("http_write_exception_in_output_format", "0")
        .with_setting("date_time_output_format", "iso")
        .with_setting("format_csv_null_representation", "")
        .with_setting("output_format_csv_crlf_end_of_line", "0")
        .with_setting("output_format_decimal_trailing_zeros", "0")
        .with_setting("output_format_json_quote_64bit_integers", "0")
        .with_setting("output_format_json_quote_decimals", "1")
        .with_setting("output_format_json_escape_forward_slashes", "0")
        .with_setting("output_format_parquet_string_as_string", "1")
        .with_setting("output_format_parquet_compression_method", "zstd")
        // Joined files have no room for them.
        .with_setting("output_format_parquet_write_bloom_filter", "0")
        .with_setting("output_format_parquet_write_page_index", "0")
}

/// The keys of the `n`th row, from 1, and of the one after it, if they are there.
pub(super) fn keys_at(database: &Database, range: &ExportQuery, n: u64, count: u8) -> Query {
    let filter = filter(range);
    let sql = match range.kind {
        ExportKind::Conversions => format!(
            "SELECT goal_id, converted_at, conversion_id FROM conversions WHERE {filter} \
             ORDER BY goal_id, converted_at, conversion_id"
        ),
        ExportKind::Clicks => format!(
            "SELECT click_id, click_key != 0 AS is_callers FROM clicks WHERE {filter} \
             ORDER BY click_id, click_key != 0"
        ),
    };
    let sql = format!("{sql} LIMIT {{count: UInt8}} OFFSET {{skip: UInt64}}");
    bound(database, &sql, range)
        .param("count", count)
        .param("skip", n.saturating_sub(1))
        .with_setting("max_memory_usage", MEMORY_BYTES_MAX)
        .with_setting("max_threads", "1")
}

fn filter(range: &ExportQuery) -> String {
    let (of, after, until) = match range.kind {
        ExportKind::Conversions => (CONVERSIONS, CONVERSIONS_AFTER, CONVERSIONS_UNTIL),
        ExportKind::Clicks => (CLICKS, CLICKS_AFTER, CLICKS_UNTIL),
    };
    let parts = [Some(of), range.after.map(|_| after), range.until.map(|_| until)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" AND ")
}

fn bound(database: &Database, sql: &str, range: &ExportQuery) -> Query {
    let (from, to) = times(range);
    let query = database
        .export_query(sql)
        .param("account", range.account_id.0)
        .param("batch", range.batch.0)
        .param("from", from)
        .param("to", to);
    let query = key(query, "after", range.after);
    key(query, "until", range.until)
}

fn key(query: Query, side: &str, key: Option<ExportKey>) -> Query {
    match key {
        Some(ExportKey::Conversion { goal_id, converted_at, id }) => query
            .param(&format!("{side}_goal"), goal_id.0)
            .param(&format!("{side}_at"), converted_at.0)
            .param(&format!("{side}_id"), id.to_string()),
        Some(ExportKey::Click { id, is_callers }) => {
            query.param(&format!("{side}_id"), id.0).param(&format!("{side}_callers"), is_callers)
        }
        None => query,
    }
}

/// The period. A stretch within one goal is one of time too, and tables that are sorted by time and not by goal are
/// read for that time alone.
fn times(range: &ExportQuery) -> (i64, i64) {
    let (mut from, mut to) = (range.from.0, range.to.0);
    if let (
        Some(ExportKey::Conversion { goal_id: first, converted_at: since, .. }),
        Some(ExportKey::Conversion { goal_id: last, converted_at: until, .. }),
    ) = (range.after, range.until)
        && first == last
    {
        (from, to) = (from.max(since.0), to.min(until.plus(1).0));
    }
    (from, to)
}
