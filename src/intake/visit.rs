//! Waiting for the record of a visit whose visitor has been redirected already.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{IntakeShared, counters::Acknowledged};
use crate::{
    core::Kind,
    tasks,
    wal::{Durable, Lost, Ticket},
};

/// Completes when the visit is recorded (true) or known to be lost (false). A loss is counted also if this is dropped
/// before.
pub struct Visit {
    shared: Arc<IntakeShared>,
    recording: Option<Durable>,
}

impl Visit {
    /// Waits for the ticket's record; none: it was not taken.
    pub(super) fn new(shared: Arc<IntakeShared>, ticket: Option<Ticket>) -> Self {
        let recording = ticket.map(|ticket| shared.wal.wait(ticket));
        if recording.is_none() {
            shared.counters.clicks_unrecorded.increment(1);
        }
        Self { shared, recording }
    }
}

impl Future for Visit {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let Some(recording) = &mut self.recording else { return Poll::Ready(false) };
        let outcome = ready!(Pin::new(recording).poll(context));
        self.recording = None;
        Poll::Ready(self.shared.visit_decided(outcome))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(recording) = self.recording.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let shared = self.shared.clone();
        let decided = async move {
            shared.visit_decided(recording.await);
        };
        drop(tasks::spawn_finite_on(&runtime, "abandoned-visit", decided));
    }
}

impl IntakeShared {
    fn visit_decided(&self, outcome: Result<(), Lost>) -> bool {
        if outcome.is_ok() {
            self.counters.outcomes[Kind::Click].acknowledged(Acknowledged::New, 1);
        } else {
            self.ledger.retract(Kind::Click, 1);
            self.counters.clicks_unrecorded.increment(1);
        }
        outcome.is_ok()
    }
}
