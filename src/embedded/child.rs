//! The engine's process: `tally engine`, started by the supervisor and by nobody else.
//!
//! Its order of things: die with the parent, take the data path's lock, repair the deduplication logs, load
//! libchdb, take the port, serve. It ends when its standard input does, with connections closed and `_exit`.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{
    Resource, Rlimit, Signal, getppid, getrlimit, set_parent_process_death_signal, setrlimit,
};
use tokio::sync::{mpsc, watch};

use super::credentials::{Credentials, DATABASE};
use super::engine_config;
use super::ffi::{Engine, EngineError, Params, StartError, exit_now};
use super::handshake::{Order, PREFIX, Report};
use super::reader_settings::ReaderLimits;
use super::server::serve;
use super::settings::{QueryLimits, name_of};
use super::slots::{Slots, readers_at_once};
use super::worker::Shared;
use super::{dedup_log, half_made, sessions::Sessions};
use crate::tasks;

/// After a kill -9 the lock is held until the old process is gone, which takes a while with much memory.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for the port.
const PORT_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// What running queries get to end in.
const GRACE: Duration = Duration::from_secs(10);
const CONNECTIONS_WAITING_MAX: i32 = 1024;

/// Why the child ends before it serves.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("no order on standard input: {0}")]
    Order(String),
    #[error("the parent is gone")]
    Orphan,
    #[error("{0} is held by another engine")]
    Locked(String),
    #[error(
        "{0} is empty: the disk was full when it was written; restore the folder clickhouse/ from a backup"
    )]
    HalfMade(String),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the engine does not answer: {0}")]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The hidden mode `tally engine`. Never returns.
pub fn engine_main() -> ! {
    let code = match run() {
        Ok(()) => 0,
        Err(error) => {
            report(&Report::Failed { reason: error.to_string() });
            1
        }
    };
    let _ = io::stdout().flush();
    exit_now(code)
}

/// Below the priority of the daemon, whose threads answer hits.
const NICENESS: i32 = 10;

fn run() -> Result<(), ChildError> {
    let order = read_order()?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    // The parent may have died before the call above.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent != Some(order.parent) {
        return Err(ChildError::Orphan);
    }

    // Before the engine starts its threads, which inherit it: a burst is acknowledged first and inserted after.
    let _ = rustix::process::nice(NICENESS);

    raise_file_limit();

    let data = order.data_dir.join("clickhouse");
    let settings = order.data_dir.join("engine");
    fs::create_dir_all(&data)?;
    fs::create_dir_all(&settings)?;
    // Whatever the engine looks for by a relative name, it does not find what somebody left in the daemon's folder.
    std::env::set_current_dir(&settings)?;
    let _lock = lock(&settings.join("lock"))?;
    half_made::check(&data, order.database)?;
    let repaired = dedup_log::repair(&data)?;
    let config = engine_config::write(&settings, order.memory_bytes_max, &order.reader_grants)?;
    let args = [format!("--path={}", data.display()), format!("--config-file={}", config.display())];
    let engine = Engine::start(&order.library, &args)?;
    let (version, timezone) = prepare(&engine)?;

    let listener = bind(order.port)?;
    let port = listener.local_addr()?.port();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let slots = Slots::new(cores);
    // Each request's thread, and those that kill.
    let threads_max = slots.threads_max() + 32;
    let shared = Arc::new(Shared {
        engine,
        sessions: Sessions::default(),
        slots,
        limits: QueryLimits {
            reader: ReaderLimits {
                // All readers together get half of the engine's memory: ingest must go on beside any dashboard.
                memory_bytes: order.memory_bytes_max / 2 / readers_at_once(cores) as u64,
                threads: (cores as u64 / 2).max(1),
            },
            report_memory_bytes: order.memory_bytes_max / 2,
        },
        version: version.clone(),
        timezone,
    });
    let credentials =
        Credentials { port, writer_password: order.writer_password, reader_password: order.reader_password };

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(threads_max)
        .enable_all()
        .build()?;
    let (stop, stopped) = watch::channel(false);
    let (asked, questions) = mpsc::channel(1);
    tasks::spawn_finite_thread("engine-stdin", move || listen_to_parent(&asked, &stop))?;
    runtime.block_on(async {
        // A service manager's SIGTERM goes to all processes, a terminal's signals too; the parent decides when the engine
        // stops.
        use tokio::signal::unix::SignalKind;
        let _ignored = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ]
        .map(ignore);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        report(&Report::Ready { port, version, repaired });
        drop(tasks::spawn_isolated("engine-answers", answer_parent(questions)));
        tokio::select! {
            () = serve(listener, Arc::clone(&shared), credentials, stopped, GRACE) => Ok(()),
            // The supervisor starts another.
            failure = tasks::first_failure() => Err(io::Error::other(failure)),
        }
    })?;
    shared.sessions.clear();
    runtime.shutdown_timeout(Duration::from_millis(100));
    // The root connection closes here, unless a query would not end.
    drop(shared);
    Ok(())
}

