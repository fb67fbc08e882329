//! Conversions reported by browsers: the pixel, scripts, and those who only look.

use std::num::NonZeroU32;

use super::*;
use crate::{core::Source, http::error::ErrorCode};

fn is_the_pixel(got: &Got, status: &str) {
    assert_eq!((got.status, got.body.len()), (200, 43));
    assert!(got.body.starts_with(b"GIF89a") && got.body.ends_with(b";"));
    assert_eq!(got.header("content-type"), Some("image/gif"));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    assert_eq!(got.header("x-conversion-status"), Some(status));
    assert_eq!(got.header("access-control-allow-origin"), Some("*"));
}

const IMAGE: (&str, &str) = ("accept", "image/avif,image/webp,*/*;q=0.8");

#[tokio::test]
async fn the_pixel_is_always_the_pixel() {
    let mut it = Fixture::new();
    let query = "value=99.99&order_id=ORDER-123";
    is_the_pixel(&it.track("GET", query, &[IMAGE], "").await, "new");
    let hit = it.submitted().pop().expect("submitted");
    assert_eq!((hit.value.to_string().as_str(), hit.source), ("99.99", Source::Pixel));
    it.outcome(Outcome::Duplicate { original: ID, conflict: true });
    is_the_pixel(&it.track("GET", query, &[IMAGE], "").await, "duplicate");
    it.outcome(Outcome::Unverified(ID));
    is_the_pixel(&it.track("GET", query, &[IMAGE], "").await, "unverified");
    it.outcome(Outcome::Overloaded { retry_after: SOON });
    is_the_pixel(&it.track("GET", query, &[IMAGE], "").await, "overloaded");
    is_the_pixel(&it.send("GET", "/api/conversions/track/nobody", &[IMAGE], "").await, "unknown_token");
    is_the_pixel(&it.track("GET", "value=-1", &[IMAGE], "").await, "invalid_value");
    it.services.limits.rate_limit_per_minute = NonZeroU32::new(1);
    it.track("GET", "", &[IMAGE], "").await;
    let got = it.track("GET", "", &[IMAGE], "").await;
    is_the_pixel(&got, "rate_limited");
    assert_eq!(got.header("ratelimit-remaining"), Some("0"));
}

#[tokio::test]
async fn who_asks_for_no_image_is_told_what_was_not_taken() {
    let mut it = Fixture::new();
    for headers in [&[][..], &[("accept", "*/*")]] {
        is_the_pixel(&it.track("GET", "value=1", headers, "").await, "new");
        assert_eq!(it.track("GET", "value=-1", headers, "").await.code(), (422, "invalid_value".into()));
        let got = it.send("GET", "/api/conversions/track/nobody", headers, "").await;
        assert_eq!(got.code(), (404, "unknown_token".into()));
    }
    it.services.limits.rate_limit_per_minute = NonZeroU32::new(1);
    it.track("GET", "", &[], "").await;
    let got = it.track("GET", "", &[("accept", "*/*")], "").await;
    assert_eq!(got.code(), (429, "rate_limited".into()));
    assert!(got.header("retry-after").is_some());
    let image = it.track("GET", "", &[("accept", "*/*"), ("sec-fetch-dest", "image")], "").await;
    is_the_pixel(&image, "rate_limited");
}

#[tokio::test]
async fn an_image_counts_whatever_else_its_address_carries() {
    let it = Fixture::new();
    let got = it.track("GET", "foo=1&cb=7", &[IMAGE], "").await;
    is_the_pixel(&got, "new");
    assert_eq!(got.header("x-ignored-fields"), Some("foo"));
    assert_eq!(it.track("GET", "foo=1", &[], "").await.code(), (422, "no_known_field".into()));
    is_the_pixel(&it.track("GET", "cb=7&1768996800", &[], "").await, "new");
}

#[tokio::test]
async fn crawlers_and_previews_do_not_convert() {
    let it = Fixture::new();
    for agent in [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "facebookexternalhit/1.1",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    ] {
        is_the_pixel(&it.track("GET", "value=1", &[("user-agent", agent)], "").await, "ignored");
    }
    assert!(it.submitted().is_empty() && it.refused().is_empty());
    is_the_pixel(&it.track("GET", "value=1", &[("user-agent", "python-requests/2.31")], "").await, "new");
}

#[tokio::test]
async fn who_asks_for_json_gets_json_and_proper_statuses() {
    let it = Fixture::new();
    let json = [("accept", "application/json")];
    let got = it.track("GET", "value=1", &json, "").await;
    assert_eq!((got.status, got.json()["data"]["duplicate"].clone()), (201, Value::Bool(false)));
    let got = it.send("GET", "/api/conversions/track/nobody", &json, "").await;
    assert_eq!(got.code(), (404, "unknown_token".into()));
    let got = it.track("GET", "value=x", &json, "").await;
    assert_eq!(got.code(), (422, ErrorCode::InvalidValue.as_str().into()));
}

#[tokio::test]
async fn looking_does_not_convert() {
    let it = Fixture::new();
    is_the_pixel(&it.track("HEAD", "value=1", &[], "").await, "ignored");
    for header in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")] {
        is_the_pixel(&it.track("GET", "value=1", &[header], "").await, "ignored");
    }
    assert!(it.submitted().is_empty() && it.refused().is_empty());
}

#[tokio::test]
async fn browsers_may_ask_first() {
    let it = Fixture::new();
    let got = it.track("OPTIONS", "", &[("origin", "https://shop.example")], "").await;
    assert_eq!((got.status, got.body.len()), (204, 0));
    assert_eq!(got.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(got.header("access-control-allow-credentials"), Some("true"));
    assert!(got.header("vary").is_some_and(|names| names.contains("Origin")));
    assert!(got.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert!(got.header("access-control-allow-headers").is_some_and(|names| names.contains("Content-Type")));
}

#[tokio::test]
async fn the_headers_that_a_page_adds_are_allowed_and_its_origin_is_named() {
    let it = Fixture::new();
    let asked =
        [("origin", "https://shop.example"), ("access-control-request-headers", "content-type,traceparent")];
    let got = it.track("OPTIONS", "", &asked, "").await;
    assert_eq!(got.header("access-control-allow-headers"), Some("content-type,traceparent"));
    let got = it.track("POST", "", &[("origin", "https://shop.example")], r#"{"value":1}"#).await;
    assert_eq!(got.status, 201);
    assert_eq!(got.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(got.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(got.header("vary"), Some("Origin"));
}

#[tokio::test]
async fn a_key_on_a_get_is_nobodys_promise() {
    let it = Fixture::new();
    it.track("GET", "", &[("idempotency-key", "k")], "").await;
    assert_eq!(it.submitted().pop().expect("submitted").idempotency_key, None);
}

#[tokio::test]
async fn proxies_are_believed_when_they_are_trusted() {
    let mut it = Fixture::new();
    let forwarded = [("x-forwarded-for", "198.51.100.7")];
    it.track("GET", "", &forwarded, "").await;
    it.services.limits.trusted_proxies = vec!["203.0.113.0/24".parse().expect("a network")];
    it.track("GET", "", &forwarded, "").await;
    let seen: Vec<_> = it.submitted().iter().filter_map(|hit| hit.ip).map(|ip| ip.to_string()).collect();
    assert_eq!(seen, ["203.0.113.9", "198.51.100.7"]);
}
