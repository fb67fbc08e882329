//! Looking at a batch, and mending what a doubtful insert left behind.
//!
//! One shipper writes the database, one batch at a time: while a batch is looked at, nothing else changes. Every step
//! is idempotent or begins by undoing itself, so that it may be stopped anywhere and begun again.

use super::{Database, Failure};
use crate::core::{BatchId, UnixMillis, rows::Table};

/// What a batch touched: all that looking and mending need of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Its conversions.
    pub conversions: u64,
    /// Those of them that carry an order key.
    pub keyed: u64,
    /// Its rejections.
    pub rejections: u64,
    /// The accounts of its conversions, sorted.
    pub accounts: Vec<u32>,
    /// The goals of its conversions, sorted.
    pub goals: Vec<u32>,
    /// The hours of its conversions: seconds since the epoch, sorted.
    pub hours: Vec<u32>,
    /// The first instant of its rows.
    pub from: UnixMillis,
    /// The last instant of its rows.
    pub to: UnixMillis,
}

/// What was found of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Rows in `conversions`.
    pub conversions: u64,
    /// Rows in `order_keys`.
    pub keyed: u64,
    /// Rows in `rejections`.
    pub rejections: u64,
    /// Hours of its goals whose statistics differ from the raw rows.
    pub hours_off: u64,
}

impl Finding {
    /// Whether the batch is whole and everything that is derived from it adds up.
    #[must_use]
    pub fn is_whole(&self, of: &Footprint) -> bool {
        self.raw_is_whole(of) && self.keyed == of.keyed && self.hours_off == 0
    }

    /// Whether the raw rows are whole.
    #[must_use]
    pub fn raw_is_whole(&self, of: &Footprint) -> bool {
        self.conversions == of.conversions && self.rejections == of.rejections
    }

    /// Whether there is no trace of the batch.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        *self == Self { conversions: 0, keyed: 0, rejections: 0, hours_off: 0 }
    }
}

/// Raw rows against hourly statistics: the groups that differ, of certain goals and hours.
const HOURS_OFF: &str = "SELECT count() FROM (
    SELECT account_id, goal_id, hour, currency FROM (
        SELECT account_id, goal_id, toDateTime(toStartOfHour(received_at), 'UTC') AS hour, currency,
            toInt64(count()) AS n, toDecimal128(sum(value), 6) AS v
        FROM conversions
        WHERE account_id IN {accounts: Array(UInt32)} AND goal_id IN {goals: Array(UInt32)}
            AND received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC')
            AND received_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')
            AND toUnixTimestamp(toStartOfHour(received_at)) IN {hours: Array(UInt32)}
        GROUP BY account_id, goal_id, hour, currency
        UNION ALL
        SELECT account_id, goal_id, hour, currency, -toInt64(sum(conversions)) AS n, -sum(value) AS v
        FROM conversions_hourly
        WHERE account_id IN {accounts: Array(UInt32)} AND goal_id IN {goals: Array(UInt32)}
            AND toUnixTimestamp(hour) IN {hours: Array(UInt32)}
        GROUP BY account_id, goal_id, hour, currency
    )
    GROUP BY account_id, goal_id, hour, currency HAVING sum(n) != 0 OR sum(v) != 0)";

const FORGET_HOURS: &str = "ALTER TABLE conversions_hourly DELETE
    WHERE account_id IN {accounts: Array(UInt32)} AND goal_id IN {goals: Array(UInt32)}
    AND toUnixTimestamp(hour) IN {hours: Array(UInt32)}";

/// The same statement as the view's, over whole hours.
const COUNT_HOURS: &str = "INSERT INTO conversions_hourly
    SELECT account_id, goal_id, toDateTime(toStartOfHour(received_at), 'UTC') AS hour, currency,
        count() AS conversions, sum(value) AS value, uniqStateIf(visitor_key, visitor_key != 0) AS visitors
    FROM conversions
    WHERE account_id IN {accounts: Array(UInt32)} AND goal_id IN {goals: Array(UInt32)}
        AND received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC')
        AND received_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')
        AND toUnixTimestamp(toStartOfHour(received_at)) IN {hours: Array(UInt32)}
    GROUP BY account_id, goal_id, hour, currency";

const COPY_KEYS: &str = "INSERT INTO order_keys
    SELECT goal_id, order_key, conversion_id, value, currency, received_at, batch_id
    FROM conversions
    WHERE batch_id = {batch: UInt64} AND order_key != 0
        AND received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC')
        AND received_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')";

