//! Every thread and task of the daemon is ended once: the daemon says which it was, ends in order with exit code 1, and
//! the next start has all that was acknowledged.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use loadtest::request::Goal;
use support::faults::daemon::{NO_CLICKHOUSE, Start, Tally, folder, hit, refusal_in};
use support::faults::wait_for;
use support::faults::wire::Wire;

/// Those that are ended while they run, on a daemon without a database.
const RUNNING: [&str; 11] = [
    "wal-writer",
    "http-0",
    "http-0-acknowledgements",
    "accept",
    "ops-accept",
    "sampler",
    "key-lookups",
    "lease-renewal",
    "part-count",
    "engine-watch",
    "postbacks",
];
/// One that has nothing to do then, and is ended at its start.
const IDLE: &str = "postback-keeper";
/// Those that work only with a database, ended while they run.
const WITH_ENGINE: [&str; 6] =
    ["shipper", "wal-spare", "engine-supervisor", "engine-restarts", "catalog-copy", "filter-snapshot"];
/// Those that read what the engine says, ended at their start.
const AT_ENGINE_START: [&str; 2] = ["engine-stdout", "engine-stderr"];
const ALONE: &[&str] = &["--workers", "1", "--clickhouse-url", NO_CLICKHOUSE];
const EMBEDDED: &[&str] = &["--workers", "1"];

#[test]
fn the_end_of_any_thread_or_task_ends_the_daemon_and_the_log_keeps_all() {
    let site = Folder::new();
    let mut goal = None;
    for name in RUNNING {
        site.disarm();
        let tally = site.start(ALONE);
        let goal: &Goal = goal.get_or_insert_with(|| tally.goal());
        assert!(matches!(tally.hit(goal, &order(name)).status, 201 | 202), "{name}");
        site.arm(name);
        if name == "wal-writer" {
            let answer = Wire::connect(tally.public).send(hit(goal, &order("never written"))).answer();
            assert!(answer.is_none_or(|answer| answer.status == 503), "nothing is acknowledged without it");
        }
        assert_ended_by(name, tally.ended());
    }
    site.arm(IDLE);
    assert_ended_by(IDLE, site.refusal(ALONE));
    site.disarm();
    let tally = site.start(ALONE);
    wait_for("the log", || tally.metric("tally_hits_accepted_total") == RUNNING.len() as u64);
    assert!(tally.stop().success(), "a stop that was asked for is none of these");
}

#[test]
fn nothing_is_lost_or_doubled_when_a_part_that_ships_ends() {
    let site = Folder::new();
    let mut goal = None;
    for name in WITH_ENGINE {
        site.disarm();
        let tally = site.start(EMBEDDED);
        wait_for("the schema", || tally.degraded().is_empty());
        let goal: &Goal = goal.get_or_insert_with(|| tally.goal());
        assert!(matches!(tally.hit(goal, &order(name)).status, 201 | 202), "{name}");
        site.arm(name);
        assert_ended_by(name, tally.ended());
    }
    for name in AT_ENGINE_START {
        site.arm(name);
        assert_ended_by(name, site.refusal(EMBEDDED));
    }
    site.disarm();
    let tally = site.start(EMBEDDED);
    let sql = "SELECT count(), uniqExact(order_id) FROM tally.conversions";
    wait_for("every row", || tally.line(sql) == format!("{0}\t{0}", WITH_ENGINE.len()));
    let audit =
        || Command::new(env!("CARGO_BIN_EXE_tally")).arg("audit").arg("--data-dir").arg(&site.data).status();
    wait_for("an audit without a difference", || audit().expect("it runs").success());
    assert!(tally.stop().success());
}

#[test]
fn a_panic_in_a_connection_ends_that_connection_alone() {
    let site = Folder::new();
    let tally = site.start(ALONE);
    let goal = tally.goal();
    let mut steady = Wire::connect(tally.public);
    assert!(matches!(
        steady.send(hit(&goal, &order("before"))).answer().expect("an answer").status,
        201 | 202
    ));
    site.arm("http-connection");
    assert!(Wire::connect(tally.public).send(hit(&goal, &order("during"))).answer().is_none());
    site.disarm();
    assert!(matches!(tally.hit(&goal, &order("after")).status, 201 | 202));
    assert!(matches!(
        steady.send(hit(&goal, &order("still"))).answer().expect("an answer").status,
        201 | 202
    ));
    assert_eq!(tally.metric("tally_task_panics_total"), 1);
    assert!(tally.log().contains("http-connection"), "{}", tally.log());
    assert!(tally.stop().success());
}

/// A data folder, and the file that says what is to end.
struct Folder {
    _temporary: tempfile::TempDir,
    data: PathBuf,
    failpoint: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let folder = folder();
        let (data, failpoint) = (folder.path().join("data"), folder.path().join("failpoint"));
        Self { _temporary: folder, data, failpoint }
    }

    fn start(&self, flags: &[&str]) -> Tally {
        Tally::start_in(&self.data, &Start { flags, ..Start::default() }, &self.environment())
    }

    /// Of a daemon that ends by itself.
    fn refusal(&self, flags: &[&str]) -> (Option<i32>, String) {
        refusal_in(&self.data, flags, &self.environment())
    }

    fn environment(&self) -> [(&str, &OsStr); 1] {
        [("FAILPOINT_FILE", self.failpoint.as_os_str())]
    }

    fn arm(&self, name: &str) {
        // Seen whole or not at all.
        let beside = self.failpoint.with_extension("new");
        fs::write(&beside, name).expect("written");
        fs::rename(&beside, &self.failpoint).expect("renamed");
    }

    fn disarm(&self) {
        self.arm("");
    }
}

fn assert_ended_by(name: &str, (code, log): (Option<i32>, String)) {
    assert_eq!(code, Some(1), "{name}:\n{log}");
    let told = format!("{name} has ended: it panicked: failpoint");
    assert!(log.contains(&told), "{name} is not named in\n{log}");
    assert!(log.contains("\"stopping\""), "{name}: in order:\n{log}");
}

fn order(id: &str) -> String {
    format!(r#"{{"order_id":"{id}","value":1}}"#)
}
