//! Every panel's SQL, expanded as Grafana expands it, against a real ClickHouse, as the reader: no error whatever is
//! chosen, the shape that the panel's type needs, few rows read, and totals that are those of the raw tables.

mod embedded_support;
mod support;

use std::collections::BTreeMap;

use embedded_support::{
    Engine,
    past::{DAY, HOSTILE, Past},
    post,
};
use serde_json::Value;
use support::grafana::{self, Choice, dashboards, expand, hex, number, panels, targets};

const PAST: Past = Past { clicks: 300_000, conversions: 100_000, days: 21, links: 10 };
/// What one panel may read at most, however long the range and whatever is chosen: no more rows than there are clicks.
const ROWS_READ_MAX: u64 = 300_000;

/// One engine, since filling it is most of the work: each test is a process.
#[test]
fn panels_answer_what_the_raw_tables_hold_whatever_is_chosen() {
    let engine = Engine::start();
    let to = PAST.fill(&engine);
    every_panel_answers_whatever_is_chosen(&engine, to);
    totals_are_those_of_the_raw_tables(&engine, to);
    long_ranges_are_read_from_projections(&engine, to);
}

fn every_panel_answers_whatever_is_chosen(engine: &Engine, to: i64) {
    for (name, choice) in choices(to) {
        for (file, dashboard) in dashboards() {
            for panel in panels(&dashboard) {
                let title = format!("{file}: {} ({name})", panel["title"].as_str().expect("a title"));
                for target in targets(panel).iter().filter(|target| target["rawSql"].is_string()) {
                    let sql = expand(target["rawSql"].as_str().expect("SQL"), &choice);
                    let answer = ask(engine, &title, &sql);
                    has_shape(&title, panel, &answer, &choice);
                    let read = answer["statistics"]["rows_read"].as_u64().expect("a number");
                    assert!(read <= ROWS_READ_MAX, "{title} reads {read} rows: {sql}");
                }
            }
            for sql in variables_and_annotations(&dashboard) {
                ask(engine, &format!("{file} ({name})"), &expand(&sql, &choice));
            }
        }
    }
}

/// The raw tables hold everything: only what is bound to a day may read them.
#[test]
fn ranges_over_a_day_are_read_from_the_views() {
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for sql in targets(panel).iter().filter_map(|target| target["rawSql"].as_str()) {
                for table in sql.split("tally.").skip(1) {
                    let table =
                        table.split(|c: char| !c.is_alphanumeric() && c != '_').next().expect("a name");
                    let small = table.contains("_hourly") || ["goals", "links", "accounts"].contains(&table);
                    let bound = sql.contains("greatest($__fromTime, $__toTime - INTERVAL 1 DAY)");
                    assert!(small || bound, "{file}: {} reads {table}: {sql}", panel["title"]);
                }
            }
        }
    }
}

