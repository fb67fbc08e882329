//! Getting one cut into ClickHouse exactly once.
//!
//! A plain OK of a cut's first attempt is believed. Anything else makes the cut *doubtful*: it is sent again with the
//! same token until that is answered OK, and then looked at, since ClickHouse may remember a token whose rows it lost.
//! A batch that is not whole is taken out and sent under a new token; rollups that do not add up are made anew from
//! the raw rows. All of it may be stopped anywhere: a cut found on disk at start is doubtful, and looking decides.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    backoff::Backoff,
    cut::Cut,
    folder::{Folder, FolderError},
    ledger,
    warehouse::Warehouse,
};
use crate::clickhouse::{Doubtful, Failure, Insert, Kept};

/// What became of a cut.
#[derive(Debug)]
pub(super) enum Delivered {
    /// It is in ClickHouse, whole, and so is all that is derived from it.
    Whole,
    /// ClickHouse refuses its data; nothing of it is there.
    Refused(Failure),
    /// Told to stop before it was decided.
    Stopped,
}

/// Sends cuts.
pub(super) struct Delivery<'a, W> {
    /// Where to.
    pub(super) warehouse: &'a W,
    /// Where its tokens are kept.
    pub(super) folder: &'a Folder,
    /// Ends the retries.
    pub(super) stop: &'a CancellationToken,
    /// The pauses between them.
    pub(super) backoff: Backoff,
    /// What is surely still there of what was inserted.
    pub(super) kept: Kept,
}

/// What looking at a doubtful cut led to.
enum Look {
    Whole,
    SendAnew,
}

impl<W: Warehouse> Delivery<'_, W> {
    /// Sends the cut until it is whole or refused. `first`: nothing of it was ever sent.
    pub(super) async fn deliver(mut self, cut: &Cut, first: bool) -> Result<Delivered, FolderError> {
        let mut generation = self.folder.generation(cut.batch_id)?;
        let mut doubtful = !first;
        if doubtful {
            counter!("tally_batches_doubtful_total").increment(1);
        }
        loop {
            let failure = match self.send(cut, generation).await {
                Ok(()) if !doubtful => return Ok(Delivered::Whole),
                Ok(()) => match self.look(cut).await {
                    Ok(Look::Whole) => return Ok(Delivered::Whole),
                    Ok(Look::SendAnew) => {
                        generation = self.folder.next_generation(cut.batch_id)?;
                        counter!("tally_batches_resent_total").increment(1);
                        tracing::warn!(
                            batch = cut.batch_id.0,
                            generation,
                            "ClickHouse knew the batch's token but not its rows; sending it under a new one"
                        );
                        continue;
                    }
                    Err(failure) => failure,
                },
                Err(failure @ Failure::Reject { .. }) => {
                    ledger::insert_failed(&failure);
                    if self.retract(cut).await {
                        return Ok(Delivered::Refused(failure));
                    }
                    return Ok(Delivered::Stopped);
                }
                Err(failure) => {
                    ledger::insert_failed(&failure);
                    failure
                }
            };
            if !doubtful {
                doubtful = true;
                counter!("tally_batches_doubtful_total").increment(1);
            }
            tracing::warn!(batch = cut.batch_id.0, %failure, "the batch is doubtful and will be sent again");
            if !self.pause().await {
                return Ok(Delivered::Stopped);
            }
        }
    }

    async fn send(&self, cut: &Cut, generation: u32) -> Result<(), Failure> {
        let comment = format!("{}{:016x}", comment_prefix(cut), rand::random::<u64>());
        for (table, rows) in cut.parts() {
            let token = cut.token(table, generation);
            let start = Instant::now();
            let insert = Insert { table, token: &token, log_comment: &comment, rows };
            let sent = self.warehouse.insert(insert).await;
            histogram!("tally_insert_seconds").record(start.elapsed());
            sent?;
        }
        Ok(())
    }

    /// Looks at a doubtful cut whose token ClickHouse has acknowledged, and mends what is short.
    async fn look(&self, cut: &Cut) -> Result<Look, Failure> {
        if self.is_whole(cut).await? {
            return Ok(Look::Whole);
        }
        // Before anything is changed: nothing of an old attempt may still be writing.
        self.warehouse.stop_attempts(&comment_prefix(cut)).await?;
        let doubtful = self.doubtful(cut);
        let found = self.warehouse.inspect(doubtful).await?;
        if !found.raw_is_whole(doubtful.of) {
            self.warehouse.withdraw(doubtful).await?;
            return Ok(Look::SendAnew);
        }
        let mended = self.warehouse.mend(doubtful, &found).await?;
        counter!("tally_rollups_rebuilt_total").increment(mended);
        if self.is_whole(cut).await? {
            tracing::info!(
                batch = cut.batch_id.0,
                "made anew what ClickHouse had lost of the batch's derived tables"
            );
            return Ok(Look::Whole);
        }
        Err(Failure::Retry { code: None, message: "the batch's derived tables do not add up yet".to_owned() })
    }

    async fn is_whole(&self, cut: &Cut) -> Result<bool, Failure> {
        Ok(self.warehouse.inspect(self.doubtful(cut)).await?.is_whole(&cut.footprint))
    }

    fn doubtful<'c>(&self, cut: &'c Cut) -> Doubtful<'c> {
        Doubtful { batch: cut.batch_id, of: &cut.footprint, kept: self.kept }
    }

    /// Takes out what a refused insert left (a view that refuses leaves the raw rows). `false`: stopped.
    async fn retract(&mut self, cut: &Cut) -> bool {
        loop {
            let gone = match self.warehouse.stop_attempts(&comment_prefix(cut)).await {
                Ok(()) => self.warehouse.inspect(self.doubtful(cut)).await,
                Err(failure) => Err(failure),
            };
            let gone = match gone {
                Ok(found) if found.is_absent() => return true,
                Ok(_) => self.warehouse.withdraw(self.doubtful(cut)).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = gone {
                tracing::warn!(batch = cut.batch_id.0, %failure, "a refused batch can't be taken out yet");
                if !self.pause().await {
                    return false;
                }
            }
        }
    }

    /// `false`: told to stop meanwhile.
    async fn pause(&mut self) -> bool {
        pause(self.stop, self.backoff.next_wait()).await
    }
}

/// Waits, unless told to stop.
pub(super) async fn pause(stop: &CancellationToken, wait: Duration) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(wait) => true,
    }
}

/// The start of the comments of all attempts at a cut, and of no other's.
fn comment_prefix(cut: &Cut) -> String {
    format!("tally-batch-{}-", cut.batch_id.0)
}
