//! Outgoing postbacks of the daemon: each conversion's arrives at least once, all copies under one name, however often
//! the daemon is killed; what became of them can be read, and they can be sent again; whoever gets them can tell whose
//! they are.
//!
//! `TALLY_POSTBACK_KILLS` says how often it is killed.

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use loadtest::request::Goal;
use serde_json::{Value, json};
use support::command::{data, post};
use support::daemon::Site;
use support::hooks::{Hook, Hooks};
use support::track::pause;
use support::wait_for;

/// Orders between two kills.
const ORDERS: usize = 40;

#[test]
fn killed_while_it_tells_it_tells_every_conversion_under_one_name() {
    let kills = std::env::var("TALLY_POSTBACK_KILLS").ok().map_or(5, |text| text.parse().expect("a number"));
    // Every seventh is refused once; the third attempt is minutes away, so nothing is refused twice.
    let hooks = Hooks::listen(|heard, hook| {
        let refused = heard.len() % 7 == 6 && heard.iter().all(|before| before.name() != hook.name());
        (if refused && hook.conversion().is_some() { 500 } else { 200 }, "ok".into())
    });
    let mut site = Site::start(&["--postback-allow", "127.0.0.0/8"]);
    let (goal, made) = create(&site, &hooks.url());
    let secret = made["postback_secret"].as_str().expect("shown once");
    let mut conversions = BTreeSet::new();
    for kill in 0..=kills {
        let before = hooks.copies();
        for order in 0..ORDERS {
            let (status, tracked) = data(&site.track(&goal, &format!("{kill}-{order}")));
            // Shortly after a start it may not be known yet whether the order is new: kept, and decided later.
            assert!([201, 202].contains(&status), "{status}: {tracked}");
            conversions.insert(tracked["conversion_id"].as_str().expect("an id").to_owned());
        }
        if kill < kills {
            // In the middle of the deliveries, or somewhere between the first record and the last outcome.
            if kill % 2 == 0 {
                wait_for("some of them", || hooks.copies() > before);
            } else {
                pause(Duration::from_millis(300 + 250 * (kill % 9)));
            }
            site.kill();
            site.restart();
        }
    }
    wait_for("every postback", || hooks.told().len() >= conversions.len());
    let told = hooks.told();
    let names: BTreeSet<_> = conversions.iter().map(|id| format!("msg_{id}")).collect();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), names, "one name for each conversion");
    assert!(told.iter().all(|(name, of)| of.len() == 1 && of.iter().all(|id| *name == format!("msg_{id}"))));
    wait_for("an empty outbox", || site.metric("tally_postbacks_queued") == Some(0.0));
    println!("{kills} kills: {} conversions, {} postbacks", conversions.len(), hooks.copies());

    sent_again(&site, &goal, &hooks, conversions.first().expect("one"), conversions.len());
    verified_by_python(&site, &goal, &hooks, secret);
    let log = site.log();
    assert!(!log.contains(secret) && !log.contains(&secret[6..]), "no secret in the log");
}

/// What became of one can be read; it and all others can be sent again, under the names that they had.
fn sent_again(site: &Site, goal: &Goal, hooks: &Hooks, conversion: &str, all: usize) {
    let name = format!("msg_{conversion}");
    let path = format!("/api/v1/postbacks/deliveries?conversion_id={conversion}");
    let mut deliveries = Value::Null;
    wait_for("the log", || {
        deliveries = site.api(&path)["data"].clone();
        deliveries[0]["status"] == 200
    });
    assert_eq!(deliveries[0]["webhook_id"], name);
    let copies = || hooks.heard().iter().filter(|hook| hook.name() == name).count();
    let before = copies();
    let id = deliveries[0]["id"].as_str().expect("an id");
    let (status, replayed) = ask(site, &format!("/api/v1/postbacks/deliveries/{id}/replay"), &Value::Null);
    assert_eq!((status, &replayed["webhook_id"]), (202, &json!(name)), "{replayed}");
    wait_for("the copy", || copies() > before);

    let (before, path) = (hooks.copies(), format!("/api/v1/conversions/goals/{}/backfill", goal.id));
    let (status, queued) = ask(site, &path, &json!({"from": "2020-01-01T00:00:00Z"}));
    assert_eq!((status, &queued["queued"]), (202, &json!(all)), "{queued}");
    wait_for("all copies", || hooks.copies() >= before + all);
    assert_eq!(hooks.told().len(), all, "no new name");
}

/// The specification's own library in another language verifies what was sent, while a secret is rotated too.
fn verified_by_python(site: &Site, goal: &Goal, hooks: &Hooks, secret: &str) {
    let goal = format!("/api/v1/conversions/goals/{}", goal.id);
    let sample = || {
        let (status, came) = ask(site, &format!("{goal}/test"), &Value::Null);
        assert_eq!((status, &came["status"], &came["answer"]), (200, &json!(200), &json!("ok")), "{came}");
        hooks.heard().pop().expect("the sample")
    };
    let first = sample();
    assert_eq!(first.json()["event"], "conversion.test");
    let told = hooks.heard().into_iter().rev().find(|hook| hook.conversion().is_some()).expect("one");
    let (status, rotated) = ask(site, &format!("{goal}/rotate-postback-secret"), &Value::Null);
    assert_eq!(status, 200, "{rotated}");
    let rotated = rotated["postback_secret"].as_str().expect("shown once");
    let both = sample();
    let changed = Hook { body: told.body.replace("12.5", "12.6"), ..told.clone() };
    assert_ne!(changed.body, told.body);
    for (verified, secret, hook) in [
        (true, secret, &told),
        (true, secret, &first),
        (false, rotated, &first),
        (true, secret, &both),
        (true, rotated, &both),
        (false, secret, &changed),
    ] {
        assert_eq!(python_verifies(secret, hook), verified, "{hook:?}");
    }
}

fn python_verifies(secret: &str, hook: &Hook) -> bool {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut python = Command::new(format!("{root}/.venv/bin/python"))
        .arg(format!("{root}/tests/clients/verify_webhooks.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python: run `make test-tools`");
    let line = json!({"secret": secret, "headers": hook.headers, "body": hook.body});
    writeln!(python.stdin.take().expect("a pipe"), "{line}").expect("written");
    let output = python.wait_with_output().expect("it ends");
    match String::from_utf8_lossy(&output.stdout).trim() {
        "verified" => true,
        "refused" => false,
        other => panic!("Python said {other:?}: run `make test-tools`"),
    }
}

#[test]
fn nobody_reaches_what_is_not_public() {
    let site = Site::start(&[]);
    for url in [
        "http://127.0.0.1:9/",
        "https://127.0.0.1/",
        "https://[::ffff:169.254.169.254]/",
        "https://10.0.0.1/",
        "http://1.1.1.1/",
        "https://localhost/",
    ] {
        let goal = json!({"goal": {"name": "n", "postback_url": url}});
        let answer = post(&site, "/api/v1/conversions/goals", &goal, None);
        let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!((answer.status, &json["error"]["field"]), (422, &json!("postback_url")), "{url}: {json}");
    }
}

fn create(site: &Site, url: &str) -> (Goal, Value) {
    let goal = json!({"goal": {"name": "n", "postback_url": url}});
    let (status, made) = ask(site, "/api/v1/conversions/goals", &goal);
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_u64().expect("a number");
    (Goal { id, token: made["postback_token"].as_str().expect("a token").to_owned() }, made)
}

/// The answer's status and data.
fn ask(site: &Site, path: &str, body: &Value) -> (u16, Value) {
    data(&post(site, path, body, None))
}
