//! Asking ClickHouse's key table for many keys at once.

use std::{future::Future, time::Duration};

use metrics::{Counter, Histogram};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::core::{ConversionId, Currency, DedupScope, GoalId, Money, OrderKey, UnixMillis};

/// How long a hit waits for an answer before it is accepted as unverified.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The same for one of a bulk call, whose caller waits for thousands.
const BULK_ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Keys of one query: 122 ms at p50 over 5 million keys.
const QUERY_KEYS_MAX: usize = 1000;
/// Hits that wait at most; more are accepted as unverified at once.
const WAITING_MAX: usize = 16 * 1024;
/// After a failure nobody waits for this long: the database is down, and trying each hit would slow all of them.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRef {
    /// The goal, the key table's first column.
    pub goal: GoalId,
    /// The key.
    pub key: OrderKey,
    /// How far back it counts.
    pub scope: DedupScope,
}

/// The first copy of a key, as the key table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// The conversion that counts.
    pub id: ConversionId,
    /// Its value.
    pub value: Money,
    /// Its currency.
    pub currency: Currency,
    /// When it was accepted.
    pub received_at: UnixMillis,
}

/// No answer in time: the hit is accepted as unverified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key table did not answer in time")]
pub struct LookupUnavailable;

/// The key table.
pub trait KeySource: Send + Sync + 'static {
    /// What is known of each key, in their order.
    fn known_keys(
        &self,
        keys: &[KeyRef],
        now: UnixMillis,
    ) -> impl Future<Output = Result<Vec<Option<KnownKey>>, LookupUnavailable>> + Send;
}

/// Gathers the questions of all workers into few queries. Clones share the queues: one for single hits, one for bulk
/// calls, so that neither waits for a query of the other.
#[derive(Clone)]
pub struct Lookup {
    single: mpsc::Sender<Question>,
    bulk: mpsc::Sender<Question>,
    unanswered: Counter,
}

struct Question {
    key: KeyRef,
    now: UnixMillis,
    answer: oneshot::Sender<Option<KnownKey>>,
}

impl Lookup {
    /// The asking end, and the task that answers.
    pub fn new<S: KeySource>(source: S) -> (Self, impl Future<Output = ()> + Send) {
        let (single, singles) = mpsc::channel(WAITING_MAX);
        let (bulk, bulks) = mpsc::channel(WAITING_MAX);
        let lookup = Self { single, bulk, unanswered: metrics::counter!("tally_lookups_unanswered_total") };
        let answer = async move {
            tokio::join!(
                answer_all(&source, singles, ANSWER_WITHIN),
                answer_all(&source, bulks, BULK_ANSWER_WITHIN)
            );
        };
        (lookup, answer)
    }

    /// What the key table knows of the key.
    pub async fn find(&self, key: KeyRef, now: UnixMillis) -> Result<Option<KnownKey>, LookupUnavailable> {
        self.ask(&self.single, ANSWER_WITHIN, key, now).await
    }

    /// The same for one of many that a caller waits for together.
    pub async fn find_in_bulk(
        &self,
        key: KeyRef,
        now: UnixMillis,
    ) -> Result<Option<KnownKey>, LookupUnavailable> {
        self.ask(&self.bulk, BULK_ANSWER_WITHIN, key, now).await
    }

    async fn ask(
        &self,
        queue: &mpsc::Sender<Question>,
        within: Duration,
        key: KeyRef,
        now: UnixMillis,
    ) -> Result<Option<KnownKey>, LookupUnavailable> {
        let deadline = Instant::now() + within;
        let (answer, answered) = oneshot::channel();
        let asked = queue.try_send(Question { key, now, answer }).map_err(|_| LookupUnavailable);
        let answer = match asked {
            Ok(()) => timeout_at(deadline, answered).await.map_err(|_| LookupUnavailable),
            Err(unavailable) => Err(unavailable),
        };
        // A question that is dropped was not answered.
        let answer = answer.and_then(|answer| answer.map_err(|_| LookupUnavailable));
        if answer.is_err() {
            self.unanswered.increment(1);
        }
        answer
    }
}

