//! The data folder: one daemon at a time, and the secret that its hashes are keyed with.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{dedup::SECRET_BYTES, durable_file};

const LOCK_FILE: &str = "lock";
const SECRET_FILE: &str = "secret.key";

/// A folder that this process alone may write.
pub(crate) struct DataDir {
    path: PathBuf,
    /// Held until the process ends, however it ends.
    _lock: File,
}

/// The folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Not readable, not writable, or not a folder.
    #[error("the data folder {path} can't be used: {source}", path = path.display())]
    Io {
        /// The folder or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another tally runs on it.
    #[error("the data folder {path} is in use by another tally", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The secret's file does not hold one. It must not be replaced: every stored key is hashed with it.
    #[error("{path} does not hold a key of 32 bytes; restore it from a backup", path = path.display())]
    Secret {
        /// The file.
        path: PathBuf,
    },
}

impl DataDir {
    /// Makes the folder if it is not there (mode 0700) and takes it for this process.
    pub(crate) fn take(path: &Path) -> Result<Self, DataDirError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io(path))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(io(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(error) => Err(io(&lock_path)(error.into())),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of this installation's hashes; made at the first start.
    pub(crate) fn secret(&self) -> Result<[u8; SECRET_BYTES], DataDirError> {
        let path = self.path.join(SECRET_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| DataDirError::Secret { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; SECRET_BYTES];
                let made = getrandom::fill(&mut secret).map_err(io::Error::from);
                let kept = made.and_then(|()| durable_file::replace(&path, &secret));
                kept.map(|()| secret).map_err(|source| DataDirError::Io { path, source })
            }
            Err(source) => Err(DataDirError::Io { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_at_a_time_and_one_secret_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let first = DataDir::take(&path).expect("free");
        assert!(matches!(DataDir::take(&path), Err(DataDirError::InUse { .. })));
        let secret = first.secret().expect("made");
        drop(first);
        let second = DataDir::take(&path).expect("free again");
        assert_eq!(second.secret().expect("kept"), secret);
        std::fs::write(path.join(SECRET_FILE), b"short").expect("written");
        assert!(
            matches!(second.secret(), Err(DataDirError::Secret { .. })),
            "a broken secret is never replaced"
        );
    }
}
