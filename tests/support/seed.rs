//! Many rows at once, made by ClickHouse itself.

use super::daemon::Site;
use super::http::{agent, read};

/// A statement of the daemon's own user on its embedded engine.
pub fn run(site: &Site, statement: &str) -> String {
    let (status, text) = try_run(site, statement).expect("an answer");
    assert_eq!(status, 200, "{statement}: {text}");
    text
}

/// Its status and what it says; none: the engine is not there.
pub fn try_run(site: &Site, statement: &str) -> Option<(u16, String)> {
    let url = std::fs::read_to_string(site.data_dir().join("writer.url")).expect("a URL");
    let (login, rest) = url.trim().strip_prefix("http://").and_then(|it| it.split_once('@')).expect("a URL");
    let (user, password) = login.split_once(':').expect("a login");
    let request = agent().post(format!("http://{rest}")).header("X-ClickHouse-User", user);
    let answer = read(request.header("X-ClickHouse-Key", password).send(statement).ok()?).ok()?;
    Some((answer.status, answer.text()))
}

/// Waits until the tables are there: the daemon is ready without them.
pub fn wait_for_schema(site: &Site) {
    super::wait_for("the schema", || {
        try_run(site, "SELECT count() FROM system.tables WHERE name = 'deliveries'")
            .is_some_and(|(_, count)| count.trim() == "1")
    });
}

/// `count` conversions of account 1 over thirty days from 2026-10-01 on, of six goals, three of five with a click that
/// earned them, one in fifty with a refund. Of batch 0, before all that the daemon cuts.
pub fn conversions(site: &Site, count: u64) {
    const PART: u64 = 1_250_000;
    wait_for_schema(site);
    for from in (0..count).step_by(usize::try_from(PART).expect("small")) {
        let rows = PART.min(count - from);
        run(
            site,
            &format!(
                "INSERT INTO conversions (conversion_id, account_id, goal_id, order_id, order_key, key_scope, value, \
                 currency, received_at, converted_at, window_seconds, source, click_id, ip, user_agent, \
                 attribution_method, attribution_reason, candidates, batch_id) \
             SELECT toUUID(concat(substring(h, 1, 8), '-', substring(h, 9, 4), '-7', substring(r, 1, 3), '-8', \
                     substring(r, 4, 3), '-', substring(r, 5, 12))), 1, 1 + n % 6, concat('ORDER-', toString(n)), \
                 n + 1, 'forever', toDecimal64(10 + n % 10000 / 100, 6), ['USD', 'EUR', 'GBP'][1 + n % 3], at, at, \
                 2592000, 'postback', if(n % 5 < 3, 1000000000 + n, 0), toIPv6('203.0.113.0'), \
                 concat('Mozilla/5.0 (X11; Linux x86_64) Chrome/', toString(100 + n % 40), '.0 Safari/537.36'), \
                 if(n % 5 < 3, 'click_id', 'none'), if(n % 5 < 3, '', 'no_candidate'), n % 5 < 3, 0 \
             FROM (SELECT number + {from} AS n, 1790812800000 + intDiv(n * 2592000000, {count}) AS ms, \
                 fromUnixTimestamp64Milli(toInt64(ms), 'UTC') AS at, leftPad(lower(hex(toUInt64(ms))), 12, '0') AS h, \
                 lower(hex(sipHash128(n))) AS r FROM numbers({rows})) \
             SETTINGS max_memory_usage = 1500000000"
            ),
        );
        run(
            site,
            &format!(
                "INSERT INTO attributions (run_id, account_id, goal_id, conversion_id, converted_at, received_at, value, \
                 currency, candidates, batch_id, method, click_id, link_id, clicked_at, seconds_to_convert, \
                 utm_source, utm_medium, utm_campaign, variant, labelled) \
             SELECT 0, account_id, goal_id, conversion_id, converted_at, received_at, value, currency, 1, 0, 'click_id', \
                 click_id, 1 + click_id % 50, converted_at - 3600, 3600, ['google', 'mail', 'meta'][1 + click_id % 3], \
                 'cpc', concat('campaign-', toString(click_id % 20)), ['A', 'B'][1 + click_id % 2], true \
             FROM conversions WHERE attribution_method = 'click_id' AND click_id >= 1000000000 + {from} \
                 AND click_id < 1000000000 + {from} + {rows} \
             SETTINGS max_memory_usage = 1500000000, max_insert_block_size = 200000, max_threads = 1"
            ),
        );
    }
    run(
        site,
        "INSERT INTO adjustments (adjustment_id, account_id, goal_id, conversion_id, kind, value, currency, \
             received_at, converted_at, net_value_change, batch_id) \
         SELECT generateUUIDv7(), account_id, goal_id, conversion_id, 'refund', 5, currency, received_at, converted_at, \
             -5, 0 FROM conversions WHERE cityHash64(order_id) % 50 = 0",
    );
}
