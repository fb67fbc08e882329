//! Every panel's SQL, expanded as Grafana expands it, against a real ClickHouse, as the reader: no error whatever is
//! chosen, the shape that the panel's type needs, few rows read, and totals that are those of the raw tables.

mod embedded_support;
mod support;

use std::{collections::BTreeMap, sync::OnceLock};

use embedded_support::{Engine, post};
use serde_json::Value;
use support::grafana::{Choice, dashboards, expand, panels, targets};
use tally::clickhouse::{Database, Endpoint, Timeouts};

const DAY: i64 = 86_400;
/// Raw rows of the history, and what one panel may read at most: some blocks of 8,192 rows, however long the range.
const CLICKS: i64 = 300_000;
const CONVERSIONS: i64 = 100_000;
const ROWS_READ_MAX: u64 = 60_000;
/// A campaign that somebody wrote into a URL.
const HOSTILE: &str = "x\\'; DROP TABLE tally.clicks; -- \u{202e}";

/// Three weeks of two accounts; the third has nothing.
fn history() -> &'static (Engine, i64) {
    static HISTORY: OnceLock<(Engine, i64)> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let engine = Engine::start();
        let writer = engine.writer();
        let endpoint = Endpoint {
            url: writer.url,
            user: writer.user,
            password: writer.password,
            database: "tally".into(),
        };
        let database = Database::new(endpoint, Timeouts::default());
        engine.runtime.block_on(database.migrate()).expect("migrations run");
        let to: i64 = engine.run("SELECT toUnixTimestamp(now())").trim().parse().expect("a number");
        for statement in statements(to) {
            engine.run(&statement);
        }
        (engine, to)
    })
}

fn statements(to: i64) -> Vec<String> {
    let hostile = HOSTILE.replace('\\', "\\\\").replace('\'', "\\'");
    let labels = format!(
        "['google', 'facebook', '', '{hostile}'][number % 4 + 1] AS utm_source, ['cpc', 'email'][number % 2 + 1] AS utm_medium, \
         ['winter', 'spring', '', '{hostile}'][number % 4 + 1] AS utm_campaign, ['A', 'B', ''][number % 3 + 1] AS variant, \
         number % 4 != 3 AS labelled, number % 3 AS link_id, 1 + (number % 10 = 9) AS account_id"
    );
    let at = |rows: i64| {
        format!("toDateTime64({to} - 21 * {DAY} + intDiv(number * 21 * {DAY}, {rows}), 3, 'UTC')")
    };
    let id =
        "toUUID(concat('00000000-0000-7000-8000-', leftPad(toString(number), 12, '0'))) AS conversion_id";
    vec![
        "INSERT INTO accounts VALUES (1, 'one', 'enterprise', 0, false, 1), (2, 'two', 'enterprise', 0, false, 1), (3, 'empty', 'pro', 0, false, 1)".into(),
        "INSERT INTO goals (id, account_id, name, goal_type, created_at, version) VALUES (1, 1, 'Sign-up', 'signup', now(), 1), (2, 1, 'Purchase', 'purchase', now(), 1), (3, 2, 'Other', 'custom', now(), 1)".into(),
        "INSERT INTO links (id, account_id, name, slug, created_at, version) VALUES (1, 1, 'Winter', 'winter', now(), 1), (2, 1, 'O''Brien \\\\', 'ob', now(), 1)".into(),
        format!(
            "INSERT INTO clicks (click_id, clicked_at, received_at, source, traffic, visitor_key, {LABELS}) \
             SELECT number + 1, {at} AS clicked_at, clicked_at, 'redirect', if(number % 20 = 0, 'bot', 'human'), cityHash64(number % 90000), {names} \
             FROM (SELECT {labels}, number FROM numbers({CLICKS}))", at = at(CLICKS), names = LABELS
        ),
        format!(
            "INSERT INTO conversions (conversion_id, account_id, goal_id, order_id, value, currency, received_at, converted_at, source, attribution_method, visitor_key) \
             SELECT {id}, 1 + (number % 10 = 9), if(number % 10 = 9, 3, 1 + number % 2), toString(number), 10 + number % 7, if(number % 5 = 0, 'JPY', 'EUR'), {at} AS received_at, received_at, 'postback', if(number % 2 = 0, 'none', 'click_id'), cityHash64(number) \
             FROM numbers({CONVERSIONS})", at = at(CONVERSIONS)
        ),
        format!(
            "INSERT INTO attributions (conversion_id, goal_id, value, currency, converted_at, received_at, clicked_at, seconds_to_convert, method, click_id, visitor_key, {LABELS}) \
             SELECT {id}, if(number % 10 = 9, 3, 1 + number % 2), 10 + number % 7, if(number % 5 = 0, 'JPY', 'EUR'), {at} AS converted_at, converted_at, converted_at - 3600, 3600, 'click_id', number + 1, cityHash64(number), {names} \
             FROM (SELECT {labels}, number FROM numbers({CONVERSIONS}) WHERE number % 2 = 1)", at = at(CONVERSIONS), names = LABELS
        ),
        format!(
            "INSERT INTO adjustments (adjustment_id, account_id, goal_id, conversion_id, kind, value, currency, received_at, converted_at, net_value_change, net_conversions_change, method) \
             SELECT generateUUIDv7(), 1, 2, toUUID('00000000-0000-7000-8000-000000000001'), 'refund', 5, 'EUR', now(), {at}, -5, 0, 'none' FROM numbers(100)", at = at(100)
        ),
        "INSERT INTO attribution_runs VALUES (1, 0, 2592000, 'last', 'done', false, now(), 1)".into(),
    ]
}

