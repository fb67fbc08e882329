//! Conversions and clicks from the log through the shipper into a real ClickHouse: what earned what, in its tables.

mod support;

use std::{sync::Arc, time::Duration};

use support::{
    engine::{Fresh, NOVEMBER, conversion, fresh_database, number, sql},
    records::click,
};
use tally::{
    clickhouse::{ClickPage, Database, Timeouts, Visitors},
    clock::Clock,
    core::{
        AccountId, BatchId, Campaign, Click, ClickId, Conversion, Kind, Matching, Record, Traffic,
        UnixMillis, payload,
    },
    shipper::{Config, Folder, Shipper, recover},
    wal::{self, Position, Wal},
};
use tokio_util::sync::CancellationToken;

const DAY_MILLIS: i64 = 86_400_000;

/// An hour after everything here.
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
        Self { folder, wal, database: fresh_database().await }
    }

    /// Ships these records, by a shipper that was started for them.
    async fn ship(&self, records: Vec<Record>) {
        // Not more at a time than the log's queue takes.
        for some in records.chunks(500) {
            let (wal, some) = (self.wal.clone(), some.to_vec());
            let append = async move {
                let take = |record: &Record| wal.appender(0).append(|out| payload::encode(record, out));
                some.iter().map(|record| take(record).expect("taken")).collect::<Vec<_>>()
            };
            for ticket in tokio::spawn(append).await.expect("no panic") {
                self.wal.wait(ticket).await.expect("durable");
            }
        }
        let folder = Folder::new(self.folder.path());
        folder.initialise().expect("initialised");
        let ledger = recover(&folder, &self.wal, |_, _| ()).expect("recovered").ledger;
        let database = Database::new(self.database.endpoint().clone(), Timeouts::default());
        let (clock, settled) = (Box::new(Still), Box::new(|_: &[_], _| ()));
        let config = Config { linger: Duration::ZERO, ..Config::default() };
        let shipper =
            Shipper::new(config, folder, self.wal.clone(), database, clock, ledger.clone(), settled);
        // Told to stop from the start, it ships what there is.
        let stop = CancellationToken::new();
        stop.cancel();
        shipper.run(stop).await.expect("no error");
        assert!(Kind::ALL.into_iter().all(|kind| ledger.terms(kind).pending == 0));
    }

    /// Method, click, link, seconds, campaign, variant and candidates of a conversion, from both tables.
    async fn row(&self, n: u32) -> String {
        let id = conversion(n).id;
        let query = format!(
            "SELECT concat(toString(c.attribution_method), ' ', toString(c.attribution_reason), ' ', toString(c.candidates), \
             ' | ', toString(a.method), ' ', toString(a.click_id), ' ', toString(a.link_id), ' ', \
             toString(a.seconds_to_convert), ' ', a.utm_source, ' ', a.variant, ' ', toString(a.labelled)) \
             FROM conversions AS c LEFT JOIN attributions AS a ON a.conversion_id = c.conversion_id AND a.run_id = 0 \
             WHERE c.conversion_id = '{id}'"
        );
        sql(&self.database).query_raw(&query).fetch_one::<String>().await.expect("one row")
    }
}

/// A click of visitor 7, so long before the others.
fn clicked(n: u32, before_millis: i64) -> Click {
    let clicked_at = click(n).received_at.plus(-before_millis);
    Click {
        clicked_at,
        traffic: Traffic::Human,
        visitor_key: 7,
        private_address: false,
        campaign: Campaign { source: format!("source {n} 'ü'"), ..Campaign::default() },
        variant: "B".to_owned(),
        ..click(n)
    }
}

fn converted(n: u32, matching: Matching) -> Conversion {
    Conversion { matching, ..conversion(n) }
}

fn keys(keys: &[u64]) -> Matching {
    Matching::Keys(keys.to_vec())
}

const NONE: &str = "| none 0 0 0   false";

