//! Whether the schema that is there can be written exactly once.
//!
//! Read back rather than assumed: a database may have been restored, altered, or created by someone else. Each finding
//! names the table and what is wrong with it.

use super::{
    Database, Failure,
    columns::{columns, is_same_type},
    derived::{FEEDS, Rollup, SideTable},
};
use crate::core::rows::Table;

/// Why the schema is refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// What is wrong, one sentence each.
    #[error(
        "this schema can't be written exactly once: {}; undo the change, or restore the database from a backup",
        .0.join("; ")
    )]
    Unsafe(Vec<String>),
    /// It could not be read.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Every table that takes part in an insert: the sources and the targets of the views on them.
fn written() -> impl Iterator<Item = &'static str> {
    let raw = Table::ALL.into_iter().map(Table::name);
    let side = SideTable::ALL.into_iter().map(SideTable::name);
    raw.chain(side).chain(Rollup::ALL.into_iter().map(|rollup| rollup.spec().target))
}

/// The views: what each reads and what it feeds.
fn views() -> impl Iterator<Item = (&'static str, Table, &'static str)> {
    let feeds = FEEDS.iter().map(|feed| (feed.view, feed.source, feed.target.name()));
    let rollups = Rollup::ALL.into_iter().map(Rollup::spec);
    feeds.chain(rollups.map(|spec| (spec.view, spec.source, spec.target)))
}

/// Settings that each of those tables needs, and the least value.
const NEEDED: [(&str, u64); 4] = [
    // More inserts than can lie between a batch and its last retry: the shipper sends one batch at a time.
    ("non_replicated_deduplication_window", 100),
    ("fsync_after_insert", 1),
    ("fsync_part_directory", 1),
    ("min_rows_to_fsync_after_merge", 1),
];
/// Parts replaced by a merge stay until the merged one has surely reached the disk.
const OLD_PARTS_LIFETIME_SECONDS_MIN: u64 = 60;

