//! `tally reattribute`, beside a running daemon and without one.

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::DEADLINE;
use support::accounts::audit;
use support::command::{data, post, tally, tally_json, wait_shipped};
use support::daemon::Site;
use tally::clock::{Clock as _, SystemClock};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0";
const SINCE: &str = "2026-01-01";

fn days_ago(days: i64) -> String {
    let at = SystemClock.now().plus(-days * 86_400_000);
    jiff::Timestamp::from_millisecond(at.0).expect("a time").to_string()
}

fn click(site: &Site, id: u64, ip: &str, days: i64) {
    let click = json!({"click_id": id, "ip": ip, "user_agent": AGENT, "clicked_at": days_ago(days)});
    assert_eq!(post(site, "/api/v1/clicks", &click, None).status, 201);
}

fn convert(site: &Site, token: &str, more: &Value) -> String {
    let mut hit = json!({"postback_token": token, "value": 10, "currency": "EUR"});
    for (name, value) in more.as_object().expect("an object") {
        hit[name] = value.clone();
    }
    let (status, tracked) = data(&post(site, "/api/v1/conversions/track", &hit, None));
    assert_eq!(status, 201);
    tracked["conversion_id"].as_str().expect("an id").to_owned()
}

/// The click that earned a conversion, the reason where none did, and the run that says so.
fn earned(site: &Site, id: &str) -> (Option<u64>, Option<String>, u64) {
    let of = site.api(&format!("/api/v1/conversions/{id}"))["data"]["attribution"].clone();
    let reason = of["reason"].as_str().map(str::to_owned);
    (of["click_id"].as_u64(), reason, of["run"].as_u64().expect("a run"))
}

fn run(site: &Site, days: &str, more: &[&str]) -> Value {
    let arguments = [&["reattribute", "--window-days", days, "--since", SINCE, "--json"], more].concat();
    tally_json(site, &arguments)
}

#[test]
fn runs_are_computed_beside_a_daemon_and_put_in_force_and_back() {
    let site = Site::start(&[]);
    site.wait_warm();
    let token = site.goals(1).remove(0).token;
    // Of one visitor a click three days old and one of yesterday; another is named, ten days old.
    click(&site, 1, "203.0.113.7", 3);
    click(&site, 2, "203.0.113.7", 1);
    click(&site, 3, "203.0.113.9", 10);
    wait_shipped(&site, 3);
    let visitor = convert(&site, &token, &json!({"ip": "203.0.113.7", "user_agent": AGENT}));
    let named = convert(&site, &token, &json!({"click_id": 3}));
    let stranger = convert(&site, &token, &json!({"ip": "203.0.113.20", "user_agent": AGENT}));
    site.wait_inserted(3);

    let first = run(&site, "30", &["--model", "first"]);
    assert_eq!(
        (first["run"].clone(), first["in_force"].clone(), first["attributed"].clone()),
        (1.into(), true.into(), 2.into())
    );
    assert_eq!(earned(&site, &visitor), (Some(1), None, 1));
    assert_eq!(earned(&site, &named), (Some(3), None, 1));
    assert_eq!(earned(&site, &stranger).0, None);

    let dry = run(&site, "2", &["--dry-run"]);
    assert_eq!(
        (dry["run"].clone(), dry["in_force"].clone(), dry["before"].clone()),
        (2.into(), false.into(), 1.into())
    );
    let difference = dry["differences"][0].clone();
    assert_eq!(
        (difference["conversions_before"].clone(), difference["conversions_after"].clone()),
        (2.into(), 1.into()),
        "{dry}"
    );
    assert_eq!(
        (difference["value_before"].clone(), difference["value_after"].clone()),
        ("20.00".into(), "10.00".into())
    );
    assert_eq!(earned(&site, &visitor), (Some(1), None, 1), "nothing changed");
    assert!(tally(&site, &["reattribute", "--use", "2"]).status.success());
    assert_eq!(earned(&site, &visitor), (Some(2), None, 2));
    assert_eq!(earned(&site, &named).0, None);
    let report = || site.api("/api/v1/analytics/conversions?days=30")["data"].clone();
    assert_eq!(
        (
            report()["attributed"].clone(),
            report()["time_to_convert"]["average_seconds"].as_u64().map(|s| s / 3600)
        ),
        (1.into(), Some(24))
    );

    // What comes later is decided as it comes, and stands beside the run.
    let later = convert(&site, &token, &json!({"click_id": 3}));
    site.wait_inserted(4);
    assert_eq!(earned(&site, &later).2, 0);
    assert_eq!(report()["conversions"], 4);

    let listed = tally_json(&site, &["reattribute", "--list", "--json"]);
    let current: Vec<_> =
        listed.as_array().expect("a list").iter().map(|run| run["current"].clone()).collect();
    assert_eq!(current, [false, true]);
    assert!(tally(&site, &["reattribute", "--use", "1"]).status.success());
    assert_eq!(earned(&site, &visitor), (Some(1), None, 1), "nothing of it was lost");
    assert!(tally(&site, &["reattribute", "--use", "0"]).status.success());
    assert_eq!(earned(&site, &visitor).2, 0);
    assert!(!tally(&site, &["reattribute", "--use", "9"]).status.success());
    audit(&site);
}

#[test]
fn without_a_daemon_nothing_may_wait() {
    let mut site = Site::start(&[]);
    site.wait_warm();
    let token = site.goals(1).remove(0).token;
    click(&site, 1, "203.0.113.7", 1);
    convert(&site, &token, &json!({"click_id": 1}));
    site.wait_inserted(1);
    wait_shipped(&site, 1);
    click(&site, 2, "203.0.113.7", 1);
    site.kill();
    let arguments = ["reattribute", "--window-days", "7", "--since", SINCE];
    let refused = tally(&site, &arguments);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no daemon runs"), "{said}");

    site.restart();
    wait_shipped(&site, 2);
    site.signal(Signal::TERM);
    assert!(site.ended_within(DEADLINE).success());
    let output = tally(&site, &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("Run 2: last click within 7 days"), "{said}");
    audit(&site);
}
