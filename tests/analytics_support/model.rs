//! What a report must say, counted from the raw tables row by row.

use std::collections::{BTreeMap, BTreeSet};

use tally::clickhouse::Database;
use tally::core::{
    Basis, ConversionQuery, ConversionReport, Currency, CurrencySums, Group, GroupBy, GroupKey, Measures,
    TimeToConvert, UnixMillis,
};

use super::{HOUR, SINCE};
use crate::support::engine::sql;

/// A conversion as the raw tables tell it.
#[derive(Clone, Debug, clickhouse::Row, serde::Deserialize)]
pub struct Converted {
    pub account: u32,
    pub goal: u32,
    pub currency: String,
    pub value: i64,
    pub value_change: i64,
    pub count_change: i64,
    pub at: i64,
    pub method: String,
    pub link: u32,
    pub click: u64,
    pub clicked: i64,
    pub seconds: u32,
    pub source: String,
    pub medium: String,
    pub campaign: String,
    pub variant: String,
    pub labelled: bool,
    pub visitor: u64,
}

/// A click as the raw table tells it.
#[derive(Clone, Debug, clickhouse::Row, serde::Deserialize)]
pub struct Clicked {
    pub account: u32,
    pub link: u32,
    pub click: u64,
    pub at: i64,
    pub human: bool,
    pub source: String,
    pub medium: String,
    pub campaign: String,
    pub variant: String,
    pub labelled: bool,
    pub visitor: u64,
}

/// Everything that happened.
pub struct Raw {
    pub conversions: Vec<Converted>,
    pub clicks: Vec<Clicked>,
}

impl Raw {
    /// With the decisions of `run`, if any, in force.
    pub async fn read(database: &Database, run: u32) -> Self {
        let in_force = if run == 0 {
            "run_id = 0".to_owned()
        } else {
            format!(
                "run_id = {run} OR (run_id = 0 AND (toUnixTimestamp(converted_at) < {} OR attribution_run >= {run}))",
                SINCE / 1000
            )
        };
        let conversions = format!(
            "SELECT c.account_id AS account, c.goal_id AS goal, toString(c.currency) AS currency, \
                 toInt64(c.value * 1000000) AS value, toInt64(a.v * 1000000) AS value_change, \
                 toInt64(a.n) AS count_change, toInt64(toUnixTimestamp(c.converted_at)) AS at, \
                 toString(e.method) AS method, e.link_id AS link, e.click_id AS click, \
                 toInt64(toUnixTimestamp(e.clicked_at)) AS clicked, e.seconds_to_convert AS seconds, \
                 toString(e.utm_source) AS source, toString(e.utm_medium) AS medium, \
                 toString(e.utm_campaign) AS campaign, toString(e.variant) AS variant, e.labelled AS labelled, \
                 e.visitor_key AS visitor \
             FROM conversions AS c \
             LEFT ANY JOIN (SELECT conversion_id, sum(net_value_change) AS v, sum(net_conversions_change) AS n \
                 FROM adjustments GROUP BY conversion_id) AS a ON a.conversion_id = c.conversion_id \
             LEFT ANY JOIN (SELECT * FROM attributions WHERE {in_force}) AS e ON e.conversion_id = c.conversion_id"
        );
        let clicks = "SELECT account_id AS account, link_id AS link, click_id AS click, \
             toInt64(toUnixTimestamp(clicked_at)) AS at, traffic = 'human' AS human, \
             toString(utm_source) AS source, toString(utm_medium) AS medium, toString(utm_campaign) AS campaign, \
             toString(variant) AS variant, labelled, visitor_key AS visitor FROM clicks";
        let client = sql(database);
        Self {
            conversions: client.query_raw(&conversions).fetch_all().await.expect("read"),
            clicks: client.query_raw(clicks).fetch_all().await.expect("read"),
        }
    }

