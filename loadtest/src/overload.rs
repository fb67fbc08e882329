//! Overload: twice the capacity is offered, and the daemon has to answer it rather than suffer it.
//!
//! Server and client get processors apart from each other, where there are two: else the client's own work for a
//! higher rate would be taken from the server, and look like a goodput that falls.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

use crate::closed_loop;
use crate::load::Load;
use crate::open_loop::{self, Arrivals};
use crate::report::{Counts, Quantiles};
use crate::rival::{MeasureError, Rival, made_up_goals};
use crate::rng::scramble;
use crate::schedule::Spacing;

/// Connections by which the capacity is found: enough to keep the server busy, few enough that none is refused.
const CAPACITY_CONNECTIONS: usize = 512;

/// What to offer to whom.
#[derive(Debug, Clone)]
pub struct OverloadOptions {
    /// The daemon's program; `None` takes a bare server.
    pub tally: Option<PathBuf>,
    /// The daemon's data folder.
    pub data_dir: PathBuf,
    /// Further arguments of the daemon.
    pub arguments: Vec<String>,
    /// Offered, as a multiple of the capacity.
    pub factor: f64,
    /// Length of the overload.
    pub window: Duration,
    /// Connections that carry it.
    pub connections: usize,
    /// Hits that one connection may have in flight.
    pub pipeline: usize,
    /// Threads of the client.
    pub threads: NonZeroUsize,
    /// Seed of the hits.
    pub seed: u64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct OverloadReport {
    /// Acknowledged hits a second in closed loop, with up to 512 connections, for as long as the overload.
    pub capacity_per_second: f64,
    /// The same over as many connections as carry the overload: thousands of them cost client, kernel and server more for
    /// each hit, whatever is offered.
    pub crowded_per_second: f64,
    /// Offered a second.
    pub offered_per_second: f64,
    /// Acknowledged a second meanwhile.
    pub goodput_per_second: f64,
    /// All hits of the overload.
    pub counts: Counts,
    /// Latency of the acknowledged hits, from their scheduled arrival.
    pub acked: Quantiles,
    /// Latency of the others.
    pub others: Quantiles,
    /// How late the client was with the sending: connections that wait for answers are the server's doing.
    pub sent_late: Quantiles,
    /// Largest resident set, MiB.
    pub rss_mib_max: u64,
}

/// Finds the capacity, then offers a multiple of it.
pub fn run(options: &OverloadOptions) -> Result<OverloadReport, MeasureError> {
    let (servers, clients) = processors();
    // Whoever is started now inherits it.
    pin(&servers);
    let rival = match &options.tally {
        Some(binary) => Rival::daemon(binary, &options.data_dir, &options.arguments, 4)?,
        None => Rival::bare(made_up_goals(4))?,
    };
    pin(&clients);
    let load = Load {
        threads: options.threads,
        seed: options.seed,
        connections: options.connections.min(CAPACITY_CONNECTIONS),
        pipeline: options.pipeline,
        warmup: Duration::from_millis(500),
        // As long as the overload: a burst may be taken faster than what lasts.
        window: options.window,
        answer_timeout: Duration::from_secs(10),
        server_pid: Some(rival.pid()),
        ..Load::new(rival.address, rival.goals.clone())
    };
    let capacity = closed_loop::run(&load)?.acked_per_second();
    let _ = rival.settle();
    let load =
        Load { seed: scramble(options.seed.wrapping_add(1)), connections: options.connections, ..load };
    let crowded = closed_loop::run(&load)?.acked_per_second();
    let _ = rival.settle();
    let load = Load { seed: scramble(options.seed.wrapping_add(2)), ..load };
    let offered = (capacity * options.factor).max(1.0);
    let report = open_loop::run(&load, Arrivals { per_second: offered, spacing: Spacing::Poisson })?;
    rival.stop()?;
    Ok(OverloadReport {
        capacity_per_second: capacity,
        crowded_per_second: crowded,
        offered_per_second: offered,
        goodput_per_second: report.acked_per_second(),
        counts: report.total,
        acked: report.acked.quantiles(),
        others: report.others.quantiles(),
        sent_late: report.lag.quantiles(),
        rss_mib_max: report.server.map_or(0, |server| server.rss_bytes_max >> 20),
    })
}

/// The processors of servers and of clients: halves of those that there are; the same for both where there is one.
fn processors() -> (CpuSet, CpuSet) {
    let all = sched_getaffinity(None).unwrap_or_default();
    let own: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    if own.len() < 2 {
        return (all, all);
    }
    let set = |cpus: &[usize]| {
        let mut set = CpuSet::new();
        for cpu in cpus {
            set.set(*cpu);
        }
        set
    };
    let (servers, clients) = own.split_at(own.len() / 2);
    (set(servers), set(clients))
}

/// Where the system does not allow it, both share everything, and the figures say less.
fn pin(processors: &CpuSet) {
    let _ = sched_setaffinity(None, processors);
}

impl fmt::Display for OverloadReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (capacity, goodput) = (self.capacity_per_second, self.goodput_per_second);
        let counts = &self.counts;
        let crowded = self.crowded_per_second;
        writeln!(
            formatter,
            "capacity {capacity:.0} hits/s, {crowded:.0} over as many connections as are to come; offered {:.0} hits/s",
            self.offered_per_second
        )?;
        writeln!(
            formatter,
            "goodput  {goodput:.0} hits/s, {:.2} of the capacity, {:.2} of that over as many connections",
            goodput / capacity.max(1.0),
            goodput / crowded.max(1.0)
        )?;
        writeln!(
            formatter,
            "acked {}, 503 {} ({} without Retry-After), 429 {}, other 4xx {}, failed {}, lost {}, never sent {}",
            counts.acked(),
            counts.overloaded,
            counts.overloaded_without_retry,
            counts.limited,
            counts.bad,
            counts.failed,
            counts.unknown,
            counts.not_sent
        )?;
        for (name, times) in [("acked", self.acked), ("others", self.others), ("sent late", self.sent_late)] {
            writeln!(
                formatter,
                "{name:>9} p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
                times.p50_ms, times.p99_ms, times.p999_ms
            )?;
        }
        writeln!(formatter, "RSS at most {} MiB", self.rss_mib_max)
    }
}
