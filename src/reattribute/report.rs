//! What a run changed, for people and for programs.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    clickhouse::{Difference, Run},
    core::{MoneySum, RunId, UnixMillis},
};

/// Links and goals that the table shows; all of them stand in the JSON.
const TABLE_ROWS_MAX: usize = 50;

/// A run that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The run.
    pub run: Run,
    /// The one that was in force before it; 0: the decisions as conversions came in.
    pub before: RunId,
    /// Whether it is in force now.
    pub is_in_force: bool,
    /// Conversions that it attributes.
    pub attributed: u64,
    /// What it changes, by link and goal.
    pub differences: Vec<Difference>,
    /// Conversions that were accepted with a shorter window than the run's, and whose visitors are therefore recognised
    /// only within the epochs of that window.
    pub narrower: u64,
    /// Clicks from before then are gone.
    pub clicks_kept_since: UnixMillis,
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let run = &self.run;
        let mut text = format!(
            "Run {}: {} click within {} days, for conversions since {}; {} attributed.\n",
            run.id.0,
            run.model.as_str(),
            run.window_seconds / 86_400,
            utc(run.since),
            self.attributed
        );
        for note in self.notes() {
            let _ = writeln!(text, "Note: {note}");
        }
        if self.differences.is_empty() {
            let _ = writeln!(text, "It decides as {} does.", name(self.before));
        } else {
            let _ = writeln!(
                text,
                "\n{:>8}{:>10}{:>8}  {:<4}{:>12}{:>12}{:>20}{:>20}",
                "account", "link", "goal", "", "before", "after", "value before", "value after"
            );
        }
        for row in self.differences.iter().take(TABLE_ROWS_MAX) {
            let link = row.link_id.map_or("-".to_owned(), |link| link.0.to_string());
            let _ = writeln!(
                text,
                "{:>8}{link:>10}{:>8}  {:<4}{:>12}{:>12}{:>20}{:>20}",
                row.account_id.0,
                row.goal_id.0,
                row.currency.as_str(),
                row.conversions_before,
                row.conversions_after,
                money(row.value_before),
                money(row.value_after)
            );
        }
        if self.differences.len() > TABLE_ROWS_MAX {
            let more = self.differences.len() - TABLE_ROWS_MAX;
            let _ = writeln!(text, "… and {more} more; --json lists all.");
        }
        let _ = if self.is_in_force {
            writeln!(text, "\nIt is in force now; `tally reattribute --use {}` undoes that.", self.before.0)
        } else {
            writeln!(
                text,
                "\n{} stays in force; `tally reattribute --use {}` changes that.",
                capital(&name(self.before)),
                run.id.0
            )
        };
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        let json = OutcomeJson {
            run: RunJson::from(&self.run),
            before: self.before.0,
            in_force: self.is_in_force,
            attributed: self.attributed,
            notes: self.notes(),
            differences: self.differences.iter().map(DifferenceJson::from).collect(),
        };
        // These types have no map keys or floats that could fail.
        serde_json::to_string_pretty(&json).unwrap_or_default()
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let reached = self.run.since.plus(-i64::from(self.run.window_seconds) * 1000);
        if reached < self.clicks_kept_since {
            notes.push(format!(
                "clicks from before {} are gone: conversions that reach further back may lose theirs.",
                utc(self.clicks_kept_since)
            ));
        }
        if self.narrower > 0 {
            notes.push(format!(
                "{} conversions were accepted with a shorter window: without a click id their visitors are recognised \
                 only as far back as the keys reach that were kept for that window.",
                self.narrower
            ));
        }
        notes
    }
}

/// Every run, for people.
pub(super) fn runs_table(runs: &[Run]) -> String {
    if runs.is_empty() {
        return "There are no runs: decisions as conversions came in are in force.\n".to_owned();
    }
    let mut text = format!(
        "{:>6}  {:<8}  {:<9}{:>6}  {:<6}{:<26}{:<26}\n",
        "run", "state", "in force", "days", "model", "since", "started"
    );
    for run in runs {
        let _ = writeln!(
            text,
            "{:>6}  {:<8}  {:<9}{:>6}  {:<6}{:<26}{:<26}",
            run.id.0,
            run.state.as_str(),
            if run.is_current { "yes" } else { "" },
            run.window_seconds / 86_400,
            run.model.as_str(),
            utc(run.since),
            utc(run.started_at)
        );
    }
    text
}

