//! From the log into a real ClickHouse, exactly once, through a network that fails; and the audit of it.

mod support;

use std::{path::Path, time::Duration};

use support::{
    engine::{Fresh, NOVEMBER, conversion, fresh_database, number, sql},
    proxy::{Fault, Proxy},
    records::{adjustment, click},
};
use tally::{
    audit::{Audit, Subject, audit},
    clickhouse::{Database, Endpoint, Timeouts},
    clock::Clock,
    core::{Campaign, Click, Conversion, Kind, LinkId, PerKind, Record, UnixMillis, payload},
    shipper::{Config, Folder, Limits, Shipper, Terms, dead_letters, recover},
    wal::{self, Position, Wal},
};
use tokio_util::sync::CancellationToken;

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(NOVEMBER + 3_600_000)
    }
}

struct Rig {
    folder: tempfile::TempDir,
    wal: Wal,
    database: Fresh,
    proxy: Proxy,
}

impl Rig {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = wal::Config {
            dir: folder.path().join("wal"),
            segment_bytes: 1 << 20,
            spool_bytes_max: 1 << 28,
            disk_free_bytes_min: 0,
            appenders: 1,
        };
        let wal = Wal::open(config, Position::START).expect("the log opens");
        tokio::spawn(wal.appender(0).pump());
        let database = fresh_database().await;
        let proxy = Proxy::start(&database.endpoint().url).await;
        Self { folder, wal, database, proxy }
    }

    async fn append(&self, conversions: impl IntoIterator<Item = Conversion>) {
        self.append_records(conversions.into_iter().map(Record::Conversion)).await;
    }

    async fn append_records(&self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            let wal = self.wal.clone();
            let ticket = tokio::spawn(async move {
                wal.appender(0).append(|out| payload::encode(&record, out)).expect("taken")
            });
            self.wal.wait(ticket.await.expect("no panic")).await.expect("durable");
        }
    }

    /// Ships for as long as it takes to settle everything, through the proxy.
    async fn ship(&self) -> Terms {
        let folder = Folder::new(self.folder.path());
        folder.initialise().expect("initialised");
        let ledger = recover(&folder, &self.wal, |_, _| ()).expect("recovered").ledger;
        let endpoint = Endpoint { url: self.proxy.url().to_owned(), ..self.database.endpoint().clone() };
        let timeouts = Timeouts { insert: Duration::from_secs(2), ..Timeouts::default() };
        let config = Config {
            limits: Limits { rows_max: 200, bytes_max: 1 << 20 },
            linger: Duration::from_millis(10),
            settle: Duration::from_secs(5),
            poll: Duration::from_millis(10),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            ..Config::default()
        };
        let (wal, database) = (self.wal.clone(), Database::new(endpoint, timeouts));
        let shipper =
            Shipper::new(config, folder, wal, database, Box::new(Still), ledger.clone(), Box::new(|_, _| ()));
        let stop = CancellationToken::new();
        let settled = async {
            let folder = Folder::new(self.folder.path());
            while Kind::ALL.into_iter().any(|kind| ledger.terms(kind).pending > 0)
                || !folder.replays().expect("listed").is_empty()
                || has_cuts(self.folder.path())
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stop.cancel();
        };
        let both = async { tokio::join!(shipper.run(stop.clone()), settled) };
        tokio::time::timeout(Duration::from_mins(1), both).await.expect("settles").0.expect("no error");
        ledger.terms(Kind::Conversion)
    }

    async fn audit(&self) -> Audit {
        let wal_dir = self.folder.path().join("wal");
        let (data_dir, database) = (self.folder.path(), &*self.database);
        audit(Subject { data_dir, wal_dir: &wal_dir, segment_bytes: 1 << 20, database, ops: None })
            .await
            .expect("audited")
    }
}

fn has_cuts(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("cuts")).is_ok_and(|mut entries| entries.next().is_some())
}

