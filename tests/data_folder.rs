//! A data folder in use with a part missing or damaged: each is refused by name before anything listens, and an operator who
//! accepts the loss goes on without it. And folders that are new, half made, open to others, or somebody else's.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::engine::{fresh_database, sql};
use support::faults::daemon::{NO_CLICKHOUSE, Start, Tally, folder, refusal};
use support::faults::wait_for;
use support::faults::wire::{ask, request};
use support::proxy::{Fault, Proxy};
use tally::clickhouse::Endpoint;

const ALONE: [&str; 2] = ["--clickhouse-url", NO_CLICKHOUSE];
const HITS: u64 = 3;

#[test]
fn each_part_that_is_missing_or_damaged_stops_the_start_by_name() {
    let folder = folder();
    let data = folder.path().join("data");
    used(&data);
    let all = [
        "checkpoint",
        "secret.key",
        "visitor-keys.json",
        "click-ids",
        "wal",
        "cuts",
        "outbox.redb",
        "clickhouse",
        "clickhouse/metadata/tally.sql",
        "clickhouse/store",
    ];
    for part in all {
        let path = data.join(part);
        let aside = folder.path().join("aside");
        fs::rename(&path, &aside).expect("moved");
        refused_by_name(&data, &path, "is missing");
        for command in ["audit", "repair"] {
            let said = run(&data, &[command]);
            assert_eq!(said.status.code(), Some(1), "{part}, {command}: {said:?}");
            assert!(text(&said).contains(path.to_str().expect("text")), "{part}, {command}: {said:?}");
        }
        assert!(!path.exists(), "{part}: nothing was put in its place");
        fs::rename(&aside, &path).expect("moved back");
    }
    let empty_log = data.join("wal");
    fs::rename(&empty_log, folder.path().join("aside")).expect("moved");
    fs::create_dir(&empty_log).expect("made");
    refused_by_name(&data, &empty_log, "has no segments");
    fs::remove_dir(&empty_log).expect("removed");
    fs::rename(folder.path().join("aside"), &empty_log).expect("moved back");

    for (part, content) in [
        ("checkpoint", &b"tally"[..]),
        ("secret.key", b"short"),
        ("outbox.redb", &[7; 4096]),
        ("attribution-run", b"x\n"),
        ("cuts/9000000000000000.cut", b"tallyCUT"),
        ("clickhouse/metadata/tally.sql", b""),
        ("visitor-keys.json", b"{"),
        ("click-ids", b"many"),
        ("installation.json", b"{"),
    ] {
        let path = data.join(part);
        let kept = fs::read(&path).ok();
        fs::write(&path, content).expect("written");
        refused_by_name(&data, &path, "");
        assert_eq!(fs::read(&path).expect("there"), content, "the damage is left as it is");
        match kept {
            Some(kept) => fs::write(&path, kept).expect("written"),
            None => fs::remove_file(&path).expect("removed"),
        }
    }

    // What can be made from something else is no loss, and neither is the new file for a folder of an earlier version.
    for part in ["filter.snapshot", "reader.url", "lock", "installation.json"] {
        fs::remove_file(data.join(part)).expect("removed");
    }
    let tally = Tally::start(&data, &Start::default());
    wait_for("the rows", || tally.line("SELECT count() FROM tally.conversions") == HITS.to_string());
    let goal = tally.goal();
    assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    assert!(tally.stop().success());
    let id = |key: &str| {
        let file = fs::read(data.join("installation.json")).expect("made again");
        serde_json::from_slice::<serde_json::Value>(&file).expect("JSON")[key].clone()
    };
    assert!(id("installation_id").is_string());
    assert_eq!(id("database"), "in_use");
}

#[test]
fn an_operator_goes_on_without_what_is_lost() {
    let folder = folder();
    let data = folder.path().join("data");
    used(&data);
    let complete = run(&data, &["repair"]);
    assert!(complete.status.success(), "{complete:?}");

    fs::write(data.join("outbox.redb"), "damaged").expect("written");
    fs::remove_file(data.join("checkpoint")).expect("removed");
    fs::remove_dir_all(data.join("clickhouse")).expect("removed");
    let half = run(&data, &["repair", "--accept-loss", "outbox"]);
    assert_eq!(half.status.code(), Some(1), "{half:?}");
    assert!(text(&half).contains("checkpoint is missing") && !text(&half).contains("outbox.redb can't"));
    assert!(set_aside(&data, "outbox.redb").is_some(), "the damaged one is kept");
    let whole = run(&data, &["repair", "--accept-loss=checkpoint", "--accept-loss=clickhouse"]);
    assert!(whole.status.success(), "{whole:?}");
    assert!(set_aside(&data, "wal").is_some(), "the log is kept");

    let tally = Tally::start(&data, &Start::default());
    wait_for("the tables", || tally.line("SELECT count() FROM tally.conversions") == "0");
    let goal = tally.goal();
    assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    wait_for("the row", || tally.line("SELECT count() FROM tally.conversions") == "1");
    assert!(tally.stop().success());
    // Once accepted, a loss is not accepted again.
    fs::rename(data.join("clickhouse"), folder.path().join("aside")).expect("moved");
    refused_by_name(&data, &data.join("clickhouse"), "is missing");
}

