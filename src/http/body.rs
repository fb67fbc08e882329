//! Reading a body: bounded in bytes and in time, and charged to its sender.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::{body::Body, header};
use tokio::time::timeout;

use super::{
    body_budget::{Caller, Charge, FREE_BYTES},
    connections::Place,
    error::{ApiError, ErrorCode},
};

/// How long a body may take once its header was read.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The same for a bulk call's: 8 MiB over a line of 1.2 megabits a second.
const BULK_TIME_MAX: Duration = Duration::from_mins(1);

/// How long nothing of a bulk call's body may come.
const BULK_SILENCE_MAX: Duration = Duration::from_secs(10);
/// What a body grows by where its length is not known.
const STEP_BYTES: usize = 64 << 10;
/// What is read of a body that no handler wanted, so that the connection can go on, and how often it is looked for.
const UNWANTED_BYTES_MAX: usize = 64 << 10;
const UNWANTED_LOOKS: usize = 16;

/// A request's body, with what it costs. It outlives the handler, so that what is kept of it is charged for as long as
/// the handler has it.
pub(super) struct RequestBody<'a, B> {
    body: B,
    place: &'a Place,
    caller: Caller<'a>,
    charge: Option<Charge>,
    /// Some of it was asked for: a client that waits for `100 Continue` has been told to send it.
    asked: bool,
    /// All of it was read.
    ended: bool,
}

/// How long a body may take.
#[derive(Clone, Copy)]
struct Patience {
    whole: Duration,
    silence: Duration,
}

/// The whole body. One that came in one piece is not copied, and one that is there already sets no timer.
pub(super) async fn read<B>(body: &mut RequestBody<'_, B>, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    body.read_within(bytes_max, Patience { whole: BODY_TIME_MAX, silence: BODY_TIME_MAX }).await
}

/// The whole body of a bulk call.
pub(super) async fn read_bulk<B>(body: &mut RequestBody<'_, B>, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    body.read_within(bytes_max, Patience { whole: BULK_TIME_MAX, silence: BULK_SILENCE_MAX }).await
}

