//! The log of outgoing postbacks, and the conversions that are told again.

use uuid::Uuid;

use super::{
    Database, Failure,
    keys::{currency, money},
};
use crate::core::{
    AccountId, ClickId, ConversionId, GoalId, LinkId, Method, OrderId, Unattributed, UnixMillis,
    webhook::{BackfillQuery, Delivery, DeliveryId, DeliveryPage, DeliveryQuery, Event},
};

#[derive(clickhouse::Row, serde::Serialize, serde::Deserialize)]
struct DeliveryRow {
    #[serde(with = "clickhouse::serde::uuid")]
    id: Uuid,
    account_id: u32,
    goal_id: u32,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    attempt: u8,
    status: Option<u16>,
    error: String,
    latency_ms: u32,
    at: i64,
    next_attempt_at: Option<i64>,
    answer: String,
}

const COLUMNS: &str = "id, account_id, goal_id, conversion_id, attempt, status, toString(error) AS error, latency_ms, \
     deliveries.at AS at, next_attempt_at, answer";

#[derive(clickhouse::Row, serde::Deserialize)]
struct EventRow {
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    order_id: String,
    value: i64,
    currency: String,
    converted_at: i64,
    named_click_id: u64,
    reason: String,
    click_id: u64,
    link_id: u32,
    method: String,
}

/// What is told of a conversion, as it is attributed now.
const EVENTS: &str = "SELECT c.conversion_id AS conversion_id, c.order_id AS order_id, c.value AS value,
        toString(c.currency) AS currency, c.converted_at AS converted_at, c.click_id AS named_click_id,
        toString(c.attribution_reason) AS reason, a.click_id AS click_id, a.link_id AS link_id,
        toString(a.method) AS method
    FROM conversions AS c
    LEFT ANY JOIN (
        SELECT conversion_id, click_id, link_id, method FROM attributions_current
        WHERE account_id = {account: UInt32} AND goal_id = {goal: UInt32}
            AND converted_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC')
            AND converted_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')
    ) AS a ON a.conversion_id = c.conversion_id
    WHERE c.account_id = {account: UInt32} AND c.goal_id = {goal: UInt32}
        AND c.converted_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC')
        AND c.converted_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')
    ORDER BY c.converted_at, c.conversion_id LIMIT {limit: UInt32}";

/// How long the conversions of a backfill may be looked for.
const BACKFILL_SECONDS_MAX: &str = "120";

impl Database {
    /// Adds attempts to the log. Idempotent: of rows with one id one counts.
    pub async fn add_deliveries(&self, deliveries: &[Delivery]) -> Result<(), Failure> {
        let client = self.client().clone().with_setting("async_insert", "0");
        let insert = client.insert::<DeliveryRow>("deliveries").await?;
        let limit = Some(self.timeouts().insert);
        let mut insert = insert.with_timeouts(limit, limit);
        for delivery in deliveries {
            insert.write(&DeliveryRow::from(delivery)).await?;
        }
        insert.end().await?;
        Ok(())
    }

    /// Some of an account's attempts, newest first.
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<DeliveryPage, Failure> {
        let mut filter = String::from("account_id = {account: UInt32}");
        if query.conversion_id.is_some() {
            filter.push_str(" AND conversion_id = {conversion: UUID}");
        }
        if query.goal_id.is_some() {
            filter.push_str(" AND goal_id = {goal: UInt32}");
        }
        if query.failed {
            filter.push_str(" AND (error != '' OR status IS NULL OR status < 200 OR status > 299)");
        }
        let bound = |sql: &str| {
            let mut bound = self.report_query(sql).param("account", query.account_id.0);
            if let Some(id) = query.conversion_id {
                bound = bound.param("conversion", id.to_string());
            }
            if let Some(id) = query.goal_id {
                bound = bound.param("goal", id.0);
            }
            bound
        };
        let skip = u64::from(query.page.saturating_sub(1)) * u64::from(query.per_page);
        let page = format!(
            "SELECT {COLUMNS} FROM deliveries FINAL WHERE {filter} \
             ORDER BY deliveries.at DESC, id DESC LIMIT {{limit: UInt32}} OFFSET {{skip: UInt64}}"
        );
        let count = format!("SELECT count() FROM deliveries FINAL WHERE {filter}");
        let page = bound(&page).param("limit", query.per_page).param("skip", skip);
        let rows: Vec<DeliveryRow> = self.read(page.fetch_all()).await?;
        let total = self.read(bound(&count).fetch_one::<u64>()).await?;
        Ok(DeliveryPage { deliveries: rows.into_iter().map(Delivery::from).collect(), total })
    }

