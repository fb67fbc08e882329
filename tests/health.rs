//! The facts behind `health`, on a real ClickHouse.

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use support::engine::{NOVEMBER, conversion, fresh_database, sql};
use tally::clickhouse::{Database, Insert};
use tally::core::rows::{Table, encode_attribution, encode_click, encode_conversion, encode_rejection};
use tally::core::{
    AccountId, Attribution, AttributionFacts, BatchId, CONFLICT_MESSAGE, Campaign, Click, ClickFacts,
    ClickId, ClickSource, Conversion, CountedClick, CountedConversion, Earned, GoalId, HealthQuery,
    HealthReport, LinkId, Matching, Method, Money, Refusal, RunId, Source, Traffic, Unattributed, UnixMillis,
};

const HOUR: i64 = 3_600_000;

async fn insert(database: &Database, table: Table, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token: "t", log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

/// Goal 1 of account 1 unless `n` is 100 or more: that is account 2's.
fn counted(n: u32, outcome: Result<Method, Unattributed>) -> CountedConversion {
    let conversion = Conversion {
        account_id: AccountId(1 + n / 100),
        goal_id: GoalId(1),
        matching: Matching::Keys(vec![if n < 7 { 5 } else { u64::from(n) }]),
        key: conversion(n).key.filter(|_| n > 2),
        value: if n == 3 { Money::ZERO } else { conversion(n).value },
        source: [Source::Postback, Source::Pixel][n as usize % 2],
        ..conversion(n)
    };
    let earned = |method| Earned {
        method,
        click_id: ClickId(1),
        link_id: Some(LinkId(1)),
        clicked_at: conversion.converted_at,
        seconds_to_convert: 0,
        campaign: Campaign::default(),
        variant: String::new(),
        labelled: true,
    };
    let attribution = Attribution { outcome: outcome.map(earned), candidates: 1 };
    CountedConversion { conversion, attribution, run: RunId(0) }
}

fn refusal(n: i64, account: u32, goal: u32, code: &str, message: &str) -> Refusal {
    Refusal {
        account_id: AccountId(account),
        goal_id: GoalId(goal),
        received_at: UnixMillis(NOVEMBER + n * 1000),
        code: code.into(),
        field: String::new(),
        message: message.into(),
        order_id: n.to_string(),
        conversion_id: None,
        original_id: None,
        source: Source::Pixel,
        request: r#"{"body_bytes":7}"#.into(),
    }
}

fn click(n: u64, account: u32, link: Option<u32>, traffic: Traffic) -> CountedClick {
    let click = Click {
        id: ClickId(n),
        account_id: AccountId(account),
        link_id: link.map(LinkId),
        key: None,
        clicked_at: UnixMillis(NOVEMBER),
        received_at: UnixMillis(NOVEMBER),
        source: ClickSource::Api,
        traffic,
        campaign: Campaign::default(),
        variant: String::new(),
        subs: std::array::from_fn(|_| String::new()),
        ip: None,
        user_agent: String::new(),
        visitor_key: n,
        private_address: false,
        unverified: false,
    };
    CountedClick { click, labelled: true }
}

fn asked(account: u32, goal: Option<u32>) -> HealthQuery {
    HealthQuery {
        account_id: AccountId(account),
        goal_id: goal.map(GoalId),
        from: UnixMillis(NOVEMBER),
        to: UnixMillis(NOVEMBER + 24 * HOUR),
    }
}

async fn history(database: &Database) {
    let outcomes = [
        Ok(Method::ClickId),
        Ok(Method::IpUserAgent),
        Ok(Method::ClickId),
        Err(Unattributed::ClickNotFound),
        Err(Unattributed::ClickNotFound),
        Err(Unattributed::OutsideWindow),
        Err(Unattributed::NoCandidate),
        Err(Unattributed::NoVisitor),
        Err(Unattributed::PrivateAddress),
        Err(Unattributed::AfterConversion),
    ];
    let (mut raw, mut owed, mut refused, mut clicks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (n, outcome) in (0..).zip(outcomes).chain([(100, Ok(Method::ClickId))]) {
        encode_conversion(&counted(n, outcome), BatchId(1), &mut raw);
        encode_attribution(&counted(n, outcome), BatchId(1), &mut owed);
    }
    for n in 0..5 {
        encode_rejection(&refusal(n, 1, 1, "invalid_value", "m"), BatchId(1), &mut refused);
    }
    encode_rejection(&refusal(7, 1, 1, "duplicate", "Reported before."), BatchId(1), &mut refused);
    encode_rejection(&refusal(8, 1, 1, "duplicate", CONFLICT_MESSAGE), BatchId(1), &mut refused);
    encode_rejection(&refusal(9, 1, 2, "rate_limited", "m"), BatchId(1), &mut refused);
    // A late duplicate among clicks belongs to no goal; what is older to no period; what is another's to nobody here.
    encode_rejection(&refusal(10, 1, 0, "duplicate", "m"), BatchId(1), &mut refused);
    encode_rejection(&refusal(24 * 3600, 1, 1, "invalid_value", "m"), BatchId(1), &mut refused);
    encode_rejection(&refusal(11, 2, 1, "unexpanded_macro", "m"), BatchId(1), &mut refused);
    for (n, link, traffic) in [
        (1, Some(1), Traffic::Human),
        (2, None, Traffic::Human),
        (3, Some(1), Traffic::Bot),
        (4, None, Traffic::Prefetch),
    ] {
        encode_click(&click(n, 1, link, traffic), BatchId(1), &mut clicks);
    }
    encode_click(&click(5, 2, Some(2), Traffic::Human), BatchId(1), &mut clicks);
    insert(database, Table::Conversions, raw).await;
    insert(database, Table::Attributions, owed).await;
    insert(database, Table::Rejections, refused).await;
    insert(database, Table::Clicks, clicks).await;
}

fn reasons(of: &HealthReport) -> Vec<(&'static str, u64)> {
    of.attribution.unattributed.iter().map(|(reason, count)| (*reason, *count)).collect()
}

#[tokio::test]
async fn what_came_was_refused_and_was_attributed_is_counted() {
    let database = fresh_database().await;
    history(&database).await;
    let report = database.health(&asked(1, Some(1))).await.expect("answered");
    let facts = report.conversions;
    assert_eq!((facts.count, facts.by_postback, facts.by_pixel, facts.by_api), (10, 5, 5, 0));
    assert_eq!(facts.last_received_at, Some(UnixMillis(NOVEMBER + 9000)));
    assert_eq!((facts.without_order_id, facts.without_value, facts.of_one_visitor), (3, 1, 7));
    assert_eq!((report.attribution.by_click_id, report.attribution.by_ip_user_agent), (2, 1));
    assert_eq!(
        reasons(&report),
        [
            ("click_after_conversion", 1),
            ("click_not_found", 2),
            ("no_candidate", 1),
            ("no_visitor", 1),
            ("outside_window", 1),
            ("private_address", 1),
        ]
    );
    let refused: Vec<_> =
        report.refused.iter().map(|of| (&*of.code, of.count, of.conflicts, of.examples.len())).collect();
    assert_eq!(refused, [("invalid_value", 5, 0, 3), ("duplicate", 2, 1, 2)]);
    let latest: Vec<_> = report.refused[0].examples.iter().map(|example| &*example.order_id).collect();
    assert_eq!(latest, ["4", "3", "2"], "the latest, newest first");
    assert_eq!(report.refused[0].examples[0], refusal(4, 1, 1, "invalid_value", "m"));
    assert_eq!(report.clicks, ClickFacts { count: 4, human: 2, without_link: 2 });

    let all = database.health(&asked(1, None)).await.expect("answered");
    assert_eq!(all.refused.len(), 3, "other goals' too");
    let other = database.health(&asked(2, Some(1))).await.expect("answered");
    assert_eq!((other.conversions.count, other.clicks.count), (1, 1));
    assert_eq!(other.refused.iter().map(|of| &*of.code).collect::<Vec<_>>(), ["unexpanded_macro"]);
    let nobody = database.health(&asked(3, Some(1))).await.expect("answered");
    assert_eq!(nobody, HealthReport::default());

    // A run takes the clicks of two conversions away, and leaves a third one its own.
    let run = "INSERT INTO attributions SELECT * REPLACE (1 AS run_id, 0 AS batch_id) FROM attributions \
               WHERE account_id = 1 AND method = 'ip_user_agent'";
    sql(&database).query_raw(run).execute().await.expect("inserted");
    let mark =
        "INSERT INTO attribution_runs VALUES (1, '2026-10-01 00:00:00', 60, 'last', 'done', true, now(), 1)";
    sql(&database).query_raw(mark).execute().await.expect("marked");
    let report = database.health(&asked(1, Some(1))).await.expect("answered");
    let outside = BTreeMap::from_iter(reasons(&report));
    assert_eq!(outside["outside_window"], 3, "the window of the run");
    assert_eq!(
        report.attribution,
        AttributionFacts { by_click_id: 0, by_ip_user_agent: 1, unattributed: outside }
    );
}
