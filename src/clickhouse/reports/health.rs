//! The facts behind `health`: what came, what was refused, what became of attribution, and who clicked.

use super::{
    goal_filter,
    refusals::{REFUSAL_COLUMNS, RefusalRow, refusal},
};
use crate::{
    clickhouse::{Database, Failure},
    core::{
        AttributionFacts, CONFLICT_MESSAGE, ClickFacts, ConversionFacts, HEALTH_EXAMPLES_MAX, HealthQuery,
        HealthReport, Method, RefusedFacts, Unattributed, UnixMillis,
    },
};

/// There are about fifty codes.
const CODES_MAX: u32 = 100;
const CONVERTED: &str = "account_id = {account: UInt32} \
    AND converted_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
    AND converted_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')";
/// Late duplicates among clicks and adjustments stand in the same table and belong to no goal.
const RECEIVED: &str = "account_id = {account: UInt32} AND goal_id != 0 \
    AND received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
    AND received_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC')";

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConversionsRow {
    conversions: u64,
    last: i64,
    by_postback: u64,
    by_pixel: u64,
    by_api: u64,
    without_order_id: u64,
    without_value: u64,
    of_one_visitor: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct AttributionRow {
    method: String,
    reason: String,
    conversions: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct RefusedRow {
    code: String,
    refused: u64,
    conflicts: u64,
    of_one_conversion: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ClicksRow {
    clicks: u64,
    human_clicks: u64,
    without_link: u64,
}

impl Database {
    /// What was counted in the period, for whoever looks for the reason of wrong numbers.
    pub async fn health(&self, query: &HealthQuery) -> Result<HealthReport, Failure> {
        let run: u32 =
            self.read(self.report_query("SELECT run_id FROM attribution_in_force").fetch_one()).await?;
        let goal = goal_filter(query.goal_id);
        let (conversions, attribution) = (conversions_sql(goal), attribution_sql(goal, run));
        let (refused, examples) = (refused_sql(goal), examples_sql(goal));
        let clicks = "SELECT sum(c) AS clicks, sum(h) AS human_clicks, sumIf(c, link_id = 0) AS without_link \
                      FROM (SELECT link_id, clicks AS c, human_clicks AS h FROM clicks_hourly \
                          WHERE account_id = {account: UInt32} AND hour >= toDateTime({from_hour: UInt32}, 'UTC') \
                              AND hour < toDateTime({to_second: UInt32}, 'UTC'))";
        let conversions: ConversionsRow =
            self.read(self.bound_health(&conversions, query).fetch_one()).await?;
        let attribution: Vec<AttributionRow> =
            self.read(self.bound_health(&attribution, query).fetch_all()).await?;
        let refused: Vec<RefusedRow> = self.read(self.bound_health(&refused, query).fetch_all()).await?;
        let examples: Vec<RefusalRow> = self.read(self.bound_health(&examples, query).fetch_all()).await?;
        let clicks: ClicksRow = self.read(self.bound_health(clicks, query).fetch_one()).await?;
        let mut examples = examples.into_iter().map(refusal).collect::<Result<Vec<_>, _>>()?;
        self.name_originals(&mut examples).await?;
        let refused = refused.into_iter().map(|row| RefusedFacts {
            count: row.refused,
            conflicts: row.conflicts,
            of_one_conversion: row.of_one_conversion,
            examples: examples.iter().filter(|example| example.code == row.code).cloned().collect(),
            code: row.code,
        });
        Ok(HealthReport {
            conversions: facts(&conversions),
            attribution: attributed(&attribution),
            refused: refused.collect(),
            clicks: ClickFacts {
                count: clicks.clicks,
                human: clicks.human_clicks,
                without_link: clicks.without_link,
            },
        })
    }

    fn bound_health(&self, sql: &str, query: &HealthQuery) -> clickhouse::query::Query {
        let seconds = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        self.report_query(sql)
            .param("account", query.account_id.0)
            .param("goal", query.goal_id.map_or(0, |goal| goal.0))
            .param("from", query.from.0)
            .param("to", query.to.0)
            .param("from_hour", seconds(query.from.hour_start_seconds()))
            .param("to_second", seconds(query.to.plus(999).seconds()))
            .param("conflict", CONFLICT_MESSAGE)
            .param("examples", HEALTH_EXAMPLES_MAX)
            .param("codes", CODES_MAX)
    }
}

fn conversions_sql(goal: &str) -> String {
    format!(
        "SELECT count() AS conversions, toUnixTimestamp64Milli(max(received_at)) AS last, \
             countIf(source = 'postback') AS by_postback, countIf(source = 'pixel') AS by_pixel, \
             countIf(source = 'api') AS by_api, countIf(key_scope = 'none') AS without_order_id, \
             countIf(value = 0) AS without_value, \
             toUInt64(arrayMax(arrayMap(top -> top.2 - top.3, \
                 approx_top_kIf(1, 1000)(visitor_keys[1], notEmpty(visitor_keys))))) AS of_one_visitor \
         FROM conversions WHERE {CONVERTED} {goal}"
    )
}

/// Conversions by what became of them. While a later run is in force, its decisions stand elsewhere; a conversion that a
/// click earned when it came, and none by that run, is older than the run's window allows.
fn attribution_sql(goal: &str, run: u32) -> String {
    if run == 0 {
        return format!(
            "SELECT toString(attribution_method) AS method, toString(attribution_reason) AS reason, \
                 count() AS conversions FROM conversions WHERE {CONVERTED} {goal} GROUP BY method, reason"
        );
    }
    let earned = format!("FROM attributions_current WHERE {CONVERTED} {goal}");
    format!(
        "SELECT toString(attributions_current.method) AS method, '' AS reason, count() AS conversions {earned} \
         GROUP BY method \
         UNION ALL \
         SELECT 'none' AS method, if(attribution_reason = '', 'outside_window', toString(attribution_reason)) AS reason, \
             count() AS conversions FROM conversions \
         WHERE {CONVERTED} {goal} AND conversion_id NOT IN (SELECT conversion_id {earned}) GROUP BY reason"
    )
}

fn refused_sql(goal: &str) -> String {
    format!(
        "SELECT toString(rejections.code) AS code, count() AS refused, countIf(message = {{conflict: String}}) AS conflicts, \
             toUInt64(arrayMax(arrayMap(top -> top.2 - top.3, \
                 approx_top_kIf(1, 1000)(original_id, rejections.code = 'duplicate')))) AS of_one_conversion \
         FROM rejections WHERE {RECEIVED} {goal} GROUP BY code ORDER BY refused DESC, code LIMIT {{codes: UInt32}}"
    )
}

/// The latest of each code: first by the narrow columns, then the whole rows.
fn examples_sql(goal: &str) -> String {
    format!(
        "SELECT {REFUSAL_COLUMNS} FROM rejections WHERE {RECEIVED} {goal} AND (rejections.code, received_at) IN \
             (SELECT code, received_at FROM rejections WHERE {RECEIVED} {goal} \
              ORDER BY received_at DESC LIMIT {{examples: UInt32}} BY code) \
         ORDER BY received_at DESC, goal_id, conversion_id, order_id LIMIT {{examples: UInt32}} BY code \
         LIMIT {{codes: UInt32}} * {{examples: UInt32}}"
    )
}

fn facts(row: &ConversionsRow) -> ConversionFacts {
    ConversionFacts {
        count: row.conversions,
        last_received_at: (row.conversions > 0).then_some(UnixMillis(row.last)),
        by_postback: row.by_postback,
        by_pixel: row.by_pixel,
        by_api: row.by_api,
        without_order_id: row.without_order_id,
        without_value: row.without_value,
        of_one_visitor: row.of_one_visitor,
    }
}

fn attributed(rows: &[AttributionRow]) -> AttributionFacts {
    let mut facts = AttributionFacts::default();
    for row in rows {
        if row.method == Method::ClickId.as_str() {
            facts.by_click_id += row.conversions;
        } else if row.method == Method::IpUserAgent.as_str() {
            facts.by_ip_user_agent += row.conversions;
        } else if let Some(reason) = Unattributed::ALL.into_iter().find(|known| known.as_str() == row.reason)
        {
            *facts.unattributed.entry(reason.as_str()).or_default() += row.conversions;
        }
    }
    facts
}
