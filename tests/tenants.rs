//! Invariant 8: what one account asks for never takes what others need. Its reports wait for each other, not the reports
//! and the hits of other accounts; what it is refused says why and when to come back.

mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::command::{data, post};
use support::daemon::Site;
use support::engine::{NOVEMBER, fresh_database, number, sql};
use support::http::agent;
use support::{DEADLINE, seed, wait_for};
use tally::clickhouse::{Database, Timeouts};
use tally::core::{AccountId, HealthQuery, UnixMillis};

/// Callers that ask for funnels at once.
const CALLERS: usize = 44;
/// Conversions of the funnels, of a tenth as many visitors.
const CONVERSIONS: u32 = 60_000;
const GOALS: usize = 8;
/// Long before they were told to, the callers come back.
const IMPATIENCE: Duration = Duration::from_millis(100);

#[test]
fn one_accounts_reports_leave_the_database_to_the_others() {
    let site = Site::start(&["--api-rate-limit-per-minute", "0"]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    let (other, goals) = busy_account(&site);
    let goals: Vec<String> = goals.iter().map(u64::to_string).collect();
    let funnel = format!("/api/v1/analytics/funnel?days=30&goals={}", goals.join(","));
    let flood = Flood::default();
    std::thread::scope(|scope| {
        let _ends = flood.ends_on_drop();
        for _ in 0..CALLERS {
            scope.spawn(|| flood.run(&site, &other, &funnel));
        }
        wait_for("more funnels than may wait", || flood.count(429) > 0);
        for round in 1..=5u64 {
            // What is inserted is inserted under the flood: nothing ends before the scope does.
            assert_eq!(site.track(&goal, &format!("ORDER-{round}")).status, 201);
            site.wait_inserted(round);
            let report = site.api("/api/v1/analytics/conversions?days=2");
            assert!(report["data"]["conversions"].is_u64(), "{report}");
            site.api("/api/v1/conversions/rejections");
            site.api("/api/v1/analytics/health");
        }
        wait_for("funnels of the busy account", || flood.count(200) >= 3);
    });
    let statuses = flood.statuses.into_inner().expect("no panic");
    println!("the busy account was answered {statuses:?}");
    let expected = |(status, retry_after): &(u16, bool)| *status == 200 || (*status == 429 && *retry_after);
    assert!(statuses.keys().all(expected), "200, or 429 with Retry-After: {statuses:?}");
    assert!(site.metric("tally_reports_refused_total{reason=\"queue_full\"}") > Some(0.0));

    // What takes longer than a report may is refused with what to narrow, and others are answered meanwhile.
    seed::run(&site, SLOW_VIEW);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(&site, &other, "/api/v1/analytics/health"));
        wait_for("the slow report", || site.metric("tally_reports_running") == Some(1.0));
        // It does not read the view that is slow.
        site.api("/api/v1/conversions/rejections");
        let (status, _, refused) = slow.join().expect("no panic");
        assert_eq!((status, &refused["error"]["code"]), (422, &json!("report_too_expensive")), "{refused}");
        let message = refused["error"]["message"].as_str().expect("text");
        assert!(message.contains("shorter period"), "it says what to narrow: {message}");
    });
}

/// A view that every report of health reads first; here it takes ten minutes, a tenth of a second at a time.
const SLOW_VIEW: &str = "CREATE OR REPLACE VIEW attribution_in_force AS \
    SELECT toUInt32(max(sleepEachRow(0.1))) AS run_id, toDateTime64(0, 3, 'UTC') AS since FROM numbers(6000) \
    SETTINGS max_block_size = 1";

#[tokio::test]
async fn a_report_that_is_given_up_is_killed_in_the_database() {
    let fresh = fresh_database().await;
    sql(&fresh).query_raw(SLOW_VIEW).execute().await.expect("replaced");
    let timeouts = Timeouts { read: Duration::from_mins(10), ..Timeouts::default() };
    let database = Database::new(fresh.endpoint().clone(), timeouts);
    let query = HealthQuery {
        account_id: AccountId(1),
        goal_id: None,
        from: UnixMillis(NOVEMBER),
        to: UnixMillis(NOVEMBER + 1000),
    };
    let report = tokio::spawn(async move { database.health(&query).await });
    wait_for_statements(&fresh, 1).await;
    report.abort();
    wait_for_statements(&fresh, 0).await;
}

