//! Ends a thread or task on order, for tests of what follows: only in debug builds, only where `FAILPOINT_FILE` names a
//! file, and only the one whose name is in it.

#[cfg(debug_assertions)]
use std::{ffi::OsString, path::Path, sync::OnceLock, time::Duration};

/// How often a task looks whether it is to end.
#[cfg(debug_assertions)]
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Panics if the thread of that name is to end. To be called in every turn of its loop.
///
/// # Panics
/// On order.
#[inline]
#[cfg_attr(not(debug_assertions), expect(unused_variables, reason = "nothing ends on order in a release"))]
pub fn failpoint(name: &str) {
    #[cfg(debug_assertions)]
    assert!(!is_armed(name), "failpoint");
}

/// Runs a task, and panics in it if it is to end.
#[cfg(debug_assertions)]
pub(super) async fn racing<T>(name: &str, task: impl Future<Output = T>) -> T {
    if file().is_none() {
        return task.await;
    }
    let ordered = async {
        while !is_armed(name) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        outcome = task => outcome,
        () = ordered => panic!("failpoint"),
    }
}

#[cfg(not(debug_assertions))]
pub(super) async fn racing<T>(_: &str, task: impl Future<Output = T>) -> T {
    task.await
}

#[cfg(debug_assertions)]
fn is_armed(name: &str) -> bool {
    file().is_some_and(|file| std::fs::read_to_string(file).is_ok_and(|text| text.trim() == name))
}

#[cfg(debug_assertions)]
fn file() -> Option<&'static Path> {
    static FILE: OnceLock<Option<OsString>> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os("FAILPOINT_FILE")).as_deref().map(Path::new)
}
