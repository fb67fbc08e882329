//! Outgoing postbacks in the daemon: a thread of their own, and what handlers and the shipper ask of them.

use std::{io, sync::Arc, thread::JoinHandle, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::database::Warehouse;
use crate::{
    catalog::Catalog,
    clickhouse::{Database, Failure},
    core::{
        AccountId, BatchId, ConversionId, ConversionLookup, CountedConversion, Goal, GoalId, ReportError,
        webhook::{
            Backfill, BackfillQuery, Delivery, DeliveryId, DeliveryPage, DeliveryQuery, Event, TestAnswer,
        },
    },
    http::{self, PostbackError},
    postback::{self, DeliveryLog, LogUnavailable, Postbacks, QueueError},
    shipper::Announce,
    tasks,
};

/// Below the priority of threads that answer hits.
const NICENESS: i32 = 10;

/// Names that are looked up at a time: each takes a thread for as long as the system tries, and names that can't be
/// found must not keep others waiting.
const LOOKUPS_MAX: usize = 2048;

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
}

impl http::Postbacks for Desk {
    fn vet(&self, url: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.postbacks.vet(&url).await.map_err(|refused| refused.to_string()) })
    }

    fn test(&self, goal: Goal) -> BoxFuture<'_, Result<TestAnswer, PostbackError>> {
        Box::pin(async move { self.postbacks.test(&goal).await.ok_or(PostbackError::Full) })
    }

    fn deliveries(&self, query: DeliveryQuery) -> BoxFuture<'_, Result<DeliveryPage, ReportError>> {
        Box::pin(async move { self.database.deliveries(&query).await.map_err(|failure| report(&failure)) })
    }

    fn replay(
        &self,
        account: AccountId,
        id: DeliveryId,
    ) -> BoxFuture<'_, Result<ConversionId, PostbackError>> {
        Box::pin(async move {
            let failed = |failure| PostbackError::Report(report(&failure));
            let delivery = self.database.delivery(account, id).await.map_err(failed)?;
            let delivery = delivery.ok_or(PostbackError::Unknown)?;
            let found = self.database.conversion(account, delivery.conversion_id).await.map_err(failed)?;
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

    fn backfill(&self, query: BackfillQuery) -> BoxFuture<'_, Result<Backfill, PostbackError>> {
        Box::pin(async move {
            let events = self.database.events(&query).await;
            let events = events.map_err(|failure| PostbackError::Report(report(&failure)))?;
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
    pub(super) fn new(postbacks: &Arc<Postbacks>, catalog: &Arc<Catalog>, warehouse: &Warehouse) -> Self {
        Self { postbacks: postbacks.clone(), catalog: catalog.clone(), database: warehouse.database() }
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

fn report(failure: &Failure) -> ReportError {
    super::glue::report_error(failure)
}