    pub fn report(&self, query: &ConversionQuery) -> ConversionReport {
        let conversions = self.conversions.iter().filter(|of| {
            of.account == query.account_id.0
                && query.goal_id.is_none_or(|goal| goal.0 == of.goal)
                && query.link_id.is_none_or(|link| of.is_attributed() && link.0 == of.link)
                && (query.basis == Basis::Conversion || of.is_attributed())
        });
        let at = |of: &Converted| if query.basis == Basis::Click { of.clicked } else { of.at };
        let conversions: Vec<_> = conversions.map(|of| (hour(at(of)), of)).collect();
        let clicks = self.clicks.iter().filter(|of| {
            of.account == query.account_id.0 && query.link_id.is_none_or(|link| link.0 == of.link)
        });
        let clicks: Vec<_> = clicks.map(|of| (hour(of.at), of)).collect();
        let within = |from: UnixMillis, to: UnixMillis| {
            let hours = from..to;
            let conversions = conversions.iter().filter(|(hour, _)| hours.contains(hour)).map(|(_, of)| *of);
            let clicks = clicks.iter().filter(|(hour, _)| hours.contains(hour)).map(|(_, of)| *of);
            (conversions.collect::<Vec<_>>(), clicks.collect::<Vec<_>>())
        };
        let measured = |from, to| {
            let (conversions, clicks) = within(from, to);
            measures(&conversions, &clicks)
        };
        let from = query.starts[0];
        let ends = query.starts.iter().skip(1).chain([&query.to]);
        let spans = query.starts.iter().zip(ends).map(|(from, to)| (*from, measured(*from, *to)));
        let (of_period, clicks_of_period) = within(from, query.to);
        let groups = query.group_by.map_or(BTreeMap::new(), |by| {
            let mut groups: BTreeMap<GroupKey, (Vec<&Converted>, Vec<&Clicked>)> = BTreeMap::new();
            for of in of_period {
                groups.entry(key(by, of)).or_default().0.push(of);
            }
            for of in &clicks_of_period {
                if by.is_of_clicks() {
                    groups.entry(click_key(by, of)).or_default().1.push(of);
                }
            }
            if !by.is_of_clicks() {
                for (_, clicks) in groups.values_mut() {
                    clicks.clone_from(&clicks_of_period);
                }
            }
            groups
        });
        ConversionReport {
            whole: measured(from, query.to),
            before: measured(query.before, from),
            series: spans.filter(|(_, measures)| *measures != Measures::default()).collect(),
            groups: groups
                .into_iter()
                .map(|(key, (conversions, clicks))| Group { key, measures: measures(&conversions, &clicks) })
                .collect(),
            groups_truncated: false,
        }
    }
}

impl Converted {
    fn is_attributed(&self) -> bool {
        self.method != "none"
    }
}

pub fn hour(seconds: i64) -> UnixMillis {
    UnixMillis(seconds * 1000 / HOUR * HOUR)
}

pub fn key(by: GroupBy, of: &Converted) -> GroupKey {
    let text = |text: &str| named(text, of.labelled);
    match by {
        GroupBy::Goal => GroupKey::Id(of.goal),
        GroupBy::Currency => GroupKey::Text(of.currency.clone()),
        _ if !of.is_attributed() => GroupKey::Unattributed,
        GroupBy::Link => GroupKey::Id(of.link),
        GroupBy::UtmSource => text(&of.source),
        GroupBy::UtmMedium => text(&of.medium),
        GroupBy::UtmCampaign => text(&of.campaign),
        GroupBy::Variant => text(&of.variant),
    }
}

pub fn click_key(by: GroupBy, of: &Clicked) -> GroupKey {
    match by {
        GroupBy::Link => GroupKey::Id(of.link),
        GroupBy::UtmSource => named(&of.source, of.labelled),
        GroupBy::UtmMedium => named(&of.medium, of.labelled),
        GroupBy::UtmCampaign => named(&of.campaign, of.labelled),
        GroupBy::Variant => named(&of.variant, of.labelled),
        GroupBy::Goal | GroupBy::Currency => unreachable!("a click has none"),
    }
}

pub fn named(text: &str, labelled: bool) -> GroupKey {
    if labelled && text != "(other)" { GroupKey::Text(text.to_owned()) } else { GroupKey::Other }
}

