//! Clicks and conversions of a period, from the hourly statistics.
//!
//! What clicks earned is that of the run of attribution in force: the `_current` views say which. Three statements make a
//! report, each in one pass over the period and the one before; three more make its groups.

mod sql;

use std::{cmp::Reverse, collections::BTreeMap};

use clickhouse::query::Query;

use self::sql::{Cut, OTHER, Statements};
use super::goal_filter;
use crate::{
    clickhouse::{Database, Failure, keys::currency},
    core::{
        ConversionQuery, ConversionReport, Group, GroupBy, GroupKey, Measures, MoneySum, TimeToConvert,
        UnixMillis,
    },
};

/// Groups of a report; the rest is one more.
const GROUPS_MAX: usize = 100;
/// Rows of one answer: a thousand spans in all currencies. More is refused by the server rather than truncated.
const REPORT_ROWS_MAX: &str = "200000";

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConversionRow {
    number: u32,
    text: String,
    code: String,
    conversions: i64,
    value: i128,
    attributed: i64,
    net_conversions: i64,
    net_value: i128,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct AttributedRow {
    number: u32,
    text: String,
    conversions: u64,
    seconds: u64,
    quantiles: Vec<f32>,
    visitors: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct ClickRow {
    number: u32,
    text: String,
    clicks: u64,
    human_clicks: u64,
    visitors: u64,
}

/// What belongs together, by a cut's `number` and `text`.
type Parts = BTreeMap<(u32, String), Measures>;

impl Database {
    /// The report of a period.
    pub async fn conversion_report(&self, query: &ConversionQuery) -> Result<ConversionReport, Failure> {
        let run: u32 = if Statements::depend_on_the_run(query) {
            self.read(self.report_query("SELECT run_id FROM attribution_in_force").fetch_one()).await?
        } else {
            0
        };
        let statements = Statements::new(query, run);
        let bind = |sql: &str| self.bound(sql, query, query.before);
        let spans = self.measured(&statements, Cut::Spans, &bind).await?;
        let (groups, groups_truncated) = match query.group_by {
            Some(by) => self.groups(&statements, query, by).await?,
            None => (Vec::new(), false),
        };
        let mut report = ConversionReport { groups, groups_truncated, ..ConversionReport::default() };
        for ((start, period), measures) in spans {
            match period.as_str() {
                "1" => report.whole = measures,
                "0" => report.before = measures,
                _ => _ = report.series.insert(UnixMillis(i64::from(start) * 1000), measures),
            }
        }
        // The period before is one of the spans that hours were put into.
        report.series.remove(&query.before);
        if query.group_by.is_some_and(|by| !by.is_of_clicks()) {
            for Group { measures, .. } in &mut report.groups {
                let Measures { clicks, human_clicks, visitors, .. } = report.whole;
                *measures = Measures { clicks, human_clicks, visitors, ..std::mem::take(measures) };
            }
        }
        Ok(report)
    }

    /// Groups in order, and whether some were put together.
    async fn groups(
        &self,
        statements: &Statements<'_>,
        query: &ConversionQuery,
        by: GroupBy,
    ) -> Result<(Vec<Group>, bool), Failure> {
        let from = query.starts.first().copied().unwrap_or(query.to);
        let top = self.bound(&statements.top(), query, from).param("limit", GROUPS_MAX + 1);
        let mut top: Vec<String> = self.read(top.fetch_all()).await?;
        let some = top.len() > GROUPS_MAX;
        top.truncate(GROUPS_MAX);
        let bind = |sql: &str| self.bound(sql, query, from).param("top", &top);
        let parts = self.measured(statements, Cut::Groups { some }, &bind).await?;
        let mut groups: Vec<Group> = parts
            .into_iter()
            // Statistics of goals and currencies have no clicks: those without a key are of no group.
            .filter(|((_, text), _)| by.is_of_clicks() || !text.is_empty())
            .map(|((earned, text), measures)| Group { key: key(by, earned != 0, text), measures })
            .filter(|group| group.key != GroupKey::Unattributed || group.measures != Measures::default())
            .collect();
        groups.sort_by_cached_key(|Group { key, measures }| {
            let last = match key {
                GroupKey::Unattributed => 1,
                GroupKey::Other => 2,
                _ => 0,
            };
            let rank = (measures.conversions(), measures.value_max(), measures.human_clicks);
            (last, Reverse(rank), key.clone())
        });
        Ok((groups, some))
    }

    async fn measured(
        &self,
        statements: &Statements<'_>,
        cut: Cut,
        bind: &impl Fn(&str) -> Query,
    ) -> Result<Parts, Failure> {
        let conversions: Vec<ConversionRow> =
            self.read(bind(&statements.conversions(cut)).fetch_all()).await?;
        let attributed: Vec<AttributedRow> = self.read(bind(&statements.attributed(cut)).fetch_all()).await?;
        let clicks: Vec<ClickRow> = self.read(bind(&statements.clicks(cut)).fetch_all()).await?;
        let mut parts = Parts::new();
        for row in conversions {
            let currency = currency(&row.code)?;
            let part = parts.entry((row.number, row.text)).or_default();
            part.attributed += count(row.attributed);
            part.net_conversions += count(row.net_conversions);
            let conversions = count(row.conversions);
            // What is left of a currency when all of it was earned is nothing.
            if conversions != 0 || row.value != 0 || row.net_value != 0 {
                let sums = part.by_currency.entry(currency).or_default();
                sums.conversions += conversions;
                sums.value.0 = sums.value.0.saturating_add(money(row.value).0);
                sums.net_value.0 = sums.net_value.0.saturating_add(money(row.net_value).0);
            }
        }
        for row in attributed {
            let time_to_convert = time_to_convert(&row);
            let part = parts.entry((row.number, row.text)).or_default();
            (part.time_to_convert, part.converting_visitors) = (time_to_convert, row.visitors);
        }
        for row in clicks {
            let part = parts.entry((row.number, row.text)).or_default();
            (part.clicks, part.human_clicks, part.visitors) = (row.clicks, row.human_clicks, row.visitors);
        }
        Ok(parts)
    }

    fn bound(&self, sql: &str, query: &ConversionQuery, since: UnixMillis) -> Query {
        let from = query.starts.first().copied().unwrap_or(query.to);
        let starts: Vec<u32> =
            [query.before].iter().chain(&query.starts).map(|at| unix_seconds(*at)).collect();
        self.report_query(sql)
            .with_setting("max_result_rows", REPORT_ROWS_MAX)
            .param("account", query.account_id.0)
            .param("goal", query.goal_id.map_or(0, |goal| goal.0))
            .param("link", query.link_id.map_or(0, |link| link.0))
            .param("since", unix_seconds(since))
            .param("from", unix_seconds(from))
            .param("to", unix_seconds(query.to))
            .param("starts", starts)
    }
}

fn key(by: GroupBy, earned: bool, text: String) -> GroupKey {
    match by {
        _ if !earned => GroupKey::Unattributed,
        _ if text == OTHER => GroupKey::Other,
        GroupBy::Link | GroupBy::Goal => text.parse().map_or(GroupKey::Other, GroupKey::Id),
        _ => GroupKey::Text(text),
    }
}

/// While a batch is being inserted, a view may be ahead of another one, and a difference of both below nothing.
fn count(difference: i64) -> u64 {
    u64::try_from(difference).unwrap_or(0)
}

fn money(micros: i128) -> MoneySum {
    MoneySum(u128::try_from(micros).unwrap_or(0))
}

fn time_to_convert(row: &AttributedRow) -> Option<TimeToConvert> {
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

fn unix_seconds(at: UnixMillis) -> u32 {
    u32::try_from(at.seconds().max(0)).unwrap_or(u32::MAX)
}
