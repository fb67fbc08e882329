//! A connection whose answers leave only through its gate.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};

use super::Connection;

/// What a client gets instead of answers whose records were lost: the disk is full or broken. The connection ends
/// after it, so requests pipelined behind the first count as unanswered, as RFC 9112, 9.3.2 has it.
const LOST_ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\nretry-after: 30\r\nconnection: close\r\ncontent-length: 123\r\n\r\n\
    {\"success\":false,\"error\":{\"code\":\"unavailable\",\"message\":\"The hit could not be made durable; send it again.\",\"field\":null}}";

/// Passes bytes on while the gate is open, and waits while it is not.
pub(super) struct Gated<I> {
    io: I,
    connection: Arc<Connection>,
    /// Nothing of an answer has been written since the last flush: another one can take its place.
    between_answers: bool,
    /// Bytes of [`LOST_ANSWER`] written, once there is a loss.
    lost_written: Option<usize>,
}

impl<I> Gated<I> {
    pub(super) fn new(io: I, connection: Arc<Connection>) -> Self {
        Self { io, connection, between_answers: true, lost_written: None }
    }
}

impl<I: Read + Unpin> Read for Gated<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: Write + Unpin> Gated<I> {
    /// Ready when bytes may leave.
    fn poll_gate(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lost_written.is_none() {
            match ready!(self.connection.gate.poll_open(context)) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(_) => {
                    self.lost_written = Some(0);
                    // The first of the pipelined requests may have been kept: then the connection just ends, and what
                    // became of them is unknown, which is the truth.
                    self.between_answers &= !self.connection.gate.keeps_unanswered();
                }
            }
        }
        ready!(self.poll_lost_answer(context))?;
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the records of this connection were lost",
        )))
    }

    fn poll_lost_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.between_answers {
            let written = self.lost_written.unwrap_or_default();
            let rest = &LOST_ANSWER[written..];
            if rest.is_empty() {
                self.between_answers = false;
                return Pin::new(&mut self.io).poll_flush(context);
            }
            match ready!(Pin::new(&mut self.io).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.lost_written = Some(written + count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: Write + Unpin> Write for Gated<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_gate(context))?;
        self.between_answers = false;
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_gate(context))?;
        self.between_answers = false;
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        // hyper flushes when it has nothing left to write.
        self.between_answers = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
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
