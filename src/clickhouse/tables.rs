//! What the tables say of themselves, for the audit.

use super::{Database, Failure};
use crate::core::BatchId;

/// Sums over the whole database. Raw rows, keys and late duplicates are those of settled batches, which no longer
/// change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Raw conversions.
    pub conversions: u64,
    /// Raw conversions that carry a key.
    pub keyed: u64,
    /// Rows of the key table.
    pub order_keys: u64,
    /// Whether the keys of the raw rows and of the key table are the same ones, by a hash over all.
    pub keys_agree: bool,
    /// Late duplicates.
    pub late_duplicates: u64,
    /// Conversions that stand in the raw table more than once.
    pub repeated_conversions: u64,
    /// Raw conversions whose order id counts more than once.
    pub repeated_orders: u64,
}

/// An hour whose statistics differ from the raw rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourOff {
    /// The account.
    pub account_id: u32,
    /// The goal.
    pub goal_id: u32,
    /// The hour's start, in seconds since the epoch.
    pub hour: u32,
    /// The currency.
    pub currency: String,
    /// Raw conversions less those of the statistics.
    pub conversions: i64,
    /// Raw value less that of the statistics, in millionths.
    pub value_micros: i128,
}

/// Differences that are listed; more are not needed to know that something is wrong.
const HOURS_OFF_MAX: u32 = 100;

#[derive(clickhouse::Row, serde::Deserialize)]
struct RawRow {
    conversions: u64,
    keyed: u64,
    hash: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct KeysRow {
    keys: u64,
    hash: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct HourRow {
    account_id: u32,
    goal_id: u32,
    hour: u32,
    currency: String,
    n: i64,
    v: i128,
}

const RAW: &str = "SELECT countIf(batch_id <= {settled: UInt64}) AS conversions,
        countIf(batch_id <= {settled: UInt64} AND order_key != 0) AS keyed,
        sumIf(cityHash64(goal_id, order_key, conversion_id), batch_id <= {settled: UInt64} AND order_key != 0) AS hash
    FROM conversions";

const KEYS: &str = "SELECT count() AS keys, sum(cityHash64(goal_id, order_key, conversion_id)) AS hash
    FROM order_keys WHERE batch_id <= {settled: UInt64}";

const LATE: &str = "SELECT count() FROM rejections
    WHERE batch_id <= {settled: UInt64} AND conversion_id != toUUID('00000000-0000-0000-0000-000000000000')";

/// In the order of the primary key: in constant memory.
const REPEATED_CONVERSIONS: &str = "SELECT toUInt64(sum(n - 1)) FROM (SELECT count() AS n FROM conversions
    GROUP BY account_id, goal_id, received_at, conversion_id HAVING n > 1)";

/// The key table, in its own order, says which keys to look at; a key of a day may come again.
const REPEATED_ORDERS: &str = "SELECT count() FROM conversions
    WHERE key_scope = 'forever' AND (goal_id, order_key) IN
        (SELECT goal_id, order_key FROM order_keys GROUP BY goal_id, order_key HAVING count() > 1)";

const HOURS_OFF: &str =
    "SELECT account_id, goal_id, toUnixTimestamp(hour) AS hour, toString(currency) AS currency,
        sum(n) AS n, toInt128(sum(v) * 1000000) AS v
    FROM (
        SELECT account_id, goal_id, toDateTime(toStartOfHour(received_at), 'UTC') AS hour, currency,
            toInt64(count()) AS n, toDecimal128(sum(value), 6) AS v
        FROM conversions GROUP BY account_id, goal_id, hour, currency
        UNION ALL
        SELECT account_id, goal_id, hour, currency, -toInt64(sum(conversions)) AS n, -sum(value) AS v
        FROM conversions_hourly GROUP BY account_id, goal_id, hour, currency
    )
    GROUP BY account_id, goal_id, hour, currency HAVING n != 0 OR v != 0
    ORDER BY account_id, goal_id, hour, currency LIMIT {limit: UInt32}";

impl Database {
    /// Counts everything that belongs to batches up to `settled`.
    pub async fn count_tables(&self, settled: BatchId) -> Result<Tables, Failure> {
        let raw: RawRow = self.long(self.long_query(RAW).param("settled", settled.0).fetch_one()).await?;
        let keys: KeysRow = self.long(self.long_query(KEYS).param("settled", settled.0).fetch_one()).await?;
        let in_order = |sql: &str| {
            self.long_query(sql).with_setting("optimize_aggregation_in_order", "1").fetch_one::<u64>()
        };
        Ok(Tables {
            conversions: raw.conversions,
            keyed: raw.keyed,
            order_keys: keys.keys,
            keys_agree: raw.hash == keys.hash,
            late_duplicates: self.long(self.long_query(LATE).param("settled", settled.0).fetch_one()).await?,
            repeated_conversions: self.long(in_order(REPEATED_CONVERSIONS)).await?,
            repeated_orders: self.long(in_order(REPEATED_ORDERS)).await?,
        })
    }

    /// The hours whose statistics differ from the raw rows, at most a hundred. While a batch is being inserted its
    /// hours may differ for a moment.
    pub async fn hours_off(&self) -> Result<Vec<HourOff>, Failure> {
        let query = self.long_query(HOURS_OFF).param("limit", HOURS_OFF_MAX);
        let rows: Vec<HourRow> = self.long(query.fetch_all()).await?;
        Ok(rows
            .into_iter()
            .map(|row| HourOff {
                account_id: row.account_id,
                goal_id: row.goal_id,
                hour: row.hour,
                currency: row.currency,
                conversions: row.n,
                value_micros: row.v,
            })
            .collect())
    }
}
