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
    let receiver = receiving.block_on(Receiver::start(|_| Reply::Status(200)));
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

/// The 99th percentile of the healthy endpoints' delays, alone and among 10 % that are dead and 10 % that take 10 s.
#[test]
#[ignore = "measures"]
fn a_thousand_endpoints() {
    for round in 0..3 {
        let alone = healthy_p99(false);
        let among = healthy_p99(true);
        println!(
            "round {round}: p99 alone {alone:?}, among sick ones {among:?}: ratio {:.2}",
            among.as_secs_f64() / alone.as_secs_f64()
        );
    }
}

fn healthy_p99(sick: bool) -> Duration {
    const ENDPOINTS: usize = 1_000;
    let receiving = runtime();
    let works = receiving.block_on(Receiver::start(|_| Reply::Status(200)));
    let slow = receiving.block_on(Receiver::start(|_| Reply::After(10_000)));
    let silent = receiving.block_on(Receiver::start(|_| Reply::Silence));
    let mut rig = Rig::new();
    let goals: Vec<_> = (0..ENDPOINTS)
        .map(|number| {
            let url = match number % 10 {
                1 => silent.url(),
                2 => slow.url(),
                _ => works.url(),
            };
            rig.goal(&url)
        })
        .collect();
    let mut delays = Vec::new();
    let sending = runtime();
    let stop = tokio_util::sync::CancellationToken::new();
    sending.spawn(deliver(rig.postbacks.clone(), stop.clone()));
    sending.block_on(async {
        // Twenty rounds of one conversion each, as they would settle.
        for round in 0..20 {
            let mut events = Vec::new();
            for (number, goal) in goals.iter().enumerate() {
                let ill = matches!(number % 10, 1 | 2);
                if sick || !ill {
                    events.extend(rig.events(goal, 1));
                }
            }
            let healthy = goals.len() / 10 * 8;
            let before = works.count();
            let postbacks = rig.postbacks.clone();
            tokio::task::spawn_blocking(move || postbacks.queue(events)).await.expect("ran").expect("queued");
            let started = Instant::now();
            let mut seen = 0;
            while seen < healthy {
                tokio::time::sleep(Duration::from_micros(500)).await;
                let now = works.count() - before;
                delays.extend(std::iter::repeat_n(started.elapsed(), now - seen));
                seen = now;
            }
            if round == 0 {
                // The first one shows who is fast.
                delays.clear();
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    stop.cancel();
    sending.shutdown_background();
    receiving.shutdown_background();
    delays.sort_unstable();
    delays[delays.len() * 99 / 100]
}

fn runtime() -> tokio::runtime::Runtime {
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
