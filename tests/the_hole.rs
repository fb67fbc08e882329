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
use support::faults::wire::{Wire, ask, request};

/// The raw tables and
const RAW: [&str; 5] = ["clicks", "conversions", "attributions", "adjustments", "rejections"];
/// the views' targets.
const DERIVED: [&str; 7] = [
    "order_keys",
    "clicks_by_visitor",
    "conversions_hourly",
    "clicks_hourly",
    "attributed_hourly",
    "attributed_by_click_hourly",
    "adjustments_hourly",
];
/// Clicks of a batch, and as many conversions that they earn.
const HITS: usize = 40;
/// Adjustments of a batch, of conversions of the one before.
const ADJUSTED: usize = 20;
const REFUSED: usize = 5;
const JSON: &str = "application/json";

#[test]
fn the_repair_of_the_deduplication_logs_closes_it() {
    let mut world = World::start();
    for table in RAW.into_iter().chain(DERIVED) {
        world.kill_at_rename(table, 1);
        world.ship_batch();
        assert!(world.was_repaired(), "{table}: the token was there without its rows");
    }
    // Every token was forgotten with its rows, so sending again was enough.
    assert_eq!(world.tally.metric("tally_batches_resent_total"), 0);
    assert_eq!(world.tally.metric("tally_rollups_rebuilt_total"), 0);
    world.assert_killed(RAW.len() + DERIVED.len());
}

#[test]
fn the_look_at_doubtful_batches_closes_it_without_the_repair() {
    let mut world = World::start();
    world.faults.order("no-repair", "");
    let mended = |world: &World| {
        (world.tally.metric("tally_batches_resent_total"), world.tally.metric("tally_rollups_rebuilt_total"))
    };
    let (mut resent, mut rebuilt) = mended(&world);
    for table in RAW.into_iter().chain(DERIVED) {
        world.kill_at_rename(table, 1);
        world.ship_batch();
        let (resent_now, rebuilt_now) = mended(&world);
        if RAW.contains(&table) {
            assert!(resent_now > resent, "{table}: the batch was taken out and sent under a new token");
        } else {
            assert!(rebuilt_now > rebuilt, "{table}: it was made anew from the raw rows");
        }
        (resent, rebuilt) = (resent_now, rebuilt_now);
    }
    world.assert_killed(RAW.len() + DERIVED.len());
}