#[derive(clickhouse::Row, serde::Deserialize)]
struct TableRow {
    name: String,
    engine: String,
    partition_key: String,
    create_table_query: String,
    engine_full: String,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ColumnRow {
    table: String,
    name: String,
    #[serde(rename = "type")]
    column_type: String,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct SettingRow {
    name: String,
    value: String,
}

impl Database {
    /// Refuses a schema that can't be exactly-once, naming every table and setting at fault.
    pub async fn check(&self) -> Result<(), CheckError> {
        let tables: Vec<TableRow> = self
            .read(
                self.query(
                    "SELECT name, engine, partition_key, create_table_query, engine_full \
                     FROM system.tables WHERE database = {database: String}",
                )
                .param("database", &self.endpoint().database)
                .fetch_all(),
            )
            .await?;
        let defaults: Vec<SettingRow> =
            self.read(self.query("SELECT name, value FROM system.merge_tree_settings").fetch_all()).await?;
        let columns: Vec<ColumnRow> = self
            .read(
                self.query(
                    "SELECT table, name, type FROM system.columns WHERE database = {database: String}",
                )
                .param("database", &self.endpoint().database)
                .fetch_all(),
            )
            .await?;
        let mut findings = findings(&self.endpoint().database, &tables, &defaults);
        findings.extend(column_findings(&columns));
        if findings.is_empty() { Ok(()) } else { Err(CheckError::Unsafe(findings)) }
    }
}

/// A column that a table has not, or of another type: an insert would fail, or read the next column's bytes.
fn column_findings(found: &[ColumnRow]) -> Vec<String> {
    let of = |table: &str| found.iter().filter(move |column| column.table == table).collect::<Vec<_>>();
    let mut findings = Vec::new();
    for column in columns() {
        let there = of(column.table);
        // A missing table is a finding of its own.
        let (table, name) = (column.table, column.name);
        match there.iter().find(|there| there.name == name) {
            _ if there.is_empty() => {}
            None => findings.push(format!("table {table}: column {name} is missing")),
            Some(there) if !is_same_type(&there.column_type, column.declared) => findings.push(format!(
                "table {table}: column {name} is of type {}, needs {}",
                there.column_type, column.declared
            )),
            Some(_) => {}
        }
    }
    findings
}

fn findings(database: &str, tables: &[TableRow], defaults: &[SettingRow]) -> Vec<String> {
    let mut findings = Vec::new();
    let find = |name: &str| tables.iter().find(|table| table.name == name);
    for name in written() {
        let Some(table) = find(name) else {
            findings.push(format!("table {name} is missing"));
            continue;
        };
        if table.engine.starts_with("Replicated") || table.engine.starts_with("Shared") {
            // Their own log of tokens, on by default, and no hole between it and the part.
            continue;
        }
        if !table.engine.ends_with("MergeTree") {
            findings.push(format!("table {name} has engine {}, which keeps no tokens", table.engine));
            continue;
        }
        let least = NEEDED.iter().copied().chain([("old_parts_lifetime", OLD_PARTS_LIFETIME_SECONDS_MIN)]);
        for (setting, least) in least {
            let value = setting_of(table, setting).or_else(|| default_of(defaults, setting));
            if value.is_none_or(|value| value < least) {
                let value = value.map_or("absent".to_owned(), |value| value.to_string());
                findings.push(format!("table {name}: {setting} is {value}, needs at least {least}"));
            }
        }
        let months = ["toYYYYMM(received_at)", "toYYYYMM(hour)", ""];
        if !months.contains(&table.partition_key.as_str()) {
            findings.push(format!(
                "table {name} is partitioned by {}: a batch of one month would not be one block",
                table.partition_key
            ));
        }
    }
    for (name, source, target) in views() {
        match find(name) {
            None => findings.push(format!("view {name} is missing")),
            Some(view) if view.engine != "MaterializedView" => {
                findings.push(format!("{name} is a {}, not a materialized view", view.engine));
            }
            Some(view) => {
                if !names(view, "TO", database, target) {
                    findings.push(format!("view {name} does not feed {target}"));
                }
                if !names(view, "FROM", database, source.name()) {
                    findings.push(format!("view {name} does not read {}", source.name()));
                }
            }
        }
    }
    // A view of somebody else's on any of them is part of every insert, too, and so must its target be.
    let foreign = |table: &&TableRow| {
        table.engine == "MaterializedView" && views().all(|(name, ..)| name != table.name)
    };
    for view in tables.iter().filter(foreign) {
        let Some(source) = written().find(|table| names(view, "FROM", database, table)) else {
            continue;
        };
        let target = view.create_table_query.replace('`', "");
        let target = target.split(" TO ").nth(1).and_then(|rest| rest.split([' ', '(']).next());
        let target = target.and_then(|target| target.split('.').next_back()).and_then(find);
        let window = target.and_then(|table| setting_of(table, "non_replicated_deduplication_window"));
        if window.unwrap_or(0) == 0 {
            findings.push(format!(
                "view {} on {source}: its target needs non_replicated_deduplication_window",
                view.name
            ));
        }
    }
    findings
}

/// Whether the view's definition names that table behind that word.
fn names(view: &TableRow, word: &str, database: &str, table: &str) -> bool {
    let sql = view.create_table_query.replace('`', "");
    let full = format!(" {word} {database}.{table}");
    sql.match_indices(&full).any(|(at, _)| {
        let next = sql[at + full.len()..].chars().next();
        next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
    })
}

/// A setting that the table was created with.
fn setting_of(table: &TableRow, setting: &str) -> Option<u64> {
    let settings = table.engine_full.rsplit_once(" SETTINGS ")?.1;
    settings.split(',').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        if name.trim() == setting { number(value) } else { None }
    })
}

fn default_of(defaults: &[SettingRow], setting: &str) -> Option<u64> {
    defaults.iter().find(|row| row.name == setting).and_then(|row| number(&row.value))
}

fn number(value: &str) -> Option<u64> {
    match value.trim().trim_matches('\'') {
        "true" => Some(1),
        "false" => Some(0),
        digits => digits.parse().ok(),
    }
}
