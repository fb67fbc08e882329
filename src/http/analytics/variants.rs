//! `GET /api/v1/analytics/variants?link_id=`: which of a link's A/B variants is best, and how sure that is.

use std::collections::{BTreeMap, BTreeSet};

use hyper::{StatusCode, http::request::Parts};
use serde::Serialize;

use super::period::{Period, PeriodJson};
use crate::{
    core::{
        Arm, EXPERIMENT_MINIMUM, ExperimentMinimum, GoalId, Link, LinkId, UnixMillis, VARIANT_OTHER,
        VariantCounts, VariantQuery, VariantReport, judge, percent, probabilities_best, wilson,
    },
    http::{
        client,
        error::{ApiError, ErrorCode},
        page::{Parameters, invalid},
        report::{self, report_error},
        response::{self, Answer},
        services::{Reports, Services},
    },
};

const DAY_MILLIS: i64 = 86_400_000;
/// Variants that are compared: those with the most clicks. A link has ten at most; renamed ones come on top.
const COMPARED_MAX: usize = 20;

/// Answers the report.
pub(in crate::http) async fn variants<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let catalog = services.catalog.snapshot();
    let account_id = client::account(&catalog, &head.headers)?;
    let known = [&["link_id", "goal_id"][..], &Period::PARAMETERS].concat();
    let parameters = Parameters::read(head.uri.query(), &known)?;
    let link_id = parameters.number("link_id", 1..=u32::MAX)?.map(LinkId);
    let link_id = link_id.ok_or_else(|| invalid("link_id", "`link_id` is missing.".into()))?;
    let link = catalog
        .link(account_id, link_id)
        .ok_or_else(|| ApiError::new(ErrorCode::LinkNotFound).at("link_id"))?;
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    if let Some(goal) = goal_id
        && catalog.goal(account_id, goal).is_none()
    {
        return Err(ApiError::new(ErrorCode::GoalNotFound).at("goal_id"));
    }
    let period = Period::read(&parameters, services.clock.now())?;
    let query = VariantQuery { account_id, link_id, goal_id, from: period.from, to: period.to };
    let permit = report::permit(services, account_id).await?;
    let report = services.reports.variants(&permit, query).await.map_err(report_error)?;
    Ok(response::data(StatusCode::OK, &VariantsJson::new(&period, link, goal_id, report)))
}

#[derive(Serialize)]
struct VariantsJson {
    period: PeriodJson,
    link_id: u32,
    goal_id: Option<u32>,
    variants: Vec<VariantJson>,
    verdict: Option<VerdictJson>,
    /// Why there is no verdict; null where there is one.
    reason: Option<&'static str>,
    /// Whole days since the first human click in the period.
    days_observed: u32,
    minimum: MinimumJson,
}

#[derive(Serialize)]
struct VariantJson {
    /// Null: clicks that were shown no variant.
    variant: Option<String>,
    /// As configured now; null: the link has no such variant any more.
    weight: Option<u16>,
    /// Whether it takes part in the comparison.
    compared: bool,
    clicks: u64,
    human_clicks: u64,
    visitors: u64,
    conversions: u64,
    converting_clicks: u64,
    rate: f64,
    interval: IntervalJson,
    total_value: BTreeMap<String, String>,
    value_per_click: BTreeMap<String, String>,
    value_per_visitor: BTreeMap<String, String>,
    /// Null where it is not compared.
    probability_best: Option<f64>,
}

/// Of the rate, in percent.
#[derive(Serialize)]
struct IntervalJson {
    low: f64,
    high: f64,
    level: u8,
    method: &'static str,
}

#[derive(Serialize)]
struct VerdictJson {
    best: String,
    probability: f64,
}

#[derive(Serialize)]
struct MinimumJson {
    days: u32,
    human_clicks: u64,
    converting_clicks: u64,
    probability: f64,
}

