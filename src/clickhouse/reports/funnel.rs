//! Funnels: one pass over the conversions of each goal, joined step by step. What is counted says [`crate::core::FunnelQuery`]'s module.
//!
//! A step's place in time is one number, its *mark*: milliseconds and, below them, the number of the step, so that of two
//! conversions in one millisecond the order of the goals decides. `ASOF JOIN` finds the next mark of the same key.

use std::fmt::Write as _;

use crate::{
    clickhouse::{Database, Failure},
    core::{FunnelQuery, FunnelStep, GoalId},
};

/// Marks of one millisecond: more than there are steps.
const MARKS: i64 = 16;
/// No mark: later than all.
const NEVER: &str = "toInt64(9223372036854775807)";
/// A visitor's key is in use for that long.
const EPOCH_MILLIS: i64 = 30 * 86_400_000;
/// One funnel's share of the server's memory: joins are made in memory. Two of them leave a quarter of an embedded
/// engine's to inserts.
const MEMORY_BYTES_MAX: &str = "805306368";
/// From there on ways are sorted on disk.
const SORT_BYTES_MAX: &str = "268435456";

#[derive(clickhouse::Row, serde::Deserialize)]
struct CountRow {
    goal_id: u32,
    conversions: u64,
    unknown: u64,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct StepsRow {
    visitors: Vec<u64>,
    /// From the first step to the second, and so on; NaN: nobody.
    medians: Vec<f64>,
}

impl Database {
    /// How visitors went through the goals, step by step.
    pub async fn funnel(&self, query: &FunnelQuery) -> Result<Vec<FunnelStep>, Failure> {
        let counts = self.read(self.bound_funnel(&counts_sql(query), query).fetch_all::<CountRow>()).await?;
        let steps = self.read(self.bound_funnel(&steps_sql(query), query).fetch_one::<StepsRow>()).await?;
        let step = |(n, goal_id): (usize, &GoalId)| {
            let counted = counts.iter().find(|row| row.goal_id == goal_id.0);
            let median =
                n.checked_sub(1).and_then(|n| steps.medians.get(n)).filter(|median| !median.is_nan());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds, rounded")]
            let whole = |seconds: f64| seconds.round().max(0.0) as u64;
            FunnelStep {
                goal_id: *goal_id,
                conversions: counted.map_or(0, |row| row.conversions),
                conversions_without_visitor: counted.map_or(0, |row| row.unknown),
                visitors: steps.visitors.get(n).copied().unwrap_or(0),
                median_seconds_from_previous: median.copied().map(whole),
            }
        };
        Ok(query.goals.iter().enumerate().map(step).collect())
    }