/// Waits until that many statements read the view.
async fn wait_for_statements(database: &Database, count: u64) {
    let running = "SELECT count() FROM system.processes WHERE query LIKE '%attribution_in_force%' \
                   AND query NOT LIKE '%system.processes%'";
    let deadline = Instant::now() + DEADLINE;
    while number(database, running).await != count {
        assert!(Instant::now() < deadline, "{count} statements did not come about in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A second account with goals, and conversions of the last days that their funnels take long to count.
fn busy_account(site: &Site) -> (String, Vec<u64>) {
    let account = json!({"account": {"name": "busy", "plan": "enterprise"}});
    let (status, made) = data(&post(site, "/api/v1/accounts", &account, None));
    assert_eq!(status, 201, "{made}");
    let (key, id) = (made["api_key"].as_str().expect("a key").to_owned(), &made["account_id"]);
    let url = format!("http://{}/api/v1/conversions/goals", site.daemon.options.listen);
    let goals: Vec<u64> = (1..=GOALS)
        .map(|n| {
            let goal = json!({"goal": {"name": format!("step {n}"), "attribution_window_days": 30}});
            let request = agent().post(&url).header("Authorization", format!("Bearer {key}"));
            let answer = support::http::read(request.send_json(goal).expect("an answer")).expect("a body");
            data(&answer).1["id"].as_u64().unwrap_or_else(|| panic!("{}", answer.text()))
        })
        .collect();
    seed::wait_for_schema(site);
    seed::run(
        site,
        &format!(
            "INSERT INTO conversions (conversion_id, account_id, goal_id, value, currency, received_at, converted_at, \
                 window_seconds, source, visitor_key, visitor_keys, batch_id) \
             SELECT generateUUIDv7(), {id}, {goals:?}[1 + number % {GOALS}], 1, 'EUR', at, at, 2592000, 'postback', v, \
                 [v, v + 1000000], 0 \
             FROM (SELECT number, 1 + intDiv(number, {GOALS}) % {visitors} AS v, \
                 now64(3) - INTERVAL 1 DAY - toIntervalMillisecond(100 * ({CONVERSIONS} - number)) AS at \
                 FROM numbers({CONVERSIONS}))",
            visitors = CONVERSIONS / 10,
        ),
    );
    (key, goals)
}

/// What many callers of one account were answered.
#[derive(Default)]
struct Flood {
    ended: AtomicBool,
    /// How often each status came, with and without `Retry-After`.
    statuses: Mutex<BTreeMap<(u16, bool), u64>>,
}

impl Flood {
    fn run(&self, site: &Site, key: &str, path: &str) {
        while !self.ended.load(Ordering::Relaxed) {
            let (status, retry_after, _) = get(site, key, path);
            *self.statuses.lock().expect("no panic").entry((status, retry_after)).or_default() += 1;
            if status == 429 {
                std::thread::sleep(IMPATIENCE);
            }
        }
    }

    fn count(&self, status: u16) -> u64 {
        let statuses = self.statuses.lock().expect("no panic");
        statuses.iter().filter(|((of, _), _)| *of == status).map(|(_, count)| count).sum()
    }

    fn ends_on_drop(&self) -> impl Drop {
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        Ends(&self.ended)
    }
}

/// Status, whether there is a `Retry-After`, and the body.
fn get(site: &Site, key: &str, path: &str) -> (u16, bool, Value) {
    let url = format!("http://{}{path}", site.daemon.options.listen);
    let request = agent().get(url).header("Authorization", format!("Bearer {key}"));
    let mut answer = request.config().timeout_global(Some(2 * DEADLINE)).build().call().expect("an answer");
    let retry_after = answer.headers().contains_key("retry-after");
    let text = answer.body_mut().read_to_string().expect("a body");
    (answer.status().as_u16(), retry_after, serde_json::from_str(&text).expect("JSON"))
}
