//! Bulk conversions: one group in the log, so that a kill leaves all of a request's lines or none of them.

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use loadtest::request::Goal;
use loadtest::rng::SplitMix64;
use serde_json::json;
use support::bulk::{Caller, number, settles_at};
use support::daemon::{Site, kill};
use support::track::pause;

const PATH: &str = "/api/v1/conversions/batch";
const LINES: u64 = 2_000;

fn batch(goal: &Goal, name: &str, lines: u64) -> String {
    (0..lines).fold(String::new(), |mut body, n| {
        let line = json!({"postback_token": goal.token, "order_id": format!("{name}-{n}"), "value": "1.50"});
        let _ = writeln!(body, "{line}");
        body
    })
}

#[test]
fn a_kill_leaves_all_lines_or_none() {
    let mut site = Site::start(&[]);
    let goal = site.goals(1).remove(0);
    let caller = Caller::new(&site);
    let mut random = SplitMix64::new(11);
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let body = batch(&goal, &format!("ROUND{round}"), LINES);
        let sending = std::thread::spawn({
            let caller = caller.clone();
            move || caller.try_post(PATH, "application/x-ndjson", &body)
        });
        pause(Duration::from_millis(random.below(250)));
        kill(site.pid());
        let told = sending.join().expect("no panic").filter(|told| told.status == 200);
        if told.is_some() {
            acknowledged.push(round);
        }
        site.kill();
        site.restart();
    }
    site.wait_settled();
    let kept = |round: u64| {
        let query = format!("SELECT count() FROM tally.conversions WHERE order_id LIKE 'ROUND{round}-%'");
        number(&site, &query)
    };
    for round in 0..6 {
        let lines = kept(round);
        println!("round {round}: {lines} kept, acknowledged: {}", acknowledged.contains(&round));
        assert!(lines == LINES || (lines == 0 && !acknowledged.contains(&round)), "{lines} of {LINES}");
    }
    for round in 0..6 {
        let told = caller.lines(PATH, &batch(&goal, &format!("ROUND{round}"), LINES));
        let [accepted, duplicates, refused] = told.counts();
        assert_eq!((accepted + duplicates, refused), (LINES, 0));
    }
    settles_at(&site, "SELECT count() FROM tally.conversions", 6 * LINES);
    for round in 0..6 {
        assert_eq!(kept(round), LINES, "each exactly once");
    }
}

#[test]
fn ten_thousand_lines_fit_and_their_copies_are_recognised() {
    let site = Site::start(&["--workers", "1"]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let caller = Caller::new(&site);
    let body = batch(&goal, "A", 10_000);
    assert_eq!(caller.lines(PATH, &body).counts(), [10_000, 0, 0]);
    assert_eq!(caller.lines(PATH, &body).counts(), [0, 10_000, 0]);
    let one = batch(&goal, "B", 1);
    let other = one.replace("1.50", "2");
    let twice = caller.lines(PATH, &[one.as_str(), &other, &one].concat());
    assert_eq!(twice.counts(), [1, 2, 0], "copies inside of one request");
    let data: Vec<_> = twice.results().iter().map(|result| result["data"].clone()).collect();
    assert_eq!(data[0]["conversion_id"], data[1]["conversion_id"]);
    assert_eq!((&data[1]["conflict"], &data[2]["conflict"]), (&json!(true), &json!(null)));
    settles_at(&site, "SELECT count() FROM tally.conversions", 10_001);
    settles_at(&site, "SELECT sum(conversions) FROM tally.conversions_hourly", 10_001);
}

#[test]
fn lines_say_when_and_whose_conversion_it_was() {
    let site = Site::start(&[]);
    let goal = site.goals(1).remove(0);
    let caller = Caller::new(&site);
    let hour_ago = (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1)).to_string();
    let line = json!({"postback_token": goal.token, "converted_at": hour_ago, "ip": "198.51.100.77",
        "user_agent": "Visitor/1"});
    assert_eq!(caller.lines(PATH, &format!("{line}\n")).counts(), [1, 0, 0]);
    let stored = "SELECT count() FROM tally.conversions WHERE toString(ip) = '::ffff:198.51.100.0' \
                  AND user_agent = 'Visitor/1' AND length(visitor_keys) = 2 \
                  AND abs(dateDiff('second', converted_at, received_at) - 3600) < 60";
    settles_at(&site, stored, 1);
}
