//! What a data folder in use must contain, and what a missing or damaged part of it means.
//!
//! The one place that knows: everything is looked at before the first hit is taken, and each finding names the file, the
//! reason and the remedy. What can be made from something else is not in the list: `catalog.redb` (from its copy in
//! ClickHouse), `filter.snapshot` and `past-clicks/` (from ClickHouse), the engine's addresses and passwords.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    app::{ENGINE_FOLDER, LOG_FOLDER},
    cli::Loss,
    dedup::SECRET_BYTES,
    embedded, intake, postback,
    shipper::{BATCHES_FOLDER, CHECKPOINT_FILE, Checkpoint, DEAD_LETTERS_FOLDER, Folder, FolderError},
};

pub(super) const SECRET_FILE: &str = "secret.key";

/// A part of the data folder that nothing else can replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    SecretKey,
    VisitorKeys,
    ClickIds,
    Checkpoint,
    Log,
    Batches,
    AttributionRun,
    DeadLetters,
    Outbox,
    ClickHouse,
}

impl Part {
    const ALL: [Self; 9] = [
        Self::SecretKey,
        Self::VisitorKeys,
        Self::ClickIds,
        Self::Checkpoint,
        Self::Log,
        Self::Batches,
        Self::DeadLetters,
        Self::Outbox,
        Self::ClickHouse,
    ];

    /// Its name in the data folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SecretKey => SECRET_FILE,
            Self::VisitorKeys => intake::VISITOR_KEYS_FILE,
            Self::ClickIds => intake::CLICK_IDS_FILE,
            Self::Checkpoint => CHECKPOINT_FILE,
            Self::Log => LOG_FOLDER,
            Self::Batches => BATCHES_FOLDER,
            Self::AttributionRun => "attribution-run",
            Self::DeadLetters => DEAD_LETTERS_FOLDER,
            Self::Outbox => postback::FILE_NAME,
            Self::ClickHouse => ENGINE_FOLDER,
        }
    }

    /// What it is for, and what a start without it would do.
    fn purpose(self) -> &'static str {
        match self {
            Self::SecretKey => {
                "order ids are hashed with it, and with another one old orders would count a second time"
            }
            Self::VisitorKeys => {
                "visitors are hashed with its keys, and with others their earlier clicks are not found any more"
            }
            Self::ClickIds => "it says which click ids were issued, and without it one could be issued twice",
            Self::Checkpoint => {
                "it says which hits of the log are in ClickHouse, and without it all of them would be inserted a second \
                 time"
            }
            Self::Log => "acknowledged hits that are not in ClickHouse yet are in it",
            Self::Batches => {
                "batches that may be in ClickHouse are in it, and without them their hits would be inserted a second time"
            }
            Self::AttributionRun => {
                "it names the newest attribution run, which later decisions are made beside"
            }
            Self::DeadLetters => "rows that ClickHouse refused are in it",
            Self::Outbox => "webhooks that wait to be delivered are in it",
            Self::ClickHouse => "everything that was shipped is in it",
        }
    }

    /// How an operator may go on without it.
    pub(super) fn loss(self) -> Option<Loss> {
        match self {
            Self::SecretKey => Some(Loss::SecretKey),
            Self::VisitorKeys => Some(Loss::VisitorKeys),
            Self::ClickIds => Some(Loss::ClickIds),
            Self::Checkpoint => Some(Loss::Checkpoint),
            Self::Log => Some(Loss::Log),
            Self::Batches => Some(Loss::Batches),
            Self::AttributionRun => None,
            Self::DeadLetters => Some(Loss::DeadLetters),
            Self::Outbox => Some(Loss::Outbox),
            Self::ClickHouse => Some(Loss::ClickHouse),
        }
    }
}

/// A part that is missing or damaged.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(super) part: Part,
    /// Which file or folder.
    pub(super) path: PathBuf,
    /// What is wrong with it: completes 'the file …'.
    pub(super) fault: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, path, fault } = self;
        write!(f, "{} {fault}: {}. ", path.display(), part.purpose())?;
        write!(f, "Restore it from a backup of the data folder")?;
        match part.loss() {
            Some(loss) => write!(
                f,
                ", or give up {} by `tally repair --accept-loss {}`",
                loss.given_up(),
                loss.as_str()
            ),
            None => Ok(()),
        }
    }
}

/// What is known of the folder beside its files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The database is the embedded one and holds what was shipped.
    pub(super) engine: bool,
    /// A version before `installation.json` made the folder: it may have no checkpoint as nothing was shipped yet.
    pub(super) earlier_version: bool,
}