/// Each line of the parent is the question whether this process works; the end of them tells it to stop.
fn listen_to_parent(asked: &mpsc::Sender<()>, stop: &watch::Sender<bool>) {
    for _ in io::stdin().lock().lines().map_while(Result::ok) {
        // One that waits to be answered is enough.
        let _ = asked.try_send(());
    }
    let _ = stop.send(true);
}

/// On the threads that serve requests: an answer says that they turn. It takes no connection, which strangers could
/// hold, and no file descriptor.
async fn answer_parent(mut questions: mpsc::Receiver<()>) {
    while questions.recv().await.is_some() {
        report(&Report::Alive);
    }
}

/// Raises the limit of open files to what the system allows: an engine with many parts needs many.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused, it stays as it is.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

fn read_order() -> Result<Order, ChildError> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(1 << 20)
        .read_line(&mut line)
        .map_err(|error| ChildError::Order(error.to_string()))?;
    serde_json::from_str(&line).map_err(|error| ChildError::Order(error.to_string()))
}

fn report(report: &Report) {
    if let Ok(json) = serde_json::to_string(report) {
        // A parent that is gone takes this process with it.
        let _ = writeln!(io::stdout(), "{PREFIX}{json}");
        let _ = io::stdout().flush();
    }
}

/// Our own lock, since the repair must not run beside a living engine, and the engine takes its own only later.
fn lock(path: &Path) -> Result<File, ChildError> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(RETRY_EVERY),
            Err(TryLockError::WouldBlock) => return Err(ChildError::Locked(path.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Makes the database and asks what the hello needs.
fn prepare(engine: &Engine) -> Result<(String, String), EngineError> {
    let mut connection = engine.connect()?;
    let none = Params::default();
    connection.query(
        format!("CREATE DATABASE IF NOT EXISTS {}", name_of(DATABASE)).as_bytes(),
        "Null",
        &none,
    )?;
    let mut ask = |sql: &str| {
        let block = connection.query(sql.as_bytes(), "TSVRaw", &none)?;
        Ok::<_, EngineError>(String::from_utf8_lossy(block.bytes()).trim_end().to_owned())
    };
    Ok((ask("SELECT version()")?, ask("SELECT timezone()")?))
}

/// The port ordered: clients were told of it. Whoever else keeps it makes this fail, and the next try may go better.
fn bind(port: u16) -> io::Result<TcpListener> {
    let deadline = Instant::now() + PORT_TIMEOUT;
    let socket = loop {
        match bind_once(port) {
            Ok(socket) => break socket,
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY_EVERY),
            Err(error) => return Err(error),
        }
    };
    socket.listen(CONNECTIONS_WAITING_MAX)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_once(port: u16) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    // Connections of the child before may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

/// Replaces a signal's action by none, for as long as the runtime lives.
fn ignore(kind: tokio::signal::unix::SignalKind) -> Option<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(kind).ok()
}
