//! A conversion with all that is known of it, and its adjustments.

use super::*;
use crate::core::{
    Adjustment, AdjustmentId, AdjustmentKind, Attribution, Campaign, Candidate, ClickId, Conversion,
    DedupScope, Earned, GoalId, LinkId, Matching, Method, Model, OrderId, OrderKey, RunId, Source,
    StoredConversion, Traffic, Unattributed,
};

fn adjustment(n: u128, kind: AdjustmentKind, value: Option<&str>) -> Adjustment {
    Adjustment {
        id: AdjustmentId(uuid::Uuid::from_u128(n)),
        account_id: AccountId(1),
        conversion_id: ID,
        kind,
        value: value.map(|text| Money::parse(text).expect("an amount")),
        key: None,
        reason: "damaged".into(),
        received_at: NOW.plus(i64::try_from(n).expect("small")),
        unverified: false,
    }
}

fn stored(outcome: Result<Earned, Unattributed>, adjustments: Vec<Adjustment>) -> ConversionLookup {
    let conversion = Conversion {
        id: ID,
        account_id: AccountId(1),
        goal_id: GoalId(1),
        order_id: OrderId::parse("ORDER-1").expect("fits"),
        key: Some((OrderKey(7), DedupScope::Forever)),
        value: Money::parse("99.99").expect("an amount"),
        currency: Currency::USD,
        received_at: NOW,
        converted_at: NOW.plus(-60_000),
        window_seconds: 30 * 86_400,
        source: Source::Postback,
        click_id: Some(ClickId(789)),
        ip: "203.0.113.0".parse().ok(),
        user_agent: "Mozilla/5.0".into(),
        visitor_key: 1,
        matching: Matching::Unknown,
        unverified: false,
    };
    let attribution = Attribution { outcome, candidates: 1 };
    ConversionLookup::Counted(Box::new(StoredConversion {
        conversion,
        attribution,
        run: RunId(2),
        adjustments,
    }))
}

fn earned() -> Earned {
    Earned {
        method: Method::ClickId,
        click_id: ClickId(789),
        link_id: Some(LinkId(1)),
        clicked_at: NOW.plus(-3_660_000),
        seconds_to_convert: 3600,
        campaign: Campaign { source: "facebook".into(), medium: "cpc".into(), ..Campaign::default() },
        variant: "B".into(),
        labelled: true,
    }
}

#[tokio::test]
async fn a_conversion_says_what_earned_it_and_what_is_left_of_it() {
    let it = Fixture::new();
    let refund = adjustment(1, AdjustmentKind::Refund, Some("20"));
    *it.services.reports.conversion.lock() = Some(stored(Ok(earned()), vec![refund]));
    let got = it.call("GET", &format!("/api/v1/conversions/{ID}"), "").await;
    assert_eq!(
        got.json()["data"],
        serde_json::json!({
            "conversion_id": ID.to_string(), "duplicate": false, "goal_id": 1, "order_id": "ORDER-1",
            "value": "99.99", "currency": "USD", "received_at": "2026-01-21T12:00:00Z",
            "converted_at": "2026-01-21T11:59:00Z", "source": "postback", "click_id": 789, "ip": "203.0.113.0",
            "user_agent": "Mozilla/5.0", "attribution_window_seconds": 2_592_000,
            "attribution": {
                "method": "click_id", "reason": null, "click_id": 789, "link_id": 1,
                "clicked_at": "2026-01-21T10:59:00Z", "seconds_to_convert": 3600, "candidates": 1,
                "utm_source": "facebook", "utm_medium": "cpc", "utm_campaign": null, "utm_term": null,
                "utm_content": null, "variant": "B", "run": 2,
            },
            "adjustments": [{
                "adjustment_id": "00000000-0000-0000-0000-000000000001", "type": "refund", "value": "20.00",
                "reason": "damaged", "received_at": "2026-01-21T12:00:00.001Z",
            }],
            "net_value": "79.99", "net_conversions": 1,
        })
    );
    *it.services.reports.conversion.lock() = Some(stored(Err(Unattributed::OutsideWindow), Vec::new()));
    let got = it.call("GET", &format!("/api/v1/conversions/{ID}"), "").await.json()["data"].clone();
    assert_eq!(
        (got["attribution"]["method"].clone(), got["attribution"]["reason"].clone()),
        (Value::Null, "outside_window".into())
    );
    assert_eq!(got["net_value"], "99.99");
}

