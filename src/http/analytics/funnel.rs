//! `GET /api/v1/analytics/funnel?goals=1,2,3`: how many visitors completed one goal after another.
//!
//! Who is one visitor, and which of several ways counts, says [`FunnelQuery`]'s module.

use hyper::{StatusCode, http::request::Parts};
use serde::Serialize;

use super::period::{Period, PeriodJson};
use crate::{
    catalog::Snapshot,
    core::{
        AccountId, FUNNEL_GOALS_MAX, FUNNEL_GOALS_MIN, FUNNEL_WINDOW_SECONDS_DEFAULT,
        FUNNEL_WINDOW_SECONDS_MAX, FunnelQuery, FunnelStep, GoalId, LinkId, percent,
    },
    http::{
        client,
        error::{ApiError, ErrorCode},
        page::{Parameters, invalid},
        report::{self, report_error},
        response::{self, Answer},
        services::{Reports, Services},
    },
};

/// Answers the report.
pub(in crate::http) async fn funnel<I: Sync, R: Reports>(
    services: &Services<I, R>,
    head: &Parts,
) -> Result<Answer, ApiError> {
    let catalog = services.catalog.snapshot();
    let account_id = client::account(&catalog, &head.headers)?;
    let known = [&["goals", "window", "strict", "link_id"][..], &Period::PARAMETERS].concat();
    let parameters = Parameters::read(head.uri.query(), &known)?;
    let goals = goals(&parameters, &catalog, account_id)?;
    let window_seconds = window(&parameters)?;
    let strict = strict(&parameters)?;
    // A deleted link's numbers stay readable: the query carries the account, so no other's can be seen.
    let link_id = parameters.number("link_id", 1..=u32::MAX)?.map(LinkId);
    let period = Period::read(&parameters, services.clock.now())?;
    let query =
        FunnelQuery { account_id, goals, link_id, from: period.from, to: period.to, window_seconds, strict };
    let permit = report::permit(services, account_id).await?;
    let steps = services.reports.funnel(&permit, query).await.map_err(report_error)?;
    let name = |step: &FunnelStep| {
        catalog.goal(account_id, step.goal_id).map_or_else(String::new, |goal| goal.name.clone())
    };
    let names: Vec<String> = steps.iter().map(name).collect();
    let answer = FunnelJson {
        period: period.json(),
        window_seconds,
        strict,
        link_id: link_id.map(|link| link.0),
        steps: steps_json(&steps, &names),
    };
    Ok(response::data(StatusCode::OK, &answer))
}

#[derive(Serialize)]
struct FunnelJson<'a> {
    period: PeriodJson,
    window_seconds: u32,
    strict: bool,
    link_id: Option<u32>,
    steps: Vec<StepJson<'a>>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    goal_id: u32,
    name: &'a str,
    /// Of this goal in the period, whatever came before.
    conversions: u64,
    /// Of those: by nobody knows whom.
    conversions_without_visitor: u64,
    visitors: u64,
    /// Of a hundred visitors of the step before.
    step_rate: f64,
    /// Of a hundred visitors of the first step.
    overall_rate: f64,
    median_seconds_from_previous: Option<u64>,
}

fn steps_json<'a>(steps: &[FunnelStep], names: &'a [String]) -> Vec<StepJson<'a>> {
    let first = steps.first().map_or(0, |step| step.visitors);
    let before = std::iter::once(first).chain(steps.iter().map(|step| step.visitors));
    let steps = steps.iter().zip(before).zip(names);
    let json = steps.map(|((step, before), name)| StepJson {
        goal_id: step.goal_id.0,
        name,
        conversions: step.conversions,
        conversions_without_visitor: step.conversions_without_visitor,
        visitors: step.visitors,
        step_rate: percent(step.visitors, before),
        overall_rate: percent(step.visitors, first),
        median_seconds_from_previous: step.median_seconds_from_previous,
    });
    json.collect()
}

