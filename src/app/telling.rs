//! Outgoing postbacks in the daemon: a thread of their own, and what handlers and the shipper ask of them.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{
    database::Warehouse,
    glue::{ask, ask_within},
};
use crate::{
    account_slots::{AccountSlots, NoSlot},
    catalog::Catalog,
    clickhouse::Database,
    core::{
        AccountId, BatchId, ConversionId, ConversionLookup, CountedConversion, Goal, GoalId, ReportError,
        webhook::{
            Backfill, BackfillQuery, Delivery, DeliveryId, DeliveryPage, DeliveryQuery, Event, TestAnswer,
        },
    },
    http::{self, PostbackError},
    postback::{self, DeliveryLog, LogUnavailable, Postbacks, QueueError},
    report_slots::ReportPermit,
    shipper::Announce,
    tasks,
};

/// Below the priority of threads that answer hits.
const NICENESS: i32 = 10;

/// Names that are looked up at a time: each takes a thread for as long as the system tries, and names that can't be
/// found must not keep others waiting.
const LOOKUPS_MAX: usize = 2048;

/// How long the conversions of a backfill may be looked for.
const BACKFILL_WITHIN: Duration = Duration::from_mins(2);

/// Backfills at a time, of one account and of all: each holds up to 100,000 postbacks in memory.
const ACCOUNT_BACKFILLS_MAX: usize = 1;
const BACKFILLS_MAX: usize = 4;

/// The slots of backfills, for the desks of all workers together.
pub(super) fn backfill_slots() -> Arc<AccountSlots> {
    AccountSlots::new(ACCOUNT_BACKFILLS_MAX, BACKFILLS_MAX)
}

/// The running thread.
pub(super) struct Telling {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Telling {
    /// Starts it.
    pub(super) fn start(postbacks: Arc<Postbacks>, warehouse: &Warehouse) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (stopped, log) = (stop.clone(), Log(warehouse.database()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(LOOKUPS_MAX)
            .enable_all()
            .build()?;
        let thread = tasks::spawn_event_loop("postbacks", runtime, move || async move {
            if let Err(error) = rustix::process::nice(NICENESS) {
                tracing::debug!(%error, "postbacks keep the priority of everything else");
            }
            let log = postback::keep_logged(postbacks.clone(), log, stopped.clone());
            tokio::join!(postback::deliver(postbacks.clone(), stopped), log);
        })?;
        Ok(Self { stop, thread })
    }

    /// Lets what is on its way end, within a second or two; what is left is safe in the outbox.
    pub(super) async fn stop(self, within: Duration) {
        self.stop.cancel();
        // It catches and reports its own panic.
        let joined = tasks::blocking(move || drop(self.thread.join()));
        if tokio::time::timeout(within, joined).await.is_err() {
            tracing::info!("the rest of the postbacks is sent at the next start");
        }
    }
}

/// The log of deliveries in ClickHouse.
struct Log(Database);

impl DeliveryLog for Log {
    async fn add(&self, deliveries: &[Delivery]) -> Result<(), LogUnavailable> {
        self.0.add_deliveries(deliveries).await.map_err(|failure| LogUnavailable(failure.to_string()))
    }
}

/// What the shipper tells.
pub(super) struct Announcer(pub(super) Arc<Postbacks>);

impl Announce for Announcer {
    fn listens(&self, goal: GoalId) -> bool {
        self.0.listens(goal)
    }

    fn prepare(&mut self, batch: BatchId, conversions: &[CountedConversion]) -> io::Result<()> {
        self.0.prepare(batch, conversions).map_err(io::Error::other)
    }

    fn release(&mut self, batch: BatchId) {
        self.0.release(batch);
    }
}

/// What handlers ask.
pub(super) struct Desk {
    postbacks: Arc<Postbacks>,
    catalog: Arc<Catalog>,
    database: Database,
    backfills: Arc<AccountSlots>,
}

impl http::Postbacks for Desk {
    fn vet(&self, url: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.postbacks.vet(&url).await.map_err(|refused| refused.to_string()) })
    }

    fn test(&self, goal: Goal) -> BoxFuture<'_, Result<TestAnswer, PostbackError>> {
        Box::pin(async move {
            self.postbacks.test(&goal).await.map_err(|none| match none {
                NoSlot::OfAccount => PostbackError::TooManyTests,
                NoSlot::OfAll => PostbackError::Full,
            })
        })
    }

    fn deliveries(
        &self,
        permit: ReportPermit,
        query: DeliveryQuery,
    ) -> BoxFuture<'_, Result<DeliveryPage, ReportError>> {
        Box::pin(async move { ask(&permit, self.database.deliveries(&query)).await })
    }

    fn replay(
        &self,
        permit: ReportPermit,
        account: AccountId,
        id: DeliveryId,
    ) -> BoxFuture<'_, Result<ConversionId, PostbackError>> {
        Box::pin(async move {
            let delivery =
                ask(&permit, self.database.delivery(account, id)).await.map_err(PostbackError::Report)?;
            let delivery = delivery.ok_or(PostbackError::Unknown)?;
            let found = ask(&permit, self.database.conversion(account, delivery.conversion_id)).await;
            let found = found.map_err(PostbackError::Report)?;
            drop(permit);
            let ConversionLookup::Counted(stored) = found else { return Err(PostbackError::Unknown) };
            if !self.catalog.snapshot().tells(delivery.goal_id) {
                return Err(PostbackError::NoEndpoint);
            }
            let counted = CountedConversion {
                conversion: stored.conversion,
                attribution: stored.attribution,
                run: stored.run,
            };
            self.queue(vec![Event::new(&counted)]).await?;
            Ok(delivery.conversion_id)
        })
    }

    fn backfill(
        &self,
        permit: ReportPermit,
        query: BackfillQuery,
    ) -> BoxFuture<'_, Result<Backfill, PostbackError>> {
        Box::pin(async move {
            let _slot = self.backfills.take(query.account_id).map_err(|none| match none {
                NoSlot::OfAccount => PostbackError::TooManyBackfills,
                NoSlot::OfAll => PostbackError::Full,
            })?;
            let events = ask_within(BACKFILL_WITHIN, &permit, self.database.events(&query)).await;
            let events = events.map_err(PostbackError::Report)?;
            drop(permit);
            let queued = events.len() as u64;
            let full = queued >= u64::from(query.limit);
            let next_from = events.last().filter(|_| full).map(|last| last.converted_at);
            self.queue(events).await?;
            Ok(Backfill { queued, next_from })
        })
    }
}

impl Desk {
    /// With a database of its own: its connections live where it is used.
    pub(super) fn new(
        postbacks: &Arc<Postbacks>,
        catalog: &Arc<Catalog>,
        warehouse: &Warehouse,
        backfills: &Arc<AccountSlots>,
    ) -> Self {
        Self {
            postbacks: postbacks.clone(),
            catalog: catalog.clone(),
            database: warehouse.database(),
            backfills: backfills.clone(),
        }
    }

    async fn queue(&self, events: Vec<Event>) -> Result<(), PostbackError> {
        let postbacks = self.postbacks.clone();
        match tasks::blocking(move || postbacks.queue(events)).await {
            Ok(()) => Ok(()),
            Err(QueueError::Full) => Err(PostbackError::Full),
            Err(QueueError::Outbox(error)) => {
                tracing::error!(%error, "postbacks could not be queued");
                Err(PostbackError::Storage)
            }
        }
    }
}
