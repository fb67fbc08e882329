//! The HTTP face of the engine: accepts, authenticates, hands requests to workers and their answers back.
//!
//! A request gets a place only when its statement is there, and each workload has places of its own (`slots`), so that
//! neither strangers nor dashboards nor reports keep tally from inserting.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::body::{self, BodyReader, Limits, NotTaken, Taken};
use super::connections::{Connection, Connections};
use super::credentials::{Credentials, READER, WRITER};
use super::ffi::Params;
use super::reply::{Answer, AnswerBody, Piece, Reply, refusal};
use super::request::{self, Request};
use super::settings::{MARKER, User, quote};
use super::slots::Workload;
use super::worker::{self, Job, STATEMENT_BYTES_MAX, Shared};
use crate::tasks;

/// For a head, and for the pause before the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const BODY: Limits = Limits {
    statement: Duration::from_secs(30),
    idle: Duration::from_secs(30),
    bytes_max: STATEMENT_BYTES_MAX,
    whole_max: usize::MAX,
};
/// The writer's rows may follow their statement in one body: a long one is run while it arrives.
const WRITER_BODY: Limits = Limits { bytes_max: usize::MAX, whole_max: 1 << 20, ..BODY };
/// What the statements that arrive may hold, of each user.
const STATEMENTS_BYTES_MAX: usize = 64 << 20;
/// A result that the reader does not take keeps a slot; tally's own are bounded by their clients.
const READER_STALL_MAX: Duration = Duration::from_secs(30);
/// What a broken-off answer's last bytes get to leave in.
const FLUSH_TIME: Duration = Duration::from_millis(100);
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(100);
const EXPIRE_EVERY: Duration = Duration::from_secs(10);

/// Serves until `stop` changes, then lets running requests end for `grace`.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    credentials: Credentials,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let face = Arc::new(Face {
        shared: Arc::clone(&shared),
        credentials,
        writer_statements: Arc::new(Semaphore::new(STATEMENTS_BYTES_MAX)),
        reader_statements: Arc::new(Semaphore::new(STATEMENTS_BYTES_MAX)),
        next: AtomicU64::new(0),
    });
    let connections = Arc::new(Connections::default());
    let mut expire = tokio::time::interval(EXPIRE_EVERY);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = Connections::accept(&connections);
                    let served = serve_one(Arc::clone(&face), stream, connection);
                    drop(tasks::spawn_isolated("engine-connection", served));
                }
                // Out of descriptors or the like: others may be closed meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = expire.tick() => shared.sessions.expire(Instant::now()),
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(grace, shared.slots.drain()).await;
}

/// Serves one connection to its end, or until it has to make room.
async fn serve_one(face: Arc<Face>, stream: TcpStream, connection: Connection) {
    let _ = stream.set_nodelay(true);
    let connection = Arc::new(connection);
    let of_requests = Arc::clone(&connection);
    let service = service_fn(move |request| handle(Arc::clone(&face), Arc::clone(&of_requests), request));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Some(HEAD_TIMEOUT))
        .max_buf_size(1 << 20)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Errors of a connection concern its client alone.
        ended = served => drop(ended),
        () = connection.shed() => {}
    }
}

struct Face {
    shared: Arc<Shared>,
    credentials: Credentials,
    writer_statements: Arc<Semaphore>,
    reader_statements: Arc<Semaphore>,
    next: AtomicU64,
}

type AnswerStream = BoxBody<Bytes, io::Error>;

async fn handle(
    face: Arc<Face>,
    connection: Arc<Connection>,
    request: HttpRequest<Incoming>,
) -> Result<Response<AnswerStream>, Infallible> {
    let (head, mut body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET | &Method::HEAD, "/ping" | "/replicas_status") => {
            return Ok(plain(StatusCode::OK, "Ok.\n"));
        }
        (&Method::GET, "/") if head.uri.query().is_none() => return Ok(plain(StatusCode::OK, "Ok.\n")),
        (&Method::GET | &Method::POST, "/") => {}
        (_, "/") => return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n")),
        _ => return Ok(plain(StatusCode::NOT_FOUND, "There is no such path\n")),
    }
    let Some(user) = face.authenticate(&head) else {
        let message = "Authentication failed: password is incorrect, or there is no user with such name";
        return Ok(respond(refusal(516, "AUTHENTICATION_FAILED", message), None));
    };
    let request = match Request::parse(&head) {
        Ok(request) => request,
        Err(bad) => return Ok(respond(refusal(36, "BAD_ARGUMENTS", &bad.to_string()), None)),
    };
    let workload = Workload::of(user, &head, &request);
    if !connection.belongs_to(user, workload) {
        return Ok(closing(too_many("Too many connections")));
    }
    let taken = match (workload, user) {
        // Rows are not statements, and too many to hold.
        (Workload::Insert, _) => Ok(Taken::nothing()),
        (_, User::Writer) => body::take(&mut body, &face.writer_statements, WRITER_BODY).await,
        (_, User::Reader) => body::take(&mut body, &face.reader_statements, BODY).await,
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(NotTaken::TooLong) => {
            body::discard(&mut body).await;
            return Ok(closing(refusal(307, "TOO_MANY_BYTES", "The statement is too long")));
        }
        Err(NotTaken::NoRoom) => return Ok(closing(too_many("Too many statements are arriving"))),
        Err(NotTaken::Slow | NotTaken::Broken) => {
            let message = "The statement did not arrive in time";
            return Ok(closing(refusal(159, "TIMEOUT_EXCEEDED", message)));
        }
    };
    // Only now: what has not arrived keeps no place from what has.
    let Some(permit) = face.shared.slots.of(workload).admit() else {
        return Ok(respond(too_many("Too many simultaneous queries"), None));
    };
    let work = Work { user, workload, request, taken, permit };
    let (answer, cancel) = run(&face, work, body).await;
    Ok(respond(answer, Some(cancel)))
}

