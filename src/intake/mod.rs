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
mod group;
mod hold;
mod items;
mod keyed;
mod records;
mod submission;
#[cfg(test)]
mod tests;
mod visit;
mod visitors;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    click_ids::{CLICK_IDS_FILE, ClickIds, ClickIdsError},
    gate::Gate,
    submission::{
        AdjustOutcome, AdjustmentSubmission, ClickOutcome, ClickSubmission, Outcome, Sameness, Submission,
    },
    visitors::{VISITOR_KEYS_FILE, VisitorKeysError, Visitors},
};
use self::{counters::Counters, items::Item, keyed::Seen, visit::Visit};
use crate::{
    core::{
        AccountId, AdjustmentId, ClickId, ConversionId, IpStorage, Kind, Record, Refusal, UnixMillis, payload,
    },
    dedup::{Dedup, KeyHasher, Lookup},
    shipper::Ledger,
    telemetry::Histogram,
    wal::{AppendError, Appender, Ticket, Wal},
};

/// What a client is told to wait when the disk does not keep up.
const RETRY_AFTER_OVERLOAD: Duration = Duration::from_secs(1);
/// What a client is told to wait when there is no room: that takes somebody, or ClickHouse's return.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(30);

/// Most numbers of clicks that are passed over because the account has reported them; each is passed over once.
const SKIPPED_MAX: usize = 1000;

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
    visitors: Arc<Visitors>,
    click_ids: Arc<ClickIds>,
    ledger: Arc<Ledger>,
    counters: Counters,
}

/// Where the intake writes and whom it asks.
pub struct Parts {
    /// The log.
    pub wal: Wal,
    /// The filter and the keys in flight.
    pub dedup: Arc<Dedup<Ticket>>,
    /// ClickHouse's key table.
    pub lookup: Lookup,
    /// What keys are hashed with.
    pub hasher: KeyHasher,
    /// What is kept of a visitor's address.
    pub ip_storage: IpStorage,
    /// What visitors are hashed with.
    pub visitors: Arc<Visitors>,
    /// Where clicks get their numbers.
    pub click_ids: Arc<ClickIds>,
    /// Where what is accepted is counted.
    pub ledger: Arc<Ledger>,
    /// How long acknowledgements take.
    pub ack_seconds: Arc<Histogram>,
}

impl IntakeShared {
    /// The parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { wal, dedup, lookup, hasher, ip_storage, visitors, click_ids, ledger, ack_seconds } =
            parts;
        let counters = Counters::new(ack_seconds);
        Self { wal, dedup, lookup, hasher, ip_storage, visitors, click_ids, ledger, counters }
    }

    /// The next number that the account has not reported a click by, as far as memory tells: the filter of a daemon that
    /// has just started may not hold every key yet.
    fn issue_click_id(&self, account: AccountId, now: UnixMillis) -> ClickId {
        let issue = || self.click_ids.issue(now);
        let is_free = |id: &ClickId| {
            let key = self.hasher.click(account, *id);
            !self.dedup.filter().may_contain(key) && !self.dedup.in_flight().contains(key)
        };
        std::iter::repeat_with(issue).take(SKIPPED_MAX).find(is_free).unwrap_or_else(issue)
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
    Duplicate { original: I, sameness: Sameness, ticket: Option<Ticket> },
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
        Gate::new(self.shared.clone())
    }

    /// Takes a hit. The outcome holds when `gate` opens, and not before: the first three then stand for a record on disk.
    /// Dropping the future or the gate loses the answer, not the hit.
    pub async fn submit(&self, submission: Submission, gate: &Gate) -> Outcome {
        self.one(&submission, gate).await
    }

    /// Takes a reported click; see [`Self::submit`].
    pub async fn click(&self, click: ClickSubmission, gate: &Gate) -> ClickOutcome {
        self.one(&click, gate).await
    }

    /// Takes an adjustment; see [`Self::submit`].
    pub async fn adjust(&self, adjustment: AdjustmentSubmission, gate: &Gate) -> AdjustOutcome {
        self.one(&adjustment, gate).await
    }

    /// Takes hits: those that count become durable in one group. The outcomes stand in the order of the hits; where
    /// nothing could be taken, that is each one's outcome.
    pub async fn submit_all(&self, submissions: Vec<Submission>, gate: &Gate) -> Vec<Outcome> {
        self.all(&submissions, gate).await
    }

    /// Takes reported clicks; see [`Self::submit_all`].
    pub async fn clicks(&self, clicks: Vec<ClickSubmission>, gate: &Gate) -> Vec<ClickOutcome> {
        self.all(&clicks, gate).await
    }

    /// A number for a click that was never given out before and never will be again, nor has the account reported a click
    /// by it.
    #[must_use]
    pub fn issue_click_id(&self, account: AccountId, now: UnixMillis) -> ClickId {
        self.shared.issue_click_id(account, now)
    }

    /// Takes a visit through a link at once; what comes back says whether its record became durable.
    #[must_use]
    pub fn visit(&self, click: ClickSubmission, id: ClickId) -> Visit {
        let click = Record::Click(self.shared.click(click, id, None, false));
        let taken = self.appender.append(|out| payload::encode(&click, out));
        if taken.is_ok() {
            self.shared.ledger.accept(Kind::Click, 1);
        }
        Visit::new(self.shared.clone(), taken.ok())
    }

    /// Keeps a refused hit for people to read. Nobody waits for it, and it never crowds out hits: false when there was
    /// no room.
    #[must_use]
    pub fn refuse(&self, refusal: Refusal) -> bool {
        let record = Record::Refusal(refusal);
        self.appender.append_unimportant(|out| payload::encode(&record, out)).is_ok()
    }

    async fn one<S: Item, O>(&self, item: &S, gate: &Gate) -> O
    where
        O: From<Decided<S::Id>> + From<NotTaken>,
    {
        let since = Instant::now();
        match self.decide(item).await {
            Ok(decided) => {
                self.hold::<S>(gate, since, [&decided]);
                decided.into()
            }
            Err(why) => {
                self.shared.counters.outcomes[S::KIND].not_taken(why, 1);
                why.into()
            }
        }
    }

    async fn decide<S: Item>(&self, item: &S) -> Result<Decided<S::Id>, NotTaken> {
        if item.may_repeat_issued(&self.shared) {
            self.shared.wal.catch_up().await;
        }
        let key = item.key(&self.shared);
        let seen = match key {
            Some(key) => self.look_up(key, item.received_at()).await,
            None => Seen::Free { unverified: false },
        };
        self.record(item, key, &seen, &self.appender)
    }
}

impl From<Decided<ConversionId>> for Outcome {
    fn from(decided: Decided<ConversionId>) -> Self {
        match decided {
            Decided::New { id, unverified: false, .. } => Self::New(id),
            Decided::New { id, unverified: true, .. } => Self::Unverified(id),
            Decided::Duplicate { original, sameness, .. } => {
                Self::Duplicate { original, conflict: sameness == Sameness::Different }
            }
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
            Decided::Duplicate { original, sameness, .. } => Self::Duplicate { original, sameness },
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
