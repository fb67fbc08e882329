//! A conversion as answers show it.

use serde::Serialize;

use super::explain::ExplanationJson;
use crate::{
    core::{Adjustment, Attribution, Campaign, Earned, Money, Net, OrderId, RunId, StoredConversion},
    http::times,
};

/// A conversion that counts, and what is known of it by now.
#[derive(Serialize)]
pub(super) struct ConversionJson<'a> {
    conversion_id: String,
    duplicate: bool,
    goal_id: u32,
    order_id: Option<&'a str>,
    value: String,
    currency: String,
    received_at: String,
    converted_at: String,
    source: &'static str,
    click_id: Option<u64>,
    ip: Option<String>,
    user_agent: Option<&'a str>,
    attribution_window_seconds: u32,
    attribution: AttributionJson<'a>,
    adjustments: Vec<AdjustmentJson<'a>>,
    #[serde(flatten)]
    net: NetJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    explain: Option<ExplanationJson>,
}

/// Which click earned it; null: none, for the reason beside it.
#[derive(Serialize)]
struct AttributionJson<'a> {
    method: Option<&'static str>,
    reason: Option<&'static str>,
    click_id: Option<u64>,
    link_id: Option<u32>,
    clicked_at: Option<String>,
    seconds_to_convert: Option<u32>,
    candidates: u16,
    #[serde(flatten)]
    campaign: CampaignJson<'a>,
    variant: Option<&'a str>,
    /// The run of attribution over history that decided so; 0: it was decided when the conversion came.
    run: u32,
}

/// The campaign of the click, as it was.
#[derive(Default, Serialize)]
struct CampaignJson<'a> {
    #[serde(rename = "utm_source")]
    source: Option<&'a str>,
    #[serde(rename = "utm_medium")]
    medium: Option<&'a str>,
    #[serde(rename = "utm_campaign")]
    campaign: Option<&'a str>,
    #[serde(rename = "utm_term")]
    term: Option<&'a str>,
    #[serde(rename = "utm_content")]
    content: Option<&'a str>,
}

/// An adjustment as it was accepted.
#[derive(Serialize)]
pub(in crate::http) struct AdjustmentJson<'a> {
    adjustment_id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    value: Option<String>,
    reason: Option<&'a str>,
    received_at: String,
}

/// What a conversion is worth after its adjustments.
#[derive(Serialize)]
pub(in crate::http) struct NetJson {
    net_value: String,
    /// 1, or 0 once it is rejected.
    net_conversions: u8,
}

impl<'a> From<&'a StoredConversion> for ConversionJson<'a> {
    fn from(stored: &'a StoredConversion) -> Self {
        let conversion = &stored.conversion;
        Self {
            conversion_id: conversion.id.to_string(),
            duplicate: false,
            goal_id: conversion.goal_id.0,
            order_id: conversion.order_id.as_ref().map(OrderId::as_str),
            value: conversion.value.to_string(),
            currency: conversion.currency.to_string(),
            received_at: times::utc(conversion.received_at),
            converted_at: times::utc(conversion.converted_at),
            source: conversion.source.as_str(),
            click_id: conversion.click_id.map(|click| click.0),
            ip: conversion.ip.map(|ip| ip.to_string()),
            user_agent: filled(&conversion.user_agent),
            attribution_window_seconds: conversion.window_seconds,
            attribution: AttributionJson::new(&stored.attribution, stored.run),
            adjustments: stored.adjustments.iter().map(AdjustmentJson::from).collect(),
            net: stored.net().into(),
            explain: None,
        }
    }
}

impl ConversionJson<'_> {
    /// With what was asked for beside it.
    pub(super) fn explain(&mut self, explanation: ExplanationJson) {
        self.explain = Some(explanation);
    }
}

impl<'a> AttributionJson<'a> {
    fn new(attribution: &'a Attribution, run: RunId) -> Self {
        let earned: Option<&Earned> = attribution.outcome.as_ref().ok();
        Self {
            method: earned.map(|earned| earned.method.as_str()),
            reason: attribution.outcome.as_ref().err().map(|reason| reason.as_str()),
            click_id: earned.map(|earned| earned.click_id.0),
            link_id: earned.and_then(|earned| earned.link_id).map(|link| link.0),
            clicked_at: earned.map(|earned| times::utc(earned.clicked_at)),
            seconds_to_convert: earned.map(|earned| earned.seconds_to_convert),
            candidates: attribution.candidates,
            campaign: earned.map(|earned| CampaignJson::from(&earned.campaign)).unwrap_or_default(),
            variant: earned.and_then(|earned| filled(&earned.variant)),
            run: run.0,
        }
    }
}

impl<'a> From<&'a Campaign> for CampaignJson<'a> {
    fn from(of: &'a Campaign) -> Self {
        Self {
            source: filled(&of.source),
            medium: filled(&of.medium),
            campaign: filled(&of.campaign),
            term: filled(&of.term),
            content: filled(&of.content),
        }
    }
}

impl<'a> From<&'a Adjustment> for AdjustmentJson<'a> {
    fn from(adjustment: &'a Adjustment) -> Self {
        Self {
            adjustment_id: adjustment.id.to_string(),
            kind: adjustment.kind.as_str(),
            value: adjustment.value.map(|value: Money| value.to_string()),
            reason: filled(&adjustment.reason),
            received_at: times::utc(adjustment.received_at),
        }
    }
}

impl From<Net> for NetJson {
    fn from(net: Net) -> Self {
        Self { net_value: net.value.to_string(), net_conversions: net.counts.into() }
    }
}

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
