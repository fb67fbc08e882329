//! Clicks are kept for as long as the setting says, in every table that holds them.

mod support;

use support::engine::{fresh_database, number};
use tally::core::{
    BatchId, CountedClick,
    rows::{Table, encode_click},
};

#[tokio::test]
async fn the_tables_follow_the_setting() {
    let database = fresh_database().await;
    assert!(database.keep_clicks(400).await.expect("looked at").is_empty(), "as the schema has it");
    assert_eq!(database.keep_clicks(90).await.expect("changed"), ["clicks", "clicks_by_visitor"]);
    assert!(database.keep_clicks(90).await.expect("looked at").is_empty());
    let kept = "SELECT count() FROM system.tables WHERE database = currentDatabase() \
                AND engine_full LIKE '%toIntervalDay(92)%'";
    assert_eq!(number(&database, kept).await, 2);
    database.check().await.expect("safe all the same");
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
