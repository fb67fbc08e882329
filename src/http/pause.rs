//! Holds a connection to the `Retry-After` that it was told: after an answer that asks a client to come back later, its
//! next request is not read before that.
//!
//! Saying no costs nearly as much as saying yes. A client that asks again at once would take from the others what it is
//! refused, on every one of its connections; so it waits, in its own socket's buffer.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use hyper::{StatusCode, header};
use tokio::time::{Sleep, sleep};

use super::Answer;

/// How long at most. A client may be told to stay away for longer, where somebody has to act first; but then there is
/// nothing to protect, and its next answer may be another one.
const PAUSE: Duration = Duration::from_secs(1);

/// Notices answers that ask to come back later. Shared with the handlers of one connection.
#[derive(Default)]
pub(super) struct Refusals(AtomicBool);

impl Refusals {
    /// Looks at an answer on its way out.
    pub(super) fn note(&self, answer: &Answer) {
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE
            && answer.headers().contains_key(header::RETRY_AFTER)
        {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether a connection is to wait before it is read on.
#[derive(Default)]
pub(super) struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    /// Begins if there was a refusal since it was last asked.
    pub(super) fn begin_after(&mut self, refusals: &Refusals) {
        if refusals.0.load(Ordering::Relaxed) {
            refusals.0.store(false, Ordering::Relaxed);
            self.0 = Some(Box::pin(sleep(PAUSE)));
        }
    }

    /// Ends at once.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }

    /// Whether it lasts; the task is woken when it is over.
    pub(super) fn lasts(&mut self, context: &mut Context<'_>) -> bool {
        let Some(pause) = &mut self.0 else { return false };
        let lasts = pause.as_mut().poll(context) == Poll::Pending;
        if !lasts {
            self.0 = None;
        }
        lasts
    }
}