#[test]
fn killed_again_while_mending_it_is_mended_all_the_same() {
    let mut world = World::start();
    world.faults.order("no-repair", "");
    // At the rename of the rebuilt rollup, and at that of the raw rows sent anew.
    for table in ["attributed_hourly", "clicks"] {
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
    key: String,
    acknowledged: BTreeSet<String>,
    /// Those of the last batch.
    newest: Vec<String>,
    refused: usize,
    sent: usize,
    adjusted: usize,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let (folder, faults) = (folder(), Faults::new());
        let start = Start { faults: Some(&faults), ..Start::default() };
        let tally = Tally::start(&folder.path().join("data"), &start);
        let goal = tally.goal();
        let key = format!("Bearer {}", tally.api_key());
        let mut world = Self {
            tally,
            faults,
            goal,
            key,
            acknowledged: BTreeSet::new(),
            newest: Vec::new(),
            refused: 0,
            sent: 0,
            adjusted: 0,
            _folder: folder,
        };
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

    /// Sends clicks, what they earn and what becomes of it, waits until the shipper calls all of it settled, and holds
    /// every table against the acknowledgements.
    fn ship_batch(&mut self) {
        let mut wire = Wire::connect(self.tally.public);
        // While the engine is on its way back, what adjusts a conversion is asked to come again.
        let before: Vec<_> = self.newest.drain(..).take(ADJUSTED).collect();
        for id in &before {
            self.adjust(id);
        }
        self.adjusted += before.len();
        for n in self.sent..self.sent + HITS {
            let (click, visitor) = (n + 1, n % 7);
            let json = format!(
                r#"{{"click_id":{click},"ip":"203.0.113.{visitor}","user_agent":"Mozilla/5.0","utm_source":"s{visitor}"}}"#
            );
            let answer =
                wire.send(self.authorized("POST /api/v1/clicks", &json)).answer().expect("an answer");
            assert!(matches!(answer.status, 201 | 202), "{answer:?}");
            let json = format!(
                r#"{{"order_id":"ORDER-{n}","value":"{}.25","currency":"EUR","click_id":{click}}}"#,
                n % 90
            );
            let answer = wire.send(hit(&self.goal, &json)).answer().expect("an answer");
            assert!(matches!(answer.status, 201 | 202), "{answer:?}");
            self.newest.push(answer.conversion_id());
        }
        for _ in 0..REFUSED {
            let answer = wire.send(hit(&self.goal, r#"{"value":-1}"#)).answer().expect("an answer");
            assert_eq!(answer.status, 422);
        }
        self.sent += HITS;
        self.refused += REFUSED;
        self.acknowledged.extend(self.newest.iter().cloned());
        self.faults.wait_gone("kill-at-rename");
        let (tally, all) = (&self.tally, (2 * self.sent + self.adjusted) as u64);
        wait_for("the batch's settling", || {
            tally.metric("tally_hits_inserted_total") >= all && tally.line("SELECT 1") == "1"
        });
        self.assert_exactly_once();
    }

    fn adjust(&self, conversion: &str) {
        let path = format!("POST /api/v1/conversions/{conversion}/adjustments");
        let json = r#"{"adjustment":{"type":"refund","value":"0.10","reason":"came back"}}"#;
        wait_for("an adjustment", || {
            let key = [("Idempotency-Key", conversion)];
            let answer = ask(self.tally.public, self.authorized_with(&path, &key, json));
            match answer.status {
                // New, not told yet, or taken by an earlier try.
                200..=202 => true,
                503 => false,
                _ => panic!("{answer:?}"),
            }
        });
    }

    fn authorized(&self, line: &str, json: &str) -> Vec<u8> {
        self.authorized_with(line, &[], json)
    }

    fn authorized_with(&self, line: &str, more: &[(&str, &str)], json: &str) -> Vec<u8> {
        let mut headers = vec![("Content-Type", JSON), ("Authorization", self.key.as_str())];
        headers.extend(more);
        request(line, &headers, json)
    }

    fn assert_exactly_once(&self) {
        let line = |sql: &str| self.tally.line(sql);
        let (sent, adjusted) = (self.sent, self.adjusted);
        let ids =
            self.tally.clickhouse().lines("SELECT conversion_id FROM tally.conversions").expect("an answer");
        let ids: Vec<String> = ids.map(|id| id.expect("a line")).collect();
        assert_eq!(ids.len(), sent, "rows");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), self.acknowledged);
        for (table, id, rows) in [
            ("clicks", "click_id", sent),
            ("clicks_by_visitor", "click_id", sent),
            ("attributions", "conversion_id", sent),
            ("adjustments", "conversion_id", adjusted),
            ("order_keys", "order_key", 2 * sent + adjusted),
        ] {
            let sql = format!("SELECT count(), uniqExact({id}) FROM tally.{table}");
            assert_eq!(line(&sql), format!("{rows}\t{rows}"), "{table}");
        }
        for (raw, hourly) in [
            (
                "SELECT count(), sum(value), uniq(visitor_key) FROM tally.conversions",
                "SELECT sum(conversions), sum(value), uniqMerge(visitors) FROM tally.conversions_hourly",
            ),
            (
                "SELECT count(), count(), uniq(visitor_key) FROM tally.clicks",
                "SELECT sum(clicks), sum(human_clicks), uniqMerge(visitors) FROM tally.clicks_hourly",
            ),
            (
                "SELECT count(), count(), sum(value), sum(seconds_to_convert) FROM tally.attributions",
                "SELECT sum(conversions), sum(by_click_id), sum(value), sum(seconds_to_convert) FROM tally.attributed_hourly",
            ),
            (
                "SELECT count(), sum(value), sum(seconds_to_convert) FROM tally.attributions",
                "SELECT sum(conversions), sum(value), sum(seconds_to_convert) FROM tally.attributed_by_click_hourly",
            ),
            (
                "SELECT count(), sum(net_value_change) FROM tally.adjustments",
                "SELECT sum(adjustments), sum(net_value_change) FROM tally.adjustments_hourly",
            ),
        ] {
            assert_eq!(line(hourly), line(raw), "{hourly}");
        }
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
        self.assert_audited();
    }

    /// The audit agrees, and so do the daemon's metrics.
    fn assert_audited(&self) {
        let mut audit = std::process::Command::new(env!("CARGO_BIN_EXE_tally"));
        audit.arg("audit").arg("--data-dir").arg(&self.tally.data_dir);
        let output =
            audit.args(["--ops-url", &format!("http://{}", self.tally.ops)]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        for kind in ["conversions", "clicks", "adjustments"] {
            assert!(said.contains(&format!("metrics: {kind} inserted")), "{said}");
        }
    }
}
