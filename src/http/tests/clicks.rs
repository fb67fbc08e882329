//! Reported clicks: what is taken, what is refused, line by line.

use serde_json::{Value, json};

use super::*;
use crate::core::{Campaign, ClickSource, Traffic};

const PATH: &str = "/api/v1/clicks";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

impl Fixture {
    fn click_outcome(&self, outcome: ClickOutcome) {
        *self.services.intake.click_outcome.lock() = outcome;
    }

    /// With the key and another type than JSON.
    async fn bulk(&self, path: &str, body: &str) -> Got {
        let bearer = format!("Bearer {}", self.key);
        self.send("POST", path, &[("authorization", bearer.as_str()), NDJSON], body).await
    }
}

#[tokio::test]
async fn a_click_is_taken_as_it_was_reported() {
    let it = Fixture::new();
    let body = r#"{"click_id":789,"ip":"203.0.113.7","user_agent":"Mozilla/5.0 (X11; Linux x86_64)",
        "clicked_at":"2026-01-20T12:00:00Z","utm_source":"facebook","utm_medium":"cpc",
        "utm_campaign":"winter_sale","variant":"B","sub":["a","b"]}"#;
    let got = it.call("POST", PATH, body).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.json(), json!({"success": true, "data": {"click_id": 789, "duplicate": false}}));
    let [click] = it.clicked().try_into().expect("one");
    assert_eq!((click.account_id, click.click_id), (AccountId(1), Some(ClickId(789))));
    assert_eq!(click.ip.map(|ip| ip.to_string()).as_deref(), Some("203.0.113.7"));
    assert_eq!((click.clicked_at, click.received_at), (NOW.plus(-86_400_000), NOW));
    assert_eq!((click.source, click.traffic), (ClickSource::Api, Traffic::Human));
    let text = str::to_owned;
    let campaign = Campaign {
        source: text("facebook"),
        medium: text("cpc"),
        campaign: text("winter_sale"),
        ..Campaign::default()
    };
    assert_eq!((click.campaign, click.variant), (campaign, text("B")));
    assert_eq!(click.subs, ["a", "b", "", "", ""]);
}

