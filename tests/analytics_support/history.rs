//! Random histories, and how they get into the tables.

use bytes::Bytes;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tally::clickhouse::{Database, Insert};
use tally::core::rows::{Table, encode_adjustment, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, BatchId, Campaign, Click, ClickId,
    ClickSource, CountedAdjustment, CountedClick, CountedConversion, Currency, Earned, GoalId, LinkId,
    Method, RunId, Traffic, Unattributed, UnixMillis,
};

use super::{HOUR, SINCE};
use crate::support::engine::{NOVEMBER, conversion, sql};

/// Values from public URLs that want to be something else.
const SOURCES: [&str; 6] =
    ["mail", "", "(other)", "(unattributed)", "it's \\ \"fine\" --", "ünï\u{1F600}'); DROP"];

pub fn random_history(
    random: &mut StdRng,
) -> (Vec<CountedClick>, Vec<CountedConversion>, Vec<CountedAdjustment>) {
    let clicks: Vec<_> = (0..500).map(|n| random_click(random, n)).collect();
    let conversions: Vec<_> = (0..400).map(|n| random_conversion(random, &clicks, n)).collect();
    let adjustments =
        conversions.iter().step_by(4).zip(0..).map(|(of, n)| adjustment(random, of, n)).collect();
    (clicks, conversions, adjustments)
}

pub fn random_click(random: &mut StdRng, n: u64) -> CountedClick {
    // Around the borders of hours.
    let at = UnixMillis(NOVEMBER + random.random_range(0..9 * 24) * HOUR + random.random_range(-2..2) * 500);
    let link = random.random_range(0..4);
    let mut label = |of: &[&str]| of[random.random_range(0..of.len())].to_owned();
    let campaign = Campaign {
        source: label(&SOURCES),
        medium: label(&["cpc", "email", ""]),
        campaign: label(&["a", "b"]),
        ..Campaign::default()
    };
    let variant = label(&["A", "B", ""]);
    let click = Click {
        id: ClickId(1 + n),
        account_id: AccountId(1 + random.random_range(0..2)),
        link_id: (link != 0).then_some(LinkId(link)),
        key: None,
        clicked_at: at,
        received_at: at,
        source: ClickSource::Api,
        traffic: if random.random_range(0..6) == 0 { Traffic::Bot } else { Traffic::Human },
        campaign,
        variant,
        subs: std::array::from_fn(|_| String::new()),
        ip: None,
        user_agent: String::new(),
        // Visitors of both accounts have the same keys; some are unknown.
        visitor_key: [0, 1 << 60][random.random_range(0..2)] * random.random_range(1..8),
        private_address: false,
        unverified: false,
    };
    CountedClick { click, labelled: random.random_range(0..5) != 0 }
}

pub fn random_conversion(random: &mut StdRng, clicks: &[CountedClick], n: u32) -> CountedConversion {
    let CountedClick { click, labelled } = &clicks[random.random_range(0..clicks.len())];
    let seconds = [0, 1, 1800, 40_000, 200_000][random.random_range(0..5)];
    let at = UnixMillis(click.clicked_at.0 + i64::from(seconds) * 1000);
    let time = u128::from(u64::try_from(at.0).expect("after 1970"));
    let conversion = tally::core::Conversion {
        id: tally::core::ConversionId(uuid::Uuid::from_u128(time << 80 | 7 << 76 | 2 << 62 | u128::from(n))),
        account_id: click.account_id,
        goal_id: GoalId(1 + n % 3),
        converted_at: at,
        received_at: at,
        currency: Currency::parse(["USD", "EUR", "JPY"][random.random_range(0..3)]).expect("known"),
        visitor_key: click.visitor_key,
        ..conversion(n)
    };
    let earned = (random.random_range(0..3) != 0).then(|| Earned {
        method: if n.is_multiple_of(2) { Method::ClickId } else { Method::IpUserAgent },
        click_id: click.id,
        link_id: click.link_id,
        clicked_at: click.clicked_at,
        seconds_to_convert: seconds,
        campaign: click.campaign.clone(),
        variant: click.variant.clone(),
        labelled: *labelled,
    });
    let outcome = earned.ok_or(Unattributed::NoVisitor);
    // Some came while run 1 was the newest: they stand beside it.
    let run = RunId(u32::from(random.random_range(0..5) == 0));
    CountedConversion { conversion, attribution: Attribution { outcome, candidates: 1 }, run }
}

pub fn adjustment(random: &mut StdRng, of: &CountedConversion, n: u32) -> CountedAdjustment {
    let (kind, value, count) = match random.random_range(0..2) {
        0 => (AdjustmentKind::Refund, -1_000_003, 0),
        _ => (AdjustmentKind::Reject, -of.conversion.value.micros().cast_signed(), -1),
    };
    CountedAdjustment {
        adjustment: Adjustment {
            id: AdjustmentId(uuid::Uuid::from_u128(1 + u128::from(n))),
            account_id: of.conversion.account_id,
            conversion_id: of.conversion.id,
            kind,
            value: None,
            key: None,
            reason: String::new(),
            received_at: of.conversion.received_at,
            unverified: false,
        },
        goal_id: of.conversion.goal_id,
        currency: of.conversion.currency,
        converted_at: of.conversion.converted_at,
        earned: of.attribution.outcome.clone().ok(),
        net_value_change: value,
        net_conversions_change: count,
        run: of.run,
    }
}

pub async fn insert(database: &Database, table: Table, token: &str, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token, log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

pub async fn insert_all(
    database: &Database,
    batch: u64,
    (clicks, conversions, adjustments): &(Vec<CountedClick>, Vec<CountedConversion>, Vec<CountedAdjustment>),
) {
    let (mut clicked, mut raw, mut owed, mut adjusted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let batch = BatchId(batch);
    for of in clicks {
        encode_click(of, batch, &mut clicked);
    }
    for of in conversions {
        encode_conversion(of, batch, &mut raw);
        encode_attribution(of, batch, &mut owed);
    }
    for of in adjustments {
        encode_adjustment(of, batch, &mut adjusted);
    }
    insert(database, Table::Clicks, "k", clicked).await;
    insert(database, Table::Conversions, "c", raw).await;
    insert(database, Table::Attributions, "a", owed).await;
    if !adjusted.is_empty() {
        insert(database, Table::Adjustments, "j", adjusted).await;
    }
}

pub async fn run(database: &Database, statement: &str) {
    let client = sql(database).with_setting("insert_deduplicate", "0");
    client.query_raw(statement).execute().await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Run 1 decides otherwise: another link, an earlier click, and of some conversions that none earned them.
pub async fn reattribute(database: &Database) {
    let decided = format!(
        "INSERT INTO attributions SELECT * REPLACE (1 AS run_id, 0 AS attribution_run, 0 AS batch_id, \
             (link_id + 1) % 4 AS link_id, 'again' AS utm_source, clicked_at - 5000 AS clicked_at, \
             seconds_to_convert + 5000 AS seconds_to_convert) \
         FROM attributions WHERE run_id = 0 AND attribution_run < 1 AND toUnixTimestamp(converted_at) >= {} \
             AND cityHash64(conversion_id) % 4 != 0",
        SINCE / 1000
    );
    run(database, &decided).await;
    let mark = format!(
        "INSERT INTO attribution_runs VALUES (1, fromUnixTimestamp64Milli({SINCE}, 'UTC'), 60, 'last', 'done', true, \
         now(), 1)"
    );
    run(database, &mark).await;
}
