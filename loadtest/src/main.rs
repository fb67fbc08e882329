//! The load tool's command line; `loadtest help` and the library's documentation say how to use it.

mod cli;

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use loadtest::clickhouse::ClickHouse;
use loadtest::demo::{self, DemoOptions};
use loadtest::ledger::{self, Ledger};
use loadtest::load::Load;
use loadtest::open_loop::Arrivals;
use loadtest::race::{self, RaceOptions};
use loadtest::report::Report;
use loadtest::request::Goal;
use loadtest::rival::log_of;
use loadtest::schedule::Spacing;
use loadtest::verify::Comparison;
use loadtest::{bare, closed_loop, daemon, open_loop, overload};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::cli::{
    Cli, Command, DemoArguments, OverloadArguments, RaceArguments, RunArguments, VerifyArguments,
};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    raise_descriptor_limit();
    let result = match Cli::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Verify(arguments) => verify(&arguments),
        Command::Bare { listen } => serve_bare(listen),
        Command::Race(arguments) => run_race(&arguments),
        Command::Overload(arguments) => run_overload(&arguments),
        Command::Demo(arguments) => run_demo(&arguments),
    };
    result.unwrap_or_else(|failure| {
        eprintln!("loadtest: {failure}");
        ExitCode::from(2)
    })
}

fn run(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let goals = match &arguments.data_dir {
        Some(folder) => daemon::create_goals(&arguments.url, &daemon::api_key(folder)?, arguments.goals)?,
        None => arguments.tokens.iter().map(|token| goal(token)).collect(),
    };
    let ledger = arguments.ledger.as_deref().map(Ledger::create).transpose()?.map(Arc::new);
    let load = Load {
        api_key: arguments.data_dir.as_deref().map(daemon::api_key).transpose()?,
        mix: arguments.mix(),
        seed: arguments.seed.unwrap_or_else(fresh_seed),
        connections: arguments.connections,
        pipeline: arguments.pipeline,
        threads: arguments.threads,
        window: arguments.window(),
        ledger: ledger.clone(),
        ..Load::new(arguments.address()?, goals)
    };
    let report = match arguments.rate {
        Some(per_second) => {
            let spacing = if arguments.uniform { Spacing::Uniform } else { Spacing::Poisson };
            open_loop::run(&load, Arrivals { per_second, spacing })?
        }
        None => closed_loop::run(&load)?,
    };
    if let Some(ledger) = ledger {
        ledger.finish()?;
    }
    print_report(&report);
    Ok(ExitCode::SUCCESS)
}

