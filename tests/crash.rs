//! Invariants 1, 2, 4, 5: the daemon is killed at random moments under load, started again, and loses and doubles
//! nothing.
//!
//! `TALLY_CRASH_ROUNDS` says how often, `TALLY_CRASH_SEED` at which moments.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loadtest::generator::Mix;
use loadtest::rng::SplitMix64;
use support::accounts::assert_exactly_once;
use support::daemon::Site;
use support::track::pause;

/// Rounds between two proofs: a ledger of everything would not fit memory in a long run.
const CHAPTER_ROUNDS: u64 = 50;

#[test]
fn killed_at_random_moments_it_loses_and_doubles_nothing() {
    let rounds = number("TALLY_CRASH_ROUNDS").unwrap_or(50);
    let seed = number("TALLY_CRASH_SEED").unwrap_or_else(seed_of_the_day);
    println!("TALLY_CRASH_ROUNDS={rounds} TALLY_CRASH_SEED={seed}");
    let mut random = SplitMix64::new(seed);
    let mut site = Site::start(&[]);
    let goals = site.goals(3);
    let mut left = rounds;
    while left > 0 {
        let chapter = left.min(CHAPTER_ROUNDS);
        left -= chapter;
        // Copies, some of them of orders from before a kill; bad hits; hits without an order id.
        let traffic = site.load(&goals, random.next_u64(), Mix::with(0.2, 0.02, 0.05));
        for _ in 0..chapter {
            pause(moment(&mut random));
            site.kill();
            site.daemon = loadtest::daemon::Daemon::start(site.daemon.options.clone()).expect("started");
            // Now and then it is killed while it still reads back what it has.
            if random.below(4) > 0 {
                site.daemon.wait_ready(support::DEADLINE).expect("ready again");
            }
        }
        site.daemon.wait_ready(support::DEADLINE).expect("ready again");
        traffic.wait_for_more(2_000);
        let (report, ledger) = traffic.finish();
        println!("{chapter} kills: {:?}", report.total);
        let reader = site.daemon.reader_url().expect("a URL");
        let verdict = assert_exactly_once(&site, &reader, &ledger.entries());
        assert!(verdict.acknowledged > chapter * 20, "too little was acknowledged to prove anything");
    }
}

/// Mostly while batches are cut, sent and settled, at times before the engine is up.
fn moment(random: &mut SplitMix64) -> Duration {
    let longest = if random.below(3) == 0 { 700 } else { 5_000 };
    Duration::from_millis(random.below(longest))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[expect(clippy::disallowed_methods, reason = "other moments every time; the seed is printed")]
fn seed_of_the_day() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
