//! What was erased and what could not be, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::waiting::Waiting;
use crate::{
    clickhouse::Erased,
    core::{AccountId, ClickId, ConversionId},
};

/// Said whenever something was erased: no command reaches these.
const OUT_OF_REACH: [&str; 4] = [
    "ClickHouse keeps the replaced parts of its tables on disk for at least eight minutes, and may until its next start.",
    "The log keeps records that were shipped until the file that they stand in is full and given up.",
    "The outbox of postbacks keeps what was withdrawn in its file until the place is written over.",
    "Backups, and copies that were made from the tables, are not reached.",
];

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The conversions that were found.
    pub conversions: Vec<(AccountId, ConversionId)>,
    /// The clicks that were found.
    pub clicks: Vec<(AccountId, ClickId)>,
    /// What was done to each table.
    pub tables: Vec<Erased>,
    /// What is on its way.
    pub waiting: Waiting,
}

impl Report {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text =
            format!("Found {} conversions and {} clicks.\n\n", self.conversions.len(), self.clicks.len());
        for Erased { table, how, rows } in &self.tables {
            let _ = writeln!(text, "{table:<20}{rows:>10} rows  {how}");
        }
        text.push('\n');
        for note in self.notes() {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        let json = ReportJson {
            conversions: self.conversions.iter().map(|(_, id)| id.to_string()).collect(),
            clicks: self.clicks.iter().map(|(_, id)| id.0).collect(),
            tables: self
                .tables
                .iter()
                .map(|of| TableJson { table: of.table, rows: of.rows, how: of.how })
                .collect(),
            waiting: &self.waiting,
            notes: self.notes(),
        };
        // These types have no map keys or floats that could fail.
        serde_json::to_string_pretty(&json).unwrap_or_default()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let Waiting { log_records, batches, dead_letters } = &self.waiting;
        if *log_records > 0 || *batches > 0 {
            notes.push(format!(
                "On their way to ClickHouse: {log_records} records of this person, and {batches} batches that may hold \
                 some. Run this again once they have arrived."
            ));
        }
        if !dead_letters.is_empty() {
            notes.push(format!(
                "Dead letters that concern this person, to be mended or removed by hand: {}.",
                dead_letters.join(", ")
            ));
        }
        notes.extend(OUT_OF_REACH.map(str::to_owned));
        notes
    }
}

#[derive(Serialize)]
struct ReportJson<'a> {
    conversions: Vec<String>,
    clicks: Vec<u64>,
    tables: Vec<TableJson>,
    waiting: &'a Waiting,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct TableJson {
    table: &'static str,
    rows: u64,
    how: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_left() {
        let report = Report {
            conversions: Vec::new(),
            clicks: vec![(AccountId(1), ClickId(789))],
            tables: vec![Erased { table: "clicks", how: "blanked", rows: 1 }],
            waiting: Waiting { log_records: 2, batches: 0, dead_letters: vec!["5-0.json".into()] },
        };
        let table = report.table();
        for part in ["1 clicks", "2 records of this person", "5-0.json", "Backups"] {
            assert!(table.contains(part), "{part}: {table}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(
            (json["tables"][0]["rows"].clone(), json["waiting"]["log_records"].clone()),
            (1.into(), 2.into())
        );
    }
}
