//! The key table: which order keys are known.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Database, Failure};
use crate::core::{BatchId, ConversionId, Currency, DedupScope, GoalId, Money, OrderKey, UnixMillis};

/// A look-up's question: is this key known, not counting what came before its scope reaches back to from `at`?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyQuery {
    /// The goal.
    pub goal_id: GoalId,
    /// The key.
    pub key: OrderKey,
    /// How long the key stays unique.
    pub scope: DedupScope,
    /// When the hit came that asks.
    pub at: UnixMillis,
}

/// The conversion that came first under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its id.
    pub conversion_id: ConversionId,
    /// Its value: another one in a duplicate is a conflict.
    pub value: Money,
    /// Its currency.
    pub currency: Currency,
    /// When it came.
    pub received_at: UnixMillis,
}

/// Keys in one query: as many as fit into one bound parameter (ClickHouse takes 128 KiB in one).
pub const KEYS_PER_QUERY_MAX: usize = 2500;
/// Rows that one query may answer with. A key has one row, or one a day; more than this is not an answer.
const ROWS_MAX: &str = "1000000";

#[derive(clickhouse::Row, serde::Deserialize)]
struct KeyRow {
    goal_id: u32,
    order_key: u128,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    value: i64,
    currency: String,
    received_at: i64,
}

impl Database {
    /// Looks many keys up in one query (at most [`KEYS_PER_QUERY_MAX`]; of more, two queries at a time). The answers
    /// stand in the order of the questions.
    pub async fn lookup_keys(
        &self,
        keys: &[(GoalId, OrderKey, DedupScope)],
        now: UnixMillis,
    ) -> Result<Vec<Option<KnownKey>>, Failure> {
        let queries: Vec<_> =
            keys.iter().map(|&(goal_id, key, scope)| KeyQuery { goal_id, key, scope, at: now }).collect();
        self.lookup_keys_at(&queries).await
    }

    /// The same, each question as of its own time.
    pub async fn lookup_keys_at(&self, queries: &[KeyQuery]) -> Result<Vec<Option<KnownKey>>, Failure> {
        let mut answers = Vec::with_capacity(queries.len());
        for some in queries.chunks(2 * KEYS_PER_QUERY_MAX) {
            let (first, second) = some.split_at(some.len().min(KEYS_PER_QUERY_MAX));
            let (first_rows, second_rows) = tokio::try_join!(self.key_rows(first), self.key_rows(second))?;
            answers.extend(first.iter().map(|query| first_in_scope(&first_rows, query)));
            answers.extend(second.iter().map(|query| first_in_scope(&second_rows, query)));
        }
        Ok(answers)
    }

    async fn key_rows(&self, queries: &[KeyQuery]) -> Result<HashMap<(u32, u128), Vec<KnownKey>>, Failure> {
        if queries.is_empty() {
            return Ok(HashMap::new());
        }
        // Both columns as sets of their own rather than as pairs: the primary key prunes by either, and a key's hash
        // holds its goal, so that the cross product finds nothing more.
        let sql = "SELECT goal_id, order_key, conversion_id, value, currency, received_at FROM order_keys \
                   WHERE goal_id IN {goals: Array(UInt32)} AND order_key IN {keys: Array(UInt128)}";
        let mut goals: Vec<u32> = queries.iter().map(|query| query.goal_id.0).collect();
        goals.sort_unstable();
        goals.dedup();
        let keys: Vec<u128> = queries.iter().map(|query| query.key.0).collect();
        let query = self
            .query(sql)
            .with_setting("max_result_rows", ROWS_MAX)
            .param("goals", goals)
            .param("keys", keys);
        let rows: Vec<KeyRow> = self.read(query.fetch_all()).await?;
        let mut found: HashMap<(u32, u128), Vec<KnownKey>> = HashMap::with_capacity(rows.len());
        for row in rows {
            let known = KnownKey {
                conversion_id: ConversionId(row.conversion_id),
                value: money(row.value)?,
                currency: currency(&row.currency)?,
                received_at: UnixMillis(row.received_at),
            };
            found.entry((row.goal_id, row.order_key)).or_default().push(known);
        }
        Ok(found)
    }

    /// Hands the order keys of every batch after `after` to `each`, as they stream in: in constant memory. Returns how
    /// many there were.
    pub async fn scan_keys_after(
        &self,
        after: BatchId,
        mut each: impl FnMut(OrderKey),
    ) -> Result<u64, Failure> {
        #[derive(clickhouse::Row, serde::Deserialize)]
        struct Key {
            order_key: u128,
        }
        let query = if after == BatchId(0) {
            self.long_query("SELECT order_key FROM order_keys")
        } else {
            // By the raw tables' index on batches, which finds the few parts that are meant.
            let sql = "SELECT order_key FROM conversions WHERE batch_id > {after: UInt64} AND order_key != 0 \
                       UNION ALL SELECT click_key FROM clicks WHERE batch_id > {after: UInt64} AND click_key != 0 \
                       UNION ALL SELECT adjustment_key FROM adjustments \
                       WHERE batch_id > {after: UInt64} AND adjustment_key != 0";
            self.long_query(sql).param("after", after.0)
        };
        let mut rows = query.fetch::<Key>()?;
        let mut count = 0;
        // The time-out is per row that is waited for: a long scan that moves is healthy.
        while let Some(row) = self.read(rows.next()).await? {
            each(OrderKey(row.order_key));
            count += 1;
        }
        Ok(count)
    }

    /// How many order keys there are: how large a filter to make.
    pub async fn count_order_keys(&self) -> Result<u64, Failure> {
        self.read(self.query("SELECT count() FROM order_keys").fetch_one()).await
    }
}

/// The oldest row within the scope: the conversion that counted.
fn first_in_scope(rows: &HashMap<(u32, u128), Vec<KnownKey>>, query: &KeyQuery) -> Option<KnownKey> {
    let since = query.scope.horizon_millis().map_or(UnixMillis(i64::MIN), |reach| query.at.plus(-reach));
    rows.get(&(query.goal_id.0, query.key.0))?
        .iter()
        .filter(|known| known.received_at > since)
        .min_by_key(|known| (known.received_at, known.conversion_id))
        .copied()
}

pub(super) fn money(micros: i64) -> Result<Money, Failure> {
    u64::try_from(micros).ok().and_then(Money::from_micros).ok_or_else(|| Failure::unreadable("value"))
}

pub(super) fn currency(code: &str) -> Result<Currency, Failure> {
    Currency::from_stored(code).map_err(|_| Failure::unreadable("currency"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_counts_back_from_the_hit_that_asks() {
        const DAY: i64 = 24 * 3600 * 1000;
        let known = |at| KnownKey {
            conversion_id: ConversionId(Uuid::from_u128(1)),
            value: Money::ZERO,
            currency: Currency::USD,
            received_at: UnixMillis(at),
        };
        let rows = HashMap::from([((1, 7), vec![known(3 * DAY), known(0)])]);
        let ask = |scope, at| {
            let query = KeyQuery { goal_id: GoalId(1), key: OrderKey(7), scope, at: UnixMillis(at) };
            first_in_scope(&rows, &query).map(|known| known.received_at.0)
        };
        assert_eq!(ask(DedupScope::Forever, 9 * DAY), Some(0));
        assert_eq!(ask(DedupScope::Day, DAY - 1), Some(0));
        assert_eq!(ask(DedupScope::Day, DAY), Some(3 * DAY));
        assert_eq!(ask(DedupScope::Day, 4 * DAY), None);
    }
}
