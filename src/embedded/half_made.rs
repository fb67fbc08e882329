//! Metadata that a full disk left empty: the engine can't start on it, and says nothing that helps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::child::ChildError;
use super::handshake::ExistingDatabase;

/// The first file of the engine's metadata that is empty, if there is one; for the data folder of the daemon.
#[must_use]
pub fn half_made_file(data_dir: &Path) -> Option<PathBuf> {
    find(&data_dir.join("clickhouse"))
}

/// Removes what was never used, and refuses the rest if it can't be opened. `data` is the engine's path.
pub(super) fn check(data: &Path, database: ExistingDatabase) -> Result<(), ChildError> {
    match (database, find(data)) {
        (ExistingDatabase::Kept, Some(file)) => Err(ChildError::HalfMade(file.display().to_string())),
        (ExistingDatabase::Kept | ExistingDatabase::Begun, None) => Ok(()),
        (ExistingDatabase::Unused, _) | (ExistingDatabase::Begun, Some(_)) => Ok(clear(data)?),
    }
}

/// Metadata lies in `metadata/*.sql` and, of a database's tables, in `store/*/*/*.sql`. What can't be read is the engine's
/// to report.
fn find(data: &Path) -> Option<PathBuf> {
    let prefixes = entries(&data.join("store"));
    let tables = prefixes.flat_map(|prefix| entries(&prefix)).flat_map(|uuid| entries(&uuid));
    entries(&data.join("metadata")).chain(tables).find(|path| {
        path.extension().is_some_and(|extension| extension == "sql")
            && path.symlink_metadata().is_ok_and(|file| file.is_file() && file.len() == 0)
    })
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn clear(data: &Path) -> io::Result<()> {
    for path in entries(data) {
        if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_definition_is_found_and_removed_only_where_nothing_was_inserted() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("clickhouse");
        let table = data.join("store/1a2/1a2b/clicks.sql");
        let make = |text: &str| {
            fs::create_dir_all(table.parent().expect("a folder")).expect("made");
            fs::create_dir_all(data.join("metadata")).expect("made");
            fs::write(data.join("metadata/tally.sql"), "ATTACH").expect("written");
            fs::write(&table, text).expect("written");
        };
        make("ATTACH");
        assert_eq!(half_made_file(folder.path()), None);
        for whole in [ExistingDatabase::Kept, ExistingDatabase::Begun] {
            check(&data, whole).expect("whole");
            assert!(table.exists());
        }
        check(&data, ExistingDatabase::Unused).expect("removed");
        assert!(!table.exists() && data.exists());
        make("");
        assert_eq!(half_made_file(folder.path()), Some(table.clone()));
        let refused = check(&data, ExistingDatabase::Kept).expect_err("kept").to_string();
        assert!(refused.contains("clicks.sql is empty") && table.exists(), "{refused}");
        check(&data, ExistingDatabase::Begun).expect("removed");
        assert!(!table.exists() && data.exists());
    }
}
