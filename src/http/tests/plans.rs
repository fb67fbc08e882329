//! What an account's plan and its own rate limit do.

use std::num::NonZeroU32;

use super::*;
use crate::catalog::AccountPatch;

const GOALS: &str = "/api/v1/conversions/goals";

fn with_account(patch: AccountPatch) -> Fixture {
    Fixture::with_catalog(|catalog| {
        catalog.change_account(AccountId(1), patch).expect("changed");
    })
}

fn with_limit(limit: u32) -> Fixture {
    with_account(AccountPatch { rate_limit_per_minute: Some(Some(limit)), ..AccountPatch::default() })
}

fn with_plan(plan: &str) -> Fixture {
    let plan = crate::core::Plan::parse(plan);
    with_account(AccountPatch { plan, ..AccountPatch::default() })
}

#[tokio::test]
async fn a_starter_account_tracks_nothing() {
    let it = with_plan("starter");
    assert_eq!(it.track("POST", "", &[], "").await.code(), (403, "plan_required".into()));
    let got = it.track("GET", "", &[("accept", "image/*")], "").await;
    assert_eq!((got.status, got.header("x-conversion-status")), (200, Some("plan_required")));
    let got = it.call("POST", GOALS, r#"{"goal":{"name":"n"}}"#).await;
    assert_eq!(got.code(), (403, "plan_required".into()));
    assert!(it.submitted().is_empty());
    assert_eq!(it.refused().len(), 2, "its owner can read why nothing arrives");
}

#[tokio::test]
async fn a_pro_account_has_the_usual_window() {
    let it = with_plan("pro");
    assert_eq!(it.track("POST", "", &[], "").await.status, 201);
    let got = it.call("POST", GOALS, r#"{"goal":{"name":"n","attribution_window_days":7}}"#).await;
    assert_eq!(got.code(), (403, "plan_required".into()));
    assert_eq!(got.json()["error"]["field"], "attribution_window_days");
    let body = r#"{"goal":{"name":"n","attribution_window_days":30}}"#;
    assert_eq!(it.call("POST", GOALS, body).await.status, 201);
}

#[tokio::test]
async fn an_account_may_have_its_own_limit() {
    let mut it = with_limit(5);
    it.services.limits.rate_limit_per_minute = NonZeroU32::new(1000);
    assert_eq!(it.track("POST", "", &[], "").await.header("ratelimit-limit"), Some("5"));
    let mut it = with_limit(0);
    it.services.limits.rate_limit_per_minute = NonZeroU32::new(1000);
    assert_eq!(it.track("POST", "", &[], "").await.header("ratelimit-limit"), None, "0: none");
}
