//! Servers that a measurement starts for itself: the bare one, or a daemon with goals to send to.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::clickhouse::{ClickHouse, ClickHouseError};
use crate::daemon::{Daemon, DaemonError, DaemonOptions, free_address};
use crate::load::LoadError;
use crate::process::{self, ProcessError, Server};
use crate::request::Goal;

/// The engine's first start creates its system tables.
const READY_PATIENCE: Duration = Duration::from_mins(3);
const STOP_PATIENCE: Duration = Duration::from_mins(1);
/// An idle engine merges now and then; it does so in both servers' rounds.
const SETTLE_PATIENCE: Duration = Duration::from_secs(15);

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The daemon did not come up.
    #[error("{error} (its output is in {})", log.display())]
    Start {
        /// Why.
        error: DaemonError,
        /// What it wrote.
        log: PathBuf,
    },
    /// The bare server.
    #[error("the bare server: {0}")]
    Bare(#[from] ProcessError),
    /// The load client.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `ClickHouse`.
    #[error(transparent)]
    ClickHouse(#[from] ClickHouseError),
    /// Anything else.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

/// A server under measurement; it ends with this value.
#[derive(Debug)]
pub struct Rival {
    /// Where it listens.
    pub address: SocketAddr,
    /// The goals that it knows.
    pub goals: Vec<Goal>,
    process: RivalProcess,
}

#[derive(Debug)]
enum RivalProcess {
    Bare(Server),
    Daemon(Daemon),
}

impl Rival {
    /// Starts this program as the bare server; `goals` are what requests name, which it does not read.
    pub fn bare(goals: Vec<Goal>) -> Result<Self, MeasureError> {
        let address = free_address()?;
        let program = std::env::current_exe()
            .map_err(|error| MeasureError::Io { what: "finding this program".into(), error })?;
        let mut command = Command::new(program);
        command.args(["bare", "--listen", &address.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        let server = Server::start(&mut command)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = TcpStream::connect(address) {
            if Instant::now() >= deadline {
                return Err(MeasureError::Io { what: "waiting for the bare server".into(), error });
            }
            sleep(Duration::from_millis(20));
        }
        Ok(Self { address, goals, process: RivalProcess::Bare(server) })
    }

    /// Starts the daemon `binary` in `data_dir` with `arguments`, and creates `goals` goals.
    pub fn daemon(
        binary: &Path,
        data_dir: &Path,
        arguments: &[String],
        goals: usize,
    ) -> Result<Self, MeasureError> {
        let made = std::fs::create_dir_all(data_dir);
        made.map_err(|error| MeasureError::Io { what: data_dir.display().to_string(), error })?;
        let mut options = DaemonOptions::new(binary, data_dir)?;
        options.arguments.extend_from_slice(arguments);
        let log = log_of(data_dir);
        options.log = Some(log.clone());
        let started = Daemon::start(options).and_then(|mut daemon| {
            daemon.wait_ready(READY_PATIENCE)?;
            let goals = daemon.create_goals(goals)?;
            Ok((daemon, goals))
        });
        let (daemon, goals) = started.map_err(|error| MeasureError::Start { error, log })?;
        Ok(Self { address: daemon.options.listen, goals, process: RivalProcess::Daemon(daemon) })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.process {
            RivalProcess::Bare(server) => server.pid(),
            RivalProcess::Daemon(daemon) => daemon.server.pid(),
        }
    }

    /// Waits until it (and a daemon's engine) has nothing left to do; whether it has not.
    #[must_use]
    pub fn settle(&self) -> bool {
        match &self.process {
            RivalProcess::Bare(_) => true,
            RivalProcess::Daemon(daemon) => process::settle(daemon.server.pid(), SETTLE_PATIENCE),
        }
    }

    /// The database of a daemon.
    pub fn clickhouse(&self) -> Result<Option<ClickHouse>, MeasureError> {
        match &self.process {
            RivalProcess::Bare(_) => Ok(None),
            RivalProcess::Daemon(daemon) => Ok(Some(ClickHouse::new(&daemon.reader_url()?)?)),
        }
    }

    /// Stops it in order.
    pub fn stop(self) -> Result<(), MeasureError> {
        match self.process {
            RivalProcess::Bare(mut server) => server.kill().map(drop)?,
            RivalProcess::Daemon(mut daemon) => {
                daemon.server.stop(STOP_PATIENCE).map(drop).map_err(DaemonError::from)?;
            }
        }
        Ok(())
    }
}

/// Where the daemon of a data folder writes: beside the folder, which is the daemon's own.
#[must_use]
pub fn log_of(data_dir: &Path) -> PathBuf {
    data_dir.with_added_extension("log")
}

/// Whether a folder is in memory, where an fsync costs nothing and proves nothing.
#[must_use]
pub fn in_memory(folder: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// Goals as a daemon would name them, for a server that does not care.
#[must_use]
pub fn made_up_goals(count: usize) -> Vec<Goal> {
    (1..=count as u64).map(|id| Goal { id, token: format!("{id:032x}") }).collect()
}
