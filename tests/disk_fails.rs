//! A disk that is slow, or fails a sync: an answer follows the sync of its hit, a failed sync is never a 2xx, and a
//! restart finds everything that was acknowledged.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use loadtest::clickhouse::ClickHouse;
use loadtest::generator::Mix;
use loadtest::ledger::Ledger;
use loadtest::load::Load;
use loadtest::verify::Comparison;
use support::faults::daemon::{A_WHILE, NO_CLICKHOUSE, Start, Tally, folder, hit};
use support::faults::shim::Faults;
use support::faults::wait_for;
use support::faults::wire::Wire;

const ORDER: &str = r#"{"order_id":"ONE","value":5}"#;

#[test]
fn an_answer_waits_for_the_sync_of_its_hit_and_so_do_its_copies() {
    let (folder, faults) = (folder(), Faults::new());
    let tally =
        Tally::start(&folder.path().join("data"), &Start { faults: Some(&faults), ..Start::default() });
    let goal = tally.goal();
    // The key table can be asked: a new key is new at once.
    wait_for("the filter", || tally.metric("tally_filter_warm") == 1);

    faults.order("hold-sync", "");
    let mut first = Wire::connect(tally.public);
    first.send(hit(&goal, ORDER));
    faults.wait_there("held");
    let mut copies: Vec<Wire> = (0..20).map(|_| Wire::connect(tally.public)).collect();
    for copy in &mut copies {
        copy.send(hit(&goal, ORDER));
    }
    let mut pixel = Wire::connect(tally.public);
    pixel.send(format!(
        "GET /api/conversions/track/{}?value=1 HTTP/1.1\r\nHost: t\r\nAccept: image/*\r\n\r\n",
        goal.token
    ));
    assert!(!first.speaks_within(A_WHILE), "nothing is answered before it is durable");
    assert!(copies.iter_mut().all(Wire::is_silent), "nor is a copy of it");
    assert!(pixel.is_silent());
    assert_eq!(tally.goal().id, goal.id + 1, "who does not wait for the log is served meanwhile");

    faults.end("hold-sync");
    let first = first.answer().expect("an answer");
    assert_eq!(first.status, 201);
    for copy in &mut copies {
        let copy = copy.answer().expect("an answer");
        assert_eq!((copy.status, copy.conversion_id()), (200, first.conversion_id()));
    }
    assert_eq!(pixel.answer().expect("an answer").status, 200);
}

