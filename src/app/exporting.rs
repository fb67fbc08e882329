//! Exports: pulled from ClickHouse as fast as their clients take them, a bounded number at a time.
//!
//! They are pulled on the runtime that this is made in, away from the workers that answer hits.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

use crate::{
    clickhouse::{Database, ExportStream, Failure},
    core::{AccountId, BatchId, ExportFormat, ExportKey, ExportQuery, ExportRow, ReportError},
    http::{Export, ExportError, Exports, Gone, PipeWriter, pipe},
    shipper::Ledger,
    tasks,
};

/// Exports at once.
const EXPORTS_MAX: usize = 4;
/// Of one account.
const ACCOUNT_EXPORTS_MAX: usize = 2;
/// The next piece, of some megabytes, is asked for when so little of the last one waits for its client.
const WAITING_BYTES: usize = 4 << 20;
/// How long a client may take for a piece. One that is slower is cut, and may resume.
const TAKEN_WITHIN: Duration = Duration::from_mins(2);
/// For how long a database that fails in the middle is asked again: an engine that was killed is back in seconds.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(30);
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Makes exports.
pub(super) struct Exporter {
    database: Database,
    ledger: Arc<Ledger>,
    places: Arc<Places>,
    runtime: Handle,
}

impl Exporter {
    /// On the present runtime.
    pub(super) fn new(database: Database, ledger: Arc<Ledger>) -> Self {
        Self { database, ledger, places: Arc::default(), runtime: Handle::current() }
    }

    /// Does something on the runtime that the database's connections live in.
    async fn there<T: Send + 'static>(
        &self,
        what: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, ReportError> {
        match tasks::spawn_isolated_on(&self.runtime, "export", what).await {
            Ok(Ok(outcome)) => outcome.map_err(|failure| super::glue::report_error(&failure)),
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
        account: AccountId,
        row: ExportRow,
    ) -> BoxFuture<'_, Result<Option<ExportKey>, ReportError>> {
        let database = self.database.clone();
        Box::pin(self.there(async move { database.export_position(account, row).await }))
    }

    fn start(
        &self,
        mut query: ExportQuery,
        format: ExportFormat,
        rows_max: Option<u64>,
    ) -> BoxFuture<'_, Result<Export, ExportError>> {
        Box::pin(async move {
            let place = self.places.take(query.account_id)?;
            let database = self.database.clone();
            let first = self.there(async move {
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
            let under_way = UnderWay { query, stream, writer, _place: place };
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
    _place: Place,
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
                piece = next(&mut self.stream) => piece.map_err(Broken::Failed)?,
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
async fn next(stream: &mut ExportStream) -> Result<Option<Vec<bytes::Bytes>>, Failure> {
    let started = Instant::now();
    loop {
        match stream.next().await {
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

/// Who exports at present.
#[derive(Default)]
struct Places(Mutex<HashMap<AccountId, usize>>);

/// One export's place, given back when it is dropped.
struct Place {
    places: Arc<Places>,
    account: AccountId,
}

impl Places {
    fn take(self: &Arc<Self>, account: AccountId) -> Result<Place, ExportError> {
        let mut taken = self.0.lock();
        let all: usize = taken.values().sum();
        let own = taken.entry(account).or_default();
        if *own >= ACCOUNT_EXPORTS_MAX {
            return Err(ExportError::AccountBusy);
        }
        if all >= EXPORTS_MAX {
            if *own == 0 {
                taken.remove(&account);
            }
            return Err(ExportError::Busy);
        }
        *own += 1;
        Ok(Place { places: self.clone(), account })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(own) = taken.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_each_and_for_all() {
        let places = Arc::new(Places::default());
        let take = |account| places.take(AccountId(account)).map_err(|refused| refused == ExportError::Busy);
        let first = [take(1), take(1)];
        assert!(first.iter().all(Result::is_ok));
        assert_eq!(take(1).err(), Some(false), "of its own");
        let second = [take(2), take(3)];
        assert!(second.iter().all(Result::is_ok));
        assert_eq!(take(4).err(), Some(true));
        drop(first);
        assert!(take(4).is_ok());
        drop(second);
        assert!(places.0.lock().is_empty());
    }
}
