//! Query slots: how many statements of each workload run at once, and how many may wait for that.
//!
//! The engine itself has no bound on queries (`max_concurrent_queries` is 0). Each workload has slots of its own, so
//! that none can take another's: inserts and key look-ups go on under any number of reports and dashboards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::http::request::Parts;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::request::Request;
use super::settings::User;
use super::statement::begins_with_insert;

/// The header by which tally's own client names a report. What is not marked is tally's own work.
pub(crate) const WORKLOAD_HEADER: &str = "x-tally-workload";

/// What a statement is run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// The writer's rows, by `?query=INSERT`.
    Insert,
    /// Everything else of the writer: key look-ups, inspections, migrations.
    Lookup,
    /// The writer's answers to users of the API.
    Report,
    /// Dashboards.
    Reader,
}

impl Workload {
    /// From what a request's head says.
    pub(crate) fn of(user: User, head: &Parts, request: &Request) -> Self {
        match user {
            User::Reader => Self::Reader,
            User::Writer if begins_with_insert(&request.query) => Self::Insert,
            User::Writer if head.headers.get(WORKLOAD_HEADER).is_some_and(|value| value == "report") => {
                Self::Report
            }
            User::Writer => Self::Lookup,
        }
    }
}

/// The slots of all workloads.
pub(crate) struct Slots {
    insert: Lane,
    lookup: Lane,
    report: Lane,
    reader: Lane,
}

/// The slots of one workload.
pub(crate) struct Lane {
    /// Statements that run or wait; each holds a thread.
    admitted: Arc<Semaphore>,
    admitted_max: usize,
    running: Running,
}

impl Slots {
    /// As many as the machine's cores are good for.
    pub(crate) fn new(cores: usize) -> Self {
        Self {
            insert: Lane::new(cores.max(4), 32),
            lookup: Lane::new(2 * cores.max(2), 48),
            report: Lane::new(cores.clamp(2, 16), 48),
            reader: Lane::new(readers_at_once(cores), 32),
        }
    }

    pub(crate) fn of(&self, workload: Workload) -> &Lane {
        match workload {
            Workload::Insert => &self.insert,
            Workload::Lookup => &self.lookup,
            Workload::Report => &self.report,
            Workload::Reader => &self.reader,
        }
    }

    /// How many threads all statements together may need.
    pub(crate) fn threads_max(&self) -> usize {
        self.lanes().map(|lane| lane.admitted_max).iter().sum()
    }

    /// Waits until nothing runs any more; nothing is admitted from here on.
    pub(crate) async fn drain(&self) {
        for lane in self.lanes() {
            let all = u32::try_from(lane.admitted_max).unwrap_or(u32::MAX);
            if let Ok(permits) = lane.admitted.acquire_many(all).await {
                permits.forget();
            }
        }
    }

    fn lanes(&self) -> [&Lane; 4] {
        [&self.insert, &self.lookup, &self.report, &self.reader]
    }
}

/// How many statements of the reader run at once: each may use that part of what all together may.
pub(crate) fn readers_at_once(cores: usize) -> usize {
    cores.clamp(2, 4)
}

impl Lane {
    fn new(running_max: usize, admitted_max: usize) -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(admitted_max)),
            admitted_max,
            running: Running { free: Mutex::new(running_max), freed: Condvar::new() },
        }
    }

    /// A place among those that run or wait; `None`: there is none.
    pub(crate) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.admitted).try_acquire_owned().ok()
    }

    /// Waits for a slot on the calling thread; `None` if none came free in time or nobody waits for the answer any
    /// more.
    pub(crate) fn wait(&self, timeout: Duration, is_gone: impl Fn() -> bool) -> Option<Slot<'_>> {
        let deadline = Instant::now() + timeout;
        let mut free = self.running.free.lock();
        while *free == 0 {
            if is_gone() || Instant::now() >= deadline {
                return None;
            }
            self.running.freed.wait_until(&mut free, deadline.min(Instant::now() + LOOK_EVERY));
        }
        *free -= 1;
        Some(Slot(&self.running))
    }
}

/// How often a thread that waits looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Running {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A running statement; the slot is free again when it is dropped.
pub(crate) struct Slot<'a>(&'a Running);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_waited_for_and_given_back() {
        let lane = Lane::new(1, 1);
        let first = lane.wait(Duration::ZERO, || false).expect("free");
        assert!(lane.wait(Duration::from_millis(1), || false).is_none());
        assert!(lane.wait(Duration::from_hours(1), || true).is_none(), "nobody waits for it");
        drop(first);
        assert!(lane.wait(Duration::ZERO, || false).is_some());
    }

    #[test]
    fn no_workload_takes_anothers_slots() {
        let slots = Slots::new(2);
        let reports: Vec<_> = std::iter::from_fn(|| slots.of(Workload::Report).admit()).collect();
        let readers: Vec<_> = std::iter::from_fn(|| slots.of(Workload::Reader).admit()).collect();
        assert_eq!((reports.len(), readers.len()), (48, 32));
        let _running = [
            slots.of(Workload::Report).wait(Duration::ZERO, || false),
            slots.of(Workload::Report).wait(Duration::ZERO, || false),
        ];
        for workload in [Workload::Insert, Workload::Lookup] {
            assert!(slots.of(workload).admit().is_some(), "{workload:?}");
            assert!(slots.of(workload).wait(Duration::ZERO, || false).is_some(), "{workload:?}");
        }
    }

    #[test]
    fn a_workload_is_told_from_the_head() {
        let of = |user, uri: &str, header: &str| {
            let request = hyper::Request::builder().uri(uri).header(WORKLOAD_HEADER, header).body(());
            let head = request.expect("a request").into_parts().0;
            Workload::of(user, &head, &Request::parse(&head).expect("a request"))
        };
        assert_eq!(of(User::Writer, "/?query=INSERT%20INTO%20t%20FORMAT%20CSV", ""), Workload::Insert);
        assert_eq!(of(User::Writer, "/?query=SELECT%201", "report"), Workload::Report);
        assert_eq!(of(User::Writer, "/", ""), Workload::Lookup);
        assert_eq!(of(User::Reader, "/?query=INSERT%20INTO%20t%20FORMAT%20CSV", ""), Workload::Reader);
    }
}
