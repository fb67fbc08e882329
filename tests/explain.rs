//! `?explain=1`: every click that a conversion could have met, and why it won or lost.

mod support;

use serde_json::{Value, json};
use support::command::{data, post, tally, wait_shipped};
use support::daemon::Site;
use tally::clock::{Clock as _, SystemClock};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0";
const ROBOT: &str = "Googlebot/2.1 (+http://www.google.com/bot.html)";
const HOUR: i64 = 3_600_000;

fn hours_ago(hours: i64) -> String {
    let at = SystemClock.now().plus(-hours * HOUR);
    jiff::Timestamp::from_millisecond(at.0).expect("a time").to_string()
}

fn click(site: &Site, id: u64, ip: &str, agent: &str, hours: i64) {
    let click = json!({"click_id": id, "ip": ip, "user_agent": agent, "clicked_at": hours_ago(hours)});
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

fn explain(site: &Site, id: &str) -> Value {
    site.api(&format!("/api/v1/conversions/{id}?explain=1"))["data"].clone()
}

/// Clicks with their verdicts, newest first.
fn verdicts(conversion: &Value) -> Vec<(u64, String)> {
    let candidates = conversion["explain"]["candidates"].as_array().expect("a list");
    let verdict = |of: &Value| {
        (of["click_id"].as_u64().expect("a number"), of["verdict"].as_str().expect("a verdict").to_owned())
    };
    candidates.iter().map(verdict).collect()
}

#[test]
fn every_click_says_why_it_won_or_lost() {
    let site = Site::start(&["--settle-seconds", "0"]);
    site.wait_warm();
    let token = site.goals(1).remove(0).token;
    let named = |pairs: &[(u64, &str)]| {
        pairs.iter().map(|(id, verdict)| (*id, (*verdict).to_owned())).collect::<Vec<_>>()
    };
    click(&site, 1, "203.0.113.7", AGENT, 30);
    click(&site, 2, "203.0.113.7", AGENT, 20);
    click(&site, 3, "203.0.113.7", AGENT, 2);
    click(&site, 4, "203.0.113.99", AGENT, 1);
    click(&site, 6, "203.0.113.7", ROBOT, 1);
    let visitor = json!({"ip": "203.0.113.7", "user_agent": AGENT, "converted_at": hours_ago(10)});
    wait_shipped(&site, 5);
    let by_visitor = convert(&site, &token, &visitor);
    let by_name = convert(&site, &token, &json!({"click_id": 3}));
    let by_robot = convert(&site, &token, &json!({"ip": "203.0.113.7", "user_agent": ROBOT}));
    let by_nothing = convert(&site, &token, &json!({"click_id": 12345}));
    site.wait_inserted(4);
    click(&site, 5, "203.0.113.7", AGENT, 15);
    wait_shipped(&site, 6);

    let of = explain(&site, &by_visitor);
    assert_eq!(
        verdicts(&of),
        named(&[(3, "after_conversion"), (5, "arrived_too_late"), (2, "won"), (1, "outranked")])
    );
    assert_eq!(of["explain"]["candidates"][2]["seconds"].as_i64().map(|seconds| seconds / 3600), Some(10));
    assert_eq!(
        (of["explain"]["model"].clone(), of["explain"]["truncated"].clone()),
        ("last".into(), false.into())
    );
    assert_eq!(of["attribution"]["click_id"], 2, "what was decided is what is explained");
    assert_eq!(of["attribution"]["candidates"], 2);
    assert_eq!(verdicts(&explain(&site, &by_name)), named(&[(3, "won")]));
    assert_eq!(verdicts(&explain(&site, &by_robot)), named(&[(6, "bot")]));
    let of = explain(&site, &by_nothing);
    assert_eq!((verdicts(&of), of["attribution"]["reason"].clone()), (Vec::new(), "click_not_found".into()));

    // By a run in force, its rules explain.
    let run = ["reattribute", "--window-days", "1", "--since", "2026-01-01", "--model", "first"];
    assert!(tally(&site, &run).status.success());
    let of = explain(&site, &by_visitor);
    assert_eq!(
        verdicts(&of),
        named(&[(3, "after_conversion"), (5, "arrived_too_late"), (2, "outranked"), (1, "won")])
    );
    assert_eq!(
        (of["attribution"]["click_id"].clone(), of["explain"]["window_seconds"].clone()),
        (1.into(), 86_400.into())
    );
}
