//! Reported clicks: each number counts once, whatever is killed between its copies, and a bulk call answers each line.

mod support;

use std::fmt::Write as _;
use std::time::Duration;

use loadtest::rng::SplitMix64;
use serde_json::{Value, json};
use support::accounts::audit;
use support::bulk::{Caller, settles_at};
use support::command::post;
use support::daemon::{Site, kill};
use support::http::{agent, read};
use support::track::pause;

const PATH: &str = "/api/v1/clicks";

fn click(id: u64) -> String {
    json!({"click_id": id, "ip": "203.0.113.7", "user_agent": "Mozilla/5.0", "utm_source": "facebook"})
        .to_string()
}

fn clicks(ids: impl IntoIterator<Item = u64>) -> String {
    ids.into_iter().fold(String::new(), |mut lines, id| {
        let _ = writeln!(lines, "{}", click(id));
        lines
    })
}

#[test]
fn a_number_counts_once_across_kills_between_its_copies() {
    let mut site = Site::start(&[]);
    let caller = Caller::new(&site);
    let mut random = SplitMix64::new(7);
    let (rounds, each) = (5u64, 400u64);
    for round in 0..rounds {
        let mine = round * each + 1..(round + 1) * each + 1;
        let pid = site.pid();
        let sending = std::thread::spawn({
            let (caller, mine) = (caller.clone(), mine.clone());
            move || -> Vec<Value> {
                // Until the daemon is gone: first one by one, then all at once.
                let one_by_one = mine.clone().take(100).map_while(|id| {
                    caller.try_post(PATH, "application/json", &click(id)).filter(|told| told.status == 201)
                });
                let told: Vec<_> = one_by_one.map(|told| told.body["data"].clone()).collect();
                let _ = caller.try_post(PATH, "application/x-ndjson", &clicks(mine));
                told
            }
        });
        pause(Duration::from_millis(random.below(300)));
        kill(pid);
        let told = sending.join().expect("no panic");
        assert!(told.iter().all(|data| data["duplicate"] == false));
        site.kill();
        site.restart();
        // Everything again, and what came before the kill as well.
        let again = caller.lines(PATH, &clicks(1..mine.end));
        assert_eq!(again.status, 200);
        let [accepted, duplicates, refused] = again.counts();
        println!("round {round}: {} told, {accepted} accepted, {duplicates} duplicates", told.len());
        assert_eq!((accepted + duplicates, refused), (round * each + each, 0));
        let acknowledged = told.iter().filter_map(|data| data["click_id"].as_u64());
        for id in acknowledged {
            let result = &again.results()[usize::try_from(id - 1).expect("small")];
            // Not yet told from a new one, or known: never new.
            assert!(result["data"]["duplicate"] != false, "{id} was acknowledged before: {result}");
        }
    }
    settles_at(&site, "SELECT count() FROM tally.clicks", rounds * each);
    settles_at(&site, "SELECT uniqExact(click_id) FROM tally.clicks", rounds * each);
}

