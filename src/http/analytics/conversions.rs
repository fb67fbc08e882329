//! `GET /api/v1/analytics/conversions`: clicks, conversions and their worth over a period; what each number means is in
//! `docs/analytics.md`.
//!
//! With `link_id`, everything is that link's: its clicks, and the conversions that they earned. `goal_id` narrows the
//! conversions alone, since a click has no goal: the rate is then how many people of all who clicked completed this goal.
//! A group equals the report that is narrowed to it, so the same holds of groups by goal and by currency.

use hyper::{StatusCode, http::request::Parts};
use serde::Serialize;

use super::{
    change::ChangeJson,
    interval::{Hours, Interval, Span},
    measures::MeasuresJson,
    period::{Period, PeriodJson},
};
use crate::{
    catalog::Snapshot,
    core::{
        AccountId, Basis, ConversionQuery, ConversionReport, GoalId, Group, GroupBy, GroupKey, LinkId,
        Measures,
    },
    http::{
        client,
        error::{ApiError, ErrorCode},
        page::Parameters,
        report::{self, report_error},
        response::{self, Answer},
        services::{Reports, Services},
    },
};

/// Beside those of the period.
const PARAMETERS: [&str; 5] = ["goal_id", "link_id", "interval", "group_by", "basis"];
const BASES: [(&str, Basis); 2] = [("conversion", Basis::Conversion), ("click", Basis::Click)];

/// Answers the report.
pub(in crate::http) async fn conversions<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let account_id = client::account(&services.catalog.snapshot(), &head.headers)?;
    let known = [&Period::PARAMETERS[..], &PARAMETERS].concat();
    let parameters = Parameters::read(head.uri.query(), &known)?;
    let goal_id = parameters.number("goal_id", 1..=u32::MAX)?.map(GoalId);
    if let Some(goal) = goal_id
        && services.catalog.snapshot().goal(account_id, goal).is_none()
    {
        return Err(ApiError::new(ErrorCode::GoalNotFound).at("goal_id"));
    }
    // A deleted link's numbers stay readable: the query carries the account, so no other's can be seen.
    let link_id = parameters.number("link_id", 1..=u32::MAX)?.map(LinkId);
    let basis = parameters.one_of("basis", &BASES)?.unwrap_or(Basis::Conversion);
    let group_by = parameters.one_of("group_by", &GroupBy::ALL.map(|by| (by.as_str(), by)))?;
    let period = Period::read(&parameters, services.clock.now())?;
    let interval = Interval::read(&parameters, &period)?;
    let hours = Hours::of(&period);
    let spans = interval.spans(&hours)?;
    let query = ConversionQuery {
        account_id,
        goal_id,
        link_id,
        basis,
        group_by,
        before: hours.before(),
        starts: spans.iter().map(|span| span.hour).collect(),
        to: hours.to,
    };
    let permit = report::permit(services, account_id).await?;
    let report = services.reports.conversion_report(&permit, query).await.map_err(report_error)?;
    let catalog = services.catalog.snapshot();
    let names = Names { catalog: &catalog, account_id, group_by };
    let asked = Asked { hours: &hours, interval, spans: &spans, basis, names };
    Ok(response::data(StatusCode::OK, &ReportJson::new(&asked, &report)))
}

/// What was asked, as far as the answer says it again.
struct Asked<'a> {
    hours: &'a Hours,
    interval: Interval,
    spans: &'a [Span],
    basis: Basis,
    names: Names<'a>,
}

/// What groups are called.
struct Names<'a> {
    catalog: &'a Snapshot,
    account_id: AccountId,
    group_by: Option<GroupBy>,
}

#[derive(Serialize)]
struct ReportJson {
    period: PeriodJson,
    basis: &'static str,
    interval: &'static str,
    group_by: Option<&'static str>,
    #[serde(flatten)]
    measures: MeasuresJson,
    change: ChangeOverJson,
    series: Vec<SpanJson>,
    groups: Vec<GroupJson>,
    groups_truncated: bool,
}

