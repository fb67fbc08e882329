//! One public connection, from its first byte to its end.
//!
//! What must hold:
//! - Its answers leave through its gate, all of a turn in one write: see [`super::gated`].
//! - An idle one ends after the keep-alive time, and one whose request does not come whole earlier: a head has its time,
//!   and so has a body ([`super::body`]).
//! - Told to make room, it ends at once if it is idle, else after the answer that it owes. What was acknowledged is
//!   always said first.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    body::{Body, Frame, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    AnswerBody, BrokenOff, Connection,
    connections::{Admitted, Leave, Place, Request},
    gated::gated,
    pause::{Pause, Refusals},
    server::Handler,
};

/// How long a client may take to send a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(20);
/// Largest head: hyper's buffer for it. A larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most header lines of a request; more are answered with 431.
const HEADERS_MAX: usize = 64;
/// What a client gets whose connection finds no room, or has to make room.
pub(super) const OVERLOADED_ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 122\r\n\r\n\
    {\"success\":false,\"error\":{\"code\":\"overloaded\",\"message\":\"There are too many connections; nothing was kept.\",\"field\":null}}";

/// HTTP/1 as both listeners speak it. `keep_alive` is how long a connection may be idle.
pub(super) fn protocol(keep_alive: Duration) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(keep_alive)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    protocol
}

/// Tells the connections of a worker to end. Asked at every turn of each, so it is one load: a token's own state is
/// behind a lock.
#[derive(Default)]
pub(super) struct Ending {
    begun: AtomicBool,
    token: CancellationToken,
}

impl Ending {
    pub(super) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.token.cancel();
    }
}

/// A connection to serve.
pub(super) struct Serving {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) admitted: Admitted,
    pub(super) keep_alive: Duration,
    pub(super) ending: Arc<Ending>,
}

impl Serving {
    /// Serves it until it ends.
    pub(super) async fn run<H: Handler>(self, handler: H) {
        let Self { stream, peer, admitted, keep_alive, ending } = self;
        let place = &admitted.place;
        let connection = Arc::new(Connection { peer, gate: handler.gate(), place: place.clone() });
        let (to, refusals) = (connection.clone(), Arc::new(Refusals::default()));
        let service = service_fn(|request| {
            let under_way = place.begin();
            let (handler, to, refusals) = (&handler, &to, &refusals);
            async move {
                let answer = handler.handle(request, to).await;
                refusals.note(&answer);
                Ok::<_, Infallible>(answer.map(|body| UnderWay { body, _request: under_way }))
            }
        });
        let (gated, outlet) = gated(TokioIo::new(stream), connection, Pause::new(refusals.clone()));
        let mut connection = pin!(protocol(keep_alive).half_close(true).serve_connection(gated, service));
        // Polled once, so that the task is woken; a task's waker stays the same.
        let mut woken = pin!(ending.token.cancelled());
        let mut head = HeadTimer::default();
        let (mut waits, mut told, mut ended) = (false, false, None);
        let served = poll_fn(|context| {
            if !waits {
                waits = true;
                let _ = woken.as_mut().poll(context);
                place.wake_when_told(context);
            }
            let leave = place.leave();
            let is_last = ending.begun.load(Ordering::Acquire);
            // One that has to make room ends below if it is idle; else its answer says that it is the last.
            if !told && (is_last || leave != Leave::No && !place.is_idle()) {
                connection.as_mut().graceful_shutdown();
                told = true;
            }
            if is_last {
                outlet.read_on();
            }
            if ended.is_none()
                && let Poll::Ready(end) = connection.as_mut().poll(context)
            {
                ended = Some(end.map_err(io::Error::other));
            }
            // The answers of this turn, in one write; also those that came before an error.
            let left = outlet.poll_leave(context)?;
            place.end_turn(left.is_ready());
            if leave == Leave::WhenUnfinished && ended.is_none() && place.is_unfinished() {
                if left.is_ready() {
                    outlet.end_with(OVERLOADED_ANSWER);
                    ready!(outlet.poll_leave(context))?;
                }
                return Poll::Ready(Ok(()));
            }
            ready!(left);
            if let Some(end) = ended.take() {
                return Poll::Ready(end);
            }
            let overdue = head.poll_overdue(place, context);
            // A request that has come all the same is answered first.
            if place.is_idle() && (overdue || leave != Leave::No && !outlet.has_unread()) {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        });
        if let Err(error) = served.await {
            // The client's doing, nearly always: it left, or it sent what is not HTTP.
            tracing::debug!(%error, %peer, "a connection ended early");
        }
        if refusals.ends_unread() {
            outlet.end_and_drain().await;
        }
    }
}

impl Admitted {
    /// Waits until the connection is told to make room.
    pub(super) async fn told(&self) {
        poll_fn(|context| {
            self.place.wake_when_told(context);
            if self.place.leave() == Leave::No { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

/// Runs while a part of a request's head is there. Nearly all heads come whole, and set no timer.
#[derive(Default)]
struct HeadTimer(Option<Pin<Box<Sleep>>>);

impl HeadTimer {
    fn poll_overdue(&mut self, place: &Place, context: &mut Context<'_>) -> bool {
        if !place.is_head_begun() {
            self.0 = None;
            return false;
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep(HEAD_WITHIN)));
        timer.as_mut().poll(context).is_ready()
    }
}

/// An answer's body, with the request that it answers: that is over when the body is written.
struct UnderWay {
    body: AnswerBody,
    _request: Request,
}

impl Body for UnderWay {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_full_house_is_whole() {
        let text = std::str::from_utf8(OVERLOADED_ANSWER).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let length = format!("content-length: {}", body.len());
        assert!(head.ends_with(&length), "the body has {} bytes", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