impl<'a, B> RequestBody<'a, B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub(super) fn new(body: B, place: &'a Place, caller: Caller<'a>) -> Self {
        let ended = body.is_end_stream();
        Self { body, place, caller, charge: None, asked: false, ended }
    }

    /// Whether the connection can carry another request: the body was read, or the rest of it is there already and small.
    /// A client that waits to be told to send it is not told so for this.
    pub(super) async fn is_over(&mut self) -> bool {
        let waits = !self.asked && self.caller.head.headers.contains_key(header::EXPECT);
        let (mut looks, mut read_bytes) = (0, 0);
        while !self.ended && !waits {
            if self.body.size_hint().lower() > UNWANTED_BYTES_MAX as u64 || read_bytes > UNWANTED_BYTES_MAX {
                return false;
            }
            match poll_fn(|context| Poll::Ready(Pin::new(&mut self.body).poll_frame(context))).await {
                Poll::Ready(Some(Ok(frame))) => {
                    read_bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.ended = self.body.is_end_stream();
                }
                Poll::Ready(Some(Err(_))) => return false,
                Poll::Ready(None) => self.ended = true,
                Poll::Pending if looks == UNWANTED_LOOKS => return false,
                // The connection reads on in its own turn.
                Poll::Pending => {
                    looks += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.ended
    }

    /// What was charged for it.
    pub(super) fn into_charge(self) -> Option<Charge> {
        self.charge
    }

    async fn read_within(&mut self, bytes_max: usize, patience: Patience) -> Result<Bytes, ApiError> {
        let mut reading = pin!(self.read_all(bytes_max, patience.silence));
        match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
            Poll::Ready(read) => read,
            Poll::Pending => timeout(patience.whole, reading)
                .await
                .unwrap_or_else(|_| Err(ErrorCode::RequestTimeout.into())),
        }
    }

    async fn read_all(&mut self, bytes_max: usize, silence: Duration) -> Result<Bytes, ApiError> {
        // What Content-Length promises is refused before it is sent, and paid for before it is read.
        let promised = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if promised > bytes_max {
            return Err(too_large(bytes_max));
        }
        self.pay_for(promised, promised)?;
        self.asked = true;
        let Some(first) = self.next(BODY_TIME_MAX.max(silence)).await? else { return Ok(Bytes::new()) };
        if first.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        if self.ended {
            return Ok(first);
        }
        let mut all: Option<BytesMut> = None;
        while let Some(more) = self.next(silence).await? {
            let all = all.get_or_insert_with(|| {
                let mut all = BytesMut::with_capacity(promised.max(first.len() + more.len()));
                all.extend_from_slice(&first);
                all
            });
            let bytes = all.len() + more.len();
            if bytes > bytes_max {
                return Err(too_large(bytes_max));
            }
            self.pay_for(bytes, (bytes + STEP_BYTES).min(bytes_max))?;
            all.extend_from_slice(&more);
        }
        Ok(all.map_or(first, BytesMut::freeze))
    }

    /// Charges for a body of so many bytes; where they are not paid yet, of so many more at once.
    fn pay_for(&mut self, bytes: usize, at_once: usize) -> Result<(), ApiError> {
        if bytes <= FREE_BYTES {
            return Ok(());
        }
        match &mut self.charge {
            Some(charge) if charge.bytes() >= bytes => Ok(()),
            Some(charge) => charge.grow(at_once - charge.bytes()),
            none => {
                *none = Some(self.caller.charge(at_once)?);
                Ok(())
            }
        }
    }

    /// The next piece that has data in it.
    async fn next(&mut self, silence: Duration) -> Result<Option<Bytes>, ApiError> {
        let read = |body: &mut Self, context: &mut Context<'_>| body.poll_data(context);
        match poll_fn(|context| Poll::Ready(read(self, context))).await {
            Poll::Ready(data) => data,
            Poll::Pending => {
                self.place.receive(true);
                let data = timeout(silence, poll_fn(|context| read(self, context))).await;
                self.place.receive(false);
                data.unwrap_or_else(|_| Err(ErrorCode::RequestTimeout.into()))
            }
        }
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ApiError>> {
        while !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => self.ended = true,
                Some(frame) => {
                    let frame = frame.map_err(|_| ErrorCode::InvalidBody)?;
                    self.ended = self.body.is_end_stream();
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
            }
        }
        Poll::Ready(Ok(None))
    }
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(ErrorCode::BodyTooLarge).because(format!("A body has at most {bytes_max} bytes."))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::{Request, body::Frame, http::request::Parts};

    use super::*;
    use crate::{catalog::Catalog, clock::SystemClock, http::BodyBudget};

    fn pieces(pieces: &[&'static str]) -> impl Body<Data = Bytes> + Unpin + use<> {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    /// A catalog, a budget and a head for the bodies of one test.
    struct Sender {
        budget: Arc<BodyBudget>,
        catalog: Arc<Catalog>,
        head: Parts,
        place: Place,
        _folder: tempfile::TempDir,
    }

    impl Sender {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let catalog = Catalog::open(folder.path(), &SystemClock, None).expect("opened").catalog;
            let (head, ()) = Request::new(()).into_parts();
            let (budget, place) = (Arc::new(BodyBudget::new(64 << 10)), Place::default());
            Self { budget, catalog: Arc::new(catalog), head, place, _folder: folder }
        }

        fn body<B: Body<Data = Bytes> + Unpin>(&self, body: B) -> RequestBody<'_, B> {
            let caller = Caller {
                budget: &self.budget,
                catalog: &self.catalog,
                head: &self.head,
                peer: [203, 0, 113, 9].into(),
                trusted: &[],
            };
            RequestBody::new(body, &self.place, caller)
        }

        async fn read<B: Body<Data = Bytes> + Unpin>(
            &self,
            body: B,
            bytes_max: usize,
        ) -> Result<Bytes, ErrorCode> {
            read(&mut self.body(body), bytes_max).await.map_err(|error| error.code)
        }
    }

    #[tokio::test]
    async fn one_piece_is_not_copied() {
        let sent = Bytes::from_static(b"{\"value\":1}");
        let got = Sender::new().read(Full::new(sent.clone()), 64).await.expect("fits");
        assert_eq!(got.as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        let it = Sender::new();
        assert_eq!(it.read(pieces(&[]), 8).await.expect("empty"), "");
        assert_eq!(it.read(pieces(&["ab", "", "cd"]), 4).await.expect("fits"), "abcd");
        assert_eq!(it.read(pieces(&["ab", "cd", "e"]), 4).await, Err(ErrorCode::BodyTooLarge));
        let whole = Full::new(Bytes::from_static(b"abcde"));
        assert_eq!(it.read(whole, 4).await, Err(ErrorCode::BodyTooLarge));
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let it = Sender::new();
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let soon = Duration::from_millis(5);
        let mut never = it.body(never);
        for (whole, silence) in [(soon, BODY_TIME_MAX), (BODY_TIME_MAX, soon)] {
            let error = never.read_within(4, Patience { whole, silence }).await.expect_err("given up");
            assert_eq!(error.code, ErrorCode::RequestTimeout);
        }
        assert!(!never.is_over().await, "nor does anybody wait for it then");
    }

    #[tokio::test]
    async fn a_large_body_is_paid_for_until_its_request_is_over() {
        let it = Sender::new();
        let large = "x".repeat(FREE_BYTES + 1);
        let mut one = it.body(Full::new(Bytes::from(large.clone())));
        read(&mut one, 1 << 20).await.expect("room");
        assert_eq!(one.charge.as_ref().map(Charge::bytes), Some(large.len()));
        // Its length is not known before.
        let large: &'static str = large.leak();
        let mut other = it.body(pieces(&[large, large]));
        read(&mut other, 1 << 20).await.expect("room");
        assert!(other.charge.as_ref().is_some_and(|charge| charge.bytes() >= 2 * large.len()));
        let mut small = it.body(pieces(&["ab", "cd"]));
        read(&mut small, 64).await.expect("fits");
        assert!(small.into_charge().is_none());
    }

    #[tokio::test]
    async fn what_nobody_wanted_is_read_if_it_is_there_and_small() {
        let it = Sender::new();
        assert!(it.body(pieces(&["ab", "cd"])).is_over().await);
        let large: &'static str = "x".repeat(UNWANTED_BYTES_MAX + 1).leak();
        assert!(!it.body(pieces(&[large, "x"])).is_over().await);
        assert!(!it.body(Full::new(Bytes::from_static(large.as_bytes()))).is_over().await);
    }
}
