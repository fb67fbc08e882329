//! `GET /api/v1/analytics/conversions`: conversions and their worth over rolling days.
//!
//! `days=30` are the 30 calendar days that end with today, in UTC or in `tz`. Days start at local midnight, also
//! where clocks change. Rates, link metrics and times to convert come with clicks; `link_id` is refused until then,
//! since an ignored filter would give wrong numbers.

use std::collections::BTreeMap;

use hyper::{StatusCode, http::request::Parts};
use jiff::{ToSpan as _, tz::TimeZone};
use serde::Serialize;

use super::{
    client,
    conversions::report_error,
    error::{ApiError, ErrorCode},
    page::{Parameters, invalid},
    response::{self, Answer},
    services::{Reports, Services},
    times,
};
use crate::core::{ConversionQuery, ConversionReport, CurrencyTotal, GoalId, MoneySum, UnixMillis};

const DAYS_DEFAULT: u16 = 30;
const DAYS_MAX: u16 = 400;

/// Answers the report.
pub(super) async fn conversions<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account_id = client::account(&services.catalog.snapshot(), &head.headers)?;
    let parameters = Parameters::read(head.uri.query(), &["days", "goal_id", "tz"])?;
    let days = parameters.number("days", 1..=DAYS_MAX)?.unwrap_or(DAYS_DEFAULT);
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    if let Some(goal) = goal_id
        && services.catalog.snapshot().goal(account_id, goal).is_none()
    {
        return Err(ApiError::new(ErrorCode::GoalNotFound).at("goal_id"));
    }
    let period = Period::ending(services.clock.now(), days, parameters.text("tz").unwrap_or("UTC"))?;
    let query = ConversionQuery {
        account_id,
        goal_id,
        from: period.from(),
        to: period.to,
        tz: period.tz_name.clone(),
    };
    let report = services.reports.conversion_report(query).await.map_err(report_error)?;
    Ok(response::data(StatusCode::OK, &ReportJson::new(&period, &report)))
}

/// Whole days and the part of today.
struct Period {
    /// When each day starts, ascending; never empty.
    day_starts: Vec<UnixMillis>,
    to: UnixMillis,
    tz: TimeZone,
    tz_name: String,
}

impl Period {
    fn ending(now: UnixMillis, days: u16, tz_name: &str) -> Result<Self, ApiError> {
        let tz = match tz_name {
            "UTC" => TimeZone::UTC,
            name => TimeZone::get(name).map_err(|_| {
                invalid("tz", "`tz` is an IANA time zone such as UTC or Europe/Berlin.".into())
            })?,
        };
        let today = times::timestamp(now).to_zoned_datetime(tz.clone()).date();
        let day_starts = (0..i32::from(days)).rev().map(|back| {
            let day = today.checked_sub(back.days()).ok()?;
            let start = day.to_zoned_datetime(tz.clone()).ok()?;
            Some(UnixMillis(start.timestamp().as_millisecond()))
        });
        // Only a clock at the end of the calendar fails here.
        let day_starts = day_starts.collect::<Option<Vec<_>>>().ok_or(ErrorCode::Internal)?;
        // What was accepted in this very millisecond belongs to it.
        Ok(Self { day_starts, to: now.plus(1), tz, tz_name: tz_name.to_owned() })
    }

    fn from(&self) -> UnixMillis {
        self.day_starts.first().copied().unwrap_or(self.to)
    }

    /// The day, by its place, to which an instant belongs. An hour that begins just before the first day (zones with
    /// half hours) belongs to it.
    fn day_of(&self, at: UnixMillis) -> usize {
        self.day_starts.partition_point(|start| *start <= at).saturating_sub(1)
    }
}

#[derive(Serialize)]
struct ReportJson {
    period: PeriodJson,
    conversions: u64,
    total_value: BTreeMap<String, String>,
    average_value: BTreeMap<String, String>,
    series: Vec<DayJson>,
}

#[derive(Serialize)]
struct PeriodJson {
    from: String,
    to: String,
    days: usize,
    tz: String,
}

