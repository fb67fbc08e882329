//! A random history through the running daemon, which is killed at random moments: every conversion is attributed to
//! what the slow obvious model says, and no account sees another one's clicks.
//!
//! `TALLY_HISTORY_ROUNDS` says how many histories, `TALLY_HISTORY_SEED` which.

mod history_support;
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use history_support::api::{Account, send_lane};
use history_support::history::{Event, History};
use history_support::model::{self, Told};
use history_support::stored;
use loadtest::clickhouse::ClickHouse;
use loadtest::daemon::Daemon;
use loadtest::rng::SplitMix64;
use serde_json::{Value, json};
use support::accounts::audit;
use support::daemon::Site;
use support::track::pause;

const SETTLE_SECONDS: i64 = 1;
const ACCOUNTS: usize = 3;
/// Conversions of an account, each with up to four clicks.
const STORIES: u64 = 50;
const LANES: usize = 4;
const KILLS: usize = 4;
/// A history without these would prove little.
const EXPECTED: [&str; 8] = [
    "click_id",
    "ip_user_agent",
    "outside_window",
    "click_not_found",
    "private_address",
    "no_visitor",
    "overtook its click",
    "would have had a click that came too late",
];

#[test]
fn a_history_with_kills_is_attributed_as_the_model_says() {
    let rounds = number("TALLY_HISTORY_ROUNDS").unwrap_or(2);
    let seed = number("TALLY_HISTORY_SEED").unwrap_or_else(|| now().unsigned_abs());
    for round in 0..rounds {
        println!("TALLY_HISTORY_ROUNDS=1 TALLY_HISTORY_SEED={}", seed + round);
        one_history(&mut SplitMix64::new(seed + round));
    }
}

fn one_history(random: &mut SplitMix64) {
    let mut site = start();
    let first = Account::first(&site);
    let mut accounts = vec![first];
    accounts.extend((1..ACCOUNTS).map(|number| accounts[0].create(number)).collect::<Vec<_>>());
    let history = History::random(random, ACCOUNTS, STORIES, now());

    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (history, accounts) = (&history, &accounts);
            let mut random = SplitMix64::new(random.next_u64());
            scope.spawn(move || send_lane(history, accounts, lane, LANES, &mut random));
        }
        for _ in 0..KILLS {
            pause(Duration::from_millis(random.below(2_500)));
            site.kill();
            site.daemon = Daemon::start(site.daemon.options.clone()).expect("started");
            // Now and then it is killed while it still reads back what it has.
            if random.below(4) > 0 {
                site.daemon.wait_ready(support::DEADLINE).expect("ready again");
            }
        }
        site.daemon.wait_ready(support::DEADLINE).expect("ready again");
    });
    assert_as_the_model_says(&site, &history, &accounts);
    audit(&site);
}

fn assert_as_the_model_says(site: &Site, history: &History, accounts: &[Account]) {
    let clickhouse = ClickHouse::new(&site.daemon.reader_url().expect("a URL")).expect("a URL");
    stored::wait_complete(&clickhouse, history);
    let clicks = stored::clicks(&clickhouse, history);
    let mut seen = BTreeMap::<String, usize>::new();
    for (conversion, id, stored) in stored::conversions(&clickhouse, history) {
        let wanted = model::told(&conversion, &clicks, SETTLE_SECONDS * 1000);
        assert_eq!(stored, wanted, "stored of {conversion:?}");
        assert_eq!(answered(&accounts[conversion.event.account], &id), wanted, "answered of {conversion:?}");
        let mut note = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
        if let Some((id, tag)) = stored.click {
            let Event::Click(click) = &history.events[tag] else { panic!("{tag} is no click") };
            assert_eq!(
                click.account, conversion.event.account,
                "another account's click earned {conversion:?}"
            );
            let won = clicks.iter().find(|click| (click.id, click.tag) == (id, tag)).expect("stored");
            if won.received_at > conversion.received_at {
                note("overtook its click");
            }
        }
        if model::told(&conversion, &clicks, i64::from(u32::MAX)) != wanted {
            note("would have had a click that came too late");
        }
        note(&wanted.method.or(wanted.reason).expect("either"));
    }
    println!("{seen:?}");
    for what in EXPECTED {
        assert!(seen.contains_key(what), "no conversion {what}: {seen:?}");
    }
}

/// Both see the same address and the same browser; each has its own click, or none.
#[test]
fn two_accounts_behind_one_nat_never_see_each_others_clicks() {
    let site = start();
    let with = Account::first(&site);
    let without = with.create(1);
    let visitor = |more: Value| {
        let mut body =
            json!({"ip": "203.0.113.7", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0"});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        body
    };
    with.post("/api/v1/clicks", &visitor(json!({"click_id": 789, "utm_content": "1"})));
    let convert = |account: &Account, more: Value| {
        let mut body = visitor(more);
        body["postback_token"] = account.tokens[0].clone().into();
        let answer = account.post("/api/v1/conversions/track", &body);
        answer["data"]["conversion_id"].as_str().expect("an id").to_owned()
    };
    let seen = convert(&with, json!({"order_id": "1"}));
    let unseen = convert(&without, json!({"order_id": "1"}));
    let named = convert(&without, json!({"order_id": "2", "click_id": 789}));
    let earned = answered(&with, &seen);
    assert_eq!((earned.method.as_deref(), earned.click), (Some("ip_user_agent"), Some((789, 1))));
    for (id, reason) in [(&unseen, "no_candidate"), (&named, "click_not_found")] {
        let told = answered(&without, id);
        assert_eq!(told, Told { reason: Some(reason.to_owned()), ..Told::default() });
        let explained = without.get(&format!("/api/v1/conversions/{id}?explain=1"));
        let explained: Value = serde_json::from_slice(&explained.body).expect("JSON");
        assert_eq!(explained["data"]["explain"]["candidates"], json!([]), "{explained}");
    }
    assert_eq!(without.get(&format!("/api/v1/conversions/{seen}")).status, 404, "it is another account's");
}

fn start() -> Site {
    Site::start(&["--settle-seconds", &SETTLE_SECONDS.to_string()])
}

/// What the API says of a conversion.
fn answered(account: &Account, id: &str) -> Told {
    let path = format!("/api/v1/conversions/{id}");
    let mut answer = account.get(&path);
    support::wait_for("the conversion", || {
        answer = account.get(&path);
        answer.status == 200
    });
    let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let told = &answer["data"]["attribution"];
    let text = |name: &str| told[name].as_str().map(str::to_owned);
    let tag = || text("utm_content").and_then(|tag| tag.parse().ok()).expect("a tag");
    Told {
        method: text("method"),
        reason: text("reason"),
        click: told["click_id"].as_u64().map(|click| (click, tag())),
        seconds: told["seconds_to_convert"].as_i64(),
        candidates: usize::try_from(told["candidates"].as_u64().expect("a number")).expect("few"),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// In milliseconds.
#[expect(clippy::disallowed_methods, reason = "another history every time; the seed is printed")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("soon enough")
}
