//! A start that finds a million unsettled hits in the log: every one is counted as pending, and every key is known
//! before the first hit comes, without ClickHouse.

mod support;

use std::path::Path;
use std::time::Instant;

use loadtest::request::Goal;
use serde_json::Value;
use support::daemon::Site;
use support::wait_for;
use tally::clock::{Clock as _, SystemClock};
use tally::core::{
    AccountId, Conversion, ConversionId, Currency, DedupScope, GoalId, Matching, Money, OrderId, Source,
    UnixMillis, payload,
};
use tally::dedup::{KeyHasher, SECRET_BYTES};
use tally::wal::{self, AppendError, Wal};

const HITS: u32 = 1_000_000;
/// What the daemon itself uses.
const SEGMENT_BYTES: u64 = 64 << 20;

#[test]
fn a_million_spooled_hits_are_recovered() {
    let port = support::port::Port::reserve();
    let nobody = format!("http://{}", port.address());
    let mut site = Site::start(&["--clickhouse-url", &nobody]);
    let goal = site.goals(1).remove(0);
    site.kill();
    spool(site.data_dir(), &goal);

    let start = Instant::now();
    site.restart();
    println!("{HITS} spooled hits: ready {:?} after the process was started", start.elapsed());
    assert!(
        site.log().contains(&format!("records={HITS}")),
        "the log says how many were read back:\n{}",
        site.log()
    );
    wait_for("the count of keys", || site.metric("tally_keys_in_flight") == Some(f64::from(HITS)));

    // First, last, and some from in between: a copy is a duplicate of the very hit that was spooled.
    for n in (0..HITS).step_by(9_973).chain([HITS - 1]) {
        let copy = site.track(&goal, &order(n));
        let body: Value = serde_json::from_slice(&copy.body).expect("JSON");
        assert_eq!(copy.status, 200, "copy of {n}: {body}");
        assert_eq!(body["data"]["conversion_id"], id(n).to_string(), "copy of {n}");
    }
    let new = site.track(&goal, "NEVER-SEEN");
    assert_eq!(new.status, 202, "a new order is told from them, as far as the log goes: {}", new.text());
}

/// Writes the log that a daemon would have left that took the hits while ClickHouse was down.
fn spool(data_dir: &Path, goal: &Goal) {
    let secret: [u8; SECRET_BYTES] =
        std::fs::read(data_dir.join("secret.key")).expect("there").try_into().expect("a key");
    let hasher = KeyHasher::new(&secret);
    let goal = GoalId(u32::try_from(goal.id).expect("fits"));
    let config = wal::Config {
        dir: data_dir.join(tally::app::LOG_FOLDER),
        segment_bytes: SEGMENT_BYTES,
        spool_bytes_max: 8 << 30,
        disk_free_bytes_min: 0,
        appenders: 1,
    };
    let wal = Wal::open(config, wal::Position::START).expect("the log opens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let appender = wal.appender(0);
        let pump = tokio::spawn(appender.pump());
        let now = SystemClock.now();
        let mut last = None;
        for n in 0..HITS {
            let conversion = conversion(n, goal, now, &hasher);
            loop {
                match appender.append(|out| payload::encode_conversion(&conversion, out)) {
                    Ok(ticket) => break last = Some(ticket),
                    Err(AppendError::Overloaded) => wal.wait(last.expect("taken")).await.expect("durable"),
                    Err(error) => panic!("{error}"),
                }
            }
            if n % 1_000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        wal.wait(last.expect("taken")).await.expect("durable");
        pump.abort();
    });
    wal.close();
}

fn conversion(n: u32, goal: GoalId, now: UnixMillis, hasher: &KeyHasher) -> Conversion {
    let order_id = order(n);
    Conversion {
        id: id(n),
        account_id: AccountId(1),
        goal_id: goal,
        key: Some((hasher.order(goal, DedupScope::Forever, &order_id), DedupScope::Forever)),
        order_id: OrderId::parse(&order_id).expect("fits"),
        value: Money::from_micros(12_500_000).expect("fits"),
        currency: Currency::parse("EUR").expect("known"),
        received_at: now,
        converted_at: now,
        window_seconds: 30 * 86_400,
        matching: Matching::Unknown,
        source: Source::Postback,
        click_id: None,
        ip: None,
        user_agent: "Mozilla/5.0".to_owned(),
        visitor_key: 0,
        unverified: true,
    }
}

fn order(n: u32) -> String {
    format!("SPOOLED-{n}")
}

fn id(n: u32) -> ConversionId {
    ConversionId(uuid::Uuid::from_u128(7 << 76 | 2 << 62 | u128::from(n)))
}
