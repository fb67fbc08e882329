//! The public listener: an accept loop that deals connections out to workers, one thread and one event loop each.
//!
//! A connection stays on its worker, so its hits join that worker's buffer of the log without meeting other threads,
//! and the worker wakes all of a group's waiters itself.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, ready},
    thread::JoinHandle,
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Answer, Connection, Ops,
    gated::gated,
    pause::{Pause, Refusals},
    strain::Strain,
};
use crate::{intake::Gate, tasks};

/// How long a client may take to send a request's head, and how long it may keep an idle connection.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Largest head: hyper's buffer for it. A larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most header lines of a request; more are answered with 431.
const HEADERS_MAX: usize = 64;
/// How long a client may leave answers untaken before its connection is cut: one that reads nothing must not keep its
/// place for ever.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How long open requests may take to end when the daemon does.
const DRAIN_WITHIN: Duration = Duration::from_secs(3);
/// How long accepting pauses when the process is out of file descriptors.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

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

/// Workers that serve. Dropping it leaves them running; see [`Self::drained`].
pub struct Server {
    workers: Vec<Worker>,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
}

struct Worker {
    connections: mpsc::UnboundedSender<Accepted>,
    event_loop: Handle,
    thread: JoinHandle<()>,
}

struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    /// Gives the place back when the connection ends.
    place: OwnedSemaphorePermit,
}

impl Server {
    /// Starts one worker per handler. At most `connections_max` connections are open; more wait in the kernel's queue.
    pub fn start<H: Handler>(
        handlers: impl IntoIterator<Item = H>,
        connections_max: usize,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let mut workers = Vec::new();
        for (index, handler) in handlers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (sender, connections) = mpsc::unbounded_channel();
            let event_loop = runtime.handle().clone();
            let stop = stop.clone();
            let work = move || work(index, handler, connections, stop);
            let thread = tasks::spawn_event_loop(format!("http-{index}"), runtime, work)?;
            workers.push(Worker { connections: sender, event_loop, thread });
        }
        Ok(Self { workers, connections: Arc::new(Semaphore::new(connections_max)), stop })
    }

    /// Measures whether the workers have time to spare.
    #[must_use]
    pub fn strain(&self) -> Strain {
        Strain::new(self.workers.iter().map(|worker| &worker.event_loop))
    }

    /// Accepts until told to stop, dealing the connections out in turn.
    pub async fn accept(&self, listener: TcpListener) {
        let open = metrics::gauge!("tally_http_connections");
        let places = self.connections.available_permits();
        for worker in self.workers.iter().cycle() {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = self.accept_one(&listener) => accepted,
            };
            #[expect(clippy::cast_precision_loss, reason = "a gauge of connections")]
            open.set((places - self.connections.available_permits()) as f64);
            match accepted {
                // A worker ends only after `stop`.
                Ok(connection) => drop(worker.connections.send(connection)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
                }
            }
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

    async fn accept_one(&self, listener: &TcpListener) -> io::Result<Accepted> {
        let place = self.connections.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(TAKEN_WITHIN))?;
        Ok(Accepted { stream: stream.into_std()?, peer, place })
    }
}

async fn work<H: Handler>(
    index: usize,
    handler: H,
    mut connections: mpsc::UnboundedReceiver<Accepted>,
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
        let Some(Accepted { stream, peer, place }) = connection else { break };
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let served = serve(handler.clone(), stream, peer, place, ending.clone());
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

/// Tells the connections of a worker to end. Asked at every turn of each, so it is one load: a token's own state is
/// behind a lock.
#[derive(Default)]
struct Ending {
    begun: AtomicBool,
    token: CancellationToken,
}

impl Ending {
    fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }
}

async fn serve<H: Handler>(
    handler: H,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    ending: Arc<Ending>,
) {
    let connection = Arc::new(Connection { peer: peer.ip(), gate: handler.gate() });
    let (to, refusals) = (connection.clone(), Arc::new(Refusals::default()));
    let service = service_fn(|request| async {
        let answer = handler.handle(request, &to).await;
        refusals.note(&answer);
        Ok::<_, std::convert::Infallible>(answer)
    });
    let (gated, outlet) = gated(TokioIo::new(stream), connection, Pause::new(refusals.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true)
        .serve_connection(gated, service);
    let mut connection = pin!(connection);
    // Polled once, so that the task is woken; a task's waker stays the same.
    let mut woken = pin!(ending.token.cancelled());
    let (mut waits, mut told, mut ended) = (false, false, None);
    let served = poll_fn(|context| {
        if !waits {
            waits = true;
            let _ = woken.as_mut().poll(context);
        }
        if !told && ending.begun.load(Ordering::Acquire) {
            connection.as_mut().graceful_shutdown();
            outlet.read_on();
            told = true;
        }
        if ended.is_none()
            && let Poll::Ready(end) = connection.as_mut().poll(context)
        {
            ended = Some(end.map_err(io::Error::other));
        }
        // The answers of this turn, in one write; also those that came before an error.
        ready!(outlet.poll_leave(context))?;
        ended.take().map_or(Poll::Pending, Poll::Ready)
    });
    if let Err(error) = served.await {
        // The client's doing, nearly always: it left, or it sent what is not HTTP.
        tracing::debug!(%error, %peer, "a connection ended early");
    }
    drop(place);
}

/// Most connections of the operators' listener: a scraper, a load balancer, a person.
const OPS_CONNECTIONS_MAX: usize = 64;

/// Serves the operators' listener until told to stop.
pub async fn serve_ops(listener: TcpListener, ops: Ops, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(OPS_CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
            continue;
        };
        let (ops, stop) = (ops.clone(), stop.clone());
        let served = async move {
            let service = service_fn(|request| {
                let answer = ops.handle(&request);
                async { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_WITHIN)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // What goes wrong here, the scraper reports.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        };
        drop(tasks::spawn_isolated("ops-connection", served));
    }
}
