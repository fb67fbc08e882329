//! A connection whose answers leave only through its gate, and all of a turn in one write.
//!
//! hyper's own `pipeline_flush` would hold answers back while anything is left in its read buffer: a line break after a
//! body, or the first bytes of a request that never comes, would keep an acknowledgement from its client. So hyper
//! flushes after every answer, into memory, and what has come together leaves when the connection's turn ends: see
//! [`Outlet`].

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{net::TcpStream, time::timeout};

use super::{Connection, pause::Pause};

/// What a client gets instead of answers whose records were lost: the disk is full or broken. The connection ends
/// after it, so requests pipelined behind the first count as unanswered, as RFC 9112, 9.3.2 has it.
const LOST_ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\nretry-after: 30\r\nconnection: close\r\ncontent-length: 123\r\n\r\n\
    {\"success\":false,\"error\":{\"code\":\"unavailable\",\"message\":\"The hit could not be made durable; send it again.\",\"field\":null}}";

/// Answers in memory past which hyper has to wait: a client that reads nothing is not worth more.
const OUT_BYTES_MAX: usize = 64 << 10;
/// How much of what a client sends after the last answer is read, at most, and for how long.
const DRAIN_BYTES_MAX: usize = 1 << 20;
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// So much at a time.
const DRAIN_BYTES: usize = 4 << 10;
/// A buffer that grew past this is given back once it is empty.
const OUT_BYTES_KEPT: usize = 16 << 10;

/// A socket behind its gate: hyper's side, and the side that lets answers out.
pub(super) fn gated<I>(io: I, connection: Arc<Connection>, pause: Pause) -> (Gated<I>, Outlet<I>) {
    let socket =
        Socket { io, connection, pause, out: Vec::new(), passed: 0, written: 0, lost: false, stalled: false };
    let shared = Arc::new(Mutex::new(socket));
    (Gated(shared.clone()), Outlet(shared))
}

/// hyper's side. What it writes stays in memory.
pub(super) struct Gated<I>(Arc<Mutex<Socket<I>>>);

/// The side that lets answers out. Whoever polls hyper's connection polls this after it.
pub(super) struct Outlet<I>(Arc<Mutex<Socket<I>>>);

struct Socket<I> {
    io: I,
    connection: Arc<Connection>,
    /// Lasts while a client is held to what it was told.
    pause: Pause,
    /// Whole answers, but for the last while hyper is writing it.
    out: Vec<u8>,
    /// Bytes of `out` that the gate has let pass: always whole answers, or a part of a long one.
    passed: usize,
    /// Bytes of those that are with the kernel.
    written: usize,
    /// `out` is the last that is said, such as [`LOST_ANSWER`].
    lost: bool,
    /// The kernel took no more when it was last asked.
    stalled: bool,
}

impl<I: Write + Unpin> Outlet<I> {
    /// Ready when all answers are out. After an error the connection is of no more use.
    pub(super) fn poll_leave(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_leave(context)
    }

    /// Holds the client to nothing from now on.
    pub(super) fn read_on(&self) {
        self.0.lock().pause.end();
    }

    /// Says this in place of the answer that is not there yet. The connection is of no use after it.
    pub(super) fn end_with(&self, answer: &[u8]) {
        self.0.lock().end_with(answer);
    }
}

impl Outlet<TokioIo<TcpStream>> {
    /// Whether bytes have come that were not read yet.
    pub(super) fn has_unread(&self) -> bool {
        let socket = self.0.lock();
        SockRef::from(socket.io.inner()).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
    }
}

impl<I: Read + Write + Unpin> Outlet<I> {
    /// Ends the connection and reads on for a while, into nothing: were anything unread at the end, the kernel would
    /// cut the connection instead of ending it, and the client might never see its last answer. (RFC 9112, 9.6)
    pub(super) async fn end_and_drain(&self) {
        let mut read_bytes = 0;
        let drained = poll_fn(|context| {
            let mut socket = self.0.lock();
            if ready!(Pin::new(&mut socket.io).poll_shutdown(context)).is_err() {
                return Poll::Ready(());
            }
            let mut scratch = [MaybeUninit::uninit(); DRAIN_BYTES];
            while read_bytes < DRAIN_BYTES_MAX {
                let mut buffer = ReadBuf::uninit(&mut scratch);
                match ready!(Pin::new(&mut socket.io).poll_read(context, buffer.unfilled())) {
                    Ok(()) if !buffer.filled().is_empty() => read_bytes += buffer.filled().len(),
                    Ok(()) | Err(_) => return Poll::Ready(()),
                }
            }
            Poll::Ready(())
        });
        let _ = timeout(DRAIN_WITHIN, drained).await;
    }
}

impl<I: Write + Unpin> Socket<I> {
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.written < self.passed {
                let rest = &self.out[self.written..self.passed];
                match Pin::new(&mut self.io).poll_write(context, rest)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => self.written += count,
                    Poll::Pending => {
                        self.stalled = true;
                        self.connection.place.stall(true);
                        return Poll::Pending;
                    }
                }
                if self.stalled {
                    self.stalled = false;
                    self.connection.place.stall(false);
                }
            }
            if self.lost {
                ready!(Pin::new(&mut self.io).poll_flush(context))?;
                let what = "the records of this connection were lost, or it had to make room";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, what)));
            }
            if self.passed == self.out.len() {
                self.out.clear();
                self.out.shrink_to(OUT_BYTES_KEPT);
                (self.passed, self.written) = (0, 0);
                return Pin::new(&mut self.io).poll_flush(context);
            }
            if ready!(self.connection.gate.poll_open(context)).is_ok() {
                self.passed = self.out.len();
            } else {
                // What has passed is out; in place of all the others, this. But a record of the run may have been kept:
                // then the connection just ends, and what became of its hits is unknown, which is the truth.
                let answer = if self.connection.gate.keeps_unanswered() { &[] } else { LOST_ANSWER };
                self.end_with(answer);
            }
        }
    }

    fn end_with(&mut self, answer: &[u8]) {
        answer.clone_into(&mut self.out);
        (self.passed, self.written, self.lost) = (answer.len(), 0, true);
    }
}

impl<I: Read + Unpin> Read for Gated<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut socket = self.0.lock();
        if socket.pause.lasts(context) {
            return Poll::Pending;
        }
        let read = Pin::new(&mut socket.io).poll_read(context, buffer);
        if read.is_ready() {
            socket.connection.place.hear();
        }
        read
    }
}

impl<I: Write + Unpin> Write for Gated<I> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = self.0.lock();
        // A body that is longer than this comes as fast as its client takes it. Its first part waits at the gate as any
        // answer does; nothing else is answered before its end, so the gate stays open for the others.
        if socket.out.len() >= OUT_BYTES_MAX {
            ready!(socket.poll_leave(context))?;
        }
        // What follows a loss is never said.
        if !socket.lost {
            socket.out.extend_from_slice(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// hyper flushes when an answer is whole.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.lock();
        if socket.out.len() < OUT_BYTES_MAX { Poll::Ready(Ok(())) } else { socket.poll_leave(context) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.lock();
        ready!(socket.poll_leave(context))?;
        Pin::new(&mut socket.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_loss_is_whole() {
        let text = std::str::from_utf8(LOST_ANSWER).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.ends_with(&format!("content-length: {}", body.len())),
            "the body has {} bytes",
            body.len()
        );
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
