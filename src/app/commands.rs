//! The subcommands beside `serve`: they look, mend and prove, with or without a daemon at work.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;

use super::{
    data_dir::{self, DataDir, DataDirError, DatabaseUse, RepairError},
    database::{Warehouse, WarehouseError},
};
use crate::{
    audit::{self, AuditError, OpsAddress, OpsAddressError, Subject},
    cli::Loss,
    clickhouse::{CheckError, Database, Endpoint, EndpointError, Failure, MigrationError, Timeouts},
    clock::ClockError,
    config::Config,
    embedded::NotReady,
    erase::EraseError,
    intake::VisitorKeysError,
    reattribute::ReattributeError,
    shipper::{
        Folder, FolderError,
        dead_letters::{self, DeadLetterError, Summary},
    },
    wal::SalvageError,
};

/// How long an engine that is started for one command may take.
const ENGINE_READY_WITHIN: Duration = Duration::from_mins(1);
/// Where a running daemon's engine is.
const WRITER_FILE: &str = "writer.url";

/// A subcommand could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// No database.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// A daemon runs on the folder, with a database of which the folder knows nothing.
    #[error(
        "a daemon is running on this folder with another ClickHouse: name it with --clickhouse-url ({0})"
    )]
    RunningEngine(String),
    /// The engine does not start.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// Dead letters.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// The audit.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What could not be erased.
    #[error(transparent)]
    Erase(#[from] EraseError),
    /// The time.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The visitors' keys.
    #[error(transparent)]
    VisitorKeys(#[from] VisitorKeysError),
    /// The database can't say which accounts there are.
    #[error("ClickHouse: {0}")]
    Database(#[from] Failure),
    /// A run of attribution.
    #[error(transparent)]
    Reattribute(#[from] ReattributeError),
    /// The files of checkpoint and batches.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The log.
    #[error(transparent)]
    Salvage(#[from] SalvageError),
    /// The daemon's address.
    #[error("--ops-url: {0}")]
    OpsAddress(#[from] OpsAddressError),
    /// There is no engine to start: said at once rather than after the time that a start may take.
    #[error(transparent)]
    Library(#[from] crate::embedded::NotFound),
    /// The migrations.
    #[error(transparent)]
    Migrate(#[from] MigrationError),
    /// The schema.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The catalog.
    #[error("the catalog can't be opened: {0}")]
    Catalog(#[from] crate::catalog::OpenError),
    /// A key.
    #[error(transparent)]
    Key(#[from] crate::catalog::ChangeError),
    /// There is no catalog, and so there are no keys.
    #[error("the data folder {0} has no catalog yet: `tally serve` makes it")]
    NoCatalog(String),
    /// The daemon holds the catalog.
    #[error(
        "a daemon is running on this folder: stop it first, or use the API: GET /api/v1/accounts/1, \
         POST /api/v1/accounts/1/keys/1/rotate"
    )]
    KeysInUse,
    /// What could not be repaired.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// Threads can't be had.
    #[error("the system refuses threads: {0}")]
    System(#[from] std::io::Error),
}

/// `tally audit`: fails unless everything is accounted for.
pub fn audit(config: &Config, json: bool, ops_url: Option<&str>) -> Result<ExitCode, CommandError> {
    DataDir::must_exist(&config.data_dir)?;
    // Told of no address, it asks only where a daemon runs on the folder: another one may listen on the default port.
    let runs = DataDir::is_held(&config.data_dir, "audit")?;
    let ops = match ops_url {
        Some(url) => Some(OpsAddress::parse(url)?),
        None => runs.then(|| OpsAddress::from(config.ops_listen)),
    };
    on_database(config, "audit", async |database| {
        let wal_dir = config.data_dir.join(super::LOG_FOLDER);
        let (data_dir, ops) = (&*config.data_dir, ops.as_ref());
        let audit = audit::audit(Subject {
            data_dir,
            wal_dir: &wal_dir,
            segment_bytes: super::SEGMENT_BYTES,
            database: &database,
            ops,
        })
        .await?;
        print!("{}", if json { audit.json() + "\n" } else { audit.table() });
        Ok(if audit.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// `tally migrate`.
pub fn migrate(config: &Config) -> Result<ExitCode, CommandError> {
    // A folder that is new begins here.
    if config.clickhouse_url.is_none() {
        match DataDir::take(&config.data_dir, "migrate") {
            Ok(_) | Err(DataDirError::InUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    on_database(config, "migrate", async |database| {
        let ran = database.migrate().await?;
        for name in &ran {
            println!("{name}");
        }
        if ran.is_empty() {
            println!("The schema is up to date.");
        }
        database.check().await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// `tally check`: the configuration was read already; the schema is read back.
pub fn check(config: &Config) -> Result<ExitCode, CommandError> {
    if config.clickhouse_url.is_none() {
        crate::embedded::locate(config.libchdb.as_deref())?;
    }
    on_database(config, "check", async |database| {
        let pending = database.migrations_pending().await?;
        if pending.is_empty() {
            database.check().await?;
            println!("The configuration is valid, and the schema can be written exactly once.");
            Ok(ExitCode::SUCCESS)
        } else {
            println!(
                "The configuration is valid; to be run by `tally migrate` or the next start: {}",
                pending.join(", ")
            );
            Ok(ExitCode::FAILURE)
        }
    })
}

/// `tally dead-letters list`.
pub fn list_dead_letters(config: &Config, json: bool) -> Result<ExitCode, CommandError> {
    look_at_dead_letters(config)?;
    let letters = dead_letters::list(&Folder::new(&config.data_dir))?;
    if json {
        let rows: Vec<_> = letters.iter().map(LetterJson::from).collect();
        // These types have no map keys or floats that could fail.
        println!("{}", serde_json::to_string_pretty(&rows).unwrap_or_default());
    } else if letters.is_empty() {
        println!("There are no dead letters.");
    } else {
        println!("{:<24}{:<26}{:<12}{:<38}reason", "id", "refused at", "kind", "about");
        for letter in &letters {
            let Summary { id, kind, refused_at, about, reason, .. } = letter;
            println!("{id:<24}{refused_at:<26}{kind:<12}{about:<38}{reason}");
        }
        println!(
            "\nMend them in {}, then `tally dead-letters replay`.",
            config.data_dir.join("dead-letters").display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// `tally dead-letters replay`: those named, or all.
pub fn replay_dead_letters(config: &Config, ids: &[String]) -> Result<ExitCode, CommandError> {
    look_at_dead_letters(config)?;
    let some = (!ids.is_empty()).then_some(ids);
    let count = dead_letters::replay(&Folder::new(&config.data_dir), some)?;
    println!("{count} on their way again; a running daemon takes them up at once, another one at its start.");
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct LetterJson<'a> {
    id: &'a str,
    refused_at: &'a str,
    code: Option<i32>,
    reason: &'a str,
    kind: &'static str,
    about: &'a str,
}

impl<'a> From<&'a Summary> for LetterJson<'a> {
    fn from(letter: &'a Summary) -> Self {
        Self {
            id: &letter.id,
            refused_at: &letter.refused_at,
            code: letter.code,
            reason: &letter.reason,
            kind: letter.kind,
            about: &letter.about,
        }
    }
}

/// `tally repair`: says what is wrong with the folder, and gives up what is named.
pub fn repair(config: &Config, losses: &[Loss]) -> Result<ExitCode, CommandError> {
    for line in data_dir::repair(config, losses)? {
        println!("{line}");
    }
    println!("The data folder is complete; the database is looked at when the daemon starts.");
    Ok(ExitCode::SUCCESS)
}

/// Fails where dead letters are missing rather than none.
fn look_at_dead_letters(config: &Config) -> Result<(), CommandError> {
    DataDir::must_exist(&config.data_dir)?;
    Ok(DataDir::dead_letters_are_there(&config.data_dir)?)
}

/// Runs `work` on the configured server, on the engine of the daemon that runs on the folder, or on one that is
/// started for it and stopped again.
pub(super) fn on_database<T>(
    config: &Config,
    command: &str,
    work: impl AsyncFnOnce(Database) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if config.clickhouse_url.is_some() {
            // Beside a running daemon the folder is that one's to look at.
            if DataDir::must_exist(&config.data_dir).is_ok() {
                match DataDir::take_existing(&config.data_dir, command) {
                    Ok(folder) => folder.examine(false).map(drop)?,
                    Err(DataDirError::InUse { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            return work(Warehouse::start(config, false)?.database()).await;
        }
        match DataDir::take_existing(&config.data_dir, command) {
            Err(DataDirError::InUse { holder, .. }) if holder.starts_with(data_dir::SERVE) => {
                let unknown = |error: EndpointError| CommandError::RunningEngine(error.to_string());
                let url = std::fs::read_to_string(config.data_dir.join(WRITER_FILE))
                    .map_err(|error| CommandError::RunningEngine(format!("{WRITER_FILE}: {error}")))?;
                let endpoint = Endpoint::parse(&url).map_err(unknown)?;
                work(Database::new(endpoint, Timeouts::default())).await
            }
            Err(error) => Err(error.into()),
            Ok(folder) => {
                // An engine that is started on a folder without its files would make new ones.
                folder.examine(true)?;
                crate::embedded::locate(config.libchdb.as_deref())?;
                let warehouse = Warehouse::start(config, folder.database() == DatabaseUse::New)?;
                warehouse.ready(ENGINE_READY_WITHIN).await?;
                let outcome = work(warehouse.database()).await;
                warehouse.stop().await;
                outcome
            }
        }
    })
}
