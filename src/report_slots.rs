//! Which account's report runs next: a bounded number at once, few of one account, and turns between accounts.
//!
//! The database answers a bounded number of statements at once, and inserts need some of them. Every statement that a
//! caller of the API can cause takes a [`ReportPermit`] first: the traits that reach the database ask for one. What
//! must hold:
//! - `running <= running_max`, and of each account `running <= account_running_max`;
//! - an account waits only while it can't run: a slot that comes free goes to the account whose turn it is;
//! - of each account `waiting <= account_waiting_max`, each for `wait_max` at most;
//! - a slot is given back when its statement has ended in the database, not when its caller has gone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot, time::timeout};

use crate::{core::AccountId, tasks};

/// How long the database may need to notice that a statement's caller has gone, and to kill it.
const KILLED_WITHIN: Duration = Duration::from_millis(500);

/// How many reports run and wait.
#[derive(Clone, Copy, Debug)]
pub struct SlotBounds {
    /// Running at once.
    pub running_max: usize,
    /// Running at once, of one account.
    pub account_running_max: usize,
    /// Waiting, of one account.
    pub account_waiting_max: usize,
    /// Waiting, of all accounts.
    pub waiting_max: usize,
    /// How long one waits at most.
    pub wait_max: Duration,
}

impl SlotBounds {
    /// For reports, which read much: as many as there are processors, and half of them at most for one account.
    #[must_use]
    pub fn reports(cores: usize) -> Self {
        let running_max = cores.clamp(2, 16);
        Self {
            running_max,
            account_running_max: (running_max / 2).min(4),
            account_waiting_max: 16,
            waiting_max: 512,
            wait_max: Duration::from_secs(10),
        }
    }

    /// For look-ups of one conversion, which read little: many may wait, since they are answered fast.
    #[must_use]
    pub fn lookups(cores: usize) -> Self {
        Self { account_waiting_max: 64, ..Self::reports(cores) }
    }
}

/// The account has as many reports running and waiting as it may have, or waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account has too many reports under way")]
pub struct TooManyReports;

/// The report did not end in time and was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the report did not end in time")]
pub struct OutOfTime;

/// Slots for reports, and those who wait for one.
pub struct ReportSlots {
    bounds: SlotBounds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    /// Accounts with reports that run or wait.
    accounts: HashMap<AccountId, Account>,
    /// Accounts with reports that wait, in the order of their turns.
    turns: VecDeque<AccountId>,
}

#[derive(Default)]
struct Account {
    running: usize,
    waiting: VecDeque<oneshot::Sender<ReportPermit>>,
}

/// The right to ask the database for one report, given back when it is dropped.
pub struct ReportPermit {
    slots: Arc<ReportSlots>,
    account: AccountId,
    /// A statement is in the database, as far as is known.
    in_database: AtomicBool,
}

/// A permit that is on its way to whom it was granted to.
type Granted = (oneshot::Sender<ReportPermit>, ReportPermit);

impl ReportSlots {
    /// All of them free.
    #[must_use]
    pub fn new(bounds: SlotBounds) -> Arc<Self> {
        Arc::new(Self { bounds, state: Mutex::default() })
    }

    /// Waits for the account's turn, for as long as a caller may wait.
    pub async fn acquire(self: &Arc<Self>, account: AccountId) -> Result<ReportPermit, TooManyReports> {
        let refused = |reason| {
            counter!("tally_reports_refused_total", "reason" => reason).increment(1);
            TooManyReports
        };
        let turn =
            self.enqueue(account, self.bounds.account_waiting_max).ok_or_else(|| refused("queue_full"))?;
        match timeout(self.bounds.wait_max, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(refused("waited_too_long")),
        }
    }

    /// Waits for the account's turn however long it takes. For the parts of an export, of which an account has few.
    pub async fn acquire_patiently(
        self: &Arc<Self>,
        account: AccountId,
    ) -> Result<ReportPermit, TooManyReports> {
        let turn = self.enqueue(account, usize::MAX).ok_or(TooManyReports)?;
        turn.await.map_err(|_| TooManyReports)
    }

