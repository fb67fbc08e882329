//! The embedded ClickHouse: libchdb in a supervised child process, which serves ClickHouse's HTTP interface on
//! loopback. To everybody else it is a URL.
//!
//! # What it promises
//! - [`Embedded::start`] returns at once, and an engine that can't start never takes the daemon down: it is
//!   [`State::Down`] with a reason, and tried again.
//! - Port and passwords are made once and kept (`DIR/writer.url`, `DIR/reader.url`, mode 0600), over restarts of
//!   the child and of the daemon.
//! - Killed with -9 at any moment, the child is back within seconds; before each start its deduplication logs are
//!   repaired, so that a token without its rows is never remembered.
//! - The child dies with the daemon, whatever the daemon dies of.
//! - The reader can neither write nor reach files, network or tables that it was not granted.
//!
//! # Map
//! Parent: `supervisor` (one thread), `credentials`, `locate`. Between the two: `handshake`. Child: `child` (its
//! main), `engine_config`, `dedup_log`, `ffi` (libchdb, the only unsafe code), `server` (HTTP, with its
//! `connections`) → `request`, `body` → `worker` (one request on one thread, with its `sessions` and `slots`) →
//! `reply`. Pure: `statement`, `settings`, `reader_settings`,
//! `settings_table`, `guard`, `formats`, `blocks`, `multipart`, `encoding`, `hello`.

mod blocks;
mod body;
mod child;
mod connections;
mod credentials;
mod dedup_log;
mod encoding;
mod engine_config;
mod ffi;
mod formats;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod half_made;
mod handshake;
mod hello;
mod locate;
mod multipart;
mod reader_settings;
mod reply;
mod request;
mod server;
mod sessions;
mod settings;
mod settings_table;
mod slots;
mod statement;
mod supervisor;
mod worker;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::tasks;
pub use child::engine_main;
use credentials::{Credentials, DATABASE, WRITER};
pub use half_made::half_made_file;
pub use locate::{NotFound, locate};
use supervisor::{Supervised, supervise};

/// How long a start waits for the port that it had.
const PORT_FREED_WITHIN: Duration = Duration::from_secs(2);

/// How the engine is to run.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The daemon's data folder; the engine's data is in `clickhouse/` inside it.
    pub data_dir: PathBuf,
    /// The library, if it is not to be looked for (see [`locate`]).
    pub libchdb: Option<PathBuf>,
    /// ClickHouse's `max_server_memory_usage`; its caches are cut from it.
    pub memory_bytes_max: u64,
    /// The program that has the hidden mode `engine`; this very program if `None`.
    pub program: Option<PathBuf>,
    /// What dashboards may read: GRANT and REVOKE statements without their `TO` or `FROM`, in order.
    pub reader_grants: Vec<String>,
    /// Whether nothing was ever inserted: files of a database that a start left are removed then, since they may be half
    /// made. Shared, as that may change while the engine runs.
    pub database_unused: Arc<AtomicBool>,
}

impl EmbeddedConfig {
    /// The defaults: 2 GB, everything in the database `tally` but the tables that hold credentials.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let grants = [
            "GRANT SHOW, SELECT, dictGet ON tally.*",
            "REVOKE SHOW, SELECT ON tally.api_keys",
            "REVOKE SHOW, SELECT ON tally.goals",
            "GRANT SELECT(id, account_id, name, goal_type, deleted) ON tally.goals",
        ];
        Self {
            data_dir: data_dir.into(),
            libchdb: None,
            memory_bytes_max: 2_000_000_000,
            program: None,
            reader_grants: grants.map(ToOwned::to_owned).to_vec(),
            database_unused: Arc::default(),
        }
    }
}

/// Whether there is an engine to talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A child was started and has not reported yet.
    Starting,
    /// It serves. The generation counts the children that did: what was sent to an earlier one is doubtful.
    Up {
        /// 1 for the first.
        generation: u64,
    },
    /// There is none; the next try follows shortly, unless it was stopped.
    Down {
        /// For the log and the operator.
        reason: String,
    },
}

