//! `clock.json`: what the last daemon on the folder knew of time.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::rule::Kept;
use crate::{core::UnixMillis, durable_file};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct FileV1 {
    version: u32,
    /// The machine's start, by its number in `/proc`.
    boot_id: String,
    /// Milliseconds since then.
    running_ms: i64,
    believed_ms: i64,
    expected_ms: i64,
    retention_ms: i64,
}

/// What the file holds; none where there is no file. An error of kind `InvalidData` is a damaged one.
pub(super) fn load(path: &Path) -> io::Result<Option<Kept>> {
    match std::fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps it, durably.
pub(super) fn save(path: &Path, kept: &Kept) -> io::Result<()> {
    let file = FileV1 {
        version: VERSION,
        boot_id: kept.boot.clone(),
        running_ms: kept.running,
        believed_ms: kept.believed.0,
        expected_ms: kept.expected.0,
        retention_ms: kept.retention.0,
    };
    durable_file::replace(path, &serde_json::to_vec_pretty(&file)?)
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let file: FileV1 = serde_json::from_slice(bytes).ok()?;
    let times = [file.believed_ms, file.expected_ms, file.retention_ms].map(UnixMillis);
    // The retention time may lie before tally: retention never asks for what was not there.
    let whole = file.version == VERSION && times.iter().all(|at| (0..super::END.0).contains(&at.0));
    let [believed, expected, retention] = times;
    whole.then_some(Kept { boot: file.boot_id, running: file.running_ms, believed, expected, retention })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_format_stays() {
        let kept = Kept {
            boot: "b".into(),
            running: 1,
            believed: UnixMillis(1_796_000_000_000),
            expected: UnixMillis(1_796_000_000_001),
            retention: UnixMillis(1_796_000_000_002),
        };
        let text = r#"{"version":1,"boot_id":"b","running_ms":1,"believed_ms":1796000000000,"expected_ms":1796000000001,"retention_ms":1796000000002,"later":0}"#;
        assert_eq!(decode(text.as_bytes()), Some(kept.clone()), "with what a later version adds");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clock.json");
        assert_eq!(load(&path).expect("none"), None);
        save(&path, &kept).expect("kept");
        assert_eq!(load(&path).expect("read"), Some(kept));
        std::fs::write(&path, "{").expect("damaged");
        assert_eq!(load(&path).expect_err("damaged").kind(), io::ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
