//! Faults on order: a library preloaded into the daemon and its engine (`tests/support/shim/faults.c` says which).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::wait_for;

/// The orders given to one daemon.
pub struct Faults {
    folder: TempDir,
}

impl Faults {
    /// No faults yet.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder") }
    }

    /// What a process needs in its environment to get these faults.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library().to_owned()), ("TALLY_FAULTS", self.folder.path().to_owned())]
    }

    /// Begins a fault.
    pub fn order(&self, name: &str, text: &str) {
        // Whole at once: the library may look at any moment.
        let beside = self.folder.path().join("new");
        fs::write(&beside, text).expect("written");
        fs::rename(beside, self.folder.path().join(name)).expect("renamed");
    }

    /// Ends a fault.
    pub fn end(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).expect("it was ordered");
    }

    /// Waits until the library has left that file.
    pub fn wait_there(&self, name: &str) {
        wait_for(name, || self.folder.path().join(name).exists());
    }

    /// Waits until the library has taken that file away.
    pub fn wait_gone(&self, name: &str) {
        wait_for(&format!("the end of {name}"), || !self.folder.path().join(name).exists());
    }
}

/// The library, compiled once: a C compiler is wherever Rust links.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/shim/faults.c");
        // Several test programs may run: each compiles beside, and the last one's is as good as the first one's.
        let beside = folder.join(format!("faults-{}.so", std::process::id()));
        let done = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(&beside)
            .args([source, "-ldl"])
            .status();
        assert!(done.expect("cc is there").success(), "the library does not compile");
        let library = folder.join("faults.so");
        fs::rename(beside, &library).expect("renamed");
        library
    })
}
