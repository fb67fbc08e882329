//! A run's decisions, in SQL: the same rules as those of `core`'s pure function, which a test holds it to.

use super::Chunk;
use crate::{
    clickhouse::{Database, Failure},
    core::{Model, RunId},
};

/// What a run decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The run.
    pub run: RunId,
    /// How old a click may be, in seconds, whatever the goal.
    pub window_seconds: u32,
    /// Which of several clicks wins.
    pub model: Model,
    /// How long after a conversion a click may be accepted and still count, in milliseconds.
    pub settle_millis: i64,
}

/// The conversions of the chunk. The columns have names of their own: an alias that is also a column of the table that
/// is filtered would stand for itself there.
const ASKED: &str = "SELECT account_id AS c_account, goal_id AS c_goal, conversion_id AS c_id, \
        converted_at AS c_converted, received_at AS c_received, value AS c_value, currency AS c_currency, \
        visitor_key AS c_visitor, click_id AS c_click, visitor_keys AS c_keys \
    FROM conversions \
    WHERE account_id BETWEEN {account_from: UInt32} AND {account_to: UInt32} \
        AND converted_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
        AND converted_at < fromUnixTimestamp64Milli({to: Int64}, 'UTC') \
        AND attribution_run < {run: UInt32} AND cityHash64(conversion_id) % {parts: UInt64} = {part: UInt64}";

/// What a click hands on.
const CLICK: &str = "account_id AS k_account, click_id AS k_id, clicked_at AS k_clicked, received_at AS k_received, \
    tuple(click_id, link_id, clicked_at, toString(utm_source), toString(utm_medium), toString(utm_campaign), \
        toString(utm_term), toString(utm_content), toString(variant), labelled) AS k_click";

/// Clicks after the conversion, too old or accepted too late are none. Times count by their whole seconds.
const ELIGIBLE: &str = "toInt64(toUnixTimestamp(c_converted)) - toInt64(toUnixTimestamp(k_clicked)) \
        BETWEEN 0 AND {window: UInt32} \
    AND toUnixTimestamp64Milli(k_received) <= toUnixTimestamp64Milli(c_received) + {settle: Int64}";

impl Database {
    /// Decides a chunk of history anew. To be done once: what was inserted by an attempt that failed stays.
    pub async fn decide_chunk(&self, rules: &Rules, chunk: &Chunk) -> Result<(), Failure> {
        for sql in [named_sql(rules.model), visited_sql(rules.model)] {
            let query = self
                .writing(&sql)
                .param("run", rules.run.0)
                .param("window", rules.window_seconds)
                .param("settle", rules.settle_millis)
                .param("account_from", chunk.account_from)
                .param("account_to", chunk.account_to)
                .param("from", chunk.from.0)
                .param("to", chunk.to.0)
                .param("parts", chunk.parts)
                .param("part", chunk.part);
            self.long(query.execute()).await?;
        }
        Ok(())
    }

    /// How many conversions a run attributed, and how many of them its statistics count: those that count otherwise, if
    /// any do.
    pub async fn count_run(&self, run: RunId) -> Result<(u64, u64), Failure> {
        let count = async |what: &str| {
            let sql = format!("SELECT {what} WHERE run_id = {{run: UInt32}}");
            self.long(self.long_query(&sql).param("run", run.0).fetch_one::<u64>()).await
        };
        let rows = count("count() FROM attributions").await?;
        let mut counted = rows;
        for table in ["attributed_hourly", "attributed_by_click_hourly"] {
            let hours = count(&format!("sum(conversions) FROM {table}")).await?;
            counted = if hours == rows { counted } else { hours };
        }
        Ok((rows, counted))
    }
}

/// Conversions that name a click: that one, or none.
fn named_sql(model: Model) -> String {
    let candidates = format!(
        "SELECT * FROM ({ASKED} AND click_id != 0) AS asked \
         INNER JOIN (SELECT {CLICK} FROM clicks \
             WHERE account_id BETWEEN {{account_from: UInt32}} AND {{account_to: UInt32}} \
                 AND click_id IN (SELECT c_click FROM ({ASKED} AND click_id != 0))) AS found \
         ON c_account = k_account AND c_click = k_id"
    );
    insert_sql("click_id", &candidates, model)
}

/// Conversions that name none: the visitor's clicks, under any of the visitor's keys.
fn visited_sql(model: Model) -> String {
    let asked = format!(
        "SELECT * EXCEPT (c_keys), arrayJoin(c_keys) AS c_key FROM ({ASKED} AND click_id = 0 AND NOT private_address)"
    );
    let candidates = format!(
        "SELECT * FROM ({asked}) AS asked \
         INNER JOIN (SELECT visitor_key AS k_visitor, {CLICK} FROM clicks_by_visitor \
             WHERE account_id BETWEEN {{account_from: UInt32}} AND {{account_to: UInt32}} \
                 AND visitor_key IN (SELECT c_key FROM ({asked}))) AS found \
         ON c_account = k_account AND c_key = k_visitor"
    );
    insert_sql("ip_user_agent", &candidates, model)
}

/// Of each conversion's candidates the winner. A tie in time goes by the click's number.
fn insert_sql(method: &str, candidates: &str, model: Model) -> String {
    let winner = match model {
        Model::Last => "argMax",
        Model::First => "argMin",
    };
    format!(
        "INSERT INTO attributions (run_id, attribution_run, account_id, goal_id, conversion_id, converted_at, \
             received_at, value, currency, visitor_key, candidates, batch_id, method, click_id, link_id, clicked_at, \
             seconds_to_convert, utm_source, utm_medium, utm_campaign, utm_term, utm_content, variant, labelled) \
         SELECT {{run: UInt32}}, 0, c_account, c_goal, c_id, c_converted, c_received, c_value, c_currency, c_visitor, \
             toUInt16(least(in_window, 65535)), 0, '{method}', won.1, won.2, won.3, \
             toUInt32(toInt64(toUnixTimestamp(c_converted)) - toInt64(toUnixTimestamp(won.3))), \
             won.4, won.5, won.6, won.7, won.8, won.9, won.10 \
         FROM (SELECT c_account, c_goal, c_id, c_converted, c_received, c_value, c_currency, c_visitor, \
                 count() AS in_window, {winner}(k_click, (k_clicked, k_id)) AS won \
             FROM ({candidates}) WHERE {ELIGIBLE} \
             GROUP BY c_account, c_goal, c_id, c_converted, c_received, c_value, c_currency, c_visitor)"
    )
}
