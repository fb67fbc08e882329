//! The statements of a report over clicks and conversions. All text in them stands here; what callers say is bound.

use crate::core::{Basis, ConversionQuery, GroupBy};

/// What is neither worth a group nor named by statistics.
pub(super) const OTHER: &str = "(other)";

/// How the hours of a period are put together. Every row has a `number` and a `text`, which say to what it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// By the spans of the series, `number` being the span's start, in seconds; and by the period (`text` is `1`) and the
    /// one before (`0`), in the same pass.
    Spans,
    /// By group, `text` being its key; `number` 0: what no click earned.
    Groups {
        /// Whether all but the keys in `top` are one group.
        some: bool,
    },
}

/// What one report is made of.
pub(super) struct Statements<'a> {
    query: &'a ConversionQuery,
    /// The run of attribution in force. With none, adjustments stand under the clicks that they came with.
    run: u32,
}

impl Cut {
    fn columns(self) -> &'static str {
        match self {
            Self::Spans => {
                "toUInt32(roundDown(toUnixTimestamp(hour), {starts: Array(UInt32)})) AS number, \
                 toString(hour >= toDateTime({from: UInt32}, 'UTC')) AS text"
            }
            Self::Groups { some: false } => "toUInt32(earned) AS number, k AS text",
            Self::Groups { some: true } => {
                "toUInt32(earned) AS number, if(earned AND NOT has({top: Array(String)}, k), '(other)', k) AS text"
            }
        }
    }

    /// `beside`: what is told apart within a span or group.
    fn group_by(self, beside: &str) -> String {
        match self {
            Self::Spans => format!("GROUPING SETS ((number{beside}), (text{beside}))"),
            Self::Groups { .. } => format!("number, text{beside}"),
        }
    }
}

impl<'a> Statements<'a> {
    pub(super) fn new(query: &'a ConversionQuery, run: u32) -> Self {
        Self { query, run }
    }

    /// Whether it matters to a report which run is in force, other than through the `_current` views.
    pub(super) fn depend_on_the_run(query: &ConversionQuery) -> bool {
        query.link_id.is_some()
            || query.basis == Basis::Click
            || query.group_by.is_some_and(GroupBy::is_of_clicks)
    }

    /// Conversions and money, by currency.
    pub(super) fn conversions(&self, cut: Cut) -> String {
        format!(
            "SELECT number, text, toString(currency) AS code, sum(n) AS conversions, sum(v) AS value, \
                 sum(a) AS attributed, sum(nn) AS net_conversions, sum(nv) AS net_value \
             FROM (SELECT {}, currency, n, v, a, nn, nv FROM ({})) GROUP BY {}",
            cut.columns(),
            self.conversion_rows(),
            cut.group_by(", currency")
        )
    }

    /// What the clicks have that earned conversions: visitors and times.
    pub(super) fn attributed(&self, cut: Cut) -> String {
        format!(
            "SELECT number, text, sum(n) AS conversions, sum(s) AS seconds, \
                 quantilesTDigestMerge(0.5, 0.95)(q) AS quantiles, uniqMerge(u) AS visitors \
             FROM (SELECT {}, n, s, q, u FROM (SELECT hour, 1 AS earned, {} AS k, conversions AS n, \
                 seconds_to_convert AS s, seconds_to_convert_quantiles AS q, visitors AS u \
                 FROM {} WHERE {} {})) GROUP BY {}",
            cut.columns(),
            self.key(),
            self.attributed_table(),
            HOURS,
            self.filters(),
            cut.group_by("")
        )
    }

    /// Clicks.
    pub(super) fn clicks(&self, cut: Cut) -> String {
        format!(
            "SELECT number, text, sum(c) AS clicks, sum(h) AS human_clicks, uniqMerge(u) AS visitors \
             FROM (SELECT {}, c, h, u FROM ({})) GROUP BY {}",
            cut.columns(),
            self.click_rows(),
            cut.group_by("")
        )
    }

    /// The keys of the groups with the most conversions, best first.
    pub(super) fn top(&self) -> String {
        let clicks = if self.query.group_by.is_some_and(GroupBy::is_of_clicks) {
            format!(" UNION ALL SELECT k, '', 0, toDecimal128(0, 6), h FROM ({})", self.click_rows())
        } else {
            String::new()
        };
        format!(
            "SELECT k FROM (SELECT k, code, sum(n) AS ns, sum(v) AS vs, sum(h) AS hs FROM ( \
                 SELECT k, toString(currency) AS code, n, v, toUInt64(0) AS h FROM ({}) WHERE earned{clicks}) \
                 GROUP BY k, code) \
             GROUP BY k ORDER BY sum(ns) DESC, max(vs) DESC, sum(hs) DESC, k LIMIT {{limit: UInt32}}",
            self.conversion_rows(),
        )
    }

