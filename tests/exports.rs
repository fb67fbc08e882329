//! Exports, as ClickHouse makes them: every row once, in order, resumable, readable; nothing of another account.

mod support;

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use serde_json::{Value, json};
use support::engine::{Fresh, NOVEMBER, conversion, fresh_database, number, sql};
use support::proxy::{Fault, Proxy};
use tally::clickhouse::{Database, Endpoint, Insert, Timeouts};
use tally::core::rows::{Table, encode_adjustment, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, BatchId, Campaign, Click, ClickId,
    ClickSource, CountedAdjustment, CountedClick, CountedConversion, Earned, ExportFormat, ExportKey,
    ExportKind, ExportQuery, ExportRow, GoalId, LinkId, Method, OrderId, OrderKey, RunId, Traffic,
    Unattributed, UnixMillis,
};

const DAY: i64 = 86_400_000;

async fn insert(database: &Database, table: Table, token: &str, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token, log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

/// The `n`th conversion; every other one is attributed.
fn counted(n: u32) -> CountedConversion {
    let conversion = conversion(n);
    let outcome = if n.is_multiple_of(2) {
        Ok(Earned {
            method: Method::ClickId,
            click_id: ClickId(1000 + u64::from(n)),
            link_id: Some(LinkId(1 + n % 7)),
            clicked_at: conversion.converted_at.plus(-90_000),
            seconds_to_convert: 90,
            campaign: Campaign { source: "mail".into(), ..Campaign::default() },
            variant: "B".into(),
            labelled: true,
        })
    } else {
        Err(Unattributed::NoVisitor)
    };
    let candidates = outcome.is_ok().into();
    CountedConversion { conversion, attribution: Attribution { outcome, candidates }, run: RunId(0) }
}

async fn insert_conversions(database: &Database, batch: u64, conversions: &[CountedConversion]) {
    let (mut raw, mut owed) = (Vec::new(), Vec::new());
    for counted in conversions {
        encode_conversion(counted, BatchId(batch), &mut raw);
        encode_attribution(counted, BatchId(batch), &mut owed);
    }
    insert(database, Table::Conversions, &format!("c-{batch}"), raw).await;
    if !owed.is_empty() {
        insert(database, Table::Attributions, &format!("a-{batch}"), owed).await;
    }
}

fn everything(kind: ExportKind) -> ExportQuery {
    ExportQuery {
        account_id: AccountId(1),
        kind,
        from: UnixMillis(0),
        to: UnixMillis(NOVEMBER + 300 * DAY),
        batch: BatchId(1),
        after: None,
        until: None,
    }
}

/// The file, and how many pieces it came in.
async fn export(database: &Database, query: ExportQuery, format: ExportFormat) -> (Vec<u8>, usize) {
    let mut stream = database.export(query, format);
    let (mut file, mut pieces) = (Vec::new(), 0);
    while let Some(piece) = stream.next().await.expect("exported") {
        pieces += 1;
        file.extend(piece.concat());
    }
    (file, pieces)
}

/// The rows of CSV without text that holds line ends, the header taken off.
fn rows(csv: &[u8], first_column: &str) -> Vec<String> {
    let text = std::str::from_utf8(csv).expect("UTF-8");
    let mut lines = text.lines();
    assert!(lines.next().expect("a header").starts_with(&format!("{first_column},")));
    assert!(text.ends_with('\n'));
    lines.map(str::to_owned).collect()
}

fn first_column(row: &str) -> &str {
    row.split(',').next().expect("a column").trim_matches('"')
}

#[tokio::test]
async fn every_row_is_there_once_and_a_file_that_broke_off_goes_on_after_its_last_row() {
    let database = fresh_database().await;
    let all: Vec<_> = (0..50_000).map(counted).collect();
    let ours: HashSet<String> = all
        .iter()
        .filter(|it| it.conversion.goal_id != GoalId(3))
        .map(|it| it.conversion.id.to_string())
        .collect();
    let mixed: Vec<_> = all
        .into_iter()
        .map(|mut it| {
            // A goal of somebody else's.
            it.conversion.account_id = AccountId(if it.conversion.goal_id == GoalId(3) { 2 } else { 1 });
            it
        })
        .collect();
    insert_conversions(&database, 1, &mixed).await;
    let query = everything(ExportKind::Conversions);
    let (file, pieces) = export(&database, query, ExportFormat::Csv).await;
    let whole = rows(&file, "conversion_id");
    assert!(pieces > 1, "{pieces}");
    let ids: HashSet<String> = whole.iter().map(|row| first_column(row).to_owned()).collect();
    assert!(ids == ours && whole.len() == ours.len(), "{} rows, {} ids", whole.len(), ids.len());
    let order: Vec<_> = whole.iter().map(|row| (row.split(',').nth(1), row.split(',').nth(7))).collect();
    assert!(order.is_sorted(), "by goal and time");
    assert_eq!(whole.iter().filter(|row| row.contains(",\"mail\",")).count(), whole.len() / 2);

    // Rows that come later stand between them, and are not in this export's batches.
    let late: Vec<_> = (50_000..50_010)
        .map(|n| {
            let mut late = counted(n);
            late.conversion.converted_at = UnixMillis(NOVEMBER + i64::from(n));
            late.conversion.goal_id = GoalId(1);
            late
        })
        .collect();
    insert_conversions(&database, 2, &late).await;
    for cut in [1, 12_345, 20_000, whole.len()] {
        let last: uuid::Uuid = first_column(&whole[cut - 1]).parse().expect("an id");
        let row = ExportRow::Conversion(tally::core::ConversionId(last));
        let after = database.export_position(AccountId(1), row).await.expect("answered");
        assert!(matches!(after, Some(ExportKey::Conversion { .. })));
        let (rest, _) = export(&database, ExportQuery { after, ..query }, ExportFormat::Csv).await;
        assert!(rows(&rest, "conversion_id") == whole[cut..], "from row {cut} on");
        let another = database.export_position(AccountId(2), row).await.expect("answered");
        assert_eq!(another, None, "another account's");
    }

    // Pages, and a period.
    let (last, has_more) = database.export_key(&query, 100).await.expect("answered");
    assert!(has_more && last.is_some());
    let (page, _) = export(&database, ExportQuery { until: last, ..query }, ExportFormat::Csv).await;
    assert_eq!(rows(&page, "conversion_id"), whole[..100]);
    let (_, has_more) = database.export_key(&query, whole.len() as u64).await.expect("answered");
    assert!(!has_more);
    let hour =
        ExportQuery { from: UnixMillis(NOVEMBER + 3_600_000), to: UnixMillis(NOVEMBER + 7_200_000), ..query };
    let (file, _) = export(&database, hour, ExportFormat::Ndjson).await;
    assert_eq!(file.split(|byte| *byte == b'\n').count() - 1, 2400, "two of three of 3600");

    a_broken_answer_never_reaches_the_file(&database, query, &whole).await;
    parquet_reads_back(&database, query, whole.len()).await;
}

/// ClickHouse fails at the end of an answer that began well.
async fn a_broken_answer_never_reaches_the_file(database: &Fresh, query: ExportQuery, whole: &[String]) {
    let proxy = Proxy::start(&database.endpoint().url).await;
    let endpoint = Endpoint { url: proxy.url().to_owned(), ..database.endpoint().clone() };
    let proxied = Database::new(endpoint, Timeouts::default());
    let mut stream = proxied.export(query, ExportFormat::Csv);
    let mut file = stream.next().await.expect("exported").expect("rows").concat();
    proxy.set(Fault::ExceptionAfter { format: "CSV", head: b"\"half a row\n" });
    let failed = stream.next().await.expect_err("the exception is seen");
    assert_eq!(failed.class(), "unknown", "{failed}");
    proxy.set(Fault::Pass);
    while let Some(piece) = stream.next().await.expect("exported") {
        file.extend(piece.concat());
    }
    assert!(rows(&file, "conversion_id") == whole, "the same piece, asked for again");
}

/// Several row groups, read by ClickHouse's own reader; and an export without rows is a file too.
async fn parquet_reads_back(database: &Fresh, query: ExportQuery, count: usize) {
    let more: Vec<_> = (60_000..170_000).map(counted).collect();
    insert_conversions(database, 1_000, &more).await;
    let query = ExportQuery { batch: BatchId(1_000), ..query };
    let (file, pieces) = export(database, query, ExportFormat::Parquet).await;
    assert!(pieces > 1 && file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
    let none = ExportQuery { account_id: AccountId(7), ..query };
    let (empty, _) = export(database, none, ExportFormat::Parquet).await;

    let run = |text: &'static str| async move {
        sql(database).query_raw(text).execute().await.expect("ran");
    };
    run("CREATE TABLE back (conversion_id String, goal_id UInt32, order_id Nullable(String), value Decimal(18, 6), \
         net_value Decimal(18, 6), converted_at DateTime64(3, 'UTC'), click_id Nullable(UInt64), \
         utm_source Nullable(String)) ENGINE = MergeTree ORDER BY conversion_id")
    .await;
    for (file, rows) in [(empty, 0), (file, count + 110_000 + 10)] {
        let mut insert = sql(database).insert_formatted_with("INSERT INTO back FORMAT Parquet");
        insert.send(file.into()).await.expect("sent");
        insert.end().await.expect("read back");
        assert_eq!(number(database, "SELECT count() FROM back").await, rows as u64);
    }
    let same = "SELECT count() FROM back AS b JOIN conversions AS c ON toUUID(b.conversion_id) = c.conversion_id \
        WHERE b.goal_id = c.goal_id AND b.order_id = c.order_id AND b.value = c.value AND b.net_value = c.value \
        AND b.converted_at = c.converted_at AND (b.utm_source = 'mail') = (c.attribution_method = 'click_id')";
    let same_rows = number(database, same).await;
    // Of the unattributed ones, `utm_source` is null and compares to nothing.
    let attributed = number(database, "SELECT count() FROM back WHERE click_id IS NOT NULL").await;
    assert_eq!(same_rows, attributed);
    assert_eq!(attributed, number(database, "SELECT countIf(utm_source = 'mail') FROM back").await);
    assert!(attributed > 70_000, "{attributed}");
}

fn adjustment(
    n: u128,
    of: &CountedConversion,
    kind: AdjustmentKind,
    change: i64,
    count: i8,
) -> CountedAdjustment {
    let conversion = &of.conversion;
    CountedAdjustment {
        goal_id: conversion.goal_id,
        currency: conversion.currency,
        converted_at: conversion.converted_at,
        earned: of.attribution.outcome.clone().ok(),
        net_value_change: change,
        net_conversions_change: count,
        run: RunId(0),
        adjustment: Adjustment {
            id: AdjustmentId(uuid::Uuid::from_u128(n)),
            account_id: conversion.account_id,
            conversion_id: conversion.id,
            kind,
            value: None,
            key: None,
            reason: String::new(),
            received_at: conversion.received_at,
            unverified: false,
        },
    }
}

/// The objects of NDJSON by their first column.
fn objects(file: &[u8], key: &str) -> BTreeMap<String, Value> {
    let lines = std::str::from_utf8(file).expect("UTF-8").lines();
    let objects = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    objects.map(|object| (object[key].to_string().trim_matches('"').to_owned(), object)).collect()
}

#[tokio::test]
async fn a_row_says_what_the_api_says_and_no_cell_is_a_formula() {
    let database = fresh_database().await;
    let mut all: Vec<_> = (0..8).map(counted).collect();
    for (it, order) in
        all.iter_mut().zip(["=1+2", "+1", "-1", "@SUM(A1)", "'quoted", "a,\"b\"", "x=1", "\u{2212}1"])
    {
        it.conversion.order_id = OrderId::parse(order).expect("fits");
        it.conversion.goal_id = GoalId(1);
    }
    all[0].conversion.click_id = Some(ClickId(5));
    all[0].conversion.ip = Some("2001:db8::ffff:1:2".parse().expect("an address"));
    all[1].conversion.user_agent = "=cmd|' /C calc'!A0".into();
    all[2].conversion.ip = None;
    insert_conversions(&database, 1, &all).await;
    let mut rows = Vec::new();
    for change in [
        adjustment(1, &all[0], AdjustmentKind::Refund, -4_000_000, 0),
        adjustment(2, &all[0], AdjustmentKind::Refund, -1, 0),
        adjustment(3, &all[1], AdjustmentKind::Reject, -10_000_002, -1),
    ] {
        encode_adjustment(&change, BatchId(1), &mut rows);
    }
    insert(&database, Table::Adjustments, "x-1", rows).await;

    let query = everything(ExportKind::Conversions);
    let (file, _) = export(&database, query, ExportFormat::Ndjson).await;
    let rows = objects(&file, "conversion_id");
    let first = &rows[&all[0].conversion.id.to_string()];
    assert_eq!(
        *first,
        json!({
            "conversion_id": all[0].conversion.id.to_string(), "goal_id": 1, "order_id": "=1+2",
            "value": "10.000001", "net_value": "6", "net_conversions": 1, "currency": "USD",
            "converted_at": "2026-11-01T00:00:00.000Z", "received_at": "2026-11-01T00:00:00.000Z",
            "source": "postback", "named_click_id": 5, "attribution_method": "click_id",
            "attribution_reason": null, "click_id": 1000, "link_id": 1,
            "clicked_at": "2026-10-31T23:58:30.000Z", "seconds_to_convert": 90, "utm_source": "mail",
            "utm_medium": null, "utm_campaign": null, "utm_term": null, "utm_content": null, "variant": "B",
            "ip": "2001:db8::ffff:1:2", "user_agent": "Mozilla/5.0",
        })
    );
    let second = &rows[&all[1].conversion.id.to_string()];
    assert_eq!((&second["net_value"], &second["net_conversions"]), (&json!("0"), &json!(0)));
    assert_eq!((&second["attribution_reason"], &second["click_id"]), (&json!("no_visitor"), &json!(null)));
    assert_eq!((&second["ip"], &second["user_agent"]), (&json!("203.0.113.0"), &json!("=cmd|' /C calc'!A0")));
    assert_eq!(rows[&all[2].conversion.id.to_string()]["ip"], json!(null));

    let (file, _) = export(&database, query, ExportFormat::Csv).await;
    let text = String::from_utf8(file).expect("UTF-8");
    let lines: Vec<_> = text.lines().skip(1).collect();
    for (line, cell) in lines.iter().zip([
        "\"'=1+2\"",
        "\"'+1\"",
        "\"'-1\"",
        "\"'@SUM(A1)\"",
        "\"''quoted\"",
        "\"a,\"\"b\"\"\"",
        "\"x=1\"",
        "\"\u{2212}1\"",
    ]) {
        assert!(line.split_once(",1,").expect("a goal").1.starts_with(&format!("{cell},10.0000")), "{line}");
    }
    assert!(lines[0].ends_with(",\"mail\",,,,,\"B\",\"2001:db8::ffff:1:2\",\"Mozilla/5.0\""), "{}", lines[0]);
    assert!(lines[0].contains(",10.000001,6,1,\"USD\",\"2026-11-01T00:00:00.000Z\","), "{}", lines[0]);
    assert!(lines[1].contains(",0,0,\"EUR\","), "{}", lines[1]);
    assert!(lines[1].ends_with(",\"'=cmd|' /C calc'!A0\""), "{}", lines[1]);
    assert!(lines[2].ends_with(",,\"Mozilla/5.0\""), "{}", lines[2]);

    // A run in force that found nothing says why; one that found another click says so.
    a_later_run_is_what_is_exported(&database, query, &all).await;
}

async fn a_later_run_is_what_is_exported(database: &Fresh, query: ExportQuery, all: &[CountedConversion]) {
    for statement in [
        "INSERT INTO attributions SELECT * REPLACE (1 AS run_id, 77 AS click_id, 0 AS batch_id) FROM attributions \
         WHERE conversion_id = (SELECT conversion_id FROM conversions ORDER BY converted_at LIMIT 1)",
        "INSERT INTO attribution_runs (run_id, since, window_seconds, model, state, current, version) \
         VALUES (1, 0, 60, 'first', 'done', true, 1)",
    ] {
        sql(database).query_raw(statement).execute().await.expect("ran");
    }
    let (file, _) = export(database, query, ExportFormat::Ndjson).await;
    let rows = objects(&file, "conversion_id");
    assert_eq!(rows[&all[0].conversion.id.to_string()]["click_id"], json!(77));
    let lost = &rows[&all[2].conversion.id.to_string()];
    assert_eq!((&lost["click_id"], &lost["attribution_reason"]), (&json!(null), &json!("outside_window")));
}

fn click(id: u64, account: u32, key: Option<u128>) -> CountedClick {
    let at = UnixMillis(NOVEMBER + i64::try_from(id).expect("small") * 10);
    let click = Click {
        id: ClickId(id),
        account_id: AccountId(account),
        link_id: (!id.is_multiple_of(3)).then_some(LinkId(u32::try_from(id % 3).expect("small"))),
        key: key.map(OrderKey),
        clicked_at: at,
        received_at: at,
        source: ClickSource::Api,
        traffic: if id.is_multiple_of(10) { Traffic::Bot } else { Traffic::Human },
        campaign: Campaign { term: "=HYPERLINK(\"x\")".into(), ..Campaign::default() },
        variant: String::new(),
        subs: std::array::from_fn(|n| if n == 4 { "-2".into() } else { String::new() }),
        ip: Some("203.0.113.0".parse().expect("an address")),
        user_agent: "Mozilla/5.0".into(),
        visitor_key: 9,
        private_address: false,
        unverified: false,
    };
    CountedClick { click, labelled: true }
}

#[tokio::test]
async fn clicks_are_exported_by_number() {
    let database = fresh_database().await;
    let mut encoded = Vec::new();
    for id in 1..=45_000 {
        encode_click(&click(id, 1 + u32::from(id % 9 == 0), None), BatchId(1), &mut encoded);
    }
    // A number that was issued, reported by its owner for another click.
    encode_click(&click(20_000, 1, Some(5)), BatchId(1), &mut encoded);
    encode_click(&click(50_000, 1, None), BatchId(2), &mut encoded);
    insert(&database, Table::Clicks, "k-1", encoded).await;
    let query = everything(ExportKind::Clicks);
    let (file, pieces) = export(&database, query, ExportFormat::Csv).await;
    let whole = rows(&file, "click_id");
    let ids: Vec<u64> = whole.iter().map(|row| first_column(row).parse().expect("a number")).collect();
    let mut expected: Vec<u64> = (1..=45_000).filter(|id| id % 9 != 0).chain([20_000]).collect();
    expected.sort_unstable();
    assert!(pieces > 1 && ids == expected);
    assert_eq!(
        whole[0],
        "1,1,\"2026-11-01T00:00:00.010Z\",\"2026-11-01T00:00:00.010Z\",\"api\",\"human\",,,,\
         \"'=HYPERLINK(\"\"x\"\")\",,,,,,,\"'-2\",\"203.0.113.0\",\"Mozilla/5.0\""
    );
    for cut in [1, 20_000, whole.len()] {
        let row = ExportRow::Click(ClickId(ids[cut - 1]));
        let after = database.export_position(AccountId(1), row).await.expect("answered");
        let (rest, _) = export(&database, ExportQuery { after, ..query }, ExportFormat::Csv).await;
        assert!(rows(&rest, "click_id") == whole[cut..], "from row {cut} on");
    }
    let one = ExportQuery { from: UnixMillis(NOVEMBER + 10), to: UnixMillis(NOVEMBER + 11), ..query };
    let (file, _) = export(&database, one, ExportFormat::Ndjson).await;
    let rows = objects(&file, "click_id");
    assert_eq!((rows.len(), &rows["1"]["utm_term"]), (1, &json!("=HYPERLINK(\"x\")")));
    assert_eq!((&rows["1"]["sub1"], &rows["1"]["link_id"]), (&json!(null), &json!(1)));
}
