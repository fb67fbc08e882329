//! Funnels on a real ClickHouse, against a slow and obvious model of them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use support::engine::{Fresh, conversion, fresh_database, sql};
use tally::clickhouse::{Database, Insert};
use tally::clock::{Clock as _, SystemClock};
use tally::core::rows::{Table, encode_attribution, encode_click, encode_conversion};
use tally::core::{
    AccountId, Attribution, BatchId, Campaign, Click, ClickId, ClickSource, Conversion, ConversionId,
    CountedClick, CountedConversion, Earned, FunnelQuery, FunnelStep, GoalId, LinkId, Matching, Method,
    RunId, Traffic, Unattributed, UnixMillis,
};

const DAY: i64 = 86_400_000;
const EPOCH: i64 = 30 * DAY;
/// The start of an epoch.
const START: i64 = 692 * EPOCH;
const GOALS: [GoalId; 4] = [GoalId(1), GoalId(2), GoalId(3), GoalId(4)];

/// How a conversion says whose it is.
#[derive(Clone, Copy, Debug)]
enum By {
    /// A browser: by the keys of its visitor, as many days back as the attribution window reaches.
    Visitor {
        window_days: i64,
    },
    /// A server: by the click, of which there may be none.
    Click(usize),
    Nobody,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    person: u64,
    at: i64,
    goal: usize,
    by: By,
}

#[derive(Clone, Copy, Debug)]
struct Clicked {
    person: u64,
    at: i64,
    traffic: Traffic,
    private: bool,
}

#[derive(Clone, Debug)]
struct History {
    events: Vec<Event>,
    clicks: Vec<Clicked>,
}

/// What one question is about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    from: i64,
    days: i64,
    steps: usize,
    window_days: i64,
    strict: bool,
}

/// The key of a person's epoch.
fn key(person: u64, epoch: i64) -> u64 {
    1_000_000 + person * 10_000 + u64::try_from(epoch).expect("after 1970")
}

fn epoch(at: i64) -> i64 {
    at.div_euclid(EPOCH)
}

/// The number of the `n`th click; the same in every account.
fn click_id(n: usize) -> u64 {
    500 + n as u64
}

/// What says whose a conversion is, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Visitor(u64),
    Click(u64),
}

impl History {
    fn keys(&self, event: &Event) -> Vec<Key> {
        match event.by {
            By::Nobody => Vec::new(),
            By::Visitor { window_days } => visitor_keys(event, window_days).map(Key::Visitor).collect(),
            By::Click(n) => match self.clicks.get(n) {
                Some(click) if click.traffic == Traffic::Human && !click.private => {
                    vec![Key::Visitor(key(click.person, epoch(click.at)))]
                }
                _ => vec![Key::Click(click_id(n))],
            },
        }
    }

    /// The model: every way of every visitor, looked for one event at a time.
    fn funnel(&self, asked: Asked) -> Vec<(u64, Option<u64>)> {
        let (to, window) = (asked.from + asked.days * DAY, asked.window_days * DAY);
        let mut best: BTreeMap<Key, Vec<i64>> = BTreeMap::new();
        for entry in
            self.events.iter().filter(|event| event.goal == 0 && (asked.from..to).contains(&event.at))
        {
            let keys = self.keys(entry);
            let twos = usize::try_from((epoch(entry.at) - epoch(asked.from)) % 2).expect("0 or 1");
            let Some(visitor) = keys.get(twos).or(keys.last()) else { continue };
            for shared in &keys {
                let mut theirs: Vec<(i64, usize)> = self
                    .events
                    .iter()
                    .filter(|event| event.goal < asked.steps && self.keys(event).contains(shared))
                    .map(|event| (event.at, event.goal))
                    .collect();
                theirs.sort_unstable();
                let mut way = vec![entry.at];
                for step in 1..asked.steps {
                    let last = (way[step - 1], step - 1);
                    let counts = |goal: usize| if asked.strict { goal >= step } else { goal == step };
                    let next = theirs.iter().find(|(at, goal)| (*at, *goal) > last && counts(*goal));
                    match next {
                        Some((at, goal)) if *goal == step && *at - entry.at <= window => way.push(*at),
                        _ => break,
                    }
                }
                let known = best.entry(*visitor).or_default();
                let better = |way: &[i64], than: &[i64]| {
                    way.len() > than.len() || (way.len() == than.len() && way < than)
                };
                if better(&way, known) {
                    *known = way;
                }
            }
        }
        (0..asked.steps)
            .map(|step| {
                let came: Vec<&Vec<i64>> = best.values().filter(|way| way.len() > step).collect();
                let took: Vec<i64> =
                    came.iter().filter(|_| step > 0).map(|way| way[step] - way[step - 1]).collect();
                (came.len() as u64, median(took))
            })
            .collect()
    }
}

