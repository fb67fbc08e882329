//! Holds a connection to the `Retry-After` that it was told: after an answer that asks a client to come back later, its
//! next request is not read before that.
//!
//! Saying no costs nearly as much as saying yes. A client that asks again at once would take from the others what it is
//! refused, on every one of its connections; so it waits, in its own socket's buffer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{StatusCode, header};
use tokio::time::{Sleep, sleep};

use super::Answer;

/// How long at most. A client may be told to stay away for longer, where somebody has to act first; but then there is
/// nothing to protect, and its next answer may be another one.
const PAUSE: Duration = Duration::from_secs(1);

/// Notices answers that ask to come back later, and those that end the connection. Shared with the handlers of one
/// connection.
#[derive(Default)]
pub(super) struct Refusals {
    later: AtomicBool,
    unread: AtomicBool,
}

impl Refusals {
    /// Looks at an answer on its way out.
    pub(super) fn note(&self, answer: &Answer) {
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE
            && answer.headers().contains_key(header::RETRY_AFTER)
        {
            self.later.store(true, Ordering::Relaxed);
        }
        if answer.headers().contains_key(header::CONNECTION) {
            self.unread.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the last answer ends the connection although more may come: the rest of the request's body.
    pub(super) fn ends_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }
}

/// Whether a connection is to wait before more is read from it. What hyper has read already is answered.
pub(super) struct Pause {
    refusals: Arc<Refusals>,
    rest: Option<Pin<Box<Sleep>>>,
    /// The daemon ends: nobody waits any more.
    over: bool,
}

impl Pause {
    pub(super) fn new(refusals: Arc<Refusals>) -> Self {
        Self { refusals, rest: None, over: false }
    }

    /// Ends it for good.
    pub(super) fn end(&mut self) {
        (self.rest, self.over) = (None, true);
    }

    /// Whether it lasts, after a refusal since it was last asked or before; the task is woken when it is over.
    pub(super) fn lasts(&mut self, context: &mut Context<'_>) -> bool {
        if self.refusals.later.load(Ordering::Relaxed) && !self.over {
            self.refusals.later.store(false, Ordering::Relaxed);
            self.rest = Some(Box::pin(sleep(PAUSE)));
        }
        let Some(rest) = &mut self.rest else { return false };
        let lasts = rest.as_mut().poll(context) == Poll::Pending;
        if !lasts {
            self.rest = None;
        }
        lasts
    }
}
