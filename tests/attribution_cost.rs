//! What a conversion costs from the log to the tables, and how that grows with the number of clicks among which its own is
//! found: CPU time of the shipper and of the engine, which other work on the machine disturbs little. A million clicks and
//! twenty take turns.
//!
//! ```text
//! cargo nextest run --release --test attribution_cost --run-ignored only --no-capture
//! ```

mod support;

use std::{
    collections::BTreeMap,
    fs,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use support::{
    engine::{Fresh, NOVEMBER, conversion, fresh_database, number, sql},
    records::click,
};
use tally::{
    clickhouse::{Database, Timeouts, Visitors},
    clock::Clock,
    core::{AccountId, ClickId, Conversion, Matching, Record, UnixMillis, payload},
    shipper::{Config, Folder, Shipper, recover},
    wal::{self, Position, Wal},
};
use tokio_util::sync::CancellationToken;

const DAY_MILLIS: i64 = 86_400_000;
/// Conversions that come at a time, and how often.
const COUNT: u64 = 50_000;
const ROUNDS: u64 = 3;

/// An hour after every conversion.
struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(NOVEMBER + 3_600_000)
    }
}

/// How a conversion finds its click.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Number,
    /// Under one of two keys, as most conversions are looked for.
    Visitor,
    /// Under neither.
    Stranger,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct Sample {
    account_id: u32,
    visitor_key: u64,
    click_id: u64,
}

struct Rig {
    clicks: u64,
    folder: tempfile::TempDir,
    wal: Wal,
    database: Fresh,
    appended: u64,
    shipper: Option<(CancellationToken, JoinHandle<()>)>,
}

/// Microseconds of CPU.
#[derive(Clone, Copy, Debug)]
struct Spent {
    shipper: u64,
    engine: u64,
}

impl Rig {
    async fn new(clicks: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = wal::Config {
            dir: folder.path().join("wal"),
            segment_bytes: 1 << 24,
            spool_bytes_max: 1 << 30,
            disk_free_bytes_min: 0,
            appenders: 1,
        };
        let wal = Wal::open(config, Position::START).expect("the log opens");
        tokio::spawn(wal.appender(0).pump());
        let mut rig =
            Self { clicks, folder, wal, database: fresh_database().await, appended: 0, shipper: None };
        // Something is settled, so that what is filled in below counts as settled before.
        rig.start();
        rig.ship(vec![Record::Click(click(1))]).await;
        rig.stop();
        fill(&rig.database, clicks).await;
        let start = Instant::now();
        rig.start();
        let manifest = rig.folder.path().join("past-clicks/manifest.json");
        wait("the files", || manifest.exists()).await;
        println!("{clicks} clicks read into files in {} s", start.elapsed().as_secs());
        rig
    }