    /// An account's attempt of that name.
    pub async fn delivery(&self, account: AccountId, id: DeliveryId) -> Result<Option<Delivery>, Failure> {
        // The id's own time is that of its end; the attempt began shortly before.
        let sql = format!(
            "SELECT {COLUMNS} FROM deliveries FINAL WHERE account_id = {{account: UInt32}} AND id = {{id: UUID}} LIMIT 1"
        );
        let query = self.report_query(&sql).param("account", account.0).param("id", id.to_string());
        let row: Option<DeliveryRow> = self.read(query.fetch_optional()).await?;
        Ok(row.map(Delivery::from))
    }

    /// What is told of a goal's conversions in a range of time, oldest first.
    pub async fn events(&self, query: &BackfillQuery) -> Result<Vec<Event>, Failure> {
        let bound = self
            .report_query(EVENTS)
            .with_setting("max_execution_time", BACKFILL_SECONDS_MAX)
            .param("account", query.account_id.0)
            .param("goal", query.goal_id.0)
            .param("from", query.from.0)
            .param("to", query.to.0)
            .param("limit", query.limit);
        let rows: Vec<EventRow> = self.long(bound.fetch_all()).await?;
        rows.into_iter().map(|row| row.read(query.account_id, query.goal_id)).collect()
    }
}

impl From<&Delivery> for DeliveryRow {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id.0,
            account_id: delivery.account_id.0,
            goal_id: delivery.goal_id.0,
            conversion_id: delivery.conversion_id.0,
            attempt: delivery.attempt,
            status: delivery.status,
            error: delivery.error.clone(),
            latency_ms: delivery.latency_millis,
            at: delivery.at.0,
            next_attempt_at: delivery.next_attempt_at.map(|at| at.0),
            answer: delivery.answer.clone(),
        }
    }
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: DeliveryId(row.id),
            account_id: AccountId(row.account_id),
            goal_id: GoalId(row.goal_id),
            conversion_id: ConversionId(row.conversion_id),
            attempt: row.attempt,
            status: row.status,
            error: row.error,
            latency_millis: row.latency_ms,
            at: UnixMillis(row.at),
            next_attempt_at: row.next_attempt_at.map(UnixMillis),
            answer: row.answer,
        }
    }
}

impl EventRow {
    fn read(self, account_id: AccountId, goal_id: GoalId) -> Result<Event, Failure> {
        let methods = [Method::ClickId, Method::IpUserAgent].map(Method::as_str);
        let reasons = Unattributed::ALL.map(Unattributed::as_str);
        let click = if self.click_id == 0 { self.named_click_id } else { self.click_id };
        let method = methods.into_iter().find(|name| *name == self.method);
        Ok(Event {
            conversion_id: ConversionId(self.conversion_id),
            account_id,
            goal_id,
            order_id: OrderId::parse(&self.order_id).map_err(|_| Failure::unreadable("order_id"))?,
            click_id: (click != 0).then_some(ClickId(click)),
            link_id: (self.link_id != 0).then_some(LinkId(self.link_id)),
            value: money(self.value)?,
            currency: currency(&self.currency)?,
            converted_at: UnixMillis(self.converted_at),
            method,
            reason: reasons.into_iter().find(|name| method.is_none() && *name == self.reason),
            test: false,
        })
    }
}
