//! File descriptors: as many as the system allows, and how many of them connections may take.
//!
//! Each connection is one; so is each file of the log, each event loop, each query, each postback. Were connections to
//! take the last, the log could not go on to its next segment and ClickHouse could not be asked: so they get what a
//! reserve leaves.

use std::{fs, io};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Where a higher limit changes nothing any more.
const LIMIT_MAX: u64 = 1 << 20;
/// Files of log, catalog, outbox and click files, the operators' listener, look-ups, inserts, reports, exports.
const RESERVE: u64 = 160;
/// Of each worker: its event loop.
const RESERVE_PER_WORKER: u64 = 4;
/// Of the limit, what postbacks may take: this part of it,
const POSTBACKS_DIVISOR: u64 = 4;
/// and no more than this, idle connections among them.
const POSTBACKS_MAX: u64 = 2048;
/// With fewer connections than this a daemon is of no use.
const CONNECTIONS_MIN: u64 = 16;
/// With fewer left than this the daemon is not ready: a segment of the log and a look-up still find theirs.
const LEFT_MIN: u64 = 40;

/// The limit is too small to work with.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and at least {needed} are needed: raise the hard limit (`ulimit -Hn`; LimitNOFILE= \
     of a systemd unit, --ulimit nofile= of a container)"
)]
pub struct TooFewDescriptors {
    limit: u64,
    needed: u64,
}

/// Raises the soft limit to the hard one: the usual soft limit of 1,024 is for programs that use `select`. Child processes
/// inherit it.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    if current.is_some_and(|current| current < wanted) {
        // Refused, the old one holds, and is reckoned with.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// How many connections may be open, of those that the configuration allows.
pub(super) fn connections_max(configured: usize, workers: usize) -> Result<usize, TooFewDescriptors> {
    let limit = limit();
    let workers = workers as u64;
    let allowed = allowed(limit, workers).ok_or_else(|| {
        let needed = (limit..LIMIT_MAX).find(|limit| allowed(*limit, workers).is_some());
        TooFewDescriptors { limit, needed: needed.unwrap_or(LIMIT_MAX) }
    })?;
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
    if allowed < configured {
        tracing::warn!(
            connections_max = allowed,
            configured,
            open_files_max = limit,
            "fewer connections than configured: the limit of open files allows no more"
        );
    }
    Ok(allowed.min(configured))
}

/// Whether so few are left that the next file or connection may not be had. Where that can't be found out, it is so.
pub(super) fn are_low() -> bool {
    open().is_none_or(|open| open.saturating_add(LEFT_MIN) > limit())
}

/// What the reserve leaves; none: too little.
fn allowed(limit: u64, workers: u64) -> Option<u64> {
    let postbacks = (limit / POSTBACKS_DIVISOR).min(POSTBACKS_MAX);
    let reserve = RESERVE + RESERVE_PER_WORKER * workers + postbacks;
    limit.checked_sub(reserve).filter(|allowed| *allowed >= CONNECTIONS_MIN)
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(LIMIT_MAX)
}

/// How many are open. Newer kernels say so in the size of the folder, without a descriptor of its own.
fn open() -> Option<u64> {
    match fs::metadata("/proc/self/fd").map(|folder| folder.len()) {
        Ok(0) | Err(_) => match fs::read_dir("/proc/self/fd") {
            // The folder's own is not counted.
            Ok(entries) => Some((entries.count() as u64).saturating_sub(1)),
            Err(error) if is_shortage(&error) => Some(u64::MAX),
            Err(_) => None,
        },
        Ok(open) => Some(open),
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_the_reserve_leaves() {
        assert_eq!(allowed(1024, 2), Some(1024 - 160 - 8 - 256));
        assert_eq!(allowed(20_000, 2), Some(20_000 - 160 - 8 - 2048));
        assert_eq!(allowed(64, 2), None);
        assert_eq!(allowed(0, 2), None);
        let least = (0..LIMIT_MAX).find(|limit| allowed(*limit, 2).is_some()).expect("one");
        assert!((200..300).contains(&least), "{least}");
    }

    #[test]
    fn what_is_open_is_counted() {
        let before = open().expect("known");
        let files: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").expect("opened")).collect();
        // Other tests of this process open and close some.
        assert!(open().expect("known") + 10 > before + files.len() as u64);
    }
}
