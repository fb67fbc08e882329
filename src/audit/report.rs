//! What was compared, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::{Books, DaemonSays};
use crate::{
    clickhouse::{GroupOff, SideTable, Tables},
    core::{Kind, PerKind},
    shipper::Terms,
    wal::{SetAside, TornTail},
};

/// The outcome of an audit.
#[derive(Clone, Debug)]
pub struct Audit {
    /// The terms of each kind, from the data folder.
    pub terms: PerKind<Terms>,
    /// What was compared.
    pub checks: Vec<Check>,
    /// Groups of hourly statistics that differ from the raw rows.
    pub groups_off: Vec<GroupOff>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is compared.
    pub what: String,
    /// What it should be.
    pub expected: u64,
    /// What it is.
    pub found: u64,
}

impl Check {
    fn new(what: impl Into<String>, expected: u64, found: u64) -> Self {
        Self { what: what.into(), expected, found }
    }

    /// Whether they agree.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.expected == self.found
    }
}

impl Audit {
    pub(super) fn new(books: &Books, tables: Tables, groups_off: Vec<GroupOff>, daemon: DaemonSays) -> Self {
        let terms = PerKind(Kind::ALL.map(|kind| books.terms(kind)));
        let mut checks = of_the_folder(books, &terms);
        for kind in Kind::ALL {
            checks.extend(of_kind(kind, terms[kind], &tables));
        }
        checks.push(Check::new(
            "attributions: one for each attributed conversion",
            tables.attributed,
            tables.attributions,
        ));
        for table in SideTable::ALL {
            let (name, side) = (table.name(), tables.side[table as usize]);
            checks.push(Check::new(
                format!("{name}: rows, one for each that the views take"),
                side.expected,
                side.found,
            ));
            checks.push(Check::new(
                format!("{name}: the same as in the raw tables (1: yes)"),
                1,
                side.agree.into(),
            ));
        }
        checks.push(Check::new("conversions: rows of orders counted twice", 0, tables.repeated_orders));
        for (table, source) in ROLLUPS {
            let off = groups_off.iter().filter(|group| group.table == table).count();
            checks.push(Check::new(format!("{table}: groups that differ from {source}"), 0, off as u64));
        }
        let mut notes: Vec<_> = books.set_aside.iter().map(of_set_aside).collect();
        match daemon {
            DaemonSays::NotRunning => {
                notes.push("No daemon runs on the folder: there are no metrics to compare.".to_owned());
            }
            DaemonSays::Nothing(reason) => notes.push(format!("Metrics were not compared: {reason}.")),
            DaemonSays::Terms(daemon) => checks.extend(daemon),
        }
        Self { terms, checks, groups_off, notes }
    }

    /// Notes what stands behind the log's end, where no daemon has looked yet.
    pub(super) fn with_torn(mut self, torn: Option<TornTail>) -> Self {
        if let Some(TornTail { segment, offset, bytes, .. }) = torn {
            self.notes.push(format!(
                "Segment {segment} of the log ends at byte {offset} in a block that is not whole ({bytes} bytes), not \
                 known to have been acknowledged: the next start sets it aside."
            ));
        }
        self
    }

