//! A disk without room: refused at the door, said by `/readyz`, and nothing acknowledged is lost.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use loadtest::request::Goal;
use support::faults::daemon::{NO_CLICKHOUSE, Start, Tally, folder};
use support::faults::shim::Faults;
use support::faults::wait_for;
use support::faults::wire::{Response, Wire, request};

/// One segment of the log (64 MiB) fits, a second one does not.
const DISK_BYTES: u64 = 100 << 20;
const SEGMENT_BYTES: u64 = 64 << 20;
/// Hits sent in one go.
const AT_ONCE: usize = 500;

#[test]
fn a_full_disk_refuses_at_the_door_and_takes_hits_again_when_it_has_room() {
    let (folder, faults) = (folder(), Faults::new());
    let disk = Disk::new(folder.path(), &faults);
    let data = disk.path().join("data");
    let start = Start { faults: Some(&faults), flags: &["--clickhouse-url", NO_CLICKHOUSE] };
    let tally = Tally::start(&data, &start);
    let goal = tally.goal();
    // The first segment was made; there is no room for its successor. What has its space already goes on.
    tally.wait_unready("disk_low");
    let mut acknowledged = 0;
    let refused = fill_log(&tally, &goal, &mut acknowledged);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert!(acknowledged * 500 > SEGMENT_BYTES / 2, "the segment was used before that");
    for _ in 0..20 {
        let answer = tally.hit(&goal, r#"{"value":1}"#);
        assert_eq!(answer.status, 503, "the door is shut: {answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert_accepted(&tally, acknowledged);
    assert_eq!(tally.readiness(), (503, vec!["disk_low".to_owned()]));

    // Killed on a full disk, it starts on a full disk, with everything that it promised.
    tally.kill();
    let tally = Tally::start(&data, &start);
    assert_accepted(&tally, acknowledged);
    tally.wait_unready("disk_low");

    disk.make_room();
    tally.wait_ready();
    wait_for("room for a hit", || tally.hit(&goal, r#"{"value":1}"#).status == 201);
    tally.kill();
    let tally = Tally::start(&data, &start);
    assert_accepted(&tally, acknowledged + 1);
}

/// Each 2xx is in the log, and at most those beside that lost their answer with their connection.
fn assert_accepted(tally: &Tally, acknowledged: u64) {
    let accepted = acknowledged..=acknowledged + AT_ONCE as u64;
    // Published once a second.
    let counted = || tally.metric("tally_hits_accepted_total");
    wait_for("the count of accepted hits", || counted() >= acknowledged);
    assert!(accepted.contains(&counted()), "{} of {accepted:?}", counted());
    assert_eq!(tally.metric("tally_hits_pending"), counted());
}

/// Sends hits until one is refused.
fn fill_log(tally: &Tally, goal: &Goal, acknowledged: &mut u64) -> Response {
    let agent = "x".repeat(500);
    let order = "_".repeat(240);
    loop {
        let mut wire = Wire::connect(tally.public);
        let mut requests = Vec::new();
        for n in 0..AT_ONCE as u64 {
            // Large, so that the segment is full soon.
            let json = format!(r#"{{"value":1,"order_id":"{order}{}"}}"#, *acknowledged + n);
            let path = format!("/api/conversions/track/{}", goal.token);
            let headers = [("Content-Type", "application/json"), ("User-Agent", agent.as_str())];
            requests.extend_from_slice(&request(&format!("POST {path}"), &headers, json));
        }
        wire.send(&requests);
        for _ in 0..AT_ONCE {
            let Some(answer) = wire.answer() else { break };
            if answer.status == 503 {
                return answer;
            }
            // 200: kept before, when its connection ended without an answer, for another of its run was lost.
            assert!(matches!(answer.status, 200..=202), "{answer:?}");
            *acknowledged += 1;
        }
    }
}

/// A small disk: a file system in memory, or, where none may be mounted, a folder whose files can't grow on order.
enum Disk<'a> {
    Mounted(PathBuf),
    Ordered(PathBuf, &'a Faults),
}

impl<'a> Disk<'a> {
    fn new(folder: &Path, faults: &'a Faults) -> Self {
        let place = folder.join("disk");
        fs::create_dir(&place).expect("made");
        let size = format!("size={DISK_BYTES}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&place).output();
        if mounted.is_ok_and(|done| done.status.success()) {
            return Self::Mounted(place);
        }
        // Only the second segment: the first one, the catalog and the secret are made as on any disk.
        let log = place.join("data/wal").display().to_string();
        faults.order("no-space", &format!("{log}/segment.new\n{log}/{:020}.wal", 0));
        Self::Ordered(place, faults)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Mounted(place) | Self::Ordered(place, _) => place,
        }
    }

    fn make_room(&self) {
        match self {
            Self::Mounted(place) => {
                let done = Command::new("mount").args(["-o", "remount,size=1g"]).arg(place).status();
                assert!(done.expect("mount is there").success());
            }
            Self::Ordered(_, faults) => faults.end("no-space"),
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        if let Self::Mounted(place) = self {
            // Lazily: the daemon may still be ending.
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}
