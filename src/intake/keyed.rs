//! Whether a key is new: the filter, the map of keys in flight, ClickHouse; and the step that makes it known.

use super::{Decided, Intake, NotTaken, items::Item};
use crate::{
    core::UnixMillis,
    dedup::{Admission, Content, First, KeyRef, KnownKey},
    wal::{AppendError, Appender, Group, Ticket, TicketStatus},
};

/// What is known of a key before its record is made.
pub(super) enum Seen {
    /// Nothing.
    Free {
        /// Nobody could say for certain.
        unverified: bool,
    },
    /// The first copy is on its way to ClickHouse.
    InFlight(First<Ticket>),
    /// ClickHouse has it.
    Stored(KnownKey),
}

/// What became of a record with a key.
enum Admitted {
    /// Its own record was taken.
    New { ticket: Ticket, unverified: bool },
    /// Another copy was faster.
    Taken(First<Ticket>),
}

/// Where records are taken: each by itself, or as one of a group.
pub(super) trait Log {
    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, AppendError>;
}

impl Log for Appender {
    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, AppendError> {
        Self::append(self, write)
    }
}

impl Log for Group<'_> {
    fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, AppendError> {
        Self::append(self, write)
    }
}

impl Intake {
    /// Asks of a key whether it is known.
    pub(super) async fn look_up(&self, key: KeyRef, now: UnixMillis) -> Seen {
        if let Some(seen) = self.seen_in_memory(key, now) {
            return seen;
        }
        let complete = self.shared.dedup.in_flight().is_complete();
        match self.shared.lookup.find(key, now).await {
            Ok(Some(known)) => Seen::Stored(known),
            Ok(None) => {
                self.shared.counters.filter_false_positives.increment(1);
                Seen::Free { unverified: !complete }
            }
            Err(_) => Seen::Free { unverified: true },
        }
    }

    /// What the filter and the map say; none: ClickHouse has to be asked.
    pub(super) fn seen_in_memory(&self, key: KeyRef, now: UnixMillis) -> Option<Seen> {
        let dedup = &self.shared.dedup;
        if !dedup.may_be_known(key.key) {
            return Some(Seen::Free { unverified: false });
        }
        self.shared.counters.filter_positives.increment(1);
        dedup.in_flight().get(key.key, key.scope, now, |ticket| self.is_lost(ticket)).map(Seen::InFlight)
    }

    /// Makes the record, and its key known in the same step, unless another copy was faster.
    pub(super) fn record<S: Item>(
        &self,
        item: &S,
        key: Option<KeyRef>,
        seen: &Seen,
        log: &impl Log,
    ) -> Result<Decided<S::Id>, NotTaken> {
        let duplicate_of = |first: &First<Ticket>| Decided::Duplicate {
            original: item.original(first.id),
            sameness: item.compare(first.content),
            ticket: first.ticket,
        };
        let unverified = match seen {
            Seen::Free { unverified } => *unverified || item.may_repeat_issued(&self.shared),
            Seen::InFlight(first) => return Ok(duplicate_of(first)),
            Seen::Stored(known) => {
                let sameness = item.compare(Content::Amount(known.value, known.currency));
                return Ok(Decided::Duplicate { original: item.original(known.id), sameness, ticket: None });
            }
        };
        let id = item.id(&self.shared);
        let take = |unverified| -> Result<Ticket, NotTaken> {
            let ticket = log.append(|out| item.encode(&self.shared, id, key, unverified, out))?;
            self.shared.ledger.accept(S::KIND, 1);
            Ok(ticket)
        };
        let Some(key) = key else {
            return Ok(Decided::New { id, ticket: take(false)?, unverified: false });
        };
        match self.admit(key, item.received_at(), item.first(id), unverified, take)? {
            Admitted::New { ticket, unverified } => Ok(Decided::New { id, ticket, unverified }),
            Admitted::Taken(first) => Ok(duplicate_of(&first)),
        }
    }

    /// Makes the record and its key known in one step, unless another copy was faster. `first` is the copy without its
    /// ticket; `take` makes the record, flagged as unverified or not.
    fn admit(
        &self,
        key: KeyRef,
        now: UnixMillis,
        first: First<Ticket>,
        mut unverified: bool,
        take: impl Fn(bool) -> Result<Ticket, NotTaken>,
    ) -> Result<Admitted, NotTaken> {
        let in_flight = self.shared.dedup.in_flight();
        let admission = in_flight.admit(
            key.key,
            key.scope,
            now,
            |ticket| self.is_lost(ticket),
            || {
                unverified |= !in_flight.is_complete();
                Ok::<_, NotTaken>(First { ticket: Some(take(unverified)?), ..first })
            },
        )?;
        let ticket = match admission {
            Admission::Taken(first) => return Ok(Admitted::Taken(first)),
            Admission::Admitted(first) => first.ticket,
            Admission::Full => {
                unverified = true;
                self.shared.dedup.filter().insert(key.key);
                let taken = take(true);
                in_flight.bypassed(self.shared.wal.taken_end_lsn());
                Some(taken?)
            }
        };
        // An admitted copy always has its ticket.
        ticket.map(|ticket| Admitted::New { ticket, unverified }).ok_or(NotTaken::Unavailable)
    }

    fn is_lost(&self, ticket: Ticket) -> bool {
        matches!(self.shared.wal.status_of(ticket), TicketStatus::Lost(_))
    }
}
