//! Outgoing postbacks: told at least once, durably, and never to an address that must not be reached.
//!
//! # The way of a postback
//!
//! ```text
//! shipper: batch inserted ▶ outbox (durable) ▶ checkpoint ▶ released ─▶ courier: due? ▶ attempt ▶ outcome (durable) ─▶ log
//! ```
//!
//! What a batch brings for goals with an endpoint lies in the [`Outbox`] before the batch counts as settled, under the
//! conversion's id: a kill in between puts the same entries there again, under the same names. Entries of a batch above
//! the checkpoint are not sent. An attempt's outcome and its line for the log are one durable change; a kill before it
//! repeats the attempt, under the same `webhook-id`. So each postback leaves at least once, and its copies are known by
//! their name.
//!
//! The `courier` sends to many endpoints at a time. Each has a limit of its own, which is low until it answers fast, and
//! a breaker that lets a failing one rest. Those that are fast, those that have not answered yet and those that are slow
//! or fail have room of their own (`roster`), and what becomes of attempts is made durable on another thread (`keeper`).
//! So an endpoint that hangs delays nobody else.

mod attempt;
mod client;
mod courier;
mod endpoint;
mod entry;
mod forget;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod keeper;
mod log;
mod outbox;
mod outcome;
mod roster;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::{client::Client, entry::Entry, outbox::Outcome};
pub use self::{
    courier::deliver,
    forget::{ForgetError, Forgotten, forget},
    guard::{Guard, Resolve, SystemResolver, UrlRefused},
    log::{DeliveryLog, LogUnavailable, keep_logged},
    outbox::{Outbox, OutboxError},
};
use crate::{
    account_slots::{AccountSlots, NoSlot},
    catalog::Catalog,
    clock::Clock,
    core::{
        BatchId, ClickId, ConversionId, CountedConversion, Currency, Goal, GoalId, LinkId, Money, OrderId,
        UnixMillis,
        webhook::{Event, TestAnswer},
    },
};

/// The outbox's file in the data folder.
pub const FILE_NAME: &str = "outbox.redb";
/// Most postbacks that one goal may have waiting; more are counted and can be brought by a backfill.
const QUEUED_PER_GOAL_MAX: u64 = 2_000_000;
/// Most postbacks that may wait.
const QUEUED_MAX: u64 = 10_000_000;
/// How attempts are counted that are not made, since nobody is to be told any more.
const WITHDRAWN: &str = "withdrawn";
/// Samples that may be on their way at a time, of one account and of all.
const ACCOUNT_TESTS_MAX: usize = 2;
const TESTS_MAX: usize = 64;

/// More postbacks wait than may.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no room.
    #[error("as many postbacks wait as may")]
    Full,
    /// The outbox can't be written.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// What waits to be told, and what it takes to tell it.
pub struct Postbacks {
    outbox: Outbox,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    client: Client,
    /// Entries of later batches are not sent.
    settled: AtomicU64,
    /// How many entries each goal has.
    queued: Mutex<HashMap<GoalId, u64>>,
    /// Goals whose entries wait for the release of their batch.
    prepared: Mutex<HashSet<GoalId>>,
    /// Goals with new entries that the courier does not know of.
    touched: Mutex<HashSet<GoalId>>,
    wake: Notify,
    tests: Arc<AccountSlots>,
    /// Conversions of people that are erased, while attempts for them may be on their way; and whether their entries are
    /// gone already. Held while outcomes are kept.
    forgotten: Mutex<HashMap<ConversionId, bool>>,
    /// Where it is asked for.
    forget_folder: PathBuf,
}

impl Postbacks {
    /// Opens the data folder's outbox. `settled` is the last batch that the checkpoint counts as done. Blocks.
    pub fn open(
        data_dir: &Path,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        guard: Guard,
        settled: BatchId,
    ) -> Result<Self, OutboxError> {
        let outbox = Outbox::open(&data_dir.join(FILE_NAME))?;
        let queued = outbox.goals()?;
        Ok(Self {
            outbox,
            catalog,
            clock,
            client: Client::new(guard),
            settled: AtomicU64::new(settled.0),
            prepared: Mutex::default(),
            touched: Mutex::new(queued.keys().copied().collect()),
            queued: Mutex::new(queued),
            wake: Notify::new(),
            tests: AccountSlots::new(ACCOUNT_TESTS_MAX, TESTS_MAX),
            forgotten: Mutex::default(),
            forget_folder: forget::folder(data_dir),
        })
    }

    /// Whether a goal's owner is told of its conversions.
    #[must_use]
    pub fn listens(&self, goal: GoalId) -> bool {
        self.catalog.snapshot().tells(goal)
    }

    /// Lays down what a batch brings, durably. It is sent once the batch is released. Blocks.
    pub fn prepare(&self, batch: BatchId, conversions: &[CountedConversion]) -> Result<(), OutboxError> {
        let snapshot = self.catalog.snapshot();
        let now = self.clock.now();
        let mut free = self.room();
        let mut left_out = 0;
        let mut entries = Vec::new();
        for counted in conversions {
            let goal = counted.conversion.goal_id;
            if !snapshot.tells(goal) {
                continue;
            }
            if free.take(goal) {
                entries.push(Entry::new(Event::new(counted), batch, now));
            } else {
                left_out += 1;
            }
        }
        if left_out > 0 {
            counter!("tally_postbacks_left_out_total").increment(left_out);
            tracing::error!(
                left_out,
                "as many postbacks wait as may; a backfill brings those that were left out"
            );
        }
        let goals = self.put(&entries)?;
        self.prepared.lock().extend(goals);
        Ok(())
    }

