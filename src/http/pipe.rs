//! A pipe from whoever makes a long answer to the connection that it leaves by: bounded in bytes, and either complete or
//! broken, never just over.
//!
//! What must hold:
//! - The reader ends cleanly only if the writer said that everything is in. Everything else, its being dropped too, is an
//!   error to the reader, and hyper then cuts the connection without the end of the answer.
//! - A reader that is gone is seen at once; one that takes nothing is given up by the writer, and what waits for it goes.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What hyper gets at a time: it copies it once more.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// The answer ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct BrokenOff;

/// The reader is gone: nobody wants the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads the answer any more")]
pub struct Gone;

/// The side that is written to. Dropped without [`Self::complete`], it breaks the answer off.
pub struct PipeWriter(Arc<Shared>);

/// The side that hyper reads.
pub struct PipeReader(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Something was taken, or the reader is gone.
    taken: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    complete: bool,
    writer_gone: bool,
    reader_gone: bool,
    reader: Option<Waker>,
}

/// A new pipe.
#[must_use]
pub fn pipe() -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared { state: Mutex::default(), taken: Notify::new() });
    (PipeWriter(shared.clone()), PipeReader(shared))
}

impl PipeWriter {
    /// Puts pieces in, however much waits already: see [`Self::drained`].
    pub fn put(&self, pieces: Vec<Bytes>) -> Result<(), Gone> {
        let waker = {
            let mut state = self.0.state.lock();
            if state.reader_gone {
                return Err(Gone);
            }
            for piece in pieces {
                state.bytes += piece.len();
                state.waiting.push_back(piece);
            }
            state.reader.take()
        };
        wake(waker);
        Ok(())
    }

    /// Waits until at most so many bytes wait. One task at a time.
    pub async fn drained(&self, bytes: usize) -> Result<(), Gone> {
        loop {
            {
                let state = self.0.state.lock();
                if state.reader_gone {
                    return Err(Gone);
                }
                if state.bytes <= bytes {
                    return Ok(());
                }
            }
            // What is taken between the look and the wait leaves a permit.
            self.0.taken.notified().await;
        }
    }

    /// Waits until the reader is gone.
    pub async fn gone(&self) -> Gone {
        while self.drained(usize::MAX).await.is_ok() {
            self.0.taken.notified().await;
        }
        Gone
    }

    /// Everything is in: the answer ends cleanly once it is read.
    pub fn complete(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            state.complete = true;
            state.reader.take()
        };
        wake(waker);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        let (dropped, waker) = {
            let mut state = self.0.state.lock();
            state.writer_gone = true;
            // Given up: what waits is worth nothing without the rest, and may wait for ever.
            let unread = state.bytes > 0 || !state.complete;
            let dropped = if unread { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
            if unread {
                (state.bytes, state.complete) = (0, false);
            }
            (dropped, state.reader.take())
        };
        drop(dropped);
        wake(waker);
    }
}

impl Body for PipeReader {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let mut state = self.0.state.lock();
        while let Some(mut piece) = state.waiting.pop_front() {
            if piece.is_empty() {
                continue;
            }
            let frame = if piece.len() > FRAME_BYTES_MAX {
                let frame = piece.split_to(FRAME_BYTES_MAX);
                state.waiting.push_front(piece);
                frame
            } else {
                piece
            };
            state.bytes -= frame.len();
            drop(state);
            self.0.taken.notify_one();
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        if state.complete {
            return Poll::Ready(None);
        }
        if state.writer_gone {
            return Poll::Ready(Some(Err(BrokenOff)));
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let dropped = {
            let mut state = self.0.state.lock();
            // One that has all of it is done rather than gone.
            state.reader_gone = !state.complete || state.bytes > 0;
            state.bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        drop(dropped);
        self.0.taken.notify_one();
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn piece(bytes: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![7; bytes])]
    }

    #[tokio::test]
    async fn a_complete_answer_ends_and_any_other_breaks_off() {
        let (writer, reader) = pipe();
        writer.put(piece(3)).expect("read");
        writer.put(vec![Bytes::new(), Bytes::from_static(b"ab")]).expect("read");
        writer.complete();
        let read =
            tokio::spawn(async move { reader.collect().await.map(http_body_util::Collected::to_bytes) });
        writer.drained(0).await.expect("read");
        drop(writer);
        assert_eq!(read.await.expect("no panic").expect("whole"), b"\x07\x07\x07ab"[..]);

        // Dropped, as by a panic.
        let (writer, reader) = pipe();
        writer.put(piece(3)).expect("read");
        drop(writer);
        assert_eq!(reader.collect().await.map(drop), Err(BrokenOff));

        // Complete, and given up before it was read.
        let (writer, reader) = pipe();
        writer.put(piece(3)).expect("read");
        writer.complete();
        drop(writer);
        assert_eq!(reader.collect().await.map(drop), Err(BrokenOff));
    }

    #[tokio::test]
    async fn the_writer_waits_for_the_reader_and_sees_it_leave() {
        let (writer, mut reader) = pipe();
        writer.put(piece(FRAME_BYTES_MAX + 1)).expect("read");
        let mut waits = std::pin::pin!(writer.drained(1));
        let waiting = std::future::poll_fn(|context| Poll::Ready(waits.as_mut().poll(context).is_pending()));
        assert!(waiting.await);
        let frame = reader.frame().await.expect("there").expect("whole").into_data().expect("data");
        assert_eq!(frame.len(), FRAME_BYTES_MAX);
        waits.await.expect("read");
        let (gone, ()) = tokio::join!(writer.gone(), async { drop(reader) });
        assert_eq!((gone, writer.put(piece(1)), writer.drained(0).await), (Gone, Err(Gone), Err(Gone)));
    }
}
