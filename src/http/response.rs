//! Answers: the JSON envelope around data, lists and errors.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::{
    body_budget::Charge,
    error::{ApiError, ErrorCode},
    page::Page,
    pipe::{BrokenOff, PipeReader},
};

/// Every answer's type.
pub type Answer = Response<AnswerBody>;

/// The body of an answer.
pub enum AnswerBody {
    /// The whole of it, in memory: of every answer but an export.
    Whole(Full<Bytes>),
    /// The same, with the memory that it takes.
    Charged(Full<Bytes>, Charge),
    /// One that is still being made, and may break off.
    Piped(PipeReader),
}

impl AnswerBody {
    /// The body with a charge for what it takes, for as long as it waits to be sent.
    pub(super) fn charged(self, mut charge: Charge) -> Self {
        match self {
            Self::Whole(body) => {
                let bytes = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
                charge.become_of(bytes);
                Self::Charged(body, charge)
            }
            other => other,
        }
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Whole(body) | Self::Charged(body, _) => {
                Pin::new(body).poll_frame(context).map_err(|never| match never {})
            }
            Self::Piped(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) | Self::Charged(body, _) => body.is_end_stream(),
            Self::Piped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) | Self::Charged(body, _) => body.size_hint(),
            Self::Piped(body) => body.size_hint(),
        }
    }
}

/// Headers of an answer to a hit while a rate limit is on.
const HEADERS_USUAL: usize = 6;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Serialize)]
struct Success<'a, T> {
    #[serde(rename = "success")]
    ok: bool,
    data: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pagination: Option<Pagination>,
}

/// Where a page stands in its list.
#[derive(Serialize)]
struct Pagination {
    page: u32,
    per_page: u32,
    total: u64,
    total_pages: u64,
}

#[derive(Serialize)]
struct Failure<'a> {
    #[serde(rename = "success")]
    ok: bool,
    error: FailureDetail<'a>,
}

/// An error, as a client reads it.
#[derive(Serialize)]
pub(super) struct FailureDetail<'a> {
    code: &'static str,
    message: &'a str,
    field: Option<&'a str>,
}

impl<'a> FailureDetail<'a> {
    pub(super) fn of(error: &'a ApiError) -> Self {
        let field = (!error.field.is_empty()).then_some(error.field.as_ref());
        Self { code: error.code.as_str(), message: &error.message, field }
    }
}

/// An answer with a body of that type.
pub(super) fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Full::new(body)));
    *answer.status_mut() = status;
    // One allocation for all the headers that a tracking answer gets.
    answer.headers_mut().reserve(HEADERS_USUAL);
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// An answer whose body is still being made.
pub(super) fn piped(content_type: HeaderValue, body: PipeReader) -> Answer {
    let mut answer = Response::new(AnswerBody::Piped(body));
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// An answer that is all head.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(AnswerBody::default());
    *answer.status_mut() = status;
    answer
}

/// JSON that is written already.
pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    with_body(status, JSON, Bytes::from(body))
}

/// `{"success":true,"data":…}`.
pub(super) fn data<T: Serialize>(status: StatusCode, data: &T) -> Answer {
    serialised(status, &Success { ok: true, data, pagination: None })
}

/// One page of a list, with where it stands.
pub(super) fn list<T: Serialize>(items: &[T], page: Page, total: u64) -> Answer {
    let pagination = Pagination {
        page: page.number,
        per_page: page.size,
        total,
        total_pages: total.div_ceil(u64::from(page.size.max(1))),
    };
    serialised(StatusCode::OK, &Success { ok: true, data: &items, pagination: Some(pagination) })
}

/// What the table says of this error.
pub(super) fn error(error: &ApiError) -> Answer {
    let detail = FailureDetail::of(error);
    let mut answer = serialised(error.code.status(), &Failure { ok: false, error: detail });
    let headers = answer.headers_mut();
    if let Some(after) = error.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if !error.allow.is_empty()
        && let Ok(allow) = HeaderValue::from_str(&error.allow)
    {
        headers.insert(header::ALLOW, allow);
    }
    if error.code == ErrorCode::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"tally\""));
    }
    answer
}

/// Says that the connection ends with this answer.
pub(super) fn close(answer: &mut Answer) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Rounded up, and never 0: a client told to come back at once would.
pub(super) fn whole_seconds(duration: std::time::Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.max(1)
}

fn serialised<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => json(status, body),
        // Only a map with keys that are not text fails, and there is none.
        Err(_) => json(StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    }
}
