//! Runs of attribution inside ClickHouse give the answers of the pure function.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::engine::{Fresh, NOVEMBER, conversion, fresh_database, number, sql};
use tally::clickhouse::{Database, Insert, Rules, Run, RunState};
use tally::core::rows::{Table, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, BatchId, Campaign, Candidate, Click, ClickId, ClickLabels, ClickSource, Conversion,
    CountedClick, CountedConversion, LinkId, Matching, Model, Question, RunId, Traffic, UnixMillis, decide,
};

const SETTLE_MILLIS: i64 = 5000;
const DAY: i64 = 86_400_000;
/// Half of the history lies within it.
const WINDOW_SECONDS: u32 = 5 * 86_400;

/// Clicks and conversions of a few visitors of three accounts who share their keys, over twenty days; times collide.
struct History {
    clicks: Vec<CountedClick>,
    conversions: Vec<Conversion>,
}

impl History {
    fn random(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clicks: Vec<_> = (0..600).map(|n| random_click(&mut random, n)).collect();
        let conversions = (0..400).map(|n| random_conversion(&mut random, n)).collect();
        Self { clicks, conversions }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let labels = |counted: &CountedClick| ClickLabels {
            campaign: counted.click.campaign.clone(),
            variant: counted.click.variant.clone(),
            labelled: counted.labelled,
        };
        self.clicks.iter().map(|counted| Candidate::new(&counted.click, Arc::new(labels(counted)))).collect()
    }

    /// Every decision, by the pure function.
    fn decided(&self, window_seconds: u32, model: Model) -> Vec<CountedConversion> {
        let candidates = self.candidates();
        let decision = |conversion: &Conversion| {
            let question = Question { window_seconds, ..Question::of(conversion, SETTLE_MILLIS) };
            CountedConversion {
                conversion: conversion.clone(),
                attribution: decide(&question, &candidates, model),
                run: RunId(0),
            }
        };
        self.conversions.iter().map(decision).collect()
    }
}

fn random_time(random: &mut StdRng) -> i64 {
    // Few seconds of few hours, so that the borders of windows and of settling are met.
    let hour = random.random_range(0..20) * 24 + random.random_range(0..2);
    NOVEMBER + hour * 3_600_000 + random.random_range(0..12) * 500
}

fn random_click(random: &mut StdRng, n: u64) -> CountedClick {
    let clicked_at = random_time(random);
    let key = random.random_range(0..8);
    let click = Click {
        id: ClickId(1 + n),
        account_id: AccountId(1 + random.random_range(0..3)),
        link_id: (!n.is_multiple_of(3)).then_some(LinkId(u32::try_from(n % 3).expect("small"))),
        key: None,
        clicked_at: UnixMillis(clicked_at),
        received_at: UnixMillis(clicked_at + [0, 0, 4000, DAY][random.random_range(0..4)]),
        source: ClickSource::Api,
        traffic: if random.random_range(0..6) == 0 { Traffic::Bot } else { Traffic::Human },
        campaign: Campaign { source: format!("s{}", n % 4), term: format!("t{n}"), ..Campaign::default() },
        variant: format!("v{}", n % 2),
        subs: std::array::from_fn(|_| String::new()),
        ip: None,
        user_agent: String::new(),
        visitor_key: key,
        private_address: random.random_range(0..8) == 0,
        unverified: false,
    };
    CountedClick { click, labelled: !n.is_multiple_of(5) }
}

fn random_conversion(random: &mut StdRng, n: u32) -> Conversion {
    let converted_at = random_time(random);
    let received_at = converted_at + [0, 0, 0, 2 * DAY][random.random_range(0..4)];
    let time = u128::from(u64::try_from(received_at).expect("after 1970"));
    let keys = match random.random_range(0..4) {
        0 => vec![random.random_range(1..8)],
        1 | 2 => vec![random.random_range(1..4), random.random_range(4..8)],
        _ => Vec::new(),
    };
    let matching = match (keys.is_empty(), random.random_range(0..2)) {
        (false, _) => Matching::Keys(keys),
        (true, 0) => Matching::PrivateAddress,
        (true, _) => Matching::Unknown,
    };
    Conversion {
        id: tally::core::ConversionId(uuid::Uuid::from_u128(time << 80 | 7 << 76 | 2 << 62 | u128::from(n))),
        account_id: AccountId(1 + random.random_range(0..3)),
        converted_at: UnixMillis(converted_at),
        received_at: UnixMillis(received_at),
        window_seconds: WINDOW_SECONDS,
        click_id: (random.random_range(0..3) == 0).then(|| ClickId(random.random_range(1..700))),
        matching,
        ..conversion(n)
    }
}

async fn insert(database: &Database, table: Table, token: &str, rows: Vec<u8>) {
    let rows = Bytes::from(rows);
    let insert = Insert { table, token, log_comment: "tally-test", rows: &rows };
    database.insert(insert).await.expect("inserted");
}

async fn with_history(history: &History) -> Fresh {
    let database = fresh_database().await;
    let (mut clicks, mut raw, mut owed) = (Vec::new(), Vec::new(), Vec::new());
    for click in &history.clicks {
        encode_click(click, BatchId(1), &mut clicks);
    }
    for counted in history.decided(WINDOW_SECONDS, Model::Last) {
        encode_conversion(&counted, BatchId(1), &mut raw);
        encode_attribution(&counted, BatchId(1), &mut owed);
    }
    insert(&database, Table::Clicks, "k", clicks).await;
    insert(&database, Table::Conversions, "c", raw).await;
    insert(&database, Table::Attributions, "a", owed).await;
    database
}

