//! Measurements, to be run by hand: `cargo nextest run --release --lib measure --run-ignored only --no-capture`.

use std::time::Instant;

use super::*;

/// Attempts in one second that a queue of 100,000 must leave with.
#[test]
#[ignore = "measures"]
fn a_hundred_thousand_leave() {
    let count = number("TALLY_POSTBACKS").unwrap_or(100_000);
    let goals = number("TALLY_POSTBACK_GOALS").unwrap_or(10);
    let receiving = runtime();
    let receiver = receiving.block_on(Receiver::start_forgetful());
    let mut rig = Rig::new();
    let goals: Vec<_> = (0..goals).map(|_| rig.goal(&receiver.url())).collect();
    let started = Instant::now();
    for goal in &goals {
        for _ in 0..(count / goals.len() as u128).div_ceil(10_000) {
            rig.queue(goal, 10_000.min(count / goals.len() as u128));
        }
    }
    let waiting = rig.waiting();
    println!("{waiting} queued in {:?}; resident {} MB", started.elapsed(), resident());
    let Rig { postbacks, catalog, clock, folder, .. } = rig;
    drop(postbacks);
    let started = Instant::now();
    let postbacks = open(&folder, &catalog, &clock, &["127.0.0.1"], BatchId(0));
    println!("opened again in {:?}; resident {} MB", started.elapsed(), resident());
    let started = Instant::now();
    runtime().block_on(async {
        let stop = tokio_util::sync::CancellationToken::new();
        tokio::spawn(deliver(postbacks.clone(), stop));
        while postbacks.outbox.len().expect("read") > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let took = started.elapsed();
    println!(
        "{waiting} delivered in {took:?}: {:.0} a second; resident {} MB",
        f64::from(u32::try_from(waiting).expect("small")) / took.as_secs_f64(),
        resident()
    );
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn number(name: &str) -> Option<u128> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() / 1024
}
