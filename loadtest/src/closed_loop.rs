//! Closed loop: every connection sends its next hits as soon as the last ones are answered. It finds the capacity.
//!
//! Its latencies say how long an answer took, not how long a visitor would have waited: that is `open_loop`'s.

use std::rc::Rc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::load::{Desk, Lane, Load, LoadError, run_threads};
use crate::report::Report;

/// Runs `load` at full speed. `pipeline` requests go out in one write, and the next ones when all are answered.
pub fn run(load: &Load) -> Result<Report, LoadError> {
    run_threads(load, async |desk, connections| {
        let mut lanes = JoinSet::new();
        for _ in 0..connections {
            lanes.spawn_local(saturate(Rc::clone(&desk)));
        }
        lanes.join_all().await;
        Ok(())
    })
}

async fn saturate(desk: Rc<Desk>) {
    let (times, pipeline) = (desk.times(), desk.load().pipeline.max(1));
    let mut lane = Lane::new(Rc::clone(&desk));
    if lane.open().await {
        tokio::time::sleep_until(times.start.into()).await;
    }
    while lane.open().await && !desk.load().stopped() {
        let now = Instant::now();
        if now >= times.until {
            return;
        }
        for _ in 0..pipeline {
            lane.add(desk.next_hit(), now);
        }
        lane.exchange().await;
    }
}
