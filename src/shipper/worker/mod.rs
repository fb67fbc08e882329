//! One step after the other: take up cuts, cut new ones, deliver, split, settle.
//!
//! The worker's memory is only a copy of what is on disk: after any error it is thrown away and read anew, exactly as
//! after a crash. The argument for each step stands in the module's documentation ([`super`]).

mod ids;
mod replays;

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::ids::sealed_at;
use super::{
    Announce, Config, OnSettled, ShipError,
    batch::Batch,
    checkpoint::Checkpoint,
    cut::{Content, Cut, Origin},
    dead_letters,
    decide::{Decider, Undecided},
    deliver::{Delivered, Delivery, pause},
    folder::Folder,
    give_way::{Backlog, GiveWay},
    ledger::{self, Ledger},
    warehouse::Warehouse,
};
use crate::{
    clickhouse::Kept,
    clock::Clock,
    core::{BatchId, CountedClick, Kind, PerKind, Record, payload},
    dedup::SettledKey,
    wal::{Reader, Wal},
};

/// What the worker works with; outlives it.
pub(super) struct Surroundings<W> {
    pub(super) config: Config,
    pub(super) folder: Folder,
    pub(super) wal: Wal,
    pub(super) warehouse: W,
    pub(super) clock: Box<dyn Clock>,
    pub(super) ledger: std::sync::Arc<Ledger>,
    pub(super) on_settled: OnSettled,
    pub(super) announce: Option<Box<dyn Announce>>,
    pub(super) give_way: Option<GiveWay>,
    /// The newest batch in the database: no later one has a lower id.
    pub(super) newest_batch: BatchId,
    pub(super) stop: CancellationToken,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something was cut, delivered or split: go on at once.
    Worked,
    /// There is nothing to do.
    Idle,
    /// Told to stop.
    Stopped,
}

/// A cut that is not settled.
struct Queued {
    /// The cut, if it is in memory.
    cut: Option<Cut>,
    /// What settling it takes, if that is known without reading its rows back.
    known: Option<Known>,
    /// Nothing of it was ever sent.
    first: bool,
}

impl Queued {
    /// One that was just made.
    fn fresh(cut: Cut, content: Content) -> Self {
        Self { cut: Some(cut), known: Some(Known::of(content)), first: true }
    }
}

/// What of a cut's content is needed when it is settled.
struct Known {
    keys: Vec<SettledKey>,
    clicks: Vec<CountedClick>,
}

impl Known {
    fn of(content: Content) -> Self {
        Self { keys: content.keys().collect(), clicks: content.clicks }
    }
}

pub(super) struct Worker {
    checkpoint: Checkpoint,
    queue: BTreeMap<BatchId, Queued>,
    /// Reads on from where the last batch ended; opened once no cut from before the start is left.
    reader: Option<Reader>,
    /// A record that was read but did not fit the last batch.
    carried: Option<(Record, usize, crate::wal::Position)>,
    last_id: BatchId,
    decider: Decider,
}

impl Worker {
    /// Takes up what is on disk.
    pub(super) fn open<W>(around: &Surroundings<W>) -> Result<Self, ShipError> {
        let folder = &around.folder;
        let checkpoint = folder.load_checkpoint()?;
        let mut queue = BTreeMap::new();
        let mut last_id = checkpoint.settled.max(around.newest_batch);
        let ids = folder.cut_ids()?;
        for &id in &ids {
            last_id = last_id.max(id);
            if id <= checkpoint.settled {
                folder.remove_cut(id)?;
                continue;
            }
            let cut = folder.load_cut(id)?;
            // While the whole is there, its pieces may be incomplete; they were never sent.
            if cut.parent.is_some_and(|parent| ids.contains(&parent) && parent > checkpoint.settled) {
                folder.remove_cut(id)?;
                continue;
            }
            forget_letters(folder, &cut)?;
            queue.insert(id, Queued { cut: None, known: None, first: false });
        }
        ledger::dead_letters(folder.dead_letters()?.len());
        around.ledger.settled(&checkpoint);
        Ok(Self { checkpoint, queue, reader: None, carried: None, last_id, decider: Decider::default() })
    }

    /// Does the next thing.
    pub(super) async fn step<W: Warehouse>(
        &mut self,
        around: &mut Surroundings<W>,
    ) -> Result<Step, ShipError> {
        if let Some((&id, queued)) = self.queue.iter_mut().next() {
            let (cut, first) = match queued.cut.take() {
                Some(cut) => (cut, queued.first),
                None => (around.folder.load_cut(id)?, queued.first),
            };
            // From here on something of it may have been sent.
            queued.first = false;
            return self.deliver(around, &cut, first).await;
        }
        let replays = around.folder.replays()?;
        if !replays.is_empty() {
            let step = self.cut_replays(around, replays).await?;
            if step != Step::Idle {
                return Ok(step);
            }
        }
        self.carried = self.next_record(&around.wal)?;
        if self.gives_way(around, self.carried.as_ref().map(|(oldest, ..)| oldest)) {
            return Ok(Step::Idle);
        }
        let tended = self.tend(around).await;
        match self.cut_from_log(around).await? {
            Step::Idle if tended => Ok(Step::Worked),
            step => Ok(step),
        }
    }

