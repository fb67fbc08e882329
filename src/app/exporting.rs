//! Exports: pulled from ClickHouse as fast as their clients take them, a bounded number at a time.
//!
//! They are pulled on the runtime that this is made in, away from the workers that answer hits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use tokio_util::task::AbortOnDropHandle;

use crate::{
    account_slots::{AccountSlot, AccountSlots, NoSlot},
    clickhouse::{Database, ExportStream, Failure},
    core::{AccountId, BatchId, ExportFormat, ExportKey, ExportQuery, ExportRow, ReportError},
    http::{Export, ExportError, Exports, Gone, PipeWriter, pipe},
    report_slots::{ReportPermit, ReportSlots},
    shipper::Ledger,
    tasks,
};

use super::glue::ask_within;

/// Exports at once, of one account and of all: each holds some megabytes, and few of them read at a time.
const ACCOUNT_EXPORTS_MAX: usize = 2;
const EXPORTS_MAX: usize = 8;
/// The next piece, of some megabytes, is asked for when so little of the last one waits for its client.
const WAITING_BYTES: usize = 4 << 20;
/// How long a client may take for a piece. One that is slower is cut, and may resume.
const TAKEN_WITHIN: Duration = Duration::from_mins(2);
/// For how long a database that fails in the middle is asked again: an engine that was killed is back in seconds.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(30);
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long one piece may take, all of its statements together.
const PIECE_WITHIN: Duration = Duration::from_mins(3);

/// Makes exports.
pub(super) struct Exporter {
    database: Database,
    ledger: Arc<Ledger>,
    exports: Arc<AccountSlots>,
    reports: Arc<ReportSlots>,
    runtime: Handle,
}

impl Exporter {
    /// On the present runtime.
    pub(super) fn start(database: Database, ledger: &Arc<Ledger>, reports: &Arc<ReportSlots>) -> Arc<Self> {
        let exports = AccountSlots::new(ACCOUNT_EXPORTS_MAX, EXPORTS_MAX);
        Arc::new(Self {
            database,
            ledger: ledger.clone(),
            exports,
            reports: reports.clone(),
            runtime: Handle::current(),
        })
    }

    /// Asks on the runtime that the database's connections live in. Ends with the caller.
    async fn there<T: Send + 'static>(
        &self,
        permit: ReportPermit,
        question: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, ReportError> {
        let asked = async move { ask_within(PIECE_WITHIN, &permit, question).await };
        match AbortOnDropHandle::new(tasks::spawn_isolated_on(&self.runtime, "export", asked)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(tasks::Panicked)) => Err(ReportError::Refused),
            // The daemon ends.
            Err(_) => Err(ReportError::Unavailable),
        }
    }
}

impl Exports for Exporter {
    fn settled(&self) -> BatchId {
        self.ledger.settled_batch()
    }

    fn position(
        &self,
        permit: ReportPermit,
        account: AccountId,
        row: ExportRow,
    ) -> BoxFuture<'_, Result<Option<ExportKey>, ReportError>> {
        let database = self.database.clone();
        Box::pin(self.there(permit, async move { database.export_position(account, row).await }))
    }

    fn start(
        &self,
        permit: ReportPermit,
        mut query: ExportQuery,
        format: ExportFormat,
        rows_max: Option<u64>,
    ) -> BoxFuture<'_, Result<Export, ExportError>> {
        Box::pin(async move {
            let slot = self.exports.take(query.account_id).map_err(|none| match none {
                NoSlot::OfAccount => ExportError::AccountBusy,
                NoSlot::OfAll => ExportError::Busy,
            })?;
            let database = self.database.clone();
            let first = self.there(permit, async move {
                let mut next_after = None;
                if let Some(rows) = rows_max {
                    let (last, has_more) = database.export_key(&query, rows).await?;
                    query.until = last;
                    next_after = last.filter(|_| has_more);
                }
                let mut stream = database.export(query, format);
                let piece = stream.next().await?;
                Ok((stream, piece, next_after))
            });
            let (stream, piece, next_after) = first.await.map_err(ExportError::Report)?;
            let (writer, body) = pipe();
            // A new pipe has its reader.
            let _ = writer.put(piece.unwrap_or_default());
            let under_way = UnderWay { query, stream, writer, reports: self.reports.clone(), _slot: slot };
            drop(tasks::spawn_isolated_on(&self.runtime, "export", under_way.run()));
            Ok(Export { body, next_after })
        })
    }
}

/// An export whose first piece is there.
struct UnderWay {
    query: ExportQuery,
    stream: ExportStream,
    writer: PipeWriter,
    reports: Arc<ReportSlots>,
    _slot: AccountSlot,
}

/// Why an export ends early. Its client sees a broken connection.
enum Broken {
    Gone,
    Slow,
    Failed(Failure),
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl UnderWay {
    /// To its end, or until its client or the database is lost.
    async fn run(mut self) {
        let started = Instant::now();
        let outcome = self.go_on().await;
        let (account, kind) = (self.query.account_id.0, self.query.kind.as_str());
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(()) => tracing::info!(account, kind, seconds, "an export is complete"),
            Err(Broken::Gone) => tracing::info!(account, kind, seconds, "an export's client is gone"),
            Err(Broken::Slow) => {
                tracing::warn!(account, kind, seconds, "an export's client does not take it and is cut");
            }
            Err(Broken::Failed(failure)) => {
                tracing::error!(account, kind, seconds, %failure, "an export broke off");
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), Broken> {
        loop {
            self.taken(WAITING_BYTES).await?;
            let piece = tokio::select! {
                gone = self.writer.gone() => return Err(gone.into()),
                piece = next(&mut self.stream, &self.reports, self.query.account_id) => piece.map_err(Broken::Failed)?,
            };
            let Some(piece) = piece else { break };
            self.writer.put(piece)?;
        }
        self.writer.complete();
        self.taken(0).await
    }

    async fn taken(&self, but: usize) -> Result<(), Broken> {
        Ok(timeout(TAKEN_WITHIN, self.writer.drained(but)).await.map_err(|_| Broken::Slow)??)
    }
}

/// The next piece, asked for again where the database fails for a moment.
async fn next(
    stream: &mut ExportStream,
    reports: &Arc<ReportSlots>,
    account: AccountId,
) -> Result<Option<Vec<bytes::Bytes>>, Failure> {
    let started = Instant::now();
    loop {
        // An export has begun: it waits for its turn however long that takes.
        let permit = reports.acquire_patiently(account).await;
        let piece = stream.next();
        let piece = match &permit {
            Ok(permit) => permit.run(PIECE_WITHIN, piece).await.unwrap_or_else(|_| Err(Failure::timed_out())),
            Err(_) => Err(Failure::timed_out()),
        };
        drop(permit);
        match piece {
            Err(failure)
                if !matches!(failure, Failure::Reject { .. }) && started.elapsed() < ASKED_AGAIN_WITHIN =>
            {
                tracing::debug!(%failure, "a piece of an export is asked for again");
                sleep(ASKED_AGAIN_AFTER).await;
            }
            outcome => return outcome,
        }
    }
}