async fn run(database: &Database, id: u32, since: i64, window_seconds: u32, model: Model) {
    let rules = Rules { run: RunId(id), window_seconds, model, settle_millis: SETTLE_MILLIS };
    let since = UnixMillis(since);
    let run = Run {
        id: RunId(id),
        since,
        window_seconds,
        model,
        state: RunState::Running,
        is_current: false,
        started_at: UnixMillis(NOVEMBER),
    };
    database.begin_run(&run).await.expect("begun");
    for chunk in database.run_chunks(RunId(id), since).await.expect("divided") {
        database.decide_chunk(&rules, &chunk).await.expect("decided");
    }
    database.end_run(RunId(id), RunState::Done).await.expect("ended");
}

/// What a run says of each conversion that it attributes.
async fn decisions(database: &Database, run: u32) -> BTreeMap<String, String> {
    let query = format!(
        "SELECT toString(conversion_id), toString(tuple(account_id, goal_id, converted_at, received_at, value, \
             currency, candidates, method, click_id, link_id, clicked_at, seconds_to_convert, utm_source, utm_term, \
             variant, labelled)) FROM attributions WHERE run_id = {run}"
    );
    let rows: Vec<(String, String)> = sql(database).query_raw(&query).fetch_all().await.expect("rows");
    let count = rows.len();
    let decisions: BTreeMap<_, _> = rows.into_iter().collect();
    assert_eq!(decisions.len(), count, "each conversion once");
    decisions
}

#[tokio::test]
async fn a_run_by_the_same_rules_repeats_the_decisions_that_were_made() {
    let history = History::random(1);
    let database = with_history(&history).await;
    run(&database, 1, 0, WINDOW_SECONDS, Model::Last).await;
    let live = decisions(&database, 0).await;
    assert!((80..350).contains(&live.len()), "{}: the history is a fair one", live.len());
    assert_eq!(decisions(&database, 1).await, live);
    assert_eq!(database.run_difference(RunId(0), RunId(1)).await.expect("compared"), []);
    let (rows, hours) = database.count_run(RunId(1)).await.expect("counted");
    assert_eq!((rows, hours), (live.len() as u64, live.len() as u64));
}

#[tokio::test]
async fn a_run_by_other_rules_decides_as_the_pure_function() {
    for seed in 2..5 {
        let history = History::random(seed);
        let database = with_history(&history).await;
        let rules = [(86_400, Model::First), (12 * 86_400 + 3, Model::Last), (30 * 86_400, Model::First)];
        for (id, (window, model)) in (1..).zip(rules) {
            run(&database, id, 0, window, model).await;
            // The same decisions, written by the way of the shipper beside a run of their own.
            let mut rows = Vec::new();
            for counted in history.decided(window, model) {
                encode_attribution(&counted, BatchId(u64::from(id)), &mut rows);
            }
            sql(&database)
                .query_raw("ALTER TABLE attributions DELETE WHERE run_id = 0 SETTINGS mutations_sync = 2")
                .execute()
                .await
                .expect("deleted");
            insert(&database, Table::Attributions, &format!("pure-{id}"), rows).await;
            let (pure, found) = (decisions(&database, 0).await, decisions(&database, id).await);
            assert_eq!(found, pure, "seed {seed}, run {id}");
        }
    }
}

#[tokio::test]
async fn runs_are_put_in_force_and_leave_the_others_as_they_were() {
    let history = History::random(9);
    let database = with_history(&history).await;
    let live = decisions(&database, 0).await;
    let since = NOVEMBER + 10 * DAY;
    run(&database, 1, since, 3600, Model::Last).await;
    run(&database, 2, 0, 15 * 86_400, Model::First).await;
    let current = "SELECT count() FROM attributions_current";
    let hourly = "SELECT sum(conversions) FROM attributed_hourly_current";
    assert_eq!(number(&database, current).await, live.len() as u64, "nothing is in force yet");

    let older = number(&database, &format!("SELECT count() FROM attributions WHERE run_id = 0 AND converted_at < fromUnixTimestamp64Milli({since})")).await;
    for id in [1, 2, 1] {
        let changes = database.run_difference(RunId(0), RunId(id)).await.expect("compared");
        let by = changes
            .iter()
            .map(|change| change.conversions_after.cast_signed() - change.conversions_before.cast_signed());
        let expected = live.len().cast_signed() as i64 + by.sum::<i64>();
        database.put_in_force(RunId(id)).await.expect("put in force");
        let runs = database.attribution_runs().await.expect("listed");
        let in_force: Vec<_> = runs.iter().filter(|run| run.is_current).map(|run| run.id.0).collect();
        assert_eq!(in_force, [id]);
        assert!(runs.iter().all(|run| run.state == RunState::Done));
        let decided = decisions(&database, id).await.len() as u64;
        let beside = if id == 1 { older } else { 0 };
        assert_eq!(number(&database, current).await, decided + beside, "run {id}");
        assert_eq!(number(&database, hourly).await, decided + beside, "run {id}");
        assert_eq!(i64::try_from(decided + beside).expect("small"), expected, "the difference says so");
    }
    database.put_in_force(RunId(0)).await.expect("put in force");
    assert_eq!(number(&database, current).await, live.len() as u64);
    assert_eq!(decisions(&database, 0).await, live, "nothing of it is lost");

    database.end_run(RunId(2), RunState::Failed).await.expect("ended");
    database.remove_run_rows(RunId(2)).await.expect("removed");
    assert_eq!(database.count_run(RunId(2)).await.expect("counted"), (0, 0));
    assert_eq!(decisions(&database, 0).await, live);
}
