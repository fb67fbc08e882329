//! A clock that is wrong, for a while or for good: every acknowledged hit is there once, nothing is deleted for it, and it
//! is said.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use loadtest::request::Goal;
use support::faults::daemon::{Start, Tally, folder, refusal_of};
use support::faults::shim::Faults;
use support::faults::wait_for;
use tally::core::{BatchId, INTEGER_MAX};
use tally::shipper::Folder;

const DAY: i64 = 86_400_000;
/// Jumps of the clock, in days: beyond what batch ids of 53 bits hold, beyond the retention of clicks, and back, to 1970 at
/// last. The unit tests of the rule know more of them.
const JUMPS_DAYS: [i64; 4] = [25_300, 500, -3, -20_700];

/// A daemon with an engine, a goal, and what both were told.
struct Site {
    tally: Tally,
    goal: Goal,
    conversions: u64,
    clicks: u64,
}

impl Site {
    fn start(data: &Path, faults: &Faults) -> Self {
        let tally = start(data, faults);
        tally.wait_ready();
        let goal = tally.goal();
        Self { tally, goal, conversions: 0, clicks: 0 }
    }

    /// Takes some hits of each kind.
    fn hit(&mut self) {
        for _ in 0..5 {
            self.conversions += 1;
            self.clicks += 1;
            let hit = self
                .tally
                .hit(&self.goal, &format!(r#"{{"value":1,"order_id":"ORDER-{}"}}"#, self.conversions));
            // 202 while the filter is still being filled.
            assert!(matches!(hit.status, 201 | 202), "{}", hit.status);
            let click =
                format!(r#"{{"click_id":{},"ip":"203.0.113.7","user_agent":"Mozilla/5.0"}}"#, self.clicks);
            let click = self.tally.api("POST /api/v1/clicks", &click);
            assert!(matches!(click.status, 201 | 202), "{}", click.status);
        }
    }

    fn wait_inserted(&self) {
        wait_for("all rows", || {
            self.count("SELECT count() FROM tally.conversions") == self.conversions
                && self.count("SELECT count() FROM tally.clicks") == self.clicks
        });
    }

    fn count(&self, sql: &str) -> u64 {
        self.tally.line(sql).trim().parse().unwrap_or(0)
    }

    fn wait_believed(&self, believed: u64) {
        wait_for("a look at the clock", || self.tally.metric("tally_clock_believed") == believed);
    }
}

fn start(data: &Path, faults: &Faults) -> Tally {
    Tally::start(data, &Start { flags: &["--settle-seconds", "0"], faults: Some(faults) })
}

fn command(data: &Path, faults: &Faults, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.args(arguments).arg("--data-dir").arg(data).envs(faults.environment());
    command.output().expect("it runs")
}

#[test]
fn hits_under_any_clock_are_there_once_and_nothing_is_deleted() {
    let (folder, faults) = (folder(), Faults::new());
    let data = folder.path().join("data");
    let mut site = Site::start(&data, &faults);
    site.hit();
    site.wait_inserted();
    let keys = fs::read_to_string(data.join("visitor-keys.json")).expect("there");
    for days in JUMPS_DAYS {
        faults.order("clock", &(days * DAY).to_string());
        site.wait_believed(0);
        let ready = site.tally.ops_text("/readyz");
        assert!(ready.contains(r#""status":"ready""#) && ready.contains("clock_implausible"), "{ready}");
        site.hit();
        site.wait_inserted();
        faults.end("clock");
        site.wait_believed(1);
        site.hit();
    }
    site.wait_inserted();
    let far = "SELECT count() FROM tally.clicks WHERE received_at > (SELECT min(received_at) FROM tally.clicks) + INTERVAL 1 HOUR";
    assert_eq!(site.count(far), 0, "hits have the believed time");
    assert_eq!(fs::read_to_string(data.join("visitor-keys.json")).expect("there"), keys);
    let said = site.tally.log();
    let warnings = said.matches("jumped by more than a day and is not believed").count();
    assert_eq!(warnings, JUMPS_DAYS.len(), "once for each");

    // A restart under a wrong clock is no way around.
    faults.order("clock", &(500 * DAY).to_string());
    for table in ["clicks", "clicks_by_visitor", "conversions"] {
        assert_eq!(site.tally.line(&format!("OPTIMIZE TABLE tally.{table} FINAL")), "");
    }
    let Site { tally, goal, conversions, clicks } = site;
    tally.kill();
    let mut site = Site { tally: start(&data, &faults), goal, conversions, clicks };
    site.wait_believed(0);
    site.hit();
    site.wait_inserted();
    let told = command(&data, &faults, &["clock"]);
    assert!(
        !told.status.success() && String::from_utf8_lossy(&told.stdout).contains("not believed"),
        "{told:?}"
    );
    // An operator's word counts.
    assert!(command(&data, &faults, &["clock", "confirm"]).status.success());
    site.wait_believed(1);
    site.hit();
    site.wait_inserted();
    let far = "SELECT count() FROM tally.clicks WHERE received_at > (SELECT min(received_at) FROM tally.clicks) + INTERVAL 400 DAY";
    assert_eq!(site.count(far), 5, "the new time");
    let after: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(data.join("visitor-keys.json")).expect("there"))
            .expect("JSON");
    let before: serde_json::Value = serde_json::from_str(&keys).expect("JSON");
    for (epoch, key) in before["keys"].as_object().expect("keys") {
        assert_eq!(
            &after["keys"][epoch], key,
            "no key is dropped at once, even by a clock that was confirmed"
        );
    }
    let audit = command(&data, &faults, &["audit"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

/// What the build before this one left behind: each batch had the same id, and so the same token.
#[test]
fn a_folder_whose_batch_ids_were_used_up_counts_on() {
    let (folder, faults) = (folder(), Faults::new());
    let data = folder.path().join("data");
    let site = Site::start(&data, &faults);
    let Site { tally, goal, .. } = site;
    assert!(tally.stop().success());
    let shipper = Folder::new(&data);
    let mut checkpoint = shipper.load_checkpoint().expect("there");
    checkpoint.settled = BatchId(INTEGER_MAX);
    shipper.store_checkpoint(&checkpoint).expect("stored");
    fs::write(data.join("click-ids"), format!("{INTEGER_MAX}\n")).expect("written");
    let mut site = Site { tally: start(&data, &faults), goal, conversions: 0, clicks: 0 };
    for _ in 0..3 {
        site.hit();
        site.wait_inserted();
    }
    assert_eq!(
        site.count("SELECT uniqExact(batch_id) FROM tally.conversions WHERE batch_id > 9007199254740991"),
        3
    );
    let audit = command(&data, &faults, &["audit"]);
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn a_new_folder_is_not_begun_at_an_impossible_time() {
    let (folder, faults) = (folder(), Faults::new());
    let data = folder.path().join("data");
    faults.order("clock", &(-20_700 * DAY).to_string());
    let (code, said) = refusal_of(&data, &Start { faults: Some(&faults), ..Start::default() }, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the system's clock says 19") && said.contains("set it"), "{said}");
}
