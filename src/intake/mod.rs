//! From a parsed hit to a durable record: deduplication and the log, without HTTP.
//!
//! ```text
//! submit ─ no key ───────────────────────────────────────────────▶ take ─▶ wait for the sync ─▶ New
//!    └──── key ─ never seen ──▶ admit (record and key in one step) ─▶ wait ─▶ New
//!             └─ maybe: in the map ──▶ wait for the first copy ─▶ Duplicate
//!                       in ClickHouse ──────────────────────────▶ Duplicate
//!                       no answer, or the map is incomplete ────▶ admit, flagged ─▶ Unverified
//! ```

mod gate;
mod submission;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::Counter;
use uuid::Builder;

use self::gate::Held;
pub use self::{
    gate::Gate,
    submission::{Outcome, Submission},
};
use crate::{
    core::{
        Conversion, ConversionId, DedupScope, IpStorage, OrderId, OrderKey, Record, Refusal, UnixMillis,
        payload,
    },
    dedup::{Admission, Dedup, First, KeyHasher, KeyRef, Lookup},
    shipper::Ledger,
    telemetry::Histogram,
    wal::{AppendError, Appender, Ticket, TicketStatus, Wal},
};

/// What a client is told to wait when the disk does not keep up.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(1);
/// What a client is told to wait when there is no room: that takes somebody, or ClickHouse's return.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(30);
/// Longest user agent kept, in bytes.
const USER_AGENT_BYTES_MAX: usize = 512;

/// Takes submissions on one worker. Clones share everything.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<IntakeShared>,
    appender: Appender,
}

/// What the intakes of all workers share.
pub struct IntakeShared {
    wal: Wal,
    dedup: Arc<Dedup<Ticket>>,
    lookup: Lookup,
    hasher: KeyHasher,
    ip_storage: IpStorage,
    ledger: Arc<Ledger>,
    counters: Counters,
}

/// Handles taken once.
struct Counters {
    new: Counter,
    duplicate: Counter,
    unverified: Counter,
    overloaded: Counter,
    unavailable: Counter,
    lost: Counter,
    filter_positives: Counter,
    filter_false_positives: Counter,
    ack_seconds: Arc<Histogram>,
}

impl Counters {
    fn new(ack_seconds: Arc<Histogram>) -> Self {
        let hits = |outcome: &'static str| metrics::counter!("tally_hits_total", "outcome" => outcome);
        Self {
            new: hits("new"),
            duplicate: hits("duplicate"),
            unverified: hits("unverified"),
            overloaded: hits("overloaded"),
            unavailable: hits("unavailable"),
            lost: hits("lost"),
            filter_positives: metrics::counter!("tally_filter_positives_total"),
            filter_false_positives: metrics::counter!("tally_filter_false_positives_total"),
            ack_seconds,
        }
    }
}

impl IntakeShared {
    /// The parts together.
    #[must_use]
    pub fn new(
        wal: Wal,
        dedup: Arc<Dedup<Ticket>>,
        lookup: Lookup,
        hasher: KeyHasher,
        ip_storage: IpStorage,
        ack_seconds: Arc<Histogram>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { wal, dedup, lookup, hasher, ip_storage, ledger, counters: Counters::new(ack_seconds) }
    }
}

/// Why a record was not made.
enum NotTaken {
    Overloaded(Duration),
    Unavailable,
}

impl Intake {
    /// The intake of the worker that runs `appender`'s pump.
    #[must_use]
    pub fn new(shared: Arc<IntakeShared>, appender: Appender) -> Self {
        Self { shared, appender }
    }