#[test]
fn a_first_start_that_was_killed_goes_on() {
    let folder = folder();
    for (n, made) in [
        "lock",
        "installation.json",
        "secret.key",
        "catalog.redb",
        "cuts",
        "checkpoint",
        "wal/00000000000000000000.wal",
        "outbox.redb",
        "click-ids",
        "visitor-keys.json",
        "clickhouse",
    ]
    .into_iter()
    .enumerate()
    {
        let data = folder.path().join(format!("data-{n}"));
        let engine = made == "clickhouse";
        let flags: &[&str] = if engine { &[] } else { &ALONE };
        let mut child = Command::new(env!("CARGO_BIN_EXE_tally"))
            .args(["serve", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let deadline = std::time::Instant::now() + support::DEADLINE;
        while !data.join(made).exists() {
            assert!(std::time::Instant::now() < deadline, "{made} was not made");
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("ended");

        let tally = Tally::start(&data, &Start { flags, ..Start::default() });
        let goal = tally.goal();
        let status = tally.hit(&goal, r#"{"value":1}"#).status;
        assert!(matches!(status, 201 | 202), "{made}: {status}");
        if engine {
            wait_for("the row", || tally.line("SELECT count() FROM tally.conversions") == "1");
        }
        tally.kill();
        // In use from then on.
        fs::remove_file(data.join("secret.key")).expect("removed");
        refused_by_name(&data, &data.join("secret.key"), "is missing");
        fs::remove_dir_all(&data).expect("removed");
    }
}

/// A disk that was full while the schema was made leaves definitions without text, on which no engine starts.
#[test]
fn a_schema_that_a_full_disk_left_half_made_is_made_again() {
    let folder = folder();
    let data = folder.path().join("data");
    used(&data);
    let table = fs::read_dir(data.join("clickhouse/store"))
        .expect("listed")
        .flatten()
        .flat_map(|prefix| fs::read_dir(prefix.path()).expect("listed").flatten())
        .find(|uuid| uuid.path().join("clicks.sql").exists())
        .expect("the database's folder")
        .path()
        .join("clicks.sql");
    fs::write(&table, "").expect("written");
    refused_by_name(&data, &table, "is empty");

    // The same where nothing was ever inserted.
    let file = data.join("installation.json");
    let text =
        fs::read_to_string(&file).expect("there").replace(r#""database": "in_use""#, r#""database": "new""#);
    fs::write(&file, text).expect("written");
    fs::remove_file(data.join("checkpoint")).expect("removed");
    let done = run(&data, &["repair", "--accept-loss=checkpoint"]);
    assert!(done.status.success(), "{done:?}");
    let tally = Tally::start(&data, &Start::default());
    let goal = tally.goal();
    assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    wait_for("the row", || tally.line("SELECT count() FROM tally.conversions") == "1");
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_as_it_is() {
    let folder = folder();
    let home = folder.path().join("home");
    fs::create_dir(&home).expect("made");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("changed");
    fs::write(home.join(".bashrc"), "").expect("written");
    let (code, said) = refusal(&home, &ALONE);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not a data folder of tally") && said.contains(".bashrc"), "{said}");
    let nowhere = folder.path().join("nowhere");
    for command in [
        &["audit"][..],
        &["check"],
        &["repair"],
        &["dead-letters", "list"],
        &["dead-letters", "replay"],
        &["reattribute", "--list"],
        &["erase", "--order-id", "A"],
    ] {
        for path in [&home, &nowhere] {
            let said = run(path, command);
            assert_eq!(said.status.code(), Some(1), "{command:?}: {said:?}");
            assert!(text(&said).contains("not a data folder of tally"), "{command:?}: {said:?}");
        }
    }
    assert_eq!(names(&home), [".bashrc"]);
    assert_eq!(fs::metadata(&home).expect("there").permissions().mode() & 0o777, 0o755);
    assert!(!nowhere.exists());
}

#[test]
fn a_folder_that_others_could_read_is_private_after_a_start() {
    let folder = folder();
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("made");
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
    };
    open(&data, 0o755);
    used(&data);
    assert_eq!(exposed(&data), Vec::<PathBuf>::new());
    // As an earlier version left it.
    open(&data, 0o755);
    open(&data.join("secret.key"), 0o644);
    open(&data.join("clickhouse"), 0o755);
    open(&data.join("clickhouse/metadata/tally.sql"), 0o644);
    let tally = Tally::start_alone(&data);
    assert_eq!(exposed(&data), Vec::<PathBuf>::new());
    assert!(tally.log().contains("were made private"), "{}", tally.log());
}

#[test]
fn a_start_waits_for_a_subcommand_and_not_for_a_daemon() {
    let folder = folder();
    let data = folder.path().join("data");
    Tally::start_alone(&data).kill();
    let lock = fs::OpenOptions::new().write(true).open(data.join("lock")).expect("there");
    lock.lock().expect("free");
    fs::write(data.join("lock"), "audit, process 17\n").expect("written");
    let waiting = std::thread::spawn({
        let data = data.clone();
        move || Tally::start_alone(&data)
    });
    let log = folder.path().join("data.log");
    wait_for("the wait", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.contains("waiting for a subcommand") && said.contains("audit, process 17")
    });
    drop(lock);
    let tally = waiting.join().expect("it starts");
    let (code, said) = refusal(&link(&data), &ALONE);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("(serve, process {})", tally.server.pid())), "{said}");
}

#[test]
fn a_database_that_must_not_be_written_stops_the_start() {
    let folder = folder();
    let data = folder.path().join("data");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let database = runtime.block_on(fresh_database());
    let url = url(database.endpoint(), &database.endpoint().url);
    let flags = ["--clickhouse-url", url.as_str()];
    let run = |statement: &str| {
        let statement = sql(&database).with_setting("mutations_sync", "2").query_raw(statement).execute();
        runtime.block_on(statement).expect("run");
    };
    used_with(&data, &flags);
    run("CREATE TABLE kept_migrations AS schema_migrations");
    run("INSERT INTO kept_migrations SELECT * FROM schema_migrations");
    run("CREATE TABLE kept_installation AS installation");
    run("INSERT INTO kept_installation SELECT * FROM installation");
    let restored =
        ["TRUNCATE TABLE schema_migrations", "INSERT INTO schema_migrations SELECT * FROM kept_migrations"];
    let newer = "9000000000000000";
    let add_newer =
        format!("INSERT INTO conversions SELECT * REPLACE ({newer} AS batch_id) FROM conversions LIMIT 1");
    let drop_newer = format!("ALTER TABLE conversions DELETE WHERE batch_id = {newer}");
    let cases: [(&[&str], &str, &[&str]); 9] = [
        (
            &["INSERT INTO schema_migrations (version, name, checksum) VALUES (99, 'x', 'y')"],
            "the database is at schema 99",
            &restored,
        ),
        (
            &["ALTER TABLE schema_migrations UPDATE checksum = 'x' WHERE version = 2"],
            "migration 0002_rejections.sql ran with another text",
            &restored,
        ),
        (
            &["ALTER TABLE schema_migrations DELETE WHERE version = 2"],
            "no row of migration 0002_rejections.sql",
            &restored,
        ),
        (
            &["ALTER TABLE conversions MODIFY SETTING non_replicated_deduplication_window = 0"],
            "table conversions: non_replicated_deduplication_window is 0",
            &["ALTER TABLE conversions MODIFY SETTING non_replicated_deduplication_window = 1000"],
        ),
        (
            &["ALTER TABLE rejections RENAME COLUMN request TO gone"],
            "table rejections: column request is missing",
            &["ALTER TABLE rejections RENAME COLUMN gone TO request"],
        ),
        (
            &[
                "TRUNCATE TABLE installation",
                "INSERT INTO installation (installation_id) SELECT generateUUIDv4()",
            ],
            "belongs to another data folder",
            &["TRUNCATE TABLE installation", "INSERT INTO installation SELECT * FROM kept_installation"],
        ),
        (&[&add_newer], "which is newer than", &[&drop_newer]),
        (&["TRUNCATE TABLE conversions"], "holds no conversion, although 3 were inserted", &[]),
        (&["TRUNCATE TABLE schema_migrations"], "is empty, although 3 hits were inserted", &[]),
    ];
    for (changes, named, undo) in cases {
        for statement in changes {
            run(statement);
        }
        let (code, said) = refusal(&data, &flags);
        assert_eq!(code, Some(1), "{named}: {said}");
        assert!(said.contains(named), "{named}: {said}");
        assert!(!said.contains("takes hits"), "{named}: {said}");
        for statement in undo {
            run(statement);
        }
    }
    // Another data folder's database is not taken by a new one, either.
    let (code, said) = refusal(&folder.path().join("other"), &flags);
    assert!(code == Some(1) && said.contains("belongs to another data folder"), "{said}");
}

#[test]
fn a_database_that_turns_out_not_to_be_writable_costs_no_hit() {
    let folder = folder();
    let data = folder.path().join("data");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let database = runtime.block_on(fresh_database());
    let proxy = runtime.block_on(Proxy::start(&database.endpoint().url));
    proxy.set(Fault::Refuse);
    let url = url(database.endpoint(), proxy.url());
    let tally = Tally::start(&data, &Start { flags: &["--clickhouse-url", &url], ..Start::default() });
    let goal = tally.goal();
    assert_eq!(tally.hit(&goal, r#"{"value":1}"#).status, 201);
    let run = |statement: &str| {
        let statement = sql(&database).with_setting("mutations_sync", "2").query_raw(statement).execute();
        runtime.block_on(statement).expect("run");
    };
    run("INSERT INTO schema_migrations (version, name, checksum) VALUES (99, 'x', 'y')");
    proxy.set(Fault::Pass);
    wait_for("the reason", || tally.log().contains("the database is at schema 99"));
    // It goes on, takes hits, and says what does not work.
    assert_eq!(tally.hit(&goal, r#"{"value":2}"#).status, 201);
    let readyz = ask(tally.ops, request("GET /readyz", &[], ""));
    assert_eq!(readyz.status, 200, "{readyz:?}");
    assert!(readyz.json().to_string().contains("schema_pending"), "{readyz:?}");
    assert_eq!(tally.metric("tally_hits_inserted_total"), 0);
    run("ALTER TABLE schema_migrations DELETE WHERE version = 99");
    wait_for("the rows", || tally.metric("tally_hits_inserted_total") == 2);
}

/// The address with the user's name and password.
fn url(endpoint: &Endpoint, address: &str) -> String {
    let Endpoint { user, password, database, .. } = endpoint;
    let host = address.strip_prefix("http://").expect("http").trim_end_matches('/');
    format!("http://{user}:{password}@{host}/?database={database}")
}

/// A folder that has shipped some hits.
fn used(data: &Path) {
    used_with(data, &[]);
}

fn used_with(data: &Path, flags: &[&str]) {
    let tally = Tally::start(data, &Start { flags, ..Start::default() });
    let goal = tally.goal();
    for n in 0..HITS {
        let answer = tally.hit(&goal, &format!(r#"{{"value":1,"order_id":"ORDER-{n}"}}"#));
        assert!(matches!(answer.status, 201 | 202), "{answer:?}");
    }
    wait_for("the rows", || tally.metric("tally_hits_inserted_total") == HITS);
    assert!(tally.stop().success());
}

fn refused_by_name(data: &Path, path: &Path, fault: &str) {
    let (code, said) = refusal(data, &[]);
    assert_eq!(code, Some(1), "{}: {said}", path.display());
    // Quotes and newlines apart, the log is the text.
    let name = format!("{} {fault}", path.display());
    let named = if fault.is_empty() {
        said.contains(path.file_name().and_then(|n| n.to_str()).expect("text"))
    } else {
        said.contains(&name)
    };
    assert!(named, "{name}: {said}");
    assert!(said.contains("estore"), "the remedy is missing: {said}");
    assert!(!said.contains("takes hits"), "{said}");
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.args(arguments).arg("--data-dir").arg(data).stdin(Stdio::null());
    command.output().expect("it runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Where a part that was given up lies.
fn set_aside(data: &Path, part: &str) -> Option<PathBuf> {
    let folders = names(data).into_iter().filter(|name| name.starts_with("given-up-"));
    folders.map(|name| data.join(name).join(part)).find(|path| path.exists())
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("listed").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What group or others may read.
fn exposed(path: &Path) -> Vec<PathBuf> {
    let metadata = path.symlink_metadata().expect("there");
    let mut found = Vec::new();
    if metadata.permissions().mode() & 0o077 != 0 && !metadata.is_symlink() {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        found.extend(names(path).iter().flat_map(|name| exposed(&path.join(name))));
    }
    found
}

/// Another name of the folder, so that a second daemon's log does not take the first one's place.
fn link(data: &Path) -> PathBuf {
    let link = data.with_extension("again");
    std::os::unix::fs::symlink(data, &link).expect("linked");
    link
}
