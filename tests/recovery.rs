//! A start that finds a million unsettled hits in the log: every one is counted as pending, and every key is known
//! before the first hit comes, without ClickHouse. And one on a folder that an earlier version left.

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use loadtest::request::Goal;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::accounts::audit;
use support::command::{data, post};
use support::daemon::Site;
use support::{seed, wait_for};
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

/// How the folders in `tests/fixtures/folders` were left: stopped in order, and killed with hits in the log.
const FOLDERS: [&str; 2] = ["stopped", "killed"];
/// Clicks are kept for as long as these folders may be.
const ARGUMENTS: [&str; 4] = ["--click-retention-days", "3650", "--settle-seconds", "1"];

/// What a released version wrote is opened, shipped, audited and gone on with by every later one.
#[test]
fn folders_that_an_earlier_version_left_are_gone_on_with() {
    for name in FOLDERS {
        let mut site = Site::prepared(&ARGUMENTS, |data| unpack(name, data));
        let expected: Value =
            serde_json::from_slice(&std::fs::read(fixture(name, "json")).expect("a fixture")).expect("JSON");
        site.wait_settled();
        assert_eq!(summary(&site, &expected["paths"]), expected["summary"], "{name}");
        audit(&site);

        // Orders of then are known; new ones count.
        site.wait_warm();
        let goal = Goal {
            id: expected["goal"].as_u64().expect("a number"),
            token: expected["token"].as_str().expect("a token").to_owned(),
        };
        let orders = expected["orders"].as_u64().expect("a number");
        for n in [0, orders - 1] {
            let copy = site.track(&goal, &format!("OLD-{n}"));
            assert_eq!(copy.status, 200, "{name}: {}", copy.text());
        }
        let new = site.track(&goal, "NEW");
        assert_eq!(new.status, 201, "{name}: {}", new.text());
        site.kill();
        site.restart();
        site.wait_settled();
        let count = seed::run(&site, "SELECT count() FROM conversions").trim().parse();
        assert_eq!(count, Ok(orders + 1), "{name}");
        audit(&site);
    }
}

/// What is in ClickHouse, table by table, and what reports say of it.
fn summary(site: &Site, paths: &Value) -> Value {
    let tables = [
        "SELECT count(), sum(value), sum(cityHash64(conversion_id, goal_id, order_id, order_key, value, \
         toString(currency), toUnixTimestamp64Milli(received_at), visitor_key)) FROM conversions",
        "SELECT count(), sum(cityHash64(click_id, link_id, toUnixTimestamp64Milli(clicked_at), visitor_key)) FROM clicks",
        "SELECT count(), sum(cityHash64(conversion_id, click_id)) FROM attributions",
        "SELECT count(), sum(cityHash64(conversion_id, adjustment_id)) FROM adjustments",
        "SELECT sum(conversions), sum(value) FROM conversions_hourly",
    ];
    let tables: Vec<_> = tables.map(|sql| seed::run(site, sql).trim().to_owned()).into();
    let reports = paths.as_array().expect("paths").iter().map(|path| {
        let mut report = site.api(path.as_str().expect("text"))["data"].clone();
        // A period ends when it is asked for, at the latest: empty hours and what it is compared with depend on that.
        let fields = report.as_object_mut().expect("an object");
        fields.remove("period");
        fields.remove("change");
        let hours = fields["series"].as_array_mut().expect("hours");
        hours.retain(|hour| hour["conversions"] != 0 || hour["clicks"] != 0);
        report
    });
    json!({ "tables": tables, "reports": reports.collect::<Vec<_>>() })
}

