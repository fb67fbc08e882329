//! The engine's process: killed, restarted, orphaned, unable to start; and what that does to acknowledged rows.

mod embedded_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embedded_support::{DEADLINE, Engine, config, post, try_post, wait_for};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tally::embedded::{Embedded, Endpoint, State};

fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed()).expect("a process")
}

/// A raw table, a view and its target, set up so that a token sent twice counts once in both.
fn exactly_once_tables(engine: &Engine) {
    let deduplicated = "SETTINGS non_replicated_deduplication_window = 1000";
    engine.run(&format!(
        "CREATE TABLE raw (batch UInt64, n UInt64) ENGINE = MergeTree ORDER BY batch {deduplicated}"
    ));
    engine.run(&format!(
        "CREATE TABLE rollup (batch UInt64, n SimpleAggregateFunction(sum, UInt64)) ENGINE = AggregatingMergeTree ORDER BY batch {deduplicated}"
    ));
    engine.run("CREATE MATERIALIZED VIEW raw_to_rollup TO rollup AS SELECT batch, sum(n) AS n FROM raw GROUP BY batch");
}

const ROWS: u64 = 200;

/// One attempt; `true` if it was acknowledged.
fn insert_batch(writer: &Endpoint, batch: u64) -> bool {
    let rows = (0..ROWS).map(|n| format!("{batch}\t{n}\n")).collect::<Vec<_>>().concat();
    let query = format!(
        "database=tally&query=INSERT%20INTO%20raw%20FORMAT%20TSV&insert_deduplication_token=batch-{batch}\
         &deduplicate_blocks_in_dependent_materialized_views=1"
    );
    try_post(writer, &query, rows.as_bytes(), &[]).is_ok_and(|answer| answer.status == 200)
}

#[test]
fn killed_under_load_it_is_back_within_seconds_and_nothing_is_lost_or_doubled() {
    let engine = Engine::start();
    exactly_once_tables(&engine);
    let writer = engine.writer();
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let loaders: Vec<_> = (0..2)
        .map(|_| {
            let (stop, next, acknowledged, writer) =
                (stop.clone(), next.clone(), acknowledged.clone(), writer.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    // The same token until it is acknowledged, as the shipper does.
                    while !insert_batch(&writer, batch) {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    acknowledged.lock().expect("no panic").push(batch);
                }
            })
        })
        .collect();

    let acknowledged_count = || acknowledged.lock().expect("no panic").len();
    for kill in 0..6 {
        let before = acknowledged_count();
        // Not always at the same point of a batch.
        wait_for("more batches", || acknowledged_count() >= before + 5 + kill * 3);
        let old = engine.embedded.pid().expect("a child");
        kill_process(pid(old), Signal::KILL).expect("killed");
        let killed = Instant::now();
        wait_for("a new child", || engine.embedded.pid().is_some_and(|new| new != old));
        engine.runtime.block_on(engine.embedded.ready(DEADLINE)).expect("it is back");
        wait_for("an answer", || {
            try_post(&writer, "", b"SELECT 1", &[]).is_ok_and(|answer| answer.status == 200)
        });
        assert!(killed.elapsed() < Duration::from_secs(15), "it took {:?}", killed.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for loader in loaders {
        loader.join().expect("no panic");
    }

    let batches = acknowledged_count() as u64;
    assert_eq!(engine.writer(), writer, "same port, same password");
    assert!(engine.embedded.restarts() >= 6);
    let state = engine.embedded.state().borrow().clone();
    assert!(matches!(state, State::Up { generation } if generation >= 7), "{state:?}");
    let sum = batches * (0..ROWS).sum::<u64>();
    assert_eq!(
        engine.run("SELECT count(), uniqExact(batch), sum(n) FROM raw"),
        format!("{}\t{batches}\t{sum}\n", batches * ROWS)
    );
    assert_eq!(engine.run("SELECT uniqExact(batch), sum(n) FROM rollup"), format!("{batches}\t{sum}\n"));
    engine.stop();
}

#[test]
fn started_again_on_the_same_data_it_is_the_same_engine() {
    let engine = Engine::start();
    let writer = engine.writer();
    engine.run("CREATE TABLE kept (a UInt8) ENGINE = MergeTree ORDER BY a");
    engine.run("INSERT INTO kept VALUES (7)");
    let folder = engine.stop();

    for (name, user) in [("writer.url", "tally"), ("reader.url", "reader")] {
        let path = folder.path().join(name);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).expect("text");
        assert!(
            text.starts_with(&format!("http://{user}:")) && text.ends_with("/?database=tally"),
            "one URL and nothing else"
        );
    }

    let again = start_on(&folder);
    assert_eq!(again.writer(), writer);
    assert_eq!(post(&writer, "database=tally", b"SELECT a FROM kept", &[]).text(), "7\n");
    stop(again);

    // Somebody else took the port meanwhile: another one, and the files say so.
    let port = writer.url.rsplit(':').next().expect("a port").parse::<u16>().expect("a port");
    let _other = std::net::TcpListener::bind(("127.0.0.1", port)).expect("free");
    let moved = start_on(&folder);
    assert_ne!(moved.writer().url, writer.url);
    assert_eq!(moved.writer().password, writer.password);
    let text = fs::read_to_string(folder.path().join("writer.url")).expect("text");
    assert!(text.contains(moved.writer().url.strip_prefix("http://").expect("a URL")));
    assert_eq!(post(&moved.writer(), "database=tally", b"SELECT a FROM kept", &[]).text(), "7\n");
    stop(moved);
}

