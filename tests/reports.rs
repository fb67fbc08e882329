//! What the API reads of clicks, attribution and adjustments, on a real ClickHouse.

mod support;

use bytes::Bytes;
use support::engine::{NOVEMBER, conversion, fresh_database, sql};
use tally::clickhouse::{Database, Insert};
use tally::core::rows::{Table, encode_adjustment, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, Basis, BatchId, Campaign, Click,
    ClickId, ClickSource, Conversion, ConversionLookup, ConversionQuery, ConversionReport, CountedAdjustment,
    CountedClick, CountedConversion, Earned, GoalId, LinkId, Measures, Method, Money, RunId,
    StoredConversion, TimeToConvert, Traffic, Unattributed, UnixMillis,
};

const HOUR: i64 = 3_600_000;

async fn insert(database: &Database, table: Table, token: &str, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token, log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

/// A conversion of account 1, and what it owes; `seconds` from a click on link `link`, if any.
fn counted(n: u32, earned: Option<(u32, u32)>) -> CountedConversion {
    let conversion = conversion(n);
    let outcome = earned.map(|(link, seconds)| Earned {
        method: Method::ClickId,
        click_id: ClickId(100 + u64::from(n)),
        link_id: Some(LinkId(link)),
        clicked_at: conversion.converted_at.plus(-i64::from(seconds) * 1000),
        seconds_to_convert: seconds,
        campaign: Campaign { source: "mail".into(), ..Campaign::default() },
        variant: "B".into(),
        labelled: true,
    });
    let outcome = outcome.ok_or(Unattributed::NoVisitor);
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

fn click(n: u64, link: u32, traffic: Traffic) -> CountedClick {
    let at = UnixMillis(NOVEMBER + i64::try_from(n).expect("small") * 1000);
    let click = Click {
        id: ClickId(n),
        account_id: AccountId(1),
        link_id: Some(LinkId(link)),
        key: None,
        clicked_at: at,
        received_at: at,
        source: ClickSource::Redirect,
        traffic,
        campaign: Campaign::default(),
        variant: String::new(),
        subs: std::array::from_fn(|_| String::new()),
        ip: None,
        user_agent: String::new(),
        visitor_key: 1 + n % 5,
        private_address: false,
        unverified: false,
    };
    CountedClick { click, labelled: true }
}

fn adjustment(n: u32, of: &Conversion, kind: AdjustmentKind, value: Option<u64>) -> Adjustment {
    Adjustment {
        id: AdjustmentId(uuid::Uuid::from_u128(n.into())),
        account_id: of.account_id,
        conversion_id: of.id,
        kind,
        value: value.map(|micros| Money::from_micros(micros).expect("fits")),
        key: None,
        reason: "damaged".into(),
        received_at: of.received_at.plus(i64::from(n)),
        unverified: false,
    }
}

fn changed(of: &CountedConversion, adjustment: Adjustment, value: i64, count: i8) -> CountedAdjustment {
    CountedAdjustment {
        goal_id: of.conversion.goal_id,
        currency: of.conversion.currency,
        converted_at: of.conversion.converted_at,
        earned: of.attribution.outcome.clone().ok(),
        net_value_change: value,
        net_conversions_change: count,
        run: RunId(0),
        adjustment,
    }
}

async fn stored(database: &Database, of: &Conversion) -> StoredConversion {
    match database.conversion(of.account_id, of.id).await.expect("answered") {
        ConversionLookup::Counted(stored) => *stored,
        other => panic!("{other:?}"),
    }
}

fn whole_day(goal_id: Option<GoalId>, link_id: Option<LinkId>) -> ConversionQuery {
    ConversionQuery {
        account_id: AccountId(1),
        goal_id,
        link_id,
        basis: Basis::Conversion,
        group_by: None,
        before: UnixMillis(NOVEMBER - 24 * HOUR),
        starts: vec![UnixMillis(NOVEMBER)],
        to: UnixMillis(NOVEMBER + 24 * HOUR),
    }
}

/// How much of the value adjustments took away.
fn lost(measures: &Measures) -> u128 {
    measures.by_currency.values().map(|sums| sums.value.0 - sums.net_value.0).sum()
}

/// Ten conversions: the first four from link 1 after 60, 120, 180 and 240 seconds, the next two from link 2 after an
/// hour, the rest from nowhere. The first is refunded by half, the second rejected.
async fn history(database: &Database) -> Vec<CountedConversion> {
    let conversions: Vec<_> = (0..10)
        .map(|n| {
            counted(
                n,
                match n {
                    0..=3 => Some((1, 60 * (n + 1))),
                    4 | 5 => Some((2, 3600)),
                    _ => None,
                },
            )
        })
        .collect();
    insert_conversions(database, 1, &conversions).await;
    let mut clicks = Vec::new();
    for n in 0..50 {
        let traffic = if n < 40 { Traffic::Human } else { Traffic::Bot };
        encode_click(&click(n, if n % 2 == 0 { 1 } else { 2 }, traffic), BatchId(1), &mut clicks);
    }
    insert(database, Table::Clicks, "k-1", clicks).await;
    let mut rows = Vec::new();
    let (first, second) = (&conversions[0], &conversions[1]);
    let half = adjustment(1, &first.conversion, AdjustmentKind::Refund, Some(5_000_000));
    encode_adjustment(&changed(first, half, -5_000_000, 0), BatchId(1), &mut rows);
    let rejected = adjustment(2, &second.conversion, AdjustmentKind::Reject, None);
    encode_adjustment(&changed(second, rejected, -10_000_002, -1), BatchId(1), &mut rows);
    insert(database, Table::Adjustments, "j-1", rows).await;
    conversions
}

#[tokio::test]
async fn a_conversion_is_read_as_it_was_decided_and_adjusted() {
    let database = fresh_database().await;
    let conversions = history(&database).await;
    for counted in &conversions {
        let stored = stored(&database, &counted.conversion).await;
        assert_eq!(stored.conversion, counted.conversion);
        assert_eq!(stored.attribution, counted.attribution);
        assert_eq!(stored.run, RunId(0));
    }
    let first = stored(&database, &conversions[0].conversion).await;
    assert_eq!(first.adjustments.len(), 1);
    assert_eq!((first.net().value.to_string(), first.net().counts), ("5.000001".into(), true));
    let second = stored(&database, &conversions[1].conversion).await;
    assert_eq!((second.net().value, second.net().counts), (Money::ZERO, false));
}

#[tokio::test]
async fn reports_count_clicks_rates_nets_and_times() {
    let database = fresh_database().await;
    history(&database).await;
    let whole = database.conversion_report(&whole_day(None, None)).await.expect("reported").whole;
    assert_eq!((whole.conversions(), whole.attributed, whole.net_conversions), (10, 6, 9));
    assert_eq!(lost(&whole), 15_000_002);
    assert_eq!((whole.clicks, whole.human_clicks, whole.visitors), (50, 40, 5));
    assert_eq!(whole.converting_visitors, 6, "each named a click of its own");
    assert_eq!(whole.time_to_convert.expect("some").average_seconds, 1300);

    let whole = database.conversion_report(&whole_day(None, Some(LinkId(1)))).await.expect("reported").whole;
    assert_eq!((whole.conversions(), whole.attributed, whole.net_conversions), (4, 4, 3));
    assert_eq!((whole.clicks, whole.human_clicks), (25, 20));
    let times = whole.time_to_convert.expect("some");
    assert_eq!(times, TimeToConvert { average_seconds: 150, median_seconds: 120, p95_seconds: 240 });

    let other = ConversionQuery { account_id: AccountId(2), ..whole_day(None, None) };
    assert_eq!(database.conversion_report(&other).await.expect("reported"), ConversionReport::default());
    let none = database.conversion_report(&whole_day(Some(GoalId(9)), Some(LinkId(9)))).await;
    assert!(none.expect("reported").whole.time_to_convert.is_none());
}

#[tokio::test]
async fn the_run_in_force_is_what_is_read() {
    let database = fresh_database().await;
    let conversions = history(&database).await;
    // Run 1 gives the first conversion to link 2, takes the second's click away, and reaches back to the third.
    let run = "INSERT INTO attributions SELECT * REPLACE (1 AS run_id, 0 AS batch_id, 2 AS link_id, 7 AS candidates) \
               FROM attributions WHERE attributions.link_id = 1 AND seconds_to_convert IN (60, 240)";
    sql(&database).query_raw(run).execute().await.expect("inserted");
    let mark =
        "INSERT INTO attribution_runs VALUES (1, '2026-11-01 00:00:00', 60, 'last', 'done', true, now(), 1)";
    sql(&database).query_raw(mark).execute().await.expect("marked");

    let first = stored(&database, &conversions[0].conversion).await;
    let earned = first.attribution.outcome.expect("attributed");
    assert_eq!((earned.link_id, first.attribution.candidates, first.run), (Some(LinkId(2)), 7, RunId(1)));
    let second = stored(&database, &conversions[1].conversion).await;
    assert_eq!(second.attribution.outcome, Err(Unattributed::OutsideWindow));
    let of_link = async |link| {
        let query = whole_day(None, Some(LinkId(link)));
        let report = database.conversion_report(&query).await.expect("reported");
        (report.whole.conversions(), report.whole.net_conversions, lost(&report.whole))
    };
    assert_eq!(of_link(1).await, (0, 0, 0));
    assert_eq!(of_link(2).await, (2, 2, 5_000_000), "the refund follows its conversion");

    // What came after the run stands beside it.
    let later = CountedConversion { run: RunId(1), ..counted(20, Some((1, 5))) };
    insert_conversions(&database, 2, std::slice::from_ref(&later)).await;
    assert_eq!(of_link(1).await, (1, 1, 0));
    assert_eq!(stored(&database, &later.conversion).await.run, RunId(0));
}

#[tokio::test]
async fn adjusted_conversions_are_found_in_one_look() {
    let database = fresh_database().await;
    let conversions = history(&database).await;
    let mut asked: Vec<_> = conversions.iter().map(|counted| (AccountId(1), counted.conversion.id)).collect();
    asked.push((AccountId(2), conversions[3].conversion.id));
    let found = database.adjusted(&asked).await.expect("answered");
    assert_eq!(found.len(), 10, "another account's is not found");
    for counted in &conversions {
        let found = &found[&(AccountId(1), counted.conversion.id)];
        assert_eq!(found.earned, counted.attribution.outcome.clone().ok());
        assert_eq!((found.value, found.currency), (counted.conversion.value, counted.conversion.currency));
    }
    let first = &found[&(AccountId(1), conversions[0].conversion.id)];
    let refund = adjustment(1, &conversions[0].conversion, AdjustmentKind::Refund, Some(5_000_000));
    assert_eq!(first.adjustments, [refund]);
}
