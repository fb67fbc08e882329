//! From a parsed hit, click or adjustment to a durable record: deduplication and the log, without HTTP.
//!
//! ```text
//! submit ─ no key ───────────────────────────────────────────────▶ take ─▶ wait for the sync ─▶ New
//!    └──── key ─ never seen ──▶ admit (record and key in one step) ─▶ wait ─▶ New
//!             └─ maybe: in the map ──▶ wait for the first copy ─▶ Duplicate
//!                       in ClickHouse ──────────────────────────▶ Duplicate
//!                       no answer, or the map is incomplete ────▶ admit, flagged ─▶ Unverified
//! ```

mod click_ids;
mod counters;
mod gate;
mod keyed;
mod records;
mod submission;
mod visit;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    click_ids::ClickIds,
    gate::Gate,
    submission::{AdjustOutcome, AdjustmentSubmission, ClickOutcome, ClickSubmission, Outcome, Submission},
};
use self::{
    counters::{Counters, Outcomes},
    gate::Held,
    keyed::{Admitted, Seen},
    records::{first_of, new_id},
    visit::Visit,
};
use crate::{
    core::{AdjustmentId, ClickId, ConversionId, IpStorage, Kind, Record, Refusal, UnixMillis, payload},
    dedup::{Dedup, First, KeyHasher, KeyRef, Lookup},
    shipper::Ledger,
    telemetry::Histogram,
    wal::{AppendError, Appender, Ticket, Wal},
};

/// What a client is told to wait when the disk does not keep up.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(1);
/// What a client is told to wait when there is no room: that takes somebody, or ClickHouse's return.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(30);

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
    click_ids: ClickIds,
    ledger: Arc<Ledger>,
    counters: Counters,
}

impl IntakeShared {
    /// The parts together.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own, named where it is made")]
    pub fn new(
        wal: Wal,
        dedup: Arc<Dedup<Ticket>>,
        lookup: Lookup,
        hasher: KeyHasher,
        ip_storage: IpStorage,
        click_ids: ClickIds,
        ack_seconds: Arc<Histogram>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let counters = Counters::new(ack_seconds);
        Self { wal, dedup, lookup, hasher, ip_storage, click_ids, ledger, counters }
    }
}

/// Why a record was not made.
#[derive(Clone, Copy, Debug)]
enum NotTaken {
    Overloaded(Duration),
    Unavailable,
}

impl From<AppendError> for NotTaken {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Overloaded => Self::Overloaded(RETRY_AFTER_OVERLOAD),
            AppendError::Full(_) => Self::Overloaded(RETRY_AFTER_FULL),
            AppendError::Closed | AppendError::Poisoned | AppendError::TooLarge => Self::Unavailable,
        }
    }
}

