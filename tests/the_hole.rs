//! The engine writes an insert's token down before it renames the part into place. Killed in between it remembers the
//! token and has no rows: a re-send is answered OK, and that table never gets them. Two layers close the hole, the
//! repair of the engine's deduplication logs before its start, and the shipper's look at every doubtful batch: each is
//! tested by itself, with the engine killed at that very rename, for each table that an insert reaches.

mod support;

use std::collections::BTreeSet;

use loadtest::request::Goal;
use support::faults::daemon::{Start, Tally, folder, hit};
use support::faults::shim::Faults;
use support::faults::wait_for;
use support::faults::wire::Wire;

/// The raw tables and the views' targets.
const TABLES: [&str; 4] = ["conversions", "order_keys", "conversions_hourly", "rejections"];
const HITS: usize = 60;
const REFUSED: usize = 5;

#[test]
fn the_repair_of_the_deduplication_logs_closes_it() {
    let mut world = World::start();
    for table in TABLES {
        world.kill_at_rename(table, 1);
        world.ship_batch();
        assert!(world.was_repaired(), "{table}: the token was there without its rows");
    }
    // Every token was forgotten with its rows, so sending again was enough.
    assert_eq!(world.tally.metric("tally_batches_resent_total"), 0);
    assert_eq!(world.tally.metric("tally_rollups_rebuilt_total"), 0);
    world.assert_killed(TABLES.len());
}

#[test]
fn the_look_at_doubtful_batches_closes_it_without_the_repair() {
    let mut world = World::start();
    world.faults.order("no-repair", "");
    let mended = |world: &World| {
        (world.tally.metric("tally_batches_resent_total"), world.tally.metric("tally_rollups_rebuilt_total"))
    };
    let (mut resent, mut rebuilt) = mended(&world);
    for table in TABLES {
        world.kill_at_rename(table, 1);
        world.ship_batch();
        let (resent_now, rebuilt_now) = mended(&world);
        if matches!(table, "conversions" | "rejections") {
            assert!(resent_now > resent, "{table}: the batch was taken out and sent under a new token");
        } else {
            assert!(rebuilt_now > rebuilt, "{table}: it was made anew from the raw rows");
        }
        (resent, rebuilt) = (resent_now, rebuilt_now);
    }
    world.assert_killed(TABLES.len());
}

#[test]
fn killed_again_while_mending_it_is_mended_all_the_same() {
    let mut world = World::start();
    world.faults.order("no-repair", "");
    // At the rename of the rebuilt rollup, and at that of the raw rows sent anew.
    for table in ["conversions_hourly", "conversions"] {
        world.kill_at_rename(table, 2);
        world.ship_batch();
    }
    world.assert_killed(4);
}

/// A daemon with an engine, and everything that it has acknowledged.
struct World {
    tally: Tally,
    faults: Faults,
    goal: Goal,
    acknowledged: BTreeSet<String>,
    refused: usize,
    sent: usize,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let (folder, faults) = (folder(), Faults::new());
        let start = Start { faults: Some(&faults), ..Start::default() };
        let tally = Tally::start(&folder.path().join("data"), &start);
        let goal = tally.goal();
        let mut world =
            Self { tally, faults, goal, acknowledged: BTreeSet::new(), refused: 0, sent: 0, _folder: folder };
        // The tables are there once a batch is.
        world.ship_batch();
        world
    }

    /// The engine dies at the next rename of an insert's part into that table, so many times.
    fn kill_at_rename(&self, table: &str, times: u32) {
        let sql = format!("SELECT uuid FROM system.tables WHERE database = 'tally' AND name = '{table}'");
        let uuid = self.tally.line(&sql);
        assert_eq!(uuid.len(), 36, "{table} has a folder of its own");
        self.faults.order("kill-at-rename", &format!("{uuid}\n{times}\n"));
    }

    /// Sends hits, waits until the shipper calls them settled, and holds every table against the acknowledgements.
    fn ship_batch(&mut self) {
        let mut wire = Wire::connect(self.tally.public);
        for n in self.sent..self.sent + HITS {
            let json = format!(r#"{{"order_id":"ORDER-{n}","value":"{}.25","currency":"EUR"}}"#, n % 90);
            let answer = wire.send(hit(&self.goal, &json)).answer().expect("an answer");
            assert!(matches!(answer.status, 201 | 202), "{answer:?}");
            assert!(self.acknowledged.insert(answer.conversion_id()));
        }
        for _ in 0..REFUSED {
            let answer = wire.send(hit(&self.goal, r#"{"value":-1}"#)).answer().expect("an answer");
            assert_eq!(answer.status, 422);
        }
        self.sent += HITS;
        self.refused += REFUSED;
        self.faults.wait_gone("kill-at-rename");
        let tally = &self.tally;
        wait_for("the batch's settling", || {
            let count = |name| tally.metric(name);
            count("tally_hits_inserted_total") >= self.sent as u64 && tally.line("SELECT 1") == "1"
        });
        self.assert_exactly_once();
    }

    fn assert_exactly_once(&self) {
        let line = |sql: &str| self.tally.line(sql);
        let sent = self.sent;
        let ids =
            self.tally.clickhouse().lines("SELECT conversion_id FROM tally.conversions").expect("an answer");
        let ids: Vec<String> = ids.map(|id| id.expect("a line")).collect();
        assert_eq!(ids.len(), sent, "rows");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), self.acknowledged);
        let keys = "SELECT count(), uniqExact(order_key), uniqExact(conversion_id) FROM tally.order_keys";
        assert_eq!(line(keys), format!("{sent}\t{sent}\t{sent}"), "keys");
        let raw = line("SELECT count(), sum(value), uniq(visitor_key) FROM tally.conversions");
        let hourly = "SELECT sum(conversions), sum(value), uniqMerge(visitors) FROM tally.conversions_hourly";
        assert_eq!(line(hourly), raw, "hours");
        // What was refused is recorded beside the hits, and may come in the batch after them.
        let refused = self.refused.to_string();
        wait_for("the rejections", || line("SELECT count() FROM tally.rejections") == refused);
    }

    /// Whether the engine's last start repaired a deduplication log.
    fn was_repaired(&self) -> bool {
        let log = self.tally.log();
        let last =
            log.lines().rfind(|line| line.contains("the embedded ClickHouse is up")).expect("it is up");
        let json: serde_json::Value = serde_json::from_str(last).expect("a line of JSON");
        let repaired = json.pointer("/fields/repaired").or_else(|| json.get("repaired"));
        repaired.and_then(serde_json::Value::as_u64).expect("a count") > 0
    }

    fn assert_killed(&self, times: usize) {
        let killed = self.tally.log().matches("the embedded ClickHouse is down").count();
        assert_eq!(killed, times, "the engine died as often as it was told to, and never else");
        let status = self.tally.readiness();
        assert_eq!(status, (200, Vec::new()), "hits were welcome throughout");
    }
}
