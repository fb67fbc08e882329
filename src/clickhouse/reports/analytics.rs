//! Conversions, clicks and times to convert of a period, from the hourly statistics.
//!
//! An hour counts to the day, and to the period, in which it starts. What clicks earned is that of the run of attribution
//! in force: the `_current` views say which.

use super::goal_filter;
use crate::{
    clickhouse::{Database, Failure, keys::currency},
    core::{
        ClickPoint, ConversionQuery, ConversionReport, CurrencyTotal, MoneySum, ReportPoint, TimeToConvert,
        UnixMillis,
    },
};

/// Days and currencies that one report may hold; more is refused by the server rather than truncated.
const REPORT_ROWS_MAX: &str = "100000";
/// The start of the day in the caller's zone, in milliseconds.
const DAY: &str = "toInt64(toUnixTimestamp(toStartOfDay(hour, {tz: String}))) * 1000 AS start";
const PERIOD: &str = "account_id = {account: UInt32} \
    AND hour >= toDateTime({from: UInt32}, 'UTC') AND hour < toDateTime({to: UInt32}, 'UTC')";

#[derive(clickhouse::Row, serde::Deserialize)]
struct PointRow {
    start: i64,
    currency: String,
    conversions: u64,
    value: i128,
    attributed: u64,
    net_conversions: i64,
    net_value: i128,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ClickRow {
    start: i64,
    clicks: u64,
    human_clicks: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct TimeRow {
    conversions: u64,
    seconds: u64,
    quantiles: Vec<f32>,
}

impl Database {
    /// The report of a period, by day and currency.
    pub async fn conversion_report(&self, query: &ConversionQuery) -> Result<ConversionReport, Failure> {
        // Whose adjustments are whose by link depends on the run in force, and is then found by a join.
        let run: u32 = match query.link_id {
            None => 0,
            Some(_) => self.read(self.query("SELECT run_id FROM attribution_in_force").fetch_one()).await?,
        };
        let (points, clicks, times) = tokio::try_join!(
            self.read(self.over_period(&points_sql(query, run), query).fetch_all::<PointRow>()),
            self.read(self.over_period(&clicks_sql(query), query).fetch_all::<ClickRow>()),
            self.read(self.over_period(&times_sql(query), query).fetch_one::<TimeRow>()),
        )?;
        let clicks = clicks.into_iter().map(|row| ClickPoint {
            start: UnixMillis(row.start),
            clicks: row.clicks,
            human_clicks: row.human_clicks,
        });
        Ok(ConversionReport {
            clicks: clicks.collect(),
            points: points.iter().map(point).collect::<Result<_, _>>()?,
            time_to_convert: time_to_convert(&times),
        })
    }

    fn over_period(&self, sql: &str, query: &ConversionQuery) -> clickhouse::query::Query {
        self.query(sql)
            .with_setting("max_result_rows", REPORT_ROWS_MAX)
            .param("account", query.account_id.0)
            .param("goal", query.goal_id.map_or(0, |goal| goal.0))
            .param("link", query.link_id.map_or(0, |link| link.0))
            .param("from", unix_seconds(query.from.hour_start_seconds()))
            .param("to", unix_seconds(query.to.plus(999).seconds()))
            .param("tz", &query.tz)
    }
}

/// Of a link: what its clicks earned. Otherwise everything, with what clicks earned beside it.
fn points_sql(query: &ConversionQuery, run: u32) -> String {
    let goal = goal_filter(query.goal_id);
    let link = link_filter(query);
    let attributed = format!("FROM attributed_hourly_current WHERE {PERIOD} {goal} {link}");
    let gross = if query.link_id.is_some() {
        format!(
            "SELECT hour, currency, conversions AS n, value AS v, conversions AS a, toInt64(conversions) AS nn, \
             value AS nv {attributed}"
        )
    } else {
        format!(
            "SELECT hour, currency, conversions AS n, value AS v, toUInt64(0) AS a, toInt64(conversions) AS nn, \
             value AS nv FROM conversions_hourly WHERE {PERIOD} {goal} UNION ALL \
             SELECT hour, currency, 0, toDecimal128(0, 6), conversions, 0, toDecimal128(0, 6) {attributed}"
        )
    };
    let adjustments = if run == 0 { "adjustments_hourly" } else { "adjustments_hourly_current" };
    format!(
        "SELECT {DAY}, toString(currency) AS currency, sum(n) AS conversions, sum(v) AS value, sum(a) AS attributed, \
             sum(nn) AS net_conversions, sum(nv) AS net_value \
         FROM ({gross} UNION ALL \
             SELECT hour, currency, 0, toDecimal128(0, 6), 0, net_conversions_change, net_value_change \
             FROM {adjustments} WHERE {PERIOD} {goal} {link}) \
         GROUP BY start, currency ORDER BY start, currency"
    )
}

fn clicks_sql(query: &ConversionQuery) -> String {
    format!(
        "SELECT {DAY}, sum(c) AS clicks, sum(h) AS human_clicks \
         FROM (SELECT hour, clicks AS c, human_clicks AS h FROM clicks_hourly WHERE {PERIOD} {}) \
         GROUP BY start ORDER BY start",
        link_filter(query)
    )
}

fn times_sql(query: &ConversionQuery) -> String {
    format!(
        "SELECT sum(n) AS conversions, sum(s) AS seconds, \
             quantilesTDigestMerge(0.5, 0.95)(q) AS quantiles \
         FROM (SELECT conversions AS n, seconds_to_convert AS s, seconds_to_convert_quantiles AS q \
             FROM attributed_hourly_current WHERE {PERIOD} {} {})",
        goal_filter(query.goal_id),
        link_filter(query)
    )
}

fn link_filter(query: &ConversionQuery) -> &'static str {
    if query.link_id.is_some() { "AND link_id = {link: UInt32} AND link_id != 0" } else { "" }
}

fn point(row: &PointRow) -> Result<ReportPoint, Failure> {
    // While a batch is being inserted, a view may be ahead of another one.
    let sum = |micros: i128| MoneySum(u128::try_from(micros).unwrap_or(0));
    Ok(ReportPoint {
        start: UnixMillis(row.start),
        total: CurrencyTotal {
            currency: currency(&row.currency)?,
            conversions: row.conversions,
            value: sum(row.value),
        },
        attributed: row.attributed,
        net_conversions: u64::try_from(row.net_conversions).unwrap_or(0),
        net_value: sum(row.net_value),
    })
}

fn time_to_convert(row: &TimeRow) -> Option<TimeToConvert> {
    let [median, p95] = row.quantiles[..] else { return None };
    if row.conversions == 0 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of u32, rounded")]
    let whole = |seconds: f32| seconds.round().max(0.0) as u64;
    Some(TimeToConvert {
        average_seconds: (row.seconds + row.conversions / 2) / row.conversions,
        median_seconds: whole(median),
        p95_seconds: whole(p95),
    })
}

fn unix_seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}
