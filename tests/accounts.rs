//! Accounts: what a plan allows, that none sees another, and that all of it survives the loss of the catalog's file.

mod support;

use std::fs;

use serde_json::Value;
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
    fs::remove_file(dir.join("catalog.json")).expect("removed");

    let tally = Tally::start(&dir, &Start::default());
    assert_eq!(data(&tally.api("GET /api/v1/accounts/2", "")), before, "keys, plan and limit");
    assert_eq!(before["rate_limit_per_minute"], 0, "no limit is not the daemon's limit");
    assert_eq!(data(&tally.api_with(&shop, "GET /api/v1/links/1", ""))["slug"], slug);
    assert_eq!(tally.api_with(&gone, "GET /api/v1/links", "").status, 401, "revoked it stays");
    let visited = ask(tally.public, request(&format!("GET /r/{slug}"), &[], ""));
    let to = visited.header("location").expect("a location");
    assert!(to.starts_with("https://shop.example/?c=") && to.ends_with("&utm_source=mail"), "{to}");
}
