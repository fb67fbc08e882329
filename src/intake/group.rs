//! Many submissions at once: the look-ups first, then all records and their keys in one group of the log.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{Decided, Gate, Intake, NotTaken, items::Item, keyed::Seen};
use crate::{core::UnixMillis, dedup::KeyRef};

/// Keys of a group that are asked for at a time: one query's worth, so that a single hit waits behind no more than that.
const ASKED_AT_ONCE: usize = 1000;
/// After that long no more look-ups of a group are begun.
const LOOK_UPS_WITHIN: Duration = Duration::from_secs(20);
/// For how long 'never seen' holds. A key stays in memory for at least five seconds after ClickHouse has it, so that none
/// can slip through between its look-up and its record. That a key is known holds for ever.
const UNSEEN_FOR: Duration = Duration::from_secs(3);

impl Intake {
    pub(super) async fn all<S: Item, O>(&self, items: &[S], gate: &Gate) -> Vec<O>
    where
        O: From<Decided<S::Id>> + From<NotTaken>,
        NotTaken: Copy,
    {
        let since = Instant::now();
        match self.decide_all(items).await {
            Ok(decided) => {
                self.hold::<S>(gate, since, &decided);
                decided.into_iter().map(O::from).collect()
            }
            Err(why) => {
                self.shared.counters.outcomes[S::KIND].not_taken(why, items.len() as u64);
                items.iter().map(|_| O::from(why)).collect()
            }
        }
    }

    async fn decide_all<S: Item>(&self, items: &[S]) -> Result<Vec<Decided<S::Id>>, NotTaken> {
        if items.iter().any(|item| item.may_repeat_issued(&self.shared)) {
            self.shared.wal.catch_up().await;
        }
        let keys: Vec<_> = items.iter().map(|item| item.key(&self.shared)).collect();
        let seen = self.look_up_all(items, &keys).await;
        let records = u32::try_from(items.len()).unwrap_or(u32::MAX);
        let group = self.appender.group(records, items.iter().map(Item::bytes_max).sum())?;
        let each = items.iter().zip(keys).zip(&seen);
        // The group has room for all of them, so none is refused after the first was taken.
        each.map(|((item, key), seen)| self.record(item, key, seen, &group)).collect()
    }

    async fn look_up_all<S: Item>(&self, items: &[S], keys: &[Option<KeyRef>]) -> Vec<Seen> {
        let since = Instant::now();
        let mut seen = Vec::with_capacity(items.len());
        let mut open = Vec::new();
        for (item, key) in items.iter().zip(keys) {
            let known = match key {
                None => Some(Seen::Free { unverified: false }),
                Some(key) => self.seen_in_memory(*key, item.received_at()),
            };
            if let (None, Some(key)) = (&known, key) {
                open.push((seen.len(), *key, item.received_at()));
            }
            // Until ClickHouse has said otherwise.
            seen.push(known.unwrap_or(Seen::Free { unverified: true }));
        }
        for some in open.chunks(ASKED_AT_ONCE) {
            let answers = self.ask(some).await;
            let unanswered = answers.iter().any(Option::is_none);
            for ((place, ..), answer) in some.iter().zip(answers) {
                if let Some(answer) = answer {
                    seen[*place] = answer;
                }
            }
            // A database that is silent or slow leaves the rest unverified.
            if unanswered || since.elapsed() >= LOOK_UPS_WITHIN {
                break;
            }
        }
        if since.elapsed() >= UNSEEN_FOR {
            for seen in &mut seen {
                if let Seen::Free { unverified } = seen {
                    *unverified = true;
                }
            }
        }
        seen
    }

    /// What ClickHouse says of each key; none: nothing.
    async fn ask(&self, keys: &[(usize, KeyRef, UnixMillis)]) -> Vec<Option<Seen>> {
        let complete = self.shared.dedup.in_flight().is_complete();
        let answers =
            join_all(keys.iter().map(|(_, key, now)| self.shared.lookup.find_in_bulk(*key, *now))).await;
        let seen = |answer| match answer {
            Ok(Some(known)) => Some(Seen::Stored(known)),
            Ok(None) => {
                self.shared.counters.filter_false_positives.increment(1);
                Some(Seen::Free { unverified: !complete })
            }
            Err(_) => None,
        };
        answers.into_iter().map(seen).collect()
    }
}