#[tokio::test]
async fn every_failure_of_the_network_still_counts_once() {
    let rig = Rig::new().await;
    let mut next = 0;
    for fault in [
        Fault::Pass,
        Fault::Refuse,
        Fault::Hang,
        Fault::Error500,
        Fault::TooManyParts,
        Fault::CommitThenHang,
        Fault::CommitThenReset,
    ] {
        rig.append((next..next + 20).map(conversion)).await;
        next += 20;
        rig.proxy.set_times(fault.clone(), 1);
        let terms = rig.ship().await;
        assert_eq!((terms.accepted, terms.inserted), (u64::from(next), u64::from(next)), "{fault:?}");
        let audit = rig.audit().await;
        assert!(audit.is_sound(), "{fault:?}\n{}", audit.table());
    }
    assert_eq!(rig.proxy.failed(), 6);
}

#[tokio::test]
async fn a_refused_row_lies_alone_and_is_replayed() {
    let rig = Rig::new().await;
    let bad = Conversion { user_agent: "marked".into(), ..conversion(7) };
    rig.append((0..7).map(conversion).chain([bad]).chain((8..20).map(conversion))).await;
    rig.proxy.set(Fault::RejectRowsWith(b"marked".to_vec()));
    let terms = rig.ship().await;
    assert_eq!((terms.inserted, terms.dead_lettered, terms.pending), (19, 1, 0));
    let audit = rig.audit().await;
    assert!(audit.is_sound(), "{}", audit.table());
    let folder = Folder::new(rig.folder.path());
    let letters = dead_letters::list(&folder).expect("listed");
    assert_eq!((letters.len(), letters[0].code, &*letters[0].about), (1, Some(469), "ORDER-7"));

    rig.proxy.set(Fault::Pass);
    assert_eq!(dead_letters::replay(&folder, None).expect("moved"), 1);
    let terms = rig.ship().await;
    assert_eq!((terms.accepted, terms.inserted, terms.dead_lettered), (20, 20, 0));
    let audit = rig.audit().await;
    assert!(audit.is_sound(), "{}", audit.table());
}

#[tokio::test]
async fn a_view_that_refuses_leaves_nothing_half_done() {
    let rig = Rig::new().await;
    let refuse = "CREATE MATERIALIZED VIEW strict TO conversions_hourly AS SELECT account_id, goal_id, \
                  toDateTime(toStartOfHour(converted_at), 'UTC') AS hour, currency, count() AS conversions, \
                  sum(value) AS value, uniqState(visitor_key) AS visitors FROM conversions \
                  WHERE throwIf(user_agent = 'marked') != 0 GROUP BY account_id, goal_id, hour, currency";
    sql(&rig.database).query_raw(refuse).execute().await.expect("made");
    let bad = Conversion { user_agent: "marked".into(), ..conversion(3) };
    rig.append((0..3).map(conversion).chain([bad]).chain((4..10).map(conversion))).await;
    let terms = rig.ship().await;
    assert_eq!((terms.inserted, terms.dead_lettered), (9, 1));
    let audit = rig.audit().await;
    assert!(audit.is_sound(), "{}", audit.table());
}

#[tokio::test]
async fn late_duplicates_are_told_and_do_not_count() {
    let rig = Rig::new().await;
    rig.append((0..10).map(conversion)).await;
    rig.ship().await;
    let late = |n: u32, of: u32| Conversion {
        key: conversion(of).key,
        goal_id: conversion(of).goal_id,
        unverified: true,
        ..conversion(n)
    };
    rig.append([late(20, 3), late(21, 50), late(22, 50), Conversion { unverified: true, ..conversion(23) }])
        .await;
    let terms = rig.ship().await;
    assert_eq!((terms.inserted, terms.duplicate), (12, 2));
    let audit = rig.audit().await;
    assert!(audit.is_sound(), "{}", audit.table());
}