/// The engine was killed between writing a token and renaming its part: the token is known, its rows never come.
#[test]
fn a_token_whose_rows_never_came_is_forgotten() {
    let engine = Engine::start();
    exactly_once_tables(&engine);
    // Each insert's part is to be found by its name.
    engine.run("SYSTEM STOP MERGES");
    assert!(insert_batch(&engine.writer(), 1) && insert_batch(&engine.writer(), 2));
    let last = engine.run(
        "SELECT argMax(path, max_block_number) FROM system.parts WHERE active AND database = 'tally' GROUP BY table",
    );
    let folder = engine.stop();
    // The last part of the raw table and of the view's target never made it into place.
    assert_eq!(last.lines().count(), 2);
    for part in last.lines() {
        fs::remove_dir_all(part).expect("removed");
    }

    let again = start_on(&folder);
    let writer = again.writer();
    let count = || {
        post(&writer, "database=tally", b"SELECT (SELECT count() FROM raw), (SELECT sum(n) FROM rollup)", &[])
            .text()
    };
    let sum: u64 = (0..ROWS).sum();
    assert_eq!(count(), format!("{ROWS}\t{sum}\n"));
    // The rows come with their old token, and a token whose rows are there still drops.
    assert!(insert_batch(&writer, 2) && insert_batch(&writer, 2) && insert_batch(&writer, 1));
    assert_eq!(count(), format!("{}\t{}\n", 2 * ROWS, 2 * sum));
    stop(again);
}

fn start_on(folder: &tempfile::TempDir) -> Embedded {
    let embedded = Embedded::start(config(folder.path())).expect("a handle");
    block_on(embedded.ready(DEADLINE)).expect("the engine is up");
    embedded
}

fn stop(embedded: Embedded) {
    block_on(embedded.stop());
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

#[test]
fn an_engine_that_cannot_start_is_down_with_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("libchdb.so");
    let mut config = config(folder.path());
    config.libchdb = Some(library.clone());
    let embedded = Embedded::start(config).expect("a handle all the same");
    wait_for(
        "the reason",
        || matches!(&*embedded.state().borrow(), State::Down { reason } if reason.contains("make libchdb")),
    );

    // It goes on trying: a library that is none is another reason.
    fs::write(&library, "not a library").expect("written");
    wait_for(
        "another reason",
        || matches!(&*embedded.state().borrow(), State::Down { reason } if reason.contains("cannot load libchdb")),
    );
    let error = block_on(embedded.ready(Duration::from_millis(1))).expect_err("it is not up");
    assert!(!error.reason.is_empty());
    stop(embedded);
}

#[test]
fn an_engine_that_lives_and_does_not_answer_is_replaced() {
    let engine = Engine::start();
    let frozen = engine.embedded.pid().expect("a child");
    kill_process(pid(frozen), Signal::STOP).expect("stopped");
    wait_for("the next child", || engine.embedded.pid().is_some_and(|new| new != frozen));
    engine.runtime.block_on(engine.embedded.ready(DEADLINE)).expect("it is back");
    assert_eq!(engine.run("SELECT 1"), "1\n");
    assert!(test_kill_process(pid(frozen)).is_err(), "the frozen one is gone");
    engine.stop();
}

#[test]
fn the_child_dies_with_a_killed_parent_and_another_daemon_takes_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut parent = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "a_parent_for_the_test_above", "--ignored", "--nocapture"])
        .env("TALLY_TEST_FOLDER", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(parent.stdout.take().expect("a pipe"));
    let child: u32 = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("child ").map(|it| it.parse().expect("a pid")))
        .expect("the parent reports its child");
    parent.kill().expect("killed");
    parent.wait().expect("gone");
    // The next daemon does not have to wait for that by itself.
    let again = start_on(&folder);
    wait_for("the child's end", || test_kill_process(pid(child)).is_err());
    assert_ne!(again.pid(), Some(child));
    stop(again);
}

#[test]
#[ignore = "run by the test above, in a process that it kills"]
fn a_parent_for_the_test_above() {
    let Some(folder) = std::env::var_os("TALLY_TEST_FOLDER") else { return };
    let embedded = Embedded::start(config(Path::new(&folder))).expect("a handle");
    block_on(embedded.ready(DEADLINE)).expect("the engine is up");
    println!("\nchild {}", embedded.pid().expect("a child"));
    std::thread::sleep(DEADLINE);
}