/// What was decided about a submission, and the record that this stands on.
enum Decided<I> {
    /// A record of its own was taken.
    New { id: I, ticket: Ticket, unverified: bool },
    /// The first copy's record; none: it has been durable for long.
    Duplicate { original: I, conflict: bool, ticket: Option<Ticket> },
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
        let since = Instant::now();
        let decided = self.decide_hit(&submission).await;
        self.hold(gate, since, &self.shared.counters.hits, Kind::Conversion, decided.as_ref());
        decided.map_or_else(Outcome::from, Outcome::from)
    }

    /// Takes a reported click; see [`Self::submit`].
    pub async fn click(&self, click: ClickSubmission, gate: &Gate) -> ClickOutcome {
        let since = Instant::now();
        let decided = self.decide_click(click).await;
        self.hold(gate, since, &self.shared.counters.clicks, Kind::Click, decided.as_ref());
        decided.map_or_else(ClickOutcome::from, ClickOutcome::from)
    }

    /// Takes an adjustment; see [`Self::submit`].
    pub async fn adjust(&self, adjustment: AdjustmentSubmission, gate: &Gate) -> AdjustOutcome {
        let since = Instant::now();
        let decided = self.decide_adjustment(&adjustment).await;
        self.hold(gate, since, &self.shared.counters.adjustments, Kind::Adjustment, decided.as_ref());
        decided.map_or_else(AdjustOutcome::from, AdjustOutcome::from)
    }

    /// A number for a click that was never given out before and never will be again.
    #[must_use]
    pub fn issue_click_id(&self, now: UnixMillis) -> ClickId {
        self.shared.click_ids.issue(now)
    }

    /// Takes a visit through a link at once; what comes back says whether its record became durable.
    #[must_use]
    pub fn visit(&self, click: ClickSubmission, id: ClickId) -> Visit {
        let click = Record::Click(self.shared.click(click, id, None, false));
        let taken = self.append(Kind::Click, |out| payload::encode(&click, out));
        Visit::new(self.shared.clone(), taken.ok())
    }

    /// Keeps a refused hit for people to read. Nobody waits for it, and it never crowds out hits: false when there was
    /// no room.
    #[must_use]
    pub fn refuse(&self, refusal: Refusal) -> bool {
        let record = Record::Refusal(refusal);
        self.appender.append_unimportant(|out| payload::encode(&record, out)).is_ok()
    }

    async fn decide_hit(&self, submission: &Submission) -> Result<Decided<ConversionId>, NotTaken> {
        let (shared, now) = (&self.shared, submission.received_at);
        let id = ConversionId(new_id(now));
        let take = |key, unverified| {
            let conversion = shared.conversion(submission, id, key, unverified);
            self.append(Kind::Conversion, |out| payload::encode_conversion(&conversion, out))
        };
        let Some(key) = shared.conversion_key(submission) else {
            return Ok(Decided::New { id, ticket: take(None, false)?, unverified: false });
        };
        let differs = |value, currency| value != submission.value || currency != submission.currency;
        let in_flight = |first: First<Ticket>| Decided::Duplicate {
            original: first.id,
            conflict: differs(first.value, first.currency),
            ticket: first.ticket,
        };
        let unverified = match self.look_up(key, now).await {
            Seen::Free { unverified } => unverified,
            Seen::InFlight(first) => return Ok(in_flight(first)),
            Seen::Stored(known) => {
                let conflict = differs(known.value, known.currency);
                return Ok(Decided::Duplicate { original: known.id, conflict, ticket: None });
            }
        };
        let first = First { id, value: submission.value, currency: submission.currency, ticket: None };
        match self.admit(key, now, first, unverified, |unverified| take(Some(key), unverified))? {
            Admitted::New { ticket, unverified } => Ok(Decided::New { id, ticket, unverified }),
            Admitted::Taken(first) => Ok(in_flight(first)),
        }
    }

    async fn decide_click(&self, click: ClickSubmission) -> Result<Decided<ClickId>, NotTaken> {
        let now = click.received_at;
        let Some(key) = self.shared.click_key(&click) else {
            let id = self.issue_click_id(now);
            let click = Record::Click(self.shared.click(click, id, None, false));
            let ticket = self.append(Kind::Click, |out| payload::encode(&click, out))?;
            return Ok(Decided::New { id, ticket, unverified: false });
        };
        let id = click.click_id.unwrap_or(ClickId(0));
        let first = first_of(uuid::Uuid::nil());
        let take = |unverified| {
            let click = Record::Click(self.shared.click(click.clone(), id, Some(key), unverified));
            self.append(Kind::Click, |out| payload::encode(&click, out))
        };
        self.decide_keyed(key, now, first, id, |_| id, take).await
    }

    async fn decide_adjustment(
        &self,
        adjustment: &AdjustmentSubmission,
    ) -> Result<Decided<AdjustmentId>, NotTaken> {
        let now = adjustment.received_at;
        let id = new_id(now);
        let take = |key, unverified| {
            let record = IntakeShared::adjustment(adjustment, AdjustmentId(id), key, unverified);
            let record = Record::Adjustment(record);
            self.append(Kind::Adjustment, |out| payload::encode(&record, out))
        };
        let Some(key) = self.shared.adjustment_key(adjustment) else {
            return Ok(Decided::New { id: AdjustmentId(id), ticket: take(None, false)?, unverified: false });
        };
        let original = |id: ConversionId| AdjustmentId(id.0);
        let take = |unverified| take(Some(key), unverified);
        self.decide_keyed(key, now, first_of(id), AdjustmentId(id), original, take).await
    }

    /// The way of what has a key but neither value nor currency. `original` names the first copy by what the map and
    /// ClickHouse keep of it.
    async fn decide_keyed<I>(
        &self,
        key: KeyRef,
        now: UnixMillis,
        first: First<Ticket>,
        id: I,
        original: impl Fn(ConversionId) -> I,
        take: impl Fn(bool) -> Result<Ticket, NotTaken>,
    ) -> Result<Decided<I>, NotTaken> {
        let duplicate =
            |of: ConversionId, ticket| Decided::Duplicate { original: original(of), conflict: false, ticket };
        let unverified = match self.look_up(key, now).await {
            Seen::Free { unverified } => unverified,
            Seen::InFlight(first) => return Ok(duplicate(first.id, first.ticket)),
            Seen::Stored(known) => return Ok(duplicate(known.id, None)),
        };
        match self.admit(key, now, first, unverified, take)? {
            Admitted::New { ticket, unverified } => Ok(Decided::New { id, ticket, unverified }),
            Admitted::Taken(first) => Ok(duplicate(first.id, first.ticket)),
        }
    }

    /// Takes a record.
    fn append(&self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, NotTaken> {
        let ticket = self.appender.append(write)?;
        self.shared.ledger.accept(kind, 1);
        Ok(ticket)
    }

    /// Lets the answer wait for the record that it stands on, and counts what becomes of it.
    fn hold<I>(
        &self,
        gate: &Gate,
        since: Instant,
        counters: &Outcomes,
        kind: Kind,
        decided: Result<&Decided<I>, &NotTaken>,
    ) {
        let (acknowledged, accepted, ticket) = match decided {
            Err(why) => return counters.not_taken(*why, 1),
            Ok(Decided::Duplicate { ticket, .. }) => (&counters.duplicate, None, *ticket),
            Ok(Decided::New { ticket, unverified: true, .. }) => {
                (&counters.unverified, Some(kind), Some(*ticket))
            }
            Ok(Decided::New { ticket, .. }) => (&counters.new, Some(kind), Some(*ticket)),
        };
        match ticket {
            Some(ticket) => gate.hold(Held {
                ticket,
                since,
                accepted,
                acknowledged: acknowledged.clone(),
                lost: counters.lost.clone(),
            }),
            None => acknowledged.increment(1),
        }
    }
}

