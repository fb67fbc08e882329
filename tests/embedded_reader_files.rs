//! The reader against every setting, every output format and every table that the engine has: no statement of it
//! creates, changes or reads a file, or shows another user's statements.

mod embedded_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use embedded_support::{Engine, get, post};
use tally::embedded::Endpoint;

/// In every name that the statements are given, so that a file that one of them made is found wherever it lies.
const WORD: &str = "canary";

/// Folders with files that must stay as they are.
struct Canary {
    folder: tempfile::TempDir,
    data_dir: PathBuf,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Canary {
    /// A folder of its own, and files of the daemon beside the engine's.
    fn place(data_dir: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix(WORD).tempdir().expect("a folder");
        fs::write(folder.path().join("victim"), "keep").expect("written");
        std::os::unix::fs::symlink(folder.path().join("victim"), folder.path().join("link")).expect("linked");
        std::os::unix::fs::symlink(folder.path().join("nothing-yet"), folder.path().join("dangling"))
            .expect("linked");
        for name in ["secret.key", "catalog.redb", "checkpoint"] {
            fs::write(data_dir.join(name), "keep").expect("written");
        }
        let mut canary = Self { folder, data_dir: data_dir.to_owned(), before: BTreeMap::new() };
        canary.before = canary.files();
        canary
    }

    /// What a statement is told to write to or to read from.
    fn paths(&self) -> Vec<String> {
        let inside = |name: &str| self.folder.path().join(name).display().to_string();
        let secret = self.data_dir.join("secret.key").display().to_string();
        vec![
            inside("victim"),
            inside("new.proto"),
            inside("link"),
            inside("dangling"),
            secret,
            format!("{WORD}-relative.proto"),
            format!("../{WORD}-above"),
        ]
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for root in [self.folder.path(), &self.data_dir] {
            collect(root, &mut files);
        }
        files
    }

    fn assert_untouched(&self, by: &str) {
        let after = self.files();
        let changed = after.iter().find(|(path, content)| self.before.get(*path) != Some(content));
        assert_eq!(changed, None, "{by} changed it");
        assert_eq!(after.len(), self.before.len(), "{by} removed one");
        let own = self.folder.path().file_name().expect("a name").to_owned();
        for folder in
            [Path::new("."), &std::env::temp_dir(), &self.data_dir, &self.data_dir.join("clickhouse")]
        {
            for entry in fs::read_dir(folder).expect("a folder") {
                let name = entry.expect("an entry").file_name();
                // Other runs of this test have a folder of their own, too.
                let made = name.to_string_lossy().contains(&format!("{WORD}-"));
                assert!(!made || name == own, "{by} made {} in {}", name.display(), folder.display());
            }
        }
    }
}

/// Every file but the engine's own tables.
fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            if entry.file_name() != "clickhouse" {
                collect(&entry.path(), files);
            }
        } else {
            // A link's own path with its target's content, or none.
            files.insert(entry.path(), fs::read(entry.path()).unwrap_or_default());
        }
    }
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The first column of each line.
fn column(engine: &Engine, sql: &str) -> Vec<String> {
    engine.run(sql).lines().map(ToOwned::to_owned).collect()
}

#[test]
fn no_setting_of_the_engine_lets_the_reader_reach_a_file() {
    let engine = Engine::start();
    let canary = Canary::place(engine.folder.path());
    let reader = engine.reader();
    let victim = &canary.paths()[0];

    let mut allowed = BTreeSet::new();
    for name in column(&engine, "SELECT name FROM system.settings ORDER BY name") {
        // Refused by name before the engine sees it, whatever its type; what is allowed is tried as a path too.
        let query = format!("database=tally&{name}={}", encoded(victim));
        let answer = post(&reader, &query, b"SELECT 'root:' AS x FORMAT Protobuf", &[]);
        if answer.code() != "164" {
            allowed.insert(name);
        }
    }
    canary.assert_untouched("a setting in the URL");
    for expected in ["max_execution_time", "max_threads", "output_format_json_quote_64bit_integers", "final"]
    {
        assert!(allowed.contains(expected), "{expected}: {allowed:?}");
    }
    // Words of settings that name something outside, but for those whose value is a number, a name in the result or
    // a list of characters.
    let reaching = [
        "schema",
        "path",
        "file",
        "url",
        "uri",
        "host",
        "registry",
        "template",
        "dialect",
        "function",
        "credentials",
    ];
    let harmless = ["output_format_avro_rows_in_file", "aggregate_functions_null_for_empty"];
    for name in &allowed {
        let reaches = reaching.iter().any(|word| name.contains(word)) && !harmless.contains(&name.as_str());
        assert!(!reaches, "{name} is allowed");
    }

    // Inside the statement nothing can be set, wherever the clause stands.
    let texts = "SELECT name FROM system.settings WHERE type NOT IN ('Bool', 'UInt64', 'Int64', 'Double', 'Float') \
                 AND value != 'canary' ORDER BY name";
    for name in column(&engine, texts) {
        for sql in [
            format!("SELECT 1 AS x FORMAT Protobuf SETTINGS {name} = '{victim}'"),
            format!("SELECT * FROM (SELECT 1 AS x SETTINGS {name} = '{victim}') FORMAT Null"),
        ] {
            let answer = post(&reader, "", sql.as_bytes(), &[]);
            assert_ne!(answer.status, 200, "{sql}");
        }
    }
    canary.assert_untouched("a SETTINGS clause");

    // What is allowed takes odd values without harm to the engine.
    for name in &allowed {
        let format = ["Parquet", "ORC", "Arrow", "Avro", "Pretty"]
            .into_iter()
            .find(|format| name.starts_with(&format!("output_format_{}", format.to_ascii_lowercase())))
            .unwrap_or("JSON");
        let sql = format!("SELECT number AS x, toString(number) AS y FROM numbers(3) FORMAT {format}");
        for value in ["0", "18446744073709551615"] {
            post(&reader, &format!("{name}={value}"), sql.as_bytes(), &[]);
        }
    }
    canary.assert_untouched("an odd value");
    assert_eq!(engine.embedded.restarts(), 0, "the engine survived");
    engine.stop();
}

