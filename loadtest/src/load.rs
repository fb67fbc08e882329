//! What closed and open loops share: the description of a load, its threads, and the sending and noting of hits.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use crate::client::{Connection, Fuse};
use crate::generator::{Generator, Hit, HitKind, Mix, order_text};
use crate::ledger::{Entry, Ledger, Outcome};
use crate::process;
use crate::report::{Report, ServerUse};
use crate::request::{Goal, Renderer};

/// Time for connecting before a run starts, and more of it for every connection.
const CONNECTING: Duration = Duration::from_millis(200);
const CONNECTING_EACH: Duration = Duration::from_micros(200);
/// Connections that a thread opens at once. More could overrun the server's backlog, and the kernel would try those
/// that were dropped again only after a second.
const CONNECTING_MAX: usize = 32;
/// How often connections are looked at whose answers may have been given up.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
const LEDGER_BATCH: usize = 256;

/// A load: where to, what, by how many, for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// The goals that hits are sent to; at least one.
    pub goals: Vec<Goal>,
    /// The key that clicks are reported with.
    pub api_key: Option<String>,
    /// What is sent.
    pub mix: Mix,
    /// The same seed sends the same hits. Order ids repeat with it: one data folder wants a new one for every run.
    pub seed: u64,
    /// Connections in all.
    pub connections: usize,
    /// Requests in flight on one connection.
    pub pipeline: usize,
    /// Threads of the client.
    pub threads: NonZeroUsize,
    /// Time before the measured window.
    pub warmup: Duration,
    /// The measured window.
    pub window: Duration,
    /// An answer that takes longer has been lost; also how long the last answers are waited for.
    pub answer_timeout: Duration,
    /// Where every outcome goes.
    pub ledger: Option<Arc<Ledger>>,
    /// Ends the run early.
    pub stop: Option<Arc<AtomicBool>>,
    /// The server's process, to measure what it uses.
    pub server_pid: Option<u32>,
}

impl Load {
    /// New hits only, 64 connections, one thread, five seconds.
    #[must_use]
    pub fn new(address: SocketAddr, goals: Vec<Goal>) -> Self {
        Self {
            address,
            goals,
            api_key: None,
            mix: Mix::NEW_ONLY,
            seed: 1,
            connections: 64,
            pipeline: 1,
            threads: NonZeroUsize::MIN,
            warmup: Duration::ZERO,
            window: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            ledger: None,
            stop: None,
            server_pid: None,
        }
    }

    /// Whether the run was told to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Connections of thread `index`.
    fn connections_of(&self, index: usize) -> usize {
        let threads = self.threads.get();
        self.connections / threads + usize::from(index < self.connections % threads)
    }
}

/// Why a load could not run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No goal to send to.
    #[error("a load needs at least one goal")]
    NoGoal,
    /// No key to report clicks with.
    #[error("a load with clicks needs an API key")]
    NoKey,
    /// No runtime, timer or thread could be had.
    #[error("the load client could not start: {0}")]
    Io(#[from] io::Error),
}

/// The times of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The first hit.
    pub(crate) start: Instant,
    /// The measured window begins.
    pub(crate) from: Instant,
    /// No hit is sent from here on.
    pub(crate) until: Instant,
}

/// Runs `work` with a desk in every thread of the load and adds up what they found.
pub(crate) fn run_threads(
    load: &Load,
    work: impl AsyncFn(Rc<Desk>, usize) -> Result<(), LoadError> + Sync,
) -> Result<Report, LoadError> {
    if load.goals.is_empty() {
        return Err(LoadError::NoGoal);
    }
    if load.mix.clicks_per_hit > 0 && load.api_key.is_none() {
        return Err(LoadError::NoKey);
    }
    let connecting = u32::try_from(load.connections).unwrap_or(u32::MAX);
    let start = Instant::now() + CONNECTING + CONNECTING_EACH.saturating_mul(connecting);
    let times = Times { start, from: start + load.warmup, until: start + load.warmup + load.window };
    let mut report = Report { window: load.window, ..Report::default() };
    thread::scope(|scope| {
        let work = &work;
        let threads = (0..load.threads.get())
            .map(|index| {
                thread::Builder::new()
                    .name(format!("load-{index}"))
                    .spawn_scoped(scope, move || run_thread(load, times, index, work))
            })
            .collect::<Result<Vec<_>, _>>()?;
        report.server = load.server_pid.map(|pid| watch_server(pid, load, times));
        for thread in threads {
            report.merge(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(())
    })
    .map(|()| report)
}

/// One thread of the load: a small runtime, so that its connections share their state without locks.
fn run_thread(
    load: &Load,
    times: Times,
    index: usize,
    work: &impl AsyncFn(Rc<Desk>, usize) -> Result<(), LoadError>,
) -> Result<Report, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let desk = Rc::new(Desk::new(load, times, index));
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            result = work(Rc::clone(&desk), load.connections_of(index)) => result,
            () = desk.watch() => Ok(()),
        }
    })?;
    Ok(desk.finish())
}

