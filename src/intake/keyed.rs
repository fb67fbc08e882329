//! Whether a key is new: the filter, the map of keys in flight, ClickHouse; and the step that makes it known.

use super::{Intake, NotTaken};
use crate::{
    core::UnixMillis,
    dedup::{Admission, First, KeyRef, KnownKey},
    wal::{Ticket, TicketStatus},
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
pub(super) enum Admitted {
    /// Its own record was taken.
    New { ticket: Ticket, unverified: bool },
    /// Another copy was faster.
    Taken(First<Ticket>),
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

    /// Makes the record and its key known in one step, unless another copy was faster. `first` is the copy without its
    /// ticket; `take` makes the record, flagged as unverified or not.
    pub(super) fn admit(
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
