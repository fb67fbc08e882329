//! The courier: gives endpoints their turns, starts attempts, decides what comes of them.
//!
//! One task that waits neither for an endpoint nor for the disk. Whose turn it is, the `roster` says; what was decided
//! the `keeper` makes durable.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use metrics::{counter, gauge, histogram};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::{
    Postbacks,
    attempt::{self, Attempted},
    endpoint::{Lane, sign},
    entry::Entry,
    keeper::{self, Job, Kept},
    outbox::OutboxError,
    outcome::{Decided, decide},
    roster::{Roster, Turn},
};
use crate::{
    core::{Goal, GoalId, UnixMillis, webhook::Verdict},
    tasks,
};

/// What an attempt is called where it panics.
const ATTEMPT: &str = "postback-attempt";
/// Entries that one turn takes.
const TURN_MAX: usize = 8;
/// Outcomes that may wait to be kept; past it nothing is started.
const UNKEPT_MAX: usize = 4096;
/// How often metrics are set and idle connections closed.
const TICK: Duration = Duration::from_secs(2);
/// How long until the outbox is asked again after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long attempts may go on once the courier is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// An attempt that ended.
struct Ended {
    entry: Entry,
    goal_url: String,
    at: UnixMillis,
    attempted: Attempted,
    lane: Lane,
}

/// Tells whoever is to be told, until it is stopped; what is left is safe in the outbox.
pub async fn deliver(postbacks: Arc<Postbacks>, stop: CancellationToken) {
    let (sender, mut results) = unbounded_channel();
    let (keeper, mut kept) = keeper::start(postbacks.clone(), stop.clone());
    let mut courier =
        Courier { postbacks: postbacks.clone(), roster: Roster::default(), unkept: 0, sender, keeper };
    let mut ticks = tokio::time::interval(TICK);
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_WITHIN).await;
    };
    tokio::pin!(stopped);
    loop {
        let stopping = stop.is_cancelled();
        if stopping && courier.is_done() {
            return;
        }
        if !stopping && let Err(error) = courier.take_turns() {
            tracing::error!(%error, "the outbox can't be read; trying again");
            tokio::time::sleep(RETRY_AFTER).await;
        }
        let next_look = courier.roster.next_look();
        // The courier holds a sender itself, and the keeper ends with the courier: both channels stay open.
        tokio::select! {
            biased;
            () = &mut stopped => return,
            _ = ticks.tick() => courier.tick(),
            Some(first) = kept.recv() => {
                courier.kept(&first);
                while let Ok(next) = kept.try_recv() {
                    courier.kept(&next);
                }
            }
            Some(first) = results.recv() => {
                courier.ended(first);
                while let Ok(next) = results.try_recv() {
                    courier.ended(next);
                }
            }
            () = stop.cancelled(), if !stopping => {}
            () = postbacks.wake.notified() => {}
            () = sleep_until(next_look, postbacks.clock.now()), if next_look.is_some() && !stopping => {}
        }
    }
}

struct Courier {
    postbacks: Arc<Postbacks>,
    roster: Roster,
    /// Outcomes that are decided and not kept.
    unkept: usize,
    sender: UnboundedSender<Ended>,
    keeper: mpsc::Sender<Job>,
}

impl Courier {
    fn is_done(&self) -> bool {
        self.roster.running() == 0 && self.unkept == 0
    }

    /// Starts attempts as long as there is room and somebody stands for a turn.
    fn take_turns(&mut self) -> Result<(), OutboxError> {
        let now = self.postbacks.clock.now();
        let touched = std::mem::take(&mut *self.postbacks.touched.lock());
        for goal in touched {
            self.roster.stand(goal, now);
        }
        self.roster.look(now);
        while self.unkept < UNKEPT_MAX
            && let Some(turn) = self.roster.next_turn(now)
        {
            if let Err(error) = self.turn(turn, now) {
                self.roster.stand(turn.goal, now);
                return Err(error);
            }
        }
        Ok(())
    }

    fn turn(&mut self, turn: Turn, now: UnixMillis) -> Result<(), OutboxError> {
        let Some(endpoint) = self.roster.get_mut(turn.goal) else { return Ok(()) };
        if let Some(until) = endpoint.rests(now) {
            self.roster.look_at(until, turn.goal);
            return Ok(());
        }
        let limit = endpoint.free(now).min(turn.room).min(TURN_MAX);
        if limit == 0 || endpoint.withdrawing {
            // The end of an attempt, or of the withdrawal, gives it another turn.
            return Ok(());
        }
        let goal = match self.postbacks.endpoint(turn.goal) {
            Called::Yes(goal) => goal,
            // What waits goes on when the endpoint is named again, which touches nothing here: ticks look for that.
            Called::Disabled => {
                self.roster.let_go(turn.goal, now);
                return Ok(());
            }
            Called::Nobody => {
                endpoint.withdrawing = true;
                self.keep(Job::Withdraw(turn.goal));
                return Ok(());
            }
        };
        let (outbox, settled) = (&self.postbacks.outbox, self.postbacks.settled());
        let due = outbox.due(turn.goal, now, settled, &endpoint.taken, limit)?;
        let started = due.entries.len();
        for entry in due.entries {
            self.roster.begin(turn, entry.event.conversion_id, now);
            self.start(goal.clone(), entry, turn.lane);
        }
        match due.next {
            Some(at) if at > now => self.roster.look_at(at, turn.goal),
            Some(_) if started > 0 => self.roster.stand(turn.goal, now),
            Some(_) => {}
            None => self.roster.let_go(turn.goal, now),
        }
        Ok(())
    }

