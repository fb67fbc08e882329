//! Where libchdb is found at run time. Loading it runs its code, so the current folder has no say in it.

use std::path::{Path, PathBuf};

/// There is no library to load; the operator must fetch it or name it.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// It is nowhere.
    #[error(
        "libchdb.so was not found (looked at {looked}): run `make libchdb`, or set TALLY_LIBCHDB to its absolute path"
    )]
    Missing {
        /// All paths that were tried.
        looked: String,
    },
    /// It was named by a path that means another file in every folder.
    #[error("the path of libchdb.so must be absolute, and {} is not: set TALLY_LIBCHDB to its absolute path", path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
}

/// The absolute path configured, else that in `TALLY_LIBCHDB`, else `libchdb.so` beside the executable or in
/// `../lib/tally/` from there.
///
/// A path that was named is taken as it is: falling back to another library than the one asked for would hide a
/// mistake.
pub fn locate(configured: Option<&Path>) -> Result<PathBuf, NotFound> {
    let named = configured
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("TALLY_LIBCHDB").filter(|value| !value.is_empty()).map(PathBuf::from));
    match named {
        Some(path) if path.is_relative() => Err(NotFound::Relative { path }),
        Some(path) => first_file(vec![path]),
        None => first_file(beside(std::env::current_exe().ok().as_deref())),
    }
}

/// The places that belong to an installed executable.
fn beside(executable: Option<&Path>) -> Vec<PathBuf> {
    let Some(folder) = executable.filter(|path| path.is_absolute()).and_then(Path::parent) else {
        return Vec::new();
    };
    let installed = folder.parent().map(|above| above.join("lib/tally/libchdb.so"));
    std::iter::once(folder.join("libchdb.so")).chain(installed).collect()
}

fn first_file(candidates: Vec<PathBuf>) -> Result<PathBuf, NotFound> {
    let looked = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    candidates.into_iter().find(|path| path.is_file()).ok_or(NotFound::Missing { looked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_library_that_is_missing_is_an_error_that_says_what_to_do() {
        let error =
            locate(Some(Path::new("/nonexistent/libchdb.so"))).expect_err("it is not there").to_string();
        assert!(
            error.contains("make libchdb")
                && error.contains("TALLY_LIBCHDB")
                && error.contains("/nonexistent")
        );
    }

    #[test]
    fn a_named_library_is_taken_if_its_path_is_absolute() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(locate(Some(file.path())).expect("it is there"), file.path());
        // It exists, from here.
        let error = locate(Some(Path::new("Cargo.toml"))).expect_err("it is relative").to_string();
        assert!(error.contains("must be absolute") && error.contains("Cargo.toml"), "{error}");
    }

    #[test]
    fn without_a_name_only_the_executables_own_places_are_looked_at() {
        let places = beside(Some(Path::new("/usr/local/bin/tally")));
        let expected = ["/usr/local/bin/libchdb.so", "/usr/local/lib/tally/libchdb.so"].map(PathBuf::from);
        assert_eq!(places, expected);
        assert!(beside(Some(Path::new("tally"))).is_empty());
    }
}