fn too_many(message: &str) -> Answer {
    refusal(202, "TOO_MANY_SIMULTANEOUS_QUERIES", message)
}

/// A request that was let in.
struct Work {
    user: User,
    workload: Workload,
    request: Request,
    taken: Taken,
    permit: OwnedSemaphorePermit,
}

/// Starts a worker, feeds it what is left of the body, and waits for the head of its answer.
async fn run(face: &Arc<Face>, work: Work, body: Incoming) -> (Answer, Cancel) {
    let Work { user, workload, request, taken, permit } = work;
    let number = face.next.fetch_add(1, Ordering::Relaxed);
    let marker = format!("tally-{}-{number}", std::process::id());
    let query_id = request.query_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let done = Arc::new(AtomicBool::new(false));
    let cancel = Cancel { face: Arc::clone(face), marker: marker.clone(), done: Arc::clone(&done) };
    let (head, mut answer) = oneshot::channel();
    let timezone = face.shared.timezone.clone();
    let mut reply = Reply::new(head, query_id.clone(), timezone, request.answer_encoding, request.wait_end);
    if user == User::Reader {
        reply.set_stall_max(READER_STALL_MAX);
    }
    let (reader, feed) = BodyReader::new(taken, BODY);
    let job = Job { user, workload, request, query_id, marker, done, body: Box::new(reader), reply };
    let shared = Arc::clone(&face.shared);
    let work = tasks::blocking(move || {
        let _permit = permit;
        worker::run(&shared, job);
    });
    drop(tasks::spawn_isolated("engine-request", work));

    let answer = match feed {
        None => answer.await,
        Some(feed) => {
            let feeding = feed.run(body);
            tokio::pin!(feeding);
            tokio::select! {
                () = &mut feeding => answer.await,
                answer = &mut answer => {
                    // Refused while it sends its rows: it looks for the answer after the last one.
                    let _ = tokio::time::timeout(body::DISCARD_TIMEOUT, feeding).await;
                    answer
                }
            }
        }
    };
    (answer.unwrap_or_else(|_| refusal(210, "NETWORK_ERROR", "The query ended without an answer")), cancel)
}

impl Face {
    fn authenticate(&self, head: &hyper::http::request::Parts) -> Option<User> {
        let claim = request::claim(&head.headers, head.uri.query().unwrap_or_default());
        let is = |password: &str| bool::from(claim.password.as_bytes().ct_eq(password.as_bytes()));
        match claim.user.as_str() {
            WRITER if is(&self.credentials.writer_password) => Some(User::Writer),
            READER if is(&self.credentials.reader_password) => Some(User::Reader),
            _ => None,
        }
    }
}

/// Kills the query if it is dropped while the query runs: that is what hyper does when the client goes away.
struct Cancel {
    face: Arc<Face>,
    marker: String,
    done: Arc<AtomicBool>,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if self.done.load(Ordering::Acquire) {
            return;
        }
        let (face, marker, done) = (Arc::clone(&self.face), self.marker.clone(), Arc::clone(&self.done));
        let killed = async move {
            // Until it is gone: a query that has not started yet can't be found yet.
            while !done.load(Ordering::Acquire) {
                let (face, marker) = (Arc::clone(&face), marker.clone());
                tasks::blocking(move || kill(&face.shared, &marker)).await;
                tokio::time::sleep(KILL_AGAIN_AFTER).await;
            }
        };
        drop(tasks::spawn_isolated("engine-kill", killed));
    }
}

fn kill(shared: &Shared, marker: &str) {
    let sql = format!("KILL QUERY WHERE Settings['{MARKER}'] = {} ASYNC", quote(marker));
    if let Ok(mut connection) = shared.engine.connect() {
        // Nothing to kill is no error, and the caller tries again as long as it has to.
        let _ = connection.query(sql.as_bytes(), "Null", &Params::default());
    }
}

/// Pieces of an answer; holds the query's [`Cancel`].
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    /// Runs once the answer broke off.
    flushing: Option<Pin<Box<tokio::time::Sleep>>>,
    _cancel: Option<Cancel>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.flushing.is_none() {
            match self.receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Piece::Data(piece))) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Poll::Ready(Some(Piece::End)) => return Poll::Ready(None),
                Poll::Ready(None) => {}
            }
        }
        // The worker is gone: the client must not take what it has for the whole, so the body gets no end, as from a
        // ClickHouse server. An error drops what the connection has not written yet; an exception's text is part of it.
        let flushing = self.flushing.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH_TIME)));
        flushing.as_mut().poll(context).map(|()| Some(Err(io::Error::other("the result broke off"))))
    }
}

/// The last answer of a connection.
fn closing(answer: Answer) -> Response<AnswerStream> {
    let mut response = respond(answer, None);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn respond(answer: Answer, cancel: Option<Cancel>) -> Response<AnswerStream> {
    let body = match answer.body {
        AnswerBody::Whole(bytes) => whole(bytes),
        AnswerBody::Pieces(receiver) => BodyExt::boxed(Pieces { receiver, flushing: None, _cancel: cancel }),
    };
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<AnswerStream> {
    let mut response = Response::new(whole(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

fn whole(bytes: Bytes) -> AnswerStream {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
