//! The command line's grammar.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use loadtest::generator::Mix;
use loadtest::race::Case;

/// Load for tally, and the proof that every acknowledged hit is counted once.
#[derive(Debug, Parser)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sends hits to a running daemon.
    Run(RunArguments),
    /// Holds a ledger against `ClickHouse`; exit code 1 if anything is missing, doubled or mismatched.
    Verify(VerifyArguments),
    /// Serves 204 to everything.
    Bare {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Races a daemon of its own against a bare server.
    Race(RaceArguments),
    /// Offers a daemon of its own more than it can take.
    Overload(OverloadArguments),
    /// Gives a running daemon three weeks of clicks, sign-ups, purchases and refunds, for dashboards to show.
    Demo(DemoArguments),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// The daemon's public address, as http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The daemon's data folder, for its API key.
    #[arg(long, required_unless_present = "api_key")]
    pub(crate) data_dir: Option<PathBuf>,
    /// An API key, where the data folder is out of reach.
    #[arg(long)]
    pub(crate) api_key: Option<String>,
    /// Decides what happens; the same seed again adds nothing.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// People who click.
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub(crate) people: u32,
    /// Days, up to now.
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(crate) days: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The daemon's public address, as http://HOST:PORT.
    #[arg(long)]
    pub(crate) url: String,
    /// The daemon's data folder: its API key creates the goals.
    #[arg(long, required_unless_present = "tokens")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Goals to create.
    #[arg(long, default_value_t = 4)]
    pub(crate) goals: usize,
    /// Postback token of an existing goal, as ID:TOKEN or TOKEN; may be repeated.
    #[arg(long = "token", conflicts_with = "data_dir")]
    pub(crate) tokens: Vec<String>,
    /// Hits a second in open loop; without it, as many as get answered.
    #[arg(long, value_parser = positive)]
    pub(crate) rate: Option<f64>,
    /// Equal distances instead of Poisson's.
    #[arg(long)]
    pub(crate) uniform: bool,
    /// How long.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Hits in flight on one connection.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
    /// Threads of the client.
    #[arg(long, default_value = "1")]
    pub(crate) threads: NonZeroUsize,
    /// Share of copies, half of them at once and half later.
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    pub(crate) duplicates: f64,
    /// Share of hits that must be refused.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub(crate) bad: f64,
    /// Share of hits without an order id.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub(crate) anonymous: f64,
    /// Clicks to report for each hit; orders name earlier ones then.
    #[arg(long, default_value_t = 0, requires = "data_dir")]
    pub(crate) clicks_per_hit: u32,
    /// Seed of the hits; a new one by default, so that order ids are new.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Where to note every outcome.
    #[arg(long)]
    pub(crate) ledger: Option<PathBuf>,
}

impl RunArguments {
    pub(crate) fn mix(&self) -> Mix {
        Mix::with(self.duplicates, self.bad, self.anonymous).and_clicks(self.clicks_per_hit)
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        let host = self.url.trim_start_matches("http://").trim_end_matches('/');
        host.to_socket_addrs()?.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The ledger that `run` wrote.
    #[arg(long)]
    pub(crate) ledger: PathBuf,
    /// `ClickHouse`'s HTTP interface, with user and password.
    #[arg(long)]
    pub(crate) clickhouse: Option<String>,
    /// The daemon's data folder, which knows `ClickHouse`'s address.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Seconds that rows may take to arrive.
    #[arg(long, default_value_t = 60)]
    pub(crate) wait: u64,
    /// Where to write the verdict.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// What `race` and `overload` have in common.
#[derive(Debug, Args)]
pub(crate) struct ServerArguments {
    /// The daemon's program.
    #[arg(long, default_value = "target/release/tally")]
    pub(crate) tally: PathBuf,
    /// Takes a bare server for the daemon: what is measured then is the measurement.
    #[arg(long)]
    pub(crate) bare_only: bool,
    /// Data folder to use and keep; a temporary one under ./target by default. It must be on a real disk.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Further argument of `tally serve`; may be repeated.
    #[arg(long = "tally-argument", allow_hyphen_values = true)]
    pub(crate) tally_arguments: Vec<String>,
    /// Length of a measurement.
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    pub(crate) seconds: f64,
    /// Threads of the client.
    #[arg(long, default_value = "2")]
    pub(crate) threads: NonZeroUsize,
    /// Where to write the report.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

impl ServerArguments {
    pub(crate) fn program(&self) -> Option<PathBuf> {
        (!self.bare_only).then(|| self.tally.clone())
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The data folder, and whether it is to be removed afterwards.
    pub(crate) fn data_dir(&self, name: &str) -> io::Result<(PathBuf, bool)> {
        match &self.data_dir {
            Some(folder) => Ok((folder.clone(), false)),
            None => Ok((std::path::absolute(format!("target/{name}/{}", std::process::id()))?, true)),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RaceArguments {
    #[command(flatten)]
    pub(crate) servers: ServerArguments,
    /// Rounds of each case.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Cases, as `CONNECTIONS` or `CONNECTIONSxPIPELINE`.
    #[arg(long, value_delimiter = ',', default_values_t = Case::ALL)]
    pub(crate) cases: Vec<Case>,
    /// Goals that the hits are spread over.
    #[arg(long, default_value_t = 4)]
    pub(crate) goals: usize,
}

#[derive(Debug, Args)]
pub(crate) struct OverloadArguments {
    #[command(flatten)]
    pub(crate) servers: ServerArguments,
    /// What is offered, as a multiple of the capacity.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    pub(crate) factor: f64,
    /// Connections that carry it: more than the daemon lets hits wait.
    #[arg(long, default_value_t = 8192)]
    pub(crate) connections: usize,
    /// Hits that one connection may have in flight.
    #[arg(long, default_value_t = 1)]
    pub(crate) pipeline: usize,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("must be a number above 0".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("must be a share from 0 to 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cases_are_read() {
        let parse = |text: &str| text.parse::<Case>();
        assert_eq!(parse("64x16"), Ok(Case { connections: 64, pipeline: 16 }));
        assert_eq!(parse("512").map(|case| case.to_string()).as_deref(), Ok("512"));
        assert!(parse("0").is_err() && parse("64x").is_err());
    }
}
