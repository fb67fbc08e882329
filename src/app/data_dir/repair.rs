//! `tally repair`: says what is wrong with a data folder, and gives up what an operator accepts to lose.
//!
//! A subcommand that is run once and not a setting of `serve`: a setting would stay in a unit file and accept the next
//! loss, too. What is left of a part that is given up is moved aside, not removed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    DataDir, DataDirError, DatabaseUse,
    contents::{Part, SECRET_FILE},
    io_at, make_secret,
};
use crate::{
    cli::Loss,
    clock::{Clock as _, SystemClock},
    config::Config,
    core::PerKind,
    durable_file,
    intake::{ClickIds, ClickIdsError, VisitorKeysError, Visitors},
    postback::{Outbox, OutboxError},
    shipper::{Checkpoint, Folder, FolderError},
    wal::{self, Position, Wal},
};

/// A repair could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The data folder, or what is wrong with it.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The first start is not done: nothing can be lost.
    #[error("the first start of {0} is not done, so that nothing is lost: `tally serve` goes on with it")]
    NotInUse(PathBuf),
    /// The log can't be given up alone.
    #[error(
        "batches of this log are not shipped yet: give them up too, by --accept-loss log --accept-loss batches"
    )]
    BatchesLeft,
    /// A new log can't be begun without a checkpoint.
    #[error("{0}: give it up too, by --accept-loss checkpoint")]
    Checkpoint(FolderError),
    /// The shipper's files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The new log.
    #[error("the new log can't be made: {0}")]
    Log(#[from] wal::OpenError),
    /// The new keys of visitors.
    #[error(transparent)]
    VisitorKeys(#[from] VisitorKeysError),
    /// The new lease of click ids.
    #[error(transparent)]
    ClickIds(#[from] ClickIdsError),
    /// The new outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

/// Gives up what is in `losses`, then looks at the folder again. Returns a line for each thing that was done.
pub(crate) fn repair(config: &Config, losses: &[Loss]) -> Result<Vec<String>, RepairError> {
    let folder = DataDir::take_existing(&config.data_dir, "repair")?;
    if folder.is_initialising() {
        return Err(RepairError::NotInUse(config.data_dir.clone()));
    }
    let mut done = Vec::new();
    // In an order in which what comes later finds what it needs.
    for loss in Loss::ALL.into_iter().filter(|loss| losses.contains(loss)) {
        let moved = Repair { config, folder: &folder, losses }.give_up(loss)?;
        done.push(match moved {
            Some(to) => format!("Gave up {}; what was left of it is in {}.", loss.given_up(), to.display()),
            None => format!("Gave up {}.", loss.given_up()),
        });
    }
    folder.examine(config.clickhouse_url.is_none())?;
    Ok(done)
}

struct Repair<'a> {
    config: &'a Config,
    folder: &'a DataDir,
    losses: &'a [Loss],
}

impl Repair<'_> {
    /// Replaces a part by a new one. Says where the old one is now.
    fn give_up(&self, loss: Loss) -> Result<Option<PathBuf>, RepairError> {
        let path = self.folder.path();
        let files = Folder::new(path);
        match loss {
            Loss::Checkpoint => {
                let moved = self.move_aside(&[Part::Checkpoint, Part::Log, Part::Batches])?;
                files.initialise()?;
                self.begin_log()?;
                self.folder.change(|installation| installation.accept_batches = true)?;
                Ok(moved)
            }
            // Done with the checkpoint already.
            Loss::Log | Loss::Batches if self.losses.contains(&Loss::Checkpoint) => Ok(None),
            Loss::Batches => {
                let moved = self.move_aside(&[Part::Batches])?;
                files.create()?;
                self.folder.change(|installation| installation.accept_batches = true)?;
                Ok(moved)
            }
            Loss::Log => {
                let checkpoint = files.load_checkpoint().map_err(RepairError::Checkpoint)?;
                if files.cut_ids()?.iter().any(|id| *id > checkpoint.settled) {
                    return Err(RepairError::BatchesLeft);
                }
                let moved = self.move_aside(&[Part::Log])?;
                self.begin_log()?;
                let begin = Checkpoint { position: Position::START, ahead: PerKind::default(), ..checkpoint };
                files.store_checkpoint(&begin)?;
                Ok(moved)
            }
            Loss::DeadLetters => {
                let moved = self.move_aside(&[Part::DeadLetters])?;
                files.create()?;
                Ok(moved)
            }
            Loss::SecretKey => {
                let moved = self.move_aside(&[Part::SecretKey])?;
                let file = path.join(SECRET_FILE);
                make_secret(&file).map_err(io_at(&file))?;
                Ok(moved)
            }
            Loss::VisitorKeys => {
                let moved = self.move_aside(&[Part::VisitorKeys])?;
                let (days, private) = (self.config.click_retention_days, self.config.match_private_addresses);
                Visitors::open(path, days, private, SystemClock.now(), None)?;
                Ok(moved)
            }
            Loss::ClickIds => {
                let moved = self.move_aside(&[Part::ClickIds])?;
                ClickIds::open(path, SystemClock.now())?;
                Ok(moved)
            }
            Loss::Outbox => {
                let moved = self.move_aside(&[Part::Outbox])?;
                Outbox::open(&path.join(Part::Outbox.name()))?;
                Ok(moved)
            }
            Loss::ClickHouse => {
                let totals = files.load_checkpoint().map_err(RepairError::Checkpoint)?.totals;
                let inserted = PerKind(totals.kinds.0.map(|kind| kind.inserted));
                let embedded = self.config.clickhouse_url.is_none();
                let moved = if embedded { self.move_aside(&[Part::ClickHouse])? } else { None };
                self.folder.change(|installation| {
                    installation.database = if embedded { DatabaseUse::New } else { DatabaseUse::Adopt };
                    installation.rows_given_up = inserted.into();
                    installation.accept_batches = !embedded;
                })?;
                Ok(moved)
            }
        }
    }

    /// Moves what is there of these parts into a folder of its own in the data folder.
    fn move_aside(&self, parts: &[Part]) -> Result<Option<PathBuf>, DataDirError> {
        let path = self.folder.path();
        let to = path.join(format!("given-up-{}", SystemClock.now().0));
        let mut moved = false;
        for part in parts {
            let (from, to_file) = (path.join(part.name()), to.join(part.name()));
            if from.symlink_metadata().is_err() {
                continue;
            }
            let step = |to: &Path| -> io::Result<()> {
                fs::create_dir_all(to)?;
                fs::rename(&from, &to_file)?;
                durable_file::sync_parent(&to_file)?;
                durable_file::sync_parent(&from)
            };
            step(&to).map_err(io_at(&from))?;
            moved = true;
        }
        Ok(moved.then_some(to))
    }

    /// Makes an empty log.
    fn begin_log(&self) -> Result<(), RepairError> {
        let log = wal::Config { appenders: 1, ..super::super::log_config(self.config) };
        Wal::open(log, Position::START)?.close();
        Ok(())
    }
}
