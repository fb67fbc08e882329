//! What a batch's records become: which of them count, what earned the conversions, what adjustments change.
//!
//! The only part of the shipper that asks ClickHouse questions before a batch is cut. It waits for the answers for as
//! long as it takes: what can't be decided yet stays in the log.

mod adjustments;
mod attribution;
mod click_index;
mod duplicates;
mod labels;
mod look_ahead;
mod past;

use std::collections::{HashMap, HashSet};

use self::{attribution::Attributor, duplicates::Fresh, labels::Labels, past::Past};
use super::{ShipError, cut::Content, deliver::pause, warehouse::Warehouse, worker::Surroundings};
use crate::{
    clickhouse::Failure,
    core::{AccountId, BatchId, ClickId, CountedClick, Record},
    wal::Position,
};

/// Decides batch after batch. What it remembers is only a copy of what is on disk or in ClickHouse.
#[derive(Debug, Default)]
pub(super) struct Decider {
    labels: Labels,
    attributor: Attributor,
    past: Past,
}

/// Records that are decided together.
pub(super) struct Undecided {
    pub(super) records: Vec<Record>,
    /// The log is settled up to here,
    pub(super) from: Position,
    /// and the records stand before this.
    pub(super) to: Position,
    /// Every key may have come again since it was accepted (dead letters), not only that of an unverified record.
    pub(super) all: bool,
}

impl Decider {
    /// Does something of what makes later decisions cheap, where there is something: `true`. Batches up to `settled` are.
    pub(super) async fn tend<W: Warehouse>(&mut self, around: &Surroundings<W>, settled: BatchId) -> bool {
        self.past.tend(around, settled).await
    }

    /// A batch was settled, and these clicks are in ClickHouse.
    pub(super) fn settled<W>(&mut self, around: &Surroundings<W>, batch: BatchId, clicks: &[CountedClick]) {
        self.past.settled(around, batch, clicks);
    }

    /// What becomes of the records of one batch. `None`: told to stop before it was decided.
    pub(super) async fn decide<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        undecided: Undecided,
    ) -> Result<Option<Content>, ShipError> {
        let Undecided { records, from, to, all } = undecided;
        let questions = duplicates::questions(&records, all);
        let asking = "late duplicates can't be told yet";
        let Some(known) = ask(around, asking, async || around.warehouse.lookup(&questions).await).await
        else {
            return Ok(None);
        };
        let numbers: Vec<_> = duplicates::numbers(&records, all).collect();
        let Some(taken) = taken(around, &numbers).await else { return Ok(None) };
        let Fresh { clicks, conversions, adjustments, mut late, refusals } =
            duplicates::divide(records, all, &known, &taken);
        let adjusted = adjustments::questions(&adjustments);
        let asking = "what is adjusted can't be looked up yet";
        let adjusted = if adjusted.is_empty() {
            HashMap::new()
        } else {
            match ask(around, asking, async || around.warehouse.adjusted(&adjusted).await).await {
                Some(adjusted) => adjusted,
                None => return Ok(None),
            }
        };
        let Some(clicks) = self.labels.label(around, clicks).await else { return Ok(None) };
        let run = around.folder.attribution_run()?;
        self.attributor.take(&clicks, from, to);
        let (labels, past) = (&mut self.labels, &mut self.past);
        let attributed = self.attributor.attribute(around, labels, past, conversions, to, run).await?;
        let Some(conversions) = attributed else { return Ok(None) };
        let content = Content {
            clicks,
            conversions,
            adjustments: adjustments::count(adjustments, adjusted, run, &mut late),
            late,
            refusals,
        };
        Ok(Some(content))
    }
}

/// Which of the numbers a click in ClickHouse has. `None`: told to stop.
async fn taken<W: Warehouse>(
    around: &Surroundings<W>,
    numbers: &[(AccountId, ClickId)],
) -> Option<HashSet<(AccountId, ClickId)>> {
    if numbers.is_empty() {
        return Some(HashSet::new());
    }
    let asking = "whether clicks were issued their numbers can't be told yet";
    let found = ask(around, asking, async || around.warehouse.clicks_named(numbers).await).await?;
    Some(found.into_iter().map(|click| (click.account_id, click.click_id)).collect())
}

/// Asks until there is an answer. `None`: told to stop.
async fn ask<W, T>(
    around: &Surroundings<W>,
    what_waits: &str,
    question: impl AsyncFn() -> Result<T, Failure>,
) -> Option<T> {
    let mut backoff = around.config.backoff();
    loop {
        match question().await {
            Ok(answer) => return Some(answer),
            Err(failure) => {
                tracing::warn!(%failure, "{what_waits}");
                if !pause(&around.stop, backoff.next_wait()).await {
                    return None;
                }
            }
        }
    }
}