    fn start(&self, goal: Arc<Goal>, entry: Entry, lane: Lane) {
        let (postbacks, sender) = (self.postbacks.clone(), self.sender.clone());
        let attempt = async move {
            let at = postbacks.clock.now();
            let attempted = attempt::run(&postbacks.client, &goal, &entry.event, at, true);
            // What an endpoint answers must not end the daemon, and what was sent must not be forgotten.
            let attempted = tasks::isolated(ATTEMPT, attempted)
                .await
                .unwrap_or_else(|tasks::Panicked| Attempted::panicked());
            let goal_url = goal.postback_url.clone().unwrap_or_default();
            // A courier that is gone needs no answer: the entry is still in the outbox.
            let _ = sender.send(Ended { entry, goal_url, at, attempted, lane });
        };
        drop(tasks::spawn_finite(ATTEMPT, attempt));
    }

    /// Its room is free at once; the entry is taken until what became of it is kept.
    fn ended(&mut self, ended: Ended) {
        let now = self.postbacks.clock.now();
        let Ended { entry, goal_url, at, attempted, lane } = ended;
        let (account, goal) = (entry.event.account_id, entry.event.goal_id);
        self.roster.end(lane);
        if let Some(endpoint) = self.roster.get_mut(goal) {
            let sign = sign(attempted.status, attempted.error.is_empty());
            endpoint.learn(sign, attempted.latency_millis, attempted.retry_after, now, rand::random());
        }
        self.roster.stand(goal, now);
        histogram!("tally_postback_attempt_seconds").record(f64::from(attempted.latency_millis) / 1000.0);
        let Decided { outcome, verdict, name } = decide(entry, at, attempted, now, rand::random());
        counter!("tally_postback_attempts_total", "outcome" => name).increment(1);
        if verdict == Verdict::Gone {
            self.keep(Job::Disable { account, goal, url: goal_url });
        }
        self.unkept += 1;
        self.keep(Job::Outcome(Box::new(outcome)));
    }

    fn keep(&self, job: Job) {
        // The keeper ends with the courier.
        let _ = self.keeper.send(job);
    }

    /// What is kept may be taken anew.
    fn kept(&mut self, kept: &Kept) {
        let now = self.postbacks.clock.now();
        match *kept {
            Kept::Outcome { goal, conversion } => {
                self.unkept -= 1;
                if let Some(endpoint) = self.roster.get_mut(goal) {
                    endpoint.taken.remove(&conversion);
                }
                self.roster.stand(goal, now);
            }
            Kept::Withdrawn { goal, entries } => {
                if let Some(endpoint) = self.roster.get_mut(goal) {
                    endpoint.withdrawing = false;
                }
                if entries > 0 {
                    self.roster.stand(goal, now);
                } else {
                    self.roster.let_go(goal, now);
                }
            }
        }
    }

    fn tick(&mut self) {
        self.postbacks.client.close_idle();
        self.postbacks.end_forgetting(self.roster.taken());
        let now = self.postbacks.clock.now();
        let (outbox, snapshot) = (&self.postbacks.outbox, self.postbacks.catalog.snapshot());
        // What waits for an endpoint that wants no more is nobody's delay.
        let disabled = |goal| snapshot.any_goal(goal).is_some_and(|goal| goal.postback.disabled);
        if let (Ok(queued), Ok(oldest)) = (outbox.len(), outbox.oldest(disabled)) {
            #[expect(clippy::cast_precision_loss, reason = "a metric")]
            let (queued, age) = (queued as f64, oldest.map_or(0, |at| now.seconds() - at.seconds()) as f64);
            gauge!("tally_postbacks_queued").set(queued);
            gauge!("tally_postback_oldest_age_seconds").set(age.max(0.0));
        }
        let disabled = u32::try_from(snapshot.postbacks_disabled()).unwrap_or(u32::MAX);
        gauge!("tally_postback_endpoints_disabled").set(disabled);
        drop(snapshot);
        // One that was named again, or lost its URL, gets its turn.
        let waiting: Vec<_> = self.postbacks.queued.lock().keys().copied().collect();
        for goal in waiting.into_iter().filter(|goal| self.roster.is_idle(*goal)).collect::<Vec<_>>() {
            self.roster.stand(goal, now);
        }
    }
}

/// What is to be done for a goal's entries.
enum Called {
    /// Its endpoint is called.
    Yes(Arc<Goal>),
    /// Not now: it answered 410.
    Disabled,
    /// Nobody is to be told any more.
    Nobody,
}

impl Postbacks {
    fn endpoint(&self, goal: GoalId) -> Called {
        match self.catalog.snapshot().any_goal(goal) {
            Some(goal) if goal.postback_url.is_none() => Called::Nobody,
            Some(goal) if goal.postback.disabled => Called::Disabled,
            Some(goal) => Called::Yes(Arc::new(goal.clone())),
            None => Called::Nobody,
        }
    }
}

async fn sleep_until(at: Option<UnixMillis>, now: UnixMillis) {
    let millis = at.map_or(0, |at| at.0.saturating_sub(now.0)).max(1);
    tokio::time::sleep(Duration::from_millis(millis.unsigned_abs())).await;
}