    /// None: as many wait as may.
    fn enqueue(
        self: &Arc<Self>,
        account: AccountId,
        waiting_max: usize,
    ) -> Option<oneshot::Receiver<ReportPermit>> {
        let (sender, turn) = oneshot::channel();
        let granted = {
            let mut state = self.state.lock();
            if state.is_full(account, waiting_max, self.bounds.waiting_max) {
                return None;
            }
            state.push(account, sender);
            self.grant(&mut state)
        };
        deliver(granted);
        Some(turn)
    }

    fn release(self: &Arc<Self>, account: AccountId) {
        let granted = {
            let mut state = self.state.lock();
            state.running = state.running.saturating_sub(1);
            if let Some(own) = state.accounts.get_mut(&account) {
                own.running = own.running.saturating_sub(1);
            }
            state.forget_idle(account);
            self.grant(&mut state)
        };
        deliver(granted);
    }

    /// Gives free slots to those whose turn it is. They are handed over without the lock: one that is not wanted any
    /// more comes back at once.
    fn grant(self: &Arc<Self>, state: &mut State) -> Vec<Granted> {
        let mut granted = Vec::new();
        while state.running < self.bounds.running_max
            && let Some((account, sender)) = state.next(self.bounds.account_running_max)
        {
            let in_database = AtomicBool::new(false);
            granted.push((sender, ReportPermit { slots: self.clone(), account, in_database }));
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge of few reports")]
        gauge!("tally_reports_running").set(state.running as f64);
        granted
    }
}

impl State {
    fn is_full(&mut self, account: AccountId, account_waiting_max: usize, waiting_max: usize) -> bool {
        let own = self.accounts.get_mut(&account).map_or(0, |own| {
            own.waiting.retain(|waiting| !waiting.is_closed());
            own.waiting.len()
        });
        own >= account_waiting_max
            || self.accounts.values().map(|account| account.waiting.len()).sum::<usize>() >= waiting_max
    }

    fn push(&mut self, account: AccountId, sender: oneshot::Sender<ReportPermit>) {
        self.accounts.entry(account).or_default().waiting.push_back(sender);
        if !self.turns.contains(&account) {
            self.turns.push_back(account);
        }
    }

    /// The next report that may run, counted as running.
    fn next(&mut self, account_running_max: usize) -> Option<(AccountId, oneshot::Sender<ReportPermit>)> {
        loop {
            let may_run = |account: &AccountId| {
                self.accounts.get(account).is_none_or(|own| own.running < account_running_max)
            };
            let turn = self.turns.iter().position(may_run)?;
            let account = self.turns.remove(turn)?;
            let own = self.accounts.entry(account).or_default();
            let sender = std::iter::from_fn(|| own.waiting.pop_front()).find(|waiting| !waiting.is_closed());
            if !own.waiting.is_empty() {
                self.turns.push_back(account);
            }
            if let Some(sender) = sender {
                own.running += 1;
                self.running += 1;
                return Some((account, sender));
            }
            self.forget_idle(account);
        }
    }

