//! Which files count: one small file, replaced as a whole. Its first line is the checksum of what follows.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{PastClicksError, chunk::ChunkSpan};
use crate::durable_file;

pub(super) const MANIFEST_FILE: &str = "manifest.json";
const VERSION: u32 = 1;

/// What the files hold. Everything else in the folder is unfinished or superseded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    /// The key of the hashes, in hex.
    key: String,
    /// Of which table of ClickHouse the clicks are.
    pub(super) origin: String,
    /// The clicks of every batch up to this one are in the files.
    pub(super) through: u64,
    /// In the order of the records.
    pub(super) chunks: Vec<ChunkSpan>,
    /// Oldest first; together they find every record once.
    pub(super) tables: Vec<TableSpan>,
    /// What a newer minor version put there: kept as it is.
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

/// A table, as the manifest lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableSpan {
    pub(super) number: u64,
    /// The records that it finds: from here
    pub(super) from: u64,
    /// to before here.
    pub(super) to: u64,
    /// Bytes of these records that there were when it was written: others had outlived their time.
    pub(super) live: u64,
}

impl Manifest {
    pub(super) fn new(key: u128, origin: &str) -> Self {
        Self {
            version: VERSION,
            key: format!("{key:032x}"),
            origin: origin.to_owned(),
            through: 0,
            chunks: Vec::new(),
            tables: Vec::new(),
            others: serde_json::Map::new(),
        }
    }

    /// `None`: there is none, or none that this version understands.
    pub(super) fn load(folder: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(folder.join(MANIFEST_FILE)).ok()?;
        let (crc, json) = text.split_once('\n')?;
        let manifest: Self = serde_json::from_str(json).ok().filter(|_| crc == checksum(json))?;
        (manifest.version == VERSION && manifest.key().is_some()).then_some(manifest)
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), PastClicksError> {
        let path = folder.join(MANIFEST_FILE);
        let json = serde_json::to_string_pretty(self).map_err(std::io::Error::from);
        let text = json.map(|json| format!("{}\n{json}", checksum(&json)));
        let saved = text.and_then(|text| durable_file::replace(&path, text.as_bytes()));
        saved.map_err(PastClicksError::io(&path))
    }

    pub(super) fn key(&self) -> Option<u128> {
        u128::from_str_radix(&self.key, 16).ok()
    }
}

impl TableSpan {
    pub(super) fn file_name(&self) -> String {
        format!("{:08}.table", self.number)
    }
}

fn checksum(json: &str) -> String {
    format!("{:08x}", crc32fast::hash(json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a released version wrote is read for ever, and what a newer one adds survives.
    #[test]
    fn the_format_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut manifest = Manifest::new(u128::MAX - 5, "tally.clicks");
        manifest.through = 1_793_491_200_000_001;
        manifest.chunks = vec![ChunkSpan { start: 0, bytes: 77, oldest: -1, newest: 1_793_491_200_000 }];
        manifest.tables = vec![TableSpan { number: 3, from: 0, to: 77, live: 70 }];
        manifest.save(folder.path()).expect("saved");
        let bytes = std::fs::read(folder.path().join(MANIFEST_FILE)).expect("there");
        assert_golden!("click-index-manifest-1.json", &bytes);
        assert_eq!(Manifest::load(folder.path()), Some(manifest.clone()));

        manifest.others.insert("newer".into(), serde_json::json!([{"x": 1}]));
        manifest.save(folder.path()).expect("saved");
        assert_eq!(Manifest::load(folder.path()), Some(manifest));
    }
}