#[tokio::test]
async fn the_audit_sees_what_is_missing_or_doubled() {
    let rig = Rig::new().await;
    rig.append((0..50).map(conversion)).await;
    rig.ship().await;
    assert!(rig.audit().await.is_sound());
    assert!(rig.audit().await.json().contains("\"sound\": true"));
    let run = async |statement: &str| {
        let statement = format!("{statement} SETTINGS mutations_sync = 2");
        sql(&rig.database).query_raw(&statement).execute().await.expect("run");
    };
    let wrong = async || -> Vec<String> {
        let audit = rig.audit().await;
        audit.checks.iter().filter(|check| !check.holds()).map(|check| check.what.clone()).collect()
    };
    run("ALTER TABLE order_keys DELETE WHERE goal_id = 1").await;
    assert_eq!(wrong().await.len(), 2, "{:?}", wrong().await);
    run("ALTER TABLE conversions DELETE WHERE goal_id = 1").await;
    let missing =
        ["conversions: rows of settled batches", "conversions_hourly: groups that differ from conversions"];
    assert_eq!(wrong().await, missing);
    sql(&rig.database)
        .with_setting("insert_deduplicate", "0")
        .query_raw("INSERT INTO conversions SELECT * FROM conversions WHERE goal_id = 2 LIMIT 1")
        .execute()
        .await
        .expect("doubled");
    assert_eq!(number(&rig.database, "SELECT count() FROM order_keys WHERE goal_id = 2").await, 18);
    assert!(wrong().await.contains(&"conversions: rows that are there already".to_owned()));
    assert!(wrong().await.contains(&"conversions: rows of orders counted twice".to_owned()));
}

/// The hole: the engine remembers a token whose rows it lost. Here the rows are taken away between an insert whose
/// answer never came and its repetition.
#[tokio::test]
async fn rows_lost_behind_a_known_token_come_back() {
    const CONVERSIONS: [&[&str]; 5] = [
        &["conversions"],
        &["order_keys"],
        &["conversions_hourly"],
        &["conversions", "order_keys", "conversions_hourly"],
        &["conversions WHERE goal_id = 1", "conversions_hourly WHERE goal_id = 2"],
    ];
    const CLICKS: [&[&str]; 5] = [
        &["clicks"],
        &["clicks_by_visitor"],
        &["clicks_hourly"],
        &["clicks", "order_keys", "clicks_by_visitor", "clicks_hourly"],
        &["order_keys", "clicks WHERE link_id = 1", "clicks_hourly WHERE link_id = 2"],
    ];
    const ADJUSTMENTS: [&[&str]; 3] =
        [&["adjustments"], &["order_keys", "adjustments_hourly"], &["adjustments", "adjustments_hourly"]];
    let kind = |kind: Kind, of: &[&'static [&'static str]]| {
        of.iter().map(move |tables| (kind, *tables)).collect::<Vec<_>>()
    };
    let losses = [
        kind(Kind::Conversion, &CONVERSIONS),
        kind(Kind::Click, &CLICKS),
        kind(Kind::Adjustment, &ADJUSTMENTS),
    ];
    let rig = Rig::new().await;
    let mut next = PerKind([0u32; 3]);
    for (kind, tables) in losses.concat() {
        let numbers = next[kind]..next[kind] + 30;
        next[kind] = numbers.end;
        let (records, table): (Vec<_>, _) = match kind {
            Kind::Conversion => (numbers.map(|n| Record::Conversion(conversion(n))).collect(), "conversions"),
            Kind::Click => (numbers.map(|n| Record::Click(click(n))).collect(), "clicks"),
            Kind::Adjustment => {
                (numbers.map(|n| Record::Adjustment(adjustment(n).adjustment)).collect(), "adjustments")
            }
        };
        rig.append_records(records).await;
        rig.proxy.set_times(Fault::CommitThenHang, 1);
        let inserts = rig.proxy.inserts();
        let lose = async {
            while rig.proxy.failed() == 0 || rig.proxy.inserts() == inserts {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // The batch is in, its answer hangs.
            let there = format!("SELECT count() FROM {table}");
            while number(&rig.database, &there).await < u64::from(next[kind]) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let newest = number(&rig.database, &format!("SELECT max(batch_id) FROM {table}")).await;
            for table in tables {
                let (table, condition) = table.split_once(" WHERE ").unwrap_or((table, "1"));
                let condition = if table.ends_with("_hourly") {
                    condition.to_owned()
                } else {
                    format!("{condition} AND batch_id = {newest}")
                };
                let lose =
                    format!("ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2");
                sql(&rig.database).query_raw(&lose).execute().await.expect("lost");
            }
        };
        tokio::join!(rig.ship(), lose);
        let audit = rig.audit().await;
        let terms = audit.terms[kind];
        assert_eq!((terms.inserted, terms.pending), (u64::from(next[kind]), 0), "{tables:?}");
        assert!(audit.is_sound(), "{tables:?}\n{}", audit.table());
    }
}

