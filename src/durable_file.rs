//! Small files that must be either the old or the new one, whole, whatever happens in between.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// The end of the name of a file that is being written, or that a kill left so.
pub const UNFINISHED: &str = ".new";

/// Replaces `path` by `bytes`, readable by the owner alone (0600): written beside it, synced, renamed over it, and the
/// folder synced. After an `Ok` the new content survives a power cut; after an error the old content is untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(UNFINISHED);
    let beside = Path::new(&beside);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside)?;
    // A file that an earlier attempt left keeps its mode through `open`.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(beside, path)?;
    sync_parent(path)
}

/// Makes the creation, renaming or removal of `path` itself durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_keeps_it_private() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file");
        std::fs::write(folder.path().join("file.new"), b"left by a kill")?;
        std::fs::set_permissions(folder.path().join("file.new"), Permissions::from_mode(0o644))?;
        replace(&path, b"a longer first content")?;
        replace(&path, b"second")?;
        assert_eq!(std::fs::read(&path)?, b"second");
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }
}
