//! The race: the daemon, every hit fsynced before its answer, against a bare server that gets the same requests.
//!
//! Rounds are interleaved, since the speed of a shared machine changes within seconds; ratios are taken inside a round
//! and their median is reported. Before a round both servers come to rest: what the daemon still has to ship from its
//! last round is not to slow the other one down.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::clickhouse::{ClickHouse, ClickHouseError};
use crate::closed_loop;
use crate::load::Load;
use crate::open_loop::{self, Arrivals};
use crate::race_report::{CaseReport, HalfLoad, RaceReport, Round, Stored};
use crate::report::{Counts, Report};
use crate::rival::{MeasureError, Rival, in_memory, made_up_goals};
use crate::rng::scramble;
use crate::schedule::Spacing;

const WARMUP: Duration = Duration::from_millis(500);
const HALF_LOAD_ROUNDS_MAX: usize = 3;
const STORED_PATIENCE: Duration = Duration::from_mins(2);

/// Connections and requests in flight on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Case {
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: usize,
}

impl Case {
    /// The cases that have bars.
    pub const ALL: [Self; 3] = [Self::of(64, 1), Self::of(512, 1), Self::of(64, 16)];

    const fn of(connections: usize, pipeline: usize) -> Self {
        Self { connections, pipeline }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pipeline {
            1 => write!(formatter, "{}", self.connections),
            pipeline => write!(formatter, "{}x{pipeline}", self.connections),
        }
    }
}

impl std::str::FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (connections, pipeline) = text.split_once('x').unwrap_or((text, "1"));
        let number = |digits: &str| digits.parse().ok().filter(|number| *number > 0);
        let wrong = || format!("{text:?} is neither CONNECTIONS nor CONNECTIONSxPIPELINE");
        Ok(Self::of(number(connections).ok_or_else(wrong)?, number(pipeline).ok_or_else(wrong)?))
    }
}

/// What to race.
#[derive(Debug, Clone)]
pub struct RaceOptions {
    /// The daemon's program; `None` races a second bare server instead, which shows the measurement's own error.
    pub tally: Option<PathBuf>,
    /// The daemon's data folder, on the disk that is to be measured.
    pub data_dir: PathBuf,
    /// Further arguments of the daemon.
    pub arguments: Vec<String>,
    /// The cases.
    pub cases: Vec<Case>,
    /// Rounds of each.
    pub rounds: usize,
    /// Length of a round for one server.
    pub window: Duration,
    /// Goals that the hits are spread over.
    pub goals: usize,
    /// Threads of the client.
    pub threads: NonZeroUsize,
    /// Start of the seeds; every round takes another.
    pub seed: u64,
}

/// Runs the race; `progress` hears of every round.
pub fn run(options: &RaceOptions, mut progress: impl FnMut(&str)) -> Result<RaceReport, MeasureError> {
    let tally = match &options.tally {
        Some(binary) => Rival::daemon(binary, &options.data_dir, &options.arguments, options.goals)?,
        None => Rival::bare(made_up_goals(options.goals))?,
    };
    let bare = Rival::bare(tally.goals.clone())?;
    let mut race = Race { options, tally, bare, seed: options.seed, sent: Counts::default(), unsettled: 0 };
    let cases =
        options.cases.iter().map(|case| race.case(*case, &mut progress)).collect::<Result<Vec<_>, _>>()?;
    let half_load = race.half_load(&cases, &mut progress)?;
    let stored = race.stored()?;
    let report = RaceReport {
        rival: if options.tally.is_some() { "tally" } else { "bare (again)" }.into(),
        cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        rounds: options.rounds,
        seconds: options.window.as_secs_f64(),
        unsettled: race.unsettled,
        in_memory: options.tally.is_some() && in_memory(&options.data_dir),
        cases,
        half_load,
        stored,
    };
    race.tally.stop()?;
    race.bare.stop()?;
    Ok(report)
}

