//! The engine under those who hold on to what they have: half-sent statements, reports and dashboards that fill all of
//! their slots, strangers' connections, and a daemon without file descriptors. Inserts and look-ups go on.

mod embedded_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use embedded_support::{DEADLINE, Engine, config, post, wait_for};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tally::embedded::{Embedded, Endpoint, State};

const REPORT: &str = "X-Tally-Workload: report\r\n";

fn connect(endpoint: &Endpoint) -> TcpStream {
    let stream = TcpStream::connect(endpoint.url.strip_prefix("http://").expect("a URL")).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream
}

/// A request whose answer nobody reads; it runs until the connection is dropped.
fn send(endpoint: &Endpoint, more: &str, body: &str) -> TcpStream {
    let mut stream = connect(endpoint);
    write!(
        stream,
        "POST /?database=tally&log_comment=held HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: {}\r\n\
         X-ClickHouse-Key: {}\r\n{more}\r\n{body}",
        endpoint.user, endpoint.password
    )
    .expect("sent");
    stream
}

/// What tally does all the time works: an insert, and a look-up.
fn inserts_and_look_ups_work(engine: &Engine) {
    let insert = "database=tally&query=INSERT%20INTO%20t%20FORMAT%20CSV";
    let answer = post(&engine.writer(), insert, b"1\n2\n", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(engine.run("SELECT 1"), "1\n");
}

#[test]
fn half_sent_statements_keep_nothing_from_anybody() {
    let engine = Engine::start();
    engine.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    let reader = engine.reader();
    let half = "Transfer-Encoding: chunked\r\n";
    let readers: Vec<_> = (0..80).map(|_| send(&reader, half, "6\r\nSELECT\r\n")).collect();
    let reports: Vec<_> =
        (0..80).map(|_| send(&engine.writer(), &format!("{half}{REPORT}"), "6\r\nSELECT\r\n")).collect();
    inserts_and_look_ups_work(&engine);
    for (user, headers) in [(&reader, &[][..]), (&engine.writer(), &[("X-Tally-Workload", "report")][..])] {
        let answer = post(user, "database=tally", b"SELECT count() FROM t", headers);
        assert_eq!((answer.status, answer.text().as_str()), (200, "2\n"), "{}", user.user);
    }
    // Half of the rows of an insert, too: the others have slots of their own.
    drop((readers, reports));
    engine.stop();
}

#[test]
fn reports_and_dashboards_take_no_slot_of_inserts_and_look_ups() {
    let engine = Engine::start();
    engine.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    let slow = "SELECT sleepEachRow(1) FROM numbers(100) SETTINGS max_block_size = 1 FORMAT Null";
    let length = |sql: &str| format!("Content-Length: {}\r\n", sql.len());
    let reports: Vec<_> =
        (0..100).map(|_| send(&engine.writer(), &format!("{}{REPORT}", length(slow)), slow)).collect();
    // The reader may not set a block's size; a block of 65,409 rows is too long a sleep, three rows are not.
    let slow = "SELECT sleepEachRow(0.9) FROM numbers(3) FORMAT Null";
    let readers: Vec<_> = (0..60).map(|_| send(&engine.reader(), &length(slow), slow)).collect();
    let running = "SELECT count() >= 3 FROM system.processes WHERE query LIKE 'SELECT sleepEachRow%'";
    wait_for("reports and dashboards that run", || engine.run(running) == "1\n");
    // As many as have no place are told so at once.
    wait_for("a refusal", || reports.iter().any(|stream| begins_with(stream, b"HTTP/1.1 503")));
    for _ in 0..3 {
        inserts_and_look_ups_work(&engine);
    }
    drop((reports, readers));
    // Those that waited went with their clients.
    let left = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleepEachRow%'";
    wait_for("the end of what nobody waits for", || engine.run(left) == "0\n");
    engine.stop();
}

/// Whether these bytes have arrived.
fn begins_with(stream: &TcpStream, expected: &[u8]) -> bool {
    let mut start = [0; 12];
    stream.set_nonblocking(true).expect("set");
    let count = stream.peek(&mut start).unwrap_or(0);
    stream.set_nonblocking(false).expect("set");
    start.get(..count) == Some(expected)
}

#[test]
fn strangers_connections_make_room_for_each_other_and_for_the_daemon() {
    // Both ends of more connections than the engine used to take.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let engine = Engine::start();
    engine.run("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    let pid = engine.embedded.pid();
    let mut strangers: Vec<_> = (0..1100).map(|_| connect(&engine.writer())).collect();
    inserts_and_look_ups_work(&engine);
    // The first one has gone long before its time to send a head is over.
    assert_eq!(strangers[0].read(&mut [0; 12]).unwrap_or(0), 0);
    inserts_and_look_ups_work(&engine);
    assert_eq!((engine.embedded.pid(), engine.embedded.restarts()), (pid, 0), "the engine is the same");
    engine.stop();
}

#[test]
fn a_daemon_without_file_descriptors_kills_no_engine_and_starts_one_as_soon_as_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let embedded = Embedded::start(config(folder.path())).expect("a handle");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(embedded.ready(DEADLINE)).expect("the engine is up");
    let first = embedded.pid().expect("a child");

    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: limit.maximum }).expect("set");
    // The engine is asked meanwhile, and answers.
    let mut state = embedded.state();
    let left = runtime.block_on(async {
        tokio::time::timeout(
            Duration::from_secs(3),
            state.wait_for(|state| !matches!(state, State::Up { .. })),
        )
        .await
        .is_ok()
    });
    assert!(!left, "a healthy engine was given up");

    kill_process(Pid::from_raw(first.cast_signed()).expect("a process"), Signal::KILL).expect("killed");
    let cannot =
        |state: &State| matches!(state, State::Down { reason } if reason.contains("Too many open files"));
    wait_for("a start that fails", || cannot(&embedded.state().borrow()));
    setrlimit(Resource::Nofile, limit).expect("set");
    runtime.block_on(embedded.ready(DEADLINE)).expect("it is back");
    assert_ne!(embedded.pid(), Some(first));
    runtime.block_on(embedded.stop());
}