fn fixture(name: &str, extension: &str) -> PathBuf {
    let file = format!("tests/fixtures/folders/{name}.{extension}");
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn unpack(name: &str, into: &Path) {
    std::fs::create_dir_all(into).expect("made");
    std::fs::set_permissions(into, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("private");
    let packed = std::fs::File::open(fixture(name, "tar.zst")).expect("a fixture");
    let mut tar =
        Command::new("tar").args(["-x", "-S", "-C"]).arg(into).stdin(Stdio::piped()).spawn().expect("tar");
    zstd::stream::copy_decode(packed, tar.stdin.take().expect("a pipe")).expect("unpacked");
    assert!(tar.wait().expect("it ends").success());
}

fn pack(data: &Path, name: &str) {
    let tar =
        Command::new("tar").args(["-c", "-S", "--owner=0", "--group=0", "-C"]).arg(data).arg(".").output();
    let tar = tar.expect("tar");
    assert!(tar.status.success());
    let packed = zstd::stream::encode_all(&tar.stdout[..], 19).expect("packed");
    std::fs::File::create(fixture(name, "tar.zst"))
        .and_then(|mut file| file.write_all(&packed))
        .expect("written");
}

/// Writes the folders anew: for a version that is released, never to make a test pass.
#[test]
#[ignore = "writes tests/fixtures/folders"]
fn write_the_folders() {
    let today = seed_day();
    let paths = json!([format!("/api/v1/analytics/conversions?from={today}&to={today}")]);
    for name in FOLDERS {
        let mut site = Site::start(&ARGUMENTS);
        site.wait_warm();
        // Nobody listens there: what is to be told waits in the outbox.
        let goal =
            json!({"goal": {"name": "sale", "postback_url": "https://told.invalid/told?id={conversion_id}"}});
        let made = post(&site, "/api/v1/conversions/goals", &goal, None);
        assert_eq!(made.status, 201, "{}", made.text());
        let (_, goal) = data(&made);
        let goal = Goal {
            id: goal["id"].as_u64().expect("a number"),
            token: goal["postback_token"].as_str().expect("a token").to_owned(),
        };
        let mut clicks = Vec::new();
        for n in 0..5 {
            let click = json!({ "click_id": 1000 + n, "utm_source": "news" });
            let answer = post(&site, "/api/v1/clicks", &click, None);
            assert_eq!(answer.status, 201, "{}", answer.text());
            clicks.push(1000 + n);
        }
        let mut conversions = Vec::new();
        for n in 0..20 {
            let answer = track_click(&site, &goal, n, clicks.get(n as usize).copied());
            conversions.push(answer);
        }
        site.wait_inserted(20);
        for conversion in &conversions[..2] {
            let path = format!("/api/v1/conversions/{conversion}/adjustments");
            let refund = json!({"adjustment": {"type": "refund", "value": "1.50"}});
            let answer = post(&site, &path, &refund, Some(conversion));
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        wait_for("the adjustments", || {
            site.metric("tally_hits_inserted_total{kind=\"adjustment\"}") == Some(2.0)
        });
        site.wait_settled();
        let mut orders = 20;
        if name == "killed" {
            // These wait for a click that they may have overtaken.
            site.signal(Signal::TERM);
            site.ended_within(support::DEADLINE);
            let at =
                site.daemon.options.arguments.iter().position(|argument| argument == "1").expect("seconds");
            site.daemon.options.arguments[at] = "3600".to_owned();
            site.restart();
            site.wait_warm();
            for n in 20..35 {
                track_click(&site, &goal, n, None);
            }
            orders = 35;
            site.kill();
        } else {
            site.signal(Signal::TERM);
            site.ended_within(support::DEADLINE);
        }
        pack(site.data_dir(), name);
        let again = Site::prepared(&ARGUMENTS, |data| unpack(name, data));
        again.wait_settled();
        audit(&again);
        let expected = json!({
            "goal": goal.id, "token": goal.token, "orders": orders, "paths": paths, "summary": summary(&again, &paths),
        });
        std::fs::write(fixture(name, "json"), serde_json::to_vec_pretty(&expected).expect("JSON"))
            .expect("written");
    }
}

fn track_click(site: &Site, goal: &Goal, n: u32, click: Option<u32>) -> String {
    let url = format!("http://{}/api/conversions/track/{}", site.daemon.options.listen, goal.token);
    let mut hit = json!({"value": 10.25 + f64::from(n), "currency": "EUR", "order_id": format!("OLD-{n}")});
    if let Some(click) = click {
        hit["click_id"] = click.into();
    } else {
        hit["ip"] = format!("203.0.113.{n}").into();
        hit["user_agent"] = "Mozilla/5.0".into();
        hit["postback_token"] = goal.token.clone().into();
    }
    let answer =
        support::http::agent().post(url).send_json(hit).and_then(support::http::read).expect("an answer");
    assert!(matches!(answer.status, 201 | 202), "{}", answer.text());
    data(&answer).1["conversion_id"].as_str().expect("an id").to_owned()
}

/// Today in UTC.
fn seed_day() -> String {
    let days = SystemClock.now().0 / 86_400_000;
    jiff::civil::date(1970, 1, 1).saturating_add(jiff::Span::new().days(days)).to_string()
}
