//! Refused hits and duplicates.

use uuid::Uuid;

use super::{goal_filter, source};
use crate::{
    clickhouse::{Database, Failure},
    core::{AccountId, ConversionId, GoalId, Refusal, RefusalPage, RefusalQuery, UnixMillis},
};

#[derive(clickhouse::Row, serde::Deserialize)]
pub(super) struct RefusalRow {
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

/// The columns of [`RefusalRow`].
pub(super) const REFUSAL_COLUMNS: &str = "account_id, goal_id, received_at, toString(code) AS code, \
    toString(field) AS field, message, order_id, conversion_id, original_id, toString(source) AS source, request";

impl Database {
    /// Refused hits and duplicates, newest first.
    pub async fn refusals(&self, query: &RefusalQuery) -> Result<RefusalPage, Failure> {
        let code_filter = if query.code.is_some() { "AND code = {code: String}" } else { "" };
        let filter = format!(
            "FROM rejections WHERE account_id = {{account: UInt32}} {} {code_filter}",
            goal_filter(query.goal_id)
        );
        let bound = |sql: &str| {
            self.report_query(sql)
                .param("account", query.account_id.0)
                .param("goal", query.goal_id.map_or(0, |goal| goal.0))
                .param("code", query.code.as_deref().unwrap_or(""))
                .param("limit", query.per_page)
                .param("offset", u64::from(query.page.max(1) - 1) * u64::from(query.per_page))
        };
        let total = self.read(bound(&format!("SELECT count() {filter}")).fetch_one()).await?;
        let page = format!(
            "SELECT {REFUSAL_COLUMNS} {filter} \
             ORDER BY received_at DESC, goal_id, conversion_id, order_id \
             LIMIT {{limit: UInt32}} OFFSET {{offset: UInt64}}"
        );
        let rows: Vec<RefusalRow> = self.read(bound(&page).fetch_all()).await?;
        let refusals = rows.into_iter().map(refusal).collect::<Result<_, Failure>>()?;
        Ok(RefusalPage { refusals, total })
    }
}

pub(super) fn refusal(row: RefusalRow) -> Result<Refusal, Failure> {
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