/// Where and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://127.0.0.1:PORT`, without credentials.
    pub url: String,
    /// The user's name.
    pub user: String,
    /// Their password.
    pub password: String,
    /// The database to use.
    pub database: String,
}

/// The password stays out of logs.
impl std::fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Endpoint").field("url", &self.url).field("user", &self.user).finish_non_exhaustive()
    }
}

/// The data folder can't be used, so nothing of the daemon can run.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for the embedded ClickHouse: {cause}", path.display())]
pub struct StartError {
    path: PathBuf,
    cause: io::Error,
}

/// The engine was not up in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the embedded ClickHouse is not up: {reason}")]
pub struct NotReady {
    /// Why, as far as is known.
    pub reason: String,
}

/// The running supervisor. Dropped, it stops the engine without waiting for it.
pub struct Embedded {
    shared: Arc<Supervised>,
    state: watch::Receiver<State>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts supervising and returns at once; see [`Embedded::ready`].
    pub fn start(config: EmbeddedConfig) -> Result<Self, StartError> {
        let folder = config.data_dir.clone();
        let failed = |cause| StartError { path: folder.clone(), cause };
        let credentials = prepare(&config.data_dir).map_err(failed)?;
        let shared = Arc::new(Supervised {
            config,
            credentials: Mutex::new(credentials),
            restarts: AtomicU64::new(0),
            pid: AtomicU32::new(0),
        });
        let (sender, state) = watch::channel(State::Starting);
        let (stop, stopped) = bounded(1);
        let for_thread = Arc::clone(&shared);
        let supervise = move || supervise(&for_thread, &sender, &stopped);
        let thread = tasks::spawn_finite_thread(supervisor::NAME, supervise).map_err(failed)?;
        Ok(Self { shared, state, stop, thread: Some(thread) })
    }

    /// For tally itself. It stays the same while this handle lives; only a start finds another port, where somebody
    /// took the old one meanwhile.
    #[must_use]
    pub fn writer(&self) -> Endpoint {
        let credentials = self.shared.credentials.lock();
        Endpoint {
            url: format!("http://127.0.0.1:{}", credentials.port),
            user: WRITER.into(),
            password: credentials.writer_password.clone(),
            database: DATABASE.into(),
        }
    }

    /// For dashboards: what `DIR/reader.url` holds. It contains the password.
    #[must_use]
    pub fn reader_url(&self) -> String {
        self.shared.credentials.lock().reader_url()
    }

    /// The state and its changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// How often a child was started after the first.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// The child's process id, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        Some(self.shared.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// Waits until the engine serves, at most for `deadline`.
    pub async fn ready(&self, deadline: Duration) -> Result<(), NotReady> {
        let mut state = self.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Up { .. }));
        match tokio::time::timeout(deadline, up).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NotReady {
                reason: match &*self.state.borrow() {
                    State::Down { reason } => reason.clone(),
                    _ => "it is still starting".into(),
                },
            }),
        }
    }

    /// Stops the engine in order: running queries get some seconds, and its connections are closed.
    pub async fn stop(mut self) {
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take() {
            // It catches and reports its own panic.
            tasks::blocking(move || drop(thread.join())).await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The thread sees it at once and ends by itself.
        let _ = self.stop.try_send(());
    }
}

/// Makes the folder, and credentials with a port if there are none.
fn prepare(folder: &Path) -> io::Result<Credentials> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut credentials = Credentials::load(folder)?;
    if credentials.port == 0 || !is_free(credentials.port)? {
        credentials.port = free_port()?;
    }
    credentials.store(folder)?;
    Ok(credentials)
}

/// Whether the port can be had; an engine of a daemon that was just killed may keep it for a moment. What else keeps
/// this process from finding out is no answer.
fn is_free(port: u16) -> io::Result<bool> {
    let deadline = Instant::now() + PORT_FREED_WITHIN;
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(error),
            Err(_) if Instant::now() > deadline => return Ok(false),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A port outside of the range from which the kernel gives ports to outgoing connections: one of those could
/// take it while the engine is down.
fn free_port() -> io::Result<u16> {
    for _ in 0..100 {
        let port = rand::random_range(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
