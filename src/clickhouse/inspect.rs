//! Looking at a batch, and mending what a doubtful insert left behind.
//!
//! One shipper writes the database, one batch at a time: while a batch is looked at, nothing else changes. Every step
//! is idempotent or begins by undoing itself, so that it may be stopped anywhere and begun again.

use clickhouse::query::Query;

use super::{
    Database, Failure,
    derived::{Feed, Rollup, RollupSpec, SideTable},
    footprint::{Doubtful, Finding, Touched},
};
use crate::core::{BatchId, UnixMillis, rows::Table};

/// Numbers in one list: ClickHouse takes 128 KiB in one parameter. Of more, everything between the first and the last is
/// looked at.
const LIST_MAX: usize = 10_000;
const HOUR_SECONDS: i64 = 3600;

impl Database {
    /// Counts what is there of a batch. Rows that may have been dropped by age count as there.
    pub async fn inspect(&self, doubtful: Doubtful<'_>) -> Result<Finding, Failure> {
        let Doubtful { batch, of, kept } = doubtful;
        let mut found = Finding::default();
        for table in Table::ALL {
            found.rows[table as usize] = match of.rows[table as usize] {
                0 => 0,
                rows if table == Table::Rejections && of.from < kept.rejections_since => rows,
                rows if table == Table::Clicks && of.from < kept.clicks_since => rows,
                _ => self.count_batch(table.name(), batch).await?,
            };
        }
        for side in SideTable::ALL {
            found.side[side as usize] = match of.side[side as usize] {
                0 => 0,
                rows if side == SideTable::ClicksByVisitor && of.from < kept.clicks_since => rows,
                rows => match self.count_batch(side.name(), batch).await? {
                    count if count == rows => rows,
                    count if self.is_blanked(side, doubtful, &found, count).await? => rows,
                    count => count,
                },
            };
        }
        for rollup in Rollup::ALL {
            let Some(scope) = Scope::of(rollup, doubtful) else { continue };
            let differences = scope.spec.differences(&scope.source(), &scope.target());
            let count = format!("SELECT count() FROM ({differences})");
            found.groups_off[rollup as usize] =
                self.long(scope.bind(self.long_query(&count)).fetch_one()).await?;
        }
        Ok(found)
    }

    /// Makes everything that is derived from a batch's raw rows equal to them, where `found` says that it is not.
    /// Returns how many tables were made anew in part.
    pub async fn mend(&self, doubtful: Doubtful<'_>, found: &Finding) -> Result<u64, Failure> {
        let mut mended = 0;
        for side in SideTable::ALL {
            if found.side[side as usize] != doubtful.of.side[side as usize] {
                self.rebuild_side(side, doubtful).await?;
                mended += 1;
            }
        }
        for rollup in Rollup::ALL {
            if found.groups_off[rollup as usize] > 0 {
                self.rebuild_rollup(rollup, doubtful).await?;
                mended += 1;
            }
        }
        Ok(mended)
    }

    /// Takes a batch out again, wherever it got to: of a batch that was not whole, nothing remains.
    pub async fn withdraw(&self, doubtful: Doubtful<'_>) -> Result<(), Failure> {
        for table in Table::ALL {
            self.forget(table.name(), doubtful.batch).await?;
        }
        for side in SideTable::ALL {
            self.forget(side.name(), doubtful.batch).await?;
        }
        for rollup in Rollup::ALL {
            self.rebuild_rollup(rollup, doubtful).await?;
        }
        Ok(())
    }

    /// The newest batch of which there is a row; 0: none.
    pub async fn newest_batch(&self) -> Result<BatchId, Failure> {
        let of = |table: Table| format!("SELECT max(batch_id) AS newest FROM {}", table.name());
        let sql = format!("SELECT max(newest) FROM ({})", Table::ALL.map(of).join(" UNION ALL "));
        Ok(BatchId(self.long(self.long_query(&sql).fetch_one()).await?))
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

    /// Makes the touched groups of a rollup equal to the raw rows.
    async fn rebuild_rollup(&self, rollup: Rollup, doubtful: Doubtful<'_>) -> Result<(), Failure> {
        let Some(scope) = Scope::of(rollup, doubtful) else { return Ok(()) };
        let spec = scope.spec;
        let forget = format!("ALTER TABLE {} DELETE WHERE {}", spec.target, scope.target());
        let forget = scope.bind(self.long_query(&forget)).with_setting("mutations_sync", "2");
        self.long(forget.execute()).await?;
        let count =
            format!("INSERT INTO {} ({}) {}", spec.target, spec.columns(), spec.select(&scope.source()));
        self.long(rebuilding(scope.bind(self.long_query(&count))).execute()).await
    }

    /// Makes a side table's rows of a batch equal to its raw rows.
    async fn rebuild_side(&self, side: SideTable, doubtful: Doubtful<'_>) -> Result<(), Failure> {
        self.forget(side.name(), doubtful.batch).await?;
        for feed in side.feeds().filter(|feed| doubtful.of.rows[feed.source as usize] > 0) {
            let copy = format!("INSERT INTO {} ({}) {}", side.name(), feed.columns(), ours(feed));
            let copy = rebuilding(bind_batch(self.long_query(&copy), doubtful));
            self.long(copy.execute()).await?;
        }
        Ok(())
    }

    /// Whether a side table has fewer rows of a batch than were cut only since a person was erased from it meanwhile: it
    /// has what the raw rows, all of them there, give today.
    async fn is_blanked(
        &self,
        side: SideTable,
        doubtful: Doubtful<'_>,
        found: &Finding,
        count: u64,
    ) -> Result<bool, Failure> {
        if !found.raw_is_whole(doubtful.of) {
            return Ok(false);
        }
        let mut given = 0;
        for feed in side.feeds().filter(|feed| doubtful.of.rows[feed.source as usize] > 0) {
            let sql = format!("SELECT count() FROM ({})", ours(feed));
            given += self.long(bind_batch(self.long_query(&sql), doubtful).fetch_one::<u64>()).await?;
        }
        Ok(given == count)
    }

    /// Rows of a batch in one table.
    async fn count_batch(&self, table: &str, batch: BatchId) -> Result<u64, Failure> {
        let sql = format!("SELECT count() FROM {table} WHERE batch_id = {{batch: UInt64}}");
        self.long(self.long_query(&sql).param("batch", batch.0).fetch_one()).await
    }

    async fn forget(&self, table: &str, batch: BatchId) -> Result<(), Failure> {
        if self.count_batch(table, batch).await? == 0 {
            return Ok(());
        }
        let sql = format!("ALTER TABLE {table} DELETE WHERE batch_id = {{batch: UInt64}}");
        self.long(self.long_query(&sql).with_setting("mutations_sync", "2").param("batch", batch.0).execute())
            .await
    }
}

/// What a feed makes of the raw rows of a batch. The times only prune.
fn ours(feed: &Feed) -> String {
    let source = feed.source.name();
    feed.select(&format!(
        "{source}.batch_id = {{batch: UInt64}} AND \
         {source}.received_at >= fromUnixTimestamp64Milli({{from: Int64}}, 'UTC') AND \
         {source}.received_at <= fromUnixTimestamp64Milli({{to: Int64}}, 'UTC')"
    ))
}

fn bind_batch(query: Query, doubtful: Doubtful<'_>) -> Query {
    query.param("batch", doubtful.batch.0).param("from", doubtful.of.from.0).param("to", doubtful.of.to.0)
}

/// The groups of a rollup that a batch touches, as conditions on the source and on the target. Both are made of the
/// columns that rows are grouped by, and of nothing else, so that either finds all of a group or nothing of it.
struct Scope<'a> {
    spec: &'static RollupSpec,
    touched: &'a Touched,
    /// Hours from here on, and
    from: u32,
    /// to here: with this one.
    to: u32,
}

