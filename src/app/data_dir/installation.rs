//! `installation.json`: what a data folder is, and how far its first start got.
//!
//! ```text
//! initialising ─(every file of a new folder is there)─▶ in_use        no hit is taken before
//! database: new ─(schema made, checked, and marked with the id)─▶ in_use    nothing is inserted before
//! ```
//!
//! So what is missing while the folder is being initialised was never there, and is made; what is missing afterwards is
//! lost, and is never replaced in silence. A database that is new holds nothing that could be lost.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    core::{Kind, PerKind},
    durable_file,
};

pub(super) const INSTALLATION_FILE: &str = "installation.json";
const FORMAT: u32 = 1;

/// The file's content. Fields that a newer version added survive a rewrite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installation {
    format: u32,
    /// Also kept in the database, so that a foreign or empty one is recognised. `None`: a folder of a version before this
    /// file, which no database has answered yet.
    #[serde(rename = "installation_id")]
    pub(super) id: Option<Uuid>,
    pub(super) state: FolderState,
    pub(super) database: DatabaseUse,
    /// Rows that were inserted into databases before the present one, whose loss was accepted.
    #[serde(default)]
    pub(super) rows_given_up: RowsGivenUp,
    /// Batches up to this one may be in the database without being known to the checkpoint: their loss was accepted.
    #[serde(default)]
    pub(super) batches_accepted_through: u64,
    /// The next check of the database takes every batch that it finds for accepted.
    #[serde(default)]
    pub(super) accept_batches: bool,
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

/// How far the first start of the folder got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FolderState {
    /// Not every file is made yet, and no hit was taken.
    Initialising,
    /// Everything is there.
    InUse,
}

/// What is known of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DatabaseUse {
    /// Nothing was ever inserted.
    New,
    /// The one that is found is taken, whatever it holds: an operator accepted that.
    Adopt,
    /// It holds what was shipped.
    InUse,
}

/// Rows given up, kind by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RowsGivenUp {
    conversions: u64,
    clicks: u64,
    adjustments: u64,
}

impl From<PerKind<u64>> for RowsGivenUp {
    fn from(rows: PerKind<u64>) -> Self {
        Self {
            conversions: rows[Kind::Conversion],
            clicks: rows[Kind::Click],
            adjustments: rows[Kind::Adjustment],
        }
    }
}

impl RowsGivenUp {
    pub(super) fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Conversion => self.conversions,
            Kind::Click => self.clicks,
            Kind::Adjustment => self.adjustments,
        }
    }
}

impl Installation {
    /// Of a folder whose first start begins.
    pub(super) fn new() -> Self {
        Self {
            format: FORMAT,
            id: Some(Uuid::new_v4()),
            state: FolderState::Initialising,
            database: DatabaseUse::New,
            rows_given_up: RowsGivenUp::default(),
            batches_accepted_through: 0,
            accept_batches: false,
            other: serde_json::Map::new(),
        }
    }

    /// Of a folder in use that has no such file: an earlier version made it.
    pub(super) fn of_earlier_version() -> Self {
        let (state, database) = (FolderState::InUse, DatabaseUse::InUse);
        Self { id: None, state, database, ..Self::new() }
    }

    /// Reads the file; `None` where there is none.
    pub(super) fn load(folder: &Path) -> io::Result<Option<Self>> {
        let bytes = match std::fs::read(folder.join(INSTALLATION_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let this: Self = serde_json::from_slice(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {error}")))?;
        if this.format > FORMAT {
            let newer = format!("it has format {}: use a newer tally", this.format);
            return Err(io::Error::new(io::ErrorKind::InvalidData, newer));
        }
        Ok(Some(this))
    }

    /// Makes it the folder's, durably.
    pub(super) fn store(&self, folder: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        durable_file::replace(&folder.join(INSTALLATION_FILE), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_added_survives_a_rewrite() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Installation::load(folder.path()).expect("none"), None);
        let text =
            r#"{"format":1,"installation_id":null,"state":"in_use","database":"new","region":{"a":[1]}}"#;
        std::fs::write(folder.path().join(INSTALLATION_FILE), text).expect("written");
        let read = Installation::load(folder.path()).expect("read").expect("there");
        assert_eq!((read.state, read.database), (FolderState::InUse, DatabaseUse::New));
        read.store(folder.path()).expect("stored");
        assert_eq!(Installation::load(folder.path()).expect("read"), Some(read));
        let again = std::fs::read_to_string(folder.path().join(INSTALLATION_FILE)).expect("there");
        assert!(again.contains("region"), "{again}");
    }

    #[test]
    fn damage_and_newer_formats_are_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        for wrong in
            ["", "{", "{}", r#"{"format":2,"installation_id":null,"state":"in_use","database":"new"}"#]
        {
            std::fs::write(folder.path().join(INSTALLATION_FILE), wrong).expect("written");
            assert!(Installation::load(folder.path()).is_err(), "{wrong}");
        }
    }
}
