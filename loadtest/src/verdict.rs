//! What a verification found: each kind of violation, counted and with examples.

use std::fmt;

use serde::Serialize;

/// How many examples of each finding are kept.
const SAMPLES_MAX: usize = 5;

/// A kind of violation: how often, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How often.
    pub count: u64,
    /// The first few.
    pub samples: Vec<String>,
}

impl Finding {
    pub(crate) fn add(&mut self, sample: impl FnOnce() -> String) {
        self.count += 1;
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(sample());
        }
    }
}

/// The outcome of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Orders, anonymous hits and clicks that were looked for.
    pub checked: u64,
    /// Acknowledgements among them (201, 200 and 202).
    pub acknowledged: u64,
    /// Rows that belong to them.
    pub rows: u64,
    /// Rows that the ledger knows nothing of: another run's, or lost answers without an order id.
    pub foreign_rows: u64,
    /// Hits whose answer was lost and that have a row.
    pub unknown_accepted: u64,
    /// 202s that turned out to be duplicates.
    pub late_duplicates: u64,
    /// Acknowledged and not there.
    pub missing: Finding,
    /// There more than once, by order or by conversion id.
    pub doubled: Finding,
    /// Answers whose conversion id is not the row's.
    pub mismatched: Finding,
    /// Bad hits that are there.
    pub bad_accepted: Finding,
    /// Bad hits that were answered with a 2xx.
    pub bad_acknowledged: Finding,
    /// 202s that are neither there nor rejected as duplicates.
    pub unresolved: Finding,
    /// Conversions that name an acknowledged click and are not attributed to it.
    pub unearned: Finding,
}

impl Verdict {
    /// Whether every acknowledgement is there exactly once, and nothing else.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations() == 0
    }

    /// Whether waiting may help: nothing is wrong but that rows are not there yet.
    #[must_use]
    pub fn only_missing(&self) -> bool {
        let late = self.missing.count + self.unresolved.count;
        late > 0 && late == self.violations()
    }

    fn findings(&self) -> [(&'static str, &Finding); 7] {
        [
            ("missing", &self.missing),
            ("doubled", &self.doubled),
            ("mismatched", &self.mismatched),
            ("bad accepted", &self.bad_accepted),
            ("bad acknowledged", &self.bad_acknowledged),
            ("unresolved", &self.unresolved),
            ("unearned", &self.unearned),
        ]
    }

    fn violations(&self) -> u64 {
        self.findings().iter().map(|(_, finding)| finding.count).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} orders, anonymous hits and clicks, {} acknowledgements, {} rows ({} of lost answers, {} foreign), {} late duplicates",
            self.checked,
            self.acknowledged,
            self.rows,
            self.unknown_accepted,
            self.foreign_rows,
            self.late_duplicates
        )?;
        for (name, finding) in self.findings() {
            writeln!(formatter, "{name:>16}: {}", finding.count)?;
            for sample in &finding.samples {
                writeln!(formatter, "{:>18}{sample}", "")?;
            }
        }
        write!(
            formatter,
            "{}",
            if self.holds() { "every acknowledgement is there exactly once" } else { "FAILED" }
        )
    }
}
