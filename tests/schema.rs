//! The schema on a real engine: exactly once in every table, and refused where it could not be.

mod support;

use bytes::Bytes;
use support::engine::{conversion, fresh_database, sql};
use tally::clickhouse::{CheckError, Database, Insert};
use tally::core::{
    AccountId, Basis, BatchId, CatalogRows, Conversion, ConversionLookup, ConversionQuery, ConversionReport,
    CountedConversion, DedupScope, GoalId, OrderKey, Refusal, RefusalQuery, Row, Source, Unattributed,
    UnixMillis,
    rows::{Table, encode_conversion, encode_rejection},
};

/// Every table that an insert reaches.
const WRITTEN: [&str; 12] = [
    "clicks",
    "conversions",
    "attributions",
    "adjustments",
    "rejections",
    "order_keys",
    "clicks_by_visitor",
    "conversions_hourly",
    "clicks_hourly",
    "attributed_hourly",
    "attributed_by_click_hourly",
    "adjustments_hourly",
];
const VIEWS: [&str; 9] = [
    "order_keys_feed",
    "click_keys_feed",
    "adjustment_keys_feed",
    "clicks_by_visitor_feed",
    "conversions_hourly_feed",
    "clicks_hourly_feed",
    "attributed_hourly_feed",
    "attributed_by_click_hourly_feed",
    "adjustments_hourly_feed",
];

fn rows(batch: u64, conversions: &[Conversion]) -> Bytes {
    let mut bytes = Vec::new();
    for conversion in conversions {
        let counted = CountedConversion::unattributed(conversion.clone(), Unattributed::NoVisitor);
        encode_conversion(&counted, BatchId(batch), &mut bytes);
    }
    bytes.into()
}

async fn insert(database: &Database, token: &str, rows: &Bytes) {
    let insert = Insert { table: Table::Conversions, token, log_comment: "tally-test", rows };
    database.insert(insert).await.expect("inserted");
}

#[tokio::test]
async fn each_missing_setting_is_refused_by_name() {
    let database = fresh_database().await;
    database.check().await.expect("our own schema is safe");
    assert!(database.migrate().await.expect("again").is_empty());
    for table in WRITTEN {
        for setting in [
            "non_replicated_deduplication_window",
            "fsync_after_insert",
            "fsync_part_directory",
            "old_parts_lifetime",
        ] {
            // Reset, a setting would be the default of the server, which may be a safe one.
            let reset = format!("ALTER TABLE {table} MODIFY SETTING {setting} = 0");
            sql(&database).query_raw(&reset).execute().await.expect("reset");
            let Err(CheckError::Unsafe(findings)) = database.check().await else {
                panic!("{table} {setting}")
            };
            let named = format!("table {table}: ");
            assert!(findings.iter().all(|finding| finding.starts_with(&named)), "{findings:?}");
            assert!(findings.iter().any(|finding| finding.contains(setting)), "{findings:?}");
        }
        let set = format!(
            "ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 1000, fsync_after_insert = 1, \
             fsync_part_directory = 1, old_parts_lifetime = 480"
        );
        sql(&database).query_raw(&set).execute().await.expect("set");
        database.check().await.expect("mended");
    }
}

#[tokio::test]
async fn each_missing_or_foreign_view_is_refused_by_name() {
    let database = fresh_database().await;
    let run = async |statement: &str| sql(&database).query_raw(statement).execute().await.expect("run");
    // Somebody's own statistics are part of every insert, too.
    run("CREATE TABLE mine (account_id UInt32, n UInt64) ENGINE = SummingMergeTree ORDER BY account_id")
        .await;
    for source in WRITTEN {
        let create = format!(
            "CREATE MATERIALIZED VIEW my_view TO mine AS SELECT toUInt32(0) AS account_id, count() AS n FROM {source}"
        );
        run(&create).await;
        let Err(CheckError::Unsafe(findings)) = database.check().await else { panic!("{source}") };
        let expected =
            format!("view my_view on {source}: its target needs non_replicated_deduplication_window");
        assert_eq!(findings, [expected]);
        run("DROP TABLE my_view").await;
    }
    let mut missing = Vec::new();
    for view in VIEWS {
        run(&format!("DROP TABLE {view}")).await;
        missing.push(format!("view {view} is missing"));
        let Err(CheckError::Unsafe(mut findings)) = database.check().await else { panic!("{view}") };
        findings.sort();
        missing.sort();
        assert_eq!(findings, missing);
    }
}