#[tokio::test]
async fn the_audit_sees_what_the_views_lost() {
    let rig = Rig::new().await;
    rig.append_records((0..60).flat_map(|n| [Record::Click(click(n)), Record::Conversion(conversion(n))]))
        .await;
    rig.ship().await;
    rig.append_records((0..20).map(|n| Record::Adjustment(adjustment(n).adjustment))).await;
    rig.ship().await;
    let audit = rig.audit().await;
    assert!(audit.is_sound(), "{}", audit.table());
    for (table, expected) in [
        ("clicks_by_visitor", &["clicks_by_visitor: rows", "clicks_by_visitor: the same"][..]),
        ("order_keys", &["order_keys: rows", "order_keys: the same"]),
        ("clicks_hourly", &["clicks_hourly: groups"]),
        ("adjustments_hourly", &["adjustments_hourly: groups"]),
        ("clicks", &["clicks: rows", "order_keys: rows", "clicks_by_visitor: rows", "clicks_hourly: groups"]),
        ("adjustments", &["adjustments: rows", "order_keys: rows", "adjustments_hourly: groups"]),
    ] {
        let aside = format!("CREATE TABLE kept AS {table}");
        for statement in [
            &*aside,
            &format!("INSERT INTO kept SELECT * FROM {table}"),
            &format!("ALTER TABLE {table} DELETE WHERE _part_offset % 2 = 0 SETTINGS mutations_sync = 2"),
        ] {
            sql(&rig.database).query_raw(statement).execute().await.expect(statement);
        }
        let audit = rig.audit().await;
        let wrong: Vec<_> =
            audit.checks.iter().filter(|check| !check.holds()).map(|check| &check.what).collect();
        for what in expected {
            assert!(wrong.iter().any(|wrong| wrong.starts_with(what)), "{table}: {what} in {wrong:?}");
        }
        for statement in ["EXCHANGE TABLES kept AND {}", "DROP TABLE kept"] {
            let statement = statement.replace("{}", table);
            sql(&rig.database).query_raw(&statement).execute().await.expect("put back");
        }
        assert!(rig.audit().await.is_sound(), "{table}");
    }
}

/// Whoever follows a public link says what the campaign is: statistics stay small all the same, also across a restart.
#[tokio::test]
async fn made_up_campaigns_do_not_grow_the_statistics() {
    let rig = Rig::new().await;
    let made_up = |n: u32| {
        let campaign = Campaign { source: format!("made-up-{n}"), ..Campaign::default() };
        Record::Click(Click { campaign, variant: String::new(), link_id: Some(LinkId(1)), ..click(n) })
    };
    let honest = |n: u32| {
        let campaign = Campaign { source: "made-up-7".to_owned(), ..Campaign::default() };
        Record::Click(Click { campaign, variant: String::new(), link_id: Some(LinkId(1)), ..click(n) })
    };
    let labels =
        "SELECT uniqExact(link_id, utm_source, utm_medium, utm_campaign, variant) FROM clicks_hourly";
    rig.append_records((0..1200).map(made_up)).await;
    rig.ship().await;
    assert_eq!(number(&rig.database, labels).await, 1200);
    rig.append_records((1200..2600).map(made_up).chain((2600..2610).map(honest))).await;
    rig.ship().await;
    assert_eq!(number(&rig.database, labels).await, 2001, "2,000 and (other)");
    for (query, expected) in [
        ("SELECT uniqExact(utm_source) FROM clicks", 2600),
        ("SELECT sum(clicks) FROM clicks_hourly", 2610),
        ("SELECT sum(clicks) FROM clicks_hourly WHERE utm_source = '(other)'", 600),
        ("SELECT sum(clicks) FROM clicks_hourly WHERE utm_source = 'made-up-7'", 11),
    ] {
        assert_eq!(number(&rig.database, query).await, expected, "{query}");
    }
    let audit = rig.audit().await;
    assert!(audit.is_sound(), "{}", audit.table());
}
