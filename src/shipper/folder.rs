//! The shipper's files, and nowhere else their names.
//!
//! ```text
//! DIR/checkpoint                     how far everything is settled
//! DIR/attribution-run                the newest run of attribution over history
//! DIR/cuts/<batch>.cut               a batch, immutable
//! DIR/cuts/<batch>.generation        under which token it was last sent, once that is not the first
//! DIR/dead-letters/<batch>-<n>.json  a refused row
//! DIR/dead-letters/replay/….json     the same, on its way again
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    checkpoint::{Checkpoint, CheckpointError},
    cut::{Cut, CutError},
};
use crate::{
    core::{BatchId, RunId},
    durable_file,
};

/// A data folder, as the shipper sees it.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    #[cfg(test)]
    pub(super) fuse: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

/// A file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The disk does not answer, or is full.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A cut is damaged.
    #[error("{path}: {source}")]
    Cut {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: CutError,
    },
    /// The checkpoint is missing or damaged.
    #[error("{path}: {source}")]
    Checkpoint {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: CheckpointError,
    },
    /// A file that should hold a number does not.
    #[error("{0}: not a number; restore it from a backup of the data folder")]
    Number(PathBuf),
    /// A batch was lost by the database more often than there are tokens for it.
    #[error(
        "{0}: ClickHouse lost the batch again and again, and there is no further token for it; check its disk"
    )]
    Generations(PathBuf),
}

/// The checkpoint's file in the data folder.
pub const CHECKPOINT_FILE: &str = "checkpoint";
/// The folder of batches in the data folder.
pub const BATCHES_FOLDER: &str = "cuts";
/// The folder of dead letters in the data folder.
pub const DEAD_LETTERS_FOLDER: &str = "dead-letters";
const ATTRIBUTION_RUN_FILE: &str = "attribution-run";
/// Tokens beyond this are not made, and none is used again: each took a loss of a whole batch on the server.
const GENERATION_MAX: u32 = 1_000_000;

