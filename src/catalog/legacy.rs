//! `catalog.json`: the whole catalog in one file, as tally kept it before, and what stands in its place since.
//!
//! Once its rows are in the store it is renamed, as a backup, and a marker takes its name: an older version of tally that
//! is started on the folder refuses it instead of starting with nothing, and a store that is lost is missed.

use std::{io, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::{
    changes::EntryKind,
    rows::{self, FileError},
    store::RawRow,
};
use crate::{
    core::{Account, ApiKey, Goal, Link},
    durable_file,
};

/// The file.
pub const FILE_NAME: &str = "catalog.json";
/// Its name once its rows are in the store.
pub(super) const BACKUP_NAME: &str = "catalog.json.migrated";
const FORMAT: u64 = 1;
const MARKER: &[u8] = b"{\"format\":2,\"catalog\":\"catalog.redb\"}\n";

/// What the file is.
#[derive(Debug)]
pub(super) enum Legacy {
    /// There is none.
    Absent,
    /// The marker.
    Marker,
    /// A catalog: its version, and its rows as they were written.
    Rows(u64, Vec<RawRow>),
}

#[derive(Deserialize)]
struct Format {
    format: u64,
    #[serde(default)]
    catalog: Option<String>,
}

#[derive(Deserialize)]
struct FileV1 {
    version: u64,
    accounts: Vec<Value>,
    api_keys: Vec<Value>,
    goals: Vec<Value>,
    #[serde(default)]
    links: Vec<Value>,
}

/// Whether the file holds a catalog, or something that can't be read as one.
pub(super) fn holds_catalog(data_dir: &Path) -> bool {
    match std::fs::read(data_dir.join(FILE_NAME)) {
        Ok(bytes) => bytes != MARKER,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Reads the file. Every row is one that can be read.
pub(super) fn read(bytes: &[u8]) -> Result<Legacy, FileError> {
    let Format { format, catalog } = serde_json::from_slice(bytes)?;
    if catalog.is_some() && format > FORMAT {
        return Ok(Legacy::Marker);
    }
    if format != FORMAT {
        return Err(FileError::Format(format));
    }
    let file: FileV1 = serde_json::from_slice(bytes)?;
    let mut raw = Vec::new();
    for value in &file.accounts {
        let bytes = serde_json::to_vec(value)?;
        raw.push((EntryKind::Account, rows::read::<Account>(&bytes)?.entry.id.0, bytes));
    }
    for value in &file.api_keys {
        let bytes = serde_json::to_vec(value)?;
        raw.push((EntryKind::Key, rows::read::<ApiKey>(&bytes)?.entry.id, bytes));
    }
    for value in &file.goals {
        let bytes = serde_json::to_vec(value)?;
        raw.push((EntryKind::Goal, rows::read::<Goal>(&bytes)?.entry.id.0, bytes));
    }
    for value in &file.links {
        let bytes = serde_json::to_vec(value)?;
        raw.push((EntryKind::Link, rows::read::<Link>(&bytes)?.entry.id.0, bytes));
    }
    Ok(Legacy::Rows(file.version, raw))
}

/// Puts the marker in the place of the file, which is kept beside it if it was one. May be repeated.
pub(super) fn retire(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(FILE_NAME);
    match std::fs::read(&path) {
        Ok(bytes) if bytes == MARKER => return Ok(()),
        Ok(_) => {
            std::fs::rename(&path, data_dir.join(BACKUP_NAME))?;
            tracing::info!(
                "the catalog is in {store} now; {FILE_NAME} is kept as {BACKUP_NAME}, which holds secrets: remove it \
                 when it is not needed any more",
                store = super::FILE_NAME
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    durable_file::replace(&path, MARKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_named_and_the_marker_is_known() {
        let error = read(br#"{"format":3,"anything":[]}"#).expect_err("newer");
        assert!(matches!(error, FileError::Format(3)));
        assert!(matches!(read(MARKER), Ok(Legacy::Marker)));
    }

    /// Format 1 as first released: what this reads must stay readable.
    #[test]
    fn format_1_stays_readable() {
        let read = read(
            br#"{"format":1,"version":3,
            "accounts":[{"version":1,"deleted":false,"id":1,"name":"default","plan":"enterprise","rate_limit_per_minute":null}],
            "api_keys":[{"version":1,"deleted":false,"id":1,"account_id":1,"name":"first","sha256":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","created_at_ms":5,"revoked":false}],
            "goals":[{"version":3,"deleted":true,"id":1,"account_id":1,"name":"n","goal_type":"purchase","value":"99.00","currency":"USD","attribution_window_days":30,"postback_url":null,"postback_token":"t","created_at_ms":6}]}"#,
        );
        let Ok(Legacy::Rows(version, rows)) = read else { panic!("{read:?}") };
        assert_eq!((version, rows.len(), rows[2].1), (3, 3, 1));
    }
}
