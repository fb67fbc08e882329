//! Accounts: who manages them, and what a change does at once.

use super::*;

const ACCOUNTS: &str = "/api/v1/accounts";

#[tokio::test]
async fn an_account_lives() {
    let it = Fixture::new();
    let got = it.call("POST", ACCOUNTS, r#"{"account":{"name":"Shop","plan":"pro"}}"#).await;
    let made = got.json()["data"].clone();
    let key = made["api_key"].as_str().expect("a key").to_owned();
    assert_eq!(got.status, 201);
    assert_eq!(
        made,
        serde_json::json!({"id":2,"name":"Shop","plan":"pro","rate_limit_per_minute":null,"api_key":key})
    );
    let with = async |key: &str, method: &str, path: &str| {
        it.send(method, path, &[("authorization", format!("Bearer {key}").as_str())], "").await
    };
    assert_eq!(with(&key, "GET", "/api/v1/links").await.status, 200);

    let got = it.call("POST", "/api/v1/accounts/2/keys", r#"{"key":{"name":"ci"}}"#).await;
    let second = got.json()["data"].clone();
    let ci = second["api_key"].as_str().expect("a key").to_owned();
    assert_eq!((got.status, second["id"].clone(), second["revoked"].clone()), (201, 3.into(), false.into()));
    let read = it.call("GET", "/api/v1/accounts/2", "").await.json()["data"].clone();
    assert_eq!(
        read["keys"],
        serde_json::json!([
            {"id":2,"name":"first","created_at":"2026-01-21T12:00:00Z","revoked":false},
            {"id":3,"name":"ci","created_at":"2026-01-21T12:00:00Z","revoked":false}
        ]),
        "the secrets are kept nowhere"
    );
    assert_eq!(with(&ci, "GET", "/api/v1/links").await.status, 200);
    assert_eq!(it.call("DELETE", "/api/v1/accounts/2/keys/3", "").await.json()["data"]["revoked"], true);
    assert_eq!(with(&ci, "GET", "/api/v1/links").await.code(), (401, "unauthorized".into()));
    assert_eq!(with(&key, "GET", "/api/v1/links").await.status, 200);

    let body = r#"{"account":{"name":"Shop 2","plan":"enterprise","rate_limit_per_minute":7}}"#;
    let changed = it.call("PATCH", "/api/v1/accounts/2", body).await.json()["data"].clone();
    assert_eq!(
        changed,
        serde_json::json!({"id":2,"name":"Shop 2","plan":"enterprise","rate_limit_per_minute":7})
    );
    let list = it.call("GET", ACCOUNTS, "").await.json();
    let names: Vec<_> =
        list["data"].as_array().expect("a list").iter().map(|it| it["name"].clone()).collect();
    assert_eq!(
        (names, list["pagination"]["total"].clone()),
        (vec!["default".into(), "Shop 2".into()], 2.into())
    );
}

#[tokio::test]
async fn only_the_first_key_manages_accounts() {
    let it = Fixture::new();
    let made = it.call("POST", ACCOUNTS, r#"{"account":{"name":"Shop"}}"#).await.json()["data"].clone();
    let second = it.call("POST", "/api/v1/accounts/1/keys", r#"{"key":{"name":"mine"}}"#).await.json();
    let calls = [
        ("GET", ACCOUNTS),
        ("POST", ACCOUNTS),
        ("GET", "/api/v1/accounts/1"),
        ("PATCH", "/api/v1/accounts/2"),
        ("POST", "/api/v1/accounts/2/keys"),
        ("DELETE", "/api/v1/accounts/2/keys/2"),
        ("POST", "/api/v1/accounts/2/keys/2/rotate"),
    ];
    for (method, path) in calls {
        assert_eq!(it.send(method, path, &[], "").await.code(), (401, "unauthorized".into()));
        // Neither another account's key nor a further one of the first account.
        for key in [&made["api_key"], &second["data"]["api_key"]] {
            let bearer = format!("Bearer {}", key.as_str().expect("a key"));
            let got = it.send(method, path, &[("authorization", bearer.as_str())], "").await;
            assert_eq!(got.code(), (403, "first_key_required".into()), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_first_key_can_be_rotated_and_revoked() {
    let it = Fixture::new();
    let got = it.call("POST", "/api/v1/accounts/1/keys/1/rotate", "").await.json();
    let key = got["data"]["api_key"].as_str().expect("shown once").to_owned();
    assert_eq!((&got["data"]["id"], &got["data"]["revoked"]), (&1.into(), &false.into()));
    assert_eq!(it.call("GET", ACCOUNTS, "").await.code(), (401, "unauthorized".into()), "the old one");
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(it.send("GET", ACCOUNTS, &headers, "").await.status, 200);
    let missing = it.send("POST", "/api/v1/accounts/1/keys/9/rotate", &headers, "").await;
    assert_eq!(missing.code(), (404, "key_not_found".into()));
    let revoked = it.send("DELETE", "/api/v1/accounts/1/keys/1", &headers, "").await;
    assert_eq!((revoked.status, revoked.json()["data"]["revoked"].clone()), (200, true.into()));
    assert_eq!(it.send("GET", ACCOUNTS, &headers, "").await.code(), (401, "unauthorized".into()));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_taken_is_said() {
    let it = Fixture::new();
    let got = it.call("POST", ACCOUNTS, r#"{"account":{"name":"default"}}"#).await;
    assert_eq!(
        (got.code(), got.json()["error"]["field"].clone()),
        ((409, "name_taken".into()), "name".into())
    );
    for (method, path, body, code) in [
        ("GET", "/api/v1/accounts/9", "", "account_not_found"),
        ("GET", "/api/v1/accounts/x", "", "account_not_found"),
        ("PATCH", "/api/v1/accounts/9", r#"{"account":{}}"#, "account_not_found"),
        ("POST", "/api/v1/accounts/9/keys", r#"{"key":{"name":"k"}}"#, "account_not_found"),
        ("DELETE", "/api/v1/accounts/1/keys/9", "", "key_not_found"),
        ("DELETE", "/api/v1/accounts/1/keys/x", "", "key_not_found"),
        ("DELETE", "/api/v1/accounts/9/keys/1", "", "key_not_found"),
    ] {
        assert_eq!(it.call(method, path, body).await.code(), (404, code.into()), "{method} {path}");
    }
}

#[tokio::test]
async fn a_plan_and_a_limit_are_in_force_at_once() {
    let it = Fixture::new();
    let change = async |fields: &str| {
        let got = it.call("PATCH", "/api/v1/accounts/1", &format!(r#"{{"account":{{{fields}}}}}"#)).await;
        assert_eq!(got.status, 200);
    };
    let week = r#"{"goal":{"attribution_window_days":7}}"#;
    let goal = "/api/v1/conversions/goals/1";
    assert_eq!(it.call("PATCH", goal, week).await.status, 200);
    change(r#""plan":"starter""#).await;
    assert_eq!(it.track("POST", "", &[], "").await.code(), (403, "plan_required".into()));
    change(r#""plan":"pro","rate_limit_per_minute":5"#).await;
    let got = it.track("POST", "", &[], "").await;
    assert_eq!((got.status, got.header("ratelimit-limit")), (201, Some("5")));
    assert_eq!(it.call("GET", goal, "").await.json()["data"]["attribution_window_days"], 7, "kept on paper");
    assert_eq!(it.call("PATCH", goal, week).await.code(), (403, "plan_required".into()));
    assert_eq!(
        it.call("PATCH", goal, r#"{"goal":{"name":"x"}}"#).await.status,
        200,
        "the rest can be changed"
    );
}