const LABELS: &str = "utm_source, utm_medium, utm_campaign, variant, labelled, link_id, account_id";

#[test]
fn every_panel_answers_whatever_is_chosen() {
    let (engine, to) = history();
    for (name, choice) in choices(*to) {
        for (file, dashboard) in dashboards() {
            for panel in panels(&dashboard) {
                let title = format!("{file}: {} ({name})", panel["title"].as_str().expect("a title"));
                for target in targets(panel).iter().filter(|target| target["rawSql"].is_string()) {
                    let sql = expand(target["rawSql"].as_str().expect("SQL"), &choice);
                    let answer = ask(engine, &title, &sql);
                    has_shape(&title, panel["type"].as_str().expect("a type"), &answer, &choice);
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

#[test]
fn totals_are_those_of_the_raw_tables() {
    let (engine, to) = history();
    let choice = Choice { from: to - 7 * DAY, to: *to, interval_seconds: 3600, variables: account("1") };
    let raw = |sql: &str| -> f64 {
        let from = (to - 7 * DAY) / 3600 * 3600;
        let sql = sql.replace("$from", &from.to_string());
        engine.run(&sql).trim().parse().expect("a number")
    };
    let conversions = raw("SELECT count() FROM conversions WHERE account_id = 1 AND converted_at >= $from");
    let attributed = raw("SELECT count() FROM attributions WHERE account_id = 1 AND converted_at >= $from");
    let clicks =
        raw("SELECT count() FROM clicks WHERE account_id = 1 AND traffic = 'human' AND clicked_at >= $from");
    let euros = raw(
        "SELECT sum(value) FROM conversions WHERE account_id = 1 AND currency = 'EUR' AND converted_at >= $from",
    );
    assert!(conversions > 10_000.0 && attributed > 5_000.0);
    let sum = |file: &str, title: &str, column: &str| total(engine, file, title, column, &choice);
    for (file, title, column, expected) in [
        ("conversions.json", "Conversions", "conversions", conversions),
        ("conversions.json", "Conversions, and the period before", "this period", conversions),
        ("conversions.json", "Goals", "conversions", conversions),
        ("conversions.json", "Links", "clicks", clicks),
        ("conversions.json", "Links", "conversions", attributed),
        ("conversions.json", "Attributed conversions by source", "conversions", attributed),
        ("conversions.json", "Conversion rate", "rate", attributed / clicks * 100.0),
        ("campaigns.json", "Clicks", "clicks", clicks),
        ("campaigns.json", "Campaigns", "clicks", clicks),
        ("campaigns.json", "Campaigns", "conversions", attributed),
        ("campaigns.json", "Conversions by campaign", "conversions", attributed),
        ("campaigns.json", "Source and medium", "conversions", attributed),
    ] {
        let found = sum(file, title, column);
        assert!((found - expected).abs() < 0.001, "{file}: {title}: {found} and not {expected}");
    }
    let value = rows(engine, "conversions.json", "Value", &choice);
    let found = value.iter().find(|row| row["currency"] == "EUR").expect("euros");
    assert!((found["value"].as_f64().expect("a number") - euros).abs() < 0.001);
    assert_eq!(value.len(), 2, "each currency for itself: {value:?}");
}

fn total(engine: &Engine, file: &str, title: &str, column: &str, choice: &Choice) -> f64 {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    rows(engine, file, title, choice).iter().filter_map(|row| number(&row[column])).sum()
}

/// The rows of a panel's first target.
fn rows(engine: &Engine, file: &str, title: &str, choice: &Choice) -> Vec<Value> {
    let dashboards = dashboards();
    let panel = panels(&dashboards[file]).find(|panel| panel["title"] == title).expect("a panel");
    let sql = expand(targets(panel)[0]["rawSql"].as_str().expect("SQL"), choice);
    ask(engine, title, &sql)["data"].as_array().expect("rows").clone()
}

fn choices(to: i64) -> Vec<(&'static str, Choice)> {
    let hex = HOSTILE.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat();
    let mut several = account("1");
    several.insert("goal", vec!["1".into(), "2".into()]);
    several.insert("link", vec!["1".into(), "2".into()]);
    several.insert("source", vec!["676F6F676C65".into(), hex]);
    several.insert("currency", vec!["JPY".into()]);
    let mut choices = Vec::new();
    for (variables, names) in [
        (account("1"), ["all, an hour", "all, 30 days"]),
        (several, ["several, an hour", "several, 30 days"]),
        (account("3"), ["empty, an hour", "empty, 30 days"]),
    ] {
        for (name, length, interval_seconds) in [(names[0], 3600, 3600), (names[1], 30 * DAY, 7200)] {
            choices.push((
                name,
                Choice { from: to - length, to, interval_seconds, variables: variables.clone() },
            ));
        }
    }
    choices
}

fn account(id: &str) -> BTreeMap<&'static str, Vec<String>> {
    BTreeMap::from([("account", vec![id.to_owned()]), ("currency", vec!["EUR".to_owned()])])
}

/// A time series: one column of times, in order, and at most one of text. A stat or a bar: a number in each row.
fn has_shape(title: &str, kind: &str, answer: &Value, choice: &Choice) {
    let types: Vec<&str> = answer["meta"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|it| it["type"].as_str().expect("a type"))
        .collect();
    let texts = types.iter().filter(|kind| kind.contains("String")).count();
    let data = answer["data"].as_array().expect("rows");
    match kind {
        "timeseries" => {
            assert!(types[0].starts_with("DateTime") && texts <= 1, "{title}: {types:?}");
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
