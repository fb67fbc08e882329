//! The listeners: an accept loop that deals public connections out to workers, one thread and one event loop each, and
//! the operators' one.
//!
//! A connection stays on its worker, so its hits join that worker's buffer of the log without meeting other threads,
//! and the worker wakes all of a group's waiters itself.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use metrics::{Counter, Unit, counter, describe_counter};
use rustix::io::Errno;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Answer, Connection, Ops,
    connections::{Admitted, Connections},
    serving::{Ending, OVERLOADED_ANSWER, Serving, protocol},
    strain::Strain,
};
use crate::{intake::Gate, tasks};

/// How long a client may leave answers untaken before its connection is cut: one that reads nothing must not keep its
/// place for ever.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How long open requests may take to end when the daemon does.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// How long accepting pauses when the process or the system is out of descriptors or memory: at first, and at most.
const PAUSE_AFTER_SHORTAGE: Duration = Duration::from_millis(10);
const PAUSE_AFTER_SHORTAGE_MAX: Duration = Duration::from_secs(1);
/// How often the log says that no connection can be accepted.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Answers requests on one worker.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. The answer leaves when the connection's gate is open.
    fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Connection,
    ) -> impl Future<Output = Answer> + Send;

    /// The gate of a new connection.
    fn gate(&self) -> Gate;

    /// What else runs on the worker, for as long as it does.
    fn background(&self) -> impl Future<Output = ()> + Send + 'static;
}

/// What connections may take.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Most that are open.
    pub connections_max: usize,
    /// How long one may be idle between two requests.
    pub keep_alive: Duration,
    /// Whose connections are those of many.
    pub trusted_proxies: Vec<IpNet>,
}

/// Workers that serve. Dropping it leaves them running; see [`Self::drained`].
pub struct Server {
    workers: Vec<Worker>,
    connections: Arc<Connections>,
    stop: CancellationToken,
}

struct Worker {
    connections: mpsc::UnboundedSender<Accepted>,
    event_loop: Handle,
    thread: JoinHandle<()>,
}

struct Accepted {
    stream: std::net::TcpStream,
    peer: IpAddr,
    /// Gives the place back when the connection ends.
    admitted: Admitted,
}

impl Server {
    /// Starts one worker per handler.
    pub fn start<H: Handler>(
        handlers: impl IntoIterator<Item = H>,
        limits: ConnectionLimits,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let mut workers = Vec::new();
        for (index, handler) in handlers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, connections) = mpsc::unbounded_channel();
            let event_loop = runtime.handle().clone();
            let (stop, keep_alive) = (stop.clone(), limits.keep_alive);
            let work = move || work(index, handler, connections, keep_alive, stop);
            let thread = tasks::spawn_event_loop(format!("http-{index}"), runtime, work)?;
            workers.push(Worker { connections: sender, event_loop, thread });
        }
        let connections = Connections::public(limits.connections_max, limits.trusted_proxies);
        Ok(Self { workers, connections, stop })
    }

    /// Measures whether the workers have time to spare.
    #[must_use]
    pub fn strain(&self) -> Strain {
        Strain::new(self.workers.iter().map(|worker| &worker.event_loop))
    }

    /// Accepts until told to stop, dealing the connections out in turn. Those that find no place wait in the kernel's
    /// queue.
    pub async fn accept(&self, listener: TcpListener) {
        let mut shortage = Shortage::new("public");
        for worker in self.workers.iter().cycle() {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = self.accept_one(&listener, &mut shortage) => accepted,
            };
            // A worker ends only after `stop`.
            drop(worker.connections.send(accepted));
        }
    }

    /// Waits until every worker has answered its open requests, or given them up. Blocks for a few seconds at most.
    pub fn drained(self) {
        for Worker { connections, thread, .. } in self.workers {
            drop(connections);
            // It catches and reports its own panic.
            let _ = thread.join();
        }
    }

    async fn accept_one(&self, listener: &TcpListener, shortage: &mut Shortage) -> Accepted {
        loop {
            let (stream, peer) = accept(listener, &self.connections, shortage).await;
            let Some(admitted) = self.connections.admit(peer.ip()).await else {
                refuse(&stream);
                continue;
            };
            // What fails here, the other end did: it has left already.
            let ready = stream.set_nodelay(true);
            let ready = ready.and_then(|()| SockRef::from(&stream).set_tcp_user_timeout(Some(TAKEN_WITHIN)));
            if let Ok(stream) = ready.and_then(|()| stream.into_std()) {
                return Accepted { stream, peer: peer.ip(), admitted };
            }
        }
    }
}

