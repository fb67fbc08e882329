//! One attempt: what is sent for an event, signed at this moment, and what came of it.

use bytes::Bytes;
use hyper::{Method, header::HeaderValue};
use tokio::time::Instant;

use super::{
    client::{Call, CallError, Client},
    guard,
};
use crate::core::{
    Goal, UnixMillis,
    webhook::{self, Event, PostbackMethod},
};

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempted {
    /// What was answered; none: nothing.
    pub(super) status: Option<u16>,
    /// Why nothing was, or why it does not count; empty: nothing went wrong.
    pub(super) error: &'static str,
    pub(super) retry_after: Option<u64>,
    pub(super) latency_millis: u32,
    pub(super) answer: String,
}

impl Attempted {
    /// A defect of ours came in between.
    pub(super) fn panicked() -> Self {
        Self {
            status: None,
            error: "internal_error",
            retry_after: None,
            latency_millis: 0,
            answer: String::new(),
        }
    }
}

/// Tells the goal's endpoint, signed as of now. `reuse`: over a kept connection.
pub(super) async fn run(
    client: &Client,
    goal: &Goal,
    event: &Event,
    now: UnixMillis,
    reuse: bool,
) -> Attempted {
    let started = Instant::now();
    let outcome = match call(goal, event, now) {
        Ok(call) => client.send(&call, reuse).await,
        Err(error) => Err(error),
    };
    let latency_millis = u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX);
    match outcome {
        Ok(answer) => Attempted {
            status: Some(answer.status),
            error: answer.broken.map_or("", CallError::as_str),
            retry_after: answer.retry_after.and_then(|text| webhook::retry_after(&text, now)),
            latency_millis,
            answer: answer.text,
        },
        Err(error) => Attempted {
            status: None,
            error: error.as_str(),
            retry_after: None,
            latency_millis,
            answer: String::new(),
        },
    }
}

fn call(goal: &Goal, event: &Event, now: UnixMillis) -> Result<Call, CallError> {
    let template = goal.postback_url.as_deref().unwrap_or_default();
    let (method, url, body) = match goal.postback.method {
        PostbackMethod::Post => (Method::POST, template.to_owned(), webhook::body(event)),
        PostbackMethod::Get => (Method::GET, webhook::expand(template, event), String::new()),
    };
    let url = guard::parse(&url).map_err(CallError::Refused)?;
    let id = event.webhook_id();
    let signature = webhook::sign(goal.postback.live(now), &id, now.seconds(), &body);
    let mut headers = vec![
        ("user-agent", HeaderValue::from_static(concat!("tally/", env!("CARGO_PKG_VERSION")))),
        ("webhook-timestamp", HeaderValue::from(now.seconds())),
    ];
    if method == Method::POST {
        headers.push(("content-type", HeaderValue::from_static("application/json")));
    }
    // Both are printable ASCII.
    headers.extend(HeaderValue::try_from(id).ok().map(|id| ("webhook-id", id)));
    if !signature.is_empty() {
        let value = HeaderValue::try_from(signature).ok();
        headers.extend(value.map(|value| ("webhook-signature", value)));
    }
    Ok(Call { url, method, headers, body: Bytes::from(body) })
}
