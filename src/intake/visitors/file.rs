//! The visitors' keys on disk: `visitor-keys.json`, for the owner alone.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::epochs::{EPOCH_DAYS, Epochs};
use crate::durable_file;

/// The file's name in the data folder.
pub const VISITOR_KEYS_FILE: &str = "visitor-keys.json";
const VERSION: u32 = 1;

/// The visitors' keys can't be had.
#[derive(Debug, thiserror::Error)]
pub enum VisitorKeysError {
    /// Not readable or not writable.
    #[error("the visitors' keys in {path} can't be kept: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not this format. It is not replaced: without its keys older clicks can't be matched any more.
    #[error(
        "{path} does not hold visitors' keys; restore it from a backup, or give up the clicks so far of visitors by \
         `tally repair --accept-loss visitor-keys`",
        path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct FileV1 {
    version: u32,
    /// The length of an epoch: numbers of epochs mean nothing without it.
    epoch_days: u32,
    /// Epochs since 1970, each with its key in 32 hexadecimal digits.
    keys: BTreeMap<i64, String>,
    /// What a newer minor version put there: kept as it is.
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

/// The keys in the file; none where there is no file.
pub(super) fn load(path: &Path) -> Result<Epochs, VisitorKeysError> {
    match std::fs::read(path) {
        Ok(bytes) => decode(&bytes).ok_or_else(|| VisitorKeysError::Malformed { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Epochs::default()),
        Err(source) => Err(VisitorKeysError::Io { path: path.to_owned(), source }),
    }
}

/// Keeps the keys, durably, and what else the file holds.
pub(super) fn save(path: &Path, epochs: &Epochs) -> io::Result<()> {
    let keys = epochs.0.iter().map(|(epoch, key)| (*epoch, format!("{key:032x}"))).collect();
    let others = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice::<FileV1>(&bytes)?.others,
        Err(error) if error.kind() == io::ErrorKind::NotFound => serde_json::Map::new(),
        Err(error) => return Err(error),
    };
    let file = FileV1 { version: VERSION, epoch_days: EPOCH_DAYS, keys, others };
    durable_file::replace(path, &serde_json::to_vec_pretty(&file)?)
}

fn decode(bytes: &[u8]) -> Option<Epochs> {
    let file: FileV1 = serde_json::from_slice(bytes).ok()?;
    if file.version != VERSION || file.epoch_days != EPOCH_DAYS {
        return None;
    }
    let key = |text: &str| {
        let fits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16).ok().filter(|_| fits)
    };
    let keys = file.keys.iter().map(|(epoch, text)| Some((*epoch, key(text)?)));
    keys.collect::<Option<_>>().map(Epochs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(VISITOR_KEYS_FILE);
        for wrong in [
            "",
            "{}",
            r#"{"version":2,"epoch_days":30,"keys":{}}"#,
            r#"{"version":1,"epoch_days":7,"keys":{}}"#,
            r#"{"version":1,"epoch_days":30,"keys":{"1":"+0000000000000000000000000000001"}}"#,
        ] {
            std::fs::write(&path, wrong).expect("written");
            assert!(matches!(load(&path), Err(VisitorKeysError::Malformed { .. })), "{wrong}");
            assert_eq!(std::fs::read_to_string(&path).expect("there"), wrong);
        }
    }

    /// What a released version wrote is read for ever.
    #[test]
    fn the_format_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(VISITOR_KEYS_FILE);
        let epochs = Epochs(BTreeMap::from([(-1, 0), (690, u128::MAX - 5)]));
        save(&path, &epochs).expect("kept");
        let bytes = std::fs::read(&path).expect("there");
        assert_golden!("visitor-keys-1.json", &bytes);
        assert_eq!(decode(&bytes).expect("own bytes").0, epochs.0);
    }

    #[test]
    fn what_a_newer_version_put_there_survives() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(VISITOR_KEYS_FILE);
        let newer = r#"{"version":1,"epoch_days":30,"keys":{},"hash":{"name":"x","rounds":[1,2]}}"#;
        std::fs::write(&path, newer).expect("written");
        let mut epochs = load(&path).expect("read");
        epochs.0.insert(5, 6);
        save(&path, &epochs).expect("kept");
        let kept: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
        assert_eq!(kept["hash"], serde_json::json!({"name": "x", "rounds": [1, 2]}));
        assert_eq!(load(&path).expect("read").0, epochs.0);
    }

    proptest! {
        #[test]
        fn keys_read_back(keys in proptest::collection::btree_map(any::<i64>(), any::<u128>(), 0..20)) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join(VISITOR_KEYS_FILE);
            save(&path, &Epochs(keys.clone())).expect("kept");
            prop_assert_eq!(load(&path).expect("read").0, keys);
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_keys_are_answered(keys in proptest::collection::btree_map("[0-9a-z-]{0,5}", ".{0,40}", 0..5)) {
            let file = serde_json::json!({ "version": 1, "epoch_days": 30, "keys": keys }).to_string();
            let _ = decode(file.as_bytes());
        }
    }
}