/// Reads the server's CPU time at both ends of the window and its memory in between.
fn watch_server(pid: u32, load: &Load, times: Times) -> ServerUse {
    let sleep_until = |time: Instant| thread::sleep(time.saturating_duration_since(Instant::now()));
    let used = || {
        let [server, client] =
            [pid, std::process::id()].map(|pid| process::cpu_time(pid).unwrap_or_default());
        (server, process::children_cpu_time(pid), client, process::machine_cpu_time().unwrap_or_default())
    };
    sleep_until(times.from);
    let before = used();
    let mut rss_bytes_max = 0;
    while Instant::now() < times.until && !load.stopped() {
        rss_bytes_max = rss_bytes_max.max(process::rss_bytes(pid).unwrap_or(0));
        sleep_until(times.until.min(Instant::now() + Duration::from_millis(100)));
    }
    let after = used();
    let cpu = after.0.saturating_sub(before.0);
    let children_cpu = after.1.saturating_sub(before.1);
    let client_cpu = after.2.saturating_sub(before.2);
    ServerUse {
        cpu,
        children_cpu,
        others_cpu: after.3.saturating_sub(before.3).saturating_sub(cpu + children_cpu + client_cpu),
        rss_bytes_max,
    }
}

/// One thread's stream of hits and what became of them.
pub(crate) struct Desk {
    load: Load,
    times: Times,
    generator: RefCell<Generator>,
    renderer: Renderer,
    run: u32,
    book: RefCell<Book>,
    fuses: RefCell<Vec<Rc<Fuse>>>,
    connecting: Semaphore,
}

struct Book {
    report: Report,
    /// Entries on their way to the ledger, so that its lock is taken once for many.
    entries: Vec<Entry>,
}

impl Desk {
    pub(crate) fn new(load: &Load, times: Times, thread: usize) -> Self {
        let stream = u32::try_from(thread).unwrap_or(u32::MAX);
        let generator = Generator::new(load.seed, stream, load.mix, load.goals.len());
        let run = generator.run();
        Self {
            load: load.clone(),
            times,
            renderer: Renderer::new(
                run,
                &load.goals,
                load.mix.clicks_per_hit,
                load.api_key.as_deref().unwrap_or_default(),
            ),
            run,
            generator: RefCell::new(generator),
            book: RefCell::new(Book { report: Report::default(), entries: Vec::new() }),
            fuses: RefCell::default(),
            connecting: Semaphore::new(CONNECTING_MAX),
        }
    }