/// The goals in their order: all of the account's, none of them twice.
fn goals(
    parameters: &Parameters,
    catalog: &Snapshot,
    account_id: AccountId,
) -> Result<Vec<GoalId>, ApiError> {
    let wrong = || {
        let message = format!(
            "`goals` are {FUNNEL_GOALS_MIN} to {FUNNEL_GOALS_MAX} different goals in their order, such as 1,2,3."
        );
        invalid("goals", message)
    };
    let text = parameters.text("goals").ok_or_else(wrong)?;
    let mut goals = Vec::new();
    for number in text.split(',') {
        let goal = number.trim().parse().ok().filter(|number| *number != 0).map(GoalId).ok_or_else(wrong)?;
        if goals.len() == FUNNEL_GOALS_MAX || goals.contains(&goal) {
            return Err(wrong());
        }
        goals.push(goal);
    }
    if goals.len() < FUNNEL_GOALS_MIN {
        return Err(wrong());
    }
    match goals.iter().find(|goal| catalog.goal(account_id, **goal).is_none()) {
        Some(goal) => {
            let message = format!("There is no goal {}.", goal.0);
            Err(ApiError::new(ErrorCode::GoalNotFound).because(message).at("goals"))
        }
        None => Ok(goals),
    }
}

/// `window`: seconds, or with a unit `90s`, `30m`, `12h`, `7d`.
fn window(parameters: &Parameters) -> Result<u32, ApiError> {
    let Some(text) = parameters.text("window") else { return Ok(FUNNEL_WINDOW_SECONDS_DEFAULT) };
    let (number, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        Some(b'd') => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let seconds = number.parse().ok().and_then(|number: u32| number.checked_mul(unit));
    seconds.filter(|seconds| (1..=FUNNEL_WINDOW_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        let days = FUNNEL_WINDOW_SECONDS_MAX / 86_400;
        let message = format!(
            "`window` is a number of seconds, or such as 30m, 12h or 7d; from 1 second to {days} days."
        );
        invalid("window", message)
    })
}

fn strict(parameters: &Parameters) -> Result<bool, ApiError> {
    match parameters.text("strict") {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(invalid("strict", "`strict` is true or false.".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u32> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("window", text).finish();
        window(&Parameters::read(Some(&query), &["window"]).expect("known")).ok()
    }

    #[test]
    fn windows_are_seconds_or_have_a_unit() {
        assert_eq!(seconds(""), Some(30 * 86_400));
        assert_eq!(seconds("3600"), Some(3600));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("30m"), Some(1800));
        assert_eq!(seconds("12h"), Some(43_200));
        assert_eq!(seconds("90d"), Some(90 * 86_400));
        for wrong in ["0", "0d", "91d", "-1", "1.5h", "d", "7 d", "1w", "99999999999", "4294967295d", "7ß"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_are_of_the_step_before_and_of_the_first() {
        let step = |goal, visitors, median| FunnelStep {
            goal_id: GoalId(goal),
            conversions: visitors + 1,
            conversions_without_visitor: 1,
            visitors,
            median_seconds_from_previous: median,
        };
        let steps = [step(4, 300, None), step(2, 100, Some(60)), step(9, 0, None), step(7, 0, None)];
        let names: Vec<String> = ["a", "b", "c", "d"].map(String::from).to_vec();
        let json = serde_json::to_value(steps_json(&steps, &names)).expect("JSON");
        let rates: Vec<_> = json
            .as_array()
            .expect("a list")
            .iter()
            .map(|step| (&step["step_rate"], &step["overall_rate"]))
            .collect();
        assert_eq!(
            rates,
            [
                (&100.0.into(), &100.0.into()),
                (&33.33.into(), &33.33.into()),
                (&0.0.into(), &0.0.into()),
                (&0.0.into(), &0.0.into())
            ]
        );
        assert_eq!(
            json[1],
            serde_json::json!({"goal_id": 2, "name": "b", "conversions": 101, "conversions_without_visitor": 1,
                "visitors": 100, "step_rate": 33.33, "overall_rate": 33.33, "median_seconds_from_previous": 60})
        );
        let none = serde_json::to_value(steps_json(&[step(1, 0, None)], &names)).expect("JSON");
        assert_eq!(none[0]["overall_rate"], 0.0, "nobody at all");
    }
}