impl Database {
    /// Counts what is there of a batch.
    pub async fn inspect(&self, batch: BatchId, of: &Footprint) -> Result<Finding, Failure> {
        let hours_off = if of.hours.is_empty() {
            0
        } else {
            self.long(self.over_hours(HOURS_OFF, of).fetch_one()).await?
        };
        Ok(Finding {
            conversions: self.count_batch("conversions", batch).await?,
            keyed: self.count_batch("order_keys", batch).await?,
            rejections: self.count_batch("rejections", batch).await?,
            hours_off,
        })
    }

    /// Rows of a batch in one table.
    async fn count_batch(&self, table: &str, batch: BatchId) -> Result<u64, Failure> {
        let sql = format!("SELECT count() FROM {table} WHERE batch_id = {{batch: UInt64}}");
        self.long(self.long_query(&sql).param("batch", batch.0).fetch_one()).await
    }

    /// Makes the hourly statistics of the batch's goals and hours equal to the raw rows.
    pub async fn rebuild_hours(&self, of: &Footprint) -> Result<(), Failure> {
        if of.hours.is_empty() {
            return Ok(());
        }
        self.long(self.over_hours(FORGET_HOURS, of).with_setting("mutations_sync", "2").execute()).await?;
        self.long(rebuilding(self.over_hours(COUNT_HOURS, of)).execute()).await
    }

    /// Makes the key table's rows of a batch equal to its raw rows.
    pub async fn rebuild_keys(&self, batch: BatchId, of: &Footprint) -> Result<(), Failure> {
        self.forget("order_keys", batch).await?;
        let (from, to) = whole_hours(of);
        let copy = rebuilding(self.long_query(COPY_KEYS))
            .param("batch", batch.0)
            .param("from", from)
            .param("to", to);
        self.long(copy.execute()).await
    }

    /// Takes a batch out again, wherever it got to: of a batch that was not whole, nothing remains.
    pub async fn withdraw(&self, batch: BatchId, of: &Footprint) -> Result<(), Failure> {
        self.forget(Table::Conversions.name(), batch).await?;
        self.forget(Table::Rejections.name(), batch).await?;
        self.forget("order_keys", batch).await?;
        self.rebuild_hours(of).await
    }

    async fn forget(&self, table: &str, batch: BatchId) -> Result<(), Failure> {
        if self.count_batch(table, batch).await? == 0 {
            return Ok(());
        }
        let sql = format!("ALTER TABLE {table} DELETE WHERE batch_id = {{batch: UInt64}}");
        self.long(self.long_query(&sql).with_setting("mutations_sync", "2").param("batch", batch.0).execute())
            .await
    }

    /// Makes sure that no attempt whose comment starts so is still running. Other comments are left alone.
    pub async fn stop_attempts(&self, comment_prefix: &str) -> Result<(), Failure> {
        let kill = "KILL QUERY WHERE startsWith(Settings['log_comment'], {prefix: String}) SYNC";
        let left = "SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], {prefix: String})";
        let bound = |sql: &str| self.long_query(sql).param("prefix", comment_prefix);
        if self.long(bound(left).fetch_one::<u64>()).await? == 0 {
            return Ok(());
        }
        self.long(bound(kill).execute()).await?;
        match self.long(bound(left).fetch_one::<u64>()).await? {
            0 => Ok(()),
            _ => {
                Err(Failure::Retry { code: None, message: "an earlier attempt is still running".to_owned() })
            }
        }
    }

    fn over_hours(&self, sql: &str, of: &Footprint) -> clickhouse::query::Query {
        let (from, to) = whole_hours(of);
        self.long_query(sql)
            .param("accounts", &of.accounts)
            .param("goals", &of.goals)
            .param("hours", &of.hours)
            .param("from", from)
            .param("to", to)
    }
}

/// A rebuilt block may equal one that was there before: it must not be taken for a repetition of it.
fn rebuilding(query: clickhouse::query::Query) -> clickhouse::query::Query {
    query.with_setting("insert_deduplicate", "0").with_setting("async_insert", "0")
}

fn whole_hours(of: &Footprint) -> (i64, i64) {
    const HOUR: i64 = 3600;
    (of.from.hour_start_seconds() * 1000, (of.to.hour_start_seconds() + HOUR) * 1000)
}