    /// A gate for a connection of this worker.
    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate::new(
            self.shared.wal.clone(),
            self.shared.counters.ack_seconds.clone(),
            self.shared.ledger.clone(),
        )
    }

    /// Takes a hit. The outcome holds when `gate` opens, and not before: the first three then stand for a record on disk.
    /// Dropping the future or the gate loses the answer, not the hit.
    pub async fn submit(&self, submission: Submission, gate: &Gate) -> Outcome {
        let counters = &self.shared.counters;
        let since = Instant::now();
        let (outcome, ticket) = match self.try_submit(submission).await {
            Ok(taken) => taken,
            Err(NotTaken::Overloaded(retry_after)) => {
                counters.overloaded.increment(1);
                return Outcome::Overloaded { retry_after };
            }
            Err(NotTaken::Unavailable) => {
                counters.unavailable.increment(1);
                return Outcome::Unavailable;
            }
        };
        let acknowledged = match outcome {
            Outcome::Duplicate { .. } => &counters.duplicate,
            Outcome::Unverified(_) => &counters.unverified,
            _ => &counters.new,
        };
        match ticket {
            Some(ticket) => gate.hold(Held {
                ticket,
                since,
                accepted: !matches!(outcome, Outcome::Duplicate { .. }),
                acknowledged: acknowledged.clone(),
                lost: counters.lost.clone(),
            }),
            None => acknowledged.increment(1),
        }
        outcome
    }

    /// Keeps a refused hit for people to read. Nobody waits for it, and it never crowds out hits: false when there was
    /// no room.
    #[must_use]
    pub fn refuse(&self, refusal: Refusal) -> bool {
        let record = Record::Refusal(refusal);
        self.appender.append_unimportant(|out| payload::encode(&record, out)).is_ok()
    }

    /// The outcome, and the record that it stands on; none where that has been durable for long.
    async fn try_submit(&self, submission: Submission) -> Result<(Outcome, Option<Ticket>), NotTaken> {
        let Some(key) = self.key_of(&submission) else {
            let id = new_id(submission.received_at);
            let ticket = self.take(&submission, id, None, false)?;
            return Ok((Outcome::New(id), Some(ticket)));
        };
        let in_flight = self.shared.dedup.in_flight();
        let mut unverified = false;
        if self.shared.dedup.may_be_known(key.key) {
            self.shared.counters.filter_positives.increment(1);
            if let Some(first) =
                in_flight.get(key.key, key.scope, submission.received_at, |t| self.is_lost(t))
            {
                return Ok(duplicate_of(&first, &submission));
            }
            let complete = in_flight.is_complete();
            match self.shared.lookup.find(key, submission.received_at).await {
                Ok(Some(known)) => {
                    let conflict = known.value != submission.value || known.currency != submission.currency;
                    return Ok((Outcome::Duplicate { original: known.id, conflict }, None));
                }
                Ok(None) => {
                    self.shared.counters.filter_false_positives.increment(1);
                    unverified = !complete;
                }
                Err(_) => unverified = true,
            }
        }
        self.admit(&submission, key, unverified)
    }

    /// Makes the record and its key known in one step, unless another copy was faster.
    fn admit(
        &self,
        submission: &Submission,
        key: KeyRef,
        mut unverified: bool,
    ) -> Result<(Outcome, Option<Ticket>), NotTaken> {
        let in_flight = self.shared.dedup.in_flight();
        let received_at = submission.received_at;
        let id = new_id(received_at);
        let take = |unverified| self.take(submission, id, Some((key.key, key.scope)), unverified);
        let admission = in_flight.admit(
            key.key,
            key.scope,
            received_at,
            |t| self.is_lost(t),
            || {
                unverified |= !in_flight.is_complete();
                let ticket = Some(take(unverified)?);
                Ok(First { id, value: submission.value, currency: submission.currency, ticket })
            },
        )?;
        let ticket = match admission {
            Admission::Taken(first) => return Ok(duplicate_of(&first, submission)),
            Admission::Admitted(first) => first.ticket,
            Admission::Full => {
                unverified = true;
                self.shared.dedup.filter().insert(key.key);
                let taken = take(true);
                in_flight.bypassed(self.shared.wal.taken_end_lsn());
                Some(taken?)
            }
        };
        Ok((if unverified { Outcome::Unverified(id) } else { Outcome::New(id) }, ticket))
    }

    fn take(
        &self,
        submission: &Submission,
        id: ConversionId,
        key: Option<(OrderKey, DedupScope)>,
        unverified: bool,
    ) -> Result<Ticket, NotTaken> {
        let agent = &submission.user_agent;
        let user_agent = &agent[..agent.floor_char_boundary(USER_AGENT_BYTES_MAX)];
        let conversion = Conversion {
            id,
            account_id: submission.account_id,
            goal_id: submission.goal_id,
            order_id: submission.order_id.clone(),
            key,
            value: submission.value,
            currency: submission.currency,
            received_at: submission.received_at,
            converted_at: submission.received_at,
            window_seconds: 30 * 86_400,
            matching: crate::core::Matching::Unknown,
            source: submission.source,
            click_id: submission.click_id,
            visitor_key: self.shared.hasher.visitor(submission.account_id, submission.ip, user_agent),
            ip: submission.ip.and_then(|ip| self.shared.ip_storage.keep(ip)),
            user_agent: user_agent.to_owned(),
            unverified,
        };
        let taken = self.appender.append(|out| payload::encode_conversion(&conversion, out));
        let ticket = taken.map_err(|error| match error {
            AppendError::Overloaded => NotTaken::Overloaded(RETRY_AFTER_OVERLOAD),
            AppendError::Full(_) => NotTaken::Overloaded(RETRY_AFTER_FULL),
            AppendError::Closed | AppendError::Poisoned | AppendError::TooLarge => NotTaken::Unavailable,
        })?;
        self.shared.ledger.accept(1);
        Ok(ticket)
    }

    fn is_lost(&self, ticket: Ticket) -> bool {
        matches!(self.shared.wal.status_of(ticket), TicketStatus::Lost(_))
    }

    fn key_of(&self, submission: &Submission) -> Option<KeyRef> {
        let goal = submission.goal_id;
        let (scope, text) = match (&submission.order_id, &submission.idempotency_key) {
            (Some(order_id), _) => (DedupScope::Forever, OrderId::as_str(order_id)),
            (None, Some(key)) => (DedupScope::Day, key.as_str()),
            (None, None) => return None,
        };
        Some(KeyRef { goal, key: self.shared.hasher.order(goal, scope, text), scope })
    }
}

/// A second copy's answer stands on the first one's record, and falls with it.
fn duplicate_of(first: &First<Ticket>, submission: &Submission) -> (Outcome, Option<Ticket>) {
    let conflict = first.value != submission.value || first.currency != submission.currency;
    (Outcome::Duplicate { original: first.id, conflict }, first.ticket)
}

/// A UUID of version 7: 48 bits of milliseconds, the rest random.
fn new_id(now: UnixMillis) -> ConversionId {
    let millis = u64::try_from(now.0).unwrap_or_default();
    ConversionId(Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid())
}
