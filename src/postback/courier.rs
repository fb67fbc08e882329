//! The courier: takes turns among endpoints, starts attempts, keeps what comes of them.
//!
//! One task that never waits for an endpoint. Endpoints with something due stand in one of two queues, the fast and the
//! slow; each turn takes a few entries of one of them. Outcomes come together while the last ones are being made durable,
//! and are kept in one change.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use metrics::{counter, gauge, histogram};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Postbacks,
    attempt::{self, Attempted},
    endpoint::{Endpoint, sign},
    entry::Entry,
    log::LogLine,
    outbox::{After, OutboxError, Outcome},
};
use crate::core::{
    Goal, GoalId, UnixMillis,
    webhook::{Delivery, DeliveryId, Next, Verdict, next, verdict},
};

/// Attempts at a time, over all endpoints.
const ATTEMPTS_AT_A_TIME_MAX: usize = 2048;
/// Of those, for endpoints that are slow, failing or not known yet.
const SLOW_AT_A_TIME_MAX: usize = ATTEMPTS_AT_A_TIME_MAX / 2;
/// Entries that one turn takes.
const TURN_MAX: usize = 8;
/// Outcomes that are kept in one change.
const OUTCOMES_MAX: usize = 1024;
/// How often metrics are set and idle connections closed.
const TICK: Duration = Duration::from_secs(2);
/// How long until the outbox is asked again after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Entries without an endpoint that are dropped at a time.
const WITHDRAW_MAX: usize = 1000;
/// How long attempts may go on once the courier is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// An attempt that ended.
struct Ended {
    entry: Entry,
    goal_url: String,
    at: UnixMillis,
    attempted: Attempted,
    slow: bool,
}

/// Tells whoever is to be told, until it is stopped; what is left is safe in the outbox.
pub async fn deliver(postbacks: Arc<Postbacks>, stop: CancellationToken) {
    let (sender, results) = unbounded_channel();
    let mut courier = Courier {
        postbacks,
        endpoints: HashMap::new(),
        fast: VecDeque::new(),
        slow: VecDeque::new(),
        timers: BTreeSet::new(),
        running: 0,
        running_slow: 0,
        sender,
    };
    courier.run(results, stop).await;
}

struct Courier {
    postbacks: Arc<Postbacks>,
    endpoints: HashMap<GoalId, Endpoint>,
    /// Endpoints that stand for their turn.
    fast: VecDeque<GoalId>,
    slow: VecDeque<GoalId>,
    /// When to look at an endpoint again.
    timers: BTreeSet<(UnixMillis, GoalId)>,
    running: usize,
    running_slow: usize,
    sender: UnboundedSender<Ended>,
}

type Keeping = JoinHandle<(Vec<Outcome>, Result<u64, OutboxError>)>;