impl From<Decided<ConversionId>> for Outcome {
    fn from(decided: Decided<ConversionId>) -> Self {
        match decided {
            Decided::New { id, unverified: false, .. } => Self::New(id),
            Decided::New { id, unverified: true, .. } => Self::Unverified(id),
            Decided::Duplicate { original, conflict, .. } => Self::Duplicate { original, conflict },
        }
    }
}

impl From<Decided<ClickId>> for ClickOutcome {
    fn from(decided: Decided<ClickId>) -> Self {
        match decided {
            Decided::New { id, unverified: false, .. } => Self::New(id),
            Decided::New { id, unverified: true, .. } => Self::Unverified(id),
            Decided::Duplicate { original, .. } => Self::Duplicate(original),
        }
    }
}

impl From<Decided<AdjustmentId>> for AdjustOutcome {
    fn from(decided: Decided<AdjustmentId>) -> Self {
        match decided {
            Decided::New { id, unverified: false, .. } => Self::New(id),
            Decided::New { id, unverified: true, .. } => Self::Unverified(id),
            Decided::Duplicate { original, .. } => Self::Duplicate(original),
        }
    }
}

/// Nothing was kept, whatever was sent.
macro_rules! nothing_kept {
    ($($outcome:ident)*) => {
        $(impl From<NotTaken> for $outcome {
            fn from(why: NotTaken) -> Self {
                match why {
                    NotTaken::Overloaded(retry_after) => Self::Overloaded { retry_after },
                    NotTaken::Unavailable => Self::Unavailable,
                }
            }
        })*
    };
}

nothing_kept!(Outcome ClickOutcome AdjustOutcome);
