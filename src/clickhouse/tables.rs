//! What the tables say of themselves, for the audit.

use super::{
    Database, Failure,
    derived::{Rollup, RollupSpec, SideTable},
};
use crate::core::{BatchId, PerKind, rows::Table};

/// Sums over the whole database. Raw rows, side tables and late duplicates are those of settled batches, which no longer
/// change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Raw rows of each kind; clicks that were dropped by age among them.
    pub rows: PerKind<u64>,
    /// Late duplicates of each kind.
    pub late: PerKind<u64>,
    /// Raw rows of each kind that are there more than once.
    pub repeated: PerKind<u64>,
    /// Conversions that a click earned, and
    pub attributed: u64,
    /// what they owe: decisions of run 0.
    pub attributions: u64,
    /// The side tables, in the order of [`SideTable::ALL`].
    pub side: [Side; SideTable::ALL.len()],
    /// Raw conversions whose order id counts more than once.
    pub repeated_orders: u64,
}

/// A side table against the raw rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Rows that it should have.
    pub expected: u64,
    /// Rows that it has.
    pub found: u64,
    /// Whether they are the same ones, by a hash over all.
    pub agree: bool,
}

/// A group of hourly statistics that differs from the raw rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOff {
    /// The table of statistics.
    pub table: &'static str,
    /// The group, for people.
    pub group: String,
    /// The sums that differ: those of the raw rows less those of the statistics, for people.
    pub differences: String,
}

/// Differences of one table that are listed; more are not needed to know that something is wrong.
const GROUPS_OFF_MAX: u32 = 100;
/// Beyond it a scan sorts on disk rather than in memory.
const GROUP_BYTES_MAX: &str = "268435456";
/// Clicks and hours from here on have all of their rows.
const CLICKS_KEPT: &str = "toDateTime({clicks_kept: UInt32}, 'UTC')";
/// Later than the border of what was removed: a day, which is what the border may move by during a scan, and an hour for
/// clicks that were received before they happened.
const CLICKS_KEPT_AFTER_SECONDS: i64 = 25 * 3600;
const NIL: &str = "toUUID('00000000-0000-0000-0000-000000000000')";
/// Decisions of runs that are being made, or were given up, are nobody's numbers yet.
const FINISHED_RUNS: &str =
    "(run_id = 0 OR run_id IN (SELECT run_id FROM attribution_runs FINAL WHERE state = 'done'))";

#[derive(clickhouse::Row, serde::Deserialize)]
struct Counts {
    conversions: u64,
    clicks: u64,
    adjustments: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct RowsAndHash {
    rows: u64,
    hash: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct GroupRow {
    group: String,
    differences: String,
}

impl Database {
    /// Counts everything that belongs to batches up to `settled`.
    pub async fn count_tables(&self, settled: BatchId) -> Result<Tables, Failure> {
        let scan = self.scan(settled).await?;
        let mut tables = Tables {
            rows: PerKind([
                scan.rows(Table::Conversions).await?,
                scan.rows(Table::Clicks).await? + scan.expired_clicks().await?,
                scan.rows(Table::Adjustments).await?,
            ]),
            late: scan.late().await?,
            repeated: PerKind([
                scan.repeated("conversions", "account_id, goal_id, converted_at, conversion_id").await?,
                scan.repeated("clicks", "account_id, click_id").await?,
                scan.repeated("adjustments", "account_id, conversion_id, received_at, adjustment_id").await?,
            ]),
            attributed: scan.count("conversions", "attribution_method != 'none'").await?,
            attributions: scan.count("attributions", "run_id = 0").await?,
            repeated_orders: scan.repeated_orders().await?,
            ..Tables::default()
        };
        for side in SideTable::ALL {
            tables.side[side as usize] = scan.side(side).await?;
        }
        Ok(tables)
    }

    /// The groups of hourly statistics that differ from the raw rows, at most a hundred of each table. While a batch is
    /// being inserted its hours may differ for a moment.
    pub async fn groups_off(&self) -> Result<Vec<GroupOff>, Failure> {
        let scan = self.scan(BatchId(u64::MAX)).await?;
        let mut off = Vec::new();
        for spec in Rollup::ALL.map(Rollup::spec) {
            off.extend(scan.groups_off(spec).await?);
        }
        Ok(off)
    }

    async fn scan(&self, settled: BatchId) -> Result<Scan<'_>, Failure> {
        let removed = self.clicks_complete_since().await?.hour_start_seconds();
        let clicks_kept = match removed {
            ..=0 => 0,
            removed => u32::try_from(removed.saturating_add(CLICKS_KEPT_AFTER_SECONDS)).unwrap_or(u32::MAX),
        };
        Ok(Scan { database: self, settled, clicks_kept })
    }
}

struct Scan<'a> {
    database: &'a Database,
    settled: BatchId,
    /// Seconds since 1970.
    clicks_kept: u32,
}

