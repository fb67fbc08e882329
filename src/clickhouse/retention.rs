//! What has outlived its time is removed, by the daemon and never by ClickHouse: a table's own time to live goes by the
//! server's clock and deletes at once whatever that says.
//!
//! What must hold:
//! - Whoever calls this hands in a time that it trusts for deletion. No statement here asks the server for the present.
//! - Before rows go, the border is recorded in the table `retention`: rows received before it may be missing, rows
//!   received after it may not. The audit holds statistics and side tables against raw rows from that border on.
//! - Borders are whole days (UTC), so that a partition is rewritten at most once a day; whole months are dropped.
//! - Statistics stay, and so does every row that acknowledged hits are accounted by.

use super::{Database, Failure};
use crate::core::UnixMillis;

/// So many days longer than a click may be reported late: every hour that one may still fall into has all of its rows, and
/// its statistics can be held against them.
const SPARE_DAYS: u32 = 2;
const DAY_SECONDS: i64 = 86_400;

/// What is removed from a table, and when.
struct Policy {
    table: &'static str,
    /// The column whose time counts.
    at: &'static str,
    kept: Days,
    removal: Removal,
}

#[derive(Clone, Copy)]
enum Days {
    Fixed(u32),
    /// As the setting says.
    OfClicks,
}

enum Removal {
    /// All rows, by whole months where that can be.
    Rows,
    /// The rows for which a condition holds.
    RowsWhere(&'static str),
    /// Values of columns, in the rows that have any.
    Values { assignments: &'static str, present: &'static str },
}

static POLICIES: [Policy; 5] = [
    Policy { table: "clicks", at: "received_at", kept: Days::OfClicks, removal: Removal::Rows },
    Policy { table: "clicks_by_visitor", at: "received_at", kept: Days::OfClicks, removal: Removal::Rows },
    Policy {
        table: "rejections",
        at: "received_at",
        kept: Days::Fixed(90),
        // A late duplicate was acknowledged with an id of its own: it is accounted for as long as the conversions are.
        removal: Removal::RowsWhere("conversion_id = toUUID('00000000-0000-0000-0000-000000000000')"),
    },
    Policy { table: "deliveries", at: "at", kept: Days::Fixed(90), removal: Removal::Rows },
    Policy {
        table: "conversions",
        at: "received_at",
        kept: Days::Fixed(400),
        removal: Removal::Values {
            assignments: "visitor_key = 0, visitor_keys = []",
            present: "(visitor_key != 0 OR notEmpty(visitor_keys))",
        },
    },
];

/// What was removed from a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The table.
    pub table: &'static str,
    /// Rows received before this instant are gone, or hold no visitor's keys any more.
    pub before: UnixMillis,
    /// How many that were.
    pub rows: u64,
}

/// Expired rows of a partition.
#[derive(clickhouse::Row, serde::Deserialize)]
struct PartitionRow {
    partition: String,
    rows: u64,
}

impl Policy {
    /// What was received before this has outlived its time.
    fn before(&self, retention_time: UnixMillis, click_days: u32) -> UnixMillis {
        let days = match self.kept {
            Days::Fixed(days) => days,
            Days::OfClicks => click_days + SPARE_DAYS,
        };
        let today = retention_time.seconds().div_euclid(DAY_SECONDS);
        UnixMillis((today - i64::from(days)) * DAY_SECONDS * 1000)
    }
}

/// What is removed from a table, for what relies on the rest.
#[cfg(test)]
pub(super) fn removed_before(table: &str, retention_time: UnixMillis, click_days: u32) -> Option<UnixMillis> {
    let policy = POLICIES.iter().find(|policy| policy.table == table)?;
    Some(policy.before(retention_time, click_days))
}

impl Database {
    /// Removes what has outlived its time at `retention_time`, where clicks are kept for `click_days`. To be repeated
    /// where it breaks off, and every day.
    pub async fn remove_expired(
        &self,
        retention_time: UnixMillis,
        click_days: u32,
    ) -> Result<Vec<Expired>, Failure> {
        let mut expired = Vec::new();
        for policy in &POLICIES {
            let before = policy.before(retention_time, click_days);
            let rows = self.remove_before(policy, before).await?;
            expired.push(Expired { table: policy.table, before, rows });
        }
        Ok(expired)
    }

    /// From when on every click is there.
    pub(super) async fn clicks_complete_since(&self) -> Result<UnixMillis, Failure> {
        let sql = "SELECT toUnixTimestamp64Milli(max(removed_before)) FROM retention \
                   WHERE table_name IN ('clicks', 'clicks_by_visitor')";
        Ok(UnixMillis(self.read(self.query(sql).fetch_one()).await?))
    }

    async fn remove_before(&self, policy: &Policy, before: UnixMillis) -> Result<u64, Failure> {
        let Policy { table, at, .. } = policy;
        let condition = match policy.removal {
            Removal::Rows => "1",
            Removal::RowsWhere(condition) => condition,
            Removal::Values { present, .. } => present,
        };
        let expired = format!("{at} < fromUnixTimestamp64Milli({{before: Int64}}, 'UTC') AND {condition}");
        let find = format!(
            "SELECT _partition_id AS partition, count() AS rows FROM {table} WHERE {expired} \
             GROUP BY partition ORDER BY partition"
        );
        let found: Vec<PartitionRow> =
            self.long(self.long_query(&find).param("before", before.0).fetch_all()).await?;
        if found.is_empty() {
            return Ok(0);
        }
        self.record_removal(table, before).await?;
        let mut rows = 0;
        for of in found {
            let partition = &of.partition;
            let sql = match policy.removal {
                Removal::Rows if self.is_past(partition, before).await? => {
                    format!("ALTER TABLE {table} DROP PARTITION ID {{partition: String}}")
                }
                Removal::Rows | Removal::RowsWhere(_) => {
                    format!(
                        "ALTER TABLE {table} DELETE IN PARTITION ID {{partition: String}} WHERE {expired}"
                    )
                }
                Removal::Values { assignments, .. } => format!(
                    "ALTER TABLE {table} UPDATE {assignments} IN PARTITION ID {{partition: String}} WHERE {expired}"
                ),
            };
            let query = self.long_query(&sql).with_setting("mutations_sync", "2");
            self.long(query.param("before", before.0).param("partition", partition).execute()).await?;
            rows += of.rows;
        }
        Ok(rows)
    }

    /// Whether all of a month, by its partition's id, lies before an instant.
    async fn is_past(&self, partition: &str, before: UnixMillis) -> Result<bool, Failure> {
        let sql = "SELECT toYYYYMM(fromUnixTimestamp64Milli({before: Int64}, 'UTC'))";
        let month: u32 = self.read(self.query(sql).param("before", before.0).fetch_one()).await?;
        Ok(partition.parse::<u32>().is_ok_and(|partition| partition < month))
    }

    async fn record_removal(&self, table: &str, before: UnixMillis) -> Result<(), Failure> {
        let sql = "INSERT INTO retention (table_name, removed_before) \
                   SELECT {table: String}, fromUnixTimestamp64Milli({before: Int64}, 'UTC')";
        let query = self.long_query(sql).with_setting("async_insert", "0");
        self.long(query.param("table", table).param("before", before.0).execute()).await
    }
}
