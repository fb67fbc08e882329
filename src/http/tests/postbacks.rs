//! Postbacks through the API: what is asked, of whom, and what is said.

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    core::{
        GoalId,
        webhook::{Backfill, BackfillQuery, Delivery, DeliveryId, DeliveryPage, DeliveryQuery, TestAnswer},
    },
    http::{PostbackError, Postbacks},
};

const DELIVERIES: &str = "/api/v1/postbacks/deliveries";
const GOAL: &str = "/api/v1/conversions/goals/1";

/// Checks what is asked of it, and always answers the same.
pub(super) struct Told;

fn delivery() -> Delivery {
    Delivery {
        id: DeliveryId(uuid::Uuid::from_u128(9)),
        account_id: AccountId(1),
        goal_id: GoalId(1),
        conversion_id: ID,
        attempt: 2,
        status: None,
        error: "timeout".into(),
        latency_millis: 15_000,
        at: NOW,
        next_attempt_at: Some(NOW.plus(300_000)),
        answer: String::new(),
    }
}

impl Postbacks for Told {
    fn vet(&self, url: String) -> BoxFuture<'_, Result<(), String>> {
        let refused = url.contains("169.254").then(|| "not public".to_owned());
        Box::pin(async move { refused.map_or(Ok(()), Err) })
    }

    fn test(&self, goal: Goal) -> BoxFuture<'_, Result<TestAnswer, PostbackError>> {
        Box::pin(async move {
            Ok(TestAnswer {
                webhook_id: format!("msg_{}", goal.id.0),
                status: Some(200),
                error: String::new(),
                latency_millis: 12,
                answer: "ok".into(),
            })
        })
    }

    fn deliveries(
        &self,
        _: ReportPermit,
        query: DeliveryQuery,
    ) -> BoxFuture<'_, Result<DeliveryPage, ReportError>> {
        Box::pin(async move {
            assert_eq!((query.account_id, query.conversion_id), (AccountId(1), Some(ID)));
            Ok(DeliveryPage { deliveries: vec![delivery()], total: 1 })
        })
    }

    fn replay(
        &self,
        _: ReportPermit,
        account: AccountId,
        id: DeliveryId,
    ) -> BoxFuture<'_, Result<ConversionId, PostbackError>> {
        let known = account == AccountId(1) && id == delivery().id;
        Box::pin(async move { if known { Ok(ID) } else { Err(PostbackError::Unknown) } })
    }

    fn backfill(
        &self,
        _: ReportPermit,
        query: BackfillQuery,
    ) -> BoxFuture<'_, Result<Backfill, PostbackError>> {
        Box::pin(async move {
            assert_eq!((query.account_id, query.goal_id), (AccountId(1), GoalId(1)));
            let span = query.to.0 - query.from.0;
            Ok(Backfill { queued: span.unsigned_abs(), next_from: None })
        })
    }
}

