//! The workers' side of the log: taking records, and waiting for them.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    shared::Shared,
    ticket::{AppendError, Lost, Ticket},
};

/// Takes records on one worker. Clones share its buffer.
#[derive(Clone)]
pub struct Appender {
    shared: Arc<Shared>,
    index: u16,
}

impl Appender {
    pub(super) fn new(shared: Arc<Shared>, index: u16) -> Self {
        Self { shared, index }
    }

    /// Takes one record, written by `write` to the end of the buffer that it is given. Never blocks on the disk.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, AppendError> {
        self.shared.append(self.index, self.shared.limits.pending, write)
    }

    /// Takes one record that nobody waits for, and only while the queue is less than half full: what can't be
    /// acknowledged must not crowd out what can.
    pub fn append_unimportant(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, AppendError> {
        self.shared.append(self.index, self.shared.limits.pending / 2, write)
    }

    /// Takes records that become durable together or not at all: one block of the log holds all of them. There is room
    /// for `records` of at most `bytes` payload in all, or the group is refused before its first record. It is over when
    /// it is dropped; until then the writer leaves this appender's records alone.
    pub fn group(&self, records: u32, bytes: usize) -> Result<Group<'_>, AppendError> {
        self.shared.begin_group(self.index, records, bytes)?;
        Ok(Group { appender: self, _stays: PhantomData })
    }

    /// The task that hands this appender's records to the writer and wakes who waits. Runs on the worker, once.
    #[must_use]
    pub fn pump(&self) -> Pump {
        Pump { shared: self.shared.clone(), index: self.index }
    }
}

/// See [`Appender::group`]. Not to be held over an `await`: the writer waits for its end.
pub struct Group<'a> {
    appender: &'a Appender,
    /// Not `Send`: a task that holds it over an `await` could not be spawned.
    _stays: PhantomData<*const ()>,
}

impl Group<'_> {
    /// Takes the group's next record. Never refused while the group keeps to the room that it asked for.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, AppendError> {
        self.appender.shared.append_to_group(self.appender.index, write)
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.appender.shared.end_group(self.appender.index);
    }
}

/// Completes when a record is durable, or lost. Dropping it changes nothing about the record.
pub struct Durable {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Durable {
    pub(super) fn new(shared: Arc<Shared>, ticket: Ticket) -> Self {
        Self { shared, ticket }
    }
}

impl Future for Durable {
    type Output = Result<(), Lost>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.shared.poll_decided(self.ticket, context)
    }
}

/// See [`Appender::pump`]. Never completes; it is dropped with its worker.
///
/// Woken by the first record of a turn, it stands behind every task that is ready in the worker's queue, so that all
/// they bring goes to the writer with one message.
pub struct Pump {
    shared: Arc<Shared>,
    index: u16,
}

impl Future for Pump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.shared.pump(self.index, context);
        Poll::Pending
    }
}
