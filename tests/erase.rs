//! `tally erase`, beside a running daemon and without one: a person's data is gone, and everything still adds up.

mod support;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::accounts::audit;
use support::command::{data, post, tally, tally_json, wait_shipped};
use support::daemon::Site;
use support::hooks::Hooks;
use support::http::{agent, read};
use support::seed;
use support::{DEADLINE, wait_for};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0";

fn click(site: &Site, id: u64, ip: &str) {
    let click = json!({"click_id": id, "ip": ip, "user_agent": AGENT, "sub1": "jane@example.com"});
    assert_eq!(post(site, "/api/v1/clicks", &click, None).status, 201);
}

/// A conversion; its id.
fn convert(site: &Site, token: &str, order: &str, more: &Value) -> String {
    let mut hit = json!({"postback_token": token, "value": 9.99, "currency": "EUR", "order_id": order});
    for (name, value) in more.as_object().expect("an object") {
        hit[name] = value.clone();
    }
    let (status, tracked) = data(&post(site, "/api/v1/conversions/track", &hit, None));
    assert_eq!(status, 201);
    tracked["conversion_id"].as_str().expect("an id").to_owned()
}

fn conversion(site: &Site, id: &str) -> Value {
    site.api(&format!("/api/v1/conversions/{id}"))["data"].clone()
}

/// How many rows of a table were touched.
fn rows(report: &Value, table: &str) -> u64 {
    let tables = report["tables"].as_array().expect("a list");
    let of = tables.iter().find(|of| of["table"] == table).unwrap_or_else(|| panic!("{table}: {report}"));
    of["rows"].as_u64().expect("a number")
}

/// Runs SQL as tally itself.
fn sql(site: &Site, text: &str) -> String {
    let url = std::fs::read_to_string(site.data_dir().join("writer.url")).expect("written");
    let endpoint = tally::clickhouse::Endpoint::parse(&url).expect("a URL");
    let request = agent()
        .post(format!("{}/?database=tally", endpoint.url))
        .header("X-ClickHouse-User", &endpoint.user)
        .header("X-ClickHouse-Key", &endpoint.password);
    let answer = read(request.send(text).expect("an answer")).expect("a body");
    assert_eq!(answer.status, 200, "{text}: {}", answer.text());
    answer.text()
}

/// What the engine keeps of mutations on disk.
fn mutation_files(site: &Site) -> Vec<String> {
    let mut texts = Vec::new();
    let mut folders = vec![site.data_dir().join("clickhouse/store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with("mutation_") {
                texts.extend(std::fs::read_to_string(entry.path()));
            }
        }
    }
    texts
}

