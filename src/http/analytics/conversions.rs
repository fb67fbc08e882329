//! `GET /api/v1/analytics/conversions`: conversions and their worth over a period.
//!
//! With `link_id`, everything is that link's: its clicks, and the conversions that they earned. `goal_id` narrows the
//! conversions alone, since a click has no goal: the rate is then how many people of all who clicked completed this goal.

use std::collections::BTreeMap;

use hyper::{StatusCode, http::request::Parts};
use jiff::ToSpan as _;
use serde::Serialize;

use super::period::{Period, PeriodJson, day_start};
use crate::{
    core::{
        ConversionQuery, ConversionReport, GoalId, LinkId, MoneySum, ReportPoint, TimeToConvert, UnixMillis,
    },
    http::{
        client,
        conversions::report_error,
        error::{ApiError, ErrorCode},
        page::Parameters,
        response::{self, Answer},
        services::{Reports, Services},
    },
};

/// Answers the report.
pub(in crate::http) async fn conversions<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account_id = client::account(&services.catalog.snapshot(), &head.headers)?;
    let parameters = Parameters::read(head.uri.query(), &["days", "from", "to", "goal_id", "link_id", "tz"])?;
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    if let Some(goal) = goal_id
        && services.catalog.snapshot().goal(account_id, goal).is_none()
    {
        return Err(ApiError::new(ErrorCode::GoalNotFound).at("goal_id"));
    }
    // A deleted link's numbers stay readable: the query carries the account, so no other's can be seen.
    let link_id = parameters.number("link_id", 1..=u32::MAX)?.map(LinkId);
    let period = Period::read(&parameters, services.clock.now())?;
    let query = ConversionQuery {
        account_id,
        goal_id,
        link_id,
        from: period.from,
        to: period.to,
        tz: period.tz.iana_name().unwrap_or("UTC").to_owned(),
    };
    let report = services.reports.conversion_report(query).await.map_err(report_error)?;
    Ok(response::data(StatusCode::OK, &ReportJson::new(&period, &report)))
}

/// When each day starts, ascending; never empty.
fn day_starts(period: &Period) -> Vec<UnixMillis> {
    let first = period.date_of(period.from);
    let following = (1..i32::try_from(period.days()).unwrap_or(i32::MAX))
        .map_while(|n| day_start(first.checked_add(n.days()).ok()?, &period.tz));
    std::iter::once(period.from).chain(following).collect()
}

#[derive(Serialize)]
struct ReportJson {
    period: PeriodJson,
    #[serde(flatten)]
    totals: SpanJson,
    conversion_rate: f64,
    average_value: BTreeMap<String, String>,
    time_to_convert: TimesJson,
    series: Vec<DayJson>,
}

/// What is counted of any span of time.
#[derive(Serialize)]
struct SpanJson {
    clicks: u64,
    human_clicks: u64,
    conversions: u64,
    attributed: u64,
    net_conversions: u64,
    total_value: BTreeMap<String, String>,
    net_value: BTreeMap<String, String>,
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

#[derive(Serialize)]
struct DayJson {
    start: String,
    #[serde(flatten)]
    totals: SpanJson,
}

/// What is counted of one span.
#[derive(Clone, Default)]
struct Totals {
    clicks: u64,
    human_clicks: u64,
    attributed: u64,
    net_conversions: u64,
    by_currency: BTreeMap<String, CurrencySums>,
}

/// Gross and net of one currency.
#[derive(Clone, Copy, Default)]
struct CurrencySums {
    conversions: u64,
    value: MoneySum,
    net_value: MoneySum,
}

impl Totals {
    fn add(&mut self, point: &ReportPoint) {
        let sums = self.by_currency.entry(point.total.currency.to_string()).or_default();
        sums.conversions = sums.conversions.saturating_add(point.total.conversions);
        sums.value.0 = sums.value.0.saturating_add(point.total.value.0);
        sums.net_value.0 = sums.net_value.0.saturating_add(point.net_value.0);
        self.attributed = self.attributed.saturating_add(point.attributed);
        self.net_conversions = self.net_conversions.saturating_add(point.net_conversions);
    }

    fn averages(&self) -> BTreeMap<String, String> {
        self.by_currency(|sums| sums.value.average(sums.conversions))
    }

    /// Attributed conversions of a hundred human clicks, to hundredths; no clicks: 0.
    fn rate(&self) -> f64 {
        if self.human_clicks == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let (attributed, clicks) = (self.attributed as f64, self.human_clicks as f64);
        (attributed / clicks * 10_000.0).round() / 100.0
    }

