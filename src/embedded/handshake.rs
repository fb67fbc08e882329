//! What parent and child say to each other: one line of JSON to the child's standard input, then [`QUESTION`] now and
//! then, and lines from its standard output. The end of the input tells the child to stop.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The library prints to standard output as it likes; our lines begin with this.
pub(crate) const PREFIX: &str = "tally-engine ";

/// Whether the child works; it answers [`Report::Alive`]. These pipes are the parent's alone: no stranger can fill them,
/// and asking needs no file descriptor.
pub(crate) const QUESTION: &str = "alive?\n";

/// Everything that the child needs. It holds passwords: never to be logged, and never on a command line.
#[derive(Serialize, Deserialize)]
pub(crate) struct Order {
    /// The child ends at once if its parent is another process by now.
    pub(crate) parent: u32,
    pub(crate) data_dir: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) port: u16,
    pub(crate) writer_password: String,
    pub(crate) reader_password: String,
    pub(crate) memory_bytes_max: u64,
    pub(crate) reader_grants: Vec<String>,
    /// What may be done with a database that can't be opened.
    pub(crate) database: ExistingDatabase,
}

/// What is known of the files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ExistingDatabase {
    /// They hold what was inserted.
    Kept,
    /// Nothing was ever inserted: they are left by a start that was broken off, and removed.
    Unused,
    /// The same, but this start began them: they are removed if they can't be opened.
    Begun,
}

/// What the child reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It serves on this port, which is another than ordered if that was taken.
    Ready { port: u16, version: String, repaired: usize },
    /// The answer to [`QUESTION`].
    Alive,
    /// It ends; why.
    Failed { reason: String },
}