#[tokio::test]
async fn an_explanation_names_every_click_and_its_verdict() {
    let it = Fixture::new();
    *it.services.reports.conversion.lock() = Some(stored(Ok(earned()), Vec::new()));
    let path = format!("/api/v1/conversions/{ID}");
    assert_eq!(it.call("GET", &path, "").await.json()["data"].get("explain"), None, "only who asks is told");
    let asked = format!("{path}?explain=1");
    assert_eq!(it.call("GET", &asked, "").await.code(), (503, "database_unavailable".into()));
    let click = |id, seconds_before: i64| Candidate {
        account_id: AccountId(1),
        click_id: ClickId(id),
        link_id: None,
        clicked_at: NOW.plus(-60_000 - seconds_before * 1000),
        received_at: NOW,
        traffic: Traffic::Bot,
        visitor_key: 0,
        private_address: false,
        labels: Arc::default(),
    };
    *it.services.reports.candidates.lock() = Some(Candidates {
        clicks: vec![click(789, 3600), click(7, 7200)],
        is_truncated: true,
        window_seconds: 3600,
        model: Model::Last,
    });
    let got = it.call("GET", &asked, "").await.json()["data"]["explain"].clone();
    assert_eq!(
        got["candidates"][0],
        serde_json::json!({
            "click_id": 789, "link_id": null, "clicked_at": "2026-01-21T10:59:00Z",
            "received_at": "2026-01-21T12:00:00Z", "traffic": "bot", "seconds": 3600, "verdict": "won",
            "why": "It earned the conversion.",
        }),
        "one that is named may be a robot's"
    );
    assert_eq!(got["candidates"][1]["verdict"], "not_named");
    assert_eq!(
        (got["window_seconds"].clone(), got["settle_seconds"].clone(), got["truncated"].clone()),
        (3600.into(), 5.into(), true.into())
    );
    let got = it.call("GET", &format!("{path}?explain=yes"), "").await;
    assert_eq!(got.code(), (400, "invalid_parameter".into()));
}