    /// Whether everything is accounted for.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<15}", "");
        for kind in Kind::ALL {
            let _ = write!(text, "{:>15}", format!("{}s", kind.as_str()));
        }
        text.push('\n');
        for (name, of) in TERMS {
            let _ = write!(text, "{name:<15}");
            for kind in Kind::ALL {
                let _ = write!(text, "{:>15}", of(&self.terms[kind]));
            }
            text.push('\n');
        }
        let _ = writeln!(text, "\n{:<64}{:>15}{:>15}", "check", "expected", "found");
        for check in &self.checks {
            let mark = if check.holds() { "ok" } else { "WRONG" };
            let _ = writeln!(text, "{:<64}{:>15}{:>15}  {mark}", check.what, check.expected, check.found);
        }
        for GroupOff { table, group, differences } in &self.groups_off {
            let _ = writeln!(text, "  {table}: {group}: raw rows less statistics: {differences}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
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
        let terms = Kind::ALL.into_iter().map(|kind| {
            let terms = TERMS.map(|(name, of)| (name.replace('-', "_"), of(&self.terms[kind])));
            (kind.as_str(), BTreeMap::from(terms))
        });
        let check = |check: &Check| CheckJson {
            check: check.what.clone(),
            expected: check.expected,
            found: check.found,
            ok: check.holds(),
        };
        let off = |off: &GroupOff| GroupJson {
            table: off.table,
            group: off.group.clone(),
            differences: off.differences.clone(),
        };
        let dto = AuditJson {
            sound: self.is_sound(),
            terms: terms.collect(),
            checks: self.checks.iter().map(check).collect(),
            groups_off: self.groups_off.iter().map(off).collect(),
            notes: &self.notes,
        };
        // These types have no keys that are not text, and no floats.
        serde_json::to_string_pretty(&dto).unwrap_or_default()
    }
}

type TermOf = fn(&Terms) -> u64;

const TERMS: [(&str, TermOf); 5] = [
    ("accepted", |terms| terms.accepted),
    ("inserted", |terms| terms.inserted),
    ("duplicate", |terms| terms.duplicate),
    ("dead-lettered", |terms| terms.dead_lettered),
    ("pending", |terms| terms.pending),
];

/// Tables of statistics, and what they count.
const ROLLUPS: [(&str, &str); 5] = [
    ("conversions_hourly", "conversions"),
    ("clicks_hourly", "clicks"),
    ("attributed_hourly", "attributions"),
    ("attributed_by_click_hourly", "attributions"),
    ("adjustments_hourly", "adjustments"),
];

fn of_the_folder(books: &Books, terms: &PerKind<Terms>) -> Vec<Check> {
    let totals = books.checkpoint.totals;
    let equations = Kind::ALL.into_iter().map(|kind| {
        let Terms { accepted, inserted, duplicate, dead_lettered, pending } = terms[kind];
        let what = format!("{}s: accepted = inserted + duplicate + dead-lettered + pending", kind.as_str());
        Check::new(what, accepted, inserted + duplicate + dead_lettered + pending)
    });
    let dead: u64 = Kind::ALL.into_iter().map(|kind| totals.kinds[kind].dead_lettered).sum();
    let dead = Check::new("dead letters on disk", dead + totals.refusals_dead_lettered, books.dead_letters);
    let lost = books.set_aside.iter().filter_map(|file| file.records_lost).sum();
    let lost = Check::new("acknowledged records lost to damage of the log", 0, lost);
    equations.chain([dead, lost]).collect()
}

fn of_set_aside(file: &SetAside) -> String {
    let SetAside { path, segment, offset, records_lost, bytes } = file;
    let what = match records_lost {
        Some(records) => format!("{records} acknowledged records were damaged"),
        None => "the log ended in a block that was not whole, not known to have been acknowledged".to_owned(),
    };
    format!(
        "Segment {segment} of the log, byte {offset}: {what}; {bytes} bytes are kept in {}. Move the file away once it \
         was looked at.",
        path.display()
    )
}

fn of_kind(kind: Kind, terms: Terms, tables: &Tables) -> [Check; 3] {
    let name = kind.as_str();
    [
        Check::new(format!("{name}s: rows of settled batches"), terms.inserted, tables.rows[kind]),
        Check::new(
            format!("rejections: late duplicates of {name}s of settled batches"),
            terms.duplicate,
            tables.late[kind],
        ),
        Check::new(format!("{name}s: rows that are there already"), 0, tables.repeated[kind]),
    ]
}

#[derive(Serialize)]
struct AuditJson<'a> {
    sound: bool,
    terms: BTreeMap<&'a str, BTreeMap<String, u64>>,
    checks: Vec<CheckJson>,
    groups_off: Vec<GroupJson>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct CheckJson {
    check: String,
    expected: u64,
    found: u64,
    ok: bool,
}

#[derive(Serialize)]
struct GroupJson {
    table: &'static str,
    group: String,
    differences: String,
}