#[tokio::test]
async fn no_attempt_is_left_running() {
    let database = fresh_database().await;
    database.stop_attempts("tally-nobody-").await.expect("nothing to stop");
    let slow = sql(&database)
        .with_setting("log_comment", "tally-slow-1-1")
        .with_setting("function_sleep_max_microseconds_per_block", "60000000")
        .query_raw("SELECT count() FROM numbers(100) WHERE sleepEachRow(0.5) = 0 SETTINGS max_block_size = 1")
        .fetch_one::<u64>();
    let slow = tokio::spawn(slow);
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    database.stop_attempts("tally-slow-1-").await.expect("stopped");
    assert!(slow.await.expect("joined").is_err());
}

#[tokio::test]
async fn keys_are_found_in_one_query() {
    let database = fresh_database().await;
    let mut conversions: Vec<_> = (0..6000).map(conversion).collect();
    conversions[5].key = conversions[5].key.map(|(key, _)| (key, DedupScope::Day));
    conversions[6].key = None;
    insert(&database, "batch-1", &rows(1, &conversions)).await;
    let now = conversions[5].received_at.plus(24 * 3600 * 1000);
    let mut asked: Vec<_> =
        conversions.iter().filter_map(|c| c.key.map(|(key, scope)| (c.goal_id, key, scope))).collect();
    asked.push((GoalId(1), OrderKey(u128::MAX), DedupScope::Forever));
    let answers = database.lookup_keys(&asked, now).await.expect("answered");
    assert_eq!(answers.len(), 6000);
    assert_eq!(answers[5999], None);
    assert_eq!(answers[5], None, "a key of a day ends after a day");
    assert_eq!(answers[0].expect("known").conversion_id, conversions[0].id);
    assert_eq!(answers[5998].expect("known").value, conversions[5999].value);
    assert_eq!(answers[5998].expect("known").currency, conversions[5999].currency);
    assert_eq!(answers.iter().flatten().count(), 5998);

    let mut seen = Vec::new();
    assert_eq!(database.scan_keys_after(BatchId(0), |key| seen.push(key)).await.expect("scanned"), 5999);
    assert_eq!(database.count_order_keys().await.expect("counted"), 5999);
    let later = conversion(5000);
    insert(&database, "batch-2", &rows(2, &[later])).await;
    assert_eq!(database.scan_keys_after(BatchId(1), |_| ()).await.expect("scanned"), 1);
    assert_eq!(database.scan_keys_after(BatchId(2), |_| ()).await.expect("scanned"), 0);
}

#[tokio::test]
async fn reports_stay_inside_the_account() {
    let database = fresh_database().await;
    let mut conversions: Vec<_> = (0..100).map(conversion).collect();
    conversions[99].account_id = AccountId(2);
    conversions[99].goal_id = GoalId(9);
    insert(&database, "batch-1", &rows(1, &conversions)).await;
    let query = |account, goal| ConversionQuery {
        account_id: AccountId(account),
        goal_id: goal,
        link_id: None,
        basis: Basis::Conversion,
        group_by: None,
        before: UnixMillis(support::engine::NOVEMBER - 3 * 24 * 3600 * 1000),
        starts: vec![
            UnixMillis(support::engine::NOVEMBER - 24 * 3600 * 1000),
            UnixMillis(support::engine::NOVEMBER),
        ],
        to: UnixMillis(support::engine::NOVEMBER + 24 * 3600 * 1000),
    };
    let report = database.conversion_report(&query(1, None)).await.expect("reported");
    let starts: Vec<_> = report.series.keys().map(|start| start.0).collect();
    assert_eq!(starts, [support::engine::NOVEMBER]);
    assert_eq!(report.whole.conversions(), 99);
    let exact: u64 = conversions[..99].iter().map(|c| c.value.micros()).sum();
    assert_eq!(report.whole.by_currency.values().map(|sums| sums.value.0).sum::<u128>(), u128::from(exact));
    let report = database.conversion_report(&query(2, Some(GoalId(1)))).await.expect("reported");
    assert_eq!(report, ConversionReport::default());

    let counted = database.conversion(AccountId(1), conversions[3].id).await.expect("answered");
    let ConversionLookup::Counted(counted) = counted else { panic!("it counts: {counted:?}") };
    assert_eq!(counted.conversion, conversions[3]);
    assert_eq!(counted.attribution.outcome, Err(Unattributed::NoVisitor));
    let foreign = database.conversion(AccountId(2), conversions[3].id).await.expect("answered");
    assert_eq!(foreign, ConversionLookup::Unknown);
}

