//! Batches of every kind of record on a real engine: sent twice they count once everywhere, and whatever is lost of them
//! is seen and mended, in the raw tables and in everything that the views make of them.

mod support;

use support::{
    engine::{NOVEMBER, fresh_database, number, sql},
    records::{click, content},
};
use tally::clickhouse::{Database, Doubtful, Finding, Insert, Kept, Rollup, SideTable};
use tally::core::{AccountId, BatchId, CountedClick, LinkId, UnixMillis, rows::Table};
use tally::shipper::{Content, Cut, Origin};
use tally::wal::Position;

/// What the views feed.
const SIDE: [(SideTable, &str); 2] =
    [(SideTable::OrderKeys, "order_keys"), (SideTable::ClicksByVisitor, "clicks_by_visitor")];
const ROLLUPS: [(Rollup, &str); 5] = [
    (Rollup::Conversions, "conversions_hourly"),
    (Rollup::Clicks, "clicks_hourly"),
    (Rollup::Attributed, "attributed_hourly"),
    (Rollup::AttributedByClick, "attributed_by_click_hourly"),
    (Rollup::Adjustments, "adjustments_hourly"),
];

/// Everything that is counted, approximate numbers among it: what is made anew must say the same.
const FINGERPRINT: &str = "SELECT sum(cityHash64(n, line)) FROM (
    SELECT 1 AS n, toString((sum(conversions), sum(value), uniqMerge(visitors))) AS line FROM conversions_hourly
    UNION ALL SELECT 2, toString((sum(clicks), sum(human_clicks), uniqMerge(visitors))) FROM clicks_hourly
    UNION ALL SELECT 3, toString((sum(conversions), sum(by_click_id), sum(by_ip_user_agent), sum(value),
        sum(seconds_to_convert), uniqMerge(visitors))) FROM attributed_hourly
    UNION ALL SELECT 4, toString((sum(adjustments), sum(net_value_change), sum(net_conversions_change)))
        FROM adjustments_hourly
    UNION ALL SELECT 5, toString((sum(conversions), sum(value), sum(seconds_to_convert), uniqMerge(visitors)))
        FROM attributed_by_click_hourly
    UNION ALL SELECT 6, toString((count(), sum(cityHash64(*)))) FROM order_keys
    UNION ALL SELECT 7, toString((count(), sum(cityHash64(*)))) FROM clicks_by_visitor)";

fn cut(batch: u64, content: &Content) -> Cut {
    Cut::new(BatchId(batch), None, Origin::Log { from: Position::START, to: Position::START }, content)
}

async fn send(database: &Database, cut: &Cut, generation: u32) {
    for (table, rows) in cut.parts() {
        let token = format!("tally-{}-{}-{generation}", cut.batch_id.0, table.name());
        let insert = Insert { table, token: &token, log_comment: "tally-test", rows };
        database.insert(insert).await.unwrap_or_else(|failure| panic!("{}: {failure}", table.name()));
    }
}

fn doubtful(cut: &Cut) -> Doubtful<'_> {
    Doubtful { batch: cut.batch_id, of: &cut.footprint, kept: Kept::at(UnixMillis(NOVEMBER), 400) }
}

async fn inspect(database: &Database, cut: &Cut) -> Finding {
    database.inspect(doubtful(cut)).await.expect("looked")
}

async fn is_whole(database: &Database, cut: &Cut) -> bool {
    inspect(database, cut).await.is_whole(&cut.footprint)
}

async fn lose(database: &Database, table: &str, condition: &str) {
    let statement = format!("ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2");
    sql(database).query_raw(&statement).execute().await.unwrap_or_else(|error| panic!("{table}: {error}"));
}

