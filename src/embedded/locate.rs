//! Where libchdb is found at run time.

use std::path::{Path, PathBuf};

/// libchdb is nowhere; the operator must fetch it or name it.
#[derive(Debug, thiserror::Error)]
#[error(
    "libchdb.so was not found (looked at {looked}): run `make libchdb`, or set TALLY_LIBCHDB to its path"
)]
pub struct NotFound {
    looked: String,
}

/// The path configured, else `TALLY_LIBCHDB`, `./.libchdb/`, beside the executable, `/usr/local/lib`, `/usr/lib`.
///
/// A path that was named by somebody is taken as it is: falling back to another library than the one asked
/// for would hide a mistake.
pub fn locate(configured: Option<&Path>) -> Result<PathBuf, NotFound> {
    let named = configured
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("TALLY_LIBCHDB").filter(|value| !value.is_empty()).map(PathBuf::from));
    if let Some(path) = named {
        return first_file(vec![path]);
    }
    let mut candidates = vec![PathBuf::from(".libchdb/libchdb.so")];
    if let Ok(program) = std::env::current_exe()
        && let Some(folder) = program.parent()
    {
        candidates.push(folder.join("libchdb.so"));
    }
    candidates.push(PathBuf::from("/usr/local/lib/libchdb.so"));
    candidates.push(PathBuf::from("/usr/lib/libchdb.so"));
    first_file(candidates)
}

fn first_file(candidates: Vec<PathBuf>) -> Result<PathBuf, NotFound> {
    let looked = candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let found = candidates.into_iter().find(|path| path.is_file()).ok_or(NotFound { looked })?;
    // dlopen searches the system's folders for a name without a slash, so the path is made absolute.
    Ok(std::path::absolute(&found).unwrap_or(found))
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
    fn a_named_library_is_taken() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(locate(Some(file.path())).expect("it is there"), file.path());
    }
}