impl Scan<'_> {
    async fn rows(&self, table: Table) -> Result<u64, Failure> {
        self.count(table.name(), "1").await
    }

    /// Rows of settled batches for which a condition holds.
    async fn count(&self, table: &str, condition: &str) -> Result<u64, Failure> {
        let sql =
            format!("SELECT count() FROM {table} WHERE batch_id <= {{settled: UInt64}} AND {condition}");
        self.database.long(self.bound(&sql).fetch_one()).await
    }

    /// Clicks of hours whose raw rows may have gone by age: their statistics still count them.
    async fn expired_clicks(&self) -> Result<u64, Failure> {
        let sql = format!(
            "SELECT toUInt64(greatest(0, sum(n))) FROM ( \
                 SELECT toInt64(sum(clicks)) AS n FROM clicks_hourly WHERE hour < {CLICKS_KEPT} UNION ALL \
                 SELECT -toInt64(count()) AS n FROM clicks WHERE clicked_at < {CLICKS_KEPT})"
        );
        self.database.long(self.bound(&sql).fetch_one()).await
    }

    async fn late(&self) -> Result<PerKind<u64>, Failure> {
        let sql = format!(
            "SELECT countIf(goal_id != 0) AS conversions, \
                 countIf(goal_id = 0 AND field = 'click_id') AS clicks, \
                 countIf(goal_id = 0 AND field != 'click_id') AS adjustments \
             FROM rejections WHERE batch_id <= {{settled: UInt64}} AND conversion_id != {NIL}"
        );
        let counts: Counts = self.database.long(self.bound(&sql).fetch_one()).await?;
        Ok(PerKind([counts.conversions, counts.clicks, counts.adjustments]))
    }

    /// Rows that are there already. `key` begins with the primary key: in constant memory.
    async fn repeated(&self, table: &str, key: &str) -> Result<u64, Failure> {
        let sql = format!(
            "SELECT toUInt64(sum(n - 1)) FROM (SELECT count() AS n FROM {table} GROUP BY {key} HAVING n > 1)"
        );
        let query = self.database.long_query(&sql).with_setting("optimize_aggregation_in_order", "1");
        self.database.long(query.fetch_one()).await
    }

    /// The key table, in its own order, says which keys to look at; a key of a day may come again.
    async fn repeated_orders(&self) -> Result<u64, Failure> {
        let sql = "SELECT count() FROM conversions WHERE key_scope = 'forever' AND (goal_id, order_key) IN \
                   (SELECT goal_id, order_key FROM order_keys GROUP BY goal_id, order_key HAVING count() > 1)";
        let query = self.database.long_query(sql).with_setting("optimize_aggregation_in_order", "1");
        self.database.long(query.fetch_one()).await
    }

    async fn side(&self, side: SideTable) -> Result<Side, Failure> {
        let (mut expected, mut columns) = (RowsAndHash { rows: 0, hash: 0 }, String::new());
        for feed in side.feeds() {
            columns = feed.columns();
            let source = feed.source.name();
            let kept = if feed.source == Table::Clicks {
                format!(" AND {source}.received_at >= {CLICKS_KEPT}")
            } else {
                String::new()
            };
            let rows = feed.select(&format!("{source}.batch_id <= {{settled: UInt64}}{kept}"));
            let of = self.hashed(&columns, &format!("({rows})")).await?;
            expected.rows += of.rows;
            expected.hash = expected.hash.wrapping_add(of.hash);
        }
        let kept = match side {
            // Keys are for ever; those of clicks are compared for as long as there are clicks.
            SideTable::OrderKeys => {
                format!("(goal_id != 0 OR conversion_id != {NIL} OR received_at >= {CLICKS_KEPT})")
            }
            SideTable::ClicksByVisitor => format!("received_at >= {CLICKS_KEPT}"),
        };
        let name = side.name();
        let own = format!("(SELECT {columns} FROM {name} WHERE batch_id <= {{settled: UInt64}} AND {kept})");
        let found = self.hashed(&columns, &own).await?;
        Ok(Side { expected: expected.rows, found: found.rows, agree: expected.hash == found.hash })
    }

    async fn hashed(&self, columns: &str, rows: &str) -> Result<RowsAndHash, Failure> {
        let sql = format!("SELECT count() AS rows, sum(cityHash64({columns})) AS hash FROM {rows}");
        self.database.long(self.bound(&sql).fetch_one()).await
    }

    async fn groups_off(&self, spec: &RollupSpec) -> Result<Vec<GroupOff>, Failure> {
        let mut conditions = (Vec::new(), Vec::new());
        if spec.source == Table::Clicks {
            conditions.0.push(format!("{}.{} >= {CLICKS_KEPT}", spec.source.name(), spec.at));
            conditions.1.push(format!("hour >= {CLICKS_KEPT}"));
        }
        if spec.ours.is_some() {
            conditions.0.push(FINISHED_RUNS.to_owned());
            conditions.1.push(FINISHED_RUNS.to_owned());
        }
        let differences = spec.differences(&conditions.0.join(" AND "), &conditions.1.join(" AND "));
        let named = |name: &str, value: &str| format!("'{name} ', toString({value})");
        let group = spec.groups.iter().map(|(name, _)| named(name, name)).collect::<Vec<_>>();
        let sums = spec.sums().enumerate().map(|(n, name)| named(name, &format!("d{n}"))).collect::<Vec<_>>();
        let sql = format!(
            "SELECT toString(concat({})) AS group, toString(concat({})) AS differences \
             FROM ({differences}) ORDER BY group LIMIT {{limit: UInt32}}",
            group.join(", ', ', "),
            sums.join(", ', ', "),
        );
        let query = self
            .bound(&sql)
            .with_setting("max_bytes_before_external_group_by", GROUP_BYTES_MAX)
            .param("limit", GROUPS_OFF_MAX);
        let rows: Vec<GroupRow> = self.database.long(query.fetch_all()).await?;
        let off = |GroupRow { group, differences }| GroupOff { table: spec.target, group, differences };
        Ok(rows.into_iter().map(off).collect())
    }

    fn bound(&self, sql: &str) -> clickhouse::query::Query {
        self.database.long_query(sql).param("settled", self.settled.0).param("clicks_kept", self.clicks_kept)
    }
}
