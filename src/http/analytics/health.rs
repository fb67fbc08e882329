//! `GET /api/v1/analytics/health?goal_id=`: why a goal's numbers look wrong. What is a finding decides
//! [`examine`](crate::core::examine).

use std::collections::BTreeMap;

use hyper::{StatusCode, http::request::Parts};
use serde::Serialize;

use super::period::{Period, PeriodJson};
use crate::{
    catalog::Snapshot,
    core::{
        AccountId, AttributionFacts, ClickFacts, ConversionFacts, GoalId, GoalType, Health, HealthFinding,
        HealthQuery, HealthReport, HealthSetup, RefusedFacts, examine, percent,
    },
    http::{
        IgnoredFields, client,
        conversions::RejectionJson,
        error::{ApiError, ErrorCode},
        page::Parameters,
        report::{self, report_error},
        response::{self, Answer},
        services::{Reports, Services},
        times,
    },
};

/// Answers the report.
pub(in crate::http) async fn health<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let catalog = services.catalog.snapshot();
    let account_id = client::account(&catalog, &head.headers)?;
    let known = [&["goal_id"][..], &Period::PARAMETERS].concat();
    let parameters = Parameters::read(head.uri.query(), &known)?;
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    if let Some(goal) = goal_id
        && catalog.goal(account_id, goal).is_none()
    {
        return Err(ApiError::new(ErrorCode::GoalNotFound).at("goal_id"));
    }
    let period = Period::read(&parameters, services.clock.now())?;
    let query = HealthQuery { account_id, goal_id, from: period.from, to: period.to };
    let permit = report::permit(services, account_id).await?;
    let report = services.reports.health(&permit, query).await.map_err(report_error)?;
    let findings = examine(&report, &setup(&catalog, &services.ignored_fields, account_id, goal_id));
    Ok(response::data(StatusCode::OK, &HealthJson::new(&period, goal_id, &report, &findings)))
}

/// What is configured: of one goal, or of all.
fn setup(
    catalog: &Snapshot,
    ignored: &IgnoredFields,
    account_id: AccountId,
    goal_id: Option<GoalId>,
) -> HealthSetup {
    let goals: Vec<_> =
        catalog.goals(account_id).filter(|goal| goal_id.is_none_or(|one| goal.id == one)).collect();
    let account = catalog.account(account_id);
    let ignored = ignored.of(goals.iter().map(|goal| goal.id));
    HealthSetup {
        plan_without_tracking: account.is_some_and(|account| account.plan.allows_tracking().is_err()),
        postbacks_disabled: goals
            .iter()
            .filter(|goal| goal.postback_url.is_some() && goal.postback.disabled)
            .count() as u64,
        purchases: !goals.is_empty() && goals.iter().all(|goal| goal.goal_type == GoalType::Purchase),
        hits_with_ignored_fields: ignored.hits,
        ignored_fields: ignored.names.into_iter().map(|(name, _)| name).collect(),
    }
}

#[derive(Serialize)]
struct HealthJson<'a> {
    period: PeriodJson,
    goal_id: Option<u32>,
    healthy: bool,
    findings: Vec<FindingJson<'a>>,
    received: ReceivedJson,
    /// By code, duplicates last.
    rejections: Vec<RefusedJson<'a>>,
    duplicates: DuplicatesJson,
    attribution: AttributionJson,
    clicks: ClicksJson,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    code: &'static str,
    severity: &'static str,
    message: &'a str,
    action: &'static str,
}

/// What came.
#[derive(Serialize)]
struct ReceivedJson {
    /// All of it: counted, duplicate or refused.
    total: u64,
    conversions: u64,
    duplicates: u64,
    refused: u64,
    last_conversion_at: Option<String>,
    last_refused_at: Option<String>,
    by_source: BTreeMap<&'static str, u64>,
    without_order_id: u64,
    without_value: u64,
}

#[derive(Serialize)]
struct RefusedJson<'a> {
    code: &'a str,
    count: u64,
    /// Of a hundred hits that came.
    share: f64,
    examples: Vec<RejectionJson<'a>>,
}