#[test]
fn ten_thousand_lines_half_of_them_wrong_are_answered_each() {
    let mut site = Site::start(&[]);
    site.wait_warm();
    let caller = Caller::new(&site);
    let wrong =
        [r#"{"click_id":"{clickid}"}"#, r#"{"click_id":-1}"#, "{", r#"{"link_id":77}"#, r#"{"ip":"x"}"#];
    let mut body = String::new();
    for n in 0..10_000u64 {
        let text =
            if n % 2 == 0 { click(n + 1) } else { wrong[usize::try_from(n / 2 % 5).expect("small")].into() };
        let _ = writeln!(body, "{text}");
    }
    let told = caller.lines(PATH, &body);
    assert_eq!((told.status, told.counts()), (200, [5000, 0, 5000]));
    for (result, n) in told.results().iter().zip(0u64..) {
        assert_eq!(result["line"], n + 1);
        assert_eq!(result["success"], n % 2 == 0, "{result}");
    }
    let again = caller.lines(PATH, &body);
    assert_eq!(again.counts(), [0, 5000, 5000], "known before they are in the database");
    settles_at(&site, "SELECT count() FROM tally.clicks", 5000);
    site.kill();
    site.restart();
    site.wait_warm();
    assert_eq!(caller.lines(PATH, &body).counts(), [0, 5000, 5000], "and after");
    settles_at(&site, "SELECT count() FROM tally.clicks", 5000);
}

#[test]
fn numbers_are_known_from_the_log_alone() {
    // Nobody listens there: what is known, the log and the memory know.
    let mut site = Site::start(&["--clickhouse-url", "http://127.0.0.1:9/"]);
    let caller = Caller::new(&site);
    assert_eq!(caller.lines(PATH, &clicks(1..=300)).counts(), [300, 0, 0]);
    assert_eq!(caller.lines(PATH, &clicks(1..=300)).counts(), [0, 300, 0]);
    site.kill();
    site.restart();
    assert_eq!(caller.lines(PATH, &clicks(1..=300)).counts(), [0, 300, 0], "read back before the first hit");
    let one = caller.try_post(PATH, "application/json", &click(7)).expect("an answer");
    assert_eq!((one.status, &one.body["data"]), (200, &json!({"click_id": 7, "duplicate": true})));
    let new = caller.try_post(PATH, "application/json", &click(301)).expect("an answer");
    assert_eq!((new.status, &new.body["data"]), (202, &json!({"click_id": 301, "duplicate": null})));
}

#[test]
fn numbers_that_are_issued_grow_and_outlive_a_kill() {
    let mut site = Site::start(&[]);
    let caller = Caller::new(&site);
    let mut last = 0;
    for _ in 0..3 {
        for _ in 0..20 {
            let told = caller.try_post(PATH, "application/json", "{}").expect("an answer");
            assert_eq!(told.status, 201);
            let id = told.body["data"]["click_id"].as_u64().expect("a number");
            assert!(id > last && id < 1 << 53, "{id} after {last}");
            last = id;
        }
        site.kill();
        site.restart();
    }
    settles_at(&site, "SELECT uniqExact(click_id) FROM tally.clicks", 60);
    let keys = site.data_dir().join("visitor-keys.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(keys).expect("there").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// Whoever was told a number may report the click by it.
#[test]
fn a_click_that_was_issued_its_number_is_not_counted_again_when_it_is_reported() {
    let site = Site::start(&[]);
    site.wait_warm();
    let caller = Caller::new(&site);
    let link = json!({"link": {"name": "n", "slug": "n", "destination_url": "https://shop.example/?cid={click_id}"}});
    assert_eq!(post(&site, "/api/v1/links", &link, None).status, 201);
    let by_report = || {
        let told = caller.try_post(PATH, "application/json", "{}").expect("an answer");
        assert_eq!(told.status, 201);
        told.body["data"]["click_id"].as_u64().expect("a number")
    };
    let by_visit = || {
        let url = format!("http://{}/r/n", site.daemon.options.listen);
        let answer = agent().get(url).config().max_redirects(0).build().call().expect("an answer");
        let to = answer.headers()["location"].to_str().expect("text").to_owned();
        read(answer).expect("a body");
        to.split_once("cid=").expect("a number").1.parse().expect("a number")
    };
    let report = |id: u64| caller.try_post(PATH, "application/json", &click(id)).expect("an answer");
    // In the batch of its click, most likely; and when that is in ClickHouse.
    let ids: [u64; 2] = [by_report(), by_visit()];
    for id in ids {
        let told = report(id);
        assert_eq!((told.status, &told.body["data"]), (202, &json!({"click_id": id, "duplicate": null})));
    }
    settles_at(&site, "SELECT count() FROM tally.clicks", 2);
    let later = [by_report(), by_visit()];
    site.wait_settled();
    settles_at(&site, "SELECT count() FROM tally.clicks", 4);
    let lines = caller.lines(PATH, &clicks(later));
    assert_eq!(lines.counts(), [2, 0, 0]);
    site.wait_settled();
    settles_at(&site, "SELECT sum(clicks) FROM tally.clicks_hourly", 4);
    settles_at(&site, "SELECT count() FROM tally.rejections WHERE code = 'duplicate'", 4);
    audit(&site);
}