    fn by_currency(&self, value: impl Fn(&CurrencySums) -> MoneySum) -> BTreeMap<String, String> {
        self.by_currency.iter().map(|(currency, sums)| (currency.clone(), value(sums).to_string())).collect()
    }
}

impl From<&Totals> for SpanJson {
    fn from(totals: &Totals) -> Self {
        Self {
            clicks: totals.clicks,
            human_clicks: totals.human_clicks,
            conversions: totals.by_currency.values().map(|sums| sums.conversions).sum(),
            attributed: totals.attributed,
            net_conversions: totals.net_conversions,
            total_value: totals.by_currency(|sums| sums.value),
            net_value: totals.by_currency(|sums| sums.net_value),
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

impl ReportJson {
    fn new(period: &Period, report: &ConversionReport) -> Self {
        let mut whole = Totals::default();
        let starts = day_starts(period);
        // An hour that begins just before the first day (zones with half hours) belongs to it.
        let day_of = |at| starts.partition_point(|start| *start <= at).saturating_sub(1);
        let mut days = vec![Totals::default(); starts.len()];
        for point in &report.points {
            whole.add(point);
            if let Some(day) = days.get_mut(day_of(point.start)) {
                day.add(point);
            }
        }
        for point in &report.clicks {
            let day = days.get_mut(day_of(point.start));
            for totals in [Some(&mut whole), day].into_iter().flatten() {
                totals.clicks = totals.clicks.saturating_add(point.clicks);
                totals.human_clicks = totals.human_clicks.saturating_add(point.human_clicks);
            }
        }
        let series = starts
            .iter()
            .zip(&days)
            .map(|(start, day)| DayJson { start: period.shown(*start), totals: SpanJson::from(day) });
        Self {
            period: period.json(),
            totals: SpanJson::from(&whole),
            conversion_rate: whole.rate(),
            average_value: whole.averages(),
            time_to_convert: report.time_to_convert.into(),
            series: series.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ClickPoint, Currency, CurrencyTotal};

    /// 2026-03-30T10:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_774_864_800_000);
    const HOUR: i64 = 3_600_000;

    fn days(days: u16) -> Period {
        let query = format!("days={days}");
        let parameters = Parameters::read(Some(&query), &Period::PARAMETERS).expect("known");
        Period::read(&parameters, NOW).expect("a period")
    }

    #[test]
    fn currencies_are_never_added_together() {
        let period = days(2);
        let point = |hours_ago: i64, code: &str, conversions, micros| ReportPoint {
            start: NOW.plus(-hours_ago * HOUR),
            total: CurrencyTotal {
                currency: Currency::parse(code).expect("known"),
                conversions,
                value: MoneySum(micros),
            },
            attributed: conversions / 2,
            net_conversions: conversions - 1,
            net_value: MoneySum(micros - 5_000_000),
        };
        let report = ConversionReport {
            points: vec![
                point(1, "USD", 10, 100_000_000),
                point(20, "USD", 2, 23_450_000),
                point(2, "EUR", 1, 5_000_000),
            ],
            clicks: vec![
                ClickPoint { start: NOW.plus(-HOUR), clicks: 50, human_clicks: 40 },
                ClickPoint { start: NOW.plus(-20 * HOUR), clicks: 10, human_clicks: 8 },
            ],
            time_to_convert: Some(TimeToConvert {
                average_seconds: 70,
                median_seconds: 60,
                p95_seconds: 200,
            }),
        };
        let json = serde_json::to_value(ReportJson::new(&period, &report)).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "period": {"from": "2026-03-29T00:00:00Z", "to": "2026-03-30T10:00:00Z", "days": 2, "tz": "UTC"},
                "clicks": 60, "human_clicks": 48, "conversions": 13, "attributed": 6, "net_conversions": 10,
                "conversion_rate": 12.5,
                "total_value": {"USD": "123.45", "EUR": "5.00"},
                "net_value": {"USD": "113.45", "EUR": "0.00"},
                "average_value": {"USD": "10.29", "EUR": "5.00"},
                "time_to_convert": {"average_seconds": 70, "median_seconds": 60, "p95_seconds": 200},
                "series": [
                    {"start": "2026-03-29T00:00:00Z", "clicks": 10, "human_clicks": 8, "conversions": 2, "attributed": 1,
                        "net_conversions": 1, "total_value": {"USD": "23.45"}, "net_value": {"USD": "18.45"}},
                    {"start": "2026-03-30T00:00:00Z", "clicks": 50, "human_clicks": 40, "conversions": 11,
                        "attributed": 5, "net_conversions": 9, "total_value": {"USD": "100.00", "EUR": "5.00"},
                        "net_value": {"USD": "95.00", "EUR": "0.00"}},
                ],
            })
        );
    }

    #[test]
    fn without_clicks_the_rate_is_nothing_and_there_are_no_times() {
        let period = days(1);
        let json =
            serde_json::to_value(ReportJson::new(&period, &ConversionReport::default())).expect("JSON");
        assert_eq!(json["conversion_rate"], 0.0);
        assert_eq!(json["time_to_convert"]["median_seconds"], serde_json::Value::Null);
    }
}
