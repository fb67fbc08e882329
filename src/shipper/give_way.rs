//! A burst is acknowledged first and shipped after: batches wait while those who answer hits have no time to spare.
//!
//! To ship a hit, with views and merges, takes processors about as much as to answer it, and a priority does not hold that
//! back: whenever an answering thread waits for the disk, the engine gets its turn and keeps it for a while. So while a
//! burst lasts what it brings stays in the log. Each of the bounds below ends that: past them batches are cut as if nobody
//! was busy, so that under a load that lasts, ClickHouse stays that far behind and no further.

use std::time::{Duration, Instant};

use metrics::gauge;

/// Whether those who answer hits had no time to spare since the last call.
pub type Strained = Box<dyn FnMut() -> bool + Send>;

/// How old a record may become; less where conversions wait less for their clicks, so that no number is later for this than
/// they are anyway.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Most records that may wait. Deduplication holds their keys in memory, a hundred bytes each.
pub const RECORDS_WAITING_MAX: u64 = 2_000_000;
/// How much of the log's space they may take.
const SPOOL_SHARE_MAX: f64 = 0.25;

/// What waits in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    /// How many records.
    pub(super) records: u64,
    /// The age of the oldest.
    pub(super) age: Duration,
    /// The share of the log's space that is taken.
    pub(super) spool_share: f64,
}

/// Decides, batch by batch, whether to wait.
pub(super) struct GiveWay {
    strained: Strained,
    age_max: Duration,
    /// The first wait since a batch was cut: the clock by which records are dated may be set back, and the strain come
    /// and go.
    since: Option<Instant>,
}

impl GiveWay {
    /// Of conversions that wait for their clicks for `settle`.
    pub(super) fn new(strained: Strained, settle: Duration) -> Self {
        Self { strained, age_max: AGE_MAX.min(settle), since: None }
    }

    /// Whether that backlog, if there is one, is to wait now. Ask again soon, also when there is none.
    pub(super) fn applies(&mut self, backlog: Option<Backlog>, now: Instant) -> bool {
        let strained = (self.strained)();
        let applies = backlog.filter(|_| strained).is_some_and(|backlog| {
            let waited = now.duration_since(*self.since.get_or_insert(now));
            backlog.age.max(waited) < self.age_max
                && backlog.records < RECORDS_WAITING_MAX
                && backlog.spool_share < SPOOL_SHARE_MAX
        });
        gauge!("tally_shipper_gives_way").set(f64::from(u8::from(applies)));
        applies
    }

    /// A batch was cut: what is left may wait anew.
    pub(super) fn shipped(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    const SMALL: Backlog = Backlog { records: 1000, age: Duration::from_secs(1), spool_share: 0.01 };

    fn give_way() -> (GiveWay, Arc<AtomicBool>) {
        let strained = Arc::new(AtomicBool::new(true));
        let asked = strained.clone();
        (GiveWay::new(Box::new(move || asked.load(Ordering::Relaxed)), Duration::from_mins(1)), strained)
    }

    #[test]
    fn waits_only_while_there_is_no_time_to_spare() {
        let (mut give_way, strained) = give_way();
        for applies in [true, false, true] {
            strained.store(applies, Ordering::Relaxed);
            assert_eq!(give_way.applies(Some(SMALL), Instant::now()), applies);
        }
    }

    #[test]
    fn never_waits_past_a_bound() {
        let (mut give_way, _) = give_way();
        for large in [
            Backlog { records: RECORDS_WAITING_MAX, ..SMALL },
            Backlog { age: AGE_MAX, ..SMALL },
            Backlog { spool_share: SPOOL_SHARE_MAX, ..SMALL },
        ] {
            assert!(give_way.applies(Some(SMALL), Instant::now()));
            assert!(!give_way.applies(Some(large), Instant::now()), "{large:?}");
        }
    }

    /// A clock that was set back makes records look young.
    #[test]
    fn never_waits_longer_than_that_in_one_go() {
        let (mut give_way, strained) = give_way();
        let began = Instant::now();
        let mut now = began;
        while give_way.applies(Some(SMALL), now) {
            now += Duration::from_millis(200);
            // It comes and goes.
            strained.store(false, Ordering::Relaxed);
            assert!(!give_way.applies(Some(SMALL), now));
            strained.store(true, Ordering::Relaxed);
        }
        assert_eq!(now.duration_since(began), AGE_MAX);
        assert!(!give_way.applies(Some(SMALL), now), "asked again before a batch was cut");
        give_way.shipped();
        assert!(give_way.applies(Some(SMALL), now), "the next batch may wait");
        assert!(!give_way.applies(None, now), "nothing is there to wait");
    }

    #[test]
    fn numbers_are_not_later_than_conversions_that_settle() {
        let mut give_way = GiveWay::new(Box::new(|| true), Duration::from_secs(2));
        assert!(give_way.applies(Some(SMALL), Instant::now()));
        let older = Backlog { age: Duration::from_secs(2), ..SMALL };
        assert!(!give_way.applies(Some(older), Instant::now()));
    }
}