#[tokio::test]
async fn attempts_are_listed_as_documented() {
    let it = Fixture::new();
    let got = it.call("GET", &format!("{DELIVERIES}?conversion_id={ID}"), "").await;
    assert_eq!(
        got.json()["data"],
        serde_json::json!([{"id":"00000000-0000-0000-0000-000000000009",
            "webhook_id":format!("msg_{ID}"),"conversion_id":ID.to_string(),"goal_id":1,"attempt":2,"status":null,
            "error":"timeout","latency_ms":15000,"at":"2026-01-21T12:00:00Z",
            "next_attempt_at":"2026-01-21T12:05:00Z","answer":""}])
    );
    let got = it.call("GET", &format!("{DELIVERIES}?conversion_id=x"), "").await;
    assert_eq!(got.code(), (400, "invalid_parameter".into()));
    for (method, path) in [
        ("GET", DELIVERIES.to_owned()),
        ("POST", format!("{DELIVERIES}/00000000-0000-0000-0000-000000000009/replay")),
        ("POST", format!("{GOAL}/test")),
        ("POST", format!("{GOAL}/backfill")),
        ("POST", format!("{GOAL}/rotate-postback-secret")),
    ] {
        assert_eq!(it.send(method, &path, &[], "").await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn postbacks_are_sent_again_and_tried() {
    let it = Fixture::new();
    let replay = async |id: &str| it.call("POST", &format!("{DELIVERIES}/{id}/replay"), "").await;
    let got = replay("00000000-0000-0000-0000-000000000009").await;
    assert_eq!((got.status, got.json()["data"]["webhook_id"].clone()), (202, format!("msg_{ID}").into()));
    assert_eq!(
        replay("00000000-0000-0000-0000-00000000000a").await.code(),
        (404, "delivery_not_found".into())
    );
    assert_eq!(replay("x").await.code(), (404, "delivery_not_found".into()));

    let test = async || it.call("POST", &format!("{GOAL}/test"), "").await;
    let backfill = async |body: &str| it.call("POST", &format!("{GOAL}/backfill"), body).await;
    let range = r#"{"from":"2026-01-01T00:00:00Z","to":"2026-01-01T00:00:01Z"}"#;
    assert_eq!(test().await.code(), (409, "no_endpoint".into()));
    assert_eq!(backfill(range).await.code(), (409, "no_endpoint".into()));
    let url = r#"{"goal":{"postback_url":"https://shop.example/hook"}}"#;
    assert_eq!(it.call("PATCH", GOAL, url).await.status, 200);
    let got = test().await;
    assert_eq!(
        got.json()["data"],
        serde_json::json!({"webhook_id":"msg_1","status":200,"error":null,"latency_ms":12,"answer":"ok"})
    );
    let got = backfill(range).await;
    assert_eq!(
        (got.status, got.json()["data"].clone()),
        (202, serde_json::json!({"queued":1000,"next_from":null}))
    );
    for (body, code) in [
        ("{}", "missing_field"),
        (r#"{"from":"yesterday"}"#, "invalid_time"),
        (r#"{"from":"2026-01-02T00:00:00Z","to":"2026-01-01T00:00:00Z"}"#, "invalid_field"),
        (r#"{"since":"2026-01-02T00:00:00Z"}"#, "unknown_field"),
    ] {
        assert_eq!(backfill(body).await.code(), (422, code.into()), "{body}");
    }
}

#[tokio::test]
async fn an_address_that_must_not_be_reached_is_refused_with_its_field() {
    let it = Fixture::new();
    let url = r#"{"goal":{"name":"n","postback_url":"https://169.254.169.254/"}}"#;
    for (method, path) in [("POST", "/api/v1/conversions/goals"), ("PATCH", GOAL)] {
        let got = it.call(method, path, url).await;
        assert_eq!(got.code(), (422, "invalid_field".into()));
        assert_eq!(got.json()["error"]["field"], "postback_url");
    }
}

#[tokio::test]
async fn the_secret_is_shown_once_where_it_is_made() {
    let it = Fixture::new();
    let body = r#"{"goal":{"name":"n","postback_url":"https://shop.example/pb?c={click_id}","postback_method":"GET"}}"#;
    let made = it.call("POST", "/api/v1/conversions/goals", body).await.json()["data"].clone();
    let secret = made["postback_secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_") && made["postback_method"] == "GET");
    let read = it.call("GET", "/api/v1/conversions/goals/2", "").await.json()["data"].clone();
    assert_eq!(read.get("postback_secret"), None);
    let rotated = it.call("POST", "/api/v1/conversions/goals/2/rotate-postback-secret", "").await;
    assert_eq!(rotated.status, 200);
    assert_ne!(rotated.json()["data"]["postback_secret"], secret.as_str());
    let wrong = it.call("PATCH", GOAL, r#"{"goal":{"postback_method":"PUT"}}"#).await;
    assert_eq!(wrong.code(), (422, "invalid_field".into()));
}
