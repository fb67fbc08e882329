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

use parking_lot::Mutex;

use super::{IntakeShared, counters::Acknowledged};
use crate::{
    core::Kind,
    tasks,
    wal::{Lost, Ticket},
};

/// The records that one connection's answers wait for.
pub struct Gate {
    shared: Arc<IntakeShared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    lost: Option<Lost>,
    /// A record became durable whose answer has not left.
    kept: bool,
}

/// What waits at the gate. Plain numbers: it is made for every hit, and the workers would meet at a shared counter.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) kind: Kind,
    /// What is told when the gate opens.
    pub(super) acknowledged: Acknowledged,
    /// How many submissions stand on it.
    pub(super) records: u64,
    pub(super) since: Instant,
}

impl Held {
    /// The records are the submissions' own, and were counted as accepted; a duplicate waits on another's.
    fn is_own(&self) -> bool {
        self.acknowledged != Acknowledged::Duplicate
    }
}

/// A client may leave before its hit is decided. Its record stays, and is counted as accepted unless it is lost.
impl Drop for Gate {
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.state.get_mut().held);
        if held.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for one in held.into_iter().filter(Held::is_own) {
            let shared = self.shared.clone();
            let decided = async move {
                if shared.wal.wait(one.ticket).await.is_err() {
                    shared.ledger.retract(one.kind, one.records);
                }
            };
            drop(tasks::spawn_finite_on(&runtime, "abandoned-hit", decided));
        }
    }
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub(super) fn new(shared: Arc<IntakeShared>) -> Self {
        Self { shared, state: Mutex::default() }
    }

    /// Closes the gate until the ticket's record is durable. Then, or when it is lost, that is counted.
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
        // A run of requests joins the same batch, so one look serves all of it.
        for run in held.chunk_by(|one, next| one.ticket == next.ticket) {
            match self.shared.wal.poll_decided(run[0].ticket, context) {
                Poll::Ready(Ok(())) => {
                    *kept = true;
                    self.acknowledge(run);
                }
                Poll::Ready(Err(reason)) => {
                    *lost = Some(reason);
                    self.lose(run);
                }
                Poll::Pending => break,
            }
            decided += run.len();
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

    /// Counts what is durable: one addition for all of it that is alike.
    fn acknowledge(&self, run: &[Held]) {
        let now = Instant::now();
        let counters = &self.shared.counters;
        counters.ack_seconds.record(run.iter().map(|one| now.saturating_duration_since(one.since)));
        let alike = |one: &Held, next: &Held| (one.kind, one.acknowledged) == (next.kind, next.acknowledged);
        for alike in run.chunk_by(alike) {
            let submissions = alike.iter().map(|one| one.records).sum();
            counters.outcomes[alike[0].kind].acknowledged(alike[0].acknowledged, submissions);
        }
    }

    fn lose(&self, run: &[Held]) {
        for one in run {
            self.shared.counters.outcomes[one.kind].lost(one.records);
            if one.is_own() {
                self.shared.ledger.retract(one.kind, one.records);
            }
        }
    }
}