#[derive(Serialize)]
struct DuplicatesJson {
    count: u64,
    share: f64,
    conflicts: u64,
}

#[derive(Serialize)]
struct AttributionJson {
    attributed: u64,
    unattributed: u64,
    /// Of a hundred conversions.
    attributed_share: f64,
    by_method: BTreeMap<&'static str, u64>,
    reasons: Vec<ReasonJson>,
}

#[derive(Serialize)]
struct ReasonJson {
    reason: &'static str,
    count: u64,
    /// Of a hundred conversions.
    share: f64,
}

/// Of the whole account: a click has no goal.
#[derive(Serialize)]
struct ClicksJson {
    total: u64,
    human: u64,
    robots: u64,
    robots_share: f64,
    without_link: u64,
    without_link_share: f64,
}

impl<'a> HealthJson<'a> {
    fn new(
        period: &Period,
        goal_id: Option<GoalId>,
        report: &'a HealthReport,
        findings: &'a [HealthFinding],
    ) -> Self {
        let sums = Health::of(report);
        let (copies, refused): (Vec<_>, Vec<_>) =
            report.refused.iter().partition(|refused| refused.code == "duplicate");
        let last_refused = refused
            .iter()
            .filter_map(|refused| refused.examples.first())
            .map(|latest| latest.received_at)
            .max();
        Self {
            period: period.json(),
            goal_id: goal_id.map(|goal| goal.0),
            healthy: findings.is_empty(),
            findings: findings.iter().map(FindingJson::from).collect(),
            received: ReceivedJson {
                last_refused_at: last_refused.map(times::utc),
                ..ReceivedJson::new(&report.conversions, sums)
            },
            rejections: refused.into_iter().chain(copies).map(|of| RefusedJson::new(of, sums)).collect(),
            duplicates: DuplicatesJson {
                count: sums.duplicates,
                share: percent(sums.duplicates, sums.received),
                conflicts: sums.conflicts,
            },
            attribution: AttributionJson::new(&report.attribution, sums, report.conversions.count),
            clicks: ClicksJson::new(report.clicks, sums),
        }
    }
}

impl<'a> From<&'a HealthFinding> for FindingJson<'a> {
    fn from(of: &'a HealthFinding) -> Self {
        Self { code: of.code, severity: of.severity.as_str(), message: &of.message, action: of.action }
    }
}

impl ReceivedJson {
    fn new(of: &ConversionFacts, sums: Health) -> Self {
        Self {
            total: sums.received,
            conversions: of.count,
            duplicates: sums.duplicates,
            refused: sums.refused,
            last_conversion_at: of.last_received_at.map(times::utc),
            last_refused_at: None,
            by_source: [("postback", of.by_postback), ("pixel", of.by_pixel), ("api", of.by_api)].into(),
            without_order_id: of.without_order_id,
            without_value: of.without_value,
        }
    }
}

impl<'a> RefusedJson<'a> {
    fn new(of: &'a RefusedFacts, sums: Health) -> Self {
        Self {
            code: &of.code,
            count: of.count,
            share: percent(of.count, sums.received),
            examples: of.examples.iter().map(RejectionJson::from).collect(),
        }
    }
}

impl AttributionJson {
    fn new(of: &AttributionFacts, sums: Health, conversions: u64) -> Self {
        let mut reasons: Vec<ReasonJson> = of
            .unattributed
            .iter()
            .map(|(reason, count)| ReasonJson { reason, count: *count, share: percent(*count, conversions) })
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        Self {
            attributed: sums.attributed,
            unattributed: sums.unattributed,
            attributed_share: percent(sums.attributed, conversions),
            by_method: [("click_id", of.by_click_id), ("ip_user_agent", of.by_ip_user_agent)].into(),
            reasons,
        }
    }
}

impl ClicksJson {
    fn new(of: ClickFacts, sums: Health) -> Self {
        Self {
            total: of.count,
            human: of.human,
            robots: sums.robots,
            robots_share: percent(sums.robots, of.count),
            without_link: of.without_link,
            without_link_share: percent(of.without_link, of.count),
        }
    }
}
