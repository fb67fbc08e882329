//! What a run changes against the decisions in force, by link and goal.

use super::Run;
use crate::{
    clickhouse::{Database, Failure, keys::currency},
    core::{AccountId, Currency, GoalId, LinkId, RunId},
};

/// Links and goals that a report lists; more is refused by the server rather than truncated.
const ROWS_MAX: &str = "1000000";

/// Attributed conversions of a link and a goal, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Whose they are.
    pub account_id: AccountId,
    /// The link; none: clicks from elsewhere that name none.
    pub link_id: Option<LinkId>,
    /// The goal.
    pub goal_id: GoalId,
    /// The currency.
    pub currency: Currency,
    /// Conversions by the decisions in force.
    pub conversions_before: u64,
    /// Conversions by the run.
    pub conversions_after: u64,
    /// Their value by the decisions in force, in millionths.
    pub value_before: i128,
    /// Their value by the run, in millionths.
    pub value_after: i128,
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct DifferenceRow {
    account_id: u32,
    link_id: u32,
    goal_id: u32,
    currency: String,
    conversions_before: u64,
    conversions_after: u64,
    value_before: i128,
    value_after: i128,
}

/// The condition of `attributed_hourly_current`, were that run in force.
fn in_force(run: &str) -> String {
    let since = format!("(SELECT max(since) FROM attribution_runs FINAL WHERE run_id = {{{run}: UInt32}})");
    format!(
        "(run_id = {{{run}: UInt32}} OR (run_id = 0 AND (hour < {since} OR attribution_run >= {{{run}: UInt32}})))"
    )
}

impl Database {
    /// Conversions of a run that were accepted with a shorter window than the run's and name no click.
    pub async fn conversions_with_narrower_window(&self, run: &Run) -> Result<u64, Failure> {
        let sql = "SELECT count() FROM conversions \
                   WHERE converted_at >= fromUnixTimestamp64Milli({since: Int64}, 'UTC') \
                       AND attribution_run < {run: UInt32} AND window_seconds < {window: UInt32} AND click_id = 0 \
                       AND notEmpty(visitor_keys)";
        let query = self
            .long_query(sql)
            .param("since", run.since.0)
            .param("run", run.id.0)
            .param("window", run.window_seconds);
        self.long(query.fetch_one()).await
    }

    /// What would change if `after` were in force in place of `before` (0: the decisions as conversions came in). Links
    /// and goals of which both say the same are left out.
    pub async fn run_difference(&self, before: RunId, after: RunId) -> Result<Vec<Difference>, Failure> {
        let (old, new) = (in_force("before"), in_force("after"));
        let sql = format!(
            "SELECT account_id, link_id, goal_id, toString(currency) AS currency, \
                 sumIf(n, old) AS conversions_before, sumIf(n, new) AS conversions_after, \
                 sumIf(v, old) AS value_before, sumIf(v, new) AS value_after \
             FROM (SELECT account_id, link_id, goal_id, currency, conversions AS n, value AS v, \
                     {old} AS old, {new} AS new \
                 FROM attributed_hourly WHERE run_id IN (0, {{before: UInt32}}, {{after: UInt32}})) \
             GROUP BY account_id, link_id, goal_id, currency \
             HAVING conversions_before != conversions_after OR value_before != value_after \
             ORDER BY account_id, link_id, goal_id, currency"
        );
        let query = self
            .long_query(&sql)
            .with_setting("max_result_rows", ROWS_MAX)
            .param("before", before.0)
            .param("after", after.0);
        let rows: Vec<DifferenceRow> = self.long(query.fetch_all()).await?;
        rows.into_iter()
            .map(|row| {
                Ok(Difference {
                    account_id: AccountId(row.account_id),
                    link_id: (row.link_id != 0).then_some(LinkId(row.link_id)),
                    goal_id: GoalId(row.goal_id),
                    currency: currency(&row.currency)?,
                    conversions_before: row.conversions_before,
                    conversions_after: row.conversions_after,
                    value_before: row.value_before,
                    value_after: row.value_after,
                })
            })
            .collect()
    }
}
