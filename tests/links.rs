//! Links: whoever follows one is sent on, whatever becomes of the record; each recorded click is in ClickHouse once;
//! and nothing that a visitor brings leads anywhere but where the link does.

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::faults::daemon::{NO_CLICKHOUSE, Start, Tally, folder};
use support::faults::shim::Faults;
use support::faults::wait_for;
use support::faults::wire::{Response, Wire, ask, request};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0";
const UNRECORDED: &str = "tally_clicks_unrecorded_total";

/// Makes a link.
fn link(tally: &Tally, fields: &str) -> Value {
    let body = format!(r#"{{"link":{{"name":"n",{fields}}}}}"#);
    let answer = tally.api("POST /api/v1/links", &body);
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["data"].clone()
}

fn visit(tally: &Tally, target: &str, headers: &[(&str, &str)]) -> Response {
    ask(tally.public, request(&format!("GET {target}"), headers, ""))
}

#[track_caller]
fn location(answer: &Response) -> &str {
    assert_eq!(answer.status, 302, "{answer:?}");
    answer.header("location").expect("a location")
}

#[test]
fn a_visit_is_one_click_in_clickhouse_also_across_a_kill() {
    let folder = folder();
    let data = folder.path().join("data");
    let tally = Tally::start(&data, &Start::default());
    let made = link(
        &tally,
        r#""slug":"winter","destination_url":"https://shop.example/?cid={click_id}","variants":[{"name":"B"}],
        "utm_medium":"email""#,
    );
    assert_eq!(made["tracking_url"], "http://t/r/winter");
    let person = [("User-Agent", FIREFOX)];
    let first = visit(&tally, "/r/winter?utm_source=face%20book&sub2=x", &person);
    let click_id = |answer: &Response| {
        let id = location(answer).strip_prefix("https://shop.example/?cid=").expect("the destination");
        id.split('&').next().expect("an id").parse::<u64>().expect("a number")
    };
    let first = click_id(&first);
    let robot = click_id(&visit(&tally, "/r/winter", &[("User-Agent", "Twitterbot/1.0")]));
    assert_eq!(tally.metric(UNRECORDED), 0);
    // It was durable before the visitor went on.
    tally.kill();
    let tally = Tally::start(&data, &Start::default());
    let looked = visit(&tally, "/r/winter", &[("User-Agent", FIREFOX), ("Sec-Purpose", "prefetch")]);
    let looked = click_id(&looked);
    assert!(first < robot && robot < looked && looked < 1 << 53, "numbers grow: {first} {robot} {looked}");
    let count = || tally.line("SELECT count() FROM tally.clicks");
    wait_for("the clicks", || count() == "3");
    let rows = tally.clickhouse().lines(
        "SELECT click_id, account_id, link_id, source, traffic, utm_source, utm_medium, variant, sub2, \
         clicked_at = received_at FROM tally.clicks ORDER BY click_id",
    );
    let rows: Vec<_> = rows.expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(
        rows,
        [
            format!("{first}\t1\t1\tredirect\thuman\tface book\temail\tB\tx\t1"),
            format!("{robot}\t1\t1\tredirect\tbot\t\temail\tB\t\t1"),
            format!("{looked}\t1\t1\tredirect\tprefetch\t\temail\tB\t\t1"),
        ]
    );
    assert_eq!(tally.api("DELETE /api/v1/links/1", "").status, 200);
    assert_eq!(visit(&tally, "/r/winter", &person).status, 404);
}

#[test]
fn a_visitor_does_not_wait_for_a_disk_that_hangs_nor_for_one_that_failed() {
    let (folder, faults) = (folder(), Faults::new());
    let data = folder.path().join("data");
    let start = Start { faults: Some(&faults), flags: &["--clickhouse-url", NO_CLICKHOUSE] };
    let tally = Tally::start(&data, &start);
    link(&tally, r#""slug":"w","destination_url":"https://shop.example""#);
    location(&visit(&tally, "/r/w", &[]));
    faults.order("hold-sync", "");
    let mut hanging = Wire::connect(tally.public);
    hanging.send(request("GET /r/w", &[], ""));
    faults.wait_there("held");
    // Answered although the sync is held, so at the deadline.
    location(&hanging.answer().expect("an answer"));
    location(&visit(&tally, "/r/w", &[]));
    assert_eq!(tally.metric(UNRECORDED), 0, "they may still be recorded");
    faults.end("hold-sync");
    wait_for("their clicks", || tally.metric("tally_clicks_total") == 3);
    assert_eq!(tally.metric(UNRECORDED), 0);

    faults.order("fail-sync", "");
    location(&visit(&tally, "/r/w", &[]));
    tally.wait_unready("poisoned");
    wait_for("the lost one", || tally.metric(UNRECORDED) == 1);
    for _ in 0..5 {
        location(&visit(&tally, "/r/w", &[]));
    }
    assert_eq!(tally.metric(UNRECORDED), 6, "counted one by one");
}

#[test]
fn a_visitor_goes_on_when_the_log_is_full() {
    let folder = folder();
    let flags = &["--clickhouse-url", NO_CLICKHOUSE, "--spool-bytes-max", "16MiB"];
    let tally = Tally::start(&folder.path().join("data"), &Start { flags, ..Start::default() });
    link(&tally, r#""slug":"w","destination_url":"https://shop.example""#);
    // Each as large as a click gets, so that the log is full soon.
    let labels =
        ["utm_source", "utm_medium", "utm_term", "utm_content", "sub1", "sub2", "sub3", "sub4", "sub5"];
    let labels = labels.map(|name| format!("\"{name}\":\"{}\"", "x".repeat(128))).join(",");
    let click = format!("{{\"user_agent\":\"{}\",{labels}}}\n", "x".repeat(512));
    let clicks = click.repeat((7 << 20) / click.len());
    let key = format!("Bearer {}", tally.api_key());
    let headers = [("Authorization", key.as_str()), ("Content-Type", "application/x-ndjson")];
    wait_for("a full log", || {
        let answer = ask(tally.public, request("POST /api/v1/clicks", &headers, &clicks));
        answer.status == 503
    });
    tally.wait_unready("spool_full");
    for _ in 0..5 {
        location(&visit(&tally, "/r/w", &[("User-Agent", FIREFOX)]));
    }
    assert_eq!(tally.metric(UNRECORDED), 5);
}

#[test]
fn a_visitor_sees_one_variant_also_after_a_restart() {
    let folder = folder();
    let data = folder.path().join("data");
    let flags = &["--clickhouse-url", NO_CLICKHOUSE, "--trusted-proxies", "127.0.0.1/32"];
    let start = Start { flags, ..Start::default() };
    let tally = Tally::start(&data, &start);
    link(
        &tally,
        r#""slug":"w","destination_url":"https://a.example/{variant}","variants":[{"name":"A"},{"name":"B","weight":2},
        {"name":"never","weight":0}]"#,
    );
    let all = |tally: &Tally| -> BTreeMap<String, String> {
        let visitors = (1..=60).map(|n| format!("198.51.100.{n}"));
        visitors
            .map(|ip| {
                let headers = [("X-Forwarded-For", ip.as_str()), ("User-Agent", FIREFOX)];
                let shown = location(&visit(tally, "/r/w", &headers)).to_owned();
                (ip, shown)
            })
            .collect()
    };
    let before = all(&tally);
    assert_eq!(before, all(&tally), "a reload changes nothing");
    let shown = |variant: &str| before.values().filter(|shown| shown.ends_with(variant)).count();
    assert_eq!(shown("/never"), 0);
    assert!((10..30).contains(&shown("/A")), "a third of 60: {}", shown("/A"));
    tally.kill();
    assert_eq!(before, all(&Tally::start(&data, &start)), "nor does a restart");
}

#[test]
fn nothing_that_a_visitor_brings_leads_elsewhere() {
    let folder = folder();
    let tally = Tally::start_alone(&folder.path().join("data"));
    link(&tally, r#""slug":"w","destination_url":"https://shop.example/{sub1}?s={utm_source}""#);
    let long = format!("/r/w?{}", "a&".repeat(7000));
    for target in [
        "/r/w?sub1=//evil.example&utm_source=https://evil.example",
        "/r/w?sub1=..%2F..&utm_source=%0d%0aSet-Cookie:%20a=b",
        "/r/w?x=%0d%0aLocation:%20https://evil.example",
        "/r/w?x='script&y='%00'",
        "/r/w?@evil.example&:80&\\evil",
        "/r/w?%%%&=&&?&?x?",
        "http://evil.example/r/w?sub1=a",
        &long,
    ] {
        let answer = visit(&tally, target, &[("X-Forwarded-Host", "evil.example")]);
        let to = location(&answer);
        assert!(to.starts_with("https://shop.example/") && to.is_ascii(), "{target}: {to}");
        assert!(to.len() <= 8192 && !to.contains(['"', '<', '>', '\\', ' ']), "{target}: {to}");
        let heads = answer.head.to_ascii_lowercase();
        assert!(heads.matches("\nlocation:").count() == 1 && !heads.contains("\nset-cookie"), "{heads}");
    }
    // What is no URI or no text: redirected or refused, and never believed.
    for raw in [
        &b"GET /r/w?x=\xff\xfe HTTP/1.1\r\nHost: t\r\n\r\n"[..],
        b"GET /r/w?x=\"<script> HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /r/w HTTP/1.1\r\nHost: t\r\nUser-Agent: \xff\r\n\r\n",
    ] {
        let answer = ask(tally.public, raw);
        assert!(matches!(answer.status, 302 | 400), "{answer:?}");
    }
    for slug in ["none", "w/x", "w%00x", ".", "..%2f", "w.html", &"w".repeat(3000)] {
        assert_eq!(visit(&tally, &format!("/r/{slug}"), &[]).status, 404, "{slug}");
    }
    // However the address was written, it is the same link.
    for slug in ["w/", "W", "%77", "w."] {
        assert_eq!(visit(&tally, &format!("/r/{slug}"), &[]).status, 302, "{slug}");
    }
    let mut head = Wire::connect(tally.public);
    head.send(request("HEAD /r/w", &[], ""));
    assert_eq!(
        head.answer_to_head().expect("an answer").header("location"),
        Some("https://shop.example/?s=")
    );
    assert_eq!(ask(tally.public, request("POST /r/w", &[], "")).status, 405);
}
