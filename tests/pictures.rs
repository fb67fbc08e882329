//! `grafana/pictures`, which draws the dashboards: its questions are those that the other tests ask, its own tests hold, and
//! its pictures are there and shown. Drawing takes minutes: `make pictures`.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::grafana::{Choice, dashboards, expand, panels, targets};

/// What `docs/pictures` may hold of each: a page shows them all.
const PICTURE_BYTES_MAX: u64 = 500_000;
/// The least width at which texts can be read.
const WIDTH_MIN: u32 = 1600;

#[test]
fn the_pictures_ask_what_the_tests_ask() {
    let mut asked = Vec::new();
    let mut expected = Vec::new();
    for (_, dashboard) in dashboards() {
        let names = dashboard["templating"]["list"].as_array().expect("a list");
        let names: Vec<_> = names.iter().map(|variable| variable["name"].as_str().expect("a name")).collect();
        let queries = panels(&dashboard).flat_map(targets).filter_map(|target| target["rawSql"].as_str());
        for sql in queries {
            for choice in choices() {
                asked.push(question(sql, &choice, &names));
                expected.push(expand(sql, &choice));
            }
        }
    }
    assert!(expected.len() > 50, "{}", expected.len());
    let answered = expanded_by_the_tool(&json!(asked));
    for (answered, expected) in answered.iter().zip(&expected) {
        assert_eq!(answered, expected);
    }
    assert_eq!(answered.len(), expected.len());
}

#[test]
fn the_tool_keeps_its_promises() {
    let tests = files(&tool().join("test")).filter(|path| path.to_string_lossy().ends_with(".test.mjs"));
    let output = Command::new("node").arg("--test").args(tests).output();
    let output = output.expect("node: run `make test-tools`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_dashboard_has_its_picture_and_the_readme_shows_it() {
    let readme = fs::read_to_string(root().join("README.md")).expect("readable");
    let mut pictures: BTreeSet<PathBuf> = files(&root().join("docs/pictures")).collect();
    for (file, _) in dashboards() {
        let name = Path::new(&file).with_extension("png");
        let path = root().join("docs/pictures").join(&name);
        assert!(pictures.remove(&path), "{file} has no picture: run `make pictures`");
        let bytes = fs::read(&path).expect("readable");
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "{file}");
        let width = u32::from_be_bytes(bytes[16..20].try_into().expect("four bytes"));
        assert!(
            width >= WIDTH_MIN && bytes.len() as u64 <= PICTURE_BYTES_MAX,
            "{file}: {width}, {}",
            bytes.len()
        );
        let shown = format!("](docs/pictures/{})", name.display());
        assert!(readme.contains(&shown), "the README does not show {}", name.display());
    }
    assert!(pictures.is_empty(), "of no dashboard: {pictures:?}");
}

/// Everything, one of each, several.
fn choices() -> [Choice; 3] {
    let chosen = |goal: &[&str], source: &[&str]| {
        let all = [
            ("account", &["1"][..]),
            ("currency", &["EUR"]),
            ("goal", goal),
            ("link", goal),
            ("source", source),
        ];
        let some = all.into_iter().filter(|(_, values)| !values.is_empty());
        let texts = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
        let variables = some.map(|(name, values)| (name.to_owned(), texts(values))).collect();
        Choice { from: 1_700_000_000, to: 1_700_600_000, interval_seconds: 3600, variables }
    };
    [chosen(&[], &[]), chosen(&["1"], &["676F"]), chosen(&["1", "2"], &["676F", ""])]
}

fn question(sql: &str, choice: &Choice, names: &[&str]) -> Value {
    let chosen = json!(choice.variables);
    let variable = |name: &&str| {
        let values = chosen[name].as_array().map_or(&[][..], Vec::as_slice);
        let value = json!({"all": values.is_empty(), "multi": values.len() > 1, "values": values});
        ((*name).to_owned(), value)
    };
    let variables: serde_json::Map<_, _> = names.iter().map(variable).collect();
    let milliseconds = |seconds: i64| seconds * 1000;
    json!({"sql": sql, "variables": variables, "range": {
        "from": milliseconds(choice.from),
        "to": milliseconds(choice.to),
        "intervalMs": milliseconds(choice.interval_seconds),
    }})
}

fn expanded_by_the_tool(asked: &Value) -> Vec<String> {
    let mut node = Command::new("node")
        .arg(tool().join("test/expand.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node: run `make test-tools`");
    let input = node.stdin.take().expect("piped").write_all(asked.to_string().as_bytes());
    input.expect("written");
    let output = node.wait_with_output().expect("an end");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("texts")
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("readable").path())
}

fn tool() -> PathBuf {
    root().join("grafana/pictures")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