#[derive(Serialize)]
struct ChangeOverJson {
    /// The period before.
    period: BeforeJson,
    #[serde(flatten)]
    change: ChangeJson,
}

#[derive(Serialize)]
struct BeforeJson {
    from: String,
    to: String,
}

#[derive(Serialize)]
struct SpanJson {
    start: String,
    #[serde(flatten)]
    measures: MeasuresJson,
}

#[derive(Serialize)]
struct GroupJson {
    /// For programs; null: what no click earned, and what is left over.
    key: Option<String>,
    /// The link's or goal's number.
    id: Option<u32>,
    /// For people.
    name: String,
    #[serde(flatten)]
    measures: MeasuresJson,
}

impl ReportJson {
    fn new(asked: &Asked<'_>, report: &ConversionReport) -> Self {
        let Asked { hours, interval, spans, basis, names } = asked;
        let nothing = Measures::default();
        let series = spans.iter().map(|span| SpanJson {
            start: hours.period.shown(span.start),
            measures: report.series.get(&span.hour).unwrap_or(&nothing).into(),
        });
        let before = BeforeJson {
            from: hours.period.shown(hours.before()),
            to: hours.period.shown(hours.period.from),
        };
        let basis = BASES.iter().find(|(_, of)| of == basis).map_or("", |(word, _)| word);
        Self {
            period: hours.period.json(),
            basis,
            interval: interval.as_str(),
            group_by: names.group_by.map(GroupBy::as_str),
            measures: (&report.whole).into(),
            change: ChangeOverJson { period: before, change: ChangeJson::new(&report.whole, &report.before) },
            series: series.collect(),
            groups: report.groups.iter().map(|group| names.group(group)).collect(),
            groups_truncated: report.groups_truncated,
        }
    }
}