#[test]
fn no_format_of_the_engine_lets_the_reader_reach_a_file() {
    let engine = Engine::start();
    let canary = Canary::place(engine.folder.path());
    let reader = engine.reader();
    let paths = canary.paths();
    let formats = column(&engine, "SELECT name FROM system.formats WHERE is_output ORDER BY name");
    assert!(formats.len() > 60 && formats.iter().any(|name| name == "Protobuf"), "{formats:?}");
    for format in &formats {
        let path = &paths[0];
        for sql in [
            format!("SELECT 1 AS x FORMAT {format}"),
            format!("SELECT 1 AS x FORMAT `{format}`"),
            format!("SELECT formatRow('{format}', 1)"),
            format!("SELECT 1 AS x FORMAT {format} SETTINGS output_format_schema = '{path}'"),
            format!("SELECT 1 AS x INTO OUTFILE '{path}' TRUNCATE FORMAT {format}"),
        ] {
            send(&reader, "", &sql);
        }
        send(&reader, &format!("default_format={format}"), "SELECT 1 AS x");
        canary.assert_untouched(format);
    }
    // Inside a statement a format is a function, and a subquery has settings of its own.
    for path in &paths {
        let settings =
            format!("output_format_schema = '{path}', format_protobuf_use_autogenerated_schema = 1");
        for sql in [
            format!("SELECT * FROM (SELECT formatRow('Protobuf', 1) SETTINGS {settings})"),
            format!("SELECT 1 IN (SELECT formatRow('Protobuf', 1) = '' SETTINGS {settings})"),
            format!("WITH (SELECT formatRow('ProtobufList', 1) SETTINGS {settings}) AS x SELECT x"),
            format!("SELECT '' UNION ALL (SELECT formatRow('Protobuf', 1) SETTINGS {settings})"),
            format!("SELECT * FROM view(SELECT formatRow('Protobuf', 1) SETTINGS {settings})"),
            format!("SELECT * FROM (SELECT groupFormat('Protobuf')(1) SETTINGS {settings})"),
            format!(
                "SELECT * FROM (SELECT arrayReduce('groupFormat(\\'Protobuf\\')', [1]) SETTINGS {settings})"
            ),
        ] {
            send(&reader, "", &sql);
            canary.assert_untouched(&sql);
        }
    }
    // Those that take a schema, with every path and by every way to name it.
    for format in ["Protobuf", "ProtobufSingle", "ProtobufList", "CapnProto", "Template", "AvroConfluent"] {
        let sql = format!("SELECT 1 AS \"ssh-ed25519 AAAA\n\" FORMAT {format}");
        assert_ne!(post(&reader, "", sql.as_bytes(), &[]).status, 200, "{format} has no schema");
        for path in &paths {
            for setting in
                ["output_format_schema", "format_schema", "format_template_row", "Output_Format_Schema"]
            {
                let query = format!("{setting}={}", encoded(path));
                send(&reader, &query, &sql);
                let answer = post(&reader, &query, sql.as_bytes(), &[]);
                assert_ne!(answer.status, 200, "{format} {query}: {}", answer.text());
            }
        }
        canary.assert_untouched(format);
    }
    // As input they would read files.
    for path in &paths {
        for sql in [
            format!("SELECT * FROM format(Protobuf, '{path}')"),
            format!("DESCRIBE format(CapnProto, '{path}')"),
            format!("SELECT * FROM file('{path}', 'LineAsString')"),
            format!("INSERT INTO t FORMAT Protobuf SETTINGS format_schema = '{path}'"),
        ] {
            let answer = post(&reader, "", sql.as_bytes(), &[]);
            assert_ne!(answer.status, 200, "{sql}");
            assert!(!answer.text().contains("keep"), "{sql}: {}", answer.text());
        }
    }
    canary.assert_untouched("an input format");
    assert_eq!(engine.embedded.restarts(), 0, "the engine survived");
    engine.stop();
}