#[tokio::test]
async fn all_fields_may_be_left_out_and_robots_are_flagged() {
    let it = Fixture::new();
    assert_eq!(it.call("POST", PATH, "{}").await.status, 201);
    assert_eq!(it.call("POST", PATH, r#"{"user_agent":"Googlebot/2.1"}"#).await.status, 201);
    let [plain, robot] = it.clicked().try_into().expect("two");
    assert_eq!((plain.click_id, plain.link_id, plain.ip, plain.clicked_at), (None, None, None, NOW));
    assert_eq!((plain.traffic, robot.traffic), (Traffic::Human, Traffic::Bot));
}

#[tokio::test]
async fn what_became_of_a_click_is_its_status() {
    let it = Fixture::new();
    for (outcome, status, duplicate) in [
        (ClickOutcome::Duplicate(ClickId(7)), 200, json!(true)),
        (ClickOutcome::Unverified(ClickId(7)), 202, Value::Null),
        (ClickOutcome::New(ClickId(7)), 201, json!(false)),
    ] {
        it.click_outcome(outcome);
        let got = it.call("POST", PATH, r#"{"click_id":7}"#).await;
        assert_eq!(got.status, status);
        assert_eq!(got.json()["data"], json!({"click_id": 7, "duplicate": duplicate}));
    }
    it.click_outcome(ClickOutcome::Overloaded { retry_after: SOON });
    let got = it.call("POST", PATH, "{}").await;
    assert_eq!((got.code(), got.header("retry-after")), ((503, "overloaded".into()), Some("2")));
    it.click_outcome(ClickOutcome::Unavailable);
    assert_eq!(it.call("POST", PATH, "{}").await.code(), (503, "unavailable".into()));
}

#[tokio::test]
async fn a_wrong_click_names_its_field_and_is_not_taken() {
    let it = Fixture::new();
    for (body, code, field) in [
        (r#"{"click_id":"{click_id}"}"#, "unexpanded_macro", "click_id"),
        (r#"{"click_id":1e3}"#, "invalid_click_id", "click_id"),
        (r#"{"link_id":4711}"#, "unknown_link", "link_id"),
        (r#"{"clicked_at":"2024-12-17T11:59:59Z"}"#, "invalid_time", "clicked_at"),
    ] {
        let got = it.call("POST", PATH, body).await;
        assert_eq!(got.code(), (422, code.to_owned()), "{body}");
        assert_eq!(got.json()["error"]["field"], field, "{body}");
    }
    assert_eq!(it.call("POST", PATH, "[]").await.code(), (400, "invalid_json".into()));
    assert_eq!(it.call("POST", PATH, "").await.code(), (400, "invalid_json".into()));
    assert!(it.clicked().is_empty());
}

#[tokio::test]
async fn a_key_is_needed_before_the_body_is_read() {
    let it = Fixture::new();
    let body = "x".repeat(9 << 20);
    assert_eq!(it.send("POST", PATH, &[], &body).await.code(), (401, "unauthorized".into()));
    assert_eq!(it.call("POST", PATH, &body).await.code(), (413, "body_too_large".into()));
    assert_eq!(it.call("GET", PATH, "").await.header("allow"), Some("POST"));
}

#[tokio::test]
async fn each_line_has_its_own_result() {
    let it = Fixture::new();
    let body = "{\"click_id\":1}\n\n{\"click_id\":0}\r\nnonsense\n{\"click_id\":2}\n";
    let got = it.bulk(PATH, body).await;
    assert_eq!(got.status, 200);
    let data = &got.json()["data"];
    let lines: Vec<_> = data["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|line| (line["line"].as_u64(), line["status"].as_u64(), line["success"].as_bool()))
        .collect();
    let line = |number, status, success| (Some(number), Some(status), Some(success));
    let expected = [line(1, 201, true), line(3, 422, false), line(4, 400, false), line(5, 201, true)];
    assert_eq!(lines, expected);
    assert_eq!((&data["accepted"], &data["duplicates"], &data["refused"]), (&json!(2), &json!(0), &json!(2)));
    assert_eq!(data["results"][1]["error"]["code"], "invalid_click_id");
    assert_eq!(it.clicked().len(), 2);
}

#[tokio::test]
async fn more_than_one_line_is_bulk_whatever_its_type() {
    let it = Fixture::new();
    let got = it.call("POST", PATH, "{}\n{}").await;
    assert_eq!((got.status, got.json()["data"]["accepted"].as_u64()), (200, Some(2)));
    let pretty = it.call("POST", PATH, "{\n  \"click_id\": 7\n}\n").await;
    assert_eq!(pretty.status, 201, "one object over several lines is one click");
}

#[tokio::test]
async fn too_much_and_overload_keep_nothing() {
    let it = Fixture::new();
    assert_eq!(it.bulk(PATH, &"{}\n".repeat(10_001)).await.code(), (413, "too_many_lines".into()));
    assert_eq!(it.bulk(PATH, &" ".repeat((8 << 20) + 1)).await.code(), (413, "body_too_large".into()));
    assert_eq!(it.bulk(PATH, "\n\n").await.code(), (400, "invalid_body".into()));
    assert!(it.clicked().is_empty());
    it.click_outcome(ClickOutcome::Overloaded { retry_after: SOON });
    let got = it.bulk(PATH, "{}\nwrong\n{}").await;
    assert_eq!((got.code(), got.header("retry-after")), ((503, "overloaded".into()), Some("2")));
}

#[tokio::test]
async fn as_many_lines_as_may_be_are_taken() {
    let it = Fixture::new();
    let got = it.bulk(PATH, &"{}\n".repeat(10_000)).await;
    assert_eq!((got.status, got.json()["data"]["accepted"].as_u64()), (200, Some(10_000)));
    assert_eq!(it.clicked().len(), 10_000);
}

#[tokio::test]
async fn a_link_must_live_and_fills_in_what_the_click_leaves_open() {
    let it = Fixture::new();
    let link = r#"{"link":{"name":"n","destination_url":"https://shop.example/","utm_source":"mail","utm_medium":"cpc"}}"#;
    let id = it.call("POST", "/api/v1/links", link).await.json()["data"]["id"].as_u64().expect("a link");
    let click = json!({"link_id": id, "utm_source": "own"}).to_string();
    assert_eq!(it.call("POST", PATH, &click).await.status, 201);
    let [taken] = it.clicked().try_into().expect("one");
    assert_eq!(taken.link_id.map(|link| u64::from(link.0)), Some(id));
    assert_eq!((taken.campaign.source.as_str(), taken.campaign.medium.as_str()), ("own", "cpc"));
    let got = it.bulk(PATH, &format!("{click}\n{{\"link_id\":{}}}\n", id + 1)).await;
    assert_eq!(
        got.json()["data"]["results"][1]["error"]["code"],
        "unknown_link",
        "its line alone is refused"
    );
    assert_eq!(it.call("DELETE", &format!("/api/v1/links/{id}"), "").await.status, 200);
    assert_eq!(it.call("POST", PATH, &click).await.code(), (422, "unknown_link".into()), "deleted");
}
