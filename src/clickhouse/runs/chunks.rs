//! History in pieces that fit into memory: whole accounts together while they are small, days of those that are large,
//! parts of days that are larger still.

use crate::{
    clickhouse::{Database, Failure},
    core::{RunId, UnixMillis},
};

/// Conversions that are decided in one statement: their clicks are looked up in memory.
const CONVERSIONS_MAX: u64 = 50_000;
const DAY_MILLIS: i64 = 86_400_000;

/// A piece of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// From this account
    pub(super) account_from: u32,
    /// to this one.
    pub(super) account_to: u32,
    /// Conversions from then on
    pub(super) from: UnixMillis,
    /// and before then.
    pub(super) to: UnixMillis,
    /// Of as many parts, by a hash of the conversion,
    pub(super) parts: u64,
    /// this one.
    pub(super) part: u64,
    /// How many conversions, about.
    pub conversions: u64,
}

/// Conversions of an account on a day (UTC).
#[derive(Clone, Copy, Debug, clickhouse::Row, serde::Deserialize)]
struct DayRow {
    account_id: u32,
    day: u32,
    conversions: u64,
}

impl Database {
    /// The pieces of the history that a run decides: conversions from `since` on that came before it.
    pub async fn run_chunks(&self, run: RunId, since: UnixMillis) -> Result<Vec<Chunk>, Failure> {
        let sql = "SELECT account_id, toUInt32(toRelativeDayNum(converted_at)) AS day, count() AS conversions \
                   FROM conversions WHERE converted_at >= fromUnixTimestamp64Milli({since: Int64}, 'UTC') \
                       AND attribution_run < {run: UInt32} \
                   GROUP BY account_id, day ORDER BY account_id, day";
        let query = self.long_query(sql).param("since", since.0).param("run", run.0);
        let days: Vec<DayRow> = self.long(query.fetch_all()).await?;
        Ok(chunks(&days, CONVERSIONS_MAX))
    }
}

/// `days` are sorted by account and day.
fn chunks(days: &[DayRow], max: u64) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for account in days.chunk_by(|a, b| a.account_id == b.account_id) {
        let conversions: u64 = account.iter().map(|day| day.conversions).sum();
        let id = account.first().map_or(0, |day| day.account_id);
        let whole = Chunk {
            account_from: id,
            account_to: id,
            from: UnixMillis(0),
            to: UnixMillis(i64::from(u32::MAX) * 1000),
            parts: 1,
            part: 0,
            conversions,
        };
        if conversions > max {
            chunks.extend(of_days(account, whole, max));
            continue;
        }
        match chunks.last_mut() {
            Some(last) if is_of_accounts(last, &whole) && last.conversions + conversions <= max => {
                last.account_to = id;
                last.conversions += conversions;
            }
            _ => chunks.push(whole),
        }
    }
    chunks
}

/// Whether a chunk holds whole accounts, all there is of them.
fn is_of_accounts(chunk: &Chunk, whole: &Chunk) -> bool {
    (chunk.from, chunk.to, chunk.parts) == (whole.from, whole.to, whole.parts)
}

/// Runs of days of one account, and parts of days.
fn of_days(days: &[DayRow], whole: Chunk, max: u64) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for day in days {
        let from = UnixMillis(i64::from(day.day) * DAY_MILLIS);
        let one = Chunk { from, to: from.plus(DAY_MILLIS), conversions: day.conversions, ..whole };
        if day.conversions > max {
            let parts = day.conversions.div_ceil(max);
            let conversions = day.conversions / parts;
            chunks.extend((0..parts).map(|part| Chunk { parts, part, conversions, ..one }));
            continue;
        }
        match chunks.last_mut() {
            Some(last) if last.parts == 1 && last.conversions + day.conversions <= max => {
                last.to = one.to;
                last.conversions += day.conversions;
            }
            _ => chunks.push(one),
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_accounts_go_together_and_large_days_apart() {
        let day = |account_id, day, conversions| DayRow { account_id, day, conversions };
        let days = [
            day(1, 5, 3),
            day(2, 5, 3),
            day(2, 6, 3),
            day(7, 5, 9),
            day(7, 6, 2),
            day(7, 9, 25),
            day(8, 1, 1),
        ];
        let chunks = chunks(&days, 10);
        let shown: Vec<_> = chunks
            .iter()
            .map(|c| (c.account_from, c.account_to, c.from.0 / DAY_MILLIS, c.part, c.parts, c.conversions))
            .collect();
        assert_eq!(
            shown,
            [
                (1, 2, 0, 0, 1, 9),
                (7, 7, 5, 0, 1, 9),
                (7, 7, 6, 0, 1, 2),
                (7, 7, 9, 0, 3, 8),
                (7, 7, 9, 1, 3, 8),
                (7, 7, 9, 2, 3, 8),
                (8, 8, 0, 0, 1, 1),
            ]
        );
    }

    proptest! {
        /// Every conversion is in exactly one chunk.
        #[test]
        fn history_is_divided(
            days in proptest::collection::btree_map((1u32..6, 20_000u32..20_010), 1u64..40, 0..30), max in 5u64..60,
        ) {
            let days: Vec<_> = days
                .into_iter()
                .map(|((account_id, day), conversions)| DayRow { account_id, day, conversions })
                .collect();
            let chunks = chunks(&days, max);
            for day in &days {
                let at = UnixMillis(i64::from(day.day) * DAY_MILLIS + 5);
                let holding: Vec<_> = chunks
                    .iter()
                    .filter(|c| (c.account_from..=c.account_to).contains(&day.account_id) && c.from <= at && at < c.to)
                    .collect();
                let parts = holding.first().map(|chunk| chunk.parts);
                prop_assert_eq!(Some(holding.len() as u64), parts);
                prop_assert!(holding.iter().enumerate().all(|(n, chunk)| chunk.part == n as u64));
            }
            prop_assert!(chunks.iter().all(|chunk| chunk.conversions <= max));
        }
    }
}