    /// Gross, attributed and net, hour by hour. What no click earned is all there is less what clicks earned.
    fn conversion_rows(&self) -> String {
        let by_click = self.query.group_by.is_some_and(GroupBy::is_of_clicks);
        let (key, filters) = (self.key(), self.filters());
        let from_attributed = format!("FROM {} WHERE {HOURS} {filters}", self.attributed_table());
        let earned = format!(
            "SELECT hour, currency, 1 AS earned, {key} AS k, toInt64(conversions) AS n, value AS v, \
                 toInt64(conversions) AS a, toInt64(conversions) AS nn, value AS nv {from_attributed}"
        );
        let gross = if self.is_of_clicks_alone() {
            earned
        } else if by_click {
            format!(
                "{earned} UNION ALL \
                 SELECT hour, currency, 0, '', -toInt64(conversions), -value, 0, -toInt64(conversions), -value \
                 {from_attributed} UNION ALL \
                 SELECT hour, currency, 0, '', toInt64(conversions), value, 0, toInt64(conversions), value \
                 FROM conversions_hourly WHERE {HOURS} {filters}"
            )
        } else {
            format!(
                "SELECT hour, currency, 1 AS earned, {key} AS k, toInt64(conversions) AS n, value AS v, \
                     toInt64(0) AS a, toInt64(conversions) AS nn, value AS nv \
                 FROM conversions_hourly WHERE {HOURS} {filters} UNION ALL \
                 SELECT hour, currency, 1, {key}, 0, toDecimal128(0, 6), toInt64(conversions), 0, toDecimal128(0, 6) \
                 {from_attributed}"
            )
        };
        format!("{gross} UNION ALL {}", self.adjustment_rows(by_click))
    }

    fn adjustment_rows(&self, by_click: bool) -> String {
        let (key, filters) = (self.key(), self.filters());
        let in_force = if self.run == 0 { "" } else { "_current" };
        let (earned, key) = if by_click && !self.is_of_clicks_alone() {
            ("method != 'none'", format!("if(method = 'none', '', {key})"))
        } else {
            ("1", key.to_owned())
        };
        let rows = match self.query.basis {
            Basis::Conversion => format!("adjustments_hourly{in_force} WHERE {HOURS} {filters}"),
            // Adjustments are few: they are read one by one.
            Basis::Click => format!(
                "(SELECT toDateTime(toStartOfHour(clicked_at), 'UTC') AS hour, adjusted.account_id AS account_id, \
                     adjusted.goal_id AS goal_id, adjusted.link_id AS link_id, adjusted.currency AS currency, \
                     if(adjusted.labelled, adjusted.utm_source, '{OTHER}') AS utm_source, \
                     if(adjusted.labelled, adjusted.utm_medium, '{OTHER}') AS utm_medium, \
                     if(adjusted.labelled, adjusted.utm_campaign, '{OTHER}') AS utm_campaign, \
                     if(adjusted.labelled, adjusted.variant, '{OTHER}') AS variant, \
                     adjusted.net_conversions_change AS net_conversions_change, adjusted.net_value_change AS net_value_change \
                 FROM adjustments{in_force} AS adjusted WHERE adjusted.account_id = {{account: UInt32}} AND adjusted.method != 'none') \
                 WHERE {HOURS} {filters}"
            ),
        };
        format!(
            "SELECT hour, currency, {earned}, {key}, 0, toDecimal128(0, 6), 0, toInt64(net_conversions_change), \
                 toDecimal128(net_value_change, 6) FROM {rows}"
        )
    }

    fn click_rows(&self) -> String {
        let key = if self.query.group_by.is_some_and(GroupBy::is_of_clicks) { self.key() } else { "''" };
        format!(
            "SELECT hour, 1 AS earned, {key} AS k, clicks AS c, human_clicks AS h, visitors AS u \
             FROM clicks_hourly WHERE {HOURS} {}",
            self.link_filter()
        )
    }

    /// Whether nothing counts but what clicks earned.
    fn is_of_clicks_alone(&self) -> bool {
        self.query.link_id.is_some() || self.query.basis == Basis::Click
    }

    fn attributed_table(&self) -> &'static str {
        match self.query.basis {
            Basis::Conversion => "attributed_hourly_current",
            Basis::Click => "attributed_by_click_hourly_current",
        }
    }

    /// The key of the group of a row of statistics.
    fn key(&self) -> &'static str {
        match self.query.group_by {
            None => "''",
            Some(GroupBy::Link) => "toString(link_id)",
            Some(GroupBy::Goal) => "toString(goal_id)",
            Some(GroupBy::UtmSource) => "toString(utm_source)",
            Some(GroupBy::UtmMedium) => "toString(utm_medium)",
            Some(GroupBy::UtmCampaign) => "toString(utm_campaign)",
            Some(GroupBy::Variant) => "toString(variant)",
            Some(GroupBy::Currency) => "toString(currency)",
        }
    }

    fn filters(&self) -> String {
        format!("{} {}", super::goal_filter(self.query.goal_id), self.link_filter())
    }

    fn link_filter(&self) -> &'static str {
        if self.query.link_id.is_some() { "AND link_id = {link: UInt32}" } else { "" }
    }
}

const HOURS: &str = "account_id = {account: UInt32} \
    AND hour >= toDateTime({since: UInt32}, 'UTC') AND hour < toDateTime({to: UInt32}, 'UTC')";
