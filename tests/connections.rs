//! Connections as what they cost: descriptors, places, memory. Whoever holds many of them, idle or with requests that
//! never come whole, keeps nobody else from being served, and the daemon well.

mod support;

use std::fs;
use std::net::Ipv4Addr;

use loadtest::process::rss_bytes;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use support::daemon::pid;
use support::faults::daemon::{NO_CLICKHOUSE, Start, Tally, folder, hit, refusal_limited};
use support::faults::wait_for;
use support::faults::wire::Wire;
use tempfile::TempDir;

const GOOD: &str = r#"{"value":1}"#;
const ALONE: [&str; 2] = ["--clickhouse-url", NO_CLICKHOUSE];
/// Another caller than the one of all other connections.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// What connections get of 1,024 descriptors, with two workers.
const PLACES_OF_1024: u64 = 600;
const MIB: usize = 1 << 20;

#[test]
fn a_stranger_with_more_connections_than_descriptors_stops_nothing() {
    // For this process' own end of them.
    tally::app::raise_limit();
    let folder = folder();
    let how = Start { flags: &["--workers", "2"], ..Start::default() };
    let tally = Tally::start_limited(&folder.path().join("data"), &how, (1024, 1024));
    let goal = tally.goal();
    wait_for("the engine", || tally.line("SELECT 1") == "1");
    assert_eq!(tally.metric("tally_http_connections_max"), PLACES_OF_1024);
    let idle: Vec<_> = (0..1121).map(|_| Wire::connect(tally.public)).collect();
    for order in 0..5 {
        assert_eq!(tally.hit(&goal, &format!(r#"{{"order_id":"{order}"}}"#)).status, 201);
        assert_eq!(tally.readiness(), (200, Vec::new()));
    }
    assert!(tally.metric("tally_http_connections") <= PLACES_OF_1024);
    assert!(tally.metric("tally_http_connections_shed_total") > 0);
    assert_eq!(tally.line("SELECT 2"), "2", "the engine is well");
    assert_eq!(tally.metric("tally_engine_restarts_total"), 0);
    assert!(!tally.log().contains("Too many open files"));
    drop(idle);
    wait_for("the end of all", || tally.metric("tally_http_connections") == 0);
}

#[test]
fn the_soft_limit_is_raised_and_one_that_is_too_small_refuses_the_start() {
    let folder = folder();
    let flags = [&ALONE[..], &["--workers", "2"]].concat();
    let how = Start { flags: &flags, ..Start::default() };
    let raised = Tally::start_limited(&folder.path().join("raised"), &how, (256, 1024));
    assert_eq!(raised.metric("tally_http_connections_max"), PLACES_OF_1024);
    assert!(raised.log().contains("fewer connections than configured"));
    for limit in [20, 30, 64, 128] {
        let data = folder.path().join(limit.to_string());
        let (code, said) = refusal_limited(&data, (limit, limit));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("the limit of open files is {limit}, and at least ")), "{said}");
        assert!(said.contains("LimitNOFILE="), "the remedy is named: {said}");
        assert!(!data.exists(), "nothing was begun");
    }
}

#[test]
fn running_out_of_descriptors_is_said_and_survived() {
    let folder = folder();
    let tally = Tally::start_alone(&folder.path().join("data"));
    let goal = tally.goal();
    tally.wait_ready();
    let process = pid(tally.server.pid());
    let open = fs::read_dir(format!("/proc/{}/fd", tally.server.pid())).expect("readable").count() as u64;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| prlimit(Some(process), Resource::Nofile, Rlimit { current, maximum }).expect("set");
    let before = limit(Some(open + 20));
    tally.wait_unready("descriptors_low");
    // Far more than can be accepted; those that say nothing make room for those that do.
    let idle: Vec<_> = (0..100).map(|_| Wire::connect(tally.public)).collect();
    assert_eq!(tally.hit(&goal, GOOD).status, 201);
    assert_eq!(tally.readiness(), (503, vec!["descriptors_low".to_owned()]));
    assert!(tally.metric("tally_http_accept_errors_total") > 0);
    limit(before.current);
    tally.wait_ready();
    drop(idle);
    assert_eq!(tally.hit(&goal, GOOD).status, 201);
    let said = tally.log().matches("no connection can be accepted").count();
    assert!((1..10).contains(&said), "{said} lines");
}

#[test]
fn idle_connections_make_room_for_new_ones() {
    let folder = folder();
    let tally = start_with(&folder, &["--connections-max", "50"]);
    let goal = tally.goal();
    let mut neighbour = Wire::connect_from(NEIGHBOUR, tally.public);
    assert_eq!(neighbour.send(hit(&goal, GOOD)).answer().expect("an answer").status, 201);
    // Some have said nothing yet, some the beginning of a request, some are kept alive.
    let idle: Vec<_> = (0..120)
        .map(|n| {
            let mut wire = Wire::connect(tally.public);
            match n % 3 {
                0 => {}
                1 => {
                    wire.send("POST / HTTP/1.1\r\nHo");
                }
                _ => assert_eq!(wire.send(hit(&goal, GOOD)).answer().expect("an answer").status, 201),
            }
            wire
        })
        .collect();
    assert_eq!(tally.hit(&goal, GOOD).status, 201);
    assert!(tally.metric("tally_http_connections") <= 50);
    assert!(tally.metric("tally_http_connections_shed_total") >= 70);
    // An address within its share has lost nothing to one that is not.
    assert_eq!(neighbour.send(hit(&goal, GOOD)).answer().expect("an answer").status, 201);
    drop((idle, neighbour));
    wait_for("the end of all", || tally.metric("tally_http_connections") == 0);
}

#[test]
fn requests_that_do_not_come_whole_make_room_for_other_callers() {
    let folder = folder();
    let tally = start_with(&folder, &["--connections-max", "20"]);
    let goal = tally.goal();
    let unfinished = |from| {
        let mut wire = Wire::connect_from(from, tally.public);
        let bytes = hit(&goal, GOOD);
        wire.send(&bytes[..bytes.len() - 3]);
        wire
    };
    // Those of one caller take all places, however long this takes, and those of another one come.
    let (mut all, mut others) = (Vec::new(), Vec::new());
    wait_for("room", || {
        all.extend((0..20).map(|_| unfinished(Ipv4Addr::LOCALHOST)));
        others.push(unfinished(NEIGHBOUR));
        tally.metric("tally_http_connections_shed_total{what=\"unfinished\"}") > 0
    });
    let told: Vec<_> = all.iter_mut().filter_map(Wire::answer_by_now).collect();
    let told = told.iter().find(|answer| answer.code() == "overloaded").expect("somebody was told so");
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")));
    // The first one gets no more of them while all are taken; others are served.
    wait_for("a refusal", || {
        all.push(unfinished(Ipv4Addr::LOCALHOST));
        tally.metric("tally_http_connections_refused_total") > 0
    });
    let mut third = Wire::connect_from(Ipv4Addr::new(127, 0, 0, 3), tally.public);
    assert_eq!(third.send(hit(&goal, GOOD)).answer().expect("an answer").status, 201);
}

#[test]
fn an_idle_connection_is_kept_for_as_long_as_was_asked() {
    let folder = folder();
    let tally = start_with(&folder, &["--keep-alive-seconds", "1"]);
    let goal = tally.goal();
    let mut wire = Wire::connect(tally.public);
    assert_eq!(wire.send(hit(&goal, GOOD)).answer().expect("an answer").status, 201);
    assert!(wire.is_ended());
}

#[test]
fn bodies_that_do_not_end_are_bounded_by_their_account() {
    let folder = folder();
    let tally = start_with(&folder, &[]);
    let made = tally.api("POST /api/v1/accounts", r#"{"account":{"name":"other"}}"#).json();
    let other = made["data"]["api_key"].as_str().expect("a key").to_owned();
    let before = rss_bytes(tally.server.pid()).expect("it runs");
    let head = format!(
        "POST /api/v1/clicks HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        tally.api_key(),
        8 * MIB
    );
    let part = vec![b'x'; 4 * MIB];
    let mut wires: Vec<_> = (0..60)
        .map(|_| {
            let mut wire = Wire::connect(tally.public);
            wire.send(&head).send(&part);
            wire
        })
        .collect();
    wait_for("the refusal of all but two", || {
        // One that sends nothing more for long is given up.
        for wire in &mut wires {
            wire.send("x");
        }
        tally.metric("tally_http_bodies_refused_total") == 58
    });
    assert_eq!(tally.metric("tally_http_body_bytes"), 16 * MIB as u64);
    let grown = rss_bytes(tally.server.pid()).expect("it runs").saturating_sub(before);
    assert!(grown < 80 * MIB as u64, "{grown} bytes");
    // Another account has a share of its own, and what is small is free.
    let lines = "{}\n".repeat(8000);
    assert_eq!(tally.api_with(&other, "POST /api/v1/clicks", &lines).status, 200);
    assert_eq!(tally.api("POST /api/v1/clicks", "{}\n{}").status, 200);
    let refused = tally.api("POST /api/v1/clicks", &lines);
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_bodies"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(wires);
    wait_for("all of it back", || tally.metric("tally_http_body_bytes") == 0);
    assert_eq!(tally.api("POST /api/v1/clicks", &lines).status, 200);
}

#[test]
fn bodies_of_strangers_that_do_not_end_are_bounded_by_their_address() {
    let folder = folder();
    let tally = start_with(&folder, &[]);
    let goal = tally.goal();
    let whole = hit(&goal, &format!(r#"{{"value":1,"x":"{}"}}"#, "x".repeat(60 << 10)));
    let part = &whole[..whole.len() - 100];
    let mut wires: Vec<_> = (0..200)
        .map(|_| {
            let mut wire = Wire::connect(tally.public);
            wire.send(part);
            wire
        })
        .collect();
    wait_for("a refusal", || tally.metric("tally_http_bodies_refused_total") > 0);
    assert!(tally.metric("tally_http_body_bytes") <= 4 * MIB as u64);
    let mut refused = None;
    wait_for("its answer", || {
        let told = wires.iter_mut().find_map(Wire::answer_by_now);
        refused = told.filter(|answer| answer.status == 429);
        refused.is_some()
    });
    let refused = refused.expect("there");
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("too_many_bodies", Some("1")));
    assert_eq!(refused.header("connection"), Some("close"), "the rest of the body is not read");
    assert_eq!(tally.hit(&goal, GOOD).status, 201, "what is small is free");
    let mut neighbour = Wire::connect_from(NEIGHBOUR, tally.public);
    assert_eq!(neighbour.send(&whole).answer().expect("an answer").status, 201);
    drop(wires);
    wait_for("all of it back", || tally.metric("tally_http_body_bytes") == 0);
}

fn start_with(folder: &TempDir, flags: &[&str]) -> Tally {
    let flags = [&ALONE[..], flags].concat();
    Tally::start(&folder.path().join("data"), &Start { flags: &flags, ..Start::default() })
}
