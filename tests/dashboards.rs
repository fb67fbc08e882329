//! The dashboards' form: what Grafana needs to show them and what people need to read them. Their questions are asked in
//! `dashboard_queries.rs` (ClickHouse) and `prometheus.rs`.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;
use support::grafana::{Choice, dashboards, expand, panels, targets};

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
        for link in whole.split("\"/d/").skip(1).map(|rest| rest.split('"').next().expect("a URL")) {
            let target =
                dashboards.values().find(|it| link.starts_with(text(&it["uid"]))).expect("it is there");
            let names: BTreeSet<_> = variables(target).map(|variable| text(&variable["name"])).collect();
            assert!(link.contains("${__url_time_range}"), "{file}: {link} keeps the range");
            for part in link.split('&').skip(1) {
                let name = part.strip_prefix("var-").and_then(|rest| rest.split('=').next());
                let name = name.or_else(|| part.strip_prefix("${")?.strip_suffix(":queryparam}"));
                assert!(name.is_some_and(|name| names.contains(name)), "{file}: {link} hands on {part}");
            }
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

/// What a dashboard names and Grafana does not know is silently shown another way.
#[test]
fn grafanas_own_registries_know_all_that_they_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg(root.join("tests/grafana/registries.mjs"))
        .args(dashboards().keys().map(|file| root.join("grafana/dashboards").join(file)))
        .output()
        .expect("node: run `make test-tools`");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}

/// The same file is for every other program that expands what the plugin does.
#[test]
fn queries_are_expanded_as_the_plugin_expands_them() {
    #[derive(serde::Deserialize)]
    struct Example {
        about: String,
        sql: String,
        choice: Choice,
        sent: String,
    }
    let examples: Vec<Example> =
        serde_json::from_str(include_str!("grafana/expansions.json")).expect("examples");
    for example in examples {
        assert_eq!(expand(&example.sql, &example.choice), example.sent, "{}", example.about);
    }
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
