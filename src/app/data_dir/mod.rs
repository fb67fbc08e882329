//! The data folder: one process at a time, private, and either new or complete.
//!
//! A folder is *new* (missing or empty), *tally's* (it has `installation.json`, or is of a version before that file), or
//! somebody else's, which is refused and left as it is. A new one is initialised before the first hit is taken, and a
//! first start that was killed goes on where it was. One in use must be complete (`contents`): what is missing from it is
//! never made again in silence. An operator who accepts a loss says so once, by `tally repair` (`repair`).

mod contents;
mod installation;
mod lock;
mod modes;
mod repair;

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use uuid::Uuid;

pub use self::{contents::Problem, repair::RepairError};
use self::{
    contents::{Expected, SECRET_FILE},
    installation::{FolderState, INSTALLATION_FILE, Installation},
    lock::{LOCK_FILE, Lock, LockError},
};
pub(crate) use self::{installation::DatabaseUse, lock::SERVE, repair::repair};
use crate::{
    app::{ENGINE_FOLDER, LOG_FOLDER, SEGMENT_BYTES},
    catalog,
    core::{BatchId, Kind},
    dedup::SECRET_BYTES,
    durable_file, intake, postback,
    shipper::{BATCHES_FOLDER, CHECKPOINT_FILE, Checkpoint, DEAD_LETTERS_FOLDER},
};

/// Room for a first start: the log's first segment, the other files, and the schema of an embedded ClickHouse.
const FIRST_START_BYTES_MIN: u64 = SEGMENT_BYTES + (16 << 20);
/// What is found in folders of versions before `installation.json`.
const PARTS_OF_EARLIER_VERSIONS: [&str; 10] = [
    CHECKPOINT_FILE,
    catalog::LEGACY_FILE_NAME,
    catalog::FILE_NAME,
    LOG_FOLDER,
    ENGINE_FOLDER,
    postback::FILE_NAME,
    BATCHES_FOLDER,
    DEAD_LETTERS_FOLDER,
    intake::CLICK_IDS_FILE,
    intake::VISITOR_KEYS_FILE,
];
/// What a folder that counts as empty may hold: the root of a file system, and what a kill left of a first start.
const IGNORED: [&str; 8] = [
    "lost+found",
    LOCK_FILE,
    "installation.json.new",
    SECRET_FILE,
    "secret.key.new",
    "writer.url",
    "reader.url",
    "engine",
];

/// A folder that this process alone may write.
pub(crate) struct DataDir {
    path: PathBuf,
    installation: Mutex<Installation>,
    /// `installation.json` is not there.
    earlier_version: bool,
    _lock: Lock,
}

/// The folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Not readable, not writable, or not a folder.
    #[error("{path} can't be used: {source}", path = path.display())]
    Io {
        /// The folder or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another tally runs on it.
    #[error("the data folder {path} is in use by another tally ({holder})", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its subcommand and process id.
        holder: String,
    },
    /// There is no installation in it, and the subcommand does not make one.
    #[error("{path} is not a data folder of tally: `tally serve` makes one, or name another with --data-dir", path = path.display())]
    NoInstallation {
        /// The folder.
        path: PathBuf,
    },
    /// It holds files of something else.
    #[error(
        "{path} is not empty and not a data folder of tally (it holds {found}): nothing was changed; name an empty or new \
         folder with --data-dir", path = path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// One of its files.
        found: String,
    },
    /// Parts are missing or damaged.
    #[error("the data folder {path} is not complete, and no hit is taken:{list}", path = path.display(), list = list(problems))]
    Incomplete {
        /// The folder.
        path: PathBuf,
        /// Which parts.
        problems: Vec<Problem>,
    },
    /// There is too little room to begin.
    #[error(
        "the disk of {path} has {free} bytes free, and a first start needs {needed}: make room, or name a folder on another \
         disk with --data-dir", path = path.display()
    )]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// Strangers can write it, and that can't be changed.
    #[error("every user can write the data folder {path}, and its mode can't be changed ({source}): chmod 700 it, or name another with --data-dir", path = path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Why its mode can't be changed.
        source: io::Error,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |list, problem| list + "\n  " + &problem.to_string())
}

/// What lies at a path.
enum Found {
    /// Nothing, or an empty folder.
    Nothing,
    /// An installation.
    Installation(Box<Installation>),
    /// One of a version before `installation.json`.
    EarlierVersion,
    /// Something else's files; the first of them.
    Foreign(String),
}

