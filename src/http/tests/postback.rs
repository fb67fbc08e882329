//! Conversions reported by servers and scripts.

use std::num::NonZeroU32;

use super::*;
use crate::core::{ClickId, OrderId, Source};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn the_documented_body_becomes_a_conversion() {
    let it = Fixture::new();
    let body = r#"{"value":99.99,"currency":"USD","order_id":"ORDER-12345","click_id":789}"#;
    let got = it.track("POST", "", &[JSON, ("user-agent", "Shop/1")], body).await;
    assert_eq!(got.status, 201);
    assert_eq!(
        got.body,
        r#"{"success":true,"data":{"conversion_id":"00000000-0000-0000-0000-000000000007","duplicate":false}}"#
    );
    assert_eq!(got.header("content-type"), Some("application/json"));
    assert_eq!(got.header("access-control-allow-origin"), Some("*"));
    assert_eq!(got.header("ratelimit-limit"), None, "no limit, no headers");
    let [hit] = it.submitted().try_into().expect("one");
    assert_eq!(hit.value.micros(), 99_990_000);
    assert_eq!(hit.currency, Currency::USD);
    assert_eq!(hit.order_id.as_ref().map(OrderId::as_str), Some("ORDER-12345"));
    assert_eq!(hit.click_id, Some(ClickId(789)));
    assert_eq!((hit.source, hit.received_at), (Source::Postback, NOW));
    assert_eq!(hit.ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.9"));
    assert_eq!(hit.user_agent, "Shop/1");
    assert_eq!((hit.account_id, hit.goal_id), (AccountId(1), it.goal.id));
}

#[tokio::test]
async fn what_is_missing_comes_from_the_goal_and_zero_stays_zero() {
    let it = Fixture::new();
    for (body, value, currency) in [
        ("", "99.00", "EUR"),
        (r#"{"value":0.30000000000000004}"#, "0.30", "EUR"),
        ("{}", "99.00", "EUR"),
        (r#"{"value":0}"#, "0.00", "EUR"),
        (r#"{"currency":"gbp"}"#, "99.00", "GBP"),
    ] {
        assert_eq!(it.track("POST", "", &[], body).await.status, 201, "{body}");
        let hit = it.submitted().pop().expect("submitted");
        assert_eq!((hit.value.to_string().as_str(), hit.currency.as_str()), (value, currency), "{body}");
    }
}

#[tokio::test]
async fn a_visitor_is_only_reported_by_those_with_a_key() {
    let it = Fixture::new();
    let visitor = r#""ip":"198.51.100.7","user_agent":"Visitor/2""#;
    it.track("POST", "", &[("user-agent", "Shop/1")], &format!("{{{visitor}}}")).await;
    let body = format!(r#"{{"postback_token":"{}",{visitor}}}"#, it.goal.postback_token.0);
    let got = it.call("POST", "/api/v1/conversions/track", &body).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.header("access-control-allow-origin"), None);
    let [by_token, by_key] = it.submitted().try_into().expect("two");
    assert_eq!(by_token.ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.9"));
    assert_eq!(by_token.user_agent, "Shop/1");
    assert_eq!(by_key.ip.map(|ip| ip.to_string()).as_deref(), Some("198.51.100.7"));
    assert_eq!((by_key.user_agent.as_str(), by_key.source), ("Visitor/2", Source::Api));
}

#[tokio::test]
async fn a_time_is_only_reported_by_those_who_are_trusted() {
    let it = Fixture::new();
    let at = r#""converted_at":"2026-01-21T11:00:00Z""#;
    it.track("POST", "", &[], &format!("{{{at}}}")).await;
    let with_key = |at: &str| format!(r#"{{"postback_token":"{}",{at}}}"#, it.goal.postback_token.0);
    it.call("POST", "/api/v1/conversions/track", &with_key(at)).await;
    let times: Vec<_> = it.submitted().iter().map(|hit| hit.converted_at.0 - NOW.0).collect();
    assert_eq!(times, [0, -3_600_000]);
    let too_late = with_key(r#""converted_at":"2026-01-21T12:01:01Z""#);
    let got = it.call("POST", "/api/v1/conversions/track", &too_late).await;
    assert_eq!(
        (got.code(), got.json()["error"]["field"].as_str()),
        ((422, "invalid_time".into()), Some("converted_at"))
    );
}

#[tokio::test]
async fn a_goal_may_trust_its_token() {
    let it = Fixture::with_catalog(|catalog| {
        let patch = crate::catalog::GoalPatch { trust_client_fields: Some(true), ..Default::default() };
        catalog.change_goal(AccountId(1), crate::core::GoalId(1), patch).expect("changed");
    });
    let report = r#"{"ip":"198.51.100.7","converted_at":"2026-01-21T11:00:00Z"}"#;
    it.track("POST", "", &[("user-agent", "Shop/1")], report).await;
    it.track("POST", "", &[("user-agent", "Browser/1")], "{}").await;
    let [reported, seen] = it.submitted().try_into().expect("two");
    assert_eq!(reported.ip.map(|ip| ip.to_string()).as_deref(), Some("198.51.100.7"));
    assert_eq!(reported.user_agent, "", "the caller's own is not the visitor's");
    assert_eq!(reported.converted_at, NOW.plus(-3_600_000));
    assert_eq!(seen.ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.9"));
    assert_eq!((seen.user_agent.as_str(), seen.converted_at), ("Browser/1", NOW));
}

#[tokio::test]
async fn a_key_is_needed_and_tracks_its_own_goals_alone() {
    let it = Fixture::new();
    let path = "/api/v1/conversions/track";
    let got = it.send("POST", path, &[], "{}").await;
    assert_eq!(got.code(), (401, "unauthorized".into()));
    assert!(got.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
    let wrong = format!("Bearer {}x", it.key);
    assert_eq!(it.send("POST", path, &[("authorization", &wrong)], "{}").await.status, 401);
    assert_eq!(it.call("POST", path, "{}").await.code(), (422, "missing_field".into()));
    let got = it.call("POST", path, r#"{"postback_token":"nobody's"}"#).await;
    assert_eq!(got.code(), (404, "unknown_token".into()));
    assert!(it.submitted().is_empty());
}

#[tokio::test]
async fn every_outcome_has_its_answer() {
    let it = Fixture::new();
    let answer = |outcome| {
        it.outcome(outcome);
        it.track("POST", "", &[], r#"{"order_id":"A"}"#)
    };
    let got = answer(Outcome::Duplicate { original: ID, conflict: false }).await;
    assert_eq!((got.status, got.json()["data"]["duplicate"].clone()), (200, Value::Bool(true)));
    assert_eq!(got.json()["data"].get("conflict"), None);
    let got = answer(Outcome::Duplicate { original: ID, conflict: true }).await;
    assert_eq!((got.status, got.json()["data"]["conflict"].clone()), (200, Value::Bool(true)));
    let got = answer(Outcome::Unverified(ID)).await;
    assert_eq!((got.status, got.json()["data"]["duplicate"].clone()), (202, Value::Null));
    let got = answer(Outcome::Overloaded { retry_after: SOON }).await;
    assert_eq!(got.code(), (503, "overloaded".into()));
    assert_eq!(got.header("retry-after"), Some("2"), "rounded up");
    let got = answer(Outcome::Unavailable).await;
    assert_eq!(got.code(), (503, "unavailable".into()));
    assert!(got.header("retry-after").is_some());

    let codes: Vec<_> = it.refused().into_iter().map(|refusal| (refusal.code, refusal.order_id)).collect();
    let duplicate = ("duplicate".to_owned(), String::new());
    assert_eq!(codes, [duplicate.clone(), duplicate], "what the log can't take is not sent to it");
}

#[tokio::test]
async fn a_refused_hit_can_be_read_afterwards() {
    let it = Fixture::new();
    let got = it.track("POST", "", &[JSON], r#"{"value":-5,"order_id":"A-1","ip":"198.51.100.7"}"#).await;
    assert_eq!(got.code(), (422, "invalid_value".into()));
    assert_eq!(got.json()["error"]["field"], "value");
    let [refusal] = it.refused().try_into().expect("one");
    assert_eq!(
        (refusal.code.as_str(), refusal.field.as_str(), refusal.order_id.as_str()),
        ("invalid_value", "value", "A-1")
    );
    assert!(refusal.request.contains("-5") && !refusal.request.contains("198.51"), "{}", refusal.request);

    assert_eq!(it.track("POST", "", &[JSON], "{").await.code(), (400, "invalid_json".into()));
    assert_eq!(
        it.track("POST", "", &[], r#"{"click_id":"{clickid}"}"#).await.code(),
        (422, "unexpanded_macro".into())
    );
    assert_eq!(
        it.track("POST", "", &[("idempotency-key", "")], "").await.code(),
        (400, "invalid_idempotency_key".into())
    );
    assert_eq!(it.refused().len(), 4);
    let got = it.send("POST", "/api/conversions/track/nobody", &[], "{}").await;
    assert_eq!(got.code(), (404, "unknown_token".into()));
    assert_eq!(got.header("access-control-allow-origin"), Some("*"));
    assert_eq!(it.refused().len(), 4, "nobody's hit is nobody's to read");
    assert!(it.submitted().is_empty());
}

#[tokio::test]
async fn a_goal_records_no_more_than_a_thousand_refusals_a_minute() {
    let it = Fixture::new();
    for _ in 0..1_100 {
        it.track("POST", "", &[], "{").await;
    }
    let recorded = it.refused().len();
    // The bucket refills while the test runs.
    assert!((1_000..1_100).contains(&recorded), "{recorded}");
}

#[tokio::test]
async fn forms_beacons_and_idempotency_keys_are_understood() {
    let it = Fixture::new();
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(it.track("POST", "", &[form], "value=1.50&order_id=A%201&utm=x").await.status, 201);
    let beacon = ("content-type", "text/plain;charset=UTF-8");
    assert_eq!(it.track("POST", "", &[beacon], r#"{"value":"2.50"}"#).await.status, 201);
    assert_eq!(it.track("POST", "value=3.50", &[("idempotency-key", "k-1")], "").await.status, 201);
    let hits = it.submitted();
    let values: Vec<_> = hits.iter().map(|hit| hit.value.to_string()).collect();
    assert_eq!(values, ["1.50", "2.50", "3.50"]);
    assert_eq!(hits[0].order_id.as_ref().map(OrderId::as_str), Some("A 1"));
    assert_eq!(hits[2].idempotency_key.as_deref(), Some("k-1"));
}

#[tokio::test]
async fn somebody_elses_call_is_refused_with_the_names_that_came() {
    let it = Fixture::new();
    for body in [
        r#"{"payout":5,"txid":"T1","cid":789}"#,
        r#"{"id":820982911946154508,"total_price":"10.00","currency":"USD","customer":{"id":1}}"#,
        r#"{"webhook_id":3}"#,
    ] {
        let got = it.track("POST", "", &[JSON], body).await;
        assert_eq!(got.code(), (422, "no_known_field".into()), "{body}");
    }
    assert_eq!(it.track("POST", "payout=5&txid=T1&cid=789", &[], "").await.code().0, 422);
    let refused = it.refused();
    // The names are anything that the caller likes: kept are those that look like names of fields.
    assert!(!refused[0].message.contains("payout"), "{}", refused[0].message);
    assert!(
        refused[0].request.contains(r#""other_fields":["payout","txid","cid"]"#),
        "{}",
        refused[0].request
    );
    assert!(it.submitted().is_empty());
}

#[tokio::test]
async fn what_is_ignored_is_named_and_what_is_a_placeholder_is_told() {
    let it = Fixture::new();
    let got = it.track("POST", "", &[JSON], r#"{"VALUE":5,"sub1":"x","ip":"198.51.100.7"}"#).await;
    assert_eq!((got.status, got.header("x-ignored-fields")), (201, Some("sub1, ip")));
    assert_eq!(got.json()["data"]["ignored"], serde_json::json!(["sub1", "ip"]));
    assert_eq!(it.submitted().pop().expect("submitted").value.to_string(), "5.00");

    let body = r#"{"value":5,"order_id":"undefined","click_id":"EAIaIQobChMI"}"#;
    let got = it.track("POST", "", &[JSON], body).await;
    assert_eq!(got.status, 201);
    let warnings = got.json()["data"]["warnings"].clone();
    assert_eq!((&warnings[0]["code"], &warnings[0]["field"]), (&"placeholder".into(), &"order_id".into()));
    assert_eq!(
        (&warnings[1]["code"], &warnings[1]["field"]),
        (&"invalid_click_id".into(), &"click_id".into())
    );
    let hit = it.submitted().pop().expect("submitted");
    assert_eq!((hit.order_id, hit.click_id), (None, Some(ClickId::UNUSABLE)));

    let got = it.track("POST", "a=1", &[], "value=5&amp;currency=GBP").await;
    assert_eq!(got.json()["data"]["ignored"], serde_json::json!(["a"]));
    assert_eq!(it.submitted().pop().expect("submitted").currency.as_str(), "GBP");
}

#[tokio::test]
async fn a_user_agent_beyond_ascii_is_kept_as_text() {
    let it = Fixture::new();
    let agent = "Mozilla/5.0 (Linux; Gerät) Mobile";
    it.track("POST", "", &[("user-agent", agent)], r#"{"value":1}"#).await;
    assert_eq!(it.submitted().pop().expect("submitted").user_agent, agent);
}

#[tokio::test]
async fn the_limit_is_told_on_every_answer() {
    let mut it = Fixture::new();
    it.services.limits.rate_limit_per_minute = NonZeroU32::new(2);
    let got = it.track("POST", "", &[], "").await;
    assert_eq!(got.status, 201);
    // A window of a minute, and the rest of the second in which it began.
    let within_the_window = |seconds: Option<&str>| {
        seconds.is_some_and(|seconds| (1..=61).contains(&seconds.parse::<u32>().expect("a number")))
    };
    assert_eq!((got.header("ratelimit-limit"), got.header("ratelimit-remaining")), (Some("2"), Some("1")));
    assert!(within_the_window(got.header("ratelimit-reset")));
    assert_eq!(it.track("POST", "", &[], "").await.header("ratelimit-remaining"), Some("0"));
    let got = it.track("POST", "", &[], "").await;
    assert_eq!(got.code(), (429, "rate_limited".into()));
    assert_eq!(got.header("ratelimit-remaining"), Some("0"));
    assert!(within_the_window(got.header("retry-after")));
    assert_eq!(it.submitted().len(), 2);
    assert_eq!(it.refused().len(), 1);
    let path = it.token_path();
    it.call("PATCH", &format!("/api/v1/conversions/goals/{}", it.goal.id.0), r#"{"goal":{"name":"x"}}"#)
        .await;
    assert_eq!(
        it.send("POST", &path, &[], "").await.status,
        429,
        "a change of the catalog does not refill it"
    );
}

#[tokio::test]
async fn bodies_are_bounded() {
    let mut it = Fixture::new();
    it.services.limits.body_bytes_max = 1024;
    let got = it.track("POST", "", &[], &" ".repeat(1025)).await;
    assert_eq!(got.code(), (413, "body_too_large".into()));
    assert_eq!(got.header("connection"), None, "the rest is there, and small");
    let got = it.track("POST", "", &[], &" ".repeat(100 << 10)).await;
    assert_eq!((got.code(), got.header("connection")), ((413, "body_too_large".into()), Some("close")));
    assert_eq!(
        it.track("POST", "", &[("content-type", "multipart/form-data; boundary=b")], "--b").await.status,
        415
    );
}
