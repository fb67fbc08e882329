//! Invariant 2: of ten thousand concurrent copies of one order one counts, and every answer names it; also when the
//! daemon is killed between the copies.

mod support;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use loadtest::clickhouse::ClickHouse;
use loadtest::request::Goal;
use loadtest::response::Answer;
use loadtest::rng::SplitMix64;
use support::accounts::assert_exactly_once;
use support::daemon::Site;
use support::track::{entry, pause, postback, send_copies};

const COPIES: usize = 10_000;
const CONNECTIONS: usize = 1_000;

#[test]
fn ten_thousand_concurrent_copies_are_one_conversion() {
    let site = Site::start(&[]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let answers = copies(&site, &goal, "ORDER-1", COPIES, || ());

    let mut statuses = BTreeMap::new();
    for answer in &answers {
        *statuses.entry((answer.status, answer.duplicate)).or_insert(0) += 1;
    }
    let expected = [((200, Some(true)), COPIES - 1), ((201, Some(false)), 1)];
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), expected);
    assert_proven(&site, &goal, &[("ORDER-1", answers)]);
}

#[test]
fn a_kill_between_the_copies_makes_no_second_conversion() {
    const KILLS: u64 = 4;
    let mut site = Site::start(&[]);
    let goal = site.goals(1).remove(0);
    let mut random = SplitMix64::new(42);
    let orders: Vec<_> = (0..KILLS).map(|kill| format!("ORDER-{kill}")).collect();
    let mut told = Vec::new();
    for order in &orders {
        // From before the first record to after the last one.
        let moment = Duration::from_millis(random.below(400));
        let mut answers = std::thread::scope(|scope| {
            let (connected, sending) = mpsc::channel();
            let (site, goal) = (&site, &goal);
            let before = scope.spawn(move || {
                copies(site, goal, order, COPIES / 2, || connected.send(()).expect("awaited"))
            });
            sending.recv_timeout(support::DEADLINE).expect("connected");
            pause(moment);
            support::daemon::kill(site.pid());
            before.join().expect("no panic")
        });
        site.kill();
        site.restart();
        let answered_before = answers.len();
        let after = copies(&site, &goal, order, COPIES / 2, || ());
        assert_eq!(after.len(), COPIES / 2);
        println!("{order}: killed after {moment:?}, {answered_before} answered before");
        answers.extend(after);
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        assert!(created <= 1, "{order} was created {created} times");
        told.push((order.as_str(), answers));
    }
    assert_proven(&site, &goal, &told);
}

fn copies(site: &Site, goal: &Goal, order: &str, copies: usize, connected: impl FnOnce()) -> Vec<Answer> {
    let address = site.daemon.options.listen;
    send_copies(address, &postback(goal, order, ""), CONNECTIONS, copies, connected)
}

/// One row for each order, and every answer names it.
fn assert_proven(site: &Site, goal: &Goal, told: &[(&str, Vec<Answer>)]) {
    let entries: Vec<_> = told
        .iter()
        .flat_map(|(order, answers)| answers.iter().map(|answer| entry(goal, order, answer)))
        .collect();
    let reader = site.daemon.reader_url().expect("a URL");
    let verdict = assert_exactly_once(site, &reader, &entries);
    assert_eq!((verdict.rows, verdict.foreign_rows), (told.len() as u64, 0));
    let clickhouse = ClickHouse::new(&reader).expect("a URL");
    let counted = clickhouse.number("SELECT sum(conversions) FROM tally.conversions_hourly").expect("a sum");
    assert_eq!(counted, told.len() as u64);
}