#[tokio::test]
async fn rejections_page_newest_first_and_late_duplicates_point_to_the_original() {
    let database = fresh_database().await;
    let at = |n: i64| UnixMillis(support::engine::NOVEMBER + n * 1000);
    let refusals: Vec<_> = (0..30i64)
        .map(|n| Refusal {
            account_id: AccountId(1),
            goal_id: GoalId(1),
            received_at: at(n),
            code: if n == 7 { "duplicate".into() } else { "invalid_value".into() },
            field: "value".into(),
            message: "it's \\ bad".into(),
            order_id: if n == 7 { String::new() } else { format!("O-{n}") },
            conversion_id: (n == 7).then(|| conversion(7).id),
            original_id: (n == 7).then(|| conversion(1).id),
            source: Source::Pixel,
            request: r#"{"body_bytes":7}"#.into(),
        })
        .collect();
    let mut bytes = Vec::new();
    for refusal in &refusals {
        encode_rejection(refusal, BatchId(4), &mut bytes);
    }
    let bytes = Bytes::from(bytes);
    for _ in 0..2 {
        let insert =
            Insert { table: Table::Rejections, token: "r-4", log_comment: "tally-test", rows: &bytes };
        database.insert(insert).await.expect("inserted");
    }
    let mut query = RefusalQuery {
        account_id: AccountId(1),
        goal_id: Some(GoalId(1)),
        code: None,
        page: 2,
        per_page: 20,
    };
    let page = database.refusals(&query).await.expect("answered");
    assert_eq!((page.total, page.refusals.len()), (30, 10));
    assert_eq!(page.refusals[0], refusals[9]);
    query = RefusalQuery { code: Some("duplicate".into()), page: 1, ..query };
    assert_eq!(database.refusals(&query).await.expect("answered").refusals, [refusals[7].clone()]);
    query.account_id = AccountId(2);
    assert_eq!(database.refusals(&query).await.expect("answered").total, 0);
    assert_eq!(
        database.conversion(AccountId(1), conversion(7).id).await.expect("answered"),
        ConversionLookup::Duplicate { goal_id: GoalId(1), received_at: at(7), original: conversion(1).id }
    );
}

#[tokio::test]
async fn the_catalog_comes_back_in_its_newest_version() {
    use tally::core::{
        Account, ApiKey, Campaign, Destination, Goal, GoalType, Link, LinkId, Money, Plan, PostbackToken,
        Variant,
    };
    let database = fresh_database().await;
    assert_eq!(database.load_catalog().await.expect("loaded"), CatalogRows::default());
    let account = Account {
        id: AccountId(1),
        name: "default".into(),
        plan: Plan::Enterprise,
        rate_limit_per_minute: Some(5),
    };
    let key = ApiKey {
        id: 1,
        account_id: AccountId(1),
        name: "first".into(),
        sha256: std::array::from_fn(|n| u8::try_from(n * 8).expect("fits")),
        created_at: UnixMillis(1234),
        revoked: false,
    };
    let goal = Goal {
        id: GoalId(1),
        account_id: AccountId(1),
        name: "Q1 'Sales'".into(),
        goal_type: GoalType::Purchase,
        value: Money::from_micros(99_000_000),
        currency: None,
        attribution_window_days: 30,
        postback_url: Some("https://example.com".into()),
        postback: tally::core::webhook::PostbackSettings::default(),
        trust_client_fields: true,
        postback_token: PostbackToken("token".into()),
        created_at: UnixMillis(1234),
    };
    let destination = |url: &str| Destination::parse(url).expect("a destination");
    let variant = |name: &str, url: Option<&str>| Variant {
        name: name.into(),
        weight: 500,
        destination: url.map(destination),
    };
    let link = Link {
        id: LinkId(7),
        account_id: AccountId(1),
        name: "Winter".into(),
        slug: "winter".into(),
        destination: destination("https://shop.example/?cid={click_id}"),
        variants: vec![variant("A", None), variant("B", Some("https://b.example/"))],
        append_click_id: true,
        campaign: Campaign { source: "mail".into(), content: "ä'".into(), ..Campaign::default() },
        created_at: UnixMillis(1234),
    };
    let mut rows = CatalogRows {
        version: 2,
        accounts: vec![Row { version: 1, deleted: false, entry: account }],
        api_keys: vec![Row { version: 1, deleted: false, entry: key }],
        goals: vec![Row { version: 2, deleted: false, entry: goal }],
        links: vec![Row { version: 2, deleted: true, entry: link }],
    };
    database.save_catalog(&rows).await.expect("saved");
    database.save_catalog(&rows).await.expect("saved again");
    assert_eq!(database.load_catalog().await.expect("loaded"), rows);
    rows.version = 3;
    rows.goals[0].version = 3;
    rows.goals[0].deleted = true;
    let changed = CatalogRows { goals: rows.goals.clone(), ..CatalogRows::default() };
    database.save_catalog(&changed).await.expect("saved");
    assert_eq!(database.load_catalog().await.expect("loaded"), rows);
}