impl VariantsJson {
    fn new(period: &Period, link: &Link, goal_id: Option<GoalId>, report: VariantReport) -> Self {
        let VariantReport { mut variants, first_click } = report;
        for variant in &link.variants {
            variants.entry(variant.name.clone()).or_default();
        }
        let compared = compared(&variants);
        let arms: Vec<Arm> = compared.iter().map(|name| arm(&variants[*name])).collect();
        let probabilities = probabilities_best(&arms);
        let probability: BTreeMap<&str, f64> =
            compared.iter().map(|name| &***name).zip(probabilities.iter().copied()).collect();
        let days_observed = first_click.map_or(0, |first| whole_days(first, period.to));
        let verdict = judge(&arms, &probabilities, days_observed, EXPERIMENT_MINIMUM);
        let rows = variants.iter().map(|(name, counts)| {
            let weight = link.variants.iter().find(|variant| variant.name == *name);
            VariantJson::new(
                name,
                counts,
                weight.map(|variant| variant.weight),
                probability.get(&**name).copied(),
            )
        });
        let named = |best: crate::core::Best| VerdictJson {
            best: compared.get(best.arm).map_or_else(String::new, |name| (*name).clone()),
            probability: rounded(best.probability),
        };
        Self {
            period: period.json(),
            link_id: link.id.0,
            goal_id: goal_id.map(|goal| goal.0),
            variants: rows.collect(),
            reason: verdict.err().map(crate::core::WithoutVerdict::as_str),
            verdict: verdict.ok().map(named),
            days_observed,
            minimum: MinimumJson::from(EXPERIMENT_MINIMUM),
        }
    }
}

/// The variants that stand against each other: named ones that people were shown. In the order of their names.
fn compared(variants: &BTreeMap<String, VariantCounts>) -> Vec<&String> {
    let mut shown: Vec<_> = variants
        .iter()
        .filter(|(name, counts)| !name.is_empty() && *name != VARIANT_OTHER && counts.human_clicks > 0)
        .collect();
    shown.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.human_clicks));
    let most: BTreeSet<&String> = shown.into_iter().take(COMPARED_MAX).map(|(name, _)| name).collect();
    most.into_iter().collect()
}

/// A view may be ahead of a raw table while a batch is being inserted.
fn arm(counts: &VariantCounts) -> Arm {
    Arm { clicks: counts.human_clicks, converting: counts.converting_clicks.min(counts.human_clicks) }
}

fn whole_days(from: UnixMillis, to: UnixMillis) -> u32 {
    u32::try_from((to.0 - from.0) / DAY_MILLIS).unwrap_or(0)
}

/// Probabilities are given to four digits.
fn rounded(probability: f64) -> f64 {
    (probability * 10_000.0).round() / 10_000.0
}

impl VariantJson {
    fn new(name: &str, counts: &VariantCounts, weight: Option<u16>, probability: Option<f64>) -> Self {
        let arm = arm(counts);
        let (low, high) = wilson(arm);
        let share = |share: f64| (share * 10_000.0).round() / 100.0;
        // Nobody: there is nothing to divide by.
        let average = |of: u64| {
            let values = counts.value.iter().filter(|_| of > 0);
            values.map(|(currency, value)| (currency.to_string(), value.average(of).to_string())).collect()
        };
        Self {
            variant: (!name.is_empty()).then(|| name.to_owned()),
            weight,
            compared: probability.is_some(),
            clicks: counts.clicks,
            human_clicks: counts.human_clicks,
            visitors: counts.visitors,
            conversions: counts.conversions,
            converting_clicks: arm.converting,
            rate: percent(arm.converting, arm.clicks),
            interval: IntervalJson { low: share(low), high: share(high), level: 95, method: "wilson" },
            total_value: counts
                .value
                .iter()
                .map(|(currency, value)| (currency.to_string(), value.to_string()))
                .collect(),
            value_per_click: average(counts.human_clicks),
            value_per_visitor: average(counts.visitors),
            probability_best: probability.map(rounded),
        }
    }
}

impl From<ExperimentMinimum> for MinimumJson {
    fn from(of: ExperimentMinimum) -> Self {
        Self {
            days: of.days,
            human_clicks: of.clicks,
            converting_clicks: of.converting_clicks,
            probability: of.probability,
        }
    }
}