impl DataDir {
    /// Takes the folder for this process, which is at `work`. A new one is made (mode 0700), and its first start begins.
    pub(crate) fn take(path: &Path, work: &str) -> Result<Self, DataDirError> {
        match look(path).map_err(io_at(path))? {
            Found::Foreign(found) => return Err(DataDirError::Foreign { path: path.to_owned(), found }),
            Found::Nothing => {
                DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_at(path))?;
            }
            Found::Installation(_) | Found::EarlierVersion => {}
        }
        Self::lock(path, work, true)
    }

    /// Takes the folder of an installation for a subcommand; nothing is made.
    pub(crate) fn take_existing(path: &Path, work: &str) -> Result<Self, DataDirError> {
        Self::must_exist(path)?;
        Self::lock(path, work, false)
    }

    /// Fails where there is no installation; for what needs no lock.
    pub(crate) fn must_exist(path: &Path) -> Result<(), DataDirError> {
        match look(path).map_err(io_at(path))? {
            Found::Installation(_) | Found::EarlierVersion => Ok(()),
            Found::Nothing | Found::Foreign(_) => Err(DataDirError::NoInstallation { path: path.to_owned() }),
        }
    }

    /// Whether a process works on the folder that is not a subcommand about to end.
    pub(crate) fn is_held(path: &Path, work: &str) -> Result<bool, DataDirError> {
        match lock::take(path, work) {
            Ok(_free) => Ok(false),
            Err(LockError::Held(_)) => Ok(true),
            Err(LockError::Io(source)) => Err(io_at(&path.join(LOCK_FILE))(source)),
        }
    }

    /// Fails where the folder of dead letters is missing although there were some.
    pub(crate) fn dead_letters_are_there(path: &Path) -> Result<(), DataDirError> {
        match contents::dead_letters_fault(path) {
            None => Ok(()),
            Some(problem) => Err(DataDirError::Incomplete { path: path.to_owned(), problems: vec![problem] }),
        }
    }

    fn lock(path: &Path, work: &str, begin: bool) -> Result<Self, DataDirError> {
        let lock = lock::take(path, work).map_err(|error| match error {
            LockError::Held(holder) => DataDirError::InUse { path: path.to_owned(), holder },
            LockError::Io(source) => io_at(&path.join(LOCK_FILE))(source),
        })?;
        // Looked at again: it may have been another process's a moment ago.
        let (installation, earlier_version) = match look(path).map_err(io_at(path))? {
            Found::Installation(installation) => (*installation, false),
            Found::EarlierVersion => (Installation::of_earlier_version(), true),
            Found::Nothing if begin => {
                room_for_first_start(path)?;
                let new = Installation::new();
                new.store(path).map_err(io_at(&path.join(INSTALLATION_FILE)))?;
                (new, false)
            }
            Found::Nothing | Found::Foreign(_) => {
                return Err(DataDirError::NoInstallation { path: path.to_owned() });
            }
        };
        if installation.state == FolderState::Initialising && begin {
            room_for_first_start(path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            installation: Mutex::new(installation),
            earlier_version,
            _lock: lock,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its first start is not done: no hit was ever taken, and what is missing is made.
    pub(crate) fn is_initialising(&self) -> bool {
        self.installation.lock().state == FolderState::Initialising
    }

    /// Refuses a folder in use with a part missing or damaged. `None`: it has no checkpoint yet. That is so while it is
    /// initialised; in a folder of an earlier version it is to be decided by what the database holds.
    pub(crate) fn examine(&self, embedded: bool) -> Result<Option<Checkpoint>, DataDirError> {
        if self.is_initialising() {
            return Ok(None);
        }
        let engine = embedded && self.database() != DatabaseUse::New;
        let expected = Expected { engine, earlier_version: self.earlier_version };
        let examined = contents::examine(&self.path, expected);
        examined.map_err(|problems| DataDirError::Incomplete { path: self.path.clone(), problems })
    }

    /// Takes other users' rights from what was there before.
    pub(crate) fn make_private(&self) -> Result<(), DataDirError> {
        let path = self.path.clone();
        let done = modes::make_private(&path, self.earlier_version)
            .map_err(|source| DataDirError::Exposed { path, source })?;
        if done.changed > 0 {
            tracing::warn!(
                files = done.changed,
                data_dir = %self.path.display(),
                "other users could read the data folder; files and folders were made private"
            );
        }
        if done.folder_stays_open {
            tracing::warn!(
                data_dir = %self.path.display(),
                "other users can list the data folder, which belongs to another user; the files in it are private"
            );
        }
        Ok(())
    }

    /// The secret of this installation's hashes; made while the folder is initialised.
    pub(crate) fn secret(&self) -> Result<[u8; SECRET_BYTES], DataDirError> {
        let path = self.path.join(SECRET_FILE);
        if self.is_initialising() && !path.exists() {
            return make_secret(&path).map_err(io_at(&path));
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it does not hold a key of 32 bytes");
        let secret = std::fs::read(&path).and_then(|bytes| bytes.try_into().map_err(|_| wrong()));
        secret.map_err(io_at(&path))
    }

    /// Says that every file is there, so that from now on a missing one is a loss.
    pub(crate) fn finish_initialising(&self) -> Result<(), DataDirError> {
        self.change(|installation| installation.state = FolderState::InUse)
    }

    /// What is known of the database.
    pub(crate) fn database(&self) -> DatabaseUse {
        self.installation.lock().database
    }

    /// The installation's id; `None` in a folder of an earlier version whose database has not answered yet.
    pub(crate) fn installation_id(&self) -> Option<Uuid> {
        self.installation.lock().id
    }

    /// Rows of a kind that were inserted into databases before this one.
    pub(crate) fn rows_given_up(&self, kind: Kind) -> u64 {
        self.installation.lock().rows_given_up.of(kind)
    }

    /// Up to which batch the database may hold batches that the checkpoint does not know; `None`: whatever it holds.
    pub(crate) fn batches_accepted_through(&self) -> Option<BatchId> {
        let installation = self.installation.lock();
        (!installation.accept_batches).then_some(BatchId(installation.batches_accepted_through))
    }

    /// Says that the database is checked and carries the id: from now on rows may be inserted, and an empty one is a loss.
    pub(crate) fn database_is_in_use(&self, id: Uuid, newest_batch: BatchId) -> Result<(), DataDirError> {
        self.change(|installation| {
            installation.id = Some(id);
            installation.database = DatabaseUse::InUse;
            if installation.accept_batches {
                installation.batches_accepted_through = newest_batch.0;
                installation.accept_batches = false;
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Installation)) -> Result<(), DataDirError> {
        let mut installation = self.installation.lock();
        let mut changed = installation.clone();
        change(&mut changed);
        if changed == *installation && !self.earlier_version {
            return Ok(());
        }
        changed.store(&self.path).map_err(io_at(&self.path.join(INSTALLATION_FILE)))?;
        *installation = changed;
        Ok(())
    }
}

fn look(path: &Path) -> io::Result<Found> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    if names.iter().any(|name| name == INSTALLATION_FILE) {
        let loaded = Installation::load(path).map_err(|error| {
            let remedy = "restore it from a backup, or remove it if it is damaged: its content is found again in the database";
            io::Error::new(error.kind(), format!("{INSTALLATION_FILE}: {error}; {remedy}"))
        })?;
        return Ok(loaded.map_or(Found::Nothing, |installation| Found::Installation(Box::new(installation))));
    }
    if names.iter().any(|name| PARTS_OF_EARLIER_VERSIONS.contains(&name.as_str())) {
        return Ok(Found::EarlierVersion);
    }
    names.sort_unstable();
    let foreign = names.into_iter().find(|name| !IGNORED.contains(&name.as_str()));
    Ok(foreign.map_or(Found::Nothing, Found::Foreign))
}

fn room_for_first_start(path: &Path) -> Result<(), DataDirError> {
    let free = free_bytes(path).map_err(io_at(path))?;
    // A first start that was killed may have made the segment already.
    let made = path.join(LOG_FOLDER).exists();
    let needed = if made { FIRST_START_BYTES_MIN - SEGMENT_BYTES } else { FIRST_START_BYTES_MIN };
    if free < needed {
        return Err(DataDirError::NoRoom { path: path.to_owned(), free, needed });
    }
    Ok(())
}

/// What is free on the disk of the folder for this user.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn make_secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(io::Error::from)?;
    durable_file::replace(path, &secret)?;
    Ok(secret)
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_and_a_secret_that_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        assert!(matches!(DataDir::take_existing(&path, "audit"), Err(DataDirError::NoInstallation { .. })));
        assert!(!path.exists(), "a subcommand makes nothing");
        let first = DataDir::take(&path, SERVE).expect("free");
        let Err(DataDirError::InUse { holder, .. }) = DataDir::take(&path, SERVE) else {
            panic!("it is held")
        };
        assert!(holder.contains(SERVE) && holder.contains(&std::process::id().to_string()), "{holder}");
        let secret = first.secret().expect("made");
        first.finish_initialising().expect("stored");
        drop(first);
        let second = DataDir::take_existing(&path, "audit").expect("free again");
        assert_eq!(second.secret().expect("kept"), secret);
        for wrong in [Some(&b"short"[..]), None] {
            match wrong {
                Some(bytes) => std::fs::write(path.join(SECRET_FILE), bytes).expect("written"),
                None => std::fs::remove_file(path.join(SECRET_FILE)).expect("removed"),
            }
            assert!(second.secret().is_err(), "a secret in use is never made again");
        }
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(".bashrc"), "").expect("written");
        let taken = DataDir::take(folder.path(), SERVE);
        assert!(matches!(taken, Err(DataDirError::Foreign { ref found, .. }) if found == ".bashrc"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(ENGINE_FOLDER)).expect("made");
        let taken = DataDir::take(folder.path(), SERVE).expect("of an earlier version");
        let refused = taken.examine(true).expect_err("incomplete").to_string();
        for part in ["secret.key", "visitor-keys.json", "click-ids", "wal", "cuts", "outbox.redb"] {
            let path = folder.path().join(part).display().to_string();
            assert!(refused.contains(&format!("{path} is missing")), "{part}: {refused}");
        }
        assert!(refused.contains("clickhouse/metadata/tally.sql is missing"), "{refused}");
    }
}