fn totals_are_those_of_the_raw_tables(engine: &Engine, to: i64) {
    let choice = Choice { from: to - 7 * DAY, to, interval_seconds: 3600, variables: account("1") };
    let raw = |sql: &str| -> f64 {
        let from = (to - 7 * DAY) / 3600 * 3600;
        let sql = sql.replace("$from", &from.to_string());
        engine.run(&sql).trim().parse().expect("a number")
    };
    let day = to - DAY;
    let conversions = raw("SELECT count() FROM conversions WHERE account_id = 1 AND converted_at >= $from");
    let attributed = raw("SELECT count() FROM attributions WHERE account_id = 1 AND converted_at >= $from");
    let clicks =
        raw("SELECT count() FROM clicks WHERE account_id = 1 AND traffic = 'human' AND clicked_at >= $from");
    let euros = raw(
        "SELECT sum(value) FROM conversions WHERE account_id = 1 AND currency = 'EUR' AND converted_at >= $from",
    );
    let last_day = raw(&format!(
        "SELECT count() FROM conversions WHERE account_id = 1 AND converted_at >= toDateTime({day})"
    ));
    let refunded =
        raw("SELECT sum(net_value_change) FROM adjustments WHERE account_id = 1 AND converted_at >= $from");
    let value = raw("SELECT sum(value) FROM conversions WHERE account_id = 1 AND converted_at >= $from");
    let attributed_euros = raw(
        "SELECT sum(value) FROM attributions WHERE account_id = 1 AND currency = 'EUR' AND converted_at >= $from",
    );
    let of_variants = raw(
        "SELECT count() FROM attributions WHERE account_id = 1 AND variant != '' AND converted_at >= $from",
    );
    assert!(conversions > 10_000.0 && attributed > 5_000.0);
    let sum = |file: &str, title: &str, column: &str| total(engine, file, title, column, &choice);
    for (file, title, column, expected) in [
        ("conversions.json", "Conversions", "conversions", conversions),
        ("conversions.json", "Conversions, and the period before", "this period", conversions),
        ("conversions.json", "Goals", "conversions", conversions),
        ("conversions.json", "Goals", "value", value),
        ("conversions.json", "Goals", "net_value", value + refunded),
        ("conversions.json", "Value by currency", "value", value),
        ("conversions.json", "What earned them, last 24 hours", "conversions", last_day),
        ("conversions.json", "Links", "clicks", clicks),
        ("conversions.json", "Links", "value", attributed_euros),
        ("conversions.json", "Links", "conversions", attributed),
        ("conversions.json", "Attributed conversions by source", "conversions", attributed),
        ("conversions.json", "Conversion rate", "rate", attributed / clicks * 100.0),
        ("campaigns.json", "Clicks", "clicks", clicks),
        ("campaigns.json", "Campaigns", "clicks", clicks),
        ("campaigns.json", "Campaigns", "conversions", attributed),
        ("campaigns.json", "Campaigns", "value", attributed_euros),
        ("campaigns.json", "Campaigns", "share", 100.0),
        ("campaigns.json", "Conversions by campaign", "conversions", attributed),
        ("campaigns.json", "Source and medium", "conversions", attributed),
        ("campaigns.json", "Time to convert", "conversions", attributed),
        ("campaigns.json", "Variants", "conversions", of_variants),
    ] {
        let found = sum(file, title, column);
        assert!((found - expected).abs() < 0.001, "{file}: {title}: {found} and not {expected}");
    }
    let value = rows(engine, "conversions.json", "Value", &choice);
    let found = value.iter().find(|row| row["currency"] == "EUR").expect("euros");
    assert!((number(&found["value"]) - euros).abs() < 0.001);
    assert_eq!(value.len(), 4, "each currency for itself: {value:?}");

    // What is approximate is near.
    let near = |what: &str, found: f64, exact: f64| {
        assert!((found / exact - 1.0).abs() < 0.03, "{what}: {found} and not about {exact}");
    };
    let steps = rows(engine, "campaigns.json", "Steps", &choice);
    let people = raw(
        "SELECT uniqExact(visitor_key) FROM clicks WHERE account_id = 1 AND traffic = 'human' AND clicked_at >= $from",
    );
    near("people who clicked", number(&steps[0]["people"]), people);
    near("of all", number(&steps[1]["overall_rate"]), number(&steps[1]["people"]) / people * 100.0);
    let times = rows(engine, "campaigns.json", "Time to convert", &choice);
    let first = times.iter().find(|row| row["goal"] == "Goal 1").expect("a goal");
    for (column, level) in [("median", "0.5"), ("p90", "0.9"), ("p95", "0.95")] {
        let exact = raw(&format!(
            "SELECT quantileExact({level})(seconds_to_convert) FROM attributions \
             WHERE account_id = 1 AND goal_id = 1 AND converted_at >= $from"
        ));
        near(column, number(&first[column]), exact);
    }
}

/// With nothing chosen, what is read of the statistics is read of their projections: none of the panels' aggregates has
/// strayed from the letter of `schema/0007_projections.sql`.
fn long_ranges_are_read_from_projections(engine: &Engine, to: i64) {
    let choice = Choice { from: to - 7 * DAY, to, interval_seconds: 3600, variables: account("1") };
    let mut projected = 0;
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for sql in targets(panel).iter().filter_map(|target| target["rawSql"].as_str()) {
                let plan = engine.run(&format!("EXPLAIN {}", expand(sql, &choice)));
                let whole = plan.matches("ReadFromMergeTree (tally.attributed_hourly)").count();
                assert_eq!(whole, 0, "{file}: {} reads every attribution: {plan}", panel["title"]);
                projected += plan.matches("ReadFromMergeTree (by_").count();
            }
        }
    }
    assert!(projected > 15, "{projected}");
}

fn total(engine: &Engine, file: &str, title: &str, column: &str, choice: &Choice) -> f64 {
    rows(engine, file, title, choice).iter().map(|row| number(&row[column])).sum()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}"))
}

