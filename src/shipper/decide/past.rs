//! The clicks that are in ClickHouse, found in files rather than by a query where that is possible.
//!
//! The files are a copy ([`crate::past_clicks`]). What they lack after a start, which is everything if they were lost, is
//! read from ClickHouse a page at a time between batches; until it is there, conversions are decided by queries as if
//! there were no files. Whatever goes wrong with them is logged and makes them begin anew, and nothing else.

use std::{ops::RangeInclusive, time::Duration};

use tokio::time::Instant;

use super::{Surroundings, Warehouse};
use crate::{
    clickhouse::{ClickPage, Failure, Kept},
    core::{AccountId, BatchId, ClickId, CountedClick, UnixMillis},
    past_clicks::{Found, PastClicks, PastClicksError},
};

/// Clicks that are read at a time: a batch waits for no more than that.
const PAGE_MAX: u32 = if cfg!(test) { 7 } else { 50_000 };
/// How long files that failed are left alone: a full disk is not filled again at once.
const ANEW_AFTER: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_mins(10) };
/// Reads after which others on this thread get their turn: each may wait for the disk.
const TURN: usize = 1000;

/// The files, and how far they are.
#[derive(Debug, Default)]
pub(super) struct Past {
    files: Option<PastClicks>,
    /// What is still missing in them.
    missing: Option<Missing>,
    /// Until then nothing is tried.
    not_before: Option<Instant>,
}

/// The clicks of some batches, as far as they have not been read.
#[derive(Debug)]
struct Missing {
    after: BatchId,
    through: BatchId,
    /// The last is the next; none: not asked yet.
    months: Option<Vec<u32>>,
    beyond: (AccountId, ClickId),
}

#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    ClickHouse(#[from] Failure),
    #[error(transparent)]
    Files(#[from] PastClicksError),
}

impl Past {
    /// Whether every settled click can be found here.
    fn is_complete(&self) -> bool {
        self.files.as_ref().is_some_and(PastClicks::is_complete)
    }

    /// Does the next thing that is missing, where there is one: `true`. Batches up to `settled` are.
    pub(super) async fn tend<W: Warehouse>(&mut self, around: &Surroundings<W>, settled: BatchId) -> bool {
        if self.files.as_ref().is_some_and(PastClicks::is_void) {
            tracing::info!("clicks in files were made void; they are made anew");
            self.give_up();
            self.not_before = None;
        }
        let early = self.not_before.is_some_and(|then| Instant::now() < then);
        if self.is_complete() || early || around.stop.is_cancelled() {
            return false;
        }
        let outcome = tokio::select! {
            biased;
            () = around.stop.cancelled() => return false,
            outcome = self.proceed(around, settled) => outcome,
        };
        match outcome {
            Ok(()) => true,
            Err(Obstacle::ClickHouse(failure)) => {
                tracing::warn!(%failure, "clicks can't be read into files yet");
                self.not_before = Some(Instant::now() + around.config.backoff_max);
                false
            }
            Err(Obstacle::Files(error)) => {
                self.failed(&error);
                false
            }
        }
    }

    async fn proceed<W: Warehouse>(
        &mut self,
        around: &Surroundings<W>,
        settled: BatchId,
    ) -> Result<(), Obstacle> {
        let Some(files) = &mut self.files else {
            let origin = around.warehouse.clicks_origin().await?;
            let mut files = PastClicks::open(around.folder.data_dir(), &origin)?;
            if files.through() > settled {
                // Of another checkpoint: a backup was restored in part.
                files.give_up()?;
                files = PastClicks::open(around.folder.data_dir(), &origin)?;
            }
            self.missing = Some(Missing::of(files.through(), settled));
            self.files = Some(files);
            return Ok(());
        };
        let Some(missing) = &mut self.missing else { return Ok(()) };
        let Some(months) = &mut missing.months else {
            let mut months = around.warehouse.click_months(missing.after, missing.through).await?;
            months.reverse();
            missing.months = Some(months);
            return Ok(());
        };
        let Some(&month) = months.last() else {
            // What was settled since has been added as it was.
            files.complete(settled)?;
            self.missing = None;
            tracing::info!("every click can be found in files");
            return Ok(());
        };
        let Missing { after, through, beyond, .. } = *missing;
        let page = ClickPage { after, through, month, beyond, limit: PAGE_MAX };
        let mut clicks = around.warehouse.clicks_page(&page).await?;
        let whole = clicks.len() == PAGE_MAX as usize;
        clicks.dedup_by_key(|click| (click.account_id, click.click_id));
        clicks.iter().try_for_each(|click| files.add(click))?;
        if let Some(last) = clicks.last().filter(|_| whole) {
            missing.beyond = (last.account_id, last.click_id);
        } else {
            missing.beyond = BEGINNING;
            months.pop();
        }
        Ok(())
    }

    /// A batch was settled that brought these clicks.
    pub(super) fn settled<W>(&mut self, around: &Surroundings<W>, batch: BatchId, clicks: &[CountedClick]) {
        let Some(files) = &mut self.files else { return };
        let kept = Kept::at(around.clock.now(), around.config.click_retention_days);
        let added = clicks.iter().try_for_each(|click| files.add_counted(click));
        if let Err(error) = added.and_then(|()| files.settled(batch, kept.clicks_since)) {
            self.failed(&error);
        }
    }

    /// Looks for clicks by number and by visitor. `None`: ask ClickHouse. What was made void just now is not looked at: of
    /// whoever was erased before a conversion came, it finds nothing.
    pub(super) async fn find(
        &mut self,
        named: &[(AccountId, ClickId)],
        visitors: &[(AccountId, u64)],
        clicked: RangeInclusive<UnixMillis>,
    ) -> Option<Found> {
        let files = self.files.as_mut().filter(|files| files.is_complete() && !files.is_void())?;
        let found = look(files, named, visitors, clicked).await;
        found.inspect_err(|error| self.failed(error)).ok()
    }

    fn failed(&mut self, error: &PastClicksError) {
        tracing::warn!(%error, "clicks can't be found in files; they are made anew, and ClickHouse is asked meanwhile");
        self.give_up();
        self.not_before = Some(Instant::now() + ANEW_AFTER);
    }

    fn give_up(&mut self) {
        self.missing = None;
        if let Some(files) = self.files.take()
            && let Err(error) = files.give_up()
        {
            tracing::warn!(%error, "clicks in files can't be removed");
        }
    }
}

/// Numbers begin with 0, accounts with 1.
const BEGINNING: (AccountId, ClickId) = (AccountId(0), ClickId(u64::MAX));

impl Missing {
    fn of(after: BatchId, through: BatchId) -> Self {
        Self { after, through, months: None, beyond: BEGINNING }
    }
}

async fn look(
    files: &mut PastClicks,
    named: &[(AccountId, ClickId)],
    visitors: &[(AccountId, u64)],
    clicked: RangeInclusive<UnixMillis>,
) -> Result<Found, PastClicksError> {
    let mut look_up = files.look_up(named, visitors);
    while !files.proceed(&mut look_up, TURN)? {
        tokio::task::yield_now().await;
    }
    let mut found = look_up.found();
    found.of_visitors.retain(|click| clicked.contains(&click.clicked_at));
    Ok(found)
}
