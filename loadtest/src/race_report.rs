//! What a race found, held against the bars, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::race::Case;
use crate::report::{Latency, Quantiles, Report};

/// The result of a race.
#[derive(Debug, Clone, Serialize)]
pub struct RaceReport {
    /// Who ran against the bare server.
    pub rival: String,
    /// Cores of the machine, shared by the client and the servers.
    pub cores: usize,
    /// Rounds of each case.
    pub rounds: usize,
    /// Seconds of a round.
    pub seconds: f64,
    /// Rounds that began while a server was still busy with the last one.
    pub unsettled: usize,
    /// The data folder is in memory: nothing was made durable, and the bars say nothing.
    pub in_memory: bool,
    /// The cases.
    pub cases: Vec<CaseReport>,
    /// Ack latency in open loop at half of the rival's speed.
    pub half_load: Option<HalfLoad>,
    /// What became of the daemon's hits.
    pub stored: Option<Stored>,
}

/// One case of a race.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// Which.
    pub case: Case,
    /// The bare server.
    pub bare: Side,
    /// Its rival.
    pub tally: Side,
    /// Rival's hits a second by the bare server's: median over the rounds.
    pub hits_ratio: f64,
    /// Rival's CPU per hit by the bare server's: median over the rounds.
    pub cpu_ratio: f64,
    /// Cores that neither client nor servers used, the most of all rounds: above some tenths, nothing here says much.
    pub others_cores_max: f64,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// One server in one case: medians over the rounds, latencies of all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Acknowledged hits a second.
    pub hits_per_second: f64,
    /// CPU microseconds of the server's own process for each.
    pub cpu_us_per_hit: f64,
    /// CPU microseconds of its children (the engine) for each.
    pub children_cpu_us_per_hit: f64,
    /// Ack latency in closed loop.
    pub ack: Quantiles,
    /// Hits that were not acknowledged.
    pub not_acknowledged: u64,
    /// Largest resident set, MiB.
    pub rss_mib_max: u64,
}

/// Both servers in open loop, at half of the rival's speed.
#[derive(Debug, Clone, Serialize)]
pub struct HalfLoad {
    /// The connections.
    pub case: Case,
    /// Hits a second.
    pub per_second: f64,
    /// Ack latency of the bare server.
    pub bare: Quantiles,
    /// Ack latency of its rival.
    pub tally: Quantiles,
    /// How late hits were sent to the bare server: what the client and the machine add to both.
    pub bare_sent_late: Quantiles,
    /// How late hits were sent to its rival.
    pub tally_sent_late: Quantiles,
}

impl HalfLoad {
    pub(crate) fn new(case: Case, per_second: f64, bare: &Report, tally: &Report) -> Self {
        Self {
            case,
            per_second,
            bare: bare.acked.quantiles(),
            tally: tally.acked.quantiles(),
            bare_sent_late: bare.lag.quantiles(),
            tally_sent_late: tally.lag.quantiles(),
        }
    }
}

/// A limit and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// What it is about.
    pub what: &'static str,
    /// At least, or for CPU at most.
    pub wanted: f64,
    /// What was found.
    pub found: f64,
    /// Whether that is good enough.
    pub met: bool,
}

/// The daemon's hits in `ClickHouse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stored {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Sent, and their answers lost.
    pub unknown: u64,
    /// Rows.
    pub rows: u64,
    /// Different orders among them.
    pub distinct: u64,
}

impl Stored {
    /// Whether every acknowledged hit is there once.
    #[must_use]
    pub const fn exact(&self) -> bool {
        self.rows == self.distinct
            && self.rows >= self.acknowledged
            && self.rows <= self.acknowledged + self.unknown
    }
}

/// One round: both servers, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) bare: Report,
    pub(crate) tally: Report,
}

impl Round {
    fn hits_ratio(&self) -> f64 {
        ratio(self.tally.acked_per_second(), self.bare.acked_per_second())
    }

    fn cpu_ratio(&self) -> f64 {
        ratio(self.tally.cpu_us_per_hit().unwrap_or_default(), self.bare.cpu_us_per_hit().unwrap_or_default())
    }

    /// The round in a line.
    pub(crate) fn line(&self) -> String {
        let side = |report: &Report| {
            let us = report.cpu_us_per_hit().unwrap_or_default();
            format!("{:.0} hits/s {us:.2} us", report.acked_per_second())
        };
        let (bare, tally) = (side(&self.bare), side(&self.tally));
        format!("bare {bare}, rival {tally}: {:.3}x hits, {:.2}x CPU", self.hits_ratio(), self.cpu_ratio())
    }
}

impl CaseReport {
    pub(crate) fn new(case: Case, rounds: &[Round]) -> Self {
        let hits_ratio = median(rounds.iter().map(Round::hits_ratio));
        let cpu_ratio = median(rounds.iter().map(Round::cpu_ratio));
        Self {
            case,
            bare: Side::new(rounds.iter().map(|round| &round.bare)),
            tally: Side::new(rounds.iter().map(|round| &round.tally)),
            hits_ratio,
            cpu_ratio,
            others_cores_max: rounds
                .iter()
                .flat_map(|round| [&round.bare, &round.tally])
                .filter_map(Report::others_cores)
                .fold(0.0, f64::max),
            bars: bars(case, hits_ratio, cpu_ratio),
        }
    }
}