fn verify(arguments: &VerifyArguments) -> Result<ExitCode, Failure> {
    let url = match (&arguments.clickhouse, &arguments.data_dir) {
        (Some(url), _) => url.clone(),
        (None, Some(folder)) => daemon::reader_url(folder)?,
        (None, None) => return Err("either --clickhouse or --data-dir is needed".into()),
    };
    let clickhouse = ClickHouse::new(&url)?;
    let mut failed = None;
    // The first bad line ends the ledger, and is reported below.
    let entries =
        ledger::read(&arguments.ledger)?.map_while(|entry| entry.map_err(|error| failed = Some(error)).ok());
    let comparison = Comparison::new(entries);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let deadline = Instant::now() + Duration::from_secs(arguments.wait);
    let verdict = loop {
        let verdict = clickhouse.verify(comparison.clone())?;
        if !verdict.only_missing() || Instant::now() >= deadline {
            break verdict;
        }
        sleep(Duration::from_secs(1));
    };
    println!("{verdict}");
    write_json(arguments.json.as_deref(), &verdict)?;
    Ok(if verdict.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn serve_bare(listen: std::net::SocketAddr) -> Result<ExitCode, Failure> {
    bare::serve(listen, |address| {
        println!("{address}");
        let _ = std::io::stdout().flush();
    })?;
    Ok(ExitCode::SUCCESS)
}

fn run_race(arguments: &RaceArguments) -> Result<ExitCode, Failure> {
    let (data_dir, temporary) = arguments.servers.data_dir("race")?;
    let report = race::run(
        &RaceOptions {
            tally: arguments.servers.program(),
            data_dir: data_dir.clone(),
            arguments: arguments.servers.tally_arguments.clone(),
            cases: arguments.cases.clone(),
            rounds: arguments.rounds,
            window: arguments.servers.window(),
            goals: arguments.goals,
            threads: arguments.servers.threads,
            seed: fresh_seed(),
        },
        |line| eprintln!("{line}"),
    )?;
    print!("{report}");
    write_json(arguments.servers.json.as_deref(), &report)?;
    remove(&data_dir, temporary);
    Ok(ExitCode::SUCCESS)
}

fn run_overload(arguments: &OverloadArguments) -> Result<ExitCode, Failure> {
    let (data_dir, temporary) = arguments.servers.data_dir("overload")?;
    let report = overload::run(&overload::OverloadOptions {
        tally: arguments.servers.program(),
        data_dir: data_dir.clone(),
        arguments: arguments.servers.tally_arguments.clone(),
        factor: arguments.factor,
        window: arguments.servers.window(),
        connections: arguments.connections,
        pipeline: arguments.pipeline,
        threads: arguments.servers.threads,
        seed: fresh_seed(),
    })?;
    print!("{report}");
    write_json(arguments.servers.json.as_deref(), &report)?;
    remove(&data_dir, temporary);
    Ok(ExitCode::SUCCESS)
}

fn run_demo(arguments: &DemoArguments) -> Result<ExitCode, Failure> {
    let api_key = match (&arguments.api_key, &arguments.data_dir) {
        (Some(key), _) => key.clone(),
        (None, Some(folder)) => daemon::api_key(folder)?,
        (None, None) => return Err("either --api-key or --data-dir is needed".into()),
    };
    let report = demo::run(&DemoOptions {
        url: arguments.url.clone(),
        api_key,
        seed: arguments.seed,
        people: arguments.people,
        days: arguments.days,
        until_millis: now_millis(),
    })?;
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::disallowed_methods, reason = "the past that is made ends now")]
fn now_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `ID:TOKEN`, or a token whose goal's id is not known.
fn goal(text: &str) -> Goal {
    let known = text.split_once(':').and_then(|(id, token)| Some((id.parse().ok()?, token)));
    let (id, token) = known.unwrap_or((0, text));
    Goal { id, token: token.into() }
}

fn print_report(report: &Report) {
    let counts = &report.total;
    println!(
        "{:.0} answers/s ({:.0} acknowledged/s) over {:.1} s",
        report.answered_per_second(),
        report.acked_per_second(),
        report.window.as_secs_f64()
    );
    println!(
        "created {}, duplicates {}, undecided {}, bad {}, 429 {}, 503 {}, failed {}, lost {}, never sent {}",
        counts.created,
        counts.duplicates,
        counts.undecided,
        counts.bad,
        counts.limited,
        counts.overloaded,
        counts.failed,
        counts.unknown,
        counts.not_sent
    );
    for (name, latency) in [("ack", &report.acked), ("others", &report.others), ("sent late", &report.lag)] {
        if latency.count() > 0 {
            let times = latency.quantiles();
            println!(
                "{name:>9} p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms, max {:.3} ms",
                times.p50_ms, times.p99_ms, times.p999_ms, times.max_ms
            );
        }
    }
}

fn write_json(path: Option<&Path>, report: &impl serde::Serialize) -> Result<(), Failure> {
    if let Some(path) = path {
        std::fs::write(path, serde_json::to_vec_pretty(report)?)?;
    }
    Ok(())
}

/// A temporary data folder may hold millions of hits.
fn remove(data_dir: &Path, temporary: bool) {
    if temporary {
        // There is none after a race without a daemon.
        let _ = std::fs::remove_file(log_of(data_dir));
    }
    if temporary
        && let Err(error) = std::fs::remove_dir_all(data_dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("{} could not be removed: {error}", data_dir.display());
    }
}

/// A seed that no earlier run had, so that its order ids are new.
#[expect(clippy::disallowed_methods, reason = "it makes a seed; nothing goes by it")]
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Thousands of connections need thousands of descriptors, here and in the servers that inherit the limit.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // The old limit does for most runs.
    let _ = setrlimit(Resource::Nofile, limit);
}
