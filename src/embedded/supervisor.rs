//! Keeps one engine process running: starts it, waits for its report, asks it whether it works, starts it again, forever.
//!
//! Runs on a thread of its own that lives as long as the daemon wants an engine: the kernel's 'die with your
//! parent' is tied to the *thread* that started the child.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::credentials::Credentials;
use super::handshake::{ExistingDatabase, Order, PREFIX, QUESTION, Report};
use super::locate::locate;
use super::{EmbeddedConfig, State};
use crate::tasks;

/// The thread's.
pub(super) const NAME: &str = "engine-supervisor";

/// A start loads every part's metadata; with very much data that takes its time.
const READY_TIMEOUT: Duration = Duration::from_mins(10);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// So many questions in a row without an answer: a process that is alive and does not work.
const UNANSWERED_MAX: u32 = 15;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// An engine that was up for so long starts its backoff anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// More than the child gives its running queries.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What the thread shares with the handle.
pub(crate) struct Supervised {
    pub(crate) config: EmbeddedConfig,
    pub(crate) credentials: Mutex<Credentials>,
    pub(crate) restarts: AtomicU64,
    /// 0: none.
    pub(crate) pid: AtomicU32,
}

/// How one life of the child ended.
enum Ended {
    /// As asked for.
    Stopped,
    Died {
        reason: String,
        up_for: Option<Duration>,
    },
}

/// What is known of a child that was asked whether it works.
enum Health {
    /// It answered since, or has time to.
    Working,
    /// It lives and answers nothing.
    Silent,
    /// It could not be asked, for a reason of the daemon's own: that says nothing about the engine.
    Unknown(io::Error),
}

/// Runs until `stop` closes or gets a message.
pub(crate) fn supervise(shared: &Supervised, state: &watch::Sender<State>, stop: &Receiver<()>) {
    let mut generation = 0;
    let mut backoff = BACKOFF.0;
    // Each reason is logged once, until the engine was up again: a start that fails is tried for as long as it takes.
    let mut logged = String::new();
    loop {
        state.send_replace(State::Starting);
        let ended = run_child(shared, state, stop, &mut generation);
        shared.pid.store(0, Ordering::Release);
        match ended {
            Ended::Stopped => {
                state.send_replace(State::Down { reason: "stopped".into() });
                return;
            }
            Ended::Died { reason, up_for } => {
                if up_for.is_some() || reason != logged {
                    tracing::warn!(%reason, "the embedded ClickHouse is down and will be started again");
                }
                logged.clone_from(&reason);
                state.send_replace(State::Down { reason });
                if up_for.is_some_and(|up_for| up_for >= STEADY_AFTER) {
                    backoff = BACKOFF.0;
                }
            }
        }
        select! {
            recv(stop) -> _ => {
                state.send_replace(State::Down { reason: "stopped".into() });
                return;
            }
            default(backoff) => {}
        }
        backoff = (backoff * 2).min(BACKOFF.1);
        shared.restarts.fetch_add(1, Ordering::Relaxed);
    }
}

fn run_child(
    shared: &Supervised,
    state: &watch::Sender<State>,
    stop: &Receiver<()>,
    generation: &mut u64,
) -> Ended {
    let mut process = match Process::start(shared) {
        Ok(process) => process,
        Err(reason) => return Ended::Died { reason, up_for: None },
    };
    shared.pid.store(process.child.id(), Ordering::Release);

    let mut up_since = None;
    let mut could_ask = true;
    let started = Instant::now();
    let ask = tick(ASK_EVERY);
    let reason = loop {
        tasks::failpoint(NAME);
        let up_for = || up_since.map(|since: Instant| since.elapsed());
        select! {
            recv(stop) -> _ => {
                process.stop();
                return Ended::Stopped;
            }
            recv(process.reports) -> report => match report {
                Ok(Report::Ready { port, version, repaired }) => {
                    *generation += 1;
                    up_since = Some(Instant::now());
                    let start_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(%version, port, repaired, start_ms, "the embedded ClickHouse is up");
                    state.send_replace(State::Up { generation: *generation });
                }
                Ok(Report::Alive) => process.unanswered = 0,
                Ok(Report::Failed { reason }) => break reason,
                Err(_) => return Ended::Died { reason: process.exit_reason(), up_for: up_for() },
            },
            recv(ask) -> _ => match up_since {
                None if started.elapsed() > READY_TIMEOUT => break "it did not get ready in time".to_owned(),
                None => {}
                Some(_) => match process.ask() {
                    Health::Working => could_ask = true,
                    Health::Silent => break "it stopped answering".to_owned(),
                    Health::Unknown(error) => {
                        if could_ask {
                            tracing::warn!(%error, "cannot ask the embedded ClickHouse whether it works");
                        }
                        could_ask = false;
                    }
                },
            },
        }
    };
    let said = process.last_error();
    process.kill();
    let reason = if said.is_empty() { reason } else { format!("{reason}: {said}") };
    Ended::Died { reason, up_for: up_since.map(|since| since.elapsed()) }
}