pub fn measures(conversions: &[&Converted], clicks: &[&Clicked]) -> Measures {
    let human: Vec<_> = clicks.iter().filter(|of| of.human).collect();
    let attributed: Vec<_> = conversions.iter().filter(|of| of.is_attributed()).collect();
    let mut by_currency = BTreeMap::<_, CurrencySums>::new();
    for of in conversions {
        let sums = by_currency.entry(Currency::parse(&of.currency).expect("known")).or_default();
        sums.conversions += 1;
        sums.value.0 += u128::try_from(of.value).expect("positive");
        sums.net_value.0 += u128::try_from(of.value + of.value_change).expect("positive");
    }
    let who: BTreeSet<_> = attributed
        .iter()
        .map(|of| if of.method == "click_id" || of.visitor == 0 { of.click } else { of.visitor })
        .collect();
    let visitors: BTreeSet<_> =
        human.iter().map(|of| if of.visitor == 0 { of.click } else { of.visitor }).collect();
    let count = attributed.len() as u64;
    let seconds: u64 = attributed.iter().map(|of| u64::from(of.seconds)).sum();
    let net: i64 = conversions.iter().map(|of| 1 + of.count_change).sum();
    Measures {
        clicks: clicks.len() as u64,
        human_clicks: human.len() as u64,
        visitors: visitors.len() as u64,
        attributed: count,
        converting_visitors: who.len() as u64,
        net_conversions: u64::try_from(net).expect("positive"),
        by_currency,
        // Quantiles are approximate, and not compared.
        time_to_convert: (count > 0).then(|| TimeToConvert {
            average_seconds: (seconds + count / 2) / count,
            median_seconds: 0,
            p95_seconds: 0,
        }),
    }
}

/// A report as it can be compared: quantiles left out, groups in the order of their keys.
pub fn comparable(report: &ConversionReport) -> ConversionReport {
    let mut report = report.clone();
    let groups = report.groups.iter_mut().map(|group| &mut group.measures);
    let all = [&mut report.whole, &mut report.before].into_iter();
    for measures in all.chain(report.series.values_mut()).chain(groups) {
        if let Some(times) = &mut measures.time_to_convert {
            assert!(times.median_seconds <= times.p95_seconds, "{times:?}");
            (times.median_seconds, times.p95_seconds) = (0, 0);
        }
    }
    report.groups.sort_by(|a, b| a.key.cmp(&b.key));
    report
}

/// One of a report's counts.
type Count = fn(&Measures) -> u64;

/// What must hold of any report, whatever the raw tables say.
pub fn assert_consistent(query: &ConversionQuery, report: &ConversionReport) {
    let total = |of: Count, parts: &mut dyn Iterator<Item = &Measures>| parts.map(of).sum::<u64>();
    let counts: [(&str, Count, bool); 5] = [
        ("clicks", |of| of.clicks, true),
        ("human clicks", |of| of.human_clicks, true),
        ("conversions", Measures::conversions, false),
        ("attributed", |of| of.attributed, false),
        ("net", |of| of.net_conversions, false),
    ];
    for (what, of, is_of_clicks) in counts {
        assert_eq!(
            total(of, &mut report.series.values()),
            of(&report.whole),
            "{what} of the series: {query:?}"
        );
        let groups = &mut report.groups.iter().map(|group| &group.measures);
        match query.group_by {
            Some(by) if by.is_of_clicks() || !is_of_clicks => {
                assert_eq!(total(of, groups), of(&report.whole), "{what} of groups: {query:?}");
            }
            Some(_) => assert!(groups.all(|group| of(group) == of(&report.whole)), "{what}: {query:?}"),
            None => assert!(report.groups.is_empty()),
        }
    }
    let ranks: Vec<_> = report
        .groups
        .iter()
        .filter(|group| !matches!(group.key, GroupKey::Unattributed | GroupKey::Other))
        .map(|group| (group.measures.conversions(), group.measures.value_max()))
        .collect();
    assert!(ranks.is_sorted_by(|a, b| a >= b), "{query:?}: {ranks:?}");
}