fn visitor_keys(event: &Event, window_days: i64) -> impl Iterator<Item = u64> {
    let oldest = epoch((event.at.div_euclid(1000) - window_days * 86_400) * 1000);
    let person = event.person;
    (oldest..=epoch(event.at)).rev().map(move |epoch| key(person, epoch))
}

/// Of milliseconds, in whole seconds: the mean of the middle two.
fn median(mut took: Vec<i64>) -> Option<u64> {
    took.sort_unstable();
    let last = took.len().checked_sub(1)?;
    let middle = took[last / 2] + took[last.div_ceil(2)];
    u64::try_from((middle + 1000) / 2000).ok()
}

/// Few persons and few different times, so that they meet, at the same millisecond too; over five epochs.
fn histories() -> impl Strategy<Value = History> {
    let at = (0..45i64, 0..3i64).prop_map(|(day, millis)| START - EPOCH + day * 3 * DAY + millis);
    let by = prop_oneof![
        4 => prop_oneof![Just(30i64), Just(7), Just(90)].prop_map(|window_days| By::Visitor { window_days }),
        2 => (0..6usize).prop_map(By::Click),
        1 => Just(By::Nobody),
    ];
    let event = (0..3u64, at.clone(), 0..GOALS.len(), by).prop_map(|(person, at, goal, by)| Event {
        person,
        at,
        goal,
        by,
    });
    let traffic = prop_oneof![4 => Just(Traffic::Human), 1 => Just(Traffic::Bot)];
    let click = (0..3u64, at, traffic, prop::bool::weighted(0.2))
        .prop_map(|(person, at, traffic, private)| Clicked { person, at, traffic, private });
    (prop::collection::vec(event, 1..40), prop::collection::vec(click, 0..5))
        .prop_map(|(events, clicks)| History { events, clicks })
}

fn questions() -> impl Strategy<Value = Asked> {
    let window = prop_oneof![Just(1i64), Just(6), Just(30), Just(60)];
    (0..70i64, 1..100i64, 2..=GOALS.len(), window).prop_map(|(day, days, steps, window_days)| Asked {
        from: START - 10 * DAY + day * DAY,
        days,
        steps,
        window_days,
        strict: false,
    })
}

/// Writes histories, each into an account of its own.
struct Writer {
    database: Fresh,
    accounts: AtomicU32,
}

impl Writer {
    async fn insert(&self, table: Table, token: String, rows: Vec<u8>) {
        if rows.is_empty() {
            return;
        }
        let rows = Bytes::from(rows);
        let insert = Insert { table, token: &token, log_comment: "tally-test", rows: &rows };
        self.database.insert(insert).await.expect("inserted");
    }