/// Looks at everything and changes nothing. The checkpoint is `None` only in a folder of an earlier version.
pub(super) fn examine(folder: &Path, expected: Expected) -> Result<Option<Checkpoint>, Vec<Problem>> {
    let mut problems = Vec::new();
    let files = Folder::new(folder);
    let mut checkpoint = None;
    for part in Part::ALL {
        let path = folder.join(part.name());
        let mut found = |path: PathBuf, fault: String| problems.push(Problem { part, path, fault });
        match part {
            Part::Checkpoint => match files.load_checkpoint() {
                Ok(loaded) => checkpoint = Some(loaded),
                Err(FolderError::Checkpoint { source: crate::shipper::CheckpointError::Missing, .. }) => {
                    if !expected.earlier_version {
                        found(path, MISSING.into());
                    }
                }
                Err(error) => found(path, fault_of(&error)),
            },
            // By the checkpoint, whose own fault is reported.
            Part::DeadLetters => problems.extend(dead_letters_fault(folder)),
            Part::ClickHouse if !expected.engine => {}
            Part::ClickHouse => {
                if let Some((path, fault)) = engine_fault(folder, &path) {
                    found(path, fault);
                }
            }
            _ if !path.exists() => found(path, MISSING.into()),
            Part::SecretKey => match std::fs::read(&path) {
                Ok(key) if key.len() == SECRET_BYTES => {}
                Ok(_) => found(path, format!("does not hold a key of {SECRET_BYTES} bytes")),
                Err(error) => found(path, format!("can't be read ({error})")),
            },
            Part::Log => match crate::wal::has_segments(&path) {
                Ok(true) => {}
                Ok(false) => found(path, "has no segments".into()),
                Err(error) => found(path, format!("can't be read ({error})")),
            },
            Part::Batches => {
                if let Err((path, fault)) = batches(&files, checkpoint.as_ref(), &path) {
                    found(path, fault);
                }
            }
            Part::VisitorKeys | Part::ClickIds | Part::Outbox | Part::AttributionRun => {}
        }
    }
    if let Err(error) = files.attribution_run() {
        let (part, path) = (Part::AttributionRun, folder.join(Part::AttributionRun.name()));
        problems.push(Problem { part, path, fault: fault_of(&error) });
    }
    if problems.is_empty() { Ok(checkpoint) } else { Err(problems) }
}

const MISSING: &str = "is missing";

/// The folder of dead letters is missing, and by the checkpoint there were some.
pub(super) fn dead_letters_fault(folder: &Path) -> Option<Problem> {
    let (part, path) = (Part::DeadLetters, folder.join(DEAD_LETTERS_FOLDER));
    if path.is_dir() {
        return None;
    }
    let totals = Folder::new(folder).load_checkpoint().ok()?.totals;
    let rows =
        totals.kinds.0.iter().map(|kind| kind.dead_lettered).sum::<u64>() + totals.refusals_dead_lettered;
    (rows > 0).then(|| Problem { part, path, fault: format!("is missing, with {rows} rows") })
}

/// Every batch that is not settled can be read, and so can the number of its last attempt.
fn batches(files: &Folder, checkpoint: Option<&Checkpoint>, folder: &Path) -> Result<(), (PathBuf, String)> {
    let at = |error: &FolderError| match error {
        FolderError::Io { path, .. }
        | FolderError::Cut { path, .. }
        | FolderError::Number(path)
        | FolderError::Generations(path) => (path.clone(), fault_of(error)),
        FolderError::Checkpoint { .. } => (folder.to_owned(), fault_of(error)),
    };
    let settled = checkpoint.map(|checkpoint| checkpoint.settled);
    for id in files.cut_ids().map_err(|error| at(&error))? {
        if settled.is_some_and(|settled| id <= settled) {
            continue;
        }
        files.load_cut(id).map_err(|error| at(&error))?;
        files.generation(id).map_err(|error| at(&error))?;
    }
    Ok(())
}

fn engine_fault(folder: &Path, path: &Path) -> Option<(PathBuf, String)> {
    for needed in [path.to_owned(), path.join("metadata/tally.sql"), path.join("store")] {
        if !needed.exists() {
            return Some((needed, MISSING.into()));
        }
    }
    let empty = embedded::half_made_file(folder)?;
    let fault = "is empty, so the engine can't start: the disk was full when it was written".to_owned();
    Some((empty, fault))
}

/// What an error says of a file, without repeating the file's name and the remedy.
fn fault_of(error: &FolderError) -> String {
    match error {
        FolderError::Io { source, .. } => format!("can't be read ({source})"),
        FolderError::Cut { source, .. } => format!("is not usable ({source})"),
        FolderError::Number(_) => "does not hold a number".to_owned(),
        FolderError::Generations(_) => "holds the last number that there is".to_owned(),
        FolderError::Checkpoint { source, .. } => match source {
            crate::shipper::CheckpointError::Missing => MISSING.to_owned(),
            crate::shipper::CheckpointError::Damaged => "is damaged".to_owned(),
            other => format!("is not usable ({other})"),
        },
    }
}
