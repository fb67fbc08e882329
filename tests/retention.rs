//! What has outlived its time is removed by the daemon, by a time that is handed in, and by nothing else.

mod support;

use support::engine::{NOVEMBER, fresh_database, number, sql};
use tally::clickhouse::Expired;
use tally::core::{
    BatchId, CountedClick, Kind, UnixMillis,
    rows::{Table, encode_click},
};

#[tokio::test]
async fn no_table_deletes_by_itself() {
    let database = fresh_database().await;
    let by_itself = "SELECT count() FROM system.tables WHERE database = currentDatabase() \
                     AND (create_table_query LIKE '% TTL %' OR engine_full LIKE '% TTL %')";
    assert_eq!(number(&database, by_itself).await, 0);
    database.check().await.expect("safe all the same");
}

/// Rows of many months, with what stays for ever among them.
#[tokio::test]
async fn what_has_outlived_its_time_is_removed_and_nothing_else() {
    let database = fresh_database().await;
    // A row a day, of some days up to 2026-11-01: few months, since each is a partition to rewrite.
    let ages = "(SELECT arrayJoin(arrayConcat(range(0, 41), range(85, 96), range(395, 411))) AS number)";
    let day = "toDateTime64('2026-11-01 12:00:00', 3, 'UTC') - toIntervalDay(number)";
    for insert in [
        format!(
            "clicks (click_id, account_id, received_at, clicked_at, traffic, visitor_key) \
                 SELECT number + 1, 1, {day}, {day}, 'human', 7 FROM {ages}"
        ),
        format!(
            "rejections (account_id, received_at, conversion_id) \
                 SELECT 1, {day}, if(number % 10 = 0, toUUID('00000000-0000-7000-8000-000000000001'), \
                 toUUID('00000000-0000-0000-0000-000000000000')) FROM {ages}"
        ),
        format!("deliveries (account_id, id, at) SELECT 1, generateUUIDv4(number), {day} FROM {ages}"),
        format!(
            "conversions (account_id, received_at, converted_at, visitor_key, visitor_keys) \
                 SELECT 1, {day}, {day}, 7, [7, 8] FROM {ages}"
        ),
    ] {
        sql(&database).query_raw(&format!("INSERT INTO {insert}")).execute().await.expect("inserted");
    }
    let now = UnixMillis(NOVEMBER + 18 * 3_600_000);
    let rows = |expired: Vec<Expired>| expired.iter().map(|of| (of.table, of.rows)).collect::<Vec<_>>();
    let removed = rows(database.remove_expired(now, 400).await.expect("removed"));
    // A late duplicate, each tenth refusal, stays.
    let wanted = [
        ("clicks", 8),
        ("clicks_by_visitor", 8),
        ("rejections", 19),
        ("deliveries", 21),
        ("conversions", 10),
    ];
    assert_eq!(removed, wanted);
    for (table, left) in [
        ("clicks", 60),
        ("clicks_by_visitor", 60),
        ("rejections", 49),
        ("deliveries", 47),
        ("conversions", 68),
    ] {
        assert_eq!(number(&database, &format!("SELECT count() FROM {table}")).await, left, "{table}");
    }
    assert_eq!(number(&database, "SELECT count() FROM conversions WHERE visitor_key != 0").await, 58);
    assert_eq!(number(&database, "SELECT countIf(notEmpty(visitor_keys)) FROM conversions").await, 58);
    assert_eq!(number(&database, "SELECT sum(clicks) FROM clicks_hourly").await, 68, "statistics stay");
    assert!(rows(database.remove_expired(now, 400).await.expect("again")).iter().all(|(_, rows)| *rows == 0));

    // The audit takes the clicks that went for what they are, and a click that went otherwise for lost.
    let audited = async || {
        let tables = database.count_tables(BatchId(u64::MAX)).await.expect("counted");
        (tables.rows[Kind::Click], database.groups_off().await.expect("compared").len())
    };
    assert_eq!(audited().await.0, 68);
    let lose = "ALTER TABLE clicks DELETE WHERE click_id = 21 SETTINGS mutations_sync = 2";
    sql(&database).query_raw(lose).execute().await.expect("lost");
    let (clicks, off) = audited().await;
    assert!(clicks == 67 && off > 0, "{clicks} clicks, {off} groups");

    // A shorter setting, and whole months that go at once.
    let removed = rows(database.remove_expired(now, 30).await.expect("removed"));
    assert_eq!(removed[0].1, 27);
    assert_eq!(number(&database, "SELECT uniqExact(_partition_id) FROM clicks").await, 3);
}

/// A database of an earlier version, whose tables deleted by themselves: what they may have taken is known.
#[tokio::test]
async fn the_time_to_live_of_an_earlier_version_is_recorded_and_removed() {
    let database = fresh_database().await;
    let client = sql(&database);
    for statement in [
        "INSERT INTO clicks (click_id, account_id, received_at, clicked_at) SELECT number + 1, 1, \
         toDateTime64('2026-11-01 00:00:00', 3, 'UTC') - toIntervalDay(number) AS at, at FROM numbers(10)",
        "TRUNCATE TABLE retention",
        "ALTER TABLE clicks MODIFY TTL toDateTime(received_at) + INTERVAL 92 DAY SETTINGS materialize_ttl_after_modify = 0",
        "ALTER TABLE conversions MODIFY COLUMN visitor_key UInt64 TTL toDateTime(received_at) + INTERVAL 400 DAY \
         SETTINGS materialize_ttl_after_modify = 0",
        "ALTER TABLE schema_migrations DELETE WHERE name = '0008_retention.sql' SETTINGS mutations_sync = 2",
    ] {
        client.query_raw(statement).execute().await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_eq!(database.migrate().await.expect("migrated"), ["0008_retention.sql"]);
    let by_itself = "SELECT count() FROM system.tables WHERE database = currentDatabase() \
                     AND (create_table_query LIKE '% TTL %' OR engine_full LIKE '% TTL %')";
    assert_eq!(number(&database, by_itself).await, 0);
    assert_eq!(number(&database, "SELECT count() FROM clicks").await, 10);
    let border = "SELECT toUInt64(max(removed_before) = toDateTime64('2026-11-01 00:00:00', 3, 'UTC') - toIntervalDay(91)) \
                  FROM retention WHERE table_name = 'clicks'";
    assert_eq!(number(&database, border).await, 1, "by the newest click, not by the server's clock");
}

#[tokio::test]
async fn keys_of_clicks_are_read_back_after_a_batch() {
    let database = fresh_database().await;
    for batch in 1..=2u32 {
        let mut rows = Vec::new();
        for n in 0..10 {
            let click = support::records::click(batch * 100 + n);
            encode_click(&CountedClick { click, labelled: true }, BatchId(batch.into()), &mut rows);
        }
        let token = format!("batch-{batch}");
        let rows = rows.into();
        let insert = tally::clickhouse::Insert {
            table: Table::Clicks,
            token: &token,
            log_comment: "tally-test",
            rows: &rows,
        };
        database.insert(insert).await.expect("inserted");
    }
    let keyed = number(&database, "SELECT count() FROM clicks WHERE batch_id = 2 AND click_key != 0").await;
    let mut seen = Vec::new();
    assert_eq!(database.scan_keys_after(BatchId(1), |key| seen.push(key)).await.expect("scanned"), keyed);
    assert!(keyed > 0 && seen.iter().all(|key| key.0 != 0));
}
