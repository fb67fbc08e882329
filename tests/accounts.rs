//! Accounts: what a plan allows, that none sees another, and that all of it survives the loss of the catalog's file.

mod support;

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::faults::daemon::{Start, Tally, folder};
use support::faults::wait_for;
use support::faults::wire::{Response, ask, post, request};

const GOALS: &str = "/api/v1/conversions/goals";
const WEEK: &str = r#"{"goal":{"name":"week","attribution_window_days":7}}"#;
const MONTH: &str = r#"{"goal":{"name":"month","attribution_window_days":30}}"#;
const LINK: &str = r#"{"link":{"name":"n","destination_url":"https://shop.example/?c={click_id}"}}"#;

/// Makes an account and returns its key.
fn account(tally: &Tally, name: &str, plan: &str) -> String {
    let body = format!(r#"{{"account":{{"name":"{name}","plan":"{plan}","rate_limit_per_minute":0}}}}"#);
    let answer = tally.api("POST /api/v1/accounts", &body);
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["data"]["api_key"].as_str().expect("a key").to_owned()
}

fn data(answer: &Response) -> Value {
    assert!(matches!(answer.status, 200..=202), "{answer:?}");
    answer.json()["data"].clone()
}

fn create(tally: &Tally, key: &str, path: &str, body: &str) -> Value {
    data(&tally.api_with(key, &format!("POST {path}"), body))
}

#[test]
fn a_plan_says_what_an_account_may_do() {
    let folder = folder();
    let tally = Tally::start_alone(&folder.path().join("data"));
    let starter = account(&tally, "starter", "starter");
    for (path, body) in [(GOALS, MONTH), ("/api/v1/links", LINK)] {
        let refused = tally.api_with(&starter, &format!("POST {path}"), body);
        assert_eq!((refused.status, refused.code().as_str()), (403, "plan_required"), "{path}");
    }
    let pro = account(&tally, "pro", "pro");
    let refused = tally.api_with(&pro, &format!("POST {GOALS}"), WEEK);
    assert_eq!((refused.status, refused.code().as_str()), (403, "plan_required"));
    assert_eq!(refused.json()["error"]["field"], "attribution_window_days");
    let goal = create(&tally, &pro, GOALS, MONTH);
    assert_eq!(create(&tally, &tally.api_key(), GOALS, WEEK)["attribution_window_days"], 7, "enterprise");

    // From one request to the next.
    let path = format!("/api/conversions/track/{}", goal["postback_token"].as_str().expect("a token"));
    let track = || ask(tally.public, post(&path, "application/json", "{}"));
    assert!(matches!(track().status, 201 | 202));
    let change = |plan: &str| {
        let body = format!(r#"{{"account":{{"plan":"{plan}"}}}}"#);
        data(&tally.api("PATCH /api/v1/accounts/3", &body));
    };
    change("starter");
    assert_eq!((track().status, track().code().as_str()), (403, "plan_required"));
    change("enterprise");
    assert!(matches!(track().status, 201 | 202));
    let line = format!("PATCH {GOALS}/{}", goal["id"]);
    assert_eq!(data(&tally.api_with(&pro, &line, WEEK))["attribution_window_days"], 7);
}

#[test]
fn two_accounts_never_see_each_other() {
    let folder = folder();
    let tally = Tally::start_alone(&folder.path().join("data"));
    let keys = [account(&tally, "one", "enterprise"), account(&tally, "two", "enterprise")];
    let [goal, link] = [(GOALS, MONTH), ("/api/v1/links", LINK)]
        .map(|(path, body)| create(&tally, &keys[0], path, body)["id"].clone());
    create(&tally, &keys[1], GOALS, MONTH);
    create(&tally, &keys[1], "/api/v1/links", LINK);
    for (path, body, code) in [
        (format!("{GOALS}/{goal}"), MONTH, "goal_not_found"),
        (format!("/api/v1/links/{link}"), LINK, "link_not_found"),
    ] {
        for (method, body) in [("GET", ""), ("PATCH", body), ("DELETE", "")] {
            let got = tally.api_with(&keys[1], &format!("{method} {path}"), body);
            assert_eq!((got.status, got.code().as_str()), (404, code), "{method} {path}");
        }
        let own = tally.api_with(&keys[0], &format!("GET {path}"), "");
        assert_eq!(own.status, 200);
        let list = path.rsplit_once('/').expect("a path").0;
        for key in &keys {
            let list = tally.api_with(key, &format!("GET {list}"), "").json();
            assert_eq!(list["pagination"]["total"], 1, "each sees its own");
        }
    }
    let got = tally.api_with(&keys[1], &format!("POST {GOALS}/{goal}/rotate-token"), "");
    assert_eq!(got.code(), "goal_not_found");
    for (line, body) in [
        ("GET /api/v1/accounts", ""),
        ("POST /api/v1/accounts", r#"{"account":{"name":"three"}}"#),
        ("PATCH /api/v1/accounts/1", r#"{"account":{"plan":"starter"}}"#),
        ("POST /api/v1/accounts/1/keys", r#"{"key":{"name":"mine"}}"#),
    ] {
        let got = tally.api_with(&keys[0], line, body);
        assert_eq!((got.status, got.code().as_str()), (403, "first_key_required"), "{line}");
    }
    // A click of another account's link is refused as that of a link that is not there.
    let click = format!(r#"{{"link_id":{link}}}"#);
    let clicked = |key: &str| tally.api_with(key, "POST /api/v1/clicks", &click).status;
    assert!(matches!(clicked(&keys[0]), 201 | 202));
    assert_eq!(clicked(&keys[1]), 422);
}

/// A folder of an older version, with an account that has as many goals as it may have.
#[test]
fn a_catalog_in_one_file_is_taken_over_and_each_account_has_room_of_its_own() {
    let folder = folder();
    let dir = folder.path().join("data");
    fs::create_dir(&dir).expect("made");
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("private");
    let account = |id: u32, name: &str| {
        json!({"version": 1, "deleted": false, "id": id, "name": name, "plan": "enterprise",
            "rate_limit_per_minute": null, "of_a_newer_version": true})
    };
    // Keys of 43 characters each, whose hashes are all that the file holds.
    let secret = |id: u32| format!("{id:0>43}");
    let key = |id: u32| {
        let sha256: [u8; 32] = Sha256::digest(secret(id).as_bytes()).into();
        json!({"version": 1, "deleted": false, "id": id, "account_id": id, "name": "first",
            "sha256": STANDARD.encode(sha256), "created_at_ms": 5, "revoked": false})
    };
    let goal = |id: u32| {
        json!({"version": 2, "deleted": false, "id": id, "account_id": 2, "name": "g", "goal_type": "custom",
            "value": null, "currency": null, "attribution_window_days": 30, "postback_url": null,
            "postback_token": format!("token-{id:0>18}"), "created_at_ms": 6})
    };
    let old = json!({"format": 1, "version": 2, "accounts": [account(1, "default"), account(2, "shop")],
        "api_keys": [key(1), key(2)], "goals": (1..=10_000).map(goal).collect::<Vec<_>>()});
    assert!(Tally::start_alone(&dir).stop().success());
    fs::remove_file(dir.join("catalog.redb")).expect("removed");
    fs::write(dir.join("catalog.json"), old.to_string()).expect("written");
    let keys = [1, 2].map(|id| format!("tally_{id}_{}", secret(id)));
    fs::write(dir.join("api-key"), &keys[0]).expect("written");

    let tally = Tally::start_alone(&dir);
    let make = |tally: &Tally, key: &str| tally.api_with(key, &format!("POST {GOALS}"), MONTH);
    let full = make(&tally, &keys[1]);
    assert_eq!((full.status, full.code().as_str()), (409, "too_many_goals"), "{full:?}");
    let mine = data(&make(&tally, &keys[0]));
    assert_eq!(mine["id"], 10_001, "another account has room, and numbers go on");
    let mut spare = 7;
    for _ in 0..3 {
        data(&tally.api_with(&keys[1], &format!("DELETE {GOALS}/{spare}"), ""));
        let again = make(&tally, &keys[1]);
        assert_eq!(again.status, 201, "what is deleted takes up none: {again:?}");
        spare = data(&again)["id"].as_u64().expect("a number");
        assert_eq!(make(&tally, &keys[1]).status, 409);
    }
    let hit = |token: &str| {
        let path = format!("/api/conversions/track/{token}");
        ask(tally.public, post(&path, "application/json", r#"{"value":1}"#)).status
    };
    assert_eq!((hit("token-000000000000000008"), hit("token-000000000000000007")), (201, 404));
    assert!(dir.join("catalog.json.migrated").exists());
    assert!(tally.stop().success());

    // The first key was lost: whoever owns the folder gives it another secret. No terminal, so it is not printed.
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tally"));
        let output = command.args(arguments).arg("--data-dir").arg(&dir).output().expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (rotated, said) = run(&["keys", "rotate"]);
    let new = fs::read_to_string(dir.join("api-key")).expect("a key");
    assert!(rotated && !said.contains(&new) && said.contains("api-key"), "{said}");
    assert!(new.starts_with("tally_1_") && new != keys[0]);
    let (listed, said) = run(&["keys", "list", "--json"]);
    let keys_listed: Value = serde_json::from_str(&said).expect("JSON");
    assert!(listed && keys_listed[1]["account"] == "shop" && !said.contains(&new), "{said}");
    let tally = Tally::start_alone(&dir);
    assert_eq!(tally.api_with(&keys[0], &format!("GET {GOALS}"), "").status, 401, "the lost one");
    assert_eq!(data(&tally.api_with(&new, &format!("GET {GOALS}/10001"), ""))["id"], 10_001);
    let (rotated, said) = run(&["keys", "rotate"]);
    assert!(!rotated && said.contains("a daemon is running on this folder"), "{said}");
    // The API rotates it too, and the file follows.
    let answer = data(&tally.api_with(&new, "POST /api/v1/accounts/1/keys/1/rotate", ""));
    assert_eq!(answer["api_key"], fs::read_to_string(dir.join("api-key")).expect("a key"));
}

#[test]
fn a_lost_catalog_comes_back_from_clickhouse() {
    let folder = folder();
    let dir = folder.path().join("data");
    let tally = Tally::start(&dir, &Start::default());
    let shop = account(&tally, "shop", "pro");
    let gone = tally.api("POST /api/v1/accounts/2/keys", r#"{"key":{"name":"gone"}}"#);
    let gone = data(&gone)["api_key"].as_str().expect("a key").to_owned();
    data(&tally.api("DELETE /api/v1/accounts/2/keys/3", ""));
    let link = create(&tally, &shop, "/api/v1/links", LINK);
    let slug = link["slug"].as_str().expect("a slug");
    data(&tally.api_with(
        &shop,
        &format!("PATCH /api/v1/links/{}", link["id"]),
        r#"{"link":{"utm_source":"mail"}}"#,
    ));
    let before = data(&tally.api("GET /api/v1/accounts/2", ""));
    // The copy is asked for where a folder has shipped before: a new one has none.
    assert_eq!(ask(tally.public, request(&format!("GET /r/{slug}"), &[], "")).status, 302);
    wait_for("the click", || tally.line("SELECT count() FROM tally.clicks") == "1");
    wait_for("the copy", || tally.line("SELECT utm_source FROM tally.links FINAL") == "mail");
    assert!(tally.stop().success());
    fs::remove_file(dir.join("catalog.redb")).expect("removed");

    let tally = Tally::start(&dir, &Start::default());
    assert_eq!(data(&tally.api("GET /api/v1/accounts/2", "")), before, "keys, plan and limit");
    assert_eq!(before["rate_limit_per_minute"], 0, "no limit is not the daemon's limit");
    assert_eq!(data(&tally.api_with(&shop, "GET /api/v1/links/1", ""))["slug"], slug);
    assert_eq!(tally.api_with(&gone, "GET /api/v1/links", "").status, 401, "revoked it stays");
    let visited = ask(tally.public, request(&format!("GET /r/{slug}"), &[], ""));
    let to = visited.header("location").expect("a location");
    assert!(to.starts_with("https://shop.example/?c=") && to.ends_with("&utm_source=mail"), "{to}");
}