    /// Every second conversion is earned by link 7.
    async fn write(&self, history: &History) -> AccountId {
        let account = AccountId(1 + self.accounts.fetch_add(1, Ordering::Relaxed));
        let batch = BatchId(account.0.into());
        let (mut raw, mut owed, mut clicked) = (Vec::new(), Vec::new(), Vec::new());
        for (n, event) in history.events.iter().enumerate() {
            let counted = counted(account, n, event);
            encode_conversion(&counted, batch, &mut raw);
            encode_attribution(&counted, batch, &mut owed);
        }
        for (n, click) in history.clicks.iter().enumerate() {
            encode_click(&self::click(account, n, click), batch, &mut clicked);
        }
        self.insert(Table::Conversions, format!("c-{}", account.0), raw).await;
        self.insert(Table::Attributions, format!("a-{}", account.0), owed).await;
        self.insert(Table::Clicks, format!("k-{}", account.0), clicked).await;
        account
    }

    async fn ask(&self, account: AccountId, asked: Asked, link_id: Option<LinkId>) -> Vec<FunnelStep> {
        let query = FunnelQuery {
            account_id: account,
            goals: GOALS[..asked.steps].to_vec(),
            link_id,
            from: UnixMillis(asked.from),
            to: UnixMillis(asked.from + asked.days * DAY),
            window_seconds: u32::try_from(asked.window_days * 86_400).expect("fits"),
            strict: asked.strict,
        };
        self.database.funnel(&query).await.expect("answered")
    }
}

fn counted(account: AccountId, n: usize, event: &Event) -> CountedConversion {
    let n = u32::try_from(n).expect("few");
    let sample = conversion(n);
    let (matching, click_id) = match event.by {
        By::Nobody => (Matching::PrivateAddress, None),
        By::Click(n) => (Matching::Unknown, Some(ClickId(click_id(n)))),
        By::Visitor { window_days } => (Matching::Keys(visitor_keys(event, window_days).collect()), None),
    };
    let conversion = Conversion {
        id: ConversionId(uuid::Uuid::now_v7()),
        account_id: account,
        goal_id: GOALS[event.goal],
        key: None,
        received_at: now(),
        converted_at: UnixMillis(event.at),
        matching,
        click_id,
        // A server's own, where a click is named: nothing must rest on it.
        visitor_key: 77,
        ..sample
    };
    let earned = n.is_multiple_of(2).then(|| Earned {
        method: Method::ClickId,
        click_id: ClickId(900),
        link_id: Some(LinkId(7)),
        clicked_at: UnixMillis(event.at),
        seconds_to_convert: 0,
        campaign: Campaign::default(),
        variant: String::new(),
        labelled: true,
    });
    let outcome = earned.ok_or(Unattributed::NoVisitor);
    CountedConversion { conversion, attribution: Attribution { outcome, candidates: 1 }, run: RunId(0) }
}

fn click(account: AccountId, n: usize, of: &Clicked) -> CountedClick {
    let click = Click {
        id: ClickId(click_id(n)),
        account_id: account,
        link_id: Some(LinkId(7)),
        key: None,
        clicked_at: UnixMillis(of.at),
        received_at: now(),
        source: ClickSource::Redirect,
        traffic: of.traffic,
        campaign: Campaign::default(),
        variant: String::new(),
        subs: std::array::from_fn(|_| String::new()),
        ip: None,
        user_agent: String::new(),
        visitor_key: key(of.person, epoch(of.at)),
        private_address: of.private,
        unverified: false,
    };
    CountedClick { click, labelled: true }
}

/// Visitors' keys are kept for 400 days after a conversion came, by the engine's clock.
fn now() -> UnixMillis {
    SystemClock.now()
}

fn counts(steps: &[FunnelStep]) -> Vec<(u64, Option<u64>)> {
    steps.iter().map(|step| (step.visitors, step.median_seconds_from_previous)).collect()
}