/// The next connection, however long it takes until one can be accepted.
async fn accept(
    listener: &TcpListener,
    connections: &Connections,
    shortage: &mut Shortage,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                shortage.pause = PAUSE_AFTER_SHORTAGE;
                return accepted;
            }
            Err(error) if is_shortage(&error) => {
                // The descriptor of an idle connection is as good as any.
                connections.shed_idle();
                shortage.sit_out(&error).await;
            }
            // One connection's own: it was reset before it was accepted. (accept(2))
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
}

/// Whether no connection can be accepted at all, rather than this one.
fn is_shortage(error: &io::Error) -> bool {
    let short = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| short.contains(&errno))
}

/// Says no, where that can be said at once. The client may not see it: its request is not read.
fn refuse(stream: &TcpStream) {
    let _ = stream.try_write(OVERLOADED_ANSWER);
}

/// Accepting while the process is out of descriptors: ever longer pauses, and few words.
struct Shortage {
    listener: &'static str,
    pause: Duration,
    said: Option<Instant>,
    errors: Counter,
}

impl Shortage {
    fn new(listener: &'static str) -> Self {
        describe_counter!(
            "tally_http_accept_errors_total",
            Unit::Count,
            "Times that no connection could be accepted, for want of descriptors or memory."
        );
        let errors = counter!("tally_http_accept_errors_total", "listener" => listener);
        Self { listener, pause: PAUSE_AFTER_SHORTAGE, said: None, errors }
    }

    async fn sit_out(&mut self, error: &io::Error) {
        self.errors.increment(1);
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!(%error, listener = self.listener, "no connection can be accepted");
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_AFTER_SHORTAGE_MAX);
    }
}

async fn work<H: Handler>(
    index: usize,
    handler: H,
    mut connections: mpsc::UnboundedReceiver<Accepted>,
    keep_alive: Duration,
    stop: CancellationToken,
) {
    let open = TaskTracker::new();
    let ending = Arc::new(Ending::default());
    let background = tasks::spawn(format!("http-{index}-acknowledgements"), handler.background());
    loop {
        let connection = tokio::select! {
            () = stop.cancelled() => break,
            connection = connections.recv() => connection,
        };
        let Some(Accepted { stream, peer, admitted }) = connection else { break };
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let serving = Serving { stream, peer, admitted, keep_alive, ending: ending.clone() };
                let served = serving.run(handler.clone());
                drop(tasks::spawn_isolated("http-connection", open.track_future(served)));
            }
            Err(error) => tracing::warn!(%error, "a connection could not be served"),
        }
    }
    ending.begin();
    open.close();
    if timeout(DRAIN_WITHIN, open.wait()).await.is_err() {
        tracing::warn!(connections = open.len(), "connections were still busy and are cut");
    }
    background.abort();
}

/// Most connections of the operators' listener: a scraper, a load balancer, a person.
const OPS_CONNECTIONS_MAX: usize = 64;
/// How long one of them may be idle: longer than between two scrapes.
const OPS_KEEP_ALIVE: Duration = Duration::from_mins(2);

/// Serves the operators' listener until told to stop.
pub async fn serve_ops(listener: TcpListener, ops: Ops, stop: CancellationToken) {
    let connections = Connections::plain(OPS_CONNECTIONS_MAX);
    let mut shortage = Shortage::new("ops");
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept(&listener, &connections, &mut shortage) => accepted,
        };
        let Some(admitted) = connections.admit(peer.ip()).await else {
            refuse(&stream);
            continue;
        };
        let (ops, stop) = (ops.clone(), stop.clone());
        let served = async move {
            let service = service_fn(|request| {
                let answer = ops.handle(&request);
                async { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = protocol(OPS_KEEP_ALIVE).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // What goes wrong here, the scraper reports.
                _ = connection => {}
                () = admitted.told() => {}
                () = stop.cancelled() => {}
            }
        };
        drop(tasks::spawn_isolated("ops-connection", served));
    }
}
