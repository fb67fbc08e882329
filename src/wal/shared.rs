//! What the workers and the writer share: a queue for each worker, and who waits in it for what.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, MutexGuard};

use super::{
    Position,
    block::{self, RECORD_HEADER_BYTES},
    grouped::Grouped,
    spare::Shortage,
    ticket::{AppendError, Lost, Ticket, TicketStatus},
};

/// What a worker tells the writer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// That appender has records.
    Ready(u16),
    /// Write what is there and end.
    Close,
}

/// What the writer took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// How many records.
    pub(super) records: u32,
    /// More are waiting.
    pub(super) left_over: bool,
}

/// What workers and writer share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    queues: Vec<Mutex<Queue>>,
    announce: Sender<Message>,
    pub(super) announced: Receiver<Message>,
    durable_end: Mutex<Position>,
    closed: AtomicBool,
    poisoned: AtomicBool,
    shortage: Mutex<Option<Shortage>>,
    short: AtomicBool,
}

/// Most records of one appender that are not decided: past it, [`AppendError::Overloaded`]. At 70,000 a second on two
/// workers the last of them waits for 30 ms; who comes on top of that is served no sooner by waiting along.
const RECORDS_UNDECIDED_MAX: u32 = 1024;

/// How much is held in memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most that one appender holds while the disk is busy; past it, [`AppendError::Overloaded`].
    pub(super) pending: usize,
    /// Largest payload of one record.
    payload: usize,
    /// Largest body of one group.
    group: usize,
}

impl Limits {
    /// A group fits a segment, and one appender's queue with its last record fits a group.
    fn of_segment(segment_bytes: u64) -> Self {
        let group = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX).min(block::BODY_BYTES_MAX);
        Self { pending: (group / 2).min(4 << 20), payload: (group / 4).min(1 << 20), group }
    }
}

/// One appender's records and who waits for them.
#[derive(Default)]
struct Queue {
    /// Records of batch `filling`, each with its length before it.
    pending: Vec<u8>,
    records: u32,
    /// Records of the batch that is being written.
    records_in_flight: u32,
    /// How many of both were taken in groups, which have a bound of their own.
    grouped: Grouped,
    /// The batch that new records join.
    filling: u64,
    /// Every batch below is decided.
    decided: u64,
    /// Decided batches that were lost, as ranges; few, since a log that is short of room refuses at the door.
    lost: Vec<(std::ops::Range<u64>, Lost)>,
    /// A message to the writer is on its way.
    announced: bool,
    /// Who waits for `filling`.
    waiting: Vec<Waker>,
    /// Who waits for the batch that is being written.
    in_flight: Vec<Waker>,
    /// Who is to be woken by the pump.
    done: Vec<Waker>,
    pump: Option<Waker>,
}

impl Queue {
    fn new() -> Self {
        Self { filling: 1, decided: 1, ..Self::default() }
    }

    /// Records that are not decided and were not taken in a group.
    fn singles_undecided(&self) -> u32 {
        (self.records + self.records_in_flight).saturating_sub(self.grouped.undecided())
    }

    fn status_of(&self, batch: u64) -> TicketStatus {
        if batch >= self.decided {
            return TicketStatus::Pending;
        }
        match self.lost.iter().find(|(range, _)| range.contains(&batch)) {
            Some(&(_, lost)) => TicketStatus::Lost(lost),
            None => TicketStatus::Durable,
        }
    }
}

impl Shared {
    pub(super) fn new(appenders: u16, segment_bytes: u64, end: Position) -> Self {
        // One message per appender, and one to close.
        let (announce, announced) = bounded(usize::from(appenders) + 1);
        Self {
            limits: Limits::of_segment(segment_bytes),
            queues: (0..appenders).map(|_| Mutex::new(Queue::new())).collect(),
            announce,
            announced,
            durable_end: Mutex::new(end),
            closed: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            shortage: Mutex::new(None),
            short: AtomicBool::new(false),
        }
    }

