//! Invariant 4 against the embedded engine: its process is killed under load, comes back by itself, and no batch is
//! lost or doubled, in the raw table or in the views. Hits are taken all the while.

mod support;

use std::time::{Duration, Instant};

use loadtest::clickhouse::ClickHouse;
use loadtest::generator::Mix;
use loadtest::rng::SplitMix64;
use support::accounts::assert_exactly_once;
use support::daemon::{Site, kill};
use support::track::pause;
use support::wait_for;

const KILLS: u32 = 8;
const INSERTED: &str = "tally_hits_inserted_total{kind=\"conversion\"}";
/// Seconds, the contract says.
const BACK_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn the_engine_killed_under_load_is_back_and_nothing_is_lost_or_doubled() {
    let site = Site::start(&[]);
    let goals = site.goals(2);
    site.wait_warm();
    let traffic = site.load(&goals, 11, Mix::with(0.2, 0.02, 0.05));
    let mut random = SplitMix64::new(1234);
    let mut doubtful = 0.0;
    for _ in 0..KILLS {
        // Anywhere between two batches, or within one: they are cut once a second.
        let settled = site.metric(INSERTED);
        wait_for("another batch", || site.metric(INSERTED) > settled);
        pause(Duration::from_millis(random.below(1_300)));
        let old = site.engine_pid().expect("an engine");
        kill(old);
        let killed = Instant::now();
        let noted = traffic.noted();
        wait_for("a new engine", || site.engine_pid().is_some_and(|new| new != old));
        wait_for("its answer", || answers(&site));
        assert!(killed.elapsed() < BACK_WITHIN, "it took {:?}", killed.elapsed());
        wait_for("hits taken meanwhile", || traffic.noted() > noted);
        doubtful = site.metric("tally_batches_doubtful_total").unwrap_or_default();
    }
    let (report, ledger) = traffic.finish();
    println!("{doubtful} of the batches were doubtful; {:?}", report.total);
    assert_eq!(report.total.failed, 0, "no hit is refused because a database is down");
    let reader = site.daemon.reader_url().expect("a URL");
    assert_exactly_once(&site, &reader, &ledger.entries());
    assert!(site.metric("tally_engine_restarts_total") >= Some(f64::from(KILLS)), "they are counted");
}

fn answers(site: &Site) -> bool {
    let reader = site.daemon.reader_url().expect("a URL");
    ClickHouse::new(&reader).expect("a URL").number("SELECT 1").is_ok()
}
