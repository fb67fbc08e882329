//! Funnels, variants and health: parameters, whose numbers they are, and how answers read.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::core::{
    AttributionFacts, ClickFacts, ConversionFacts, GoalId, MoneySum, RefusedFacts, Source, VariantCounts,
};

const LINK: &str = r#"{"link":{"name":"L","destination_url":"https://a.example/","variants":[
    {"name":"A","weight":1},{"name":"B","weight":2}]}}"#;

/// A second goal, so that there is a funnel.
async fn with_two_goals() -> Fixture {
    let it = Fixture::new();
    let got = it.call("POST", "/api/v1/conversions/goals", r#"{"goal":{"name":"Sign-up"}}"#).await;
    assert_eq!((got.status, got.json()["data"]["id"].clone()), (201, 2.into()));
    it
}

/// The key of another account, which has goal 3 and link 1.
async fn stranger(it: &Fixture) -> String {
    let made = it.call("POST", "/api/v1/accounts", r#"{"account":{"name":"Other"}}"#).await.json();
    let bearer = format!("Bearer {}", made["data"]["api_key"].as_str().expect("a key"));
    let headers = [("authorization", bearer.as_str())];
    let goal = it.send("POST", "/api/v1/conversions/goals", &headers, r#"{"goal":{"name":"X"}}"#).await;
    let link = it.send("POST", "/api/v1/links", &headers, LINK).await;
    assert_eq!((goal.json()["data"]["id"].clone(), link.json()["data"]["id"].clone()), (3.into(), 1.into()));
    bearer
}

#[tokio::test]
async fn reports_refuse_what_they_do_not_understand_and_what_is_not_the_callers() {
    let it = with_two_goals().await;
    let bearer = stranger(&it).await;
    let refused = [
        ("funnel", "", 400, "invalid_parameter", "goals"),
        ("funnel", "goals=1", 400, "invalid_parameter", "goals"),
        ("funnel", "goals=1,1", 400, "invalid_parameter", "goals"),
        ("funnel", "goals=1,,2", 400, "invalid_parameter", "goals"),
        ("funnel", "goals=0,1", 400, "invalid_parameter", "goals"),
        ("funnel", "goals=1,2,3,4,5,6,7,8,9,10,11", 400, "invalid_parameter", "goals"),
        ("funnel", "goals=1,99", 404, "goal_not_found", "goals"),
        ("funnel", "goals=1,3", 404, "goal_not_found", "goals"),
        ("funnel", "goals=1,2&window=91d", 400, "invalid_parameter", "window"),
        ("funnel", "goals=1,2&strict=maybe", 400, "invalid_parameter", "strict"),
        ("funnel", "goals=1,2&link_id=x", 400, "invalid_parameter", "link_id"),
        ("funnel", "goals=1,2&days=401", 400, "invalid_parameter", "days"),
        ("funnel", "goals=1,2&goal_id=1", 400, "unknown_parameter", "goal_id"),
        ("variants", "", 400, "invalid_parameter", "link_id"),
        ("variants", "link_id=1", 404, "link_not_found", "link_id"),
        ("variants", "link_id=99", 404, "link_not_found", "link_id"),
        ("variants", "link_id=1&tz=Nowhere", 404, "link_not_found", "link_id"),
        ("health", "goal_id=3", 404, "goal_not_found", "goal_id"),
        ("health", "goal_id=x", 400, "invalid_parameter", "goal_id"),
        ("health", "from=2026-01-01", 400, "invalid_parameter", "to"),
        ("health", "link_id=1", 400, "unknown_parameter", "link_id"),
    ];
    for (report, query, status, code, field) in refused {
        let path = format!("/api/v1/analytics/{report}?{query}");
        let got = it.call("GET", &path, "").await;
        assert_eq!(got.code(), (status, code.into()), "{path}");
        assert_eq!(got.json()["error"]["field"], field, "{path}");
        assert_eq!(it.send("GET", &path, &[], "").await.status, 401, "{path}");
    }
    assert_eq!(it.services.reports.asked.lock().len(), 0, "nothing refused reaches the database");
    // To its own account, the same is there; and the database is down.
    let headers = [("authorization", bearer.as_str())];
    for path in ["variants?link_id=1", "variants?link_id=1&goal_id=3", "health?goal_id=3", "health"] {
        let got = it.send("GET", &format!("/api/v1/analytics/{path}"), &headers, "").await;
        assert_eq!(got.code(), (503, "database_unavailable".into()), "{path}");
        assert!(got.header("retry-after").is_some(), "{path}");
    }
    let got = it.call("GET", "/api/v1/analytics/funnel?goals=1,2", "").await;
    assert_eq!(got.code(), (503, "database_unavailable".into()));
    let asked = it.services.reports.asked.lock();
    assert!(asked[..4].iter().all(|query| query.contains("AccountId(2)")), "{asked:?}");
    assert!(asked[4].contains("AccountId(1)"), "{asked:?}");
}

#[tokio::test]
async fn a_funnel_is_asked_for_as_it_was_meant() {
    let it = with_two_goals().await;
    let step = |goal, visitors, median| FunnelStep {
        goal_id: GoalId(goal),
        conversions: 40,
        conversions_without_visitor: 3,
        visitors,
        median_seconds_from_previous: median,
    };
    *it.services.reports.funnel.lock() = Some(vec![step(2, 20, None), step(1, 5, Some(3600))]);
    let path =
        "/api/v1/analytics/funnel?goals=2,%201&window=7d&strict=true&link_id=9&days=14&tz=Europe/Berlin";
    let got = it.call("GET", path, "").await;
    let data = got.json()["data"].clone();
    assert_eq!(data["period"]["tz"], "Europe/Berlin");
    assert_eq!(data["window_seconds"], 604_800);
    assert_eq!((data["strict"].clone(), data["link_id"].clone()), (true.into(), 9.into()));
    assert_eq!(
        data["steps"],
        json!([
            {"goal_id": 2, "name": "Sign-up", "conversions": 40, "conversions_without_visitor": 3, "visitors": 20,
                "step_rate": 100.0, "overall_rate": 100.0, "median_seconds_from_previous": null},
            {"goal_id": 1, "name": "Sales", "conversions": 40, "conversions_without_visitor": 3, "visitors": 5,
                "step_rate": 25.0, "overall_rate": 25.0, "median_seconds_from_previous": 3600},
        ])
    );
    let asked = it.services.reports.asked.lock().join("\n");
    for part in [
        "AccountId(1)",
        "[GoalId(2), GoalId(1)]",
        "Some(LinkId(9))",
        "window_seconds: 604800",
        "strict: true",
    ] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
}

#[tokio::test]
async fn variants_have_a_verdict_only_when_there_is_enough() {
    let it = Fixture::new();
    assert_eq!(it.call("POST", "/api/v1/links", LINK).await.status, 201);
    let counts = |human_clicks, converting_clicks, conversions| VariantCounts {
        clicks: human_clicks + 7,
        human_clicks,
        visitors: human_clicks / 2,
        converting_clicks,
        conversions,
        value: BTreeMap::from([(Currency::USD, MoneySum(100_000_000))]),
    };
    let variants = BTreeMap::from([
        (String::new(), counts(10, 1, 1)),
        ("B".to_owned(), counts(200, 90, 300)),
        ("Old".to_owned(), counts(150, 30, 30)),
        ("(other)".to_owned(), counts(5, 5, 5)),
    ]);
    let first_click = Some(NOW.plus(-8 * 86_400_000));
    *it.services.reports.variants.lock() = Some(VariantReport { variants, first_click });
    let data = it.call("GET", "/api/v1/analytics/variants?link_id=1", "").await.json()["data"].clone();
    let rows: Vec<_> = data["variants"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| {
            (row["variant"].clone(), row["weight"].clone(), row["compared"].clone(), row["rate"].clone())
        })
        .collect();
    let row = |variant: Value, weight: Value, compared: bool, rate: f64| {
        (variant, weight, compared.into(), rate.into())
    };
    assert_eq!(
        rows,
        [
            row(Value::Null, Value::Null, false, 10.0),
            row("(other)".into(), Value::Null, false, 100.0),
            row("A".into(), 1.into(), false, 0.0),
            row("B".into(), 2.into(), true, 45.0),
            row("Old".into(), Value::Null, true, 20.0),
        ]
    );
    let b = &data["variants"][3];
    assert_eq!((b["conversions"].clone(), b["converting_clicks"].clone()), (300.into(), 90.into()));
    assert_eq!(b["interval"], json!({"low": 38.26, "high": 51.92, "level": 95, "method": "wilson"}));
    assert_eq!(
        (b["value_per_click"]["USD"].clone(), b["value_per_visitor"]["USD"].clone()),
        ("0.50".into(), "1.00".into())
    );
    assert_eq!(data["variants"][2]["probability_best"], Value::Null);
    assert_eq!(data["verdict"], json!({"best": "B", "probability": 1.0}));
    assert_eq!((data["reason"].clone(), data["days_observed"].clone()), (Value::Null, 8.into()));
    assert_eq!(
        data["minimum"],
        json!({"days": 7, "human_clicks": 100, "converting_clicks": 25, "probability": 0.95})
    );

    *it.services.reports.variants.lock() = Some(VariantReport::default());
    let data = it.call("GET", "/api/v1/analytics/variants?link_id=1", "").await.json()["data"].clone();
    assert_eq!((data["verdict"].clone(), data["reason"].clone()), (Value::Null, "one_variant".into()));
    assert_eq!(data["variants"].as_array().map(Vec::len), Some(2), "as configured");
}

#[tokio::test]
async fn health_shows_what_came_and_what_to_do() {
    let it = Fixture::new();
    *it.services.reports.health.lock() = Some(HealthReport {
        conversions: ConversionFacts {
            count: 40,
            last_received_at: Some(NOW),
            by_postback: 40,
            ..ConversionFacts::default()
        },
        attribution: AttributionFacts {
            by_click_id: 30,
            by_ip_user_agent: 0,
            unattributed: BTreeMap::from([("click_not_found", 10)]),
        },
        refused: vec![
            RefusedFacts {
                code: "duplicate".into(),
                count: 8,
                conflicts: 1,
                of_one_conversion: 0,
                examples: Vec::new(),
            },
            RefusedFacts {
                code: "invalid_value".into(),
                count: 2,
                of_one_conversion: 0,
                conflicts: 0,
                examples: vec![Refusal {
                    account_id: AccountId(1),
                    goal_id: GoalId(1),
                    received_at: NOW,
                    code: "invalid_value".into(),
                    field: "value".into(),
                    message: "m".into(),
                    order_id: String::new(),
                    conversion_id: None,
                    original_id: None,
                    source: Source::Pixel,
                    request: "value=x".into(),
                }],
            },
        ],
        clicks: ClickFacts { count: 50, human: 40, without_link: 0 },
    });
    let data = it.call("GET", "/api/v1/analytics/health?goal_id=1", "").await.json()["data"].clone();
    let codes: Vec<_> =
        data["findings"].as_array().expect("a list").iter().map(|one| one["code"].clone()).collect();
    assert_eq!(codes, ["clicks_not_found", "conflicting_duplicates"]);
    assert_eq!(
        (data["healthy"].clone(), data["findings"][0]["severity"].clone()),
        (false.into(), "error".into())
    );
    assert_eq!(
        (data["received"]["total"].clone(), data["received"]["refused"].clone()),
        (50.into(), 2.into())
    );
    assert_eq!(data["received"]["last_refused_at"], "2026-01-21T12:00:00Z");
    assert_eq!(
        (data["rejections"][0]["code"].clone(), data["rejections"][0]["share"].clone()),
        ("invalid_value".into(), 4.0.into())
    );
    assert_eq!(data["rejections"][0]["examples"][0]["request"], "value=x");
    assert_eq!(data["duplicates"], json!({"count": 8, "share": 16.0, "conflicts": 1}));
    assert_eq!(
        data["attribution"]["reasons"],
        json!([{"reason": "click_not_found", "count": 10, "share": 25.0}])
    );
    assert_eq!(
        (data["attribution"]["attributed_share"].clone(), data["clicks"]["robots_share"].clone()),
        (75.0.into(), 20.0.into())
    );
}