    fn forget_idle(&mut self, account: AccountId) {
        if self.accounts.get(&account).is_some_and(|own| own.running == 0 && own.waiting.is_empty()) {
            self.accounts.remove(&account);
        }
    }
}

/// A permit whose receiver is gone is dropped here, and goes to the next one.
fn deliver(granted: Vec<Granted>) {
    for (sender, permit) in granted {
        drop(sender.send(permit));
    }
}

impl ReportPermit {
    /// Waits for the database, but not longer than `time_max`: the statement is then given up, as it is where the future
    /// is dropped.
    pub async fn run<T>(
        &self,
        time_max: Duration,
        question: impl Future<Output = T>,
    ) -> Result<T, OutOfTime> {
        self.in_database.store(true, Ordering::Release);
        let answer = timeout(time_max, question).await.map_err(|_| OutOfTime)?;
        self.in_database.store(false, Ordering::Release);
        Ok(answer)
    }
}

impl Drop for ReportPermit {
    fn drop(&mut self) {
        let (slots, account) = (self.slots.clone(), self.account);
        // A statement that was given up is being killed: until then it takes a place in the database.
        if self.in_database.load(Ordering::Acquire) && Handle::try_current().is_ok() {
            drop(tasks::spawn_isolated("report slot", async move {
                tokio::time::sleep(KILLED_WITHIN).await;
                slots.release(account);
            }));
        } else {
            slots.release(account);
        }
    }
}

/// Describes what this module counts.
pub fn describe_metrics() {
    describe_gauge!(
        "tally_reports_running",
        Unit::Count,
        "Reports that the database works on, as they last changed."
    );
    describe_counter!(
        "tally_reports_refused_total",
        Unit::Count,
        "Reports that were refused since their account had too many under way, or since they cost too much."
    );
    for reason in ["queue_full", "waited_too_long", "too_expensive"] {
        counter!("tally_reports_refused_total", "reason" => reason).absolute(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures_util::FutureExt as _;

    use super::*;

    const A: AccountId = AccountId(1);
    const B: AccountId = AccountId(2);
    const C: AccountId = AccountId(3);
    /// A queue of this length is waited in for a moment only.
    const SHORT: usize = 2;

    fn slots(running_max: usize, account_running_max: usize, account_waiting_max: usize) -> Arc<ReportSlots> {
        ReportSlots::new(SlotBounds {
            running_max,
            account_running_max,
            account_waiting_max,
            waiting_max: 8,
            wait_max: Duration::from_millis(if account_waiting_max == SHORT { 5 } else { 30_000 }),
        })
    }

    /// Takes a permit that is free.
    fn take(slots: &Arc<ReportSlots>, account: AccountId) -> Option<ReportPermit> {
        slots.acquire(account).now_or_never().and_then(Result::ok)
    }

    #[tokio::test]
    async fn one_account_leaves_slots_to_others() {
        let slots = slots(2, 1, 4);
        let first = take(&slots, B).expect("free");
        assert!(take(&slots, B).is_none(), "B has all that it may have");
        let other = take(&slots, A).expect("B left one");
        assert!(take(&slots, C).is_none(), "all run that may");
        drop((first, other));
        assert!(take(&slots, C).is_some() && slots.state.lock().accounts.is_empty());
    }

    #[tokio::test]
    async fn turns_go_round_the_accounts_however_many_reports_one_has_waiting() {
        let slots = slots(1, 1, 4);
        let running = take(&slots, B).expect("free");
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        for account in [B, B, B, A, C] {
            let (slots, done) = (slots.clone(), done.clone());
            tokio::spawn(async move {
                let permit = slots.acquire(account).await.expect("a turn");
                let _ = done.send(account);
                drop(permit);
            });
            tokio::task::yield_now().await;
        }
        drop(running);
        let mut turns = Vec::new();
        for _ in 0..5 {
            turns.push(order.recv().await.expect("a turn"));
        }
        assert_eq!(turns, [B, A, C, B, B]);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_number_and_time() {
        let slots = slots(1, 1, SHORT);
        let running = take(&slots, A).expect("free");
        let (first, second) = tokio::join!(
            async {
                let waiting = [slots.acquire(A), slots.acquire(A)];
                futures_util::future::join_all(waiting).await
            },
            async {
                tokio::task::yield_now().await;
                slots.acquire(A).now_or_never().map(|refused| refused.is_err())
            },
        );
        assert_eq!(second, Some(true), "a third one does not wait");
        assert!(first.into_iter().all(|waited| waited.is_err()), "nobody waits for ever");
        drop(running);
        assert!(take(&slots, A).is_some(), "those that gave up take no slot");
    }

    #[tokio::test]
    async fn a_report_that_is_given_up_keeps_its_slot_until_the_database_has_killed_it() {
        let slots = slots(1, 1, 1);
        let permit = take(&slots, A).expect("free");
        let stopped = permit.run(Duration::from_millis(5), pending::<()>()).await;
        assert_eq!(stopped, Err(OutOfTime));
        drop(permit);
        assert!(take(&slots, A).is_none(), "it may still run in the database");
        let permit = slots.acquire(A).await.expect("given back in the end");
        permit.run(Duration::from_secs(1), async {}).await.expect("in time");
        drop(permit);
        assert!(take(&slots, A).is_some(), "one that has ended is given back at once");
    }
}
