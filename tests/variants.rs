//! A/B variants on a real ClickHouse: whose clicks converted, by which run, and in which period.

mod support;

use bytes::Bytes;
use support::engine::{conversion, fresh_database, sql};
use tally::clickhouse::{Database, Insert};
use tally::core::rows::{Table, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, Attribution, BatchId, Campaign, Click, ClickId, ClickSource, Conversion, CountedClick,
    CountedConversion, Currency, Earned, GoalId, LinkId, Method, MoneySum, RunId, Traffic, UnixMillis,
    VariantCounts, VariantQuery,
};

const HOUR: i64 = 3_600_000;
const START: i64 = support::engine::NOVEMBER;

/// A click of account `account`, `hour` hours after the start; its number says which.
struct Clicked {
    n: u64,
    account: u32,
    hour: i64,
    variant: &'static str,
    traffic: Traffic,
    labelled: bool,
}

const CLICK: Clicked =
    Clicked { n: 0, account: 1, hour: 0, variant: "A", traffic: Traffic::Human, labelled: true };

fn click(of: &Clicked) -> CountedClick {
    let at = UnixMillis(START + of.hour * HOUR);
    let click = Click {
        id: ClickId(of.n),
        account_id: AccountId(of.account),
        link_id: Some(LinkId(1)),
        key: None,
        clicked_at: at,
        received_at: at,
        source: ClickSource::Redirect,
        traffic: of.traffic,
        campaign: Campaign::default(),
        variant: of.variant.to_owned(),
        subs: std::array::from_fn(|_| String::new()),
        ip: None,
        user_agent: String::new(),
        visitor_key: 1 + of.n / 2,
        private_address: false,
        unverified: false,
    };
    CountedClick { click, labelled: of.labelled }
}

/// The `id`th conversion, `after` hours after the click that earned it.
fn earned(id: u32, of: &Clicked, after: i64, goal: u32) -> CountedConversion {
    let clicked_at = UnixMillis(START + of.hour * HOUR);
    let conversion = Conversion {
        account_id: AccountId(of.account),
        goal_id: GoalId(goal),
        converted_at: clicked_at.plus(after * HOUR),
        click_id: Some(ClickId(of.n)),
        ..conversion(id)
    };
    let outcome = Earned {
        method: Method::ClickId,
        click_id: ClickId(of.n),
        link_id: Some(LinkId(1)),
        clicked_at,
        seconds_to_convert: u32::try_from(after * 3600).expect("fits"),
        campaign: Campaign::default(),
        variant: of.variant.to_owned(),
        labelled: of.labelled,
    };
    CountedConversion {
        conversion,
        attribution: Attribution { outcome: Ok(outcome), candidates: 1 },
        run: RunId(0),
    }
}

async fn insert(database: &Database, table: Table, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token: "t", log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

fn asked(account: u32, goal: Option<u32>, hours: std::ops::Range<i64>) -> VariantQuery {
    VariantQuery {
        account_id: AccountId(account),
        link_id: LinkId(1),
        goal_id: goal.map(GoalId),
        from: UnixMillis(START + hours.start * HOUR),
        to: UnixMillis(START + hours.end * HOUR),
    }
}

/// Clicks (all, human), visitors, converting clicks, conversions.
fn counts(of: &VariantCounts) -> (u64, u64, u64, u64, u64) {
    (of.clicks, of.human_clicks, of.visitors, of.converting_clicks, of.conversions)
}

#[tokio::test]
async fn a_click_that_converts_often_is_one_success() {
    let database = fresh_database().await;
    let clicks = [
        Clicked { n: 2, ..CLICK },
        Clicked { n: 3, hour: 1, ..CLICK },
        Clicked { n: 4, traffic: Traffic::Bot, ..CLICK },
        Clicked { n: 6, variant: "B", hour: 2, ..CLICK },
        Clicked { n: 8, variant: "B", hour: 2, ..CLICK },
        Clicked { n: 10, variant: "C", labelled: false, ..CLICK },
        // Before the period, and another account's with a number of the first one's.
        Clicked { n: 1, hour: -30, ..CLICK },
        Clicked { n: 3, account: 2, ..CLICK },
    ];
    let conversions = [
        earned(0, &clicks[0], 0, 1),
        earned(2, &clicks[0], 1, 1),
        earned(4, &clicks[0], 2, 2),
        earned(1, &clicks[2], 1, 1),
        earned(3, &clicks[3], 200, 1),
        earned(6, &clicks[5], 1, 1),
        earned(8, &clicks[6], 31, 1),
        earned(10, &clicks[7], 1, 1),
    ];
    let (mut rows, mut raw, mut owed) = (Vec::new(), Vec::new(), Vec::new());
    for of in &clicks {
        encode_click(&click(of), BatchId(1), &mut rows);
    }
    for counted in &conversions {
        encode_conversion(counted, BatchId(1), &mut raw);
        encode_attribution(counted, BatchId(1), &mut owed);
    }
    // The clicks of October lie in another partition than the rest.
    insert(&database, Table::Clicks, rows).await;
    insert(&database, Table::Conversions, raw).await;
    insert(&database, Table::Attributions, owed).await;

    let report = database.variants(&asked(1, None, 0..48)).await.expect("answered");
    assert_eq!(report.first_click, Some(UnixMillis(START)));
    assert_eq!(report.variants.keys().collect::<Vec<_>>(), ["(other)", "A", "B"]);
    let a = &report.variants["A"];
    // Three of the second click, one of the robot's, one of the click before the period.
    assert_eq!(counts(a), (3, 2, 1, 1, 5));
    let (usd, eur) = (Currency::USD, Currency::parse("EUR").expect("known"));
    assert_eq!(a.value[&usd], MoneySum(4 * 10_000_001 + 2 + 4 + 8));
    assert_eq!(a.value[&eur], MoneySum(10_000_002));
    // The conversion came after the period, and its click within.
    assert_eq!(counts(&report.variants["B"]), (2, 2, 2, 1, 0));
    assert_eq!(counts(&report.variants["(other)"]), (1, 1, 1, 1, 1));

    let second = database.variants(&asked(1, Some(2), 0..48)).await.expect("answered");
    assert_eq!(counts(&second.variants["A"]), (3, 2, 1, 1, 1));
    let other = database.variants(&asked(2, None, 0..48)).await.expect("answered");
    assert_eq!(counts(&other.variants["A"]), (1, 1, 1, 1, 1), "its own, and nothing else");
    assert_eq!(other.variants.len(), 1);
    let later = database.variants(&asked(1, None, 100..200)).await.expect("answered");
    assert_eq!(later, tally::core::VariantReport::default());

    // A run that gives what the second click earned to the third one.
    let run = "INSERT INTO attributions SELECT * REPLACE (1 AS run_id, 0 AS batch_id, toUInt64(3) AS click_id) \
               FROM attributions WHERE account_id = 1 AND attributions.click_id IN (2, 6)";
    sql(&database).query_raw(run).execute().await.expect("inserted");
    let mark =
        "INSERT INTO attribution_runs VALUES (1, '2026-10-01 00:00:00', 60, 'last', 'done', true, now(), 1)";
    sql(&database).query_raw(mark).execute().await.expect("marked");
    let report = database.variants(&asked(1, None, 0..48)).await.expect("answered");
    assert_eq!(counts(&report.variants["A"]), (3, 2, 1, 1, 3), "by the run in force");
    assert!(!report.variants.contains_key("none"));
}