#[test]
fn a_kill_before_the_sync_takes_nothing_that_was_acknowledged() {
    let (folder, faults) = (folder(), Faults::new());
    let data = folder.path().join("data");
    let start = Start { faults: Some(&faults), flags: &["--clickhouse-url", NO_CLICKHOUSE] };
    let tally = Tally::start(&data, &start);
    let goal = tally.goal();
    assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    faults.order("hold-sync", "");
    let mut waiting: Vec<Wire> = (0..10).map(|_| Wire::connect(tally.public)).collect();
    for wire in &mut waiting {
        wire.send(hit(&goal, r#"{"value":2}"#));
    }
    faults.wait_there("held");
    tally.kill();
    for wire in &mut waiting {
        assert!(wire.answer().is_none(), "it was killed before any of them was durable");
    }
    faults.end("hold-sync");
    faults.wait_gone("hold-sync");
    let tally = Tally::start(&data, &start);
    wait_for("the first count", || tally.metric("tally_hits_accepted_total") > 0);
    let kept = tally.metric("tally_hits_accepted_total");
    assert!((1..=11).contains(&kept), "the acknowledged one, and others at most once: {kept}");
}

#[test]
fn a_failed_sync_is_never_a_2xx_and_a_restart_recovers() {
    let (folder, faults) = (folder(), Faults::new());
    let data = folder.path().join("data");
    let start = Start { faults: Some(&faults), ..Start::default() };
    let tally = Tally::start(&data, &start);
    let goal = tally.goal();
    let order = |n: usize| format!(r#"{{"order_id":"ORDER-{n}","value":1}}"#);
    let mut acknowledged = BTreeSet::new();
    for n in 0..50 {
        let answer = tally.hit(&goal, &order(n));
        assert!(matches!(answer.status, 201 | 202), "{answer:?}");
        acknowledged.insert(answer.conversion_id());
    }

    // One group of hits that have been taken when the disk fails, with copies among them.
    faults.order("hold-sync", "");
    let mut wires: Vec<Wire> = (0..30).map(|_| Wire::connect(tally.public)).collect();
    for (n, wire) in wires.iter_mut().enumerate() {
        wire.send(hit(&goal, &order(100 + n / 2)));
    }
    faults.wait_there("held");
    faults.order("fail-sync", "");
    faults.end("hold-sync");
    for wire in &mut wires {
        let answer = wire.answer().expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    tally.wait_unready("poisoned");

    // The disk is well again, but what it holds is unknown: nothing is taken until a restart.
    faults.end("fail-sync");
    for n in [100, 200] {
        let answer = tally.hit(&goal, &order(n));
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    let pixel = format!(
        "GET /api/conversions/track/{}?value=1 HTTP/1.1\r\nHost: t\r\nAccept: image/*\r\n\r\n",
        goal.token
    );
    let answer = support::faults::wire::ask(tally.public, pixel);
    assert_eq!(answer.header("x-conversion-status"), Some("unavailable"), "{answer:?}");
    assert_eq!(tally.readiness(), (503, vec!["poisoned".to_owned()]));
    assert!(tally.stop().success(), "it can be stopped in order all the same");

    let tally = Tally::start(&data, &start);
    tally.wait_ready();
    // They are sent again, as they were asked to be. Some may have reached the disk.
    for n in 100..115 {
        let answer = tally.hit(&goal, &order(n));
        assert!(matches!(answer.status, 200..=202), "{answer:?}");
        acknowledged.insert(answer.conversion_id());
    }
    let rows =
        || tally.line("SELECT count(), uniqExact(order_id), uniqExact(conversion_id) FROM tally.conversions");
    wait_for("every order's row", || rows().starts_with("65\t"));
    assert_eq!(rows(), "65\t65\t65");
    let ids = tally.clickhouse().lines("SELECT conversion_id FROM tally.conversions").expect("an answer");
    assert_eq!(ids.map(|id| id.expect("a line")).collect::<BTreeSet<_>>(), acknowledged);
}

#[test]
fn a_slow_disk_is_slow_and_nothing_else() {
    const SYNC: Duration = Duration::from_millis(300);
    let (folder, faults) = (folder(), Faults::new());
    let tally =
        Tally::start(&folder.path().join("data"), &Start { faults: Some(&faults), ..Start::default() });
    tally.wait_ready();
    let goal = tally.goal();
    faults.order("slow-sync", &SYNC.as_millis().to_string());
    let start = Instant::now();
    assert!(matches!(tally.hit(&goal, ORDER).status, 201 | 202));
    assert!(start.elapsed() >= SYNC, "it was answered after the sync");

    let ledger = std::sync::Arc::new(Ledger::memory());
    let load = Load {
        mix: Mix::with(0.2, 0.05, 0.1),
        window: Duration::from_secs(3),
        ledger: Some(ledger.clone()),
        ..Load::new(tally.public, vec![goal])
    };
    let report = loadtest::closed_loop::run(&load).expect("it runs");
    assert!(report.total.created > 0 && report.total.duplicates > 0, "{report:?}");
    assert_eq!(report.total.unknown, 0);
    let reader = std::fs::read_to_string(tally.data_dir.join("reader.url")).expect("the reader's URL");
    let clickhouse = ClickHouse::new(&reader).expect("a URL");
    let mut verdict = None;
    wait_for("every row", || {
        let found = clickhouse.verify(Comparison::new(ledger.entries())).expect("an answer");
        let late = found.only_missing();
        verdict = Some(found);
        !late
    });
    let verdict = verdict.expect("asked");
    assert!(verdict.holds(), "{verdict}");
}

/// Most hits of one worker that may wait for the log: `RECORDS_UNDECIDED_MAX` of `wal::shared`.
const WAITING_MAX: usize = 1024;
/// What a refused connection is told to wait, and held to.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[test]
fn who_comes_when_too_many_wait_is_refused_at_once_and_held_to_its_retry_after() {
    const REFUSED: usize = 50;
    let (folder, faults) = (folder(), Faults::new());
    let flags = ["--workers", "1", "--clickhouse-url", NO_CLICKHOUSE];
    let tally = Tally::start(&folder.path().join("data"), &Start { faults: Some(&faults), flags: &flags });
    let goal = tally.goal();
    faults.order("hold-sync", "");
    let mut waiting: Vec<Wire> = (0..WAITING_MAX).map(|_| Wire::connect(tally.public)).collect();
    for wire in &mut waiting {
        wire.send(hit(&goal, r#"{"value":1}"#));
    }
    faults.wait_there("held");
    let mut refused: Vec<Wire> = (0..REFUSED).map(|_| Wire::connect(tally.public)).collect();
    // The waiting ones may still be on their way; whoever is refused first says that they are all there.
    wait_for("a refusal", || {
        let mut last = Wire::connect(tally.public);
        last.send(hit(&goal, r#"{"value":1}"#));
        let was_refused = last.speaks_within(A_WHILE);
        waiting.push(last);
        was_refused
    });
    let mut since = Vec::new();
    for wire in &mut refused {
        wire.send(hit(&goal, r#"{"value":2}"#));
        let answer = wire.answer().expect("an answer");
        since.push(Instant::now());
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("1"));
        wire.send(hit(&goal, r#"{"value":2}"#));
    }
    faults.end("hold-sync");
    for (wire, since) in refused.iter_mut().zip(since) {
        assert_eq!(wire.answer().expect("an answer").status, 201, "there is room again");
        // Its request was there all the time, and the answer before it left a little before it was seen.
        assert!(since.elapsed() > RETRY_AFTER.mul_f32(0.9), "it was not read before its time");
    }
    let answers: Vec<u16> = waiting.iter_mut().map(|wire| wire.answer().expect("an answer").status).collect();
    let taken = answers.iter().filter(|status| **status == 201).count();
    assert_eq!(taken, WAITING_MAX, "exactly as many as may wait");
    assert!(answers.iter().all(|status| matches!(status, 201 | 503)));
}