#[tokio::test]
async fn what_earned_what_is_in_the_tables() {
    let rig = Rig::new().await;
    let theirs = Click { account_id: AccountId(2), ..clicked(4, 0) };
    let named = |n, id| Conversion { click_id: Some(ClickId(id)), ..converted(n, keys(&[7])) };
    let id = |n| click(n).id.0;
    rig.ship(vec![
        Record::Click(clicked(1, 20 * DAY_MILLIS)),
        Record::Click(clicked(2, 40 * DAY_MILLIS)),
        Record::Click(Click { visitor_key: 8, ..clicked(3, 31 * DAY_MILLIS) }),
        Record::Click(theirs),
        Record::Click(Click { traffic: Traffic::Bot, ..clicked(5, 0) }),
        Record::Click(Click { private_address: true, visitor_key: 9, ..clicked(6, 0) }),
        // In the same batch as their clicks, which are in memory.
        Record::Conversion(converted(20, keys(&[7]))),
        Record::Conversion(named(21, id(5))),
    ])
    .await;
    // Everything anew: now the clicks are in ClickHouse alone.
    rig.ship(
        [
            converted(30, keys(&[7, 8])),
            named(31, id(1)),
            named(32, id(4)),
            named(33, id(2)),
            converted(34, keys(&[8])),
            converted(35, keys(&[9])),
            converted(36, Matching::PrivateAddress),
            converted(37, Matching::Unknown),
        ]
        .map(Record::Conversion)
        .to_vec(),
    )
    .await;
    // The conversion came this many seconds after the click did, which was so many days old.
    let days = |n: u32, after: u32, days: u32| days * 86_400 + (n - after);
    let by_visitor =
        format!("ip_user_agent  1 | ip_user_agent {} 2 {} source 1 'ü' B true", id(1), days(20, 1, 20));
    assert_eq!(rig.row(20).await, by_visitor);
    assert_eq!(rig.row(21).await, format!("click_id  1 | click_id {} 2 16 source 5 'ü' B true", id(5)));
    assert_eq!(
        rig.row(30).await,
        format!("ip_user_agent  1 | ip_user_agent {} 2 {} source 1 'ü' B true", id(1), days(30, 1, 20))
    );
    assert_eq!(
        rig.row(31).await,
        format!("click_id  1 | click_id {} 2 {} source 1 'ü' B true", id(1), days(31, 1, 20))
    );
    for (n, reason) in [
        (32, "click_not_found"),
        (33, "outside_window"),
        (34, "outside_window"),
        (35, "no_candidate"),
        (36, "private_address"),
        (37, "no_visitor"),
    ] {
        assert_eq!(rig.row(n).await, format!("none {reason} 0 {NONE}"), "{n}");
    }
    assert_eq!(number(&rig.database, "SELECT count() FROM attributions").await, 4);
    let hours = "SELECT sum(conversions) FROM attributed_hourly";
    assert_eq!(number(&rig.database, hours).await, 4);
}

/// What a look-up reads is decided by how many clicks it asks for, not by how many there are.
#[tokio::test]
async fn look_ups_are_pruned_by_the_primary_key() {
    let database = fresh_database().await;
    let fill = "INSERT INTO clicks (click_id, account_id, link_id, clicked_at, received_at, source, traffic, visitor_key, \
                utm_source, labelled) \
                SELECT 1 + number, 1 + number % 20, 1, toDateTime64('2026-11-01 00:00:00', 3, 'UTC') AS at, at, 'api', \
                'human', intHash64(number), 'mail', true FROM numbers(200000)";
    sql(&database).query_raw(fill).execute().await.expect("filled");
    let key = |n: u64| format!("SELECT intHash64({n})");
    let asked = [(5u64, 6u32), (100_000, 1), (199_999, 20)];
    let mut visitors = Vec::new();
    for (n, account) in asked {
        visitors.push((AccountId(account), number(&database, &key(n)).await));
    }
    let (from, to) = (UnixMillis(NOVEMBER - DAY_MILLIS), UnixMillis(NOVEMBER));
    let found =
        database.clicks_of(&Visitors { keys: visitors.as_slice().into(), from, to }).await.expect("found");
    let mut ids: Vec<_> = found.iter().map(|click| (click.click_id.0 - 1, click.account_id.0)).collect();
    ids.sort_unstable();
    assert_eq!(ids, asked);
    assert!(found.iter().all(|click| click.labels.labelled && click.labels.campaign.source == "mail"));
    let named: Vec<_> = asked.iter().map(|(n, account)| (AccountId(*account), ClickId(n + 1))).collect();
    assert_eq!(database.clicks_named(&named).await.expect("found").len(), 3);
    let not_there = Visitors { keys: visitors.as_slice().into(), from, to: from };
    assert_eq!(database.clicks_of(&not_there).await.expect("asked").len(), 0);

    // Two of about 1,600 granules for three visitors in one part, and three of 400 for three clicks.
    for (table, column, values, at_most) in [
        ("clicks_by_visitor", "visitor_key", visitors.iter().map(|(_, key)| *key).collect::<Vec<_>>(), 6),
        ("clicks", "click_id", named.iter().map(|(_, id)| id.0).collect(), 60),
    ] {
        let explain = format!(
            "EXPLAIN ESTIMATE SELECT * FROM {table} WHERE {column} IN arrayConcat({values:?}) AND account_id IN [1, 6, 20]"
        );
        let rows = sql(&database).query_raw(&explain).fetch_all::<(String, String, u64, u64, u64)>().await;
        let marks: u64 = rows.expect("explained").iter().map(|(.., marks)| *marks).sum();
        assert!((1..=at_most).contains(&marks), "{table} reads {marks} granules");
    }
}

