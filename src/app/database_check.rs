//! Whether the database may be written: before the first hit where it answers, and for as long as it takes where not.
//!
//! Hits are safe in the log without a database, so one that does not answer never stops them: a start waits for the
//! embedded engine, within bounds, and not for a server that is down. One that answers and must not be written (a newer or
//! changed schema, another installation's data, none of the data that was shipped) ends a start before its first hit. Is
//! that found out later, the daemon goes on taking hits into the log, says so in `/readyz`, and looks again: an operator
//! may mend it, and a daemon that ends and is started again would only take fewer hits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use uuid::Uuid;

use super::{
    data_dir::{DataDir, DatabaseUse, free_bytes},
    database::Warehouse,
};
use crate::{
    clickhouse::{CheckError, Database, DatabaseIdentity, Failure, MIGRATIONS, MigrationError},
    core::{BatchId, INTEGER_MAX, Kind},
    http::{Degraded, Readiness},
    shipper::{Checkpoint, Folder},
    tasks,
};

/// How long a start waits for the embedded engine: after a kill it waits for its own lock, up to fifteen seconds.
const ENGINE_WITHIN: Duration = Duration::from_secs(30);
/// How long a start waits for a server that has taken the connection.
const SERVER_WITHIN: Duration = Duration::from_secs(5);
/// So many starts of the engine that failed: it won't be there soon.
const ENGINE_STARTS_MAX: u64 = 2;
/// How long ClickHouse may be silent before that is logged.
const SILENT_FOR: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long until a database that must not be written is looked at again.
const REFUSED_RETRY_AFTER: Duration = Duration::from_secs(5);
/// How often it is logged that it still must not be.
const REFUSED_REPEAT_AFTER: Duration = Duration::from_mins(10);
/// Free bytes that a change of the schema needs: a table's definition that meets a full disk is left empty.
const SCHEMA_BYTES_MIN: u64 = 64 << 20;

/// What is known of the database.
#[derive(Clone, Debug)]
pub(super) enum DatabaseState {
    /// It has not answered everything yet; why, if that is known.
    Pending(Option<String>),
    /// It may be written; the newest batch in it.
    Ready(BatchId),
    /// It must not be written; an operator must act.
    Refused(String),
}

/// The check, which goes on until the database may be written.
pub(super) struct DatabaseCheck {
    state: watch::Receiver<DatabaseState>,
}

/// What the check works with.
pub(super) struct Subject {
    pub(super) database: Database,
    pub(super) folder: Arc<DataDir>,
    /// Of before this start.
    pub(super) checkpoint: Checkpoint,
    pub(super) disk_free_bytes_min: u64,
    /// The database's files are in the data folder.
    pub(super) embedded: bool,
    /// Cleared once rows may be inserted.
    pub(super) unused: Arc<AtomicBool>,
    pub(super) readiness: Arc<Readiness>,
}

impl DatabaseCheck {
    /// Begins in the background. Dropping the handle does not end it.
    pub(super) fn start(subject: Subject) -> Self {
        let (sender, state) = watch::channel(DatabaseState::Pending(None));
        drop(tasks::spawn_finite("database-check", async move { subject.run(&sender).await }));
        Self { state }
    }

    /// What is known now, and its changes.
    pub(super) fn state(&self) -> watch::Receiver<DatabaseState> {
        self.state.clone()
    }

    /// Waits for the answer that a start waits for: `Err` says why there must be no start. `Ok(false)`: there is no answer
    /// yet.
    pub(super) async fn before_first_hit(&self, warehouse: &Warehouse) -> Result<bool, String> {
        let within = if warehouse.is_embedded() { ENGINE_WITHIN } else { SERVER_WITHIN };
        let deadline = Instant::now() + within;
        loop {
            let unreachable = match &*self.state.borrow() {
                DatabaseState::Ready(_) => return Ok(true),
                DatabaseState::Refused(reason) => return Err(reason.clone()),
                // A server is there or not; an engine is being started.
                DatabaseState::Pending(failure) if !warehouse.is_embedded() => failure.is_some(),
                DatabaseState::Pending(_) => warehouse.failed_starts() >= ENGINE_STARTS_MAX,
            };
            if unreachable || Instant::now() >= deadline {
                return Ok(false);
            }
            let mut state = self.state.clone();
            let _ = tokio::time::timeout(RETRY_AFTER, state.changed()).await;
        }
    }
}

