//! Dependencies point one way: every `crate::` path in `src/` is held to a table of what each module may know.
//!
//! The table of modules and what each may know. A new line in it is a decision, not a formality: it must keep the
//! direction `main → app → {http, shipper, …} → {dedup, wal, clickhouse, catalog} → core`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module of the root, and what it may name of the crate besides itself.
const ALLOWED: &[(&str, &[&str])] = &[
    // The domain knows nothing but itself.
    ("core", &[]),
    // Leaves: no domain either, but for time.
    ("clock", &["core", "durable_file"]),
    ("durable_file", &[]),
    ("secret", &[]),
    ("telemetry", &["config"]),
    // Starts threads and tasks, and knows nothing of what they do.
    ("tasks", &[]),
    ("config", &["core", "secret"]),
    ("cli", &["config", "core"]),
    // Opaque bytes on disk; not even a hit.
    ("wal", &["durable_file", "tasks"]),
    // A URL to everybody else; nothing of tally's tables.
    ("embedded", &["tasks"]),
    ("dedup", &["core"]),
    ("catalog", &["clock", "core", "durable_file", "secret", "tasks"]),
    // Neither HTTP handlers nor the log.
    ("clickhouse", &["core"]),
    ("rate_limit", &["core"]),
    ("report_slots", &["core", "tasks"]),
    ("account_slots", &["core"]),
    // A copy in files; neither the log nor SQL.
    ("past_clicks", &["core", "durable_file", "tasks"]),
    // From the log to ClickHouse; no HTTP.
    ("shipper", &["clickhouse", "clock", "core", "dedup", "durable_file", "past_clicks", "wal"]),
    // From a parsed hit to a durable record; no HTTP and no SQL. Of the shipper, the ledger that it counts in. Small files
    // of its own: the lease of click numbers, the visitors' keys.
    ("intake", &["core", "dedup", "durable_file", "shipper", "tasks", "telemetry", "wal"]),
    // What the log and ClickHouse hold, compared: reads, never writes.
    ("audit", &["clickhouse", "core", "shipper", "wal"]),
    // Beside a daemon or without one: waits for the shipper, writes its own rows alone.
    ("reattribute", &["clickhouse", "core", "shipper", "wal"]),
    ("erase", &["clickhouse", "core", "past_clicks", "postback", "shipper", "wal"]),
    // Neither the log nor SQL: hits go to the intake, questions to a trait.
    (
        "http",
        &["catalog", "clock", "config", "core", "intake", "rate_limit", "report_slots", "tasks", "telemetry"],
    ),
    // Tells owners of conversions; no SQL, and nothing of the log.
    ("postback", &["account_slots", "catalog", "clock", "core", "durable_file", "tasks"]),
    // Puts the parts together.
    (
        "app",
        &[
            "account_slots",
            "audit",
            "catalog",
            "cli",
            "clickhouse",
            "clock",
            "config",
            "core",
            "dedup",
            "durable_file",
            "embedded",
            "erase",
            "http",
            "intake",
            "postback",
            "rate_limit",
            "reattribute",
            "report_slots",
            "secret",
            "shipper",
            "tasks",
            "telemetry",
            "wal",
        ],
    ),
    // A macro of the tests.
    ("golden", &[]),
    // Entries for the fuzz targets: in no daemon.
    ("fuzzing", &["core", "dedup", "embedded", "http", "past_clicks", "postback", "shipper", "wal"]),
    ("main", &["app", "cli", "embedded"]),
];

/// Modules that must not reach each other, not even by way of a third one.
const STRANGERS: &[(&str, &str)] = &[
    ("wal", "clickhouse"),
    ("wal", "http"),
    ("wal", "core"),
    ("clickhouse", "wal"),
    ("clickhouse", "http"),
    ("clickhouse", "shipper"),
    ("dedup", "http"),
    ("shipper", "http"),
    ("intake", "http"),
    ("embedded", "core"),
    ("core", "config"),
];

#[test]
fn every_module_knows_only_what_it_may() {
    let mut wrong = Vec::new();
    for (module, files) in modules() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("src/{module} is not in the table"));
            continue;
        };
        for file in files {
            let source = fs::read_to_string(&file).expect("readable");
            for used in named(&source, if module == "main" { "tally::" } else { "crate::" }) {
                if used != module && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{} names {used}, which {module} may not know", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_circle_and_keeps_strangers_apart() {
    for (module, _) in ALLOWED {
        assert!(!reached(module).contains(module), "{module} reaches itself");
    }
    for (module, stranger) in STRANGERS {
        assert!(!reached(module).contains(stranger), "{module} reaches {stranger}");
    }
}

#[test]
fn the_table_allows_nothing_that_is_not_used() {
    let used: BTreeMap<_, BTreeSet<_>> = modules()
        .into_iter()
        .map(|(module, files)| {
            let prefix = if module == "main" { "tally::" } else { "crate::" };
            let sources = files.iter().map(|file| fs::read_to_string(file).expect("readable"));
            (module, sources.flat_map(|source| named(&source, prefix)).collect())
        })
        .collect();
    for (module, allowed) in ALLOWED {
        let names = used.get(*module).unwrap_or_else(|| panic!("src/{module} is not there any more"));
        for name in *allowed {
            assert!(
                names.contains(*name),
                "{module} does not name {name} any more: take it out of the table"
            );
        }
    }
}

#[test]
fn paths_are_found_however_they_are_written() {
    let source = "use crate::{\n    core::{self, Goal},\n    wal::Ticket,\n};\nuse crate::http;\n\
                  // crate::comment\npub(crate) fn f(x: crate::dedup::Dedup) {}\nuse other_crate::app;";
    let found: Vec<_> = named(source, "crate::").into_iter().collect();
    assert_eq!(found, ["core", "dedup", "http", "wal"]);
}

/// The modules of the crate's root with their files.
fn modules() -> BTreeMap<String, Vec<PathBuf>> {
    let mut modules: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&root) {
        let inside = file.strip_prefix(&root).expect("below src");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let module = first.strip_suffix(".rs").unwrap_or(&first);
        if module != "lib" {
            modules.entry(module.to_owned()).or_default().push(file);
        }
    }
    assert!(modules.len() > 10, "the sources are where they were");
    modules
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path());
    entries
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The root modules that `source` names after `prefix`, in `use` lines and anywhere else but comments.
fn named(source: &str, prefix: &str) -> BTreeSet<String> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        // `other_crate::` and `$crate::` are other paths.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_level(group)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// The first name of each item of a group, up to its closing brace.
fn first_level(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {}
        }
        if depth == 0 && c != ',' {
            item.push(c);
        }
    }
    items.push(item);
    items.iter().filter_map(|item| identifier(item.trim_start())).collect()
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Everything that a module reaches by the table.
fn reached(module: &'static str) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![module];
    while let Some(module) = next.pop() {
        let allowed =
            ALLOWED.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, allowed)| allowed);
        next.extend(allowed.iter().filter(|name| reached.insert(**name)));
    }
    reached
}