    /// Whether what is in the log from `oldest` on has to wait for those who answer hits. Told to stop, nothing waits.
    fn gives_way<W>(&self, around: &mut Surroundings<W>, oldest: Option<&Record>) -> bool {
        let Some(give_way) = around.give_way.as_mut().filter(|_| !around.stop.is_cancelled()) else {
            return false;
        };
        let backlog = oldest.map(|oldest| Backlog {
            records: around.wal.durable_end().lsn.saturating_sub(self.checkpoint.position.lsn),
            age: age(oldest, around.clock.as_ref()),
            spool_share: around.wal.status().share(),
        });
        give_way.applies(backlog, std::time::Instant::now())
    }

    /// Does something of what makes later decisions cheap, where there is something: `true`.
    pub(super) async fn tend<W: Warehouse>(&mut self, around: &Surroundings<W>) -> bool {
        self.decider.tend(around, self.checkpoint.settled).await
    }

    async fn deliver<W: Warehouse>(
        &mut self,
        around: &mut Surroundings<W>,
        cut: &Cut,
        first: bool,
    ) -> Result<Step, ShipError> {
        let delivery = Delivery {
            warehouse: &around.warehouse,
            folder: &around.folder,
            stop: &around.stop,
            backoff: around.config.backoff(),
            kept: Kept::at(around.clock.now(), around.config.click_retention_days),
        };
        match delivery.deliver(cut, first).await? {
            Delivered::Stopped => return Ok(Step::Stopped),
            Delivered::Whole => {
                if !first {
                    around.folder.remove_dead_letters_of(cut.batch_id)?;
                }
                self.settle(around, cut, false)?;
            }
            Delivered::Refused(failure) if cut.records() <= 1 => {
                let content = cut.content().map_err(ShipError::damaged)?;
                let json =
                    dead_letters::write(&content, &failure.to_string(), failure.code(), around.clock.now());
                around.folder.store_dead_letter(&format!("{}-0", cut.batch_id.0), &json)?;
                tracing::error!(batch = cut.batch_id.0, %failure, "ClickHouse refuses a row; it is a dead letter now");
                self.settle(around, cut, true)?;
            }
            Delivered::Refused(failure) => {
                tracing::warn!(batch = cut.batch_id.0, records = cut.records(), %failure, "halving a refused batch");
                self.split(around, cut)?;
            }
        }
        Ok(Step::Worked)
    }

    /// Replaces a refused cut by its halves.
    fn split<W>(&mut self, around: &Surroundings<W>, cut: &Cut) -> Result<(), ShipError> {
        let (first, second) = cut.content().map_err(ShipError::damaged)?.halves();
        for half in [first, second] {
            let id = self.next_id(around)?;
            // The letters' rows are in the cut already, and their files gone.
            let origin = match &cut.origin {
                Origin::Log { .. } => cut.origin.clone(),
                Origin::DeadLetters(_) => Origin::DeadLetters(Vec::new()),
            };
            let piece = Cut::new(id, Some(cut.batch_id), origin, &half);
            around.folder.store_cut(&piece)?;
            self.queue.insert(id, Queued::fresh(piece, half));
        }
        around.folder.remove_cut(cut.batch_id)?;
        self.queue.remove(&cut.batch_id);
        Ok(())
    }

    /// Counts a cut as done: the checkpoint first, then everything that it makes superfluous.
    fn settle<W>(&mut self, around: &mut Surroundings<W>, cut: &Cut, dead: bool) -> Result<(), ShipError> {
        let known = self.queue.get_mut(&cut.batch_id).and_then(|queued| queued.known.take());
        let announce =
            around.announce.as_mut().filter(|of| !dead && cut.goals().any(|goal| of.listens(goal)));
        let Known { keys, clicks } = match (known, announce) {
            (Some(known), None) => known,
            (_, announce) => {
                let content = cut.content().map_err(ShipError::damaged)?;
                if let Some(announce) = announce {
                    announce.prepare(cut.batch_id, &content.conversions).map_err(ShipError::Announce)?;
                }
                Known::of(content)
            }
        };
        let clicks = if dead { Vec::new() } else { clicks };
        let all_late = cut.late();
        let mut next = self.checkpoint;
        let totals = &mut next.totals;
        for kind in Kind::ALL {
            let (inserted, late) = (cut.inserted(kind), all_late[kind]);
            let of = &mut totals.kinds[kind];
            if cut.is_replay() {
                of.dead_lettered = of.dead_lettered.saturating_sub(inserted + late);
            } else {
                of.accepted += inserted + late;
                next.ahead[kind] += inserted + late;
            }
            if dead {
                of.dead_lettered += inserted + late;
            } else {
                of.inserted += inserted;
                of.duplicates += late;
            }
        }
        let refusals = cut.refusals();
        if cut.is_replay() {
            totals.refusals_dead_lettered = totals.refusals_dead_lettered.saturating_sub(refusals);
        }
        if dead {
            totals.refusals_dead_lettered += refusals;
        } else {
            totals.refusals += refusals;
        }
        let last_of_range = self.queue.len() <= 1;
        if let (Origin::Log { to, .. }, true) = (&cut.origin, last_of_range) {
            next.position = *to;
            next.ahead = PerKind::default();
        }
        next.settled = cut.batch_id;
        around.folder.store_checkpoint(&next)?;
        self.checkpoint = next;
        self.decider.settled(around, cut.batch_id, &clicks);
        self.queue.remove(&cut.batch_id);
        if let Some(announce) = &mut around.announce {
            announce.release(cut.batch_id);
        }
        around.ledger.settled(&next);
        around.ledger.publish();
        (around.on_settled)(&keys, next.position);
        around.folder.remove_cut(cut.batch_id)?;
        around.wal.trim(next.position);
        if dead || cut.is_replay() {
            ledger::dead_letters(around.folder.dead_letters()?.len());
        }
        Ok(())
    }