impl Subject {
    async fn run(self, state: &watch::Sender<DatabaseState>) {
        let started = Instant::now();
        let (mut silence_logged, mut refusal_logged) = (false, None::<(String, Instant)>);
        loop {
            match self.attempt().await {
                Ok(newest) => {
                    self.readiness.set_degraded(Degraded::SchemaPending, false);
                    state.send_replace(DatabaseState::Ready(newest));
                    return;
                }
                Err(Obstacle::Passing(reason)) => {
                    // An engine that is being started is no news.
                    if !silence_logged && started.elapsed() > SILENT_FOR {
                        tracing::warn!(
                            reason,
                            "ClickHouse can't be written yet; hits are taken and wait in the log"
                        );
                        silence_logged = true;
                    }
                    state.send_replace(DatabaseState::Pending(Some(reason)));
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(Obstacle::Lasting(reason)) => {
                    let repeated = refusal_logged
                        .as_ref()
                        .is_some_and(|(last, at)| *last == reason && at.elapsed() < REFUSED_REPEAT_AFTER);
                    if !repeated {
                        tracing::error!(reason, "the database must not be written; hits wait in the log");
                        refusal_logged = Some((reason.clone(), Instant::now()));
                    }
                    state.send_replace(DatabaseState::Refused(reason));
                    tokio::time::sleep(REFUSED_RETRY_AFTER).await;
                }
            }
        }
    }

    /// Brings the schema up to date, and looks at everything that must hold.
    async fn attempt(&self) -> Result<BatchId, Obstacle> {
        let identity = self.database.identity().await?;
        self.check_identity(identity)?;
        if usize::try_from(identity.schema).unwrap_or(usize::MAX) < MIGRATIONS.len() {
            self.check_room()?;
        }
        for name in self.database.migrate().await? {
            tracing::info!(name, "the schema was brought up to date");
        }
        self.database.check().await?;
        self.check_rows().await?;
        let newest = self.check_batches().await?;
        let id = self.folder.installation_id().or(identity.installation_id).unwrap_or_else(Uuid::new_v4);
        if identity.installation_id != Some(id) || identity.ambiguous {
            self.database.claim(id).await?;
        }
        let stored = self.folder.database_is_in_use(id, newest);
        stored.map_err(|error| Obstacle::Passing(error.to_string()))?;
        self.unused.store(false, Ordering::Release);
        // Of all tables: ids count on from it.
        let newest = self.database.newest_batch().await?;
        if newest == BatchId(INTEGER_MAX) {
            tracing::error!(
                "batch ids were used up by a clock that was far ahead, under an earlier version: hits that were acknowledged \
                 since may be missing, and `tally audit` says how many; new ones count on under ids beyond 2^53"
            );
        }
        Ok(newest)
    }

    /// It is this installation's database, or one that was never used.
    fn check_identity(&self, identity: DatabaseIdentity) -> Result<(), Obstacle> {
        let used = self.folder.database();
        if used == DatabaseUse::Adopt {
            return Ok(());
        }
        let inserted: u64 = self.checkpoint.totals.kinds.0.iter().map(|kind| kind.inserted).sum();
        let known = self.folder.installation_id();
        if used == DatabaseUse::InUse && identity.schema == 0 && (inserted > 0 || known.is_some()) {
            return Err(Obstacle::Lasting(format!(
                "{} is empty, although {inserted} hits were inserted: {}",
                self.place(),
                self.remedy()
            )));
        }
        let foreign = identity.ambiguous
            || matches!((known, identity.installation_id), (Some(known), Some(found)) if known != found);
        if foreign {
            return Err(Obstacle::Lasting(format!(
                "{} belongs to another data folder (table installation): one database has one data folder; {}",
                self.place(),
                self.remedy()
            )));
        }
        Ok(())
    }

    fn check_room(&self) -> Result<(), Obstacle> {
        if !self.embedded {
            return Ok(());
        }
        let free = free_bytes(self.folder.path()).map_err(|error| Obstacle::Passing(error.to_string()))?;
        let needed = SCHEMA_BYTES_MIN.max(self.disk_free_bytes_min);
        if free < needed {
            return Err(Obstacle::Passing(format!(
                "the schema is not changed, since the disk of {} has {free} bytes free and {needed} are needed",
                self.folder.path().display()
            )));
        }
        Ok(())
    }

    /// What was inserted is there.
    async fn check_rows(&self) -> Result<(), Obstacle> {
        let rows = self.database.rows_per_kind().await?;
        let new = self.folder.database() == DatabaseUse::New;
        for kind in Kind::ALL {
            let inserted = self.checkpoint.totals.kinds[kind].inserted;
            let expected = inserted.saturating_sub(self.folder.rows_given_up(kind));
            let name = kind.as_str();
            if new && self.checkpoint == Checkpoint::NEW && rows[kind] > 0 {
                return Err(Obstacle::Lasting(format!(
                    "{} holds {} {name}s of another data folder, whose keys and order ids this new one does not know; {}",
                    self.place(),
                    rows[kind],
                    self.remedy()
                )));
            }
            // Clicks go by age.
            if expected > 0 && rows[kind] == 0 && kind != Kind::Click {
                return Err(Obstacle::Lasting(format!(
                    "{} holds no {name}, although {expected} were inserted: {}",
                    self.place(),
                    self.remedy()
                )));
            }
            if rows[kind] < expected && kind != Kind::Click {
                tracing::error!(
                    kind = name,
                    expected,
                    found = rows[kind],
                    "rows are missing in ClickHouse; `tally audit` says which tables differ"
                );
            }
        }
        Ok(())
    }

    /// Every batch in the database is known to the checkpoint, or its file is there. Returns the newest one.
    async fn check_batches(&self) -> Result<BatchId, Obstacle> {
        let accepted = self.folder.batches_accepted_through();
        let known = accepted.unwrap_or(BatchId(0)).max(self.checkpoint.settled);
        let batches = self.database.batches_after(known).await?;
        let newest = batches.last().copied().unwrap_or(known);
        if accepted.is_none() {
            return Ok(newest);
        }
        let files = Folder::new(self.folder.path()).cut_ids();
        let files = files.map_err(|error| Obstacle::Passing(error.to_string()))?;
        match batches.iter().find(|batch| !files.contains(batch)) {
            None => Ok(newest),
            Some(batch) => Err(Obstacle::Lasting(format!(
                "{} holds batch {}, which is newer than {}/checkpoint and has no file in cuts/: the checkpoint or the \
                 batches are of an older backup than the database, and their hits would be inserted a second time; restore \
                 data folder and database from the same moment, or give up the log by `tally repair --accept-loss \
                 checkpoint`",
                self.place(),
                batch.0,
                self.folder.path().display()
            ))),
        }
    }

    /// Where the database is, for people.
    fn place(&self) -> String {
        if self.embedded {
            format!("the database in {}", self.folder.path().join(super::ENGINE_FOLDER).display())
        } else {
            let endpoint = self.database.endpoint();
            format!("the database {} at {}", endpoint.database, endpoint.url)
        }
    }

    fn remedy(&self) -> &'static str {
        if self.embedded {
            "restore the folder clickhouse/ from a backup, or go on without what was shipped by `tally repair \
             --accept-loss clickhouse`"
        } else {
            "name the right one by --clickhouse-url, restore it from a backup, or take it as it is by `tally repair \
             --accept-loss clickhouse`"
        }
    }
}

/// Why the database can't be written.
enum Obstacle {
    /// Try again.
    Passing(String),
    /// An operator must act.
    Lasting(String),
}

impl From<MigrationError> for Obstacle {
    fn from(error: MigrationError) -> Self {
        match error {
            MigrationError::Failed(failure) => failure.into(),
            MigrationError::Statement { ref failure, .. } if !matches!(failure, Failure::Reject { .. }) => {
                Self::Passing(error.to_string())
            }
            other => Self::Lasting(other.to_string()),
        }
    }
}

impl From<CheckError> for Obstacle {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Failed(failure) => failure.into(),
            unsafe_schema @ CheckError::Unsafe(_) => Self::Lasting(unsafe_schema.to_string()),
        }
    }
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Reject { .. } => Self::Lasting(failure.to_string()),
            passing => Self::Passing(passing.to_string()),
        }
    }
}
