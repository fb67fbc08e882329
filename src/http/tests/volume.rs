//! Bounds by account on what strangers and callers can make it write and ask.

use std::num::NonZeroU32;

use super::*;

const LINK: &str = r#"{"link":{"name":"n","slug":"go","destination_url":"https://shop.example/"}}"#;

#[tokio::test]
async fn a_visitor_is_redirected_also_when_no_more_clicks_are_recorded() {
    let mut it = Fixture::new();
    it.services.limits.click_rate_limit_per_minute = NonZeroU32::new(3);
    assert_eq!(it.call("POST", "/api/v1/links", LINK).await.status, 201);
    for _ in 0..5 {
        let got = it.send("GET", "/r/go", &[], "").await;
        assert_eq!((got.status, got.header("location")), (302, Some("https://shop.example/")));
    }
    assert_eq!(it.clicked().len(), 3);
}

#[tokio::test]
async fn an_accounts_calls_are_limited_whatever_they_ask() {
    let mut it = Fixture::new();
    it.services.limits.api_rate_limit_per_minute = NonZeroU32::new(2);
    for path in ["/api/v1/links", "/api/v1/conversions/goals"] {
        assert_eq!(it.call("GET", path, "").await.status, 200);
    }
    let got = it.call("GET", "/api/v1/links", "").await;
    assert_eq!(got.code(), (429, "rate_limited".into()));
    assert_eq!((got.header("ratelimit-limit"), got.header("ratelimit-remaining")), (Some("2"), Some("0")));
    assert!(got.header("retry-after").is_some());
    assert_eq!(it.send("GET", "/api/v1/links", &[], "").await.status, 401, "of nobody");
    assert_eq!(it.track("POST", "", &[], "").await.status, 201, "hits have limits of their own");
}

#[tokio::test]
async fn what_is_recorded_of_refused_hits_is_bounded_by_account_and_day() {
    let it = Fixture::new();
    let volume = &it.services.volume;
    let recorded = |goals: std::ops::Range<u32>, bytes| {
        let goals = goals.flat_map(|goal| std::iter::repeat_n(crate::core::GoalId(goal), 2_000));
        goals.filter(|goal| volume.takes_refusal(AccountId(1), *goal, bytes)).count()
    };
    assert_eq!(recorded(1..3, 100), 2_000, "a goal's");
    assert_eq!(recorded(3..10, 100), 3_000, "an account's, however many goals it has");
    let large =
        (0..100).filter(|_| volume.takes_refusal(AccountId(2), crate::core::GoalId(20), 1 << 20)).count();
    assert_eq!(large, 63, "of 64 MiB a day");
}
