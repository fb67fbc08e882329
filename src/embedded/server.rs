//! The HTTP face of the engine: accepts, authenticates, hands requests to workers and their answers back.

use std::convert::Infallible;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::credentials::{Credentials, READER, WRITER};
use super::ffi::Params;
use super::reply::{Answer, AnswerBody, Piece, Reply, refusal};
use super::request::{self, Request};
use super::settings::{MARKER, User, quote};
use super::worker::{self, Job, Shared};
use crate::tasks;

/// Requests at once; each holds a thread, running or waiting for its turn.
pub(crate) const REQUESTS_MAX: usize = 64;
/// Pieces of a body on their way to its worker.
const BODY_PIECES: usize = 8;
/// How much of a body is taken in after its request was refused.
const DISCARD_BYTES_MAX: usize = 256 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 1024;
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
        requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
        next: AtomicU64::new(0),
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut expire = tokio::time::interval(EXPIRE_EVERY);
    loop {
        tokio::select! {
            accepted = accept(&listener, &connections) => match accepted {
                Ok((stream, permit)) => {
                    let _ = stream.set_nodelay(true);
                    let face = Arc::clone(&face);
                    let service = service_fn(move |request| handle(Arc::clone(&face), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(Some(Duration::from_hours(1)))
                        .max_buf_size(1 << 20)
                        .serve_connection(TokioIo::new(stream), service);
                    // Errors of a connection concern its client alone.
                    drop(tasks::spawn_isolated("engine-connection", async move {
                        drop(connection.await);
                        drop(permit);
                    }));
                }
                // Out of descriptors or the like: others may be closed meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            _ = expire.tick() => shared.sessions.expire(Instant::now()),
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    let all = u32::try_from(REQUESTS_MAX).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(grace, face.requests.acquire_many(all)).await;
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

struct Face {
    shared: Arc<Shared>,
    credentials: Credentials,
    requests: Arc<Semaphore>,
    next: AtomicU64,
}

type AnswerStream = BoxBody<Bytes, io::Error>;

async fn handle(
    face: Arc<Face>,
    request: HttpRequest<Incoming>,
) -> Result<Response<AnswerStream>, Infallible> {
    let (head, body) = request.into_parts();
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
    let Ok(permit) = Arc::clone(&face.requests).try_acquire_owned() else {
        let message = "Too many simultaneous queries";
        return Ok(respond(refusal(202, "TOO_MANY_SIMULTANEOUS_QUERIES", message), None));
    };
    let (answer, cancel) = run(&face, user, request, body, permit).await;
    Ok(respond(answer, Some(cancel)))
}

/// Starts a worker, feeds it the body, and waits for the head of its answer.
async fn run(
    face: &Arc<Face>,
    user: User,
    request: Request,
    mut body: Incoming,
    permit: OwnedSemaphorePermit,
) -> (Answer, Cancel) {
    let number = face.next.fetch_add(1, Ordering::Relaxed);
    let marker = format!("tally-{}-{number}", std::process::id());
    let query_id = request.query_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let done = Arc::new(AtomicBool::new(false));
    let cancel = Cancel { face: Arc::clone(face), marker: marker.clone(), done: Arc::clone(&done) };
    let (pieces, receiver) = mpsc::channel(BODY_PIECES);
    let (head, mut answer) = oneshot::channel();
    let timezone = face.shared.timezone.clone();
    let reply = Reply::new(head, query_id.clone(), timezone, request.answer_encoding, request.wait_end);
    let body_reader = Box::new(BodyReader { pieces: receiver, current: Bytes::new(), ended: false });
    let job = Job { user, request, query_id, marker, done, body: body_reader, reply };
    let shared = Arc::clone(&face.shared);
    let work = tasks::blocking(move || {
        let _permit = permit;
        worker::run(&shared, job);
    });
    drop(tasks::spawn_isolated("engine-request", work));

    // Owns the channel's end, so that a body that breaks off closes it.
    let feed = async move {
        let mut wanted = true;
        let mut discarded = 0;
        while let Some(frame) = body.frame().await {
            // A body that breaks off ends without `Piece::End`.
            let Ok(frame) = frame else { return };
            let data = frame.into_data().unwrap_or_default();
            if wanted {
                wanted = pieces.send(Piece::Data(data)).await.is_ok();
            } else {
                discarded += data.len();
                if discarded > DISCARD_BYTES_MAX {
                    return;
                }
            }
        }
        let _ = pieces.send(Piece::End).await;
    };
    tokio::pin!(feed);
    let answer = tokio::select! {
        () = &mut feed => answer.await,
        answer = &mut answer => {
            // A client that is refused while it sends its rows mostly looks for the answer after the last one.
            let _ = tokio::time::timeout(DISCARD_TIMEOUT, feed).await;
            answer
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

/// Reads a body from a worker's thread.
struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(piece)) => self.current = piece,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the client went away"));
                }
            }
        }
        let count = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..count]);
        Ok(count)
    }
}

/// Pieces of an answer; holds the query's [`Cancel`].
struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    _cancel: Option<Cancel>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.receiver.poll_recv(context).map(|piece| match piece {
            Some(Piece::Data(piece)) => Some(Ok(Frame::data(piece))),
            Some(Piece::End) => None,
            // The worker is gone: the client must not take what it has for the whole.
            None => Some(Err(io::Error::other("the result broke off"))),
        })
    }
}

fn respond(answer: Answer, cancel: Option<Cancel>) -> Response<AnswerStream> {
    let body = match answer.body {
        AnswerBody::Whole(bytes) => whole(bytes),
        AnswerBody::Pieces(receiver) => BodyExt::boxed(Pieces { receiver, _cancel: cancel }),
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
