//! A link's A/B variants. Clicks, conversions and values are those of the hourly statistics, by the run in force. How many
//! clicks converted at all is in none of them: those are looked up one by one, by the link's part of `attributions`.

use std::collections::BTreeMap;

use super::goal_filter;
use crate::{
    clickhouse::{Database, Failure, keys::currency},
    core::{MoneySum, UnixMillis, VARIANT_OTHER, VariantCounts, VariantQuery, VariantReport},
};

/// A link has a handful of variants; names from elsewhere are bounded as labels are. More is refused by the server.
const ROWS_MAX: &str = "10000";
const PERIOD: &str = "account_id = {account: UInt32} AND link_id = {link: UInt32} \
    AND hour >= toDateTime({from: UInt32}, 'UTC') AND hour < toDateTime({to: UInt32}, 'UTC')";

#[derive(clickhouse::Row, serde::Deserialize)]
struct ClicksRow {
    variant: String,
    clicks: u64,
    human_clicks: u64,
    visitors: u64,
    first: u32,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct EarnedRow {
    variant: String,
    currency: String,
    conversions: u64,
    value: i128,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConvertingRow {
    variant: String,
    converting: u64,
}

impl Database {
    /// What was counted of each variant of a link.
    pub async fn variants(&self, query: &VariantQuery) -> Result<VariantReport, Failure> {
        let clicks = format!(
            "SELECT toString(variant) AS variant, sum(c) AS clicks, sum(h) AS human_clicks, uniqMerge(v) AS visitors, \
                 minIf(toUInt32(hour), h > 0) AS first \
             FROM (SELECT variant, hour, clicks AS c, human_clicks AS h, visitors AS v FROM clicks_hourly \
                 WHERE {PERIOD}) GROUP BY variant"
        );
        let earned = format!(
            "SELECT toString(variant) AS variant, toString(currency) AS currency, sum(n) AS conversions, sum(v) AS value \
             FROM (SELECT variant, currency, conversions AS n, value AS v FROM attributed_hourly_current \
                 WHERE {PERIOD} {}) GROUP BY variant, currency",
            goal_filter(query.goal_id)
        );
        let converting = converting_sql(query);
        let clicks: Vec<ClicksRow> = self.read(self.bound_variants(&clicks, query).fetch_all()).await?;
        let earned: Vec<EarnedRow> = self.read(self.bound_variants(&earned, query).fetch_all()).await?;
        let converting: Vec<ConvertingRow> =
            self.read(self.bound_variants(&converting, query).fetch_all()).await?;
        let first = clicks.iter().filter(|row| row.human_clicks > 0).map(|row| row.first).min();
        let mut variants: BTreeMap<String, VariantCounts> = BTreeMap::new();
        for row in clicks {
            let counts = variants.entry(row.variant).or_default();
            (counts.clicks, counts.human_clicks, counts.visitors) =
                (row.clicks, row.human_clicks, row.visitors);
        }
        for row in earned {
            let counts = variants.entry(row.variant).or_default();
            counts.conversions = counts.conversions.saturating_add(row.conversions);
            let value = MoneySum(u128::try_from(row.value).unwrap_or(0));
            counts.value.insert(currency(&row.currency)?, value);
        }
        for row in converting {
            variants.entry(row.variant).or_default().converting_clicks = row.converting;
        }
        let first_click = first.map(|seconds| UnixMillis(i64::from(seconds) * 1000));
        Ok(VariantReport { variants, first_click })
    }

    fn bound_variants(&self, sql: &str, query: &VariantQuery) -> clickhouse::query::Query {
        let seconds = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        self.report_query(sql)
            .with_setting("max_result_rows", ROWS_MAX)
            .param("account", query.account_id.0)
            .param("link", query.link_id.0)
            .param("goal", query.goal_id.map_or(0, |goal| goal.0))
            .param("from", seconds(query.from.hour_start_seconds()))
            .param("to", seconds(query.to.plus(999).seconds()))
            .param("other", VARIANT_OTHER)
    }
}

/// Human clicks of the period that earned anything until today. Robots' clicks may earn what names them; they are in no
/// rate, so they are not successes either.
fn converting_sql(query: &VariantQuery) -> String {
    // No conversion is older than its click, to the second.
    let earned = format!(
        "FROM attributions_current WHERE account_id = {{account: UInt32}} AND link_id = {{link: UInt32}} {} \
             AND converted_at >= toDateTime({{from: UInt32}}, 'UTC') \
             AND toStartOfHour(clicked_at) >= toDateTime({{from: UInt32}}, 'UTC') \
             AND toStartOfHour(clicked_at) < toDateTime({{to: UInt32}}, 'UTC')",
        goal_filter(query.goal_id)
    );
    format!(
        "SELECT if(labelled, toString(variant), {{other: String}}) AS variant, uniqExact(click_id) AS converting \
         FROM (SELECT variant, labelled, click_id {earned}) AS earned \
         WHERE click_id IN (SELECT click_id FROM clicks WHERE account_id = {{account: UInt32}} AND traffic = 'human' \
             AND click_id IN (SELECT click_id {earned})) \
         GROUP BY 1"
    )
}
