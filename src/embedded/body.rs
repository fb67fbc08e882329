//! A request's body: taken in whole before its statement is run, or fed piece by piece to a running insert.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::reply::Piece;

/// Pieces of a body on their way to its worker.
const BODY_PIECES: usize = 8;
/// How much of a body is taken in after its request was refused.
const DISCARD_BYTES_MAX: usize = 256 << 20;
pub(crate) const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Of each statement this much is not counted against the budget of its user: the small ones of many clients need no
/// permission, and connections bound how many there are.
const FREE_BYTES: usize = 64 << 10;

/// How long a body may take, and how much of it is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// From the head to the last byte of a statement.
    pub(crate) statement: Duration,
    /// Between two pieces of an insert.
    pub(crate) idle: Duration,
    /// A longer one is refused.
    pub(crate) bytes_max: usize,
    /// A longer one is run while it arrives.
    pub(crate) whole_max: usize,
}

/// A body, as far as it was waited for.
pub(crate) struct Taken {
    pieces: VecDeque<Bytes>,
    is_whole: bool,
    budget: Option<OwnedSemaphorePermit>,
}

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It did not arrive in time.
    Slow,
    /// It broke off.
    Broken,
    /// It is longer than any statement.
    TooLong,
    /// The statements that arrive hold all the memory that they may.
    NoRoom,
}

impl Taken {
    /// Nothing yet: the body is fed to its worker.
    pub(crate) fn nothing() -> Self {
        Self { pieces: VecDeque::new(), is_whole: false, budget: None }
    }
}

/// Waits for a whole body, or for as much of it as is held at once.
pub(crate) async fn take<B>(body: &mut B, budget: &Arc<Semaphore>, limits: Limits) -> Result<Taken, NotTaken>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut taken = Taken::nothing();
    let mut bytes = 0;
    let collecting = async {
        while bytes < limits.whole_max {
            let Some(frame) = body.frame().await else {
                taken.is_whole = true;
                break;
            };
            let Ok(data) = frame.map_err(|_| NotTaken::Broken)?.into_data() else { continue };
            bytes += data.len();
            if bytes > limits.bytes_max {
                return Err(NotTaken::TooLong);
            }
            let counted = bytes.saturating_sub(FREE_BYTES).min(data.len());
            if counted > 0 {
                let count = u32::try_from(counted).map_err(|_| NotTaken::TooLong)?;
                let more = Arc::clone(budget).try_acquire_many_owned(count).map_err(|_| NotTaken::NoRoom)?;
                match &mut taken.budget {
                    Some(held) => held.merge(more),
                    None => taken.budget = Some(more),
                }
            }
            taken.pieces.push_back(data);
        }
        Ok(())
    };
    tokio::time::timeout(limits.statement, collecting).await.map_err(|_| NotTaken::Slow)??;
    Ok(taken)
}

/// What is left of a body after its request was refused: a client mostly looks for the answer after its last byte.
pub(crate) async fn discard<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let discarding = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await {
            discarded += frame.into_data().map_or(0, |data| data.len());
            if discarded > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, discarding).await;
}

/// Carries the rest of a body to its worker.
pub(crate) struct Feed {
    pieces: mpsc::Sender<Piece>,
    idle: Duration,
}

impl Feed {
    /// Until the body ends, or until the worker has enough; it is discarded from there on. A body that breaks off, or
    /// that stalls, ends without `Piece::End`.
    pub(crate) async fn run<B: Body<Data = Bytes> + Unpin>(self, mut body: B) {
        loop {
            let data = match tokio::time::timeout(self.idle, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => return,
            };
            if self.pieces.send(Piece::Data(data)).await.is_err() {
                drop(self.pieces);
                return discard(&mut body).await;
            }
        }
        let _ = self.pieces.send(Piece::End).await;
    }
}

/// Reads a body from a worker's thread.
pub(crate) struct BodyReader {
    taken: VecDeque<Bytes>,
    current: Bytes,
    /// `None`: nothing follows.
    rest: Option<mpsc::Receiver<Piece>>,
    _budget: Option<OwnedSemaphorePermit>,
}

impl BodyReader {
    /// A reader of what was taken, and what has to be fed to it if that was not all.
    pub(crate) fn new(taken: Taken, limits: Limits) -> (Self, Option<Feed>) {
        let (sender, receiver) = mpsc::channel(BODY_PIECES);
        let reader = Self {
            taken: taken.pieces,
            current: Bytes::new(),
            rest: (!taken.is_whole).then_some(receiver),
            _budget: taken.budget,
        };
        (reader, (!taken.is_whole).then_some(Feed { pieces: sender, idle: limits.idle }))
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if let Some(piece) = self.taken.pop_front() {
                self.current = piece;
                continue;
            }
            let Some(rest) = &mut self.rest else { return Ok(0) };
            match rest.blocking_recv() {
                Some(Piece::Data(piece)) => self.current = piece,
                Some(Piece::End) => self.rest = None,
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// Pieces, and then silence or the end.
    struct Pieces(VecDeque<&'static [u8]>, bool);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            match self.0.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    const LIMITS: Limits = Limits {
        statement: Duration::from_secs(30),
        idle: Duration::from_secs(30),
        bytes_max: 300_000,
        whole_max: usize::MAX,
    };
    const PIECE: &[u8] = &[7; 50_000];

    fn pieces(count: usize, ends: bool) -> Pieces {
        Pieces(std::iter::repeat_n(PIECE, count).collect(), ends)
    }

    async fn try_take(mut body: Pieces, budget: &Arc<Semaphore>, limits: Limits) -> Result<Taken, NotTaken> {
        take(&mut body, budget, limits).await
    }

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up_and_gives_back_its_room() {
        let budget = Arc::new(Semaphore::new(100_000));
        let soon = Duration::from_millis(10);
        let short = Limits { statement: soon, idle: soon, ..LIMITS };
        assert_eq!(try_take(pieces(3, false), &budget, short).await.err(), Some(NotTaken::Slow));
        assert_eq!(budget.available_permits(), 100_000);
        // The rest of an insert, too.
        let (mut reader, feed) = BodyReader::new(Taken::nothing(), short);
        feed.expect("nothing was taken").run(pieces(1, false)).await;
        let read = tokio::task::spawn_blocking(move || io::copy(&mut reader, &mut io::sink()));
        assert_eq!(read.await.expect("no panic").expect_err("cut off").kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_is_held_is_bounded_for_each_and_for_all() {
        let budget = Arc::new(Semaphore::new(100_000));
        let held = try_take(pieces(3, true), &budget, LIMITS).await.expect("fits");
        assert!(held.is_whole);
        assert_eq!(budget.available_permits(), 100_000 - (150_000 - FREE_BYTES));
        assert_eq!(try_take(pieces(3, true), &budget, LIMITS).await.err(), Some(NotTaken::NoRoom));
        assert!(try_take(pieces(1, true), &budget, LIMITS).await.is_ok(), "a small one needs no room");
        assert_eq!(try_take(pieces(7, true), &budget, LIMITS).await.err(), Some(NotTaken::NoRoom));
        drop(held);
        assert_eq!(budget.available_permits(), 100_000);
        let roomy = Arc::new(Semaphore::new(1 << 20));
        assert_eq!(try_take(pieces(7, true), &roomy, LIMITS).await.err(), Some(NotTaken::TooLong));
        let begun = Limits { whole_max: 60_000, ..LIMITS };
        assert!(!try_take(pieces(9, false), &roomy, begun).await.expect("begun").is_whole);
    }
}
