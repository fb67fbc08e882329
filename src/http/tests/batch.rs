//! Many conversions in one request.

use serde_json::{Value, json};

use super::*;
use crate::core::Source;

const PATH: &str = "/api/v1/conversions/batch";

impl Fixture {
    /// A line for the goal, with what else it says.
    fn line(&self, fields: &Value) -> String {
        let mut line = fields.clone();
        line["postback_token"] = json!(self.goal.postback_token.0);
        format!("{line}\n")
    }

    async fn batch(&self, headers: &[(&str, &str)], body: &str) -> Got {
        let bearer = format!("Bearer {}", self.key);
        let headers: Vec<_> = headers.iter().copied().chain([("authorization", bearer.as_str())]).collect();
        self.send("POST", PATH, &headers, body).await
    }
}

fn statuses(got: &Got) -> Vec<(u64, u64)> {
    let results = got.json()["data"]["results"].as_array().expect("results").clone();
    let number = |line: &Value, name: &str| line[name].as_u64().expect("a number");
    results.iter().map(|line| (number(line, "line"), number(line, "status"))).collect()
}

#[tokio::test]
async fn lines_are_taken_together_and_answered_each() {
    let it = Fixture::new();
    let visitor = json!({"order_id": "A", "value": 5, "ip": "203.0.113.7", "user_agent": "UA",
        "converted_at": "2026-01-21T11:00:00Z"});
    let body = [
        it.line(&visitor),
        it.line(&json!({"value": -1, "order_id": "B"})),
        "{\"postback_token\":\"nobody's\"}\n".into(),
        "{}\n".into(),
        "value=1\n".into(),
        it.line(&json!({})),
    ];
    let got = it.batch(&[("user-agent", "Shop/1")], &body.concat()).await;
    assert_eq!(got.status, 200);
    assert_eq!(statuses(&got), [(1, 201), (2, 422), (3, 404), (4, 422), (5, 400), (6, 201)]);
    let data = &got.json()["data"];
    assert_eq!((&data["accepted"], &data["duplicates"], &data["refused"]), (&json!(2), &json!(0), &json!(4)));
    assert_eq!(data["results"][0]["data"], json!({"conversion_id": ID.to_string(), "duplicate": false}));
    assert_eq!(data["results"][1]["error"]["field"], "value");
    let [first, last] = it.submitted().try_into().expect("two");
    assert_eq!((first.source, first.converted_at), (Source::Api, NOW.plus(-3_600_000)));
    assert_eq!(first.ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.7"));
    assert_eq!((last.ip, last.user_agent.as_str()), (None, ""), "the server is not the visitor");
    assert_eq!(it.refused().len(), 1, "of a known goal, and readable");
    assert_eq!(it.refused()[0].order_id, "B");
}

#[tokio::test]
async fn an_idempotency_key_is_one_for_each_line() {
    let it = Fixture::new();
    let body = [it.line(&json!({})), it.line(&json!({}))].concat();
    assert_eq!(it.batch(&[("idempotency-key", "upload-7")], &body).await.status, 200);
    let keys: Vec<_> = it.submitted().into_iter().map(|hit| hit.idempotency_key).collect();
    assert_eq!(keys, [Some("upload-7\n1".into()), Some("upload-7\n2".into())]);
    let got = it.batch(&[("idempotency-key", "")], &body).await;
    assert_eq!(got.code(), (400, "invalid_idempotency_key".into()));
}

#[tokio::test]
async fn duplicates_point_to_the_first() {
    let it = Fixture::new();
    it.outcome(Outcome::Duplicate { original: ID, conflict: true });
    let got = it.batch(&[], &it.line(&json!({"order_id": "A"}))).await;
    assert_eq!(statuses(&got), [(1, 200)]);
    let tracked = json!({"conversion_id": ID.to_string(), "duplicate": true, "conflict": true});
    assert_eq!(got.json()["data"]["results"][0]["data"], tracked);
    assert_eq!(it.refused()[0].code, "duplicate");
    it.outcome(Outcome::Unverified(ID));
    let got = it.batch(&[], &it.line(&json!({"order_id": "A"}))).await;
    assert_eq!(statuses(&got), [(1, 202)]);
}

#[tokio::test]
async fn too_much_and_overload_keep_nothing() {
    let it = Fixture::new();
    let many = it.line(&json!({})).repeat(10_001);
    assert_eq!(it.batch(&[], &many).await.code(), (413, "too_many_lines".into()));
    let large = " ".repeat((8 << 20) + 1);
    assert_eq!(it.batch(&[], &large).await.code(), (413, "body_too_large".into()));
    assert_eq!(it.batch(&[], "").await.code(), (400, "invalid_body".into()));
    assert!(it.submitted().is_empty());
    it.outcome(Outcome::Overloaded { retry_after: SOON });
    let got = it.batch(&[], &it.line(&json!({})).repeat(3)).await;
    assert_eq!((got.code(), got.header("retry-after")), ((503, "overloaded".into()), Some("2")));
    assert_eq!(it.send("POST", PATH, &[], "{}").await.code(), (401, "unauthorized".into()));
}

#[tokio::test]
async fn a_batch_counts_once_against_each_goals_limit() {
    let mut it = Fixture::new();
    it.services.limits.rate_limit_per_minute = std::num::NonZeroU32::new(1);
    let body = it.line(&json!({})).repeat(3);
    assert_eq!(statuses(&it.batch(&[], &body).await), [(1, 201), (2, 201), (3, 201)]);
    assert_eq!(statuses(&it.batch(&[], &body).await), [(1, 429), (2, 429), (3, 429)]);
}