/// By both methods.
fn send(reader: &Endpoint, query: &str, sql: &str) {
    post(reader, query, sql.as_bytes(), &[]);
    get(reader, &format!("/?{query}&query={}", encoded(sql)));
}

/// The tables of the engine that the reader may read: constants, its own session, and what the grants filter.
const READABLE: &[&str] = &[
    "aggregate_function_combinators",
    "build_options",
    "collations",
    "columns",
    "contributors",
    "current_roles",
    "data_type_families",
    "database_engines",
    "databases",
    "enabled_roles",
    "formats",
    "functions",
    "keywords",
    "licenses",
    "numbers",
    "numbers_mt",
    "one",
    "primes",
    "privileges",
    "settings",
    "table_engines",
    "table_functions",
    "tables",
    "time_zones",
    "unicode",
    "zeros",
    "zeros_mt",
];

#[test]
fn of_the_engines_own_tables_the_reader_sees_those_that_clients_need() {
    let engine = Engine::start();
    engine.run("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a");
    engine.run("INSERT INTO t VALUES (1, 'PERSON-1')");
    engine.run("ALTER TABLE t UPDATE b = '' WHERE b = 'PERSON-1' SETTINGS mutations_sync = 2");
    let reader = engine.reader();
    let ask = |sql: &str| post(&reader, "database=tally", sql.as_bytes(), &[]);

    let tables = column(&engine, "SELECT name FROM system.tables WHERE database = 'system' ORDER BY name");
    assert!(tables.len() > 100 && tables.iter().any(|name| name == "mutations"), "{tables:?}");
    for name in READABLE {
        assert!(tables.iter().any(|table| table == name), "the engine has no system.{name}");
    }
    for table in &tables {
        let readable = READABLE.contains(&table.as_str());
        for sql in [
            format!("SELECT * FROM system.{table} LIMIT 1"),
            format!("SELECT * FROM `system`.\"{table}\" LIMIT 1"),
        ] {
            let answer = ask(&sql);
            let expected = if readable { "" } else { "497" };
            assert_eq!(answer.code(), expected, "{sql}: {}", answer.text());
        }
        if !readable {
            for sql in [
                format!("SELECT 1 IN system.{table}"),
                format!("SELECT * FROM merge('system', '^{table}$')"),
                format!("SELECT * FROM merge('{table}')"),
                format!("DESCRIBE TABLE system.{table}"),
                format!("SELECT count() FROM tally.t, system.{table}"),
                format!("WITH x AS (SELECT * FROM system.{table}) SELECT * FROM x"),
            ] {
                assert_ne!(ask(&sql).status, 200, "{sql}");
            }
            // Unqualified, with the database as a default or as a parameter.
            let sql = format!("SELECT * FROM {table}");
            assert_ne!(post(&reader, "database=system", sql.as_bytes(), &[]).status, 200, "{sql}");
            let sql = format!("SELECT * FROM {{d:Identifier}}.{table}");
            assert_ne!(post(&reader, "param_d=system", sql.as_bytes(), &[]).status, 200, "{sql}");
        }
    }
    for sql in ["SHOW PROCESSLIST", "SHOW MERGES", "SHOW CLUSTERS", "SHOW USERS", "SHOW ACCESS"] {
        assert_ne!(ask(sql).status, 200, "{sql}");
    }
    // What the allowed ones and the views over them say holds no statement.
    for sql in [
        "SELECT * FROM system.tables FORMAT JSONEachRow",
        "SELECT * FROM information_schema.tables FORMAT JSONEachRow",
        "SELECT * FROM INFORMATION_SCHEMA.COLUMNS FORMAT JSONEachRow",
        "SELECT * FROM information_schema.statistics FORMAT JSONEachRow",
    ] {
        let answer = ask(sql);
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        assert!(!answer.text().contains("PERSON-1"), "{sql}: {}", answer.text());
    }

    // What a request may set is told as changeable, and the rest as read-only.
    let told = "SELECT name, readonly FROM system.settings \
                WHERE name IN ('max_execution_time', 'session_timezone', 'format_schema', 'allow_ddl', 'readonly') ORDER BY name";
    assert_eq!(
        ask(told).text(),
        "allow_ddl\t1\nformat_schema\t1\nmax_execution_time\t0\nreadonly\t1\nsession_timezone\t0\n"
    );
    assert_eq!(ask("SELECT timezone(), toString(toDateTime(0))").text(), "UTC\t1970-01-01 00:00:00\n");
    engine.stop();
}
