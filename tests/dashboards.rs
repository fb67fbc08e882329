//! The dashboards' form: what Grafana needs to show them and what people need to read them, and that each of their
//! questions to Prometheus can be asked and is about something that a running daemon says.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    process::Command,
};

use serde_json::Value;
use support::{
    daemon::Site,
    grafana::{dashboards, panels, targets},
    metrics::metric_names,
};

#[test]
fn every_dashboard_can_be_found_and_read() {
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 3);
    let uids: BTreeSet<_> = dashboards.values().map(|dashboard| text(&dashboard["uid"])).collect();
    assert_eq!(uids.len(), dashboards.len(), "unique uids");
    for (file, dashboard) in &dashboards {
        for key in ["title", "description"] {
            assert!(!text(&dashboard[key]).is_empty(), "{file}: {key}");
        }
        assert_eq!(
            dashboard["tags"],
            serde_json::json!(["tally"]),
            "{file}: what the links between them go by"
        );
        assert_eq!(dashboard["links"][0]["tags"], dashboard["tags"], "{file}");
        assert!(
            dashboard["annotations"]["list"].as_array().expect("a list").len() > 1,
            "{file}: annotations of its own"
        );
        let mut ids = BTreeSet::new();
        for panel in panels(dashboard) {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{file}: {title}");
            assert!(text(&panel["description"]).len() > 20, "{file}: {title} says what it shows");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{file}: {title} has a unit");
            assert!(!targets(panel).is_empty(), "{file}: {title}");
        }
        no_overlap(file, dashboard);
        let whole = dashboard.to_string();
        for link in whole.split("\"/d/").skip(1) {
            let uid = link.split(['?', '"']).next().expect("a uid");
            assert!(uids.contains(uid), "{file} links to {uid}, which is not there");
        }
    }
}

#[test]
fn data_sources_are_chosen_by_variables() {
    for (file, dashboard) in dashboards() {
        let names: BTreeSet<_> = variables(&dashboard).map(|variable| text(&variable["name"])).collect();
        let asked = panels(&dashboard).flat_map(|panel| targets(panel).iter().chain([panel]));
        for asked in asked.chain(variables(&dashboard).filter(|variable| variable["type"] == "query")) {
            let uid = text(&asked["datasource"]["uid"]);
            let name = uid.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            assert!(name.is_some_and(|name| names.contains(name)), "{file}: {uid} is no variable of it");
        }
        for panel in panels(&dashboard) {
            for target in targets(panel).iter().filter(|target| target["rawSql"].is_string()) {
                let format = u8::from(panel["type"] != "timeseries");
                assert_eq!(target["format"], format, "{file}: {}", text(&panel["title"]));
            }
        }
    }
}

/// Where no least value is set, Grafana draws the least of them as nothing.
#[test]
fn bars_begin_at_zero() {
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard).filter(|panel| panel["type"] == "bargauge") {
            let least = &panel["fieldConfig"]["defaults"]["min"];
            assert_eq!(least, 0, "{file}: {}", text(&panel["title"]));
        }
    }
}

/// What visitors can write into a URL reaches a query as hexadecimal digits only.
#[test]
fn text_from_outside_is_never_spliced_into_a_query() {
    for (file, dashboard) in dashboards() {
        for variable in variables(&dashboard).filter(|variable| variable["query"].is_string()) {
            let (name, query) = (text(&variable["name"]), text(&variable["query"]));
            let safe = ["id, name", "hex(", "DISTINCT toString(currency)"];
            if variable["type"] == "query" {
                assert!(
                    safe.iter().any(|start| query[7..].starts_with(start)),
                    "{file}: the values of {name} come from {query}"
                );
            }
        }
    }
}

#[test]
fn prometheus_understands_every_expression_and_the_daemon_answers_it() {
    let mut asked: BTreeMap<String, String> = BTreeMap::new();
    for (file, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            for target in targets(panel).iter().filter(|target| target["expr"].is_string()) {
                let title = format!("{file}: {}", text(&panel["title"]));
                asked.insert(text(&target["expr"]).to_owned(), title);
            }
        }
        for annotation in dashboard["annotations"]["list"].as_array().expect("a list") {
            if annotation["expr"].is_string() {
                asked.insert(text(&annotation["expr"]).to_owned(), file.clone());
            }
        }
    }
    assert!(asked.len() > 40, "{}", asked.len());
    check_expressions(asked.keys());

    let mut site = Site::start(&[]);
    let said = site.metrics_after_traffic();
    for (expression, place) in &asked {
        for name in metric_names(expression) {
            assert!(said.has(&name), "{place} asks for {name}, which is not in\n{}", said.text);
        }
    }
}

/// Rules that record each expression, which `promtool` parses.
fn check_expressions<'a>(expressions: impl Iterator<Item = &'a String>) {
    let mut rules = String::from("groups:\n  - name: dashboards\n    rules:\n");
    for (number, expression) in expressions.enumerate() {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$__range", "6h")
            .replace("$instance", ".+")
            .replace('\'', "''");
        assert!(!expression.contains('$'), "{expression}");
        let rule = ["      - record: panel:", &number.to_string(), "\n        expr: '", &expression, "'\n"];
        rules.push_str(&rule.concat());
    }
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(rules.as_bytes()).expect("written");
    let output = Command::new("promtool").args(["check", "rules"]).arg(file.path()).output();
    let output = output.expect("promtool: run `make test-tools`");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}\n{rules}", said.concat());
}

fn no_overlap(file: &str, dashboard: &Value) {
    let mut taken = BTreeMap::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{file}: {}", text(&panel["title"]));
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                let other = taken.insert((x, y), text(&panel["title"]));
                assert!(other.is_none(), "{file}: {} lies over {other:?}", text(&panel["title"]));
            }
        }
    }
}

fn variables(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["templating"]["list"].as_array().expect("variables").iter()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}"))
}
