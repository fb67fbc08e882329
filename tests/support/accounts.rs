//! The proof after a test: what was acknowledged against what is in ClickHouse, raw and derived.

use std::process::Command;
use std::time::{Duration, Instant};

use loadtest::clickhouse::{ClickHouse, ClickHouseError};
use loadtest::ledger::Entry;
use loadtest::verify::{Comparison, Verdict};

use super::DEADLINE;
use super::daemon::Site;

/// How long raw and derived rows may differ while the last hits arrive.
const SETTLING: Duration = Duration::from_secs(20);

/// Everything acknowledged in `entries` is in ClickHouse exactly once, and all that is derived from it adds up.
/// `reader` is ClickHouse's URL.
pub fn assert_exactly_once(site: &Site, reader: &str, entries: &[Entry]) -> Verdict {
    site.wait_settled();
    let clickhouse = ClickHouse::new(reader).expect("a URL");
    let verdict = verified(&clickhouse, entries);
    println!("{verdict}");
    assert!(verdict.holds(), "{verdict}");
    assert_derived_adds_up(&clickhouse);
    audit(site);
    verdict
}

/// What is derived, and what it is derived from.
const DERIVED: [[&str; 2]; 7] = [
    [
        "SELECT account_id, goal_id, toStartOfHour(converted_at) AS hour, currency, count(), sum(value), \
         uniqIf(visitor_key, visitor_key != 0) FROM tally.conversions GROUP BY ALL ORDER BY ALL",
        "SELECT account_id, goal_id, hour, currency, sum(conversions), sum(value), uniqMerge(visitors) \
         FROM tally.conversions_hourly GROUP BY ALL ORDER BY ALL",
    ],
    [
        "SELECT goal_id, count(), uniqExact(order_key), \
         sum(cityHash64(order_key, conversion_id, value, toString(currency), received_at, batch_id)) \
         FROM tally.conversions WHERE order_key != 0 GROUP BY goal_id ORDER BY ALL",
        "SELECT goal_id, count(), uniqExact(order_key), \
         sum(cityHash64(order_key, conversion_id, value, toString(currency), received_at, batch_id)) \
         FROM tally.order_keys WHERE goal_id != 0 GROUP BY goal_id ORDER BY ALL",
    ],
    // The keys of clicks, and of adjustments, are those of goal 0.
    [
        "SELECT count(), uniqExact(key), sum(cityHash64(key, received_at, batch_id)) FROM (\
         SELECT click_key AS key, received_at, batch_id FROM tally.clicks WHERE click_key != 0 UNION ALL \
         SELECT adjustment_key, received_at, batch_id FROM tally.adjustments WHERE adjustment_key != 0)",
        "SELECT count(), uniqExact(order_key), sum(cityHash64(order_key, received_at, batch_id)) \
         FROM tally.order_keys WHERE goal_id = 0",
    ],
    [
        "SELECT account_id, link_id, toStartOfHour(clicked_at) AS hour, count(), countIf(traffic = 'human'), \
         uniqIf(if(visitor_key = 0, click_id, visitor_key), traffic = 'human') FROM tally.clicks GROUP BY ALL ORDER BY ALL",
        "SELECT account_id, link_id, hour, sum(clicks), sum(human_clicks), uniqMerge(visitors) \
         FROM tally.clicks_hourly GROUP BY ALL ORDER BY ALL",
    ],
    [
        "SELECT account_id, goal_id, toString(attribution_method), toStartOfHour(converted_at) AS hour, count(), \
         sum(value), sum(cityHash64(conversion_id, batch_id, candidates)) FROM tally.conversions \
         WHERE attribution_method != 'none' GROUP BY ALL ORDER BY ALL",
        "SELECT account_id, goal_id, toString(method), toStartOfHour(converted_at) AS hour, count(), \
         sum(value), sum(cityHash64(conversion_id, batch_id, candidates)) FROM tally.attributions \
         WHERE run_id = 0 GROUP BY ALL ORDER BY ALL",
    ],
    [
        "SELECT run_id, account_id, goal_id, link_id, toStartOfHour(converted_at) AS hour, count(), \
         countIf(method = 'click_id'), sum(value), sum(seconds_to_convert) FROM tally.attributions \
         GROUP BY ALL ORDER BY ALL",
        "SELECT run_id, account_id, goal_id, link_id, hour, sum(conversions), sum(by_click_id), sum(value), \
         sum(seconds_to_convert) FROM tally.attributed_hourly GROUP BY ALL ORDER BY ALL",
    ],
    [
        "SELECT run_id, account_id, goal_id, link_id, toStartOfHour(clicked_at) AS hour, toDate(converted_at) AS day, \
         count(), sum(value), uniq(if(method = 'click_id' OR visitor_key = 0, click_id, visitor_key)) \
         FROM tally.attributions GROUP BY ALL ORDER BY ALL",
        "SELECT run_id, account_id, goal_id, link_id, hour, converted_on, sum(conversions), sum(value), \
         uniqMerge(visitors) FROM tally.attributed_by_click_hourly GROUP BY ALL ORDER BY ALL",
    ],
];

/// The views' targets say what the raw tables say, and no key or id is there twice. Hits whose answers were lost may
/// still be arriving, so a difference counts only if it stays.
pub fn assert_derived_adds_up(clickhouse: &ClickHouse) {
    for [raw, derived] in DERIVED {
        assert_same(clickhouse, raw, derived);
    }
    for query in [
        "SELECT count() - uniqExact(conversion_id) FROM tally.conversions",
        "SELECT count() - uniqExact(goal_id, order_id) FROM tally.conversions WHERE order_id != ''",
        "SELECT count() - uniqExact(goal_id, order_key) FROM tally.order_keys",
        "SELECT count() - uniqExact(account_id, click_id) FROM tally.clicks",
        "SELECT count() - uniqExact(run_id, conversion_id) FROM tally.attributions",
    ] {
        assert_eq!(lines(clickhouse, query), ["0"], "{query}");
    }
}

fn assert_same(clickhouse: &ClickHouse, raw: &str, derived: &str) {
    let deadline = Instant::now() + SETTLING;
    loop {
        let (raw_says, derived_says) = (lines(clickhouse, raw), lines(clickhouse, derived));
        if raw_says == derived_says {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{raw}\n{}\n{derived}\n{}",
            raw_says.join("\n"),
            derived_says.join("\n")
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `tally audit` finds nothing amiss.
pub fn audit(site: &Site) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.arg("audit").arg("--data-dir").arg(site.data_dir());
    if let Some(at) = site.daemon.options.arguments.iter().position(|flag| flag == "--clickhouse-url") {
        command.args(&site.daemon.options.arguments[at..at + 2]);
    }
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "tally audit: {}\n{}", output.status, said.concat());
}

/// Rows take a moment to arrive, and an engine that was killed a moment to come back.
fn verified(clickhouse: &ClickHouse, entries: &[Entry]) -> Verdict {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let outcome = clickhouse.verify(Comparison::new(entries.iter().copied()));
        let late = Instant::now() >= deadline;
        match outcome {
            Ok(verdict) if late || !verdict.only_missing() => return verdict,
            Ok(_) => {}
            Err(error) => assert!(!late, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for an answer: the engine may be on its way back.
fn lines(clickhouse: &ClickHouse, query: &str) -> Vec<String> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = clickhouse.lines(query).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match answer {
            Ok(lines) => return lines,
            Err(error @ ClickHouseError::Refused { .. }) => panic!("{query}: {error}"),
            Err(error) => assert!(Instant::now() < deadline, "{query}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