struct Race<'a> {
    options: &'a RaceOptions,
    tally: Rival,
    bare: Rival,
    seed: u64,
    /// All that the daemon was sent.
    sent: Counts,
    /// Rounds that began while a server was still busy.
    unsettled: usize,
}

impl Race<'_> {
    fn case(&mut self, case: Case, progress: &mut impl FnMut(&str)) -> Result<CaseReport, MeasureError> {
        let mut rounds = Vec::new();
        for number in 1..=self.options.rounds.max(1) {
            // A B, B A, …: a machine that gets steadily slower or faster favours neither.
            let tally_first = number % 2 == 0;
            let first = closed_loop::run(&self.load(case, tally_first))?;
            let second = closed_loop::run(&self.load(case, !tally_first))?;
            let (bare, tally) = if tally_first { (second, first) } else { (first, second) };
            self.sent.merge(&tally.total);
            let round = Round { bare, tally };
            progress(&format!("{case:>6}, round {number}: {}", round.line()));
            rounds.push(round);
        }
        Ok(CaseReport::new(case, &rounds))
    }

    /// Ack latency of both at half of what the daemon can do with the first case's connections.
    fn half_load(
        &mut self,
        cases: &[CaseReport],
        progress: &mut impl FnMut(&str),
    ) -> Result<Option<HalfLoad>, MeasureError> {
        let Some(first) = cases.iter().find(|case| case.case.pipeline == 1) else {
            return Ok(None);
        };
        let per_second = (first.tally.hits_per_second / 2.0).max(1.0);
        let arrivals = Arrivals { per_second, spacing: Spacing::Poisson };
        progress(&format!("half load: {per_second:.0} hits/s in open loop"));
        let (mut bare, mut tally) = (Report::default(), Report::default());
        for _ in 0..self.options.rounds.clamp(1, HALF_LOAD_ROUNDS_MAX) {
            bare.merge(&open_loop::run(&self.load(first.case, false), arrivals)?);
            tally.merge(&open_loop::run(&self.load(first.case, true), arrivals)?);
        }
        self.sent.merge(&tally.total);
        Ok(Some(HalfLoad::new(first.case, per_second, &bare, &tally)))
    }

    /// Waits for the daemon's rows: the hits that were raced are counted like any others.
    fn stored(&self) -> Result<Option<Stored>, MeasureError> {
        let Some(clickhouse) = self.tally.clickhouse()? else {
            return Ok(None);
        };
        let deadline = Instant::now() + STORED_PATIENCE;
        loop {
            let rows = clickhouse.number("SELECT count() FROM tally.conversions")?;
            if rows >= self.sent.acked() || Instant::now() >= deadline {
                return Ok(Some(Stored {
                    acknowledged: self.sent.acked(),
                    unknown: self.sent.unknown,
                    rows,
                    distinct: distinct_orders(&clickhouse)?,
                }));
            }
            sleep(Duration::from_millis(500));
        }
    }

    /// The next load, once both servers are at rest.
    fn load(&mut self, case: Case, against_tally: bool) -> Load {
        let settled = self.tally.settle() & self.bare.settle();
        self.unsettled += usize::from(!settled);
        self.seed = scramble(self.seed.wrapping_add(1));
        let rival = if against_tally { &self.tally } else { &self.bare };
        Load {
            connections: case.connections,
            pipeline: case.pipeline,
            threads: self.options.threads,
            seed: self.seed,
            warmup: WARMUP,
            window: self.options.window,
            server_pid: Some(rival.pid()),
            ..Load::new(rival.address, rival.goals.clone())
        }
    }
}
/// How many orders there are, counted in parts: the reader's memory is bounded.
fn distinct_orders(clickhouse: &ClickHouse) -> Result<u64, ClickHouseError> {
    let parts = (0..32).map(|part| {
        clickhouse.number(&format!(
            "SELECT uniqExact(goal_id, order_id) FROM tally.conversions WHERE cityHash64(order_id) % 32 = {part}"
        ))
    });
    parts.sum()
}
