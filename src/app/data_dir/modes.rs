//! Only the owner reads a data folder: order ids, keys and passwords are in it.
//!
//! Files are made private by the process's umask. This is for what was there before: a folder that a package or a
//! service manager made with mode 0755, files of earlier versions, files that were restored from a backup.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

/// What group and others may do.
const OTHERS: u32 = 0o077;
const OTHERS_WRITE: u32 = 0o002;

/// What was found and done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Private {
    /// Files and folders whose mode was changed.
    pub(super) changed: u64,
    /// The folder itself stays open to others: it belongs to another user.
    pub(super) folder_stays_open: bool,
}

/// Takes group's and others' rights from the folder and its files: everywhere, where the folder was open or `everything`
/// is asked for, else from the files that lie directly in it. Fails where strangers can write the folder and that can't
/// be changed.
pub(super) fn make_private(folder: &Path, everything: bool) -> io::Result<Private> {
    let mode = fs::metadata(folder)?.permissions().mode();
    let mut done = Private::default();
    let open = mode & OTHERS != 0;
    if open {
        match fs::set_permissions(folder, Permissions::from_mode(0o700)) {
            Ok(()) => done.changed += 1,
            Err(error) if mode & OTHERS_WRITE != 0 => return Err(error),
            Err(_) => done.folder_stays_open = true,
        }
    }
    close(folder, open || everything, &mut done)?;
    Ok(done)
}

fn close(folder: &Path, deep: bool, done: &mut Private) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // What is gone meanwhile was a temporary file.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_symlink() {
            continue;
        }
        let mode = metadata.permissions().mode();
        if mode & OTHERS != 0 {
            // A file of another user is that user's to protect.
            if fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS & 0o7777)).is_ok() {
                done.changed += 1;
            }
        }
        if deep && metadata.is_dir() {
            match close(&path, deep, done) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                closed => closed?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn an_open_folder_is_closed_with_everything_in_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (inner, file) = (folder.path().join("clickhouse"), folder.path().join("clickhouse/part"));
        fs::create_dir(&inner).expect("made");
        fs::write(&file, "x").expect("written");
        let open = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
        };
        open(&inner, 0o755);
        open(&file, 0o644);
        open(folder.path(), 0o755);
        let done = make_private(folder.path(), false).expect("closed");
        assert_eq!(done, Private { changed: 3, folder_stays_open: false });
        assert_eq!((mode(folder.path()), mode(&inner), mode(&file)), (0o700, 0o700, 0o600));
        // A closed folder protects what is in it: only what lies on top is looked at.
        open(&inner, 0o755);
        open(&file, 0o644);
        assert_eq!(make_private(folder.path(), false).expect("closed").changed, 1);
        assert_eq!(make_private(folder.path(), true).expect("closed").changed, 1);
    }
}
