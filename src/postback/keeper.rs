//! The keeper: makes durable what the courier decides, on a thread of its own, so that the courier waits for no disk.
//!
//! What comes while a change is synced goes into the next one, all of it together. A change that fails is tried again:
//! until it is kept its entries are not sent once more, and the courier takes no new ones past a bound.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use metrics::counter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::{
    Postbacks,
    outbox::{After, OutboxError, Outcome},
};
use crate::{
    core::{AccountId, ConversionId, GoalId},
    tasks,
};

const NAME: &str = "postback-keeper";
/// What is kept in one change.
const TOGETHER_MAX: usize = 1024;
/// How long until a change that failed is tried again: at first, and at most.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// How soon a thread that waits notices that it is to stop.
const STOP_SEEN_WITHIN: Duration = Duration::from_millis(100);
/// Entries without an endpoint that are dropped at a time.
const WITHDRAWN_MAX: usize = 1000;

/// What is to be kept.
pub(super) enum Job {
    /// What became of an entry.
    Outcome(Box<Outcome>),
    /// The endpoint of that URL wants no more.
    Disable { account: AccountId, goal: GoalId, url: String },
    /// Nobody is to be told of the goal's conversions any more: some of them are dropped.
    Withdraw(GoalId),
}

/// What was kept.
pub(super) enum Kept {
    /// The conversion's entry is gone, or waits for another attempt.
    Outcome { goal: GoalId, conversion: ConversionId },
    /// So many entries were dropped; none: there are no more.
    Withdrawn { goal: GoalId, entries: u64 },
}

/// Starts the thread; it ends with the sender.
pub(super) fn start(
    postbacks: Arc<Postbacks>,
    stop: CancellationToken,
) -> (mpsc::Sender<Job>, UnboundedReceiver<Kept>) {
    let (sender, jobs) = mpsc::channel();
    let (kept, receiver) = unbounded_channel();
    let keeper = Keeper { postbacks, kept, stop };
    // The first of the pool's threads, so that look-ups of names that hang can't keep it from running.
    drop(tasks::spawn_finite_blocking(NAME, move || keeper.run(&jobs)));
    (sender, receiver)
}

struct Keeper {
    postbacks: Arc<Postbacks>,
    kept: UnboundedSender<Kept>,
    stop: CancellationToken,
}

impl Keeper {
    fn run(&self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            tasks::failpoint(NAME);
            let mut outcomes = Vec::new();
            let others = std::iter::from_fn(|| jobs.try_recv().ok()).take(TOGETHER_MAX - 1);
            for job in std::iter::once(job).chain(others) {
                match job {
                    Job::Outcome(outcome) => outcomes.push(*outcome),
                    Job::Disable { account, goal, url } => self.disable(account, goal, &url),
                    Job::Withdraw(goal) => self.withdraw(goal),
                }
            }
            self.keep(outcomes);
        }
    }

    fn keep(&self, mut outcomes: Vec<Outcome>) {
        let Some(unlogged) = self.until_done(|| self.postbacks.keep(&mut outcomes)) else { return };
        counter!("tally_postback_attempts_unlogged_total").increment(unlogged);
        self.postbacks.count_done(&outcomes);
        for outcome in outcomes {
            let (goal, conversion) = (outcome.line.0.goal_id, outcome.line.0.conversion_id);
            // A courier that has stopped asks nothing.
            let _ = self.kept.send(Kept::Outcome { goal, conversion });
        }
    }

    fn disable(&self, account: AccountId, goal: GoalId, url: &str) {
        match self.postbacks.catalog.disable_postbacks(account, goal, url) {
            Ok(()) => tracing::warn!(goal = goal.0, "an endpoint answered 410 and is not called any more"),
            Err(error) => tracing::error!(goal = goal.0, %error, "an endpoint could not be disabled"),
        }
    }

    fn withdraw(&self, goal: GoalId) {
        let withdraw = || self.postbacks.outbox.withdraw(goal, WITHDRAWN_MAX);
        let Some(entries) = self.until_done(withdraw) else { return };
        counter!("tally_postback_attempts_total", "outcome" => super::WITHDRAWN).increment(entries);
        self.postbacks.count_off(goal, entries);
        let _ = self.kept.send(Kept::Withdrawn { goal, entries });
    }

    /// None: told to stop before it could be done.
    fn until_done<T>(&self, mut change: impl FnMut() -> Result<T, OutboxError>) -> Option<T> {
        let mut wait = RETRY_AFTER;
        loop {
            match change() {
                Ok(done) => return Some(done),
                Err(error) => tracing::error!(%error, "what became of postbacks can't be kept; trying again"),
            }
            let until = std::time::Instant::now() + wait;
            while std::time::Instant::now() < until {
                if self.stop.is_cancelled() {
                    return None;
                }
                std::thread::sleep(STOP_SEEN_WITHIN);
            }
            wait = (wait * 2).min(RETRY_AFTER_MAX);
        }
    }
}

impl Postbacks {
    /// Entries that are done with wait no longer.
    fn count_done(&self, outcomes: &[Outcome]) {
        for outcome in outcomes.iter().filter(|outcome| matches!(outcome.after, After::Done)) {
            self.count_off(outcome.line.0.goal_id, 1);
        }
    }

    pub(super) fn count_off(&self, goal: GoalId, entries: u64) {
        let mut queued = self.queued.lock();
        if let Some(count) = queued.get_mut(&goal) {
            *count = count.saturating_sub(entries);
            if *count == 0 {
                queued.remove(&goal);
            }
        }
    }
}
