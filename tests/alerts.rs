//! The alert rules: `promtool` finds them sound and each fires and keeps quiet as it should; each has its section of
//! the runbook; and what they ask for is what a running daemon says.

mod support;

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_yaml_ng::Value;
use support::{daemon::Site, metrics::metric_names};

const RULES: &str = "prometheus/alerts.yml";
const TESTS: &str = "prometheus/alerts_test.yml";

#[test]
fn promtool_finds_the_rules_sound() {
    promtool(&["check", "rules", RULES]);
    promtool(&["check", "config", "prometheus/prometheus.yml"]);
    promtool(&["test", "rules", TESTS]);
}

#[test]
fn every_alert_is_tested_both_ways_and_has_its_section_of_the_runbook() {
    let tests = yaml(TESTS);
    let tested: BTreeSet<_> =
        list(&tests["tests"]).iter().map(|test| text(&test["name"]).to_owned()).collect();
    let runbook = std::fs::read_to_string(root().join("docs/runbook.md")).expect("a runbook");
    let alerts = alerts();
    assert!(alerts.len() >= 15, "the alerts are where they were");
    for alert in &alerts {
        let name = text(&alert["alert"]);
        for way in ["fires", "keeps quiet"] {
            assert!(tested.contains(&format!("{name} {way}")), "no test that {name} {way}");
        }
        let severity = text(&alert["labels"]["severity"]);
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        let section = format!("\n## {name}\n{severity}.");
        assert!(runbook.contains(&section), "the runbook has no section that begins with {section:?}");
        let link = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(text(&alert["annotations"]["runbook_url"]), link);
    }
    let sections = runbook.lines().filter(|line| line.starts_with("## ")).count();
    assert_eq!(sections, alerts.len(), "a section of the runbook belongs to no alert");
}

#[test]
fn a_running_daemon_says_all_that_the_alerts_ask_for() {
    let rules = yaml(RULES);
    let all = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]));
    let asked: BTreeSet<_> = all.flat_map(|rule| metric_names(text(&rule["expr"]))).collect();
    assert!(asked.len() > 15, "{asked:?}");
    let mut site = Site::start(&["--postback-allow", "127.0.0.0/8"]);
    let said = site.metrics_after_traffic();
    let missing: Vec<_> = asked.iter().filter(|name| !said.has(name)).collect();
    assert!(missing.is_empty(), "{missing:?} not in\n{}", said.text);
    check_metrics(&said.text);
}

/// `promtool` finds nothing to say about the exposition itself.
fn check_metrics(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("promtool: run `make test-tools`");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("error"), "{said}");
    let complaints: Vec<_> = said.lines().filter(|line| line.starts_with("tally_")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).current_dir(root()).output();
    let output = output.expect("promtool: run `make test-tools`");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "promtool {arguments:?}: {}", said.concat());
}

fn alerts() -> Vec<Value> {
    let rules = yaml(RULES);
    let all = list(&rules["groups"]).iter().flat_map(|group| list(&group["rules"]));
    all.filter(|rule| rule["alert"].is_string()).cloned().collect()
}

fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(root().join(path)).expect("readable");
    serde_yaml_ng::from_str(&text).expect("YAML")
}

fn list(value: &Value) -> &[Value] {
    value.as_sequence().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
