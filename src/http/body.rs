//! Reading a body: bounded in bytes and in time.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;

use super::error::{ApiError, ErrorCode};

/// How long a body may take once its header was read.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// The same for a bulk call's: 8 MiB over a line of 1.2 megabits a second.
const BULK_TIME_MAX: Duration = Duration::from_mins(1);

/// The whole body. One that came in one piece is not copied, and one that is there already sets no timer.
pub(super) async fn read<B>(body: B, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    read_within(body, bytes_max, BODY_TIME_MAX).await
}

/// The whole body of a bulk call.
pub(super) async fn read_bulk<B>(body: B, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    read_within(body, bytes_max, BULK_TIME_MAX).await
}

async fn read_within<B>(body: B, bytes_max: usize, time_max: Duration) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut reading = pin!(read_all(body, bytes_max));
    match poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        Poll::Ready(read) => read,
        Poll::Pending => tokio::time::timeout(time_max, reading)
            .await
            .unwrap_or_else(|_| Err(ErrorCode::RequestTimeout.into())),
    }
}

async fn read_all<B>(mut body: B, bytes_max: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    // What Content-Length promises is refused before it is sent.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut all: Option<BytesMut> = None;
    while let Some(more) = next(&mut body).await? {
        let all = all.get_or_insert_with(|| BytesMut::from(first.as_ref()));
        if all.len() + more.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        all.extend_from_slice(&more);
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

/// The next piece that has data in it.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ErrorCode::InvalidBody)?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(ErrorCode::BodyTooLarge).because(format!("A body has at most {bytes_max} bytes."))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn pieces(pieces: &[&'static str]) -> impl Body<Data = Bytes> + Unpin {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn one_piece_is_not_copied() {
        let sent = Bytes::from_static(b"{\"value\":1}");
        let got = read(Full::new(sent.clone()), 64).await.expect("fits");
        assert_eq!(got.as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        assert_eq!(read(pieces(&[]), 8).await.expect("empty"), "");
        assert_eq!(read(pieces(&["ab", "", "cd"]), 4).await.expect("fits"), "abcd");
        let error = read(pieces(&["ab", "cd", "e"]), 4).await.expect_err("too large");
        assert_eq!(error.code, ErrorCode::BodyTooLarge);
        let error = read(Full::new(Bytes::from_static(b"abcde")), 4).await.expect_err("too large");
        assert_eq!(error.code, ErrorCode::BodyTooLarge);
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_given_up() {
        let never = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let error = read_within(never, 4, Duration::from_millis(5)).await.expect_err("given up");
        assert_eq!(error.code, ErrorCode::RequestTimeout);
    }
}
