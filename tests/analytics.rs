//! Reports over clicks and conversions say what the raw tables say, of every period, span and group, by either basis, by
//! the run of attribution in force: random histories on a real engine.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use support::engine::{NOVEMBER, conversion, fresh_database, sql};
use support::faults::daemon::{Start, Tally, folder};
use support::faults::wait_for;
use tally::clickhouse::{Database, Insert};
use tally::core::rows::{Table, encode_adjustment, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, Adjustment, AdjustmentId, AdjustmentKind, Attribution, Basis, BatchId, Campaign, Click,
    ClickId, ClickSource, ConversionQuery, ConversionReport, CountedAdjustment, CountedClick,
    CountedConversion, Currency, CurrencySums, Earned, GoalId, Group, GroupBy, GroupKey, LinkId, Measures,
    Method, Money, RunId, TimeToConvert, Traffic, Unattributed, UnixMillis,
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Run 1 reaches back to an hour within a day.
const SINCE: i64 = NOVEMBER + 4 * DAY + 7 * HOUR;
/// Values from public URLs that want to be something else.
const SOURCES: [&str; 6] =
    ["mail", "", "(other)", "(unattributed)", "it's \\ \"fine\" --", "ünï\u{1F600}'); DROP"];

/// A conversion as the raw tables tell it.
#[derive(Clone, Debug, clickhouse::Row, serde::Deserialize)]
struct Converted {
    account: u32,
    goal: u32,
    currency: String,
    value: i64,
    value_change: i64,
    count_change: i64,
    at: i64,
    method: String,
    link: u32,
    click: u64,
    clicked: i64,
    seconds: u32,
    source: String,
    medium: String,
    campaign: String,
    variant: String,
    labelled: bool,
    visitor: u64,
}

/// A click as the raw table tells it.
#[derive(Clone, Debug, clickhouse::Row, serde::Deserialize)]
struct Clicked {
    account: u32,
    link: u32,
    click: u64,
    at: i64,
    human: bool,
    source: String,
    medium: String,
    campaign: String,
    variant: String,
    labelled: bool,
    visitor: u64,
}

/// Everything that happened.
struct Raw {
    conversions: Vec<Converted>,
    clicks: Vec<Clicked>,
}

impl Raw {
    /// With the decisions of `run`, if any, in force.
    async fn read(database: &Database, run: u32) -> Self {
        let in_force = if run == 0 {
            "run_id = 0".to_owned()
        } else {
            format!(
                "run_id = {run} OR (run_id = 0 AND (toUnixTimestamp(converted_at) < {} OR attribution_run >= {run}))",
                SINCE / 1000
            )
        };
        let conversions = format!(
            "SELECT c.account_id AS account, c.goal_id AS goal, toString(c.currency) AS currency, \
                 toInt64(c.value * 1000000) AS value, toInt64(a.v * 1000000) AS value_change, \
                 toInt64(a.n) AS count_change, toInt64(toUnixTimestamp(c.converted_at)) AS at, \
                 toString(e.method) AS method, e.link_id AS link, e.click_id AS click, \
                 toInt64(toUnixTimestamp(e.clicked_at)) AS clicked, e.seconds_to_convert AS seconds, \
                 toString(e.utm_source) AS source, toString(e.utm_medium) AS medium, \
                 toString(e.utm_campaign) AS campaign, toString(e.variant) AS variant, e.labelled AS labelled, \
                 e.visitor_key AS visitor \
             FROM conversions AS c \
             LEFT ANY JOIN (SELECT conversion_id, sum(net_value_change) AS v, sum(net_conversions_change) AS n \
                 FROM adjustments GROUP BY conversion_id) AS a ON a.conversion_id = c.conversion_id \
             LEFT ANY JOIN (SELECT * FROM attributions WHERE {in_force}) AS e ON e.conversion_id = c.conversion_id"
        );
        let clicks = "SELECT account_id AS account, link_id AS link, click_id AS click, \
             toInt64(toUnixTimestamp(clicked_at)) AS at, traffic = 'human' AS human, \
             toString(utm_source) AS source, toString(utm_medium) AS medium, toString(utm_campaign) AS campaign, \
             toString(variant) AS variant, labelled, visitor_key AS visitor FROM clicks";
        let client = sql(database);
        Self {
            conversions: client.query_raw(&conversions).fetch_all().await.expect("read"),
            clicks: client.query_raw(clicks).fetch_all().await.expect("read"),
        }
    }

    fn report(&self, query: &ConversionQuery) -> ConversionReport {
        let conversions = self.conversions.iter().filter(|of| {
            of.account == query.account_id.0
                && query.goal_id.is_none_or(|goal| goal.0 == of.goal)
                && query.link_id.is_none_or(|link| of.is_attributed() && link.0 == of.link)
                && (query.basis == Basis::Conversion || of.is_attributed())
        });
        let at = |of: &Converted| if query.basis == Basis::Click { of.clicked } else { of.at };
        let conversions: Vec<_> = conversions.map(|of| (hour(at(of)), of)).collect();
        let clicks = self.clicks.iter().filter(|of| {
            of.account == query.account_id.0 && query.link_id.is_none_or(|link| link.0 == of.link)
        });
        let clicks: Vec<_> = clicks.map(|of| (hour(of.at), of)).collect();
        let within = |from: UnixMillis, to: UnixMillis| {
            let hours = from..to;
            let conversions = conversions.iter().filter(|(hour, _)| hours.contains(hour)).map(|(_, of)| *of);
            let clicks = clicks.iter().filter(|(hour, _)| hours.contains(hour)).map(|(_, of)| *of);
            (conversions.collect::<Vec<_>>(), clicks.collect::<Vec<_>>())
        };
        let measured = |from, to| {
            let (conversions, clicks) = within(from, to);
            measures(&conversions, &clicks)
        };
        let from = query.starts[0];
        let ends = query.starts.iter().skip(1).chain([&query.to]);
        let spans = query.starts.iter().zip(ends).map(|(from, to)| (*from, measured(*from, *to)));
        let (of_period, clicks_of_period) = within(from, query.to);
        let groups = query.group_by.map_or(BTreeMap::new(), |by| {
            let mut groups: BTreeMap<GroupKey, (Vec<&Converted>, Vec<&Clicked>)> = BTreeMap::new();
            for of in of_period {
                groups.entry(key(by, of)).or_default().0.push(of);
            }
            for of in &clicks_of_period {
                if by.is_of_clicks() {
                    groups.entry(click_key(by, of)).or_default().1.push(of);
                }
            }
            if !by.is_of_clicks() {
                for (_, clicks) in groups.values_mut() {
                    clicks.clone_from(&clicks_of_period);
                }
            }
            groups
        });
        ConversionReport {
            whole: measured(from, query.to),
            before: measured(query.before, from),
            series: spans.filter(|(_, measures)| *measures != Measures::default()).collect(),
            groups: groups
                .into_iter()
                .map(|(key, (conversions, clicks))| Group { key, measures: measures(&conversions, &clicks) })
                .collect(),
            groups_truncated: false,
        }
    }
}

impl Converted {
    fn is_attributed(&self) -> bool {
        self.method != "none"
    }
}

fn hour(seconds: i64) -> UnixMillis {
    UnixMillis(seconds * 1000 / HOUR * HOUR)
}

fn key(by: GroupBy, of: &Converted) -> GroupKey {
    let text = |text: &str| named(text, of.labelled);
    match by {
        GroupBy::Goal => GroupKey::Id(of.goal),
        GroupBy::Currency => GroupKey::Text(of.currency.clone()),
        _ if !of.is_attributed() => GroupKey::Unattributed,
        GroupBy::Link => GroupKey::Id(of.link),
        GroupBy::UtmSource => text(&of.source),
        GroupBy::UtmMedium => text(&of.medium),
        GroupBy::UtmCampaign => text(&of.campaign),
        GroupBy::Variant => text(&of.variant),
    }
}

fn click_key(by: GroupBy, of: &Clicked) -> GroupKey {
    match by {
        GroupBy::Link => GroupKey::Id(of.link),
        GroupBy::UtmSource => named(&of.source, of.labelled),
        GroupBy::UtmMedium => named(&of.medium, of.labelled),
        GroupBy::UtmCampaign => named(&of.campaign, of.labelled),
        GroupBy::Variant => named(&of.variant, of.labelled),
        GroupBy::Goal | GroupBy::Currency => unreachable!("a click has none"),
    }
}

fn named(text: &str, labelled: bool) -> GroupKey {
    if labelled && text != "(other)" { GroupKey::Text(text.to_owned()) } else { GroupKey::Other }
}

fn measures(conversions: &[&Converted], clicks: &[&Clicked]) -> Measures {
    let human: Vec<_> = clicks.iter().filter(|of| of.human).collect();
    let attributed: Vec<_> = conversions.iter().filter(|of| of.is_attributed()).collect();
    let mut by_currency = BTreeMap::<_, CurrencySums>::new();
    for of in conversions {
        let sums = by_currency.entry(Currency::parse(&of.currency).expect("known")).or_default();
        sums.conversions += 1;
        sums.value.0 += u128::try_from(of.value).expect("positive");
        sums.net_value.0 += u128::try_from(of.value + of.value_change).expect("positive");
    }
    let who: BTreeSet<_> = attributed
        .iter()
        .map(|of| if of.method == "click_id" || of.visitor == 0 { of.click } else { of.visitor })
        .collect();
    let visitors: BTreeSet<_> =
        human.iter().map(|of| if of.visitor == 0 { of.click } else { of.visitor }).collect();
    let count = attributed.len() as u64;
    let seconds: u64 = attributed.iter().map(|of| u64::from(of.seconds)).sum();
    let net: i64 = conversions.iter().map(|of| 1 + of.count_change).sum();
    Measures {
        clicks: clicks.len() as u64,
        human_clicks: human.len() as u64,
        visitors: visitors.len() as u64,
        attributed: count,
        converting_visitors: who.len() as u64,
        net_conversions: u64::try_from(net).expect("positive"),
        by_currency,
        // Quantiles are approximate, and not compared.
        time_to_convert: (count > 0).then(|| TimeToConvert {
            average_seconds: (seconds + count / 2) / count,
            median_seconds: 0,
            p95_seconds: 0,
        }),
    }
}

/// A report as it can be compared: quantiles left out, groups in the order of their keys.
fn comparable(report: &ConversionReport) -> ConversionReport {
    let mut report = report.clone();
    let groups = report.groups.iter_mut().map(|group| &mut group.measures);
    let all = [&mut report.whole, &mut report.before].into_iter();
    for measures in all.chain(report.series.values_mut()).chain(groups) {
        if let Some(times) = &mut measures.time_to_convert {
            assert!(times.median_seconds <= times.p95_seconds, "{times:?}");
            (times.median_seconds, times.p95_seconds) = (0, 0);
        }
    }
    report.groups.sort_by(|a, b| a.key.cmp(&b.key));
    report
}

/// One of a report's counts.
type Count = fn(&Measures) -> u64;

/// What must hold of any report, whatever the raw tables say.
fn assert_consistent(query: &ConversionQuery, report: &ConversionReport) {
    let total = |of: Count, parts: &mut dyn Iterator<Item = &Measures>| parts.map(of).sum::<u64>();
    let counts: [(&str, Count, bool); 5] = [
        ("clicks", |of| of.clicks, true),
        ("human clicks", |of| of.human_clicks, true),
        ("conversions", Measures::conversions, false),
        ("attributed", |of| of.attributed, false),
        ("net", |of| of.net_conversions, false),
    ];
    for (what, of, is_of_clicks) in counts {
        assert_eq!(
            total(of, &mut report.series.values()),
            of(&report.whole),
            "{what} of the series: {query:?}"
        );
        let groups = &mut report.groups.iter().map(|group| &group.measures);
        match query.group_by {
            Some(by) if by.is_of_clicks() || !is_of_clicks => {
                assert_eq!(total(of, groups), of(&report.whole), "{what} of groups: {query:?}");
            }
            Some(_) => assert!(groups.all(|group| of(group) == of(&report.whole)), "{what}: {query:?}"),
            None => assert!(report.groups.is_empty()),
        }
    }
    let ranks: Vec<_> = report
        .groups
        .iter()
        .filter(|group| !matches!(group.key, GroupKey::Unattributed | GroupKey::Other))
        .map(|group| (group.measures.conversions(), group.measures.value_max()))
        .collect();
    assert!(ranks.is_sorted_by(|a, b| a >= b), "{query:?}: {ranks:?}");
}

fn random_history(
    random: &mut StdRng,
) -> (Vec<CountedClick>, Vec<CountedConversion>, Vec<CountedAdjustment>) {
    let clicks: Vec<_> = (0..500).map(|n| random_click(random, n)).collect();
    let conversions: Vec<_> = (0..400).map(|n| random_conversion(random, &clicks, n)).collect();
    let adjustments =
        conversions.iter().step_by(4).zip(0..).map(|(of, n)| adjustment(random, of, n)).collect();
    (clicks, conversions, adjustments)
}

fn random_click(random: &mut StdRng, n: u64) -> CountedClick {
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

fn random_conversion(random: &mut StdRng, clicks: &[CountedClick], n: u32) -> CountedConversion {
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

fn adjustment(random: &mut StdRng, of: &CountedConversion, n: u32) -> CountedAdjustment {
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

async fn insert(database: &Database, table: Table, token: &str, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token, log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

async fn insert_all(
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

async fn run(database: &Database, statement: &str) {
    let client = sql(database).with_setting("insert_deduplicate", "0");
    client.query_raw(statement).execute().await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Run 1 decides otherwise: another link, an earlier click, and of some conversions that none earned them.
async fn reattribute(database: &Database) {
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

fn random_query(random: &mut StdRng, by: Option<GroupBy>) -> ConversionQuery {
    let first = random.random_range(0..9 * 24);
    let hours = random.random_range(1..6 * 24);
    let step = [1, 7, 24][random.random_range(0..3)];
    let at = |hour: i64| UnixMillis(NOVEMBER + hour * HOUR);
    let one = |random: &mut StdRng, n: u32| Some(random.random_range(1..4)).filter(|_| n == 0);
    let (goal, link) = (random.random_range(0..3), random.random_range(0..3));
    ConversionQuery {
        account_id: AccountId(random.random_range(1..4)),
        goal_id: one(random, goal).map(GoalId),
        link_id: one(random, link).map(LinkId),
        basis: if random.random_range(0..2) == 0 { Basis::Conversion } else { Basis::Click },
        group_by: by,
        before: at(first - hours),
        starts: (first..first + hours).step_by(step).map(at).collect(),
        to: at(first + hours),
    }
}

#[tokio::test]
async fn totals_series_and_groups_are_what_the_raw_tables_say() {
    let database = fresh_database().await;
    let mut random = StdRng::seed_from_u64(7);
    insert_all(&database, 1, &random_history(&mut random)).await;
    let mut attributed = BTreeMap::new();
    for in_force in [0, 1] {
        if in_force == 1 {
            reattribute(&database).await;
            assert_eq!(database.groups_off().await.expect("compared"), [], "statistics of the run");
        }
        let raw = Raw::read(&database, in_force).await;
        let groupings = [None].into_iter().chain(GroupBy::ALL.map(Some));
        for by in groupings.cycle().take(40) {
            let query = random_query(&mut random, by);
            let report = database.conversion_report(&query).await.expect("reported");
            assert_eq!(comparable(&report), comparable(&raw.report(&query)), "run {in_force}: {query:?}");
            assert_consistent(&query, &report);
            *attributed.entry((in_force, query.basis == Basis::Click)).or_default() +=
                report.whole.attributed;
        }
    }
    assert!(attributed.len() == 4 && attributed.values().all(|sum: &u64| *sum > 100), "{attributed:?}");
}

/// Two hundred sources, each with as many conversions as its number says.
#[tokio::test]
async fn groups_are_the_best_hundred_and_the_rest() {
    let database = fresh_database().await;
    let mut random = StdRng::seed_from_u64(8);
    let (mut clicks, mut conversions) = (Vec::new(), Vec::new());
    for n in 0..200u32 {
        let mut counted = random_click(&mut random, n.into());
        counted.labelled = true;
        counted.click.account_id = AccountId(1);
        counted.click.campaign.source = format!("it's source \\{n}\"");
        for _ in 0..n % 20 {
            let number = u32::try_from(conversions.len()).expect("few");
            let mut of = random_conversion(&mut random, std::slice::from_ref(&counted), number);
            of.conversion.value = Money::from_micros(1_000_000 + u64::from(n)).expect("fits");
            of.conversion.currency = Currency::USD;
            conversions.push(of);
        }
        clicks.push(counted);
    }
    insert_all(&database, 1, &(clicks, conversions, Vec::new())).await;
    let raw = Raw::read(&database, 0).await;
    for basis in [Basis::Conversion, Basis::Click] {
        let query = ConversionQuery {
            account_id: AccountId(1),
            goal_id: None,
            link_id: None,
            basis,
            group_by: Some(GroupBy::UtmSource),
            before: UnixMillis(NOVEMBER - 20 * DAY),
            starts: vec![UnixMillis(NOVEMBER - HOUR)],
            to: UnixMillis(NOVEMBER + 20 * DAY),
        };
        let report = database.conversion_report(&query).await.expect("reported");
        assert!(report.groups_truncated);
        assert_consistent(&query, &report);
        let expected = raw.report(&query);
        assert_eq!(comparable(&report).whole, expected.whole);
        let named: Vec<_> =
            report.groups.iter().filter(|group| matches!(group.key, GroupKey::Text(_))).collect();
        assert_eq!(named.len(), 100);
        let other = report.groups.last().expect("the rest");
        assert_eq!(other.key, GroupKey::Other);
        let least = named.iter().map(|group| group.measures.conversions()).min().expect("a hundred");
        for Group { key, measures } in &expected.groups {
            match report.groups.iter().find(|group| group.key == *key) {
                Some(group) => assert_eq!(group.measures.by_currency, measures.by_currency, "{key:?}"),
                None => assert!(measures.conversions() <= least, "{key:?}"),
            }
        }
        // States of the rest are put together, not added: nobody counts twice.
        assert!(other.measures.visitors <= 100 && other.measures.clicks == 100, "{other:?}");
    }
}

#[tokio::test]
async fn an_account_without_anything_sees_nothing() {
    let database = fresh_database().await;
    let mut random = StdRng::seed_from_u64(9);
    insert_all(&database, 1, &random_history(&mut random)).await;
    reattribute(&database).await;
    for by in [None].into_iter().chain(GroupBy::ALL.map(Some)) {
        for basis in [Basis::Conversion, Basis::Click] {
            let query = ConversionQuery {
                account_id: AccountId(3),
                goal_id: None,
                link_id: None,
                basis,
                before: UnixMillis(NOVEMBER - 20 * DAY),
                starts: vec![UnixMillis(NOVEMBER - HOUR)],
                to: UnixMillis(NOVEMBER + 20 * DAY),
                group_by: by,
            };
            let report = database.conversion_report(&query).await.expect("reported");
            assert_eq!(report, ConversionReport::default(), "{query:?}");
        }
    }
}

/// Through the daemon: what is asked is what is answered, names stand beside numbers, no account sees another, and no
/// word of a caller becomes part of a statement.
#[test]
fn the_daemon_answers_each_account_about_itself() {
    let folder = folder();
    let tally = Tally::start(&folder.path().join("data"), &Start::default());
    let ask = |key: &str, query: &str| {
        tally.api_with(key, &format!("GET /api/v1/analytics/conversions?{query}"), "")
    };
    let data = |key: &str, query: &str| {
        let answer = ask(key, query);
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer.json()["data"].clone()
    };
    let one = tally.api_key();
    let made = tally.api("POST /api/v1/accounts", r#"{"account":{"name":"two","plan":"pro"}}"#);
    let two = made.json()["data"]["api_key"].as_str().expect("a key").to_owned();
    let create = |key: &str, path: &str, body: &str| {
        let answer = tally.api_with(key, &format!("POST {path}"), body);
        assert!(matches!(answer.status, 200..=202), "{path}: {answer:?}");
        answer.json()["data"].clone()
    };
    let mut told = Vec::new();
    for (key, sales) in [(&one, 3u32), (&two, 5)] {
        let goal =
            create(key, "/api/v1/conversions/goals", r#"{"goal":{"name":"It's a 'sale'","currency":"EUR"}}"#);
        let link = create(
            key,
            "/api/v1/links",
            r#"{"link":{"name":"Winter \"sale\"","destination_url":"https://shop.example/"}}"#,
        );
        let (token, link) = (goal["postback_token"].as_str().expect("a token"), &link["id"]);
        for n in 1..=10 {
            let click = format!(
                r#"{{"click_id":{n},"link_id":{link},"ip":"203.0.113.{n}","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0","utm_source":"it's \\ {}"}}"#,
                n % 2
            );
            create(key, "/api/v1/clicks", &click);
        }
        for n in 1..=sales {
            let body = format!(r#"{{"postback_token":"{token}","click_id":{n},"value":"{n}.50"}}"#);
            create(key, "/api/v1/conversions/track", &body);
        }
        told.push((key.clone(), sales, goal["id"].clone(), link.clone()));
    }
    for (key, sales, goal, link) in &told {
        wait_for("the conversions", || {
            // The database may still be starting.
            let answer = ask(key, "days=1");
            let data = if answer.status == 200 { answer.json()["data"].clone() } else { Value::Null };
            data["attributed"] == *sales && data["human_clicks"] == 10
        });
        for basis in ["conversion", "click"] {
            for (by, name, groups) in [
                ("goal", "It's a 'sale'", 1),
                ("link", "Winter \"sale\"", 1),
                // Quotes and backslashes are left out of labels.
                ("utm_source", "its  1", 2),
                ("currency", "EUR", 1),
            ] {
                let query = format!("days=2&interval=hour&group_by={by}&basis={basis}");
                let data = data(key, &query);
                assert_eq!(data["conversions"], *sales, "{query}");
                assert_eq!(data["conversion_rate"], f64::from(*sales) * 10.0, "{query}");
                assert_eq!(data["unique_rate"], f64::from(*sales) * 10.0, "{query}");
                assert_eq!(data["groups"].as_array().map(Vec::len), Some(groups), "{query}: {data}");
                assert_eq!(data["groups"][0]["name"], name, "{query}");
                assert_eq!(data["change"]["conversions"]["percent"], Value::Null);
                let series = data["series"].as_array().expect("a series").iter();
                assert_eq!(
                    series.map(|span| span["conversions"].as_u64().expect("a number")).sum::<u64>(),
                    u64::from(*sales)
                );
            }
        }
        let narrowed = data(key, &format!("days=1&link_id={link}&goal_id={goal}"));
        assert_eq!(
            (narrowed["conversions"].clone(), narrowed["clicks"].clone()),
            ((*sales).into(), 10.into())
        );
    }
    let (first, second) = (&told[0], &told[1]);
    let foreign = data(&first.0, &format!("link_id={}&group_by=link", second.3));
    assert_eq!((foreign["clicks"].clone(), foreign["conversions"].clone()), (0.into(), 0.into()));
    assert_eq!(foreign["groups"], serde_json::json!([]));
    let refused = ask(&first.0, &format!("goal_id={}", second.2));
    assert_eq!((refused.status, refused.code().as_str()), (404, "goal_not_found"));

    for query in [
        "group_by=link%20UNION%20ALL%20SELECT%201",
        "group_by=account_id",
        "basis=click'",
        "interval=day)%3B%20DROP%20TABLE%20tally.clicks",
        "tz=UTC'%20OR%201%3D1%20--",
        "tz=..%2F..%2F..%2Fetc%2Fpasswd",
        "tz=%00",
        "link_id=1%20OR%201%3D1",
        "link_id=18446744073709551616",
        "goal_id=-1",
        "days=99999999999999999999999",
        "days=400&interval=hour",
        "from=2026-01-01'&to=2026-01-02",
        "from=-9999-01-01&to=9999-12-31",
    ] {
        let answer = ask(&first.0, query);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_parameter"), "{query}");
    }
}
