//! Clicks that are in ClickHouse, kept in files beside the log so that finding some of them costs the same among a million
//! and among twenty: by number and by visitor, always within an account.
//!
//! ClickHouse finds many random keys at a time by reading nearly every granule. Here each click has two entries, a hash of
//! its number and one of its visitor, in sorted tables that tell where its record is: a look-up reads one bucket of a table
//! and one record.
//!
//! ```text
//! settled batches ─▶ recent (memory) ──200,000──▶ records, appended │ table ─┐
//!                                                                  table ─┼─ merged with its neighbours, on another thread
//!                                                                  table ─┘
//! ```
//!
//! # Invariants
//!
//! - **It is a copy.** ClickHouse and the log hold the truth; whatever is wrong here, the whole folder may go and is made
//!   anew. Nothing is read from it before it is complete, and whoever asks meanwhile asks ClickHouse.
//! - **What the manifest lists is whole and durable before it is listed**, and never changes, except that records are
//!   appended behind what is listed. Everything else in the folder is unfinished or superseded and is removed.
//! - **The clicks of every settled batch up to [`PastClicks::through`] are in the listed files, each once.** Those of later
//!   batches are in memory, and after a start are read from ClickHouse again.
//! - **Nothing is believed unchecked**: every bucket and every record has a checksum, verified each time it is read.
//! - **Nothing says who a visitor is but a table's hashes**: to erase a person, [`void`] removes everything, and what is
//!   made anew comes from the tables that were erased.
//! - **Bounded**: on disk about 130 bytes a click that is kept, in memory the recent ones and about 3 bytes a click; a
//!   visitor with more clicks than a decision looks at is left to ClickHouse.

mod chunk;
mod entry;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod look_up;
mod manifest;
mod merge;
mod recent;
mod record;
#[cfg(test)]
mod samples;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

pub use self::{
    look_up::{Found, LookUp},
    store::PastClicks,
};
use crate::durable_file;

const FOLDER: &str = "past-clicks";
/// There: what is in the folder does not count any more.
const VOID_FILE: &str = "past-clicks.void";

/// The files can't be used. They are only a copy: give them up and make them anew.
#[derive(Debug, thiserror::Error)]
pub enum PastClicksError {
    /// The disk does not answer, or is full.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{path} is damaged", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// More clicks than a table can hold: two billion.
    #[error("there are more clicks than can be kept in files")]
    TooMany,
}

impl PastClicksError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// Makes everything that a data folder holds here void, and removes it. A running daemon notices with its next look, and
/// makes it anew from ClickHouse. To be called after the rows of ClickHouse have changed.
pub fn void(data_dir: &Path) -> io::Result<()> {
    durable_file::replace(&data_dir.join(VOID_FILE), b"")?;
    clear(&data_dir.join(FOLDER))
}

/// Whether somebody called for it.
fn is_void(data_dir: &Path) -> bool {
    data_dir.join(VOID_FILE).exists()
}

/// Removes everything in the folder, then what says that it is void: a kill in between removes it again.
fn give_up(data_dir: &Path) -> io::Result<()> {
    clear(&data_dir.join(FOLDER))?;
    gone(fs::remove_file(data_dir.join(VOID_FILE)))
}

/// What is not there need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The manifest goes first: without it nothing else counts.
fn clear(folder: &Path) -> io::Result<()> {
    gone(fs::remove_file(folder.join(manifest::MANIFEST_FILE)))?;
    match fs::read_dir(folder) {
        Ok(files) => files.into_iter().try_for_each(|file| gone(fs::remove_file(file?.path()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