impl Folder {
    /// Of that data folder; nothing is made.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.to_owned(),
            #[cfg(test)]
            fuse: std::sync::Arc::new(i64::MAX.into()),
        }
    }

    /// The data folder.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.root
    }

    /// Makes the folders, and the checkpoint of a log of which nothing is shipped, where they are missing: for a folder that
    /// has not taken a hit yet.
    pub fn initialise(&self) -> Result<(), FolderError> {
        self.create()?;
        match self.load_checkpoint() {
            Err(FolderError::Checkpoint { source: CheckpointError::Missing, .. }) => {
                self.store_checkpoint(&Checkpoint::NEW)
            }
            loaded => loaded.map(drop),
        }
    }

    /// Makes the folders.
    pub fn create(&self) -> Result<(), FolderError> {
        for path in [self.cuts(), self.replay()] {
            fs::create_dir_all(&path).map_err(at(&path))?;
            durable_file::sync_parent(&path).map_err(at(&path))?;
        }
        durable_file::sync_parent(&self.cuts()).map_err(at(&self.root))
    }

    /// Removes what a kill left of a cut that was being written. To be called before any is.
    pub fn remove_unfinished(&self) -> Result<(), FolderError> {
        for name in file_names(&self.cuts())?.iter().filter(|name| name.ends_with(durable_file::UNFINISHED)) {
            let path = self.cuts().join(name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    /// The checkpoint.
    pub fn load_checkpoint(&self) -> Result<Checkpoint, FolderError> {
        let path = self.root.join(CHECKPOINT_FILE);
        Checkpoint::load(&path).map_err(|source| FolderError::Checkpoint { path, source })
    }

    /// Replaces the checkpoint.
    pub fn store_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), FolderError> {
        let path = self.root.join(CHECKPOINT_FILE);
        self.burn(&path)?;
        checkpoint.store(&path).map_err(at(&path))
    }

    /// The cuts on disk, oldest first.
    pub fn cut_ids(&self) -> Result<Vec<BatchId>, FolderError> {
        let mut ids: Vec<_> = file_names(&self.cuts())?
            .iter()
            .filter_map(|name| name.strip_suffix(".cut")?.parse().ok().map(BatchId))
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Whether there is a cut of that id.
    #[must_use]
    pub fn has_cut(&self, id: BatchId) -> bool {
        // Of a folder that can't be read nothing is known: then the cut can't be written either, and says why.
        self.cut_path(id).exists()
    }

    /// Makes a cut durable.
    pub fn store_cut(&self, cut: &Cut) -> Result<(), FolderError> {
        let path = self.cut_path(cut.batch_id);
        self.burn(&path)?;
        durable_file::replace(&path, &cut.encode()).map_err(at(&path))
    }

    /// Reads a cut.
    pub fn load_cut(&self, id: BatchId) -> Result<Cut, FolderError> {
        let path = self.cut_path(id);
        let bytes = Bytes::from(fs::read(&path).map_err(at(&path))?);
        Cut::decode(&bytes).map_err(|source| FolderError::Cut { path, source })
    }

    /// Removes a cut and what belongs to it. A cut that is gone already is fine.
    pub fn remove_cut(&self, id: BatchId) -> Result<(), FolderError> {
        for path in [self.cut_path(id), self.generation_path(id)] {
            self.burn(&path)?;
            remove(&path)?;
        }
        durable_file::sync_parent(&self.cut_path(id)).map_err(at(&self.cuts()))
    }

    /// Under which token a cut is sent: 0 until it had to be sent anew.
    pub fn generation(&self, id: BatchId) -> Result<u32, FolderError> {
        number(&self.generation_path(id))
    }

    /// Makes the next token a cut's, durably, before anything is sent under it.
    pub fn next_generation(&self, id: BatchId) -> Result<u32, FolderError> {
        let path = self.generation_path(id);
        let next = self.generation(id)? + 1;
        if next > GENERATION_MAX {
            return Err(FolderError::Generations(path));
        }
        self.burn(&path)?;
        durable_file::replace(&path, format!("{next}\n").as_bytes()).map_err(at(&path))?;
        Ok(next)
    }

    /// The newest run of attribution over history, whatever became of it; 0: there was none.
    pub fn attribution_run(&self) -> Result<RunId, FolderError> {
        number(&self.root.join(ATTRIBUTION_RUN_FILE)).map(RunId)
    }

    /// Makes a run the newest, durably: from the next cut on, decisions are made beside it.
    pub fn store_attribution_run(&self, run: RunId) -> Result<(), FolderError> {
        let path = self.root.join(ATTRIBUTION_RUN_FILE);
        durable_file::replace(&path, format!("{}\n", run.0).as_bytes()).map_err(at(&path))
    }

    /// The dead letters that lie still: their names without `.json`, in order.
    pub fn dead_letters(&self) -> Result<Vec<String>, FolderError> {
        letter_names(&self.dead())
    }

    /// The dead letters on their way again.
    pub fn replays(&self) -> Result<Vec<String>, FolderError> {
        letter_names(&self.replay())
    }

    /// Makes a dead letter durable.
    pub fn store_dead_letter(&self, name: &str, json: &[u8]) -> Result<(), FolderError> {
        let path = self.dead().join(format!("{name}.json"));
        self.burn(&path)?;
        durable_file::replace(&path, json).map_err(at(&path))
    }

    /// Reads a dead letter that lies still.
    pub fn read_dead_letter(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        let path = self.dead().join(format!("{name}.json"));
        fs::read(&path).map_err(at(&path))
    }

    /// Reads a dead letter on its way again.
    pub fn read_replay(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        let path = self.replay().join(format!("{name}.json"));
        fs::read(&path).map_err(at(&path))
    }

    /// Sends a dead letter on its way again. One that is gone already is fine.
    pub fn start_replay(&self, name: &str) -> Result<(), FolderError> {
        Self::shift(&self.dead(), &self.replay(), name)
    }

    /// Lays a dead letter down again.
    pub fn stop_replay(&self, name: &str) -> Result<(), FolderError> {
        Self::shift(&self.replay(), &self.dead(), name)
    }

    /// Forgets dead letters whose rows a cut holds now.
    pub fn remove_replays(&self, names: &[String]) -> Result<(), FolderError> {
        for name in names {
            let path = self.replay().join(format!("{name}.json"));
            self.burn(&path)?;
            remove(&path)?;
        }
        if names.is_empty() {
            Ok(())
        } else {
            durable_file::sync_parent(&self.replay().join("x")).map_err(at(&self.replay()))
        }
    }

    /// Forgets the dead letters of a cut that was inserted after all.
    pub fn remove_dead_letters_of(&self, id: BatchId) -> Result<(), FolderError> {
        let path = self.dead().join(format!("{}-0.json", id.0));
        if path.exists() {
            self.burn(&path)?;
            remove(&path)?;
            durable_file::sync_parent(&path).map_err(at(&path))?;
        }
        Ok(())
    }

    fn shift(from: &Path, to: &Path, name: &str) -> Result<(), FolderError> {
        let file = format!("{name}.json");
        fs::create_dir_all(to).map_err(at(to))?;
        match fs::rename(from.join(&file), to.join(&file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(at(&from.join(&file)))?,
        }
        durable_file::sync_parent(&to.join(&file)).map_err(at(to))?;
        durable_file::sync_parent(&from.join(&file)).map_err(at(from))
    }

    fn cuts(&self) -> PathBuf {
        self.root.join(BATCHES_FOLDER)
    }

    fn dead(&self) -> PathBuf {
        self.root.join(DEAD_LETTERS_FOLDER)
    }

    fn replay(&self) -> PathBuf {
        self.dead().join("replay")
    }

    fn cut_path(&self, id: BatchId) -> PathBuf {
        self.cuts().join(format!("{}.cut", id.0))
    }

    fn generation_path(&self, id: BatchId) -> PathBuf {
        self.cuts().join(format!("{}.generation", id.0))
    }

    /// Tests stop the shipper at any of its steps.
    #[cfg(test)]
    fn burn(&self, path: &Path) -> Result<(), FolderError> {
        use std::sync::atomic::Ordering;
        if self.fuse.fetch_sub(1, Ordering::SeqCst) <= 0 {
            return Err(at(path)(io::Error::other("crashed")));
        }
        Ok(())
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests have a fuse")]
    fn burn(&self, _: &Path) -> Result<(), FolderError> {
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<'_> {
    move |source| FolderError::Io { path: path.to_owned(), source }
}

fn remove(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// The number in a small file; 0 where there is none.
fn number(path: &Path) -> Result<u32, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|_| FolderError::Number(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(at(path)(error)),
    }
}

fn letter_names(path: &Path) -> Result<Vec<String>, FolderError> {
    let mut names: Vec<String> =
        file_names(path)?.iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The names in a folder; none where there is no folder yet.
fn file_names(path: &Path) -> Result<Vec<String>, FolderError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry.map_err(at(path))?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