impl Courier {
    async fn run(&mut self, mut results: UnboundedReceiver<Ended>, stop: CancellationToken) {
        let mut keeping: Option<Keeping> = None;
        let mut ended = Vec::new();
        let mut ticks = tokio::time::interval(TICK);
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_WITHIN).await;
        };
        tokio::pin!(stopped);
        loop {
            if keeping.is_none() && !ended.is_empty() {
                keeping = Some(self.keep(std::mem::take(&mut ended)));
            }
            let stopping = stop.is_cancelled();
            if stopping {
                if self.running == 0 && keeping.is_none() {
                    return;
                }
            } else {
                self.take_touched();
                if let Err(error) = self.take_turns() {
                    tracing::error!(%error, "the outbox can't be read; trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
            let next_timer = self.timers.first().map(|(at, _)| *at);
            let postbacks = self.postbacks.clone();
            tokio::select! {
                biased;
                kept = async { match keeping.as_mut() { Some(keeping) => keeping.await.ok(), None => std::future::pending().await } } => {
                    keeping = None;
                    if let Some((outcomes, kept)) = kept {
                        self.kept(outcomes, kept).await;
                    }
                }
                result = results.recv(), if ended.len() < OUTCOMES_MAX => {
                    // The courier holds a sender itself.
                    ended.extend(result);
                    while ended.len() < OUTCOMES_MAX && let Ok(result) = results.try_recv() {
                        ended.push(result);
                    }
                }
                () = &mut stopped => return,
                () = stop.cancelled(), if !stopping => {}
                () = postbacks.wake.notified() => {}
                () = sleep_until(next_timer, self.postbacks.clock.now()), if next_timer.is_some() && !stopping => {}
                _ = ticks.tick() => self.tick(),
            }
        }
    }

    /// Goals with new entries stand for a turn, and so do those whose time has come.
    fn take_touched(&mut self) {
        let touched = std::mem::take(&mut *self.postbacks.touched.lock());
        for goal in touched {
            self.stand(goal);
        }
        let now = self.postbacks.clock.now();
        while let Some(&(at, goal)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(endpoint) = self.endpoints.get_mut(&goal) {
                endpoint.timer = None;
            }
            self.stand(goal);
        }
    }

    fn stand(&mut self, goal: GoalId) {
        let endpoint = self.endpoints.entry(goal).or_default();
        if !endpoint.queued {
            endpoint.queued = true;
            if endpoint.is_slow() { self.slow.push_back(goal) } else { self.fast.push_back(goal) }
        }
    }

    /// Gives the goal a turn at that time, or before.
    fn look_at(&mut self, at: UnixMillis, goal: GoalId) {
        let Some(endpoint) = self.endpoints.get_mut(&goal) else { return };
        match endpoint.timer {
            Some(earlier) if earlier <= at => return,
            Some(later) => {
                self.timers.remove(&(later, goal));
            }
            None => {}
        }
        endpoint.timer = Some(at);
        self.timers.insert((at, goal));
    }

    /// Starts attempts as long as there is room and somebody stands for a turn.
    fn take_turns(&mut self) -> Result<(), OutboxError> {
        loop {
            let room = ATTEMPTS_AT_A_TIME_MAX - self.running;
            let room_slow = (SLOW_AT_A_TIME_MAX - self.running_slow).min(room);
            let (goal, room) = if room > 0
                && let Some(goal) = self.fast.pop_front()
            {
                (goal, room)
            } else if room_slow > 0
                && let Some(goal) = self.slow.pop_front()
            {
                (goal, room_slow)
            } else {
                return Ok(());
            };
            if let Err(error) = self.turn(goal, room) {
                self.stand(goal);
                return Err(error);
            }
        }
    }

    fn turn(&mut self, goal_id: GoalId, room: usize) -> Result<(), OutboxError> {
        let now = self.postbacks.clock.now();
        let Some(endpoint) = self.endpoints.get_mut(&goal_id) else { return Ok(()) };
        endpoint.queued = false;
        if let Some(until) = endpoint.rests(now) {
            self.look_at(until, goal_id);
            return Ok(());
        }
        let slow = endpoint.is_slow();
        let limit = endpoint.free().min(room).min(TURN_MAX);
        if limit == 0 {
            // The end of an attempt gives it another turn.
            return Ok(());
        }
        let goal = match self.postbacks.endpoint(goal_id) {
            Called::Yes(goal) => goal,
            // What waits goes on when the endpoint is named again, which touches nothing here: look now and then.
            Called::Disabled => {
                if endpoint.taken.is_empty() {
                    self.forget(goal_id);
                }
                return Ok(());
            }
            Called::Nobody => {
                return self.postbacks.withdraw(goal_id).map(|more| {
                    if more {
                        self.stand(goal_id);
                    }
                });
            }
        };
        let due =
            self.postbacks.outbox.due(goal_id, now, self.postbacks.settled(), &endpoint.taken, limit)?;
        let started = due.entries.len();
        for entry in due.entries {
            endpoint.taken.insert(entry.event.conversion_id);
            endpoint.running += 1;
            self.running += 1;
            self.running_slow += usize::from(slow);
            start(self.postbacks.clone(), goal.clone(), entry, slow, self.sender.clone());
        }
        match due.next {
            Some(at) if at > now => {
                self.look_at(at, goal_id);
            }
            Some(_) if started > 0 => self.stand(goal_id),
            Some(_) | None => {
                if endpoint.taken.is_empty() {
                    self.forget(goal_id);
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self, goal: GoalId) {
        if let Some(Endpoint { timer: Some(at), .. }) = self.endpoints.remove(&goal) {
            self.timers.remove(&(at, goal));
        }
    }

    /// Decides what becomes of the entries and makes it durable, away from this thread.
    fn keep(&mut self, ended: Vec<Ended>) -> Keeping {
        let now = self.postbacks.clock.now();
        let mut outcomes = Vec::with_capacity(ended.len());
        let mut gone = Vec::new();
        for Ended { entry, goal_url, at, attempted, slow } in ended {
            self.running -= 1;
            self.running_slow -= usize::from(slow);
            let event = &entry.event;
            if let Some(endpoint) = self.endpoints.get_mut(&event.goal_id) {
                endpoint.running -= 1;
                let sign = sign(attempted.status, attempted.error.is_empty());
                let (latency, retry_after) = (attempted.latency_millis, attempted.retry_after);
                endpoint.learn(sign, latency, retry_after, now, rand::random());
            }
            self.stand(event.goal_id);
            histogram!("tally_postback_attempt_seconds").record(f64::from(attempted.latency_millis) / 1000.0);
            let (outcome, verdict) = decide(entry, at, attempted, now);
            if verdict == Verdict::Gone {
                gone.push((outcome.line.0.account_id, outcome.line.0.goal_id, goal_url));
            }
            outcomes.push(outcome);
        }
        let postbacks = self.postbacks.clone();
        tokio::task::spawn_blocking(move || {
            for (account, goal, url) in gone {
                match postbacks.catalog.disable_postbacks(account, goal, &url) {
                    Ok(()) => {
                        tracing::warn!(goal = goal.0, "an endpoint answered 410 and is not called any more");
                    }
                    Err(error) => tracing::error!(goal = goal.0, %error, "an endpoint could not be disabled"),
                }
            }
            let kept = postbacks.outbox.keep(&outcomes);
            (outcomes, kept)
        })
    }

    /// What is kept may be taken anew; what could not be kept is tried again, under the same name.
    async fn kept(&mut self, outcomes: Vec<Outcome>, kept: Result<u64, OutboxError>) {
        match &kept {
            Ok(0) => {}
            Ok(unlogged) => counter!("tally_postback_attempts_unlogged_total").increment(*unlogged),
            Err(error) => {
                tracing::error!(%error, "the outcomes of postbacks can't be kept; they are sent again");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        let mut queued = self.postbacks.queued.lock();
        let mut goals = Vec::new();
        for outcome in outcomes {
            let goal = outcome.line.0.goal_id;
            if let Some(endpoint) = self.endpoints.get_mut(&goal) {
                endpoint.taken.remove(&outcome.conversion_id);
            }
            if let (After::Done, true, Some(count)) = (&outcome.after, kept.is_ok(), queued.get_mut(&goal)) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    queued.remove(&goal);
                }
            }
            goals.push(goal);
        }
        drop(queued);
        for goal in goals {
            self.stand(goal);
        }
    }

    fn tick(&mut self) {
        self.postbacks.client.close_idle();
        let now = self.postbacks.clock.now();
        let outbox = &self.postbacks.outbox;
        if let (Ok(queued), Ok(oldest)) = (outbox.len(), outbox.oldest()) {
            #[expect(clippy::cast_precision_loss, reason = "a metric")]
            let (queued, age) = (queued as f64, oldest.map_or(0, |at| now.seconds() - at.seconds()) as f64);
            gauge!("tally_postbacks_queued").set(queued);
            gauge!("tally_postback_oldest_age_seconds").set(age.max(0.0));
        }
        let waiting: Vec<_> = self.postbacks.queued.lock().keys().copied().collect();
        let snapshot = self.postbacks.catalog.snapshot();
        let disabled = snapshot.postbacks_disabled();
        drop(snapshot);
        gauge!("tally_postback_endpoints_disabled").set(u32::try_from(disabled).unwrap_or(u32::MAX));
        // One that was named again, or lost its URL, gets its turn.
        let asleep: Vec<_> = waiting.into_iter().filter(|goal| !self.endpoints.contains_key(goal)).collect();
        for goal in asleep {
            self.stand(goal);
        }
    }
}

/// What is to be done for a goal's entries.
pub(super) enum Called {
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

    /// Drops some of the entries of a goal that has no endpoint. Says whether there may be more.
    fn withdraw(&self, goal: GoalId) -> Result<bool, OutboxError> {
        let dropped = self.outbox.withdraw(goal, WITHDRAW_MAX)?;
        counter!("tally_postback_attempts_total", "outcome" => "withdrawn").increment(dropped);
        let mut queued = self.queued.lock();
        if let Some(count) = queued.get_mut(&goal) {
            *count = count.saturating_sub(dropped);
            if *count == 0 {
                queued.remove(&goal);
            }
        }
        Ok(dropped > 0)
    }
}

fn start(
    postbacks: Arc<Postbacks>,
    goal: Arc<Goal>,
    entry: Entry,
    slow: bool,
    sender: UnboundedSender<Ended>,
) {
    tokio::spawn(async move {
        let at = postbacks.clock.now();
        let attempted = attempt::run(&postbacks.client, &goal, &entry.event, at, true).await;
        let goal_url = goal.postback_url.clone().unwrap_or_default();
        // A courier that is gone needs no answer: the entry is still in the outbox.
        let _ = sender.send(Ended { entry, goal_url, at, attempted, slow });
    });
}

/// What an attempt means for its entry.
fn decide(entry: Entry, at: UnixMillis, attempted: Attempted, now: UnixMillis) -> (Outcome, Verdict) {
    // An answer that broke off does not count: who sent it may not have meant it.
    let whole = attempted.error.is_empty();
    let verdict = match verdict(attempted.status) {
        Verdict::Delivered if !whole => Verdict::Failed,
        verdict => verdict,
    };
    let attempts = entry.attempts.saturating_add(1);
    let event = entry.event.clone();
    let again = match verdict {
        Verdict::Delivered => None,
        Verdict::Failed | Verdict::Gone => match next(attempts, rand::random(), attempted.retry_after) {
            Next::After(millis) => Some(now.plus(millis)),
            Next::GiveUp => None,
        },
    };
    let name = match (verdict, again) {
        (Verdict::Delivered, _) => "delivered",
        (Verdict::Gone, _) => "gone",
        (Verdict::Failed, Some(_)) => "failed",
        (Verdict::Failed, None) => "given_up",
    };
    counter!("tally_postback_attempts_total", "outcome" => name).increment(1);
    let line = Delivery {
        id: DeliveryId(Uuid::now_v7()),
        account_id: event.account_id,
        goal_id: event.goal_id,
        conversion_id: event.conversion_id,
        attempt: attempts,
        status: attempted.status,
        error: attempted.error.to_owned(),
        latency_millis: attempted.latency_millis,
        at,
        next_attempt_at: again,
        answer: attempted.answer,
    };
    let conversion_id = event.conversion_id;
    let after = match again {
        Some(due) => After::Waits(Entry { attempts, due, ..entry }),
        None => After::Done,
    };
    (Outcome { conversion_id, after, line: LogLine(line) }, verdict)
}

async fn sleep_until(at: Option<UnixMillis>, now: UnixMillis) {
    let millis = at.map_or(0, |at| at.0.saturating_sub(now.0)).max(1);
    tokio::time::sleep(Duration::from_millis(millis.unsigned_abs())).await;
}