impl Names<'_> {
    fn group(&self, Group { key, measures }: &Group) -> GroupJson {
        let (key, id, name) = match key {
            GroupKey::Id(0) => (Some("0".to_owned()), None, "(no link)".to_owned()),
            GroupKey::Id(id) => (Some(id.to_string()), Some(*id), self.of(*id)),
            GroupKey::Text(text) if text.is_empty() => (Some(String::new()), None, "(not set)".to_owned()),
            GroupKey::Text(text) => (Some(text.clone()), None, text.clone()),
            GroupKey::Unattributed => (None, None, "(unattributed)".to_owned()),
            GroupKey::Other => (None, None, "(other)".to_owned()),
        };
        GroupJson { key, id, name, measures: measures.into() }
    }

    fn of(&self, id: u32) -> String {
        let name = match self.group_by {
            Some(GroupBy::Link) => {
                self.catalog.link(self.account_id, LinkId(id)).map(|link| link.name.clone())
            }
            Some(GroupBy::Goal) => {
                self.catalog.goal(self.account_id, GoalId(id)).map(|goal| goal.name.clone())
            }
            _ => None,
        };
        name.unwrap_or_else(|| "(deleted)".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::core::{Currency, CurrencySums, MoneySum, TimeToConvert, UnixMillis};

    /// 2026-03-30T10:00:00Z.
    const NOW: UnixMillis = UnixMillis(1_774_864_800_000);
    const DAY: i64 = 86_400_000;

    fn money(amounts: &[(&str, u64, u128)]) -> BTreeMap<Currency, CurrencySums> {
        let sums = |(code, conversions, micros): &(&str, u64, u128)| {
            let (value, net_value) = (MoneySum(*micros), MoneySum(micros - 1_000_000));
            (
                Currency::parse(code).expect("known"),
                CurrencySums { conversions: *conversions, value, net_value },
            )
        };
        amounts.iter().map(sums).collect()
    }

    fn answer(query: &str, group_by: Option<GroupBy>, report: &ConversionReport) -> serde_json::Value {
        let parameters = Parameters::read(Some(query), &Period::PARAMETERS).expect("known");
        let period = Period::read(&parameters, NOW).expect("a period");
        let (hours, interval) = (Hours::of(&period), Interval::read(&parameters, &period).expect("one"));
        let spans = interval.spans(&hours).expect("few");
        let catalog = Snapshot::default();
        let names = Names { catalog: &catalog, account_id: AccountId(1), group_by };
        let asked = Asked { hours: &hours, interval, spans: &spans, basis: Basis::Conversion, names };
        serde_json::to_value(ReportJson::new(&asked, report)).expect("JSON")
    }

    #[test]
    fn a_report_reads_as_the_contract_says() {
        let whole = Measures {
            clicks: 60,
            human_clicks: 48,
            visitors: 40,
            attributed: 6,
            converting_visitors: 5,
            net_conversions: 10,
            by_currency: money(&[("USD", 12, 123_450_000), ("EUR", 1, 5_000_000)]),
            time_to_convert: Some(TimeToConvert {
                average_seconds: 70,
                median_seconds: 60,
                p95_seconds: 200,
            }),
        };
        let today = Measures { clicks: 50, human_clicks: 40, ..Measures::default() };
        let series = BTreeMap::from([(UnixMillis(NOW.0 - NOW.0 % DAY), today)]);
        let report = ConversionReport { whole, series, ..ConversionReport::default() };
        let mut json = answer("days=2", None, &report);
        let data = json.as_object_mut().expect("an object");
        let change = data.remove("change").expect("there");
        assert_eq!(change["period"], json!({"from": "2026-03-27T13:00:00Z", "to": "2026-03-29T00:00:00Z"}));
        assert_eq!(change["conversions"], json!({"before": 0, "absolute": 13, "percent": null}));
        let series = data.remove("series").expect("there");
        let starts: Vec<_> =
            series.as_array().expect("a list").iter().map(|span| span["start"].clone()).collect();
        assert_eq!(starts, ["2026-03-29T00:00:00Z", "2026-03-30T00:00:00Z"]);
        assert_eq!((series[0]["clicks"].clone(), series[1]["human_clicks"].clone()), (0.into(), 40.into()));
        assert_eq!(series[0]["time_to_convert"]["median_seconds"], serde_json::Value::Null);
        assert_eq!(
            json,
            json!({
                "period": {"from": "2026-03-29T00:00:00Z", "to": "2026-03-30T10:00:00Z", "days": 2, "tz": "UTC"},
                "basis": "conversion", "interval": "day", "group_by": null,
                "clicks": 60, "human_clicks": 48, "visitors": 40,
                "conversions": 13, "attributed": 6, "converting_visitors": 5, "net_conversions": 10,
                "conversion_rate": 12.5, "unique_rate": 12.5,
                "total_value": {"USD": "123.45", "EUR": "5.00"},
                "average_value": {"USD": "10.29", "EUR": "5.00"},
                "net_value": {"USD": "122.45", "EUR": "4.00"},
                "time_to_convert": {"average_seconds": 70, "median_seconds": 60, "p95_seconds": 200},
                "groups": [], "groups_truncated": false,
            })
        );
    }

    #[test]
    fn groups_have_keys_for_programs_and_names_for_people() {
        let named = |by, keys: &[GroupKey]| {
            let groups = keys.iter().map(|key| Group { key: key.clone(), measures: Measures::default() });
            let report = ConversionReport { groups: groups.collect(), ..ConversionReport::default() };
            let json = answer("days=1", Some(by), &report);
            let groups = json["groups"].as_array().expect("a list").iter();
            groups.map(|group| json!([group["key"], group["id"], group["name"]])).collect::<Vec<_>>()
        };
        assert_eq!(
            named(
                GroupBy::Link,
                &[GroupKey::Id(7), GroupKey::Id(0), GroupKey::Unattributed, GroupKey::Other]
            ),
            [
                json!(["7", 7, "(deleted)"]),
                json!(["0", null, "(no link)"]),
                json!([null, null, "(unattributed)"]),
                json!([null, null, "(other)"])
            ]
        );
        assert_eq!(
            named(GroupBy::UtmSource, &[GroupKey::Text("mail".into()), GroupKey::Text(String::new())]),
            [json!(["mail", null, "mail"]), json!(["", null, "(not set)"])]
        );
    }
}