/// One engine for all of it: a visitor who crosses an epoch, accounts beside each other, and random histories.
#[test]
fn funnels_are_those_of_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let writer = Writer { database: runtime.block_on(fresh_database()), accounts: AtomicU32::new(0) };
    runtime.block_on(known_histories(&writer));
    runtime.block_on(like_window_funnel(&writer));
    let config = ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let both = (histories(), prop::collection::vec(questions(), 2));
    let outcome = runner.run(&both, |(history, questions)| {
        runtime.block_on(async {
            let account = writer.write(&history).await;
            for (asked, strict) in questions.iter().flat_map(|asked| [(asked, false), (asked, true)]) {
                let asked = Asked { strict, ..*asked };
                let steps = writer.ask(account, asked, None).await;
                prop_assert_eq!(counts(&steps), history.funnel(asked), "{:?}", asked);
                let everybody = in_period(&history, asked);
                let found: Vec<_> =
                    steps.iter().map(|step| (step.conversions, step.conversions_without_visitor)).collect();
                prop_assert_eq!(found, everybody);
            }
            let asked = questions[0];
            let earned = History {
                events: history.events.iter().step_by(2).copied().collect(),
                clicks: history.clicks.clone(),
            };
            let steps = writer.ask(account, asked, Some(LinkId(7))).await;
            prop_assert_eq!(counts(&steps), earned.funnel(asked), "of a link, {:?}", asked);
            Ok(())
        })
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

fn cases() -> u32 {
    std::env::var("TALLY_FUNNEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(8)
}

fn in_period(history: &History, asked: Asked) -> Vec<(u64, u64)> {
    let period = asked.from..asked.from + asked.days * DAY;
    (0..asked.steps)
        .map(|goal| {
            let of =
                || history.events.iter().filter(|event| event.goal == goal && period.contains(&event.at));
            let unknown = of().filter(|event| matches!(event.by, By::Nobody));
            (of().count() as u64, unknown.count() as u64)
        })
        .collect()
}

/// What must hold whatever the model says.
async fn known_histories(writer: &Writer) {
    let by = By::Visitor { window_days: 30 };
    let event = |person, at, goal, by| Event { person, at, goal, by };
    // Person 1 signs up an hour before an epoch ends and buys two hours later; again the day after. Person 2 comes by a
    // click of the old epoch that a server names later. Person 3 buys without signing up.
    let history = History {
        events: vec![
            event(1, START - 3_600_000, 0, by),
            event(1, START + 3_600_000, 1, by),
            event(1, START + DAY, 0, by),
            event(1, START + DAY + 60_000, 1, by),
            event(2, START + 10, 0, by),
            event(2, START + 20_010, 1, By::Click(0)),
            event(3, START + 5, 1, by),
            event(3, START + 5, 0, By::Nobody),
        ],
        clicks: vec![Clicked { person: 2, at: START - 5, traffic: Traffic::Human, private: false }],
    };
    let account = writer.write(&history).await;
    let asked = Asked { from: START - 5 * DAY, days: 30, steps: 2, window_days: 7, strict: false };
    let steps = writer.ask(account, asked, None).await;
    assert_eq!(counts(&steps), [(2, None), (2, Some(3610))], "each once, over the end of the epoch");
    assert_eq!((steps[0].conversions, steps[0].conversions_without_visitor), (4, 1));
    assert_eq!(counts(&steps), history.funnel(asked));
    let none = writer.ask(AccountId(999_999), asked, None).await;
    assert_eq!(counts(&none), [(0, None), (0, None)], "another account sees nothing");

    // Strict: the third goal before the second ends the way; repeating a step does not.
    let history = History {
        events: vec![
            event(1, START, 0, by),
            event(1, START + 1000, 2, by),
            event(1, START + 2000, 1, by),
            event(1, START + 3000, 2, by),
            event(2, START, 0, by),
            event(2, START + 1000, 0, by),
            event(2, START + 2000, 1, by),
            event(2, START + 3000, 0, by),
            event(2, START + 4000, 2, by),
        ],
        clicks: Vec::new(),
    };
    let account = writer.write(&history).await;
    let asked = Asked { from: START, days: 1, steps: 3, window_days: 1, strict: false };
    let visitors = |steps: &[FunnelStep]| steps.iter().map(|step| step.visitors).collect::<Vec<_>>();
    assert_eq!(visitors(&writer.ask(account, asked, None).await), [2, 2, 2]);
    let strict = Asked { strict: true, ..asked };
    assert_eq!(visitors(&writer.ask(account, strict, None).await), [2, 1, 1]);
}

/// Within one epoch, where every visitor has one key, the counts are those of ClickHouse's own function.
async fn like_window_funnel(writer: &Writer) {
    let mut runner = TestRunner::deterministic();
    let events = prop::collection::vec((0..12u64, 0..40i64, 0..GOALS.len()), 200..201);
    for _ in 0..3 {
        let drawn = events.new_tree(&mut runner).expect("drawn").current();
        let by = By::Visitor { window_days: 1 };
        let event =
            |(person, hours, goal)| Event { person, at: START + 2 * DAY + hours * 3_600_000, goal, by };
        let history = History { events: drawn.into_iter().map(event).collect(), clicks: Vec::new() };
        let account = writer.write(&history).await;
        let asked = Asked { from: START + 2 * DAY, days: 2, steps: 4, window_days: 1, strict: false };
        let levels = levels(&writer.database, account, asked.window_days * DAY).await;
        let expected: Vec<u64> =
            (1..=4).map(|step| levels.iter().filter(|level| **level >= step).count() as u64).collect();
        let steps = writer.ask(account, asked, None).await;
        assert_eq!(steps.iter().map(|step| step.visitors).collect::<Vec<_>>(), expected);
        assert!(levels.iter().collect::<BTreeSet<_>>().len() > 1, "{levels:?} tell something");
    }
}

async fn levels(database: &Database, account: AccountId, window: i64) -> Vec<u8> {
    let query = format!(
        "SELECT windowFunnel({window})(toUInt64(toUnixTimestamp64Milli(converted_at)), goal_id = 1, goal_id = 2, \
             goal_id = 3, goal_id = 4) FROM conversions WHERE account_id = {} GROUP BY visitor_keys[1]",
        account.0
    );
    sql(database).query_raw(&query).fetch_all::<u8>().await.expect("answered")
}

/// What a funnel costs: prints the time that one over `TALLY_FUNNEL_MILLIONS` conversions (1) takes.
#[test]
#[ignore = "measures; run it with --run-ignored only --no-capture"]
fn a_funnel_over_millions() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let writer = Writer { database: fresh_database().await, accounts: AtomicU32::new(0) };
        // A sign-up of each visitor, half of them view, a quarter buys; each conversion with two keys.
        let millions: u64 = std::env::var("TALLY_FUNNEL_MILLIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        let fill = format!(
            "INSERT INTO conversions (conversion_id, account_id, goal_id, value, currency, received_at, converted_at, \
                 visitor_keys) \
             SELECT generateUUIDv4(), 1, goal, 1, 'USD', now64(3), \
                 fromUnixTimestamp64Milli({START} + toInt64((n * 7919) % 1728000000 + goal * 60000)), \
                 [cityHash64(n), cityHash64(n, 1)] \
             FROM (SELECT number AS n FROM numbers({})) \
             ARRAY JOIN arrayFilter(g -> n % (1 + (g > 1) + 2 * (g > 2)) = 0, [1, 2, 3]) AS goal",
            millions * 4_000_000 / 7
        );
        sql(&writer.database).query_raw(&fill).execute().await.expect("filled");
        let asked = Asked { from: START, days: 30, steps: 3, window_days: 7, strict: false };
        for strict in [false, true] {
            let started = std::time::Instant::now();
            let steps = writer.ask(AccountId(1), Asked { strict, ..asked }, None).await;
            println!("strict {strict}: {:?} of {millions} million conversions: {:?}", started.elapsed(), counts(&steps));
        }
    });
}
