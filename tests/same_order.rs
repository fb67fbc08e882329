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
use support::daemon::{Site, kill};
use support::track::{Moment, entry, pause, postback, send_copies};

const COPIES: usize = 10_000;
const CONNECTIONS: usize = 1_000;

#[test]
fn ten_thousand_concurrent_copies_are_one_conversion() {
    let site = Site::start(&[]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let answers = copies(&site, &goal, "ORDER-1", CONNECTIONS, COPIES, |_| ());

    let mut statuses = BTreeMap::<_, usize>::new();
    for answer in &answers {
        *statuses.entry((answer.status, answer.duplicate)).or_insert(0) += 1;
    }
    let expected = [((200, Some(true)), COPIES - 1), ((201, Some(false)), 1)];
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), expected);
    assert_proven(&site, &goal, &[("ORDER-1".to_owned(), answers)]);
}

#[test]
fn a_kill_between_the_copies_makes_no_second_conversion() {
    let mut site = Site::start(&[]);
    let goal = site.goals(1).remove(0);
    let mut random = SplitMix64::new(42);
    let mut told = Vec::new();
    for kill in 0..8 {
        let order = format!("ORDER-{kill}");
        let mut answers = if kill % 3 == 0 {
            killed_at_any_moment(&site, &goal, &order, Duration::from_millis(random.below(400)))
        } else {
            killed_at_the_first_answer(&site, &goal, &order)
        };
        println!("{order}: {} answered before the kill", answers.len());
        site.kill();
        site.restart();
        let rest = COPIES / 2;
        let after = copies(&site, &goal, &order, CONNECTIONS, rest, |_| ());
        assert_eq!(after.len(), rest, "every copy after the kill is answered");
        answers.extend(after);
        let created = answers.iter().filter(|answer| answer.status == 201).count();
        assert!(created <= 1, "{order} was created {created} times");
        told.push((order, answers));
    }
    assert_proven(&site, &goal, &told);
}

/// From before the first record to after the last one.
fn killed_at_any_moment(site: &Site, goal: &Goal, order: &str, moment: Duration) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let (connected, sending) = mpsc::channel();
        let before = scope.spawn(move || {
            copies(site, goal, order, CONNECTIONS, COPIES / 2, move |at| {
                if at == Moment::Connected {
                    connected.send(()).expect("awaited");
                }
            })
        });
        sending.recv_timeout(support::DEADLINE).expect("connected");
        pause(moment);
        kill(site.pid());
        before.join().expect("no panic")
    })
}

/// Few copies, so that the first answer is seen at once: had it left before its record was on disk, it would be a lie.
fn killed_at_the_first_answer(site: &Site, goal: &Goal, order: &str) -> Vec<Answer> {
    let pid = site.pid();
    copies(site, goal, order, 8, 8, move |at| {
        if at == Moment::Answered {
            kill(pid);
        }
    })
}

fn copies(
    site: &Site,
    goal: &Goal,
    order: &str,
    connections: usize,
    copies: usize,
    at: impl Fn(Moment) + Clone + 'static,
) -> Vec<Answer> {
    send_copies(site.daemon.options.listen, &postback(goal, order, ""), connections, copies, at)
}

/// One row for each order, and every answer names it.
fn assert_proven(site: &Site, goal: &Goal, told: &[(String, Vec<Answer>)]) {
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