    fn start(&mut self) {
        let (folder, wal) = (Folder::new(self.folder.path()), self.wal.clone());
        folder.initialise().expect("initialised");
        let ledger = recover(&folder, &wal, |_, _| ()).expect("recovered").ledger;
        let endpoint = self.database.endpoint().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let database = Database::new(endpoint, Timeouts::default());
                let settled = Box::new(|_: &[_], _| ());
                let shipper =
                    Shipper::new(Config::default(), folder, wal, database, Box::new(Still), ledger, settled);
                shipper.run(stopped).await.expect("no error");
            });
        };
        let thread = std::thread::Builder::new().name(self.thread_name()).spawn(work).expect("a thread");
        self.shipper = Some((stop, thread));
    }

    fn thread_name(&self) -> String {
        format!("ship-{}", self.clicks)
    }

    fn stop(&mut self) {
        if let Some((stop, thread)) = self.shipper.take() {
            stop.cancel();
            thread.join().expect("no panic");
        }
    }

    /// Appends records, and waits until they are settled.
    async fn ship(&mut self, records: Vec<Record>) {
        self.appended += records.len() as u64;
        for some in records.chunks(500) {
            let (wal, some) = (self.wal.clone(), some.to_vec());
            let append = async move {
                let take = |record: &Record| wal.appender(0).append(|out| payload::encode(record, out));
                some.iter().map(|record| take(record).expect("taken")).collect::<Vec<_>>()
            };
            for ticket in tokio::spawn(append).await.expect("no panic") {
                self.wal.wait(ticket).await.expect("durable");
            }
        }
        let folder = Folder::new(self.folder.path());
        let settled = || folder.load_checkpoint().expect("readable").position.lsn >= self.appended;
        wait("the batch", settled).await;
    }

    /// Conversions of clicks at random.
    async fn conversions(&self, how: How, round: u64) -> Vec<Record> {
        let sample = format!(
            "SELECT account_id, visitor_key, click_id FROM clicks WHERE traffic = 'human' AND batch_id < 1000 \
             AND cityHash64(click_id, {round}) % {} = 0 LIMIT {COUNT}",
            self.clicks * 9 / 10 / COUNT
        );
        let some: Vec<Sample> = sql(&self.database).query_raw(&sample).fetch_all().await.expect("sampled");
        let of = |(n, sample): (usize, Sample)| {
            let n = u32::try_from(self.appended).expect("few") + u32::try_from(n).expect("few");
            let Sample { account_id, visitor_key: key, click_id } = sample;
            let keys = match how {
                How::Stranger => vec![key.reverse_bits(), key.swap_bytes()],
                _ => vec![key.reverse_bits(), key],
            };
            let at = UnixMillis(NOVEMBER);
            Record::Conversion(Conversion {
                account_id: AccountId(account_id),
                click_id: (how == How::Number).then_some(ClickId(click_id)),
                matching: Matching::Keys(keys),
                converted_at: at,
                received_at: at,
                window_seconds: 61 * 86_400,
                ..conversion(n)
            })
        };
        some.into_iter().enumerate().map(of).collect()
    }

    async fn spent(&self) -> Spent {
        let sum =
            "SELECT ifNull(sum(value), 0) FROM system.events WHERE event = 'OSCPUVirtualTimeMicroseconds'";
        let engine = number(&self.database, sum).await;
        let tasks = fs::read_dir("/proc/self/task").expect("Linux");
        let of_shipper = tasks.filter_map(|task| {
            let task = task.ok()?.path();
            let name = fs::read_to_string(task.join("comm")).ok()?;
            (name.trim() == self.thread_name()).then_some(())?;
            let stat = fs::read_to_string(task.join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        Spent { shipper: of_shipper.sum::<u64>() / 1000, engine }
    }
}

/// Clicks of 20 accounts over 60 days, two a visitor, in blocks as the shipper might leave them after some merges.
async fn fill(database: &Database, clicks: u64) {
    const BLOCK: u64 = 1_000_000;
    for start in (0..clicks).step_by(1_000_000) {
        let insert = format!(
            "INSERT INTO clicks (click_id, account_id, link_id, clicked_at, received_at, source, traffic, visitor_key, \
             utm_source, utm_medium, utm_campaign, variant, user_agent, labelled, batch_id) \
             SELECT bitOr(bitShiftLeft(toUInt64(at - 1577836800000), 12), number % 4096), 1 + number % 20, \
             1 + number % 500, fromUnixTimestamp64Milli(at, 'UTC'), fromUnixTimestamp64Milli(at, 'UTC'), 'redirect', \
             if(number % 10 = 9, 'bot', 'human'), sipHash64(number % 20, intDiv(at, 2592000000), intHash64(number) % {}), \
             ['google', 'facebook', 'mail'][1 + number % 3], 'cpc', concat('campaign-', toString(number % 200)), \
             ['A', 'B'][1 + number % 2], 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36', true, {} \
             FROM (SELECT number, toInt64({NOVEMBER} - 60 * {DAY_MILLIS} + intDiv(number * 60 * {DAY_MILLIS}, {clicks})) AS at \
             FROM numbers({start}, {BLOCK}))",
            clicks / 2,
            start / BLOCK + 1,
        );
        sql(database).query_raw(&insert).execute().await.expect("filled");
    }
}

async fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_mins(20), "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "a measurement of minutes"]
async fn what_a_conversion_costs_among_a_million_clicks_and_among_twenty() {
    let mut rigs = [Rig::new(1_000_000).await, Rig::new(20_000_000).await];
    let mut totals = BTreeMap::<(How, u64), Vec<u64>>::new();
    // The first round warms up.
    for round in 0..=ROUNDS {
        for how in [How::Number, How::Visitor, How::Stranger] {
            for rig in &mut rigs {
                let records = rig.conversions(how, round).await;
                let count = records.len() as u64;
                let before = rig.spent().await;
                rig.ship(records).await;
                let after = rig.spent().await;
                let tenths = |of: fn(&Spent) -> u64| (of(&after) - of(&before)) * 10 / count;
                let (shipper, engine) = (tenths(|of| of.shipper), tenths(|of| of.engine));
                println!(
                    "{how:?} among {:>8} clicks: shipper {} + engine {} tenths of a us for each of {count}",
                    rig.clicks, shipper, engine
                );
                if round > 0 {
                    totals.entry((how, rig.clicks)).or_default().push(shipper + engine);
                }
            }
        }
    }
    for how in [How::Number, How::Visitor, How::Stranger] {
        let [few, many] = rigs.each_ref().map(|rig| {
            let mut of = totals[&(how, rig.clicks)].clone();
            of.sort_unstable();
            of[of.len() / 2]
        });
        println!("{how:?}: {few} to {many} tenths of a us a conversion: {} %", many * 100 / few);
    }
    for rig in &mut rigs {
        rig.stop();
        by_queries(rig).await;
    }
}

/// The same look-ups without the files: what ClickHouse spends on them.
async fn by_queries(rig: &Rig) {
    let records = rig.conversions(How::Visitor, 99).await;
    let mut keys = Vec::new();
    for record in &records {
        let Record::Conversion(Conversion { account_id, matching: Matching::Keys(of), .. }) = record else {
            continue;
        };
        keys.extend(of.iter().map(|key| (*account_id, *key)));
    }
    let (from, to) = (UnixMillis(NOVEMBER - 90 * DAY_MILLIS), UnixMillis(NOVEMBER));
    let before = rig.spent().await;
    let found = rig.database.clicks_of(&Visitors { keys: keys.into(), from, to }).await.expect("found");
    let engine = rig.spent().await.engine - before.engine;
    println!(
        "by a query among {} clicks: engine {} us for each of {} conversions, {} clicks",
        rig.clicks,
        engine / COUNT,
        records.len(),
        found.len()
    );
}
