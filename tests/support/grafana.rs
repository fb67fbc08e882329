//! Dashboards as Grafana reads them, and their SQL as the ClickHouse plugin sends it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::http::{agent, read};

/// The files of `grafana/dashboards`.
pub fn dashboards() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let files = std::fs::read_dir(folder).expect("dashboards").map(|entry| entry.expect("readable").path());
    files
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("readable");
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).expect("JSON"))
        })
        .collect()
}

/// The panels but for the headings of rows.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let all = dashboard["panels"].as_array().expect("panels");
    all.iter().filter(|panel| panel["type"] != "row")
}

/// The targets of a panel.
pub fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().expect("targets")
}

/// What is chosen in the browser.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Choice {
    /// The range, in seconds since 1970.
    pub from: i64,
    pub to: i64,
    /// The width of a point, in seconds: from the range, the panel's width and its least interval.
    pub interval_seconds: i64,
    /// Variables; none chosen: All.
    pub variables: BTreeMap<String, Vec<String>>,
}

/// The SQL that reaches ClickHouse: `$__conditionalAll` and variables are replaced in the browser, in that order, and
/// the other macros by the plugin's back end. `tests/grafana/expansions.json` holds examples, for whatever else expands.
pub fn expand(sql: &str, choice: &Choice) -> String {
    let mut text = conditional_all(sql, choice);
    for (name, values) in &choice.variables {
        // As Grafana does it, backslashes and all: a value must not hold what it does not escape.
        let quoted: Vec<_> = values.iter().map(|value| format!("'{}'", value.replace('\'', "\\'"))).collect();
        text = text
            .replace(&format!("${{{name}:csv}}"), &values.join(","))
            .replace(&format!("${{{name}:singlequote}}"), &quoted.join(","))
            .replace(&format!("${{{name}}}"), &values.join(","));
    }
    text = text
        .replace("$__fromTime", &format!("toDateTime({})", choice.from))
        .replace("$__toTime", &format!("toDateTime({})", choice.to))
        .replace("$__interval_s", &choice.interval_seconds.to_string());
    while let Some((before, argument, after)) = macro_call(&text, "$__timeInterval") {
        let start =
            format!("toStartOfInterval(toDateTime({argument}), INTERVAL {} second)", choice.interval_seconds);
        text = format!("{before}{start}{after}");
    }
    assert!(!text.contains('$'), "something is not expanded: {text}");
    text
}

/// The rows of a panel's first target, asked of the reader whose URL that is.
pub fn rows(reader_url: &str, file: &str, title: &str, choice: &Choice) -> Vec<Value> {
    let dashboards = dashboards();
    let panel = panels(&dashboards[file]).find(|panel| panel["title"] == title);
    let panel = panel.unwrap_or_else(|| panic!("{file} has no panel {title}"));
    ask(reader_url, &expand(targets(panel)[0]["rawSql"].as_str().expect("SQL"), choice))
}

/// The rows that SQL gives to the reader.
pub fn ask(reader_url: &str, sql: &str) -> Vec<Value> {
    let rest = reader_url.strip_prefix("http://").expect("a URL");
    let (user, rest) = rest.split_once('@').expect("a user");
    let (user, password) = user.split_once(':').expect("a password");
    let (host, _) = rest.split_once('/').expect("a host");
    let request = agent()
        .post(format!("http://{host}/?default_format=JSON"))
        .header("X-ClickHouse-User", user)
        .header("X-ClickHouse-Key", password);
    let answer = read(request.send(sql).expect("an answer")).expect("a body");
    assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
    let mut answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    serde_json::from_value(answer["data"].take()).expect("rows")
}

/// A text as the values of the variable `source` are.
pub fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat()
}

/// Large numbers are written as text; none counts as 0.
pub fn number(value: &Value) -> f64 {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0.0)
}

/// `1=1` where all is chosen, else the condition.
fn conditional_all(sql: &str, choice: &Choice) -> String {
    let mut text = sql.to_owned();
    while let Some((before, arguments, after)) = macro_call(&text, "$__conditionalAll") {
        let (condition, variable) = arguments.rsplit_once(',').expect("two arguments");
        let name = variable.trim().trim_start_matches('$').trim_matches(['{', '}']);
        let chosen = choice.variables.get(name).is_some_and(|values| !values.is_empty());
        text = format!("{before}{}{after}", if chosen { condition } else { "1=1" });
    }
    text
}

/// What stands before a macro's first call, its arguments, and what stands after it.
fn macro_call(text: &str, name: &str) -> Option<(String, String, String)> {
    let start = text.find(name)?;
    let open = start + name.len();
    assert!(text[open..].starts_with('('), "{name} without arguments");
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if depth == 0 {
            let inside = text[open + 1..open + at].to_owned();
            return Some((text[..start].to_owned(), inside, text[open + at + 1..].to_owned()));
        }
    }
    panic!("{name} is not closed: {text}");
}