#[tokio::test]
async fn an_adjustment_is_answered_with_what_is_left() {
    let it = Fixture::new();
    let path = format!("/api/v1/conversions/{ID}/adjustments");
    let before = adjustment(1, AdjustmentKind::Refund, Some("20"));
    *it.services.reports.conversion.lock() = Some(stored(Ok(earned()), vec![before]));
    let id = AdjustmentId(uuid::Uuid::from_u128(9));
    let bearer = format!("Bearer {}", it.key);
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k-1")];
    let body = r#"{"adjustment":{"type":"correction","value":"50","reason":"wrong price"}}"#;

    *it.services.intake.adjust_outcome.lock() = AdjustOutcome::New(id);
    let got = it.send("POST", &path, &headers, body).await;
    assert_eq!(got.status, 201);
    assert_eq!(
        got.json()["data"],
        serde_json::json!({
            "adjustment_id": id.to_string(), "duplicate": false, "conversion_id": ID.to_string(),
            "type": "correction", "value": "50.00", "reason": "wrong price", "currency": "USD",
            "received_at": "2026-01-21T12:00:00Z", "net_value": "30.00", "net_conversions": 1,
        })
    );
    let adjusted = it.services.intake.adjusted.lock().pop().expect("submitted");
    assert_eq!((adjusted.conversion_id, adjusted.kind), (ID, AdjustmentKind::Correction));
    assert_eq!(adjusted.idempotency_key.as_deref(), Some("k-1"));

    *it.services.intake.adjust_outcome.lock() = AdjustOutcome::Unverified(id);
    let got = it.send("POST", &path, &headers, body).await;
    assert_eq!((got.status, got.json()["data"]["duplicate"].clone()), (202, Value::Null));
    let first = AdjustmentId(uuid::Uuid::from_u128(1));
    it.duplicate_adjustment(first, Sameness::Same);
    let got = it.send("POST", &path, &headers, body).await;
    assert_eq!((got.status, got.json()["data"]["type"].clone()), (200, "refund".into()), "the first one's");
    it.duplicate_adjustment(id, Sameness::Same);
    let got = it.send("POST", &path, &headers, body).await;
    assert_eq!(
        got.json()["data"],
        serde_json::json!({"adjustment_id": id.to_string(), "duplicate": true}),
        "not in the database yet"
    );
    *it.services.intake.adjust_outcome.lock() = AdjustOutcome::Overloaded { retry_after: SOON };
    assert_eq!(it.send("POST", &path, &headers, body).await.code(), (503, "overloaded".into()));

    let got = it.call("GET", &path, "").await.json();
    assert_eq!(
        (got["data"][0]["type"].clone(), got["pagination"]["total"].clone()),
        ("refund".into(), 1.into())
    );
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_call() {
    let it = Fixture::new();
    let path = format!("/api/v1/conversions/{ID}/adjustments");
    let before = adjustment(1, AdjustmentKind::Refund, Some("20"));
    *it.services.reports.conversion.lock() = Some(stored(Ok(earned()), vec![before]));
    let same = r#"{"adjustment":{"reason":" damaged","type":"refund","value":20.0}}"#;
    let other = r#"{"adjustment":{"type":"refund","value":"20.01","reason":"damaged"}}"#;
    let reused = (422, "idempotency_key_reused".to_owned());
    let (known, elsewhere) = (AdjustmentId(uuid::Uuid::from_u128(1)), AdjustmentId(uuid::Uuid::from_u128(9)));

    it.duplicate_adjustment(known, Sameness::Different);
    assert_eq!(it.call("POST", &path, same).await.code(), reused, "memory knows");
    it.duplicate_adjustment(known, Sameness::Unknown);
    assert_eq!(it.call("POST", &path, same).await.status, 200, "the database knows, and it is the same");
    assert_eq!(it.call("POST", &path, other).await.code(), reused);
    it.services.reports.asked.lock().clear();
    it.duplicate_adjustment(elsewhere, Sameness::Unknown);
    assert_eq!(it.call("POST", &path, same).await.code(), reused, "of another conversion");
    assert_eq!(it.services.reports.asked.lock().len(), 2, "the database was asked once more");
}

impl Fixture {
    fn duplicate_adjustment(&self, original: AdjustmentId, sameness: Sameness) {
        *self.services.intake.adjust_outcome.lock() = AdjustOutcome::Duplicate { original, sameness };
    }
}

#[tokio::test]
async fn what_can_not_be_adjusted_is_said_to_be_so() {
    let it = Fixture::new();
    let path = format!("/api/v1/conversions/{ID}/adjustments");
    let post = async |body: &str| it.call("POST", &path, body).await.code();
    let reject = r#"{"adjustment":{"type":"reject"}}"#;
    assert_eq!(post(reject).await, (503, "database_unavailable".into()));
    *it.services.reports.conversion.lock() = Some(ConversionLookup::Unknown);
    assert_eq!(post(reject).await, (404, "conversion_not_found".into()));
    let original = ConversionId(uuid::Uuid::from_u128(6));
    *it.services.reports.conversion.lock() =
        Some(ConversionLookup::Duplicate { goal_id: GoalId(1), received_at: NOW, original });
    let got = it.call("POST", &path, reject).await;
    assert_eq!(got.status, 404);
    assert!(got.json()["error"]["message"].as_str().expect("text").contains(&original.to_string()));
    let many = (0..1000).map(|n| adjustment(n, AdjustmentKind::Reject, None)).collect();
    *it.services.reports.conversion.lock() = Some(stored(Ok(earned()), many));
    assert_eq!(post(reject).await, (409, "too_many_adjustments".into()));
    assert_eq!(post(r#"{"adjustment":{"type":"x"}}"#).await, (422, "invalid_field".into()));
    assert_eq!(it.call("POST", "/api/v1/conversions/7/adjustments", reject).await.status, 404);
    assert!(it.services.intake.adjusted.lock().is_empty(), "nothing was kept");
}
