//! How long each panel's query takes on ten million conversions and twenty million clicks of 60 days: a measurement, run by
//! hand, that asserts nothing.
//!
//! `cargo nextest run --test dashboard_speed --run-ignored only --no-capture`

mod embedded_support;
mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use embedded_support::{
    Engine,
    past::{DAY, Past},
    post,
};
use support::grafana::{Choice, dashboards, expand, panels, targets};

const PAST: Past = Past { clicks: 20_000_000, conversions: 10_000_000, days: 60, links: 60 };
const ROUNDS: usize = 7;
/// Range in days, and the width of a point in seconds that Grafana makes of it.
const RANGES: [(i64, i64); 3] = [(7, 3600), (30, 7200), (60, 14_400)];

#[test]
#[ignore = "a measurement of minutes"]
fn every_panel_on_ten_million_conversions() {
    let engine = Engine::start();
    let started = Instant::now();
    let to = PAST.fill(&engine);
    println!("filled in {:.0} s:", started.elapsed().as_secs_f64());
    println!(
        "{}",
        engine.run(
            "SELECT table, sum(rows) FROM system.parts WHERE active AND database = 'tally' AND rows > 100 GROUP BY table \
             ORDER BY table FORMAT TSV"
        )
    );
    // What inserts left to be merged would be measured, too.
    support::wait_within(Duration::from_mins(10), "merges", || {
        engine.run("SELECT count() FROM system.merges").trim() == "0"
    });

    let variables = BTreeMap::from([
        ("account".to_owned(), vec!["1".to_owned()]),
        ("currency".to_owned(), vec!["EUR".to_owned()]),
    ]);
    println!("median of {ROUNDS}, in ms, and rows read");
    println!("{:56}{}", "", RANGES.map(|(days, _)| format!("{:>20}", format!("{days} days"))).concat());
    let mut slowest = [0.0_f64; RANGES.len()];
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let queries = targets(panel).iter().filter_map(|target| target["rawSql"].as_str());
            for (part, sql) in queries.enumerate() {
                let columns = RANGES.iter().zip(&mut slowest).map(|((days, interval_seconds), slowest)| {
                    let choice = Choice {
                        from: to - days * DAY,
                        to,
                        interval_seconds: *interval_seconds,
                        variables: variables.clone(),
                    };
                    let (millis, rows) = measured(&engine, &expand(sql, &choice));
                    *slowest = slowest.max(millis);
                    format!("{millis:8.0} {rows:>11}")
                });
                let columns: String = columns.collect();
                let title = format!("{} {}", panel["title"].as_str().expect("a title"), ["", "(2)"][part]);
                println!("{:16}{title:40}{columns}", file.trim_end_matches(".json"));
            }
        }
    }
    println!("{:56}{}", "slowest", slowest.map(|millis| format!("{millis:8.0}            ")).concat());
}

/// The median time to the answer, and how many rows were read for it.
fn measured(engine: &Engine, sql: &str) -> (f64, u64) {
    let reader = engine.reader();
    let mut rows = 0;
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            let answer = post(&reader, "default_format=JSON", sql.as_bytes(), &[]);
            let millis = started.elapsed().as_secs_f64() * 1000.0;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
            rows = answer["statistics"]["rows_read"].as_u64().expect("a number");
            millis
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[ROUNDS / 2], rows)
}