/// Asks one query after the other, each with all that came meanwhile: no question waits for a timer.
async fn answer_all<S: KeySource>(source: &S, mut queue: mpsc::Receiver<Question>, within: Duration) {
    let queries = metrics::counter!("tally_lookup_queries_total");
    let keys_asked: Histogram = metrics::histogram!("tally_lookup_query_keys");
    let seconds: Histogram = metrics::histogram!("tally_lookup_query_seconds");
    let mut questions = Vec::with_capacity(QUERY_KEYS_MAX);
    let mut paused_until = None;
    while queue.recv_many(&mut questions, QUERY_KEYS_MAX).await > 0 {
        questions.retain(|question| !question.answer.is_closed());
        let start = Instant::now();
        if questions.is_empty() || paused_until.is_some_and(|until| start < until) {
            questions.clear();
            continue;
        }
        let keys: Vec<KeyRef> = questions.iter().map(|question| question.key).collect();
        let now = questions.iter().map(|question| question.now).max().unwrap_or_default();
        let answers = timeout_at(start + within, source.known_keys(&keys, now)).await;
        queries.increment(1);
        keys_asked.record(u32::try_from(keys.len()).unwrap_or(u32::MAX));
        seconds.record(start.elapsed());
        match answers {
            Ok(Ok(answers)) if answers.len() == questions.len() => {
                for (question, answer) in questions.drain(..).zip(answers) {
                    // Whoever gave up waiting has been answered already.
                    let _ = question.answer.send(answer);
                }
            }
            _ => {
                questions.clear();
                paused_until = Some(Instant::now() + PAUSE_AFTER_FAILURE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Knows even keys; counts queries; fails while told to.
    struct Table {
        queries: Arc<AtomicUsize>,
        fails: bool,
    }

    impl KeySource for Table {
        async fn known_keys(
            &self,
            keys: &[KeyRef],
            now: UnixMillis,
        ) -> Result<Vec<Option<KnownKey>>, LookupUnavailable> {
            self.queries.fetch_add(1, Ordering::Relaxed);
            if self.fails {
                return Err(LookupUnavailable);
            }
            let known = |key: &KeyRef| KnownKey {
                id: ConversionId(uuid::Uuid::from_u128(key.key.0)),
                value: Money::ZERO,
                currency: Currency::USD,
                received_at: now,
            };
            Ok(keys.iter().map(|key| key.key.0.is_multiple_of(2).then(|| known(key))).collect())
        }
    }

    fn key(n: u128) -> KeyRef {
        KeyRef { goal: GoalId(1), key: OrderKey(n), scope: DedupScope::Forever }
    }

    #[tokio::test]
    async fn questions_share_queries_and_get_their_own_answers() {
        let queries = Arc::new(AtomicUsize::new(0));
        let (lookup, task) = Lookup::new(Table { queries: queries.clone(), fails: false });
        let asked: Vec<_> = (0..100)
            .map(|n| {
                let lookup = lookup.clone();
                tokio::spawn(async move { lookup.find(key(n), UnixMillis(1)).await })
            })
            .collect();
        tokio::spawn(task);
        for (n, answer) in (0u128..).zip(asked) {
            let answer = answer.await.expect("no panic").expect("answered");
            assert_eq!(answer.map(|known| known.id.0.as_u128()), n.is_multiple_of(2).then_some(n));
        }
        assert!(queries.load(Ordering::Relaxed) <= 2);
    }

    #[tokio::test]
    async fn a_failing_table_is_left_alone_for_a_while() {
        let queries = Arc::new(AtomicUsize::new(0));
        let (lookup, task) = Lookup::new(Table { queries: queries.clone(), fails: true });
        tokio::spawn(task);
        for n in 0..50 {
            assert_eq!(lookup.find(key(n), UnixMillis(1)).await, Err(LookupUnavailable));
        }
        assert!(queries.load(Ordering::Relaxed) < 50, "every hit tried a database that is down");
    }
}