/// Every run, for programs.
pub(super) fn runs_json(runs: &[Run]) -> String {
    let runs: Vec<_> = runs.iter().map(RunJson::from).collect();
    serde_json::to_string_pretty(&runs).unwrap_or_default() + "\n"
}

#[derive(Serialize)]
struct OutcomeJson {
    #[serde(flatten)]
    run: RunJson,
    before: u32,
    in_force: bool,
    attributed: u64,
    notes: Vec<String>,
    differences: Vec<DifferenceJson>,
}

#[derive(Serialize)]
struct RunJson {
    run: u32,
    state: &'static str,
    current: bool,
    window_seconds: u32,
    model: &'static str,
    since: String,
    started_at: String,
}

#[derive(Serialize)]
struct DifferenceJson {
    account_id: u32,
    link_id: Option<u32>,
    goal_id: u32,
    currency: String,
    conversions_before: u64,
    conversions_after: u64,
    value_before: String,
    value_after: String,
}

impl From<&Run> for RunJson {
    fn from(run: &Run) -> Self {
        Self {
            run: run.id.0,
            state: run.state.as_str(),
            current: run.is_current,
            window_seconds: run.window_seconds,
            model: run.model.as_str(),
            since: utc(run.since),
            started_at: utc(run.started_at),
        }
    }
}

impl From<&Difference> for DifferenceJson {
    fn from(row: &Difference) -> Self {
        Self {
            account_id: row.account_id.0,
            link_id: row.link_id.map(|link| link.0),
            goal_id: row.goal_id.0,
            currency: row.currency.to_string(),
            conversions_before: row.conversions_before,
            conversions_after: row.conversions_after,
            value_before: money(row.value_before),
            value_after: money(row.value_after),
        }
    }
}

/// Values of conversions are never negative, and neither are their sums.
fn money(micros: i128) -> String {
    MoneySum(micros.unsigned_abs()).to_string()
}

fn name(run: RunId) -> String {
    if run == RunId(0) {
        "what was decided as conversions came in".to_owned()
    } else {
        format!("run {}", run.0)
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn utc(at: UnixMillis) -> String {
    Timestamp::from_millisecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clickhouse::RunState,
        core::{AccountId, Currency, GoalId, LinkId, Model},
    };

    #[test]
    fn a_run_reads_well_for_people_and_programs() {
        let run = Run {
            id: RunId(3),
            since: UnixMillis(1_793_491_200_000),
            window_seconds: 7 * 86_400,
            model: Model::Last,
            state: RunState::Done,
            is_current: false,
            started_at: UnixMillis(1_793_577_600_000),
        };
        let row = Difference {
            account_id: AccountId(1),
            link_id: Some(LinkId(2)),
            goal_id: GoalId(4),
            currency: Currency::USD,
            conversions_before: 10,
            conversions_after: 7,
            value_before: 100_500_000,
            value_after: 70_000_000,
        };
        let outcome = Outcome {
            run,
            before: RunId(0),
            is_in_force: true,
            attributed: 7,
            differences: vec![row; 60],
            narrower: 5,
            clicks_kept_since: UnixMillis(1_793_491_200_000),
        };
        let table = outcome.table();
        for part in [
            "Run 3: last click within 7 days",
            "100.50",
            "70.00",
            "and 10 more",
            "--use 0",
            "Note: 5 conv",
            "are gone",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
        let json: serde_json::Value = serde_json::from_str(&outcome.json()).expect("JSON");
        assert_eq!((json["run"].clone(), json["in_force"].clone()), (3.into(), true.into()));
        assert_eq!(json["differences"][0]["value_before"], "100.50");
        assert_eq!(json["differences"].as_array().map(Vec::len), Some(60));
        assert!(runs_table(&[outcome.run]).contains("2026-11-01T00:00:00Z"));
    }
}