fn rows(engine: &Engine, file: &str, title: &str, choice: &Choice) -> Vec<Value> {
    grafana::rows(&engine.embedded.reader_url(), file, title, choice)
}

fn choices(to: i64) -> Vec<(String, Choice)> {
    let with = |more: &[(&str, &[String])]| {
        let mut variables = account("1");
        variables.extend(more.iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())));
        variables
    };
    let several = with(&[
        ("goal", &["1".into(), "2".into()]),
        ("link", &["1".into(), "2".into(), "3".into()]),
        ("source", &[hex("source1"), hex("source8"), hex("")]),
        ("currency", &["JPY".into()]),
    ]);
    let chosen = [
        ("all", account("1")),
        ("normal", with(&[("goal", &["1".into()]), ("link", &["1".into()]), ("source", &[hex("source7")])])),
        ("several", several),
        ("hostile", with(&[("source", &[hex(HOSTILE)])])),
        ("empty", account("3")),
    ];
    let spans = [("an hour", 3600, 3600), ("30 days", 30 * DAY, 7200)];
    let every = chosen.into_iter().flat_map(|(name, variables)| {
        spans.map(|(span, length, interval_seconds)| {
            (
                format!("{name}, {span}"),
                Choice { from: to - length, to, interval_seconds, variables: variables.clone() },
            )
        })
    });
    every.collect()
}

fn account(id: &str) -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([("account".into(), vec![id.to_owned()]), ("currency".into(), vec!["EUR".to_owned()])])
}

/// A time series: one column of times, in order, and at most one of text. A stat or a bar: a number in each row.
fn has_shape(title: &str, panel: &Value, answer: &Value, choice: &Choice) {
    let columns: Vec<&str> =
        answer["meta"].as_array().expect("columns").iter().map(|it| text(&it["name"])).collect();
    if let Some(fields) = panel["options"]["reduceOptions"]["fields"].as_str().filter(|it| !it.is_empty()) {
        let name = fields.trim_matches(['/', '^', '$']);
        assert!(columns.contains(&name), "{title} shows {fields} of {columns:?}");
    }
    if panel["type"] == "table" {
        for rule in panel["fieldConfig"]["overrides"].as_array().expect("a list") {
            let name = text(&rule["matcher"]["options"]);
            assert!(columns.contains(&name), "{title} has a rule for {name}, not of {columns:?}");
        }
    }
    let types: Vec<&str> =
        answer["meta"].as_array().expect("columns").iter().map(|it| text(&it["type"])).collect();
    let texts = types.iter().filter(|kind| kind.contains("String")).count();
    let data = answer["data"].as_array().expect("rows");
    match text(&panel["type"]) {
        "timeseries" => {
            assert!(types[0].starts_with("DateTime") && texts <= 1, "{title}: {types:?}");
            assert_eq!(types.len() - texts, 2, "{title}: a time and a number: {types:?}");
            let times: Vec<_> = data.iter().map(|row| row["time"].as_str().expect("a time")).collect();
            assert!(times.is_sorted(), "{title}: rows out of order are an error in Grafana");
            let points = (choice.to - choice.from) / choice.interval_seconds + 3;
            assert!(
                i64::try_from(data.len()).is_ok_and(|rows| rows <= points * 10),
                "{title}: {} points",
                data.len()
            );
        }
        "stat" | "bargauge" => {
            assert!(types.len() - texts == 1 && data.len() <= 12, "{title}: {types:?}, {} rows", data.len());
        }
        "table" => assert!(data.len() <= 200, "{title}: {} rows", data.len()),
        other => panic!("{title}: nothing is known of {other}"),
    }
}

fn variables_and_annotations(dashboard: &Value) -> Vec<String> {
    let variables = dashboard["templating"]["list"].as_array().expect("a list");
    let variables = variables.iter().filter(|variable| variable["type"] == "query").map(|it| &it["query"]);
    let annotations = dashboard["annotations"]["list"].as_array().expect("a list");
    let annotations = annotations.iter().map(|annotation| &annotation["target"]["rawSql"]);
    variables.chain(annotations).filter_map(|sql| sql.as_str().map(ToOwned::to_owned)).collect()
}

fn ask(engine: &Engine, what: &str, sql: &str) -> Value {
    let answer = post(
        &engine.reader(),
        "database=default&default_format=JSON&max_execution_time=64",
        sql.as_bytes(),
        &[],
    );
    assert_eq!(answer.status, 200, "{what}: {}\n{sql}", answer.text());
    serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{what}: {error}"))
}
