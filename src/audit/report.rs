//! What was compared, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::Books;
use crate::{
    clickhouse::{HourOff, Tables},
    core::Kind,
    shipper::Terms,
};

/// The outcome of an audit.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The terms, from the data folder.
    pub terms: Terms,
    /// What was compared.
    pub checks: Vec<Check>,
    /// Hours whose statistics differ from the raw rows.
    pub hours_off: Vec<HourOff>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is compared.
    pub what: &'static str,
    /// What it should be.
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

impl Check {
    /// Whether they agree.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expected == self.found
    }
}

impl Audit {
    pub(super) fn new(books: &Books, sql: Option<(Tables, Vec<HourOff>)>) -> Self {
        let terms = books.terms(Kind::Conversion);
        let totals = books.checkpoint.totals;
        let mut checks = vec![
            Check {
                what: "accepted = inserted + duplicate + dead-lettered + pending",
                expected: terms.accepted,
                found: terms.inserted + terms.duplicate + terms.dead_lettered + terms.pending,
            },
            Check {
                what: "dead letters on disk",
                expected: Kind::ALL.into_iter().map(|kind| totals.kinds[kind].dead_lettered).sum::<u64>()
                    + totals.refusals_dead_lettered,
                found: books.dead_letters,
            },
        ];
        let mut hours_off = Vec::new();
        if let Some((tables, off)) = sql {
            hours_off = off;
            checks.extend([
                Check {
                    what: "conversions: rows of settled batches",
                    expected: terms.inserted,
                    found: tables.conversions,
                },
                Check {
                    what: "rejections: late duplicates of settled batches",
                    expected: terms.duplicate,
                    found: tables.late_duplicates,
                },
                Check {
                    what: "order_keys: rows, one for each key",
                    expected: tables.keyed,
                    found: tables.order_keys,
                },
                Check {
                    what: "order_keys: the same keys as in conversions (1: yes)",
                    expected: 1,
                    found: tables.keys_agree.into(),
                },
                Check {
                    what: "conversions_hourly: hours that differ from conversions",
                    expected: 0,
                    found: hours_off.len() as u64,
                },
                Check {
                    what: "conversions: rows with an id that is there already",
                    expected: 0,
                    found: tables.repeated_conversions,
                },
                Check {
                    what: "conversions: rows of orders counted twice",
                    expected: 0,
                    found: tables.repeated_orders,
                },
            ]);
        }
        Self { terms, checks, hours_off }
    }

    /// Whether everything is accounted for.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let terms = self.terms;
        let mut text = String::new();
        for (name, count) in [
            ("accepted", terms.accepted),
            ("inserted", terms.inserted),
            ("duplicate", terms.duplicate),
            ("dead-lettered", terms.dead_lettered),
            ("pending", terms.pending),
        ] {
            let _ = writeln!(text, "{name:<15}{count:>15}");
        }
        let _ = writeln!(text, "\n{:<64}{:>15}{:>15}", "check", "expected", "found");
        for check in &self.checks {
            let mark = if check.holds() { "ok" } else { "WRONG" };
            let _ = writeln!(text, "{:<64}{:>15}{:>15}  {mark}", check.what, check.expected, check.found);
        }
        for hour in &self.hours_off {
            let start =
                jiff::Timestamp::from_second(hour.hour.into()).map(|at| at.to_string()).unwrap_or_default();
            let _ = writeln!(
                text,
                "  account {} goal {} {start} {}: conversions {:+}, value {:+} millionths",
                hour.account_id, hour.goal_id, hour.currency, hour.conversions, hour.value_micros
            );
        }
        let verdict = if self.is_sound() {
            "Everything that was acknowledged is accounted for."
        } else {
            "NOT everything is accounted for."
        };
        let _ = writeln!(text, "\n{verdict}");
        text
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        let terms = self.terms;
        let dto = AuditJson {
            sound: self.is_sound(),
            terms: TermsJson {
                accepted: terms.accepted,
                inserted: terms.inserted,
                duplicate: terms.duplicate,
                dead_lettered: terms.dead_lettered,
                pending: terms.pending,
            },
            checks: self
                .checks
                .iter()
                .map(|check| CheckJson {
                    check: check.what,
                    expected: check.expected,
                    found: check.found,
                    ok: check.holds(),
                })
                .collect(),
            hours_off: self
                .hours_off
                .iter()
                .map(|hour| HourJson {
                    account_id: hour.account_id,
                    goal_id: hour.goal_id,
                    hour: hour.hour,
                    currency: &hour.currency,
                    conversions: hour.conversions,
                    value_micros: hour.value_micros.to_string(),
                })
                .collect(),
        };
        // These types have no map keys or floats that could fail.
        serde_json::to_string_pretty(&dto).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct AuditJson<'a> {
    sound: bool,
    terms: TermsJson,
    checks: Vec<CheckJson>,
    hours_off: Vec<HourJson<'a>>,
}

#[derive(Serialize)]
struct TermsJson {
    accepted: u64,
    inserted: u64,
    duplicate: u64,
    dead_lettered: u64,
    pending: u64,
}

#[derive(Serialize)]
struct CheckJson {
    check: &'static str,
    expected: u64,
    found: u64,
    ok: bool,
}

#[derive(Serialize)]
struct HourJson<'a> {
    account_id: u32,
    goal_id: u32,
    /// Seconds since the epoch.
    hour: u32,
    currency: &'a str,
    conversions: i64,
    value_micros: String,
}
