//! What clicks and conversions add up to, as answers show it: the same of a period, a span of it and a group.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::core::{CurrencySums, Measures, MoneySum, TimeToConvert};

/// The measures of any part of a period.
#[derive(Serialize)]
pub(super) struct MeasuresJson {
    clicks: u64,
    human_clicks: u64,
    visitors: u64,
    conversions: u64,
    attributed: u64,
    converting_visitors: u64,
    net_conversions: u64,
    conversion_rate: f64,
    unique_rate: f64,
    total_value: BTreeMap<String, String>,
    average_value: BTreeMap<String, String>,
    net_value: BTreeMap<String, String>,
    time_to_convert: TimesJson,
}

/// Null where there is nothing to measure.
#[derive(Serialize)]
struct TimesJson {
    #[serde(rename = "average_seconds")]
    average: Option<u64>,
    #[serde(rename = "median_seconds")]
    median: Option<u64>,
    #[serde(rename = "p95_seconds")]
    p95: Option<u64>,
}

impl From<&Measures> for MeasuresJson {
    fn from(of: &Measures) -> Self {
        let money = |amount: fn(&CurrencySums) -> MoneySum| {
            of.by_currency
                .iter()
                .map(|(currency, sums)| (currency.to_string(), amount(sums).to_string()))
                .collect()
        };
        Self {
            clicks: of.clicks,
            human_clicks: of.human_clicks,
            visitors: of.visitors,
            conversions: of.conversions(),
            attributed: of.attributed,
            converting_visitors: of.converting_visitors,
            net_conversions: of.net_conversions,
            conversion_rate: of.rate(),
            unique_rate: of.unique_rate(),
            total_value: money(|sums| sums.value),
            average_value: money(|sums| sums.value.average(sums.conversions)),
            net_value: money(|sums| sums.net_value),
            time_to_convert: of.time_to_convert.into(),
        }
    }
}

impl From<Option<TimeToConvert>> for TimesJson {
    fn from(times: Option<TimeToConvert>) -> Self {
        Self {
            average: times.map(|times| times.average_seconds),
            median: times.map(|times| times.median_seconds),
            p95: times.map(|times| times.p95_seconds),
        }
    }
}