#[tokio::test]
async fn a_batch_sent_twice_counts_once_everywhere() {
    let database = fresh_database().await;
    let batch = cut(1, &content(0..1000));
    send(&database, &batch, 0).await;
    let once = number(&database, FINGERPRINT).await;
    for _ in 0..2 {
        send(&database, &batch, 0).await;
    }
    assert_eq!(number(&database, FINGERPRINT).await, once);
    assert!(is_whole(&database, &batch).await, "{:?}", inspect(&database, &batch).await);
    for (query, expected) in [
        ("SELECT count() FROM clicks", 1000),
        ("SELECT count() FROM conversions", 1000),
        ("SELECT count() FROM attributions", 500),
        ("SELECT count() FROM adjustments", 250),
        ("SELECT sum(clicks) FROM clicks_hourly", 1000),
        ("SELECT sum(human_clicks) FROM clicks_hourly", 857),
        ("SELECT sum(conversions) FROM conversions_hourly", 1000),
        ("SELECT sum(conversions) FROM attributed_hourly", 500),
        ("SELECT sum(conversions) FROM attributed_by_click_hourly", 500),
        ("SELECT sum(adjustments) FROM adjustments_hourly", 250),
        ("SELECT uniqMerge(visitors) FROM conversions_hourly", 49),
        ("SELECT count() FROM order_keys WHERE goal_id != 0", 1000),
        ("SELECT count() FROM order_keys WHERE goal_id = 0", 500 + 84),
        ("SELECT uniqExact(utm_source) FROM clicks_hourly", 4),
    ] {
        assert_eq!(number(&database, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn what_the_views_lost_is_seen_and_made_anew() {
    let database = fresh_database().await;
    let (first, second) = (cut(1, &content(0..300)), cut(2, &content(300..900)));
    send(&database, &first, 0).await;
    send(&database, &second, 0).await;
    let whole = number(&database, FINGERPRINT).await;
    for (side, name) in SIDE {
        lose(&database, name, "batch_id = 2 AND _part_offset % 2 = 0").await;
        let found = inspect(&database, &second).await;
        assert!(found.side[side as usize] < second.footprint.side[side as usize], "{name}: {found:?}");
        assert_eq!(database.mend(doubtful(&second), &found).await.expect("mended"), 1, "{name}");
        assert!(is_whole(&database, &second).await, "{name}");
        assert_eq!(number(&database, FINGERPRINT).await, whole, "{name}");
    }
    for (rollup, name) in ROLLUPS {
        // All of it, and some of it; mending twice does no harm.
        for condition in ["1", "_part_offset % 2 = 0"] {
            lose(&database, name, condition).await;
            let found = inspect(&database, &second).await;
            assert!(found.raw_is_whole(&second.footprint));
            assert!(found.groups_off[rollup as usize] > 0, "{name}: {found:?}");
            for batch in [&second, &second, &first] {
                database.mend(doubtful(batch), &found).await.expect("mended");
            }
            assert!(is_whole(&database, &second).await, "{name}");
            assert_eq!(number(&database, FINGERPRINT).await, whole, "{name}");
        }
    }
}

#[tokio::test]
async fn a_batch_of_which_rows_are_lost_is_taken_out_and_sent_anew() {
    let database = fresh_database().await;
    let first = cut(1, &content(0..300));
    send(&database, &first, 0).await;
    let before = number(&database, FINGERPRINT).await;
    let second = cut(2, &content(200..900));
    for (generation, table) in
        (1..).zip([Table::Clicks, Table::Conversions, Table::Attributions, Table::Adjustments])
    {
        send(&database, &second, generation).await;
        assert!(is_whole(&database, &second).await, "{}", table.name());
        lose(&database, table.name(), "batch_id = 2 AND _part_offset % 2 = 0").await;
        assert!(!inspect(&database, &second).await.raw_is_whole(&second.footprint), "{}", table.name());
        database.withdraw(doubtful(&second)).await.expect("withdrawn");
        assert!(inspect(&database, &second).await.is_absent(), "{}", table.name());
        assert_eq!(number(&database, FINGERPRINT).await, before, "{}", table.name());
        assert!(is_whole(&database, &first).await, "{}", table.name());
    }
}

/// Runs of attribution are written by somebody else into the same tables: they are neither held against a batch nor
/// taken out with one.
#[tokio::test]
async fn later_runs_of_attribution_are_left_alone() {
    let database = fresh_database().await;
    let batch = cut(1, &content(0..100));
    send(&database, &batch, 0).await;
    let run = "INSERT INTO attributions SELECT * REPLACE (1 AS run_id, 0 AS batch_id) FROM attributions";
    sql(&database).query_raw(run).execute().await.expect("a run");
    let of_the_run = "SELECT sum(conversions) FROM attributed_hourly WHERE run_id = 1";
    assert_eq!(number(&database, of_the_run).await, 50);
    assert!(is_whole(&database, &batch).await);
    database.withdraw(doubtful(&batch)).await.expect("withdrawn");
    assert_eq!(number(&database, of_the_run).await, 50);
    assert_eq!(number(&database, "SELECT count() FROM attributions").await, 50);
}

/// An import touches more links than fit into one parameter, and thousands of hours.
#[tokio::test]
async fn a_batch_that_touches_very_much_is_looked_at_in_ranges() {
    let database = fresh_database().await;
    let clicks = |numbers: std::ops::Range<u32>| Content {
        clicks: numbers
            .map(|n| {
                let clicked_at = UnixMillis(NOVEMBER - i64::from(n % 9000) * 3_600_000);
                let link_id = Some(LinkId(1_000_000_000 + n));
                let click = tally::core::Click {
                    account_id: AccountId(1 + n % 2),
                    link_id,
                    clicked_at,
                    received_at: UnixMillis(NOVEMBER),
                    key: None,
                    ..click(n)
                };
                CountedClick { click, labelled: true }
            })
            .collect(),
        ..Content::default()
    };
    let batch = cut(1, &clicks(0..20_000));
    send(&database, &batch, 0).await;
    let whole = number(&database, FINGERPRINT).await;
    assert!(is_whole(&database, &batch).await);
    lose(&database, "clicks_hourly", "link_id % 2 = 0").await;
    let found = inspect(&database, &batch).await;
    assert_eq!(found.groups_off[Rollup::Clicks as usize], 10_000);
    database.mend(doubtful(&batch), &found).await.expect("mended");
    assert!(is_whole(&database, &batch).await);
    assert_eq!(number(&database, FINGERPRINT).await, whole);
}

/// Raw clicks go by age, their statistics stay: an hour that has lost raw rows so is not held against them.
#[tokio::test]
async fn hours_whose_raw_rows_went_by_age_are_left_alone() {
    let database = fresh_database().await;
    let batch = cut(1, &content(0..100));
    send(&database, &batch, 0).await;
    let whole = number(&database, "SELECT sum(clicks) FROM clicks_hourly").await;
    lose(&database, "clicks", "1").await;
    lose(&database, "clicks_by_visitor", "1").await;
    let much_later = Kept::at(UnixMillis(NOVEMBER + 500 * 24 * 3_600_000), 400);
    let aged = Doubtful { kept: much_later, ..doubtful(&batch) };
    let found = database.inspect(aged).await.expect("looked");
    assert!(found.is_whole(&batch.footprint), "{found:?}");
    database.withdraw(aged).await.expect("withdrawn");
    assert_eq!(number(&database, "SELECT sum(clicks) FROM clicks_hourly").await, whole);
}

/// A person is erased while a batch is in doubt: that is not a loss, and nothing comes back.
#[tokio::test]
async fn a_person_erased_meanwhile_is_not_missed() {
    let database = fresh_database().await;
    let batch = cut(1, &content(0..100));
    send(&database, &batch, 0).await;
    let blank = "ALTER TABLE clicks UPDATE visitor_key = 0 WHERE visitor_key = 7 SETTINGS mutations_sync = 2";
    sql(&database).query_raw(blank).execute().await.expect("blanked");
    let found = inspect(&database, &batch).await;
    assert!(found.is_whole(&batch.footprint), "the row beside it is not removed yet: {found:?}");
    lose(&database, "clicks_by_visitor", "visitor_key = 7").await;
    assert!(is_whole(&database, &batch).await);
    lose(&database, "clicks_by_visitor", "visitor_key = 8").await;
    let found = inspect(&database, &batch).await;
    assert!(!found.is_whole(&batch.footprint));
    database.mend(doubtful(&batch), &found).await.expect("mended");
    assert!(is_whole(&database, &batch).await);
    assert_eq!(number(&database, "SELECT count() FROM clicks_by_visitor WHERE visitor_key = 7").await, 0);
}
