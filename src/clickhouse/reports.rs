//! What the API asks: always inside one account, always with bound parameters.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;

use super::{
    Database, Failure,
    keys::{currency, money},
};
use crate::core::{
    AccountId, ClickId, Conversion, ConversionId, ConversionLookup, ConversionQuery, ConversionReport,
    CurrencyTotal, DedupScope, GoalId, Matching, MoneySum, OrderId, OrderKey, Refusal, RefusalPage,
    RefusalQuery, ReportPoint, Source, UnixMillis,
};

/// Days and currencies that one report may hold; more is refused by the server rather than truncated.
const REPORT_ROWS_MAX: &str = "100000";
/// How far the time inside a conversion's id may lie from the time at which it was received.
const ID_SKEW_MILLIS: i64 = 3600 * 1000;

#[derive(clickhouse::Row, serde::Deserialize)]
struct PointRow {
    start: i64,
    currency: String,
    conversions: u64,
    value: i128,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct RefusalRow {
    account_id: u32,
    goal_id: u32,
    received_at: i64,
    code: String,
    field: String,
    message: String,
    order_id: String,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    original_id: Uuid,
    source: String,
    request: String,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConversionRow {
    account_id: u32,
    goal_id: u32,
    order_id: String,
    order_key: u128,
    key_scope: String,
    value: i64,
    currency: String,
    received_at: i64,
    source: String,
    click_id: u64,
    ip: Ipv6Addr,
    user_agent: String,
    visitor_key: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct LateRow {
    goal_id: u32,
    received_at: i64,
    #[serde(with = "clickhouse::serde::uuid")]
    original_id: Uuid,
}

impl Database {
    /// The conversions of a period by day and currency, from the hourly statistics: an hour counts to the day, and to
    /// the period, in which it starts.
    pub async fn conversion_report(&self, query: &ConversionQuery) -> Result<ConversionReport, Failure> {
        let sql = format!(
            "SELECT toInt64(toUnixTimestamp(toStartOfDay(hour, {{tz: String}}))) * 1000 AS start, \
                 toString(currency) AS currency, sum(conversions) AS conversions, sum(value) AS value \
             FROM (SELECT hour, currency, conversions, value FROM conversions_hourly \
                 WHERE account_id = {{account: UInt32}} {} \
                 AND hour >= toDateTime({{from: UInt32}}, 'UTC') AND hour < toDateTime({{to: UInt32}}, 'UTC')) \
             GROUP BY start, currency ORDER BY start, currency",
            goal_filter(query.goal_id)
        );
        let request = self
            .query(&sql)
            .with_setting("max_result_rows", REPORT_ROWS_MAX)
            .param("account", query.account_id.0)
            .param("goal", query.goal_id.map_or(0, |goal| goal.0))
            .param("from", unix_seconds(query.from.hour_start_seconds()))
            .param("to", unix_seconds(query.to.plus(999).seconds()))
            .param("tz", &query.tz);
        let rows: Vec<PointRow> = self.read(request.fetch_all()).await?;
        let points = rows.into_iter().map(|row| {
            Ok(ReportPoint {
                start: UnixMillis(row.start),
                total: CurrencyTotal {
                    currency: currency(&row.currency)?,
                    conversions: row.conversions,
                    value: MoneySum(u128::try_from(row.value).map_err(|_| Failure::unreadable("value"))?),
                },
            })
        });
        Ok(ConversionReport { points: points.collect::<Result<_, Failure>>()? })
    }

    /// Refused hits and duplicates, newest first.
    pub async fn refusals(&self, query: &RefusalQuery) -> Result<RefusalPage, Failure> {
        let code_filter = if query.code.is_some() { "AND code = {code: String}" } else { "" };
        let filter = format!(
            "FROM rejections WHERE account_id = {{account: UInt32}} {} {code_filter}",
            goal_filter(query.goal_id)
        );
        let bound = |sql: &str| {
            self.query(sql)
                .param("account", query.account_id.0)
                .param("goal", query.goal_id.map_or(0, |goal| goal.0))
                .param("code", query.code.as_deref().unwrap_or(""))
                .param("limit", query.per_page)
                .param("offset", u64::from(query.page.max(1) - 1) * u64::from(query.per_page))
        };
        let total = self.read(bound(&format!("SELECT count() {filter}")).fetch_one()).await?;
        let page = format!(
            "SELECT account_id, goal_id, received_at, toString(code) AS code, toString(field) AS field, message, \
                 order_id, conversion_id, original_id, toString(source) AS source, request {filter} \
             ORDER BY received_at DESC, goal_id, conversion_id, order_id \
             LIMIT {{limit: UInt32}} OFFSET {{offset: UInt64}}"
        );
        let rows: Vec<RefusalRow> = self.read(bound(&page).fetch_all()).await?;
        let refusals = rows.into_iter().map(refusal).collect::<Result<_, Failure>>()?;
        Ok(RefusalPage { refusals, total })
    }

    /// What became of a conversion. The time inside the id says where to look.
    pub async fn conversion(
        &self,
        account: AccountId,
        id: ConversionId,
    ) -> Result<ConversionLookup, Failure> {
        let Some(at) = time_of(id) else { return Ok(ConversionLookup::Unknown) };
        let near = "account_id = {account: UInt32} AND conversion_id = {id: UUID} \
                    AND received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
                    AND received_at <= fromUnixTimestamp64Milli({to: Int64}, 'UTC') LIMIT 1";
        let bound = |sql: &str| {
            self.query(sql)
                .param("account", account.0)
                .param("id", id.to_string())
                .param("from", at.plus(-ID_SKEW_MILLIS).0)
                .param("to", at.plus(ID_SKEW_MILLIS).0)
        };
        let counted = format!(
            "SELECT account_id, goal_id, order_id, order_key, toString(key_scope) AS key_scope, value, \
                 toString(currency) AS currency, received_at, toString(source) AS source, click_id, ip, user_agent, \
                 visitor_key FROM conversions WHERE {near}"
        );
        let row: Option<ConversionRow> = self.read(bound(&counted).fetch_optional()).await?;
        if let Some(row) = row {
            return conversion(id, row).map(ConversionLookup::Counted);
        }
        let late = format!("SELECT goal_id, received_at, original_id FROM rejections WHERE {near}");
        let row: Option<LateRow> = self.read(bound(&late).fetch_optional()).await?;
        Ok(row.map_or(ConversionLookup::Unknown, |row| ConversionLookup::Duplicate {
            goal_id: GoalId(row.goal_id),
            received_at: UnixMillis(row.received_at),
            original: ConversionId(row.original_id),
        }))
    }
}

fn goal_filter(goal: Option<GoalId>) -> &'static str {
    if goal.is_some() { "AND goal_id = {goal: UInt32}" } else { "" }
}

fn unix_seconds(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

/// The milliseconds in the first 48 bits of a UUID version 7.
fn time_of(id: ConversionId) -> Option<UnixMillis> {
    if id.0.get_version_num() != 7 {
        return None;
    }
    i64::try_from(id.0.as_u64_pair().0 >> 16).ok().map(UnixMillis)
}

fn source(name: &str) -> Result<Source, Failure> {
    [Source::Postback, Source::Pixel, Source::Api]
        .into_iter()
        .find(|source| source.as_str() == name)
        .ok_or_else(|| Failure::unreadable("source"))
}

fn refusal(row: RefusalRow) -> Result<Refusal, Failure> {
    let some = |id: Uuid| (!id.is_nil()).then_some(ConversionId(id));
    Ok(Refusal {
        account_id: AccountId(row.account_id),
        goal_id: GoalId(row.goal_id),
        received_at: UnixMillis(row.received_at),
        code: row.code,
        field: row.field,
        message: row.message,
        order_id: row.order_id,
        conversion_id: some(row.conversion_id),
        original_id: some(row.original_id),
        source: source(&row.source)?,
        request: row.request,
    })
}

fn conversion(id: ConversionId, row: ConversionRow) -> Result<Conversion, Failure> {
    let key = OrderKey(row.order_key);
    Ok(Conversion {
        id,
        account_id: AccountId(row.account_id),
        goal_id: GoalId(row.goal_id),
        order_id: OrderId::parse(&row.order_id).map_err(|_| Failure::unreadable("order_id"))?,
        key: match &*row.key_scope {
            "forever" => Some((key, DedupScope::Forever)),
            "day" => Some((key, DedupScope::Day)),
            _ => None,
        },
        value: money(row.value)?,
        currency: currency(&row.currency)?,
        received_at: UnixMillis(row.received_at),
        converted_at: UnixMillis(row.received_at),
        window_seconds: 0,
        matching: Matching::Unknown,
        source: source(&row.source)?,
        click_id: (row.click_id != 0).then_some(ClickId(row.click_id)),
        ip: (!row.ip.is_unspecified()).then(|| IpAddr::V6(row.ip).to_canonical()),
        user_agent: row.user_agent,
        visitor_key: row.visitor_key,
        unverified: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_holds_its_time() {
        let id: Uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().expect("the RFC's example");
        assert_eq!(time_of(ConversionId(id)), Some(UnixMillis(1_645_557_742_000)));
        assert_eq!(time_of(ConversionId(Uuid::nil())), None);
    }
}