#[test]
fn a_person_is_erased_and_everything_still_adds_up() {
    let site = Site::start(&[]);
    site.wait_warm();
    let token = site.goals(1).remove(0).token;
    for (id, ip) in [(1, "203.0.113.7"), (2, "203.0.113.8"), (3, "203.0.113.8")] {
        click(&site, id, ip);
    }
    let named = convert(&site, &token, "ORDER-1", &json!({"click_id": 1}));
    let by_visitor = convert(&site, &token, "ORDER-2", &json!({"ip": "203.0.113.8", "user_agent": AGENT}));
    let other = convert(&site, &token, "ORDER-3", &json!({"ip": "203.0.113.9", "user_agent": AGENT}));
    let reject = json!({"adjustment": {"type": "reject", "reason": "jane complained"}});
    wait_for("the conversion", || {
        post(&site, &format!("/api/v1/conversions/{named}/adjustments"), &reject, Some("once")).status < 300
    });
    let refused = json!({"postback_token": token, "value": -1, "order_id": "ORDER-1"});
    assert_eq!(post(&site, "/api/v1/conversions/track", &refused, None).status, 422);
    wait_for("the rejection", || site.api("/api/v1/conversions/rejections")["pagination"]["total"] == 1);
    wait_shipped(&site, 3);
    wait_for("the adjustment", || conversion(&site, &named)["adjustments"][0]["reason"] == "jane complained");
    audit(&site);

    // As an erasure of an earlier version left it: the text of a mutation that names the person.
    sql(
        &site,
        "ALTER TABLE rejections UPDATE field = concat(field, '') WHERE order_id = 'ORDER-1' SETTINGS mutations_sync = 2",
    );
    assert!(mutation_files(&site).iter().any(|text| text.contains("ORDER-1")));

    let report = tally_json(&site, &["erase", "--order-id", "ORDER-1", "--json"]);
    assert_eq!((report["conversions"].clone(), report["clicks"].clone()), (json!([named]), json!([1])));
    for (table, touched) in
        [("conversions", 1), ("clicks", 1), ("clicks_by_visitor", 1), ("adjustments", 1), ("rejections", 1)]
    {
        assert_eq!(rows(&report, table), touched, "{table}: {report}");
    }
    let erased = conversion(&site, &named);
    assert_eq!(
        (erased["order_id"].clone(), erased["ip"].clone(), erased["user_agent"].clone()),
        (Value::Null, Value::Null, Value::Null)
    );
    assert_eq!(
        (erased["value"].clone(), erased["adjustments"][0]["reason"].clone()),
        ("9.99".into(), Value::Null)
    );
    let rejection = site.api("/api/v1/conversions/rejections")["data"][0].clone();
    assert_eq!((rejection["order_id"].clone(), rejection["request"].clone()), (Value::Null, "".into()));
    assert_eq!(conversion(&site, &other)["order_id"], "ORDER-3", "others keep theirs");
    let again = tally_json(&site, &["erase", "--order-id", "ORDER-1", "--json"]);
    assert!(again["tables"].as_array().expect("a list").iter().all(|of| of["rows"] == 0), "{again}");

    // No mutation keeps in its text what was blanked.
    assert!(!sql(&site, "SELECT groupArray(command) FROM system.mutations").contains("ORDER-1"));
    assert!(mutation_files(&site).iter().all(|text| !text.contains("ORDER-1")));

    // The order is still known to have come.
    let hit = json!({"postback_token": token, "value": 9.99, "currency": "EUR", "order_id": "ORDER-1"});
    let (status, duplicate) = data(&post(&site, "/api/v1/conversions/track", &hit, None));
    assert_eq!((status, duplicate["conversion_id"].clone()), (200, named.clone().into()));
    // And its next report brings nothing back of what was erased.
    let duplicates = "/api/v1/conversions/rejections?code=duplicate";
    wait_for("the duplicate", || site.api(duplicates)["pagination"]["total"] == 1);
    let row = site.api(duplicates)["data"][0].clone();
    assert_eq!((row["order_id"].clone(), row["original_conversion_id"].clone()), (Value::Null, named.into()));
    assert!(!seed::run(&site, "SELECT * FROM rejections FORMAT JSONEachRow").contains("ORDER-1"));
    let other_again =
        json!({"postback_token": token, "value": 9.99, "currency": "EUR", "order_id": "ORDER-3"});
    assert_eq!(post(&site, "/api/v1/conversions/track", &other_again, None).status, 200);
    wait_for("the duplicate", || site.api(duplicates)["pagination"]["total"] == 2);
    assert_eq!(site.api(duplicates)["data"][0]["order_id"], "ORDER-3", "others' duplicates name their order");
    assert!(
        !seed::run(&site, "SELECT * FROM rejections FORMAT JSONEachRow").contains("ORDER-3"),
        "not twice"
    );

    let visitor = ["erase", "--visitor", "203.0.113.8", "--user-agent", AGENT, "--account", "1", "--json"];
    let report = tally_json(&site, &visitor);
    assert_eq!(
        (report["conversions"].clone(), report["clicks"].clone()),
        (json!([by_visitor]), json!([2, 3]))
    );
    assert_eq!(rows(&report, "clicks_by_visitor"), 2);
    assert_eq!(conversion(&site, &by_visitor)["user_agent"], Value::Null);
    assert_ne!(conversion(&site, &other)["user_agent"], Value::Null);
    // Nothing is left by which the visitor could be found again, not in a copy either.
    let later = convert(&site, &token, "ORDER-4", &json!({"ip": "203.0.113.8", "user_agent": AGENT}));
    // It stands behind the conversion: once it is settled, so is that.
    click(&site, 4, "203.0.113.9");
    wait_shipped(&site, 4);
    site.wait_settled();
    assert_eq!(conversion(&site, &later)["attribution"]["reason"], "no_candidate");
    let nobody = tally_json(&site, &["erase", "--click-id", "1", "--account", "2", "--json"]);
    assert_eq!(nobody["clicks"], json!([]), "another account's click is not found");
    audit(&site);
}