#[derive(Serialize)]
struct DayJson {
    start: String,
    conversions: u64,
    total_value: BTreeMap<String, String>,
}

/// Totals of one span, by currency.
#[derive(Clone, Default)]
struct Totals(BTreeMap<String, (u64, MoneySum)>);

impl Totals {
    fn add(&mut self, total: &CurrencyTotal) {
        let (count, sum) = self.0.entry(total.currency.to_string()).or_default();
        *count = count.saturating_add(total.conversions);
        sum.0 = sum.0.saturating_add(total.value.0);
    }

    fn conversions(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    fn values(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(currency, (_, sum))| (currency.clone(), sum.to_string())).collect()
    }

    fn averages(&self) -> BTreeMap<String, String> {
        let average = |(count, sum): &(u64, MoneySum)| sum.average(*count).to_string();
        self.0.iter().map(|(currency, total)| (currency.clone(), average(total))).collect()
    }
}

impl ReportJson {
    fn new(period: &Period, report: &ConversionReport) -> Self {
        let mut whole = Totals::default();
        let mut days = vec![Totals::default(); period.day_starts.len()];
        for point in &report.points {
            whole.add(&point.total);
            if let Some(day) = days.get_mut(period.day_of(point.start)) {
                day.add(&point.total);
            }
        }
        let series = period.day_starts.iter().zip(&days).map(|(start, day)| DayJson {
            start: times::local(*start, &period.tz),
            conversions: day.conversions(),
            total_value: day.values(),
        });
        Self {
            period: PeriodJson {
                from: times::local(period.from(), &period.tz),
                to: times::local(period.to.plus(-1), &period.tz),
                days: period.day_starts.len(),
                tz: period.tz_name.clone(),
            },
            conversions: whole.conversions(),
            total_value: whole.values(),
            average_value: whole.averages(),
            series: series.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Currency, ReportPoint};

    /// 2026-03-30 10:00 UTC; clocks in Berlin went forward on the 29th.
    const NOW: UnixMillis = UnixMillis(1_774_864_800_000);
    const HOUR: i64 = 3_600_000;

    #[test]
    fn days_end_with_today_and_start_at_local_midnight() {
        let period = Period::ending(NOW, 3, "Europe/Berlin").expect("known");
        let starts: Vec<_> = period.day_starts.iter().map(|start| times::local(*start, &period.tz)).collect();
        assert_eq!(
            starts,
            ["2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]
        );
        assert_eq!(period.day_starts[2].0 - period.day_starts[1].0, 23 * HOUR, "an hour was left out");
        assert_eq!(times::utc(Period::ending(NOW, 1, "UTC").expect("known").from()), "2026-03-30T00:00:00Z");
        assert!(Period::ending(NOW, 1, "Mars/Olympus").is_err());
    }

    #[test]
    fn currencies_are_never_added_together() {
        let period = Period::ending(NOW, 2, "UTC").expect("known");
        let point = |hours_ago: i64, code: &str, conversions, micros| ReportPoint {
            start: NOW.plus(-hours_ago * HOUR),
            total: CurrencyTotal {
                currency: Currency::parse(code).expect("known"),
                conversions,
                value: MoneySum(micros),
            },
        };
        let points = vec![
            point(1, "USD", 10, 100_000_000),
            point(20, "USD", 2, 23_450_000),
            point(2, "EUR", 1, 5_000_000),
        ];
        let json =
            serde_json::to_value(ReportJson::new(&period, &ConversionReport { points })).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "period": {"from": "2026-03-29T00:00:00Z", "to": "2026-03-30T10:00:00Z", "days": 2, "tz": "UTC"},
                "conversions": 13,
                "total_value": {"USD": "123.45", "EUR": "5.00"},
                "average_value": {"USD": "10.29", "EUR": "5.00"},
                "series": [
                    {"start": "2026-03-29T00:00:00Z", "conversions": 2, "total_value": {"USD": "23.45"}},
                    {"start": "2026-03-30T00:00:00Z", "conversions": 11, "total_value": {"USD": "100.00", "EUR": "5.00"}},
                ],
            })
        );
    }
}