impl<'a> Scope<'a> {
    /// `None`: it touches nothing, or nothing that can still be counted.
    fn of(rollup: Rollup, doubtful: Doubtful<'a>) -> Option<Self> {
        let touched = &doubtful.of.touched[rollup as usize];
        let (&first, &to) = (touched.hours.first()?, touched.hours.last()?);
        let spec = rollup.spec();
        let from = if spec.source == Table::Clicks {
            first.max(first_whole_hour(doubtful.kept.clicks_since))
        } else {
            first
        };
        (from <= to).then_some(Self { spec, touched, from, to })
    }

    fn source(&self) -> String {
        let RollupSpec { at, owner, .. } = *self.spec;
        let source = self.spec.source.name();
        // Qualified: the statement gives some of these names to what it selects.
        let of = |column: &str| format!("{source}.{column}");
        self.condition(
            &of("account_id"),
            &of(owner),
            &format!("intDiv(toUnixTimestamp({source}.{at}), 3600)"),
            &format!(
                "{source}.{at} >= fromUnixTimestamp64Milli({{from: Int64}} * 3600000, 'UTC') AND \
                 {source}.{at} < fromUnixTimestamp64Milli(({{to: Int64}} + 1) * 3600000, 'UTC')"
            ),
        )
    }

    fn target(&self) -> String {
        self.condition(
            "account_id",
            self.spec.owner,
            "intDiv(toUnixTimestamp(hour), 3600)",
            "hour >= toDateTime({from: Int64} * 3600, 'UTC') AND hour <= toDateTime({to: Int64} * 3600, 'UTC')",
        )
    }

    fn condition(&self, account: &str, owner: &str, hour: &str, times: &str) -> String {
        let Touched { accounts, owners, hours } = self.touched;
        let mut all = vec![
            one_of(account, "accounts", accounts),
            one_of(owner, "owners", owners),
            one_of(hour, "hours", hours),
            times.to_owned(),
        ];
        all.extend(self.spec.ours.map(str::to_owned));
        all.join(" AND ")
    }

    fn bind(&self, query: Query) -> Query {
        let Touched { accounts, owners, hours } = self.touched;
        [("accounts", accounts), ("owners", owners), ("hours", hours)]
            .into_iter()
            .fold(query, |query, (name, numbers)| bound(query, name, numbers))
            .param("from", i64::from(self.from))
            .param("to", i64::from(self.to))
    }
}

/// Whether a value is in a list, or, of a long one, between its ends.
fn one_of(value: &str, name: &str, numbers: &[u32]) -> String {
    if numbers.len() <= LIST_MAX {
        format!("{value} IN {{{name}: Array(UInt32)}}")
    } else {
        format!("{value} BETWEEN {{{name}_from: UInt32}} AND {{{name}_to: UInt32}}")
    }
}

fn bound(query: Query, name: &str, numbers: &[u32]) -> Query {
    if numbers.len() <= LIST_MAX {
        return query.param(name, numbers);
    }
    let ends = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(u32::MAX));
    query.param(&format!("{name}_from"), ends.0).param(&format!("{name}_to"), ends.1)
}

/// The first hour of which every row is kept, where rows are kept that were received since then: a row is received at
/// most a minute before what it tells of.
fn first_whole_hour(since: UnixMillis) -> u32 {
    u32::try_from(since.seconds().div_euclid(HOUR_SECONDS).max(0)).unwrap_or(u32::MAX).saturating_add(2)
}

/// A rebuilt block may equal one that was there before: it must not be taken for a repetition of it.
fn rebuilding(query: Query) -> Query {
    query.with_setting("insert_deduplicate", "0").with_setting("async_insert", "0")
}
