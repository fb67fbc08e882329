//! The file that holds the first key, for whoever owns the data folder.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::KEY_FILE_NAME;
use crate::durable_file;

/// The file; readable by its owner alone.
#[derive(Debug)]
pub(super) struct KeyFile(PathBuf);

impl KeyFile {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join(KEY_FILE_NAME))
    }

    /// Puts a key in the place of what it held, and returns that; none: there was no file.
    pub(super) fn replace(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let old = match std::fs::read(&self.0) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        durable_file::replace(&self.0, key.as_bytes())?;
        Ok(old)
    }

    /// Puts back what it held.
    pub(super) fn restore(&self, old: Option<Vec<u8>>) -> io::Result<()> {
        match old {
            Some(old) => durable_file::replace(&self.0, &old),
            None => std::fs::remove_file(&self.0),
        }
    }
}
