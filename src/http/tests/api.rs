//! Goals, rejections, conversions and reports.

use super::*;
use crate::core::{CurrencySums, GoalId, Group, GroupKey, Measures, MoneySum, Source};

const GOALS: &str = "/api/v1/conversions/goals";

#[tokio::test]
async fn a_goal_lives() {
    let it = Fixture::new();
    let body = r#"{"goal":{"name":"Q1 Sales","goal_type":"purchase","value":99.00,"currency":"USD","postback_url":"https://example.com/p","attribution_window_days":30}}"#;
    let got = it.call("POST", GOALS, body).await;
    assert_eq!(got.status, 201);
    let mut goal = got.json()["data"].clone();
    let secret = goal.as_object_mut().expect("an object").remove("postback_secret");
    assert!(secret.is_some(), "shown once");
    let token = goal["postback_token"].as_str().expect("a token").to_owned();
    assert_eq!(
        goal,
        serde_json::json!({"id":2,"name":"Q1 Sales","goal_type":"purchase","value":"99.00","currency":"USD",
            "attribution_window_days":30,"postback_url":"https://example.com/p","postback_method":"POST","postback_disabled":false,"trust_client_fields":false,"postback_token":token,
            "created_at":"2026-01-21T12:00:00Z"})
    );
    let path = format!("{GOALS}/2");
    assert_eq!(it.call("GET", &path, "").await.json()["data"], goal);
    let got = it.call("PATCH", &path, r#"{"goal":{"name":"Q2","value":null}}"#).await;
    assert_eq!((got.status, got.json()["data"]["value"].clone()), (200, Value::Null));
    assert_eq!(got.json()["data"]["postback_url"], "https://example.com/p");

    let got = it.call("POST", &format!("{path}/rotate-token"), "").await;
    let rotated = got.json()["data"]["postback_token"].as_str().expect("a token").to_owned();
    assert_eq!(got.status, 200);
    let track =
        async |token: &str| it.send("POST", &format!("/api/conversions/track/{token}"), &[], "").await.status;
    assert_eq!((track(&token).await, track(&rotated).await), (404, 201));

    assert_eq!(it.call("DELETE", &path, "").await.status, 200);
    assert_eq!(it.call("GET", &path, "").await.code(), (404, "goal_not_found".into()));
    assert_eq!(it.call("DELETE", &path, "").await.status, 404);
    assert_eq!(track(&rotated).await, 404);
    assert_eq!(it.call("GET", GOALS, "").await.json()["pagination"]["total"], 1);
}

#[tokio::test]
async fn lists_page() {
    let it = Fixture::new();
    for number in 2..=5 {
        it.call("POST", GOALS, &format!(r#"{{"goal":{{"name":"{number}"}}}}"#)).await;
    }
    let got = it.call("GET", &format!("{GOALS}?page=2&per_page=2"), "").await.json();
    let names: Vec<_> =
        got["data"].as_array().expect("a list").iter().map(|goal| goal["id"].clone()).collect();
    assert_eq!(names, [3, 4]);
    assert_eq!(got["pagination"], serde_json::json!({"page":2,"per_page":2,"total":5,"total_pages":3}));
    assert_eq!(
        it.call("GET", &format!("{GOALS}?per_page=101"), "").await.code(),
        (400, "invalid_parameter".into())
    );
    assert_eq!(
        it.call("GET", &format!("{GOALS}?colour=red"), "").await.code(),
        (400, "unknown_parameter".into())
    );
}

#[tokio::test]
async fn every_call_needs_a_key() {
    let it = Fixture::new();
    for (method, path) in [
        ("GET", GOALS),
        ("POST", GOALS),
        ("GET", "/api/v1/conversions/goals/1"),
        ("PATCH", "/api/v1/conversions/goals/1"),
        ("DELETE", "/api/v1/conversions/goals/1"),
        ("POST", "/api/v1/conversions/goals/1/rotate-token"),
        ("GET", "/api/v1/conversions/rejections"),
        ("GET", "/api/v1/conversions/00000000-0000-0000-0000-000000000007"),
        ("GET", "/api/v1/conversions/00000000-0000-0000-0000-000000000007/adjustments"),
        ("POST", "/api/v1/conversions/00000000-0000-0000-0000-000000000007/adjustments"),
        ("GET", "/api/v1/analytics/conversions"),
        ("POST", "/api/v1/conversions/track"),
    ] {
        assert_eq!(
            it.send(method, path, &[], "").await.code(),
            (401, "unauthorized".into()),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn addresses_and_methods_that_are_not_there_are_told() {
    let it = Fixture::new();
    assert_eq!(it.send("GET", "/api/v1", &[], "").await.code(), (404, "not_found".into()));
    let got = it.send("PUT", GOALS, &[], "").await;
    assert_eq!(
        (got.code(), got.header("allow")),
        ((405, "method_not_allowed".into()), Some("GET, HEAD, POST"))
    );
    let bearer = format!("Bearer {}", it.key);
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/xml")];
    assert_eq!(
        it.send("POST", GOALS, &headers, "<goal/>").await.code(),
        (415, "unsupported_media_type".into())
    );
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(it.send("POST", GOALS, &headers, r#"{"goal":{"name":"curl -d"}}"#).await.status, 201);
    assert_eq!(it.send("GET", "/", &[], "").await.json()["data"]["name"], "tally");
}

#[tokio::test]
async fn a_database_that_is_down_is_said_to_be() {
    let it = Fixture::new();
    for path in [
        "/api/v1/analytics/conversions",
        "/api/v1/conversions/rejections",
        "/api/v1/conversions/00000000-0000-0000-0000-000000000007",
        "/api/v1/conversions/00000000-0000-0000-0000-000000000007/adjustments",
    ] {
        let got = it.call("GET", path, "").await;
        assert_eq!(got.code(), (503, "database_unavailable".into()), "{path}");
        assert!(got.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn a_report_is_asked_for_the_callers_account_and_period() {
    let it = Fixture::new();
    let sums =
        CurrencySums { conversions: 12, value: MoneySum(123_450_000), net_value: MoneySum(100_000_000) };
    let measures = Measures {
        clicks: 110,
        human_clicks: 100,
        attributed: 10,
        net_conversions: 11,
        by_currency: [(Currency::USD, sums)].into(),
        ..Measures::default()
    };
    *it.services.reports.report.lock() = Some(ConversionReport {
        series: [(NOW.plus(-37 * 3_600_000), measures.clone())].into(),
        groups: vec![Group { key: GroupKey::Id(1), measures: measures.clone() }],
        whole: measures,
        ..ConversionReport::default()
    });
    let query = "days=7&goal_id=1&link_id=3&tz=Europe/Berlin&group_by=goal&basis=click";
    let got = it.call("GET", &format!("/api/v1/analytics/conversions?{query}"), "").await;
    let data = got.json()["data"].clone();
    assert_eq!(data["period"]["from"], "2026-01-15T00:00:00+01:00");
    assert_eq!(
        (data["period"]["days"].clone(), data["period"]["tz"].clone()),
        (7.into(), "Europe/Berlin".into())
    );
    assert_eq!(
        (data["conversions"].clone(), data["total_value"]["USD"].clone()),
        (12.into(), "123.45".into())
    );
    assert_eq!(data["average_value"]["USD"], "10.29");
    assert_eq!((data["clicks"].clone(), data["conversion_rate"].clone()), (110.into(), 10.0.into()));
    assert_eq!((data["attributed"].clone(), data["net_value"]["USD"].clone()), (10.into(), "100.00".into()));
    assert_eq!(data["series"].as_array().map(Vec::len), Some(7));
    assert_eq!(data["series"][5]["conversions"], 12, "the hour in which the 20th begins in Berlin");
    assert_eq!(
        (data["groups"][0]["id"].clone(), data["groups"][0]["name"].clone()),
        (1.into(), it.goal.name.clone().into())
    );
    let asked = it.services.reports.asked.lock().join("\n");
    for part in ["AccountId(1)", "Some(GoalId(1))", "Some(LinkId(3))", "basis: Click", "Some(Goal)"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }

    for (query, code) in [
        ("days=0", (400, "invalid_parameter")),
        ("days=401", (400, "invalid_parameter")),
        ("tz=Nowhere", (400, "invalid_parameter")),
        ("goal_id=99", (404, "goal_not_found")),
        ("link_id=0", (400, "invalid_parameter")),
        ("link_id=99999999999", (400, "invalid_parameter")),
        ("group_by=link,goal", (400, "invalid_parameter")),
        ("group_by=utm_source)%20FROM%20clicks%20--", (400, "invalid_parameter")),
        ("basis=clicks", (400, "invalid_parameter")),
        ("interval=minute", (400, "invalid_parameter")),
        ("days=400&interval=hour", (400, "invalid_parameter")),
        ("from=2026-01-01", (400, "invalid_parameter")),
        ("tz=UTC'", (400, "invalid_parameter")),
        ("from=2026-01-01&to=2026-01-02'", (400, "invalid_parameter")),
        ("limit=5", (400, "unknown_parameter")),
    ] {
        let got = it.call("GET", &format!("/api/v1/analytics/conversions?{query}"), "").await;
        assert_eq!(got.code(), (code.0, code.1.into()), "{query}");
    }
}

#[tokio::test]
async fn a_late_duplicate_points_to_the_original() {
    let it = Fixture::new();
    let original = ConversionId(uuid::Uuid::from_u128(6));
    let found = ConversionLookup::Duplicate { goal_id: GoalId(1), received_at: NOW, original };
    *it.services.reports.conversion.lock() = Some(found);
    let got = it.call("GET", &format!("/api/v1/conversions/{ID}"), "").await;
    assert_eq!(
        got.json()["data"],
        serde_json::json!({"conversion_id": ID.to_string(), "duplicate": true,
            "original_conversion_id": original.to_string(), "goal_id": 1, "received_at": "2026-01-21T12:00:00Z"})
    );
    *it.services.reports.conversion.lock() = Some(ConversionLookup::Unknown);
    let got = it.call("GET", &format!("/api/v1/conversions/{ID}"), "").await;
    assert_eq!(got.code(), (404, "conversion_not_found".into()));
    assert_eq!(it.call("GET", "/api/v1/conversions/not-an-id", "").await.status, 404);
}

#[tokio::test]
async fn rejections_say_when_why_and_what_came() {
    let it = Fixture::new();
    let refusal = Refusal {
        account_id: AccountId(1),
        goal_id: GoalId(1),
        received_at: NOW,
        code: "invalid_value".into(),
        field: "value".into(),
        message: "`value`: must not be negative.".into(),
        order_id: String::new(),
        conversion_id: None,
        original_id: None,
        source: Source::Postback,
        request: "{\"value\":-1}".into(),
    };
    *it.services.reports.refusals.lock() = Some(RefusalPage { refusals: vec![refusal], total: 51 });
    let got =
        it.call("GET", "/api/v1/conversions/rejections?goal_id=1&code=invalid_value&page=2", "").await.json();
    assert_eq!(
        got["data"][0],
        serde_json::json!({"received_at":"2026-01-21T12:00:00Z","goal_id":1,"code":"invalid_value","field":"value",
            "message":"`value`: must not be negative.","order_id":null,"conversion_id":null,
            "original_conversion_id":null,"source":"postback","request":"{\"value\":-1}"})
    );
    assert_eq!(got["pagination"]["total_pages"], 2);
    let got = it.call("GET", "/api/v1/conversions/rejections?code=nonsense", "").await;
    assert_eq!(got.code(), (400, "invalid_parameter".into()));
}
