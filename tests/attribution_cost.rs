//! What it costs to find the clicks of conversions, and how that grows with the number of clicks: measured in the engine's
//! own CPU time and rows read, which other work on the machine disturbs little.
//!
//! ```text
//! cargo nextest run --test attribution_cost --run-ignored only --no-capture
//! ```

mod support;

use std::time::Instant;

use support::engine::{NOVEMBER, fresh_database, number, sql};
use tally::{
    clickhouse::{Database, Visitors},
    core::{AccountId, ClickId, UnixMillis},
};

const DAY_MILLIS: i64 = 86_400_000;
/// Conversions that are decided together, and how often.
const BATCH: usize = 50_000;
const BATCHES: usize = 3;

#[derive(clickhouse::Row, serde::Deserialize)]
struct Sample {
    account_id: u32,
    visitor_key: u64,
    click_id: u64,
}

/// What the engine has spent so far: microseconds of CPU, rows.
async fn spent(database: &Database) -> (u64, u64) {
    let event =
        |name: &str| format!("SELECT ifNull(sum(value), 0) FROM system.events WHERE event = '{name}'");
    let cpu = number(database, &event("OSCPUVirtualTimeMicroseconds")).await;
    (cpu, number(database, &event("SelectedRows")).await)
}

/// Clicks of 20 accounts over 60 days, two a visitor, in blocks as the shipper might leave them after some merges.
async fn fill(database: &Database, from: u64, to: u64) {
    const BLOCK: u64 = 1_000_000;
    for start in (from..to).step_by(1_000_000) {
        let insert = format!(
            "INSERT INTO clicks (click_id, account_id, link_id, clicked_at, received_at, source, traffic, visitor_key, \
             utm_source, utm_medium, utm_campaign, variant, user_agent, labelled, batch_id) \
             SELECT bitOr(bitShiftLeft(toUInt64(at - 1577836800000), 12), number % 4096), 1 + number % 20, \
             1 + number % 500, fromUnixTimestamp64Milli(at, 'UTC'), fromUnixTimestamp64Milli(at, 'UTC'), 'redirect', \
             if(number % 10 = 9, 'bot', 'human'), sipHash64(number % 20, intDiv(at, 2592000000), intHash64(number) % {}), \
             ['google', 'facebook', 'mail'][1 + number % 3], 'cpc', concat('campaign-', toString(number % 200)), \
             ['A', 'B'][1 + number % 2], 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36', true, {} \
             FROM (SELECT number, toInt64({NOVEMBER} - 60 * {DAY_MILLIS} + intDiv(number * 60 * {DAY_MILLIS}, {to})) AS at \
             FROM numbers({start}, {BLOCK}))",
            to / 2,
            start / BLOCK + 1,
        );
        sql(database).query_raw(&insert).execute().await.expect("filled");
    }
    let parts = "SELECT count() FROM system.parts WHERE active AND table = 'clicks_by_visitor' AND database = currentDatabase()";
    println!("{to} clicks, {} parts of clicks_by_visitor", number(database, parts).await);
}

#[tokio::test]
#[ignore = "a measurement of minutes"]
async fn what_a_conversion_costs_among_a_million_clicks_and_among_twenty() {
    for clicks in [1_000_000u64, 20_000_000] {
        let database = fresh_database().await;
        fill(&database, 0, clicks).await;
        for batch in 0..BATCHES {
            let some = format!(
                "SELECT account_id, visitor_key, click_id FROM clicks WHERE traffic = 'human' \
                 AND cityHash64(click_id) % {} = {batch} LIMIT {BATCH}",
                clicks * 9 / 10 / BATCH as u64
            );
            let some: Vec<Sample> = sql(&database).query_raw(&some).fetch_all().await.expect("sampled");
            let count = u64::try_from(some.len()).expect("fits");
            // Each visitor is asked for under the key of another epoch too, in which it did not click.
            let mut keys: Vec<_> = some.iter().map(|of| (AccountId(of.account_id), of.visitor_key)).collect();
            keys.extend(some.iter().map(|of| (AccountId(of.account_id), of.visitor_key.reverse_bits())));
            let (from, to) = (UnixMillis(NOVEMBER - 60 * DAY_MILLIS), UnixMillis(NOVEMBER));
            let (before, start) = (spent(&database).await, Instant::now());
            let found = database.clicks_of(&Visitors { keys: keys.into(), from, to }).await.expect("found");
            tell("by visitor", start, before, spent(&database).await, count);
            assert!(found.len() >= some.len());

            let named: Vec<_> =
                some.iter().map(|of| (AccountId(of.account_id), ClickId(of.click_id))).collect();
            let (before, start) = (spent(&database).await, Instant::now());
            let found = database.clicks_named(&named).await.expect("found");
            tell("by number ", start, before, spent(&database).await, count);
            assert!(found.len() >= some.len());
        }
    }
}

fn tell(how: &str, start: Instant, before: (u64, u64), after: (u64, u64), conversions: u64) {
    let millis = start.elapsed().as_millis();
    let tenths = (after.0 - before.0) * 10 / conversions;
    println!(
        "{how}: {conversions} conversions, engine CPU {}.{} us each, {} rows read each, {millis} ms together",
        tenths / 10,
        tenths % 10,
        (after.1 - before.1) / conversions,
    );
}