/// The child and the threads that read what it says.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    reports: Receiver<Report>,
    /// Questions since the last answer.
    unanswered: u32,
    /// The last line of its standard error, where the engine puts its reasons.
    last_error: Arc<Mutex<String>>,
}

impl Process {
    fn start(shared: &Supervised) -> Result<Self, String> {
        let library = locate(shared.config.libchdb.as_deref()).map_err(|error| error.to_string())?;
        let program = match &shared.config.program {
            Some(program) => program.clone(),
            None => current_program().map_err(|error| format!("cannot tell this program's path: {error}"))?,
        };
        let credentials = shared.credentials.lock().clone();
        let order = Order {
            parent: std::process::id(),
            data_dir: std::path::absolute(&shared.config.data_dir).map_err(|error| error.to_string())?,
            library,
            port: credentials.port,
            writer_password: credentials.writer_password,
            reader_password: credentials.reader_password,
            memory_bytes_max: shared.config.memory_bytes_max,
            reader_grants: shared.config.reader_grants.clone(),
            database: match shared.config.database_unused.load(Ordering::Acquire) {
                true if shared.restarts.load(Ordering::Relaxed) == 0 => ExistingDatabase::Unused,
                true => ExistingDatabase::Begun,
                false => ExistingDatabase::Kept,
            },
        };
        let mut child = Command::new(&program)
            .arg0("tally")
            .arg("engine")
            // Times without a zone mean UTC, whatever zone the host is in.
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C is meant for the daemon, which stops the engine last.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let last_error = Arc::new(Mutex::new(String::new()));
        let (sender, reports) = bounded(4);
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut process = Self { child, stdin, reports, unanswered: 0, last_error };
        let last = Arc::clone(&process.last_error);
        let sent = spawn("engine-stdout", stdout, move |stdout| read_reports(stdout, &sender))
            .and_then(|()| spawn("engine-stderr", stderr, move |stderr| read_errors(stderr, &last)))
            .and_then(|()| process.send(&order));
        if let Err(error) = sent {
            process.kill();
            return Err(format!("cannot talk to the engine's process: {error}"));
        }
        Ok(process)
    }

    fn send(&mut self, order: &Order) -> io::Result<()> {
        let order = serde_json::to_string(order)?;
        let stdin = self.stdin.as_mut().ok_or_else(no_pipe)?;
        writeln!(stdin, "{order}").and_then(|()| stdin.flush())
    }

    /// Asks whether it works, and says what is known by now. The pipe holds thousands of questions, so that this does
    /// not wait for a child that does not read them.
    fn ask(&mut self) -> Health {
        if self.unanswered >= UNANSWERED_MAX {
            return Health::Silent;
        }
        let asked = self.stdin.as_mut().ok_or_else(no_pipe).and_then(|stdin| {
            stdin.write_all(QUESTION.as_bytes())?;
            stdin.flush()
        });
        match asked {
            Ok(()) => {
                self.unanswered += 1;
                Health::Working
            }
            Err(error) => Health::Unknown(error),
        }
    }

    /// Lets it end its queries, then makes it end.
    fn stop(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + STOP_TIMEOUT;
        // The end of its output is the end of the process.
        while Instant::now() < deadline {
            match self.reports.recv_deadline(deadline) {
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.kill();
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// After its output ended.
    fn exit_reason(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = self.last_error();
        if said.is_empty() { status } else { format!("{status}: {said}") }
    }

    fn last_error(&self) -> String {
        self.last_error.lock().clone()
    }
}

/// A named thread that reads what the child says.
fn spawn<R: Read + Send + 'static>(
    name: &'static str,
    pipe: Option<R>,
    read: impl FnOnce(R) + Send + 'static,
) -> io::Result<()> {
    let pipe = pipe.ok_or_else(no_pipe)?;
    tasks::spawn_finite_thread(name, move || read(pipe)).map(drop)
}

fn no_pipe() -> io::Error {
    io::Error::other("no pipe")
}

fn read_reports(stdout: impl Read, reports: &Sender<Report>) {
    for_each_line(stdout, |line| {
        let report = line.strip_prefix(PREFIX).and_then(|json| serde_json::from_str(json).ok());
        match report {
            Some(report) => reports.send(report).is_ok(),
            None => true,
        }
    });
}

fn read_errors(stderr: impl Read, last: &Mutex<String>) {
    for_each_line(stderr, |line| {
        if !line.trim().is_empty() {
            tracing::warn!(target: "tally::embedded::engine", "{line}");
            line.chars().take(500).collect::<String>().clone_into(&mut last.lock());
        }
        true
    });
}

/// Lines of bounded length, until the end or until the callback has enough.
fn for_each_line(input: impl Read, mut each: impl FnMut(&str) -> bool) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if !each(String::from_utf8_lossy(&line).trim_end()) => return,
            Ok(_) => {}
        }
    }
}

/// An upgrade replaces the file of a running daemon; its engine must stay of the same build.
fn current_program() -> io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() { Ok(own) } else { std::env::current_exe() }
}
