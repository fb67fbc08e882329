//! Where answers wait for the disk.
//!
//! A handler decides what to answer as soon as the record is taken; the answer's bytes leave the connection only when
//! the gate is open: when every record that was taken on this connection is durable. So a run of pipelined requests
//! waits for one sync and is answered in one write, and a handler that forgets to wait can't be written.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use metrics::Counter;
use parking_lot::Mutex;

use crate::{
    core::Kind,
    shipper::Ledger,
    telemetry::Histogram,
    wal::{Lost, Ticket, Wal},
};

/// The records that one connection's answers wait for.
pub struct Gate {
    wal: Wal,
    state: Mutex<State>,
    ack_seconds: Arc<Histogram>,
    ledger: Arc<Ledger>,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    lost: Option<Lost>,
    /// A record became durable whose answer has not left.
    kept: bool,
}

/// A client may leave before its hit is decided. Its record stays, and is counted as accepted unless it is lost.
impl Drop for Gate {
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.state.get_mut().held);
        if held.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for one in held {
            let Some(kind) = one.accepted else { continue };
            let (wal, ledger) = (self.wal.clone(), self.ledger.clone());
            runtime.spawn(async move {
                if wal.wait(one.ticket).await.is_err() {
                    ledger.retract(kind, one.records);
                }
            });
        }
    }
}

/// What waits at the gate.
pub(super) struct Held {
    pub(super) ticket: Ticket,
    /// How many submissions stand on it.
    pub(super) records: u64,
    pub(super) since: Instant,
    /// The records are the submissions' own, and were counted as accepted of that kind; a duplicate waits on another's.
    pub(super) accepted: Option<Kind>,
    /// What is counted when the answer may leave.
    pub(super) acknowledged: Counter,
    /// What is counted when it never may.
    pub(super) lost: Counter,
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub(super) fn new(wal: Wal, ack_seconds: Arc<Histogram>, ledger: Arc<Ledger>) -> Self {
        Self { wal, state: Mutex::default(), ack_seconds, ledger }
    }

    /// Closes the gate until the ticket's record is durable. Then, or when it is lost, its counter is moved.
    pub(super) fn hold(&self, held: Held) {
        self.state.lock().held.push(held);
    }

    /// Whether a record is durable whose answer a loss took with it: its client must not be told that it was not kept.
    pub fn keeps_unanswered(&self) -> bool {
        self.state.lock().kept
    }

    /// Ready when everything held is decided. Once anything is lost, it is lost for good: no further answer may leave
    /// this connection.
    pub fn poll_open(&self, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut state = self.state.lock();
        let State { held, lost, kept } = &mut *state;
        let mut decided = 0;
        let mut last: Option<(Ticket, Result<(), Lost>)> = None;
        for one in held.iter() {
            // A run of requests joins the same batch, so one look serves all of it.
            let outcome = match last {
                Some((same, outcome)) if same == one.ticket => outcome,
                _ => match self.wal.poll_decided(one.ticket, context) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => break,
                },
            };
            last = Some((one.ticket, outcome));
            match outcome {
                Ok(()) => {
                    *kept = true;
                    one.acknowledged.increment(one.records);
                    self.ack_seconds.record(one.since.elapsed());
                }
                Err(reason) => {
                    one.lost.increment(one.records);
                    if let Some(kind) = one.accepted {
                        self.ledger.retract(kind, one.records);
                    }
                    *lost = Some(reason);
                }
            }
            decided += 1;
        }
        held.drain(..decided);
        match lost {
            Some(reason) => Poll::Ready(Err(*reason)),
            None if held.is_empty() => {
                *kept = false;
                Poll::Ready(Ok(()))
            }
            None => Poll::Pending,
        }
    }
}