/// More than one bound parameter holds.
#[tokio::test]
async fn many_are_found_in_one_question() {
    let rig = Rig::new().await;
    let clicks = (0..20_000).map(|n| Click { visitor_key: 1 + u64::from(n), ..clicked(n, 0) });
    rig.ship(clicks.map(Record::Click).collect()).await;
    let keys: Arc<[_]> = (0..20_000).map(|n| (AccountId(1), 1 + n)).collect();
    let visitors =
        Visitors { keys: (&*keys).into(), from: UnixMillis(0), to: UnixMillis(NOVEMBER + DAY_MILLIS) };
    assert_eq!(rig.database.clicks_of(&visitors).await.expect("found").len(), 20_000);
    let named: Vec<_> = (0..20_000).map(|n| (AccountId(1), click(n).id)).collect();
    assert_eq!(rig.database.clicks_named(&named).await.expect("found").len(), 20_000);
}

/// Whoever keeps a copy reads all of them, a page at a time.
#[tokio::test]
async fn all_clicks_are_read_page_by_page() {
    let database = fresh_database().await;
    let (first, second) = (BatchId(10), BatchId(20));
    for (batch, from) in [(first, 1u64), (second, 1001)] {
        let fill = format!(
            "INSERT INTO clicks (click_id, account_id, link_id, clicked_at, received_at, source, traffic, visitor_key, \
             utm_source, labelled, batch_id) SELECT {from} + number, 1 + number % 7, 1, \
             toDateTime64('2026-10-30 00:00:00', 3, 'UTC') + toIntervalHour(number % 96) AS at, at, 'api', 'bot', number, \
             'mail', true, {} FROM numbers(1000)",
            batch.0
        );
        sql(&database).query_raw(&fill).execute().await.expect("filled");
    }
    let read = async |after: BatchId, through: BatchId| {
        let mut found = Vec::new();
        for month in database.click_months(after, through).await.expect("months") {
            let mut beyond = (AccountId(0), ClickId(u64::MAX));
            loop {
                let page = ClickPage { after, through, month, beyond, limit: 300 };
                let clicks = database.clicks_page(&page).await.expect("a page");
                let Some(last) = clicks.last() else { break };
                beyond = (last.account_id, last.click_id);
                found.extend(clicks);
            }
        }
        found
    };
    let mut all = read(BatchId(0), second).await;
    assert_eq!(database.click_months(BatchId(0), second).await.expect("months"), [202_610, 202_611]);
    assert!(all.iter().all(|click| click.traffic == Traffic::Bot && click.labels.campaign.source == "mail"));
    all.sort_by_key(|click| click.click_id);
    assert_eq!(all.iter().map(|click| click.click_id.0).collect::<Vec<_>>(), (1..=2000).collect::<Vec<_>>());
    let later = read(first, second).await;
    assert!(later.len() == 1000 && later.iter().all(|click| click.click_id.0 > 1000));
    assert!(read(second, BatchId(u64::MAX)).await.is_empty());
    assert_eq!(database.clicks_origin().await.expect("told").len(), 36);
}