    /// Takes one record, while the appender's queue holds less than `pending_max` bytes.
    pub(super) fn append(
        &self,
        appender: u16,
        pending_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Ticket, AppendError> {
        self.may_append()?;
        let queue = self.queues[usize::from(appender)].lock();
        let start = queue.pending.len();
        if start >= pending_max || queue.singles_undecided() >= RECORDS_UNDECIDED_MAX {
            return Err(AppendError::Overloaded);
        }
        self.put(appender, queue, write)
    }

    /// Puts a record at the end of the queue.
    fn put(
        &self,
        appender: u16,
        mut queue: MutexGuard<'_, Queue>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Ticket, AppendError> {
        let start = queue.pending.len();
        queue.pending.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        write(&mut queue.pending);
        let length = queue.pending.len() - start - RECORD_HEADER_BYTES;
        if length > self.limits.payload {
            queue.pending.truncate(start);
            return Err(AppendError::TooLarge);
        }
        let length = u32::try_from(length).map_err(|_| AppendError::TooLarge)?;
        queue.pending[start..start + RECORD_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        queue.records += 1;
        let ticket = Ticket::new(appender, queue.filling);
        let pump = if queue.records == 1 { queue.pump.take() } else { None };
        drop(queue);
        if let Some(pump) = pump {
            pump.wake();
        }
        Ok(ticket)
    }

    /// Makes room for a group, and keeps the writer from the appender's queue until [`Self::end_group`].
    pub(super) fn begin_group(&self, appender: u16, records: u32, bytes: usize) -> Result<(), AppendError> {
        self.may_append()?;
        let bytes = bytes.saturating_add(RECORD_HEADER_BYTES.saturating_mul(records as usize));
        if bytes > self.limits.group {
            return Err(AppendError::TooLarge);
        }
        let mut queue = self.queues[usize::from(appender)].lock();
        let pending = queue.pending.len();
        if pending >= self.limits.pending
            || pending + bytes > self.limits.group
            || !queue.grouped.fits(records)
        {
            return Err(AppendError::Overloaded);
        }
        queue.grouped.open = true;
        Ok(())
    }

    /// Takes one record of the group that is open. A log that fails or closes meanwhile decides it like any other.
    pub(super) fn append_to_group(
        &self,
        appender: u16,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Ticket, AppendError> {
        let mut queue = self.queues[usize::from(appender)].lock();
        queue.grouped.pending += 1;
        self.put(appender, queue, write)
    }

    /// The group is whole: the writer may have it.
    pub(super) fn end_group(&self, appender: u16) {
        let mut queue = self.queues[usize::from(appender)].lock();
        queue.grouped.open = false;
        // The writer may have passed this queue by, and then forgotten that it was announced.
        let pump = queue.pump.take();
        drop(queue);
        if let Some(pump) = pump {
            pump.wake();
        }
    }

    /// Hands the appender's records to the writer, if any are new, and wakes who waits for those that are decided.
    pub(super) fn pump(&self, appender: u16, context: &mut Context<'_>) {
        let mut queue = self.queues[usize::from(appender)].lock();
        let done = std::mem::take(&mut queue.done);
        if queue.records > 0 && !queue.announced {
            queue.announced = true;
            // There is room for one message of each appender, so this never fails while the writer lives.
            let _ = self.announce.try_send(Message::Ready(appender));
        }
        queue.pump = Some(context.waker().clone());
        drop(queue);
        for waker in done {
            waker.wake();
        }
    }

    pub(super) fn status_of(&self, ticket: Ticket) -> TicketStatus {
        self.queues[ticket.appender()].lock().status_of(ticket.batch())
    }

    /// Ready when the ticket's batch is decided; until then the task is woken when it is.
    pub(super) fn poll_decided(&self, ticket: Ticket, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut queue = self.queues[ticket.appender()].lock();
        match queue.status_of(ticket.batch()) {
            TicketStatus::Durable => Poll::Ready(Ok(())),
            TicketStatus::Lost(lost) => Poll::Ready(Err(lost)),
            TicketStatus::Pending => {
                let waiting =
                    if ticket.batch() == queue.filling { &mut queue.waiting } else { &mut queue.in_flight };
                if !waiting.last().is_some_and(|last| last.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    pub(super) fn durable_end(&self) -> Position {
        *self.durable_end.lock()
    }

    /// A number above that of every record taken so far.
    pub(super) fn taken_end_lsn(&self) -> u64 {
        // Queues first: a record that moves on in between is counted twice, never missed.
        let queued = |queue: &Mutex<Queue>| {
            let queue = queue.lock();
            u64::from(queue.records) + u64::from(queue.records_in_flight)
        };
        let queued: u64 = self.queues.iter().map(queued).sum();
        queued + self.durable_end().lsn
    }

    /// Stand for every record that was taken so far and is not decided.
    pub(super) fn undecided(&self) -> Vec<Ticket> {
        let last = |(appender, queue): (u16, &Mutex<Queue>)| {
            let queue = queue.lock();
            let batch = if queue.records > 0 { queue.filling } else { queue.filling - 1 };
            (batch >= queue.decided).then(|| Ticket::new(appender, batch))
        };
        (0..).zip(&self.queues).filter_map(last).collect()
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses new records and lets the writer end.
    pub(super) fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // The channel has a place for this message; a writer that is gone needs none.
            let _ = self.announce.send(Message::Close);
        }
    }

    /// The writer has read that appender's message; its next records send another.
    pub(super) fn heard(&self, appender: u16) {
        self.queues[usize::from(appender)].lock().announced = false;
    }

    /// Moves pending records to the end of `group`, whole queues until it is full. From here until [`Self::decide`]
    /// they are in flight.
    pub(super) fn take_pending(&self, group: &mut Vec<u8>) -> Taken {
        let mut taken = Taken { records: 0, left_over: false };
        for queue in &self.queues {
            let mut queue = queue.lock();
            if queue.records == 0 {
                continue;
            }
            if queue.grouped.open {
                // Its end wakes the pump; of a log that is being closed, there may be none any more.
                taken.left_over |= self.is_closed();
                continue;
            }
            if taken.records > 0 && group.len() + queue.pending.len() > self.limits.group {
                taken.left_over = true;
                continue;
            }
            taken.records += queue.records;
            queue.records_in_flight = queue.records;
            queue.records = 0;
            queue.grouped.taken();
            group.append(&mut queue.pending);
            queue.filling += 1;
            queue.in_flight = std::mem::take(&mut queue.waiting);
        }
        taken
    }

    /// Decides everything that was taken: durable up to `Ok(end)`, or lost.
    pub(super) fn decide(&self, outcome: Result<Position, Lost>) {
        match outcome {
            Ok(end) => *self.durable_end.lock() = end,
            Err(Lost::Poisoned) => self.poisoned.store(true, Ordering::Release),
            // The door was shut where the room was looked for.
            Err(Lost::Full(_)) => {}
        }
        for queue in &self.queues {
            let mut queue = queue.lock();
            let batches = queue.decided..queue.filling;
            if batches.is_empty() {
                continue;
            }
            queue.decided = batches.end;
            queue.records_in_flight = 0;
            queue.grouped.decided();
            if let Err(lost) = outcome {
                match queue.lost.last_mut() {
                    Some((range, same)) if range.end == batches.start && *same == lost => {
                        range.end = batches.end;
                    }
                    _ => queue.lost.push((batches, lost)),
                }
            }
            let mut woken = std::mem::take(&mut queue.in_flight);
            queue.done.append(&mut woken);
            if let Some(pump) = queue.pump.take() {
                drop(queue);
                pump.wake();
            }
        }
    }

    /// Opens or shuts the door.
    pub(super) fn set_shortage(&self, shortage: Option<Shortage>) {
        *self.shortage.lock() = shortage;
        self.short.store(shortage.is_some(), Ordering::Release);
    }

    fn may_append(&self) -> Result<(), AppendError> {
        if self.is_poisoned() {
            return Err(AppendError::Poisoned);
        }
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        if self.short.load(Ordering::Acquire)
            && let Some(shortage) = *self.shortage.lock()
        {
            return Err(AppendError::Full(shortage));
        }
        Ok(())
    }
}