    /// The batch, and every one before it, counts: its entries may leave.
    pub fn release(&self, batch: BatchId) {
        self.settled.fetch_max(batch.0, Ordering::Release);
        let prepared = std::mem::take(&mut *self.prepared.lock());
        if !prepared.is_empty() {
            self.touched.lock().extend(prepared);
            self.wake.notify_one();
        }
    }

    /// Queues postbacks of conversions that count already, to be sent at once: all of them, or none. Blocks.
    pub fn queue(&self, events: Vec<Event>) -> Result<(), QueueError> {
        let now = self.clock.now();
        let mut free = self.room();
        if !events.iter().all(|event| free.take(event.goal_id)) {
            return Err(QueueError::Full);
        }
        let entries: Vec<_> = events.into_iter().map(|event| Entry::new(event, BatchId(0), now)).collect();
        let goals = self.put(&entries)?;
        self.touched.lock().extend(goals);
        self.wake.notify_one();
        Ok(())
    }

    /// Whether a goal's owner may name this URL.
    pub async fn vet(&self, url: &str) -> Result<(), UrlRefused> {
        self.client.guard().vet_template(url).await
    }

    /// Sends a sample to the goal's endpoint and says what it answered.
    pub async fn test(&self, goal: &Goal) -> Result<TestAnswer, NoSlot> {
        let _slot = self.tests.take(goal.account_id)?;
        let now = self.clock.now();
        let event = sample(goal, now);
        let outcome = attempt::run(&self.client, goal, &event, now, false).await;
        Ok(TestAnswer {
            webhook_id: event.webhook_id(),
            status: outcome.status,
            error: outcome.error.to_owned(),
            latency_millis: outcome.latency_millis,
            answer: outcome.answer,
        })
    }

    /// Says whose entries they are.
    fn put(&self, entries: &[Entry]) -> Result<HashSet<GoalId>, OutboxError> {
        let goals: HashSet<_> = entries.iter().map(|entry| entry.event.goal_id).collect();
        if goals.is_empty() {
            return Ok(goals);
        }
        let added = self.outbox.put(entries)?;
        let mut queued = self.queued.lock();
        for (goal, added) in added {
            *queued.entry(goal).or_default() += added;
        }
        Ok(goals)
    }

    /// Keeps what became of attempts. Says how many lines of the log there was no room for.
    fn keep(&self, outcomes: &mut [Outcome]) -> Result<u64, OutboxError> {
        let forgotten = self.forgotten.lock();
        for outcome in outcomes.iter_mut() {
            if forgotten.contains_key(&outcome.line.0.conversion_id) {
                outcome.forget();
            }
        }
        self.outbox.keep(outcomes)
    }

    fn room(&self) -> Room {
        let queued = self.queued.lock().clone();
        let total = queued.values().sum();
        Room { queued, total }
    }

    fn settled(&self) -> BatchId {
        BatchId(self.settled.load(Ordering::Acquire))
    }
}

/// What may still be queued.
struct Room {
    queued: HashMap<GoalId, u64>,
    total: u64,
}

impl Room {
    fn take(&mut self, goal: GoalId) -> bool {
        let of_goal = self.queued.entry(goal).or_default();
        let fits = *of_goal < QUEUED_PER_GOAL_MAX && self.total < QUEUED_MAX;
        if fits {
            *of_goal += 1;
            self.total += 1;
        }
        fits
    }
}

/// A conversion that nobody made, marked as such.
fn sample(goal: &Goal, now: UnixMillis) -> Event {
    Event {
        conversion_id: ConversionId(uuid::Uuid::now_v7()),
        account_id: goal.account_id,
        goal_id: goal.id,
        order_id: OrderId::parse("TEST-ORDER").ok().flatten(),
        click_id: Some(ClickId(1)),
        link_id: Some(LinkId(1)),
        value: goal.value.unwrap_or(Money::ZERO),
        currency: goal.currency.unwrap_or(Currency::USD),
        converted_at: now,
        method: Some("click_id"),
        reason: None,
        test: true,
    }
}

/// Describes what this module counts.
pub fn describe_metrics() {
    describe_gauge!("tally_postbacks_queued", Unit::Count, "Postbacks that wait, retries among them.");
    describe_gauge!(
        "tally_postback_oldest_age_seconds",
        Unit::Seconds,
        "Age of the oldest conversion whose postback waits."
    );
    describe_counter!("tally_postback_attempts_total", Unit::Count, "Attempts by what came of them.");
    // There from the start: an alert must tell 'none' from 'not known'.
    for name in outcome::NAMES.into_iter().chain([WITHDRAWN]) {
        counter!("tally_postback_attempts_total", "outcome" => name).absolute(0);
    }
    counter!("tally_postbacks_left_out_total").absolute(0);
    counter!("tally_postback_attempts_unlogged_total").absolute(0);
    describe_histogram!("tally_postback_attempt_seconds", Unit::Seconds, "How long attempts took.");
    describe_gauge!(
        "tally_postback_endpoints_disabled",
        Unit::Count,
        "Goals whose endpoint answered 410 and is not called any more."
    );
    describe_counter!(
        "tally_postbacks_left_out_total",
        Unit::Count,
        "Postbacks that were not queued, since as many waited as may."
    );
    describe_counter!(
        "tally_postback_attempts_unlogged_total",
        Unit::Count,
        "Attempts that are not in the log of deliveries, since ClickHouse took none for too long."
    );
}