/// Every way in which an address or a token came through what was masked before.
#[test]
fn of_refused_hits_no_address_and_no_token_is_kept_and_what_names_a_click_is_erased() {
    let mut site = Site::start(&[]);
    site.wait_warm();
    let goal = site.goals(1).remove(0);
    // Once it is inserted, there are tables to read.
    assert!(matches!(site.track(&goal, "FIRST").status, 201 | 202));
    site.wait_inserted(1);
    let url = format!("http://{}/api/conversions/track/{}", site.daemon.options.listen, goal.token);
    let (secret, ip) = (goal.token.as_str(), "203.0.113.77");
    let bodies = [
        (
            "application/json",
            format!("\u{feff}{{\"value\":-1,\"ip\":\"{ip}\",\"postback_token\":\"{secret}\"}}"),
        ),
        ("application/json", format!(r#"{{"value":-1,"\u0069p":"{ip}","postback\u005ftoken":"{secret}"}}"#)),
        ("multipart/form-data; boundary=b", format!("--b\r\nname=\"ip\"\r\n\r\n{ip}\r\n{secret}\r\n--b--")),
        ("application/xml", format!("<hit><ip>{ip}</ip><token>{secret}</token></hit>")),
        ("application/json", format!(r#"[{{"ip":"{ip}","postback_token":"{secret}"}}]"#)),
        ("application/json", format!("{{'ip':'{ip}','postback_token':'{secret}'}}")),
        ("application/json", format!(r#"{{"value":-1,"ip":["{ip}"]}}"#)),
        ("application/json", format!(r#"{{"value":-1,"ip":{{"v4":"{ip}"}}}}"#)),
        ("application/json", format!(r#"{{"value":-1,"note":"{{\"ip\":\"{ip}\"}}"}}"#)),
        ("application/json", format!("\"{ip}\"")),
        ("application/x-www-form-urlencoded", format!("value=-1& ip={ip}&i%70={ip}&{ip}")),
        ("application/json", r#"{"value":-1,"click_id":7777}"#.to_owned()),
    ];
    for (content_type, body) in &bodies {
        let answer = agent().post(&url).header("Content-Type", *content_type).send(body.as_bytes());
        let answer = read(answer.expect("an answer")).expect("a body");
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.text());
    }
    let rejections = "/api/v1/conversions/rejections";
    let count = |site: &Site| site.api(rejections)["pagination"]["total"].as_u64();
    wait_for("the rejections", || count(&site) == Some(bodies.len() as u64));
    let rows = seed::run(&site, "SELECT * FROM rejections FORMAT JSONEachRow");
    assert!(rows.contains("body_bytes") && rows.contains("malformed_at_byte"), "{rows}");
    assert!(!rows.contains(ip) && !rows.contains(secret), "{rows}");

    assert!(rows.contains("7777"), "{rows}");
    let report = tally_json(&site, &["erase", "--click-id", "7777", "--json"]);
    // The click never came: the rejection alone names it.
    assert_eq!(self::rows(&report, "rejections"), 1, "{report}");
    assert!(!seed::run(&site, "SELECT request FROM rejections").contains("7777"));

    // What an older version kept word for word is gone after the next start, its rows stay.
    seed::run(
        &site,
        "INSERT INTO rejections (account_id, goal_id, received_at, code, order_id, source, request) VALUES \
         (1, 1, now64(3), 'duplicate', 'JANE-1', 'api', ''), \
         (1, 1, now64(3), 'invalid_json', '', 'api', '{\"i\\\\u0070\":\"203.0.113.77\"}')",
    );
    site.kill();
    site.restart();
    wait_for("them to be blank", || {
        let Some(rows) = seed::try_run(&site, "SELECT request, order_id FROM rejections") else {
            return false;
        };
        rows.0 == 200 && !rows.1.contains(ip) && !rows.1.contains("JANE-1")
    });
    wait_for("the rows", || count(&site) == Some(bodies.len() as u64 + 2));
}

#[test]
fn without_a_daemon_what_waits_is_counted() {
    let mut site = Site::start(&[]);
    site.wait_warm();
    let token = site.goals(1).remove(0).token;
    click(&site, 7, "203.0.113.7");
    convert(&site, &token, "ORDER-7", &json!({"click_id": 7}));
    wait_shipped(&site, 1);
    click(&site, 8, "203.0.113.7");
    site.kill();

    let visitor = ["erase", "--visitor", "203.0.113.7", "--user-agent", AGENT, "--json"];
    let report = tally_json(&site, &visitor);
    assert_eq!(report["clicks"], json!([7]));
    assert_eq!(rows(&report, "conversions"), 1, "it names the click");
    assert_eq!(report["waiting"]["log_records"], 1, "the second click is on its way: {report}");
    site.restart();
    wait_shipped(&site, 2);
    let report = tally_json(&site, &visitor);
    assert_eq!((report["clicks"].clone(), report["waiting"]["log_records"].clone()), (json!([8]), 0.into()));
    site.signal(Signal::TERM);
    assert!(site.ended_within(DEADLINE).success());
    audit(&site);
    let output = tally(&site, &["erase", "--order-id", "ORDER-7"]);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("Found 0 conversions")
    );
}

#[test]
fn whoever_is_erased_is_told_of_no_more() {
    // An endpoint that is down, and says of whom it was told.
    let hooks = Hooks::listen(|_, hook| (500, format!("can't take {}", hook.json()["order_id"])));
    let mut site = Site::start(&["--postback-allow", "127.0.0.0/8"]);
    site.wait_warm();
    let goal = json!({"goal": {"name": "n", "postback_url": hooks.url()}});
    let (status, goal) = data(&post(&site, "/api/v1/conversions/goals", &goal, None));
    assert_eq!(status, 201, "{goal}");
    let token = goal["postback_token"].as_str().expect("a token");
    let [jane, john, other] =
        ["JANE-1", "JOHN-1", "OTHER-1"].map(|order| convert(&site, token, order, &json!({})));
    site.wait_inserted(3);
    let answer = |id: &str| {
        let deliveries = site.api(&format!("/api/v1/postbacks/deliveries?conversion_id={id}"));
        deliveries["data"][0]["answer"].as_str().map(ToOwned::to_owned)
    };
    // The second attempt is seconds after the first, and the third minutes after that.
    let tried = |id: &String| {
        let deliveries = site.api(&format!("/api/v1/postbacks/deliveries?conversion_id={id}"));
        deliveries["pagination"]["total"] == 2
    };
    wait_for("the attempts", || [&jane, &john, &other].into_iter().all(tried));
    assert_eq!(answer(&jane).as_deref(), Some(r#"can't take "JANE-1""#));
    wait_for("their number", || site.metric("tally_postbacks_queued") == Some(3.0));

    let report = tally_json(&site, &["erase", "--order-id", "JANE-1", "--json"]);
    assert_eq!((rows(&report, "outbox"), rows(&report, "deliveries")), (1, 2), "{report}");
    assert_eq!(answer(&jane).as_deref(), Some(""), "that it was tried can still be read");
    assert_eq!(answer(&other).as_deref(), Some(r#"can't take "OTHER-1""#));
    wait_for("their number", || site.metric("tally_postbacks_queued") == Some(2.0));

    // The same without a daemon.
    site.kill();
    let report = tally_json(&site, &["erase", "--order-id", "JOHN-1", "--json"]);
    assert_eq!((rows(&report, "outbox"), rows(&report, "deliveries")), (1, 2), "{report}");
    site.restart();
    wait_for("their number", || site.metric("tally_postbacks_queued") == Some(1.0));
    let again = tally_json(&site, &["erase", "--order-id", "JOHN-1", "--json"]);
    assert!(again["tables"].as_array().expect("a list").iter().all(|of| of["rows"] == 0), "{again}");
}