    pub(crate) const fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) const fn times(&self) -> Times {
        self.times
    }

    /// The number of this thread's stream.
    pub(crate) const fn run(&self) -> u32 {
        self.run
    }

    pub(crate) fn next_hit(&self) -> Hit {
        self.generator.borrow_mut().next_hit()
    }

    /// Notes how late a hit is sent.
    pub(crate) fn note_lag(&self, lag: Duration) {
        self.book.borrow_mut().report.lag.record(lag);
    }

    /// Notes the outcome of `hit`, wanted `since` and known `at`.
    pub(crate) fn note(&self, hit: Hit, outcome: Outcome, retry_after: bool, since: Instant, at: Instant) {
        let mut book = self.book.borrow_mut();
        let book = &mut *book;
        book.report.total.add(&outcome, retry_after);
        if at >= self.times.from && at < self.times.until {
            book.report.measured.add(&outcome, retry_after);
        }
        // By the time at which it was wanted: those that come late because of a stall must not fall out of the window.
        if since >= self.times.from {
            let latency = at.saturating_duration_since(since);
            match outcome {
                Outcome::Acked { .. } => book.report.acked.record(latency),
                _ => book.report.others.record(latency),
            }
        }
        if let Some(ledger) = &self.load.ledger {
            let ordered = !matches!(hit.kind, HitKind::Anonymous | HitKind::Click);
            book.entries.push(Entry {
                goal_id: self.load.goals[hit.goal].id,
                order_id: if ordered { order_text(self.run, hit.sequence) } else { None },
                click_id: self.renderer.click_of(&hit),
                kind: hit.kind,
                outcome,
            });
            if book.entries.len() >= LEDGER_BATCH {
                ledger.append(&book.entries);
                book.entries.clear();
            }
        }
    }

    /// What this thread found.
    pub(crate) fn finish(&self) -> Report {
        let mut book = self.book.borrow_mut();
        if let Some(ledger) = &self.load.ledger {
            ledger.append(&book.entries);
            book.entries.clear();
        }
        std::mem::take(&mut book.report)
    }

    /// Cuts exchanges that take longer than the load allows, and all that are left when the last answers are overdue.
    /// Never ends: it is dropped when the connections are done.
    pub(crate) async fn watch(&self) {
        let mut seen: Vec<(Option<u64>, Instant)> = Vec::new();
        loop {
            tokio::time::sleep(WATCH_PAUSE).await;
            let now = Instant::now();
            let overdue = now > self.times.until + self.load.answer_timeout;
            let fuses = self.fuses.borrow();
            seen.resize(fuses.len(), (None, now));
            for (fuse, seen) in fuses.iter().zip(&mut seen) {
                let under_way = fuse.under_way();
                if under_way != seen.0 {
                    *seen = (under_way, now);
                } else if under_way.is_some() && (overdue || now - seen.1 > self.load.answer_timeout) {
                    fuse.cut();
                }
            }
        }
    }
}

/// One connection with the hits that are under way on it.
pub(crate) struct Lane {
    desk: Rc<Desk>,
    connection: Connection,
    requests: Vec<u8>,
    hits: Vec<(Hit, Instant)>,
}

impl Lane {
    pub(crate) fn new(desk: Rc<Desk>) -> Self {
        let connection = Connection::new(desk.load.address);
        desk.fuses.borrow_mut().push(connection.fuse());
        Self { desk, connection, requests: Vec::new(), hits: Vec::new() }
    }

    /// Opens the connection if needed; `false` when the run is over before it can be.
    pub(crate) async fn open(&mut self) -> bool {
        if self.connection.is_open() {
            return true;
        }
        let desk = &self.desk;
        // The semaphore is never closed.
        let _permit = desk.connecting.acquire().await;
        self.connection.open(desk.times.until, || !desk.load.stopped()).await
    }

    /// Adds a hit to the next exchange.
    pub(crate) fn add(&mut self, hit: Hit, since: Instant) {
        self.desk.renderer.render(&hit, &mut self.requests);
        self.hits.push((hit, since));
    }

    /// Sends what was added and notes every outcome.
    pub(crate) async fn exchange(&mut self) {
        let (desk, hits) = (&self.desk, &self.hits);
        let answered = self
            .connection
            .exchange(&self.requests, hits.len(), |index, answer, at| {
                let (hit, since) = hits[index];
                let outcome = match answer.status {
                    status @ 200..300 => Outcome::Acked {
                        status,
                        conversion_id: answer.conversion_id,
                        duplicate: answer.duplicate,
                    },
                    status => Outcome::Refused { status },
                };
                desk.note(hit, outcome, answer.retry_after, since, at);
            })
            .await;
        if answered < hits.len() {
            let now = Instant::now();
            for (hit, since) in &hits[answered..] {
                desk.note(*hit, Outcome::Unknown, false, *since, now);
            }
        }
        self.requests.clear();
        self.hits.clear();
    }
}