    fn bound_funnel(&self, sql: &str, query: &FunnelQuery) -> clickhouse::query::Query {
        let until = query.to.plus(i64::from(query.window_seconds) * 1000);
        let goals: Vec<u32> = query.goals.iter().map(|goal| goal.0).collect();
        let bound = self
            .report_query(sql)
            .with_setting("max_memory_usage", MEMORY_BYTES_MAX)
            .with_setting("max_bytes_before_external_sort", SORT_BYTES_MAX)
            .with_setting("join_algorithm", "hash")
            .with_setting("join_use_nulls", "0")
            .param("account", query.account_id.0)
            .param("goals", &goals)
            .param("link", query.link_id.map_or(0, |link| link.0))
            .param("from", query.from.0)
            .param("to", query.to.0)
            .param("until", until.0)
            .param("window", i64::from(query.window_seconds) * 1000 * MARKS)
            .param("epoch", query.from.0.div_euclid(EPOCH_MILLIS));
        goals.iter().enumerate().fold(bound, |bound, (n, goal)| bound.param(&format!("g{}", n + 1), *goal))
    }
}

/// Conversions of the period by goal.
fn counts_sql(query: &FunnelQuery) -> String {
    format!(
        "SELECT goal_id, count() AS conversions, countIf(click_id = 0 AND empty(visitor_keys)) AS unknown \
         FROM conversions WHERE {} GROUP BY goal_id",
        filter(query, "goal_id IN {goals: Array(UInt32)}", "to")
    )
}

/// The whole funnel as one row: of each visitor the way that gets furthest, of several the earliest. Sorting for it takes
/// half the time of an aggregate function over tuples, and may go to disk.
fn steps_sql(query: &FunnelQuery) -> String {
    let steps = 1..=query.goals.len();
    let marks: Vec<String> = steps.clone().map(|step| format!("m{step}")).collect();
    let reached: Vec<String> = steps.clone().map(|step| format!("(m{step} != {NEVER})")).collect();
    let visitors: Vec<String> = reached.iter().map(|reached| format!("countIf{reached}")).collect();
    let medians: Vec<String> = steps
        .skip(1)
        .map(|step| {
            let seconds = format!("(intDiv(m{step}, {MARKS}) - intDiv(m{}, {MARKS})) / 1000", step - 1);
            format!("quantileExactInclusiveIf(0.5)({seconds}, m{step} != {NEVER})")
        })
        .collect();
    format!(
        "SELECT [{}] AS visitors, [{}] AS medians \
         FROM (SELECT * FROM ({}) ORDER BY visitor, {} DESC, {} LIMIT 1 BY visitor)",
        visitors.join(", "),
        medians.join(", "),
        ways_sql(query),
        reached.join(" + "),
        marks.join(", ")
    )
}

/// Every way with its marks; `NEVER` from the step on that it does not reach.
fn ways_sql(query: &FunnelQuery) -> String {
    let entered = keyed(query, "goal_id = {g1: UInt32}", "to");
    let mut sql = format!(
        "SELECT visitor, key, at * {MARKS} + 1 AS m1 \
         FROM (SELECT at, keys, keys[least(toUInt64(1 + (intDiv(at, {EPOCH_MILLIS}) - {{epoch: Int64}}) % 2), length(keys))] \
                 AS visitor FROM ({entered})) ARRAY JOIN keys AS key"
    );
    for step in 2..=query.goals.len() {
        let before: String = (1..step).fold(String::new(), |mut names, step| {
            let _ = write!(names, "way.m{step} AS m{step}, ");
            names
        });
        // Strict: whichever later goal comes first.
        let (goals, valid) = if query.strict {
            let later: Vec<String> =
                (step..=query.goals.len()).map(|n| format!("{{g{n}: UInt32}}")).collect();
            (format!("goal_id IN ({})", later.join(", ")), format!("AND next.mark % {MARKS} = {step}"))
        } else {
            (format!("goal_id = {{g{step}: UInt32}}"), String::new())
        };
        let marks = format!(
            "SELECT key, at * {MARKS} + indexOf({{goals: Array(UInt32)}}, goal_id) AS mark FROM ({}) \
             ARRAY JOIN keys AS key",
            keyed(query, &goals, "until")
        );
        sql = format!(
            "SELECT way.visitor AS visitor, way.key AS key, {before}\
                 if(next.mark != 0 AND next.mark <= way.m1 + {{window: Int64}} + {MARKS} - 2 {valid}, next.mark, {NEVER}) \
                     AS m{step} \
             FROM ({sql}) AS way ASOF LEFT JOIN ({marks}) AS next ON way.key = next.key AND way.m{} < next.mark",
            step - 1
        );
    }
    sql
}

/// Conversions with the keys of their visitors; those without any are left out.
fn keyed(query: &FunnelQuery, goals: &str, until: &str) -> String {
    let filter = filter(query, goals, until);
    format!(
        "SELECT goal_id, toUnixTimestamp64Milli(converted_at) AS at, \
             multiIf(c.click_id = 0, visitor_keys, named.visitor != 0, [named.visitor], [sipHash64(c.click_id)]) AS keys \
         FROM (SELECT goal_id, converted_at, click_id, visitor_keys FROM conversions \
             WHERE {filter} AND (click_id != 0 OR notEmpty(visitor_keys))) AS c \
         LEFT ANY JOIN (SELECT click_id, clicks.visitor_key AS visitor FROM clicks \
             WHERE account_id = {{account: UInt32}} AND traffic = 'human' AND NOT private_address AND visitor_key != 0 \
                 AND click_id IN (SELECT click_id FROM conversions WHERE {filter} AND click_id != 0)) AS named \
         ON named.click_id = c.click_id"
    )
}

/// Conversions of these goals from the period's start to its end, or until the last way may have ended; of a link: those
/// that it earned by the run in force.
fn filter(query: &FunnelQuery, goals: &str, until: &str) -> String {
    let time = format!(
        "converted_at >= fromUnixTimestamp64Milli({{from: Int64}}, 'UTC') \
         AND converted_at < fromUnixTimestamp64Milli({{{until}: Int64}}, 'UTC')"
    );
    let link = match query.link_id {
        None => String::new(),
        Some(_) => format!(
            "AND conversion_id IN (SELECT conversion_id FROM attributions_current \
                 WHERE account_id = {{account: UInt32}} AND link_id = {{link: UInt32}} AND link_id != 0 AND {time})"
        ),
    };
    format!("account_id = {{account: UInt32}} AND {goals} AND {time} {link}")
}