impl Side {
    fn new<'a>(reports: impl Iterator<Item = &'a Report> + Clone) -> Self {
        let mut latency = Latency::new();
        reports.clone().for_each(|report| latency.merge(&report.acked));
        let per_hit = |report: &Report| report.children_cpu_us_per_hit().unwrap_or_default();
        Self {
            hits_per_second: median(reports.clone().map(Report::acked_per_second)),
            cpu_us_per_hit: median(reports.clone().map(|report| report.cpu_us_per_hit().unwrap_or_default())),
            children_cpu_us_per_hit: median(reports.clone().map(per_hit)),
            ack: latency.quantiles(),
            not_acknowledged: reports.clone().map(|report| report.total.all() - report.total.acked()).sum(),
            rss_mib_max: reports
                .filter_map(|report| Some(report.server?.rss_bytes_max >> 20))
                .max()
                .unwrap_or(0),
        }
    }
}

/// What the project promises on two cores.
fn bars(case: Case, hits_ratio: f64, cpu_ratio: f64) -> Vec<Bar> {
    let hits = |wanted| Bar { what: "hits/s", wanted, found: hits_ratio, met: hits_ratio >= wanted };
    let cpu = Bar { what: "CPU per hit", wanted: 1.9, found: cpu_ratio, met: cpu_ratio <= 1.9 };
    match (case.connections, case.pipeline) {
        (64, 1) => vec![hits(0.55), cpu],
        (512, 1) => vec![hits(0.65), cpu],
        (64, 16) => vec![hits(0.35)],
        _ => Vec::new(),
    }
}

impl fmt::Display for RaceReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} against a bare hyper server, {} cores shared with the client, {} rounds of {} s, medians",
            self.rival, self.cores, self.rounds, self.seconds
        )?;
        writeln!(
            formatter,
            "{:>6} {:<6} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7}",
            "conns", "server", "hits/s", "us/hit", "engine us", "p50 ms", "p99 ms", "p99.9 ms", "RSS MiB"
        )?;
        for case in &self.cases {
            for (name, side) in [("bare", &case.bare), ("rival", &case.tally)] {
                let ack = side.ack;
                writeln!(
                    formatter,
                    "{:>6} {name:<6} {:>9.0} {:>9.2} {:>9.2} {:>8.3} {:>8.3} {:>8.3} {:>7}",
                    case.case.to_string(),
                    side.hits_per_second,
                    side.cpu_us_per_hit,
                    side.children_cpu_us_per_hit,
                    ack.p50_ms,
                    ack.p99_ms,
                    ack.p999_ms,
                    side.rss_mib_max
                )?;
                if side.not_acknowledged > 0 {
                    writeln!(
                        formatter,
                        "{:>6} {name:<6} {} hits not acknowledged",
                        "", side.not_acknowledged
                    )?;
                }
            }
            write!(formatter, "{:>6} ratio  {:>8.3}x {:>8.2}x", "", case.hits_ratio, case.cpu_ratio)?;
            for bar in &case.bars {
                let (sign, met) =
                    (if bar.what == "hits/s" { ">=" } else { "<=" }, if bar.met { "met" } else { "MISSED" });
                write!(formatter, "   {} {sign} {}: {met}", bar.what, bar.wanted)?;
            }
            writeln!(formatter, "   others used up to {:.2} cores", case.others_cores_max)?;
        }
        if let Some(half) = &self.half_load {
            writeln!(formatter, "open loop, {} connections, {:.0} hits/s", half.case, half.per_second)?;
            for (name, ack, late) in
                [("bare", half.bare, half.bare_sent_late), ("rival", half.tally, half.tally_sent_late)]
            {
                writeln!(
                    formatter,
                    "{:>6} {name:<6} p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms (sent late by p50 {:.3} ms, p99 {:.3} ms)",
                    "", ack.p50_ms, ack.p99_ms, ack.p999_ms, late.p50_ms, late.p99_ms
                )?;
            }
        }
        if self.in_memory {
            writeln!(formatter, "the data folder is in memory: no hit was made durable")?;
        }
        if self.unsettled > 0 {
            writeln!(formatter, "{} rounds began while a server was still busy", self.unsettled)?;
        }
        if let Some(stored) = &self.stored {
            let verdict = if stored.exact() { "each once" } else { "NOT each once" };
            let Stored { acknowledged, unknown, rows, distinct } = stored;
            writeln!(
                formatter,
                "{acknowledged} acknowledged ({unknown} answers lost), {rows} rows, {distinct} orders: {verdict}"
            )?;
        }
        Ok(())
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The middle one, or the mean of the middle two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::{Counts, ServerUse};

    fn report(hits: u64, cpu_ms: u64) -> Report {
        let counts = Counts { created: hits, ..Counts::default() };
        Report {
            window: Duration::from_secs(1),
            total: counts,
            measured: counts,
            server: Some(ServerUse { cpu: Duration::from_millis(cpu_ms), ..ServerUse::default() }),
            ..Report::default()
        }
    }

    #[test]
    fn medians() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0].into_iter()) - 2.5).abs() < 1e-9);
        assert!(median(std::iter::empty()).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_taken_inside_a_round() {
        // Twice as fast a machine in the second round changes nothing.
        let rounds = [
            Round { bare: report(1_000, 10), tally: report(600, 12) },
            Round { bare: report(2_000, 10), tally: report(1_200, 12) },
        ];
        let case = CaseReport::new(Case::ALL[0], &rounds);
        assert!((case.hits_ratio - 0.6).abs() < 1e-9);
        assert!((case.cpu_ratio - 2.0).abs() < 1e-9);
        assert_eq!(case.bars.iter().map(|bar| bar.met).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn stored_hits_must_match() {
        let stored = Stored { acknowledged: 10, unknown: 1, rows: 11, distinct: 11 };
        assert!(stored.exact());
        assert!(!Stored { rows: 9, distinct: 9, ..stored }.exact());
        assert!(!Stored { distinct: 10, ..stored }.exact());
        assert!(!Stored { rows: 12, distinct: 12, ..stored }.exact());
    }
}