    async fn cut_from_log<W: Warehouse>(&mut self, around: &mut Surroundings<W>) -> Result<Step, ShipError> {
        let Some(batch) = self.gather(around).await? else {
            return Ok(if around.stop.is_cancelled() { Step::Stopped } else { Step::Idle });
        };
        // A burst may have begun while the batch waited for more: it is read again later.
        if self.gives_way(around, batch.records.first()) {
            (self.reader, self.carried) = (None, None);
            return Ok(Step::Idle);
        }
        let origin = Origin::Log { from: batch.from, to: batch.to };
        let undecided = Undecided { records: batch.records, from: batch.from, to: batch.to, all: false };
        let Some(content) = self.decider.decide(around, undecided).await? else {
            return Ok(Step::Stopped);
        };
        let cut = Cut::new(self.next_id(around)?, None, origin, &content);
        self.keep(around, cut, content)?;
        if let Some(give_way) = &mut around.give_way {
            give_way.shipped();
        }
        Ok(Step::Worked)
    }

    /// Makes a cut durable and queues it. Only then may the dead letters go whose rows it holds.
    fn keep<W>(&mut self, around: &Surroundings<W>, cut: Cut, content: Content) -> Result<(), ShipError> {
        ledger::batch(cut.records());
        around.folder.store_cut(&cut)?;
        forget_letters(&around.folder, &cut)?;
        self.queue.insert(cut.batch_id, Queued::fresh(cut, content));
        Ok(())
    }

    /// Reads until the batch is full, the month ends, or it has waited long enough for more. `None`: nothing there.
    async fn gather<W>(&mut self, around: &Surroundings<W>) -> Result<Option<Batch>, ShipError> {
        let config = &around.config;
        let mut batch = Batch::new(self.checkpoint.position);
        let mut waited_since = None;
        loop {
            while let Some((record, bytes, end)) = self.next_record(&around.wal)? {
                if !batch.admits(&record, bytes, config.limits) {
                    self.carried = Some((record, bytes, end));
                    return Ok(Some(batch));
                }
                batch.push(record, bytes, end);
            }
            if batch.records.is_empty() {
                return Ok(None);
            }
            let since = *waited_since.get_or_insert_with(Instant::now);
            // Told to stop, nobody waits for more: what is there is the last batch.
            if since.elapsed() >= config.linger || !pause(&around.stop, config.poll.min(config.linger)).await
            {
                return Ok(Some(batch));
            }
        }
    }

    fn next_record(&mut self, wal: &Wal) -> Result<Option<(Record, usize, crate::wal::Position)>, ShipError> {
        if let Some(carried) = self.carried.take() {
            return Ok(Some(carried));
        }
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => none.insert(wal.reader(self.checkpoint.position)?),
        };
        let Some(entry) = reader.next()? else { return Ok(None) };
        let record =
            payload::decode(entry.payload).map_err(|source| ShipError::Record { lsn: entry.lsn, source })?;
        Ok(Some((record, entry.payload.len(), entry.end)))
    }

    /// Greater than any that was ever used, here or in the database: a token is never used for two contents.
    fn next_id<W>(&mut self, around: &Surroundings<W>) -> Result<BatchId, ShipError> {
        let id = ids::next(self.last_id, around.clock.now()).ok_or(ShipError::IdsUsedUp)?;
        if around.folder.has_cut(id) {
            return Err(ShipError::IdTaken(id));
        }
        self.last_id = id;
        Ok(id)
    }
}

fn age(record: &Record, clock: &dyn Clock) -> Duration {
    Duration::from_millis(u64::try_from(clock.now().0 - record.received_at().0).unwrap_or(0))
}

/// The letters' rows are in the cut: their files would count them twice.
fn forget_letters(folder: &Folder, cut: &Cut) -> Result<(), ShipError> {
    match &cut.origin {
        Origin::DeadLetters(files) => Ok(folder.remove_replays(files)?),
        Origin::Log { .. } => Ok(()),
    }
}
