//! Open loop: hits arrive by a schedule, whatever the server does, and wait for a free connection if they must.
//!
//! Latency counts from the time at which a hit was to arrive. A server that stalls for a second is thus charged with
//! every hit that arrived in that second, not only with those that were under way: no coordinated omission.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::generator::Hit;
use crate::ledger::Outcome;
use crate::load::{Desk, Lane, Load, LoadError, run_threads};
use crate::report::Report;
use crate::schedule::{Schedule, Spacing};
use crate::timer::Timer;

/// Arrivals closer than this are sent together: below it the timer would cost more than the hits.
const STEP: Duration = Duration::from_micros(20);

/// How hits arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrivals {
    /// Hits a second, in all.
    pub per_second: f64,
    /// Their distances.
    pub spacing: Spacing,
}

/// Runs `load` with `arrivals`. Up to `pipeline` hits that wait go out on one connection together.
pub fn run(load: &Load, arrivals: Arrivals) -> Result<Report, LoadError> {
    run_threads(load, async |desk, connections| drive(desk, connections, arrivals).await)
}

async fn drive(desk: Rc<Desk>, connections: usize, arrivals: Arrivals) -> Result<(), LoadError> {
    let queue = Rc::new(Queue::default());
    let mut lanes = JoinSet::new();
    for _ in 0..connections {
        lanes.spawn_local(serve(Rc::clone(&desk), Rc::clone(&queue)));
    }
    let paced = pace(&desk, &queue, arrivals).await;
    queue.close();
    lanes.join_all().await;
    let now = Instant::now();
    for (hit, since) in queue.waiting.take() {
        desk.note(hit, Outcome::NotSent, false, since, now);
    }
    paced
}

/// Puts every hit into the queue at its time.
async fn pace(desk: &Desk, queue: &Queue, arrivals: Arrivals) -> Result<(), LoadError> {
    let (load, times) = (desk.load(), desk.times());
    let alarm = Timer::new()?;
    #[expect(clippy::cast_precision_loss, reason = "threads are few")]
    let per_second = arrivals.per_second / load.threads.get() as f64;
    let schedule = Schedule::new(per_second, arrivals.spacing, u64::from(desk.run()));
    for since in schedule.map(|at| times.start + at).take_while(|since| *since < times.until) {
        loop {
            let now = Instant::now();
            if since <= now {
                break;
            }
            alarm.sleep((since - now).max(STEP)).await?;
        }
        if load.stopped() {
            break;
        }
        queue.push(desk.next_hit(), since);
        // A long run of hits that are due must not keep the connections from sending.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// One connection: takes what waits, sends it, and waits for more.
async fn serve(desk: Rc<Desk>, queue: Rc<Queue>) {
    let pipeline = desk.load().pipeline.max(1);
    let mut lane = Lane::new(Rc::clone(&desk));
    while lane.open().await {
        let Some(count) = queue.wait(pipeline).await else {
            return;
        };
        if Instant::now() > desk.times().until + desk.load().answer_timeout {
            return;
        }
        let now = Instant::now();
        for (hit, since) in queue.waiting.borrow_mut().drain(..count) {
            desk.note_lag(now.saturating_duration_since(since));
            lane.add(hit, since);
        }
        lane.exchange().await;
    }
}

/// Hits that have arrived and not been sent.
#[derive(Default)]
struct Queue {
    waiting: RefCell<VecDeque<(Hit, Instant)>>,
    idle: Cell<usize>,
    closed: Cell<bool>,
    arrived: Notify,
}

impl Queue {
    fn push(&self, hit: Hit, since: Instant) {
        self.waiting.borrow_mut().push_back((hit, since));
        self.arrived.notify_one();
    }

    fn close(&self) {
        self.closed.set(true);
        self.arrived.notify_waiters();
    }

    /// How many waiting hits one connection should take: its share, at most `pipeline`. `None` when no more will come.
    async fn wait(&self, pipeline: usize) -> Option<usize> {
        loop {
            let waiting = self.waiting.borrow().len();
            if waiting > 0 {
                return Some(waiting.div_ceil(self.idle.get() + 1).min(pipeline));
            }
            if self.closed.get() {
                return None;
            }
            self.idle.set(self.idle.get() + 1);
            self.arrived.notified().await;
            self.idle.set(self.idle.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::ledger::Ledger;
    use crate::request::Goal;

    const STALL: Duration = Duration::from_millis(300);

    /// The server answers nothing until `STALL` after its first request. All 100 hits were to arrive within the first
    /// 100 ms, one connection carries them, so each one of them waited for at least 200 ms, however fast or slow the
    /// machine is. A client that measured from the sending would see one slow hit and 99 fast ones.
    #[test]
    fn a_stall_shows_in_every_hit_that_arrived_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let mut stalled = false;
            while stream.read(&mut buffer).unwrap() > 0 {
                if !std::mem::replace(&mut stalled, true) {
                    std::thread::sleep(STALL);
                }
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            }
        });
        let ledger = std::sync::Arc::new(Ledger::memory());
        let load = Load {
            connections: 1,
            window: Duration::from_millis(100),
            ledger: Some(std::sync::Arc::clone(&ledger)),
            ..Load::new(address, vec![Goal { id: 1, token: "t".into() }])
        };
        let report = run(&load, Arrivals { per_second: 1_000.0, spacing: Spacing::Uniform }).unwrap();
        server.join().unwrap();
        assert_eq!(report.total.created, 100);
        assert_eq!(ledger.entries().len(), 100);
        assert_eq!(report.acked.count(), 100);
        assert!(report.acked.min() >= Duration::from_millis(199), "{:?}", report.acked.min());
    }

    #[test]
    fn hits_that_cannot_be_sent_are_counted_as_such() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let load = Load {
            connections: 2,
            window: Duration::from_millis(50),
            ..Load::new(address, vec![Goal { id: 1, token: "t".into() }])
        };
        let report = run(&load, Arrivals { per_second: 1_000.0, spacing: Spacing::Uniform }).unwrap();
        assert_eq!((report.total.not_sent, report.total.answered()), (50, 0));
        assert_eq!(report.others.count(), 50);
    }
}
