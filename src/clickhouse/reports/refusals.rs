//! Refused hits and duplicates.

use std::collections::HashMap;

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

#[derive(clickhouse::Row, serde::Deserialize)]
struct OrderRow {
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    order_id: String,
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
        let mut refusals = rows.into_iter().map(refusal).collect::<Result<Vec<_>, Failure>>()?;
        self.name_originals(&mut refusals).await?;
        Ok(RefusalPage { refusals, total })
    }

    /// Gives duplicates the order id of their original, which is stored there alone. The time inside an id is that of
    /// its reception and says where to look.
    pub(super) async fn name_originals(&self, refusals: &mut [Refusal]) -> Result<(), Failure> {
        let duplicates = refusals.iter().filter(|refusal| refusal.order_id.is_empty());
        let originals: Vec<_> = duplicates
            .filter_map(|refusal| Some((refusal.account_id, refusal.original_id?)))
            .filter(|(_, id)| id.0.get_version_num() == 7)
            .collect();
        let Some((account, _)) = originals.first() else { return Ok(()) };
        let ids: Vec<String> = originals.iter().map(|(_, id)| id.to_string()).collect();
        let times: Vec<i64> = originals.iter().map(|(_, id)| id.made_at().0).collect();
        // Of one account: a page is a caller's.
        let sql = "SELECT conversion_id, order_id FROM conversions WHERE account_id = {account: UInt32} \
             AND received_at IN (SELECT fromUnixTimestamp64Milli(arrayJoin({times: Array(Int64)}), 'UTC')) \
             AND conversion_id IN {ids: Array(UUID)}";
        let query =
            self.report_query(sql).param("account", account.0).param("times", times).param("ids", ids);
        let rows: Vec<OrderRow> = self.read(query.fetch_all()).await?;
        let orders: HashMap<_, _> =
            rows.into_iter().map(|row| (ConversionId(row.conversion_id), row.order_id)).collect();
        for refusal in refusals.iter_mut().filter(|refusal| refusal.order_id.is_empty()) {
            if let Some(order) = refusal.original_id.and_then(|id| orders.get(&id)) {
                refusal.order_id.clone_from(order);
            }
        }
        Ok(())
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
