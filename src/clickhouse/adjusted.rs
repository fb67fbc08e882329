//! What the shipper must know of the conversions that a batch adjusts.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    Database, Failure,
    keys::{currency, money},
    reports::{ADJUSTMENT_COLUMNS, AdjustmentRow, EARNED_COLUMNS, EarnedRow},
};
use crate::core::{AccountId, Adjustment, ConversionId, Currency, Earned, GoalId, Money, UnixMillis};

/// A conversion as an adjustment meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjusted {
    /// Its goal.
    pub goal_id: GoalId,
    /// Its gross value.
    pub value: Money,
    /// The value's currency.
    pub currency: Currency,
    /// When it happened.
    pub converted_at: UnixMillis,
    /// What it owed to a click when it came.
    pub earned: Option<Earned>,
    /// Its adjustments so far, in any order.
    pub adjustments: Vec<Adjustment>,
}

/// Conversions in one query: as many ids as fit into one bound parameter (ClickHouse takes 128 KiB in one).
const IDS_PER_QUERY_MAX: usize = 2500;

#[derive(clickhouse::Row, serde::Deserialize)]
struct ConversionRow {
    account_id: u32,
    #[serde(with = "clickhouse::serde::uuid")]
    conversion_id: Uuid,
    goal_id: u32,
    value: i64,
    currency: String,
    converted_at: i64,
}

/// The time inside an id is that at which the conversion was received: it tells the partitions that need not be read.
const WHICH: &str = "account_id IN {accounts: Array(UInt32)} AND conversion_id IN {ids: Array(UUID)}";
const WHEN: &str = "received_at >= fromUnixTimestamp64Milli({from: Int64}, 'UTC') \
    AND received_at <= fromUnixTimestamp64Milli({to: Int64}, 'UTC')";

impl Database {
    /// Looks conversions up, with what they owe and what was learned about them; those that are not there are left out.
    pub async fn adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
    ) -> Result<HashMap<(AccountId, ConversionId), Adjusted>, Failure> {
        let mut found = HashMap::with_capacity(conversions.len());
        for some in conversions.chunks(IDS_PER_QUERY_MAX) {
            self.look_up_adjusted(some, &mut found).await?;
        }
        Ok(found)
    }

    async fn look_up_adjusted(
        &self,
        conversions: &[(AccountId, ConversionId)],
        found: &mut HashMap<(AccountId, ConversionId), Adjusted>,
    ) -> Result<(), Failure> {
        let mut accounts: Vec<u32> = conversions.iter().map(|(account, _)| account.0).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let ids: Vec<String> = conversions.iter().map(|(_, id)| id.to_string()).collect();
        let times = conversions.iter().map(|(_, id)| id.made_at());
        let (from, to) = (times.clone().min().unwrap_or_default(), times.max().unwrap_or_default());
        let bound = |sql: &str| {
            self.query(sql)
                .param("accounts", &accounts)
                .param("ids", &ids)
                .param("from", from.0)
                .param("to", to.0)
        };
        let rows = format!(
            "SELECT account_id, conversion_id, goal_id, value, toString(currency) AS currency, converted_at \
             FROM conversions WHERE {WHICH} AND {WHEN}"
        );
        let earned =
            format!("SELECT {EARNED_COLUMNS} FROM attributions WHERE run_id = 0 AND {WHICH} AND {WHEN}");
        let adjustments = format!("SELECT {ADJUSTMENT_COLUMNS} FROM adjustments WHERE {WHICH}");
        let (rows, earned, adjustments) = tokio::try_join!(
            self.read(bound(&rows).fetch_all::<ConversionRow>()),
            self.read(bound(&earned).fetch_all::<EarnedRow>()),
            self.read(bound(&adjustments).fetch_all::<AdjustmentRow>()),
        )?;
        let mut owed = HashMap::with_capacity(earned.len());
        for row in earned {
            owed.insert(row.conversion_id, row.read()?);
        }
        for row in rows {
            let adjusted = Adjusted {
                goal_id: GoalId(row.goal_id),
                value: money(row.value)?,
                currency: currency(&row.currency)?,
                converted_at: UnixMillis(row.converted_at),
                earned: owed.remove(&row.conversion_id),
                adjustments: Vec::new(),
            };
            found.insert((AccountId(row.account_id), ConversionId(row.conversion_id)), adjusted);
        }
        for row in adjustments {
            let adjustment = row.read()?;
            if let Some(adjusted) = found.get_mut(&(adjustment.account_id, adjustment.conversion_id)) {
                adjusted.adjustments.push(adjustment);
            }
        }
        Ok(())
    }
}
