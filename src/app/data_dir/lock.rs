//! One process at a time works on a data folder, and the lock's file says which one that is.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

pub(super) const LOCK_FILE: &str = "lock";
/// How long a subcommand at work is waited for: an audit starts an engine and reads the log.
const COMMAND_ENDS_WITHIN: Duration = Duration::from_mins(1);
/// How long a daemon is taken for one that is just ending, or for the text of a holder before the present one.
const DAEMON_ENDS_WITHIN: Duration = Duration::from_millis(500);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// What the file of a holder says is a few words.
const HOLDER_BYTES_MAX: u64 = 100;
/// How the daemon names itself.
pub(crate) const SERVE: &str = "serve";

/// Held until the process ends, however it ends.
pub(super) struct Lock {
    _file: File,
}

/// The lock can't be had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has it: its subcommand and process id.
    Held(String),
    Io(io::Error),
}

/// Takes the lock for this process, which is at `work` (a subcommand's name). Waits for other subcommands, not for a
/// daemon.
pub(super) fn take(folder: &Path, work: &str) -> Result<Lock, LockError> {
    let path = folder.join(LOCK_FILE);
    let options =
        || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = options().map_err(LockError::Io)?;
    let started = Instant::now();
    let mut reported = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(LockError::Io(error.into())),
        }
        let holder = holder(&mut file).unwrap_or_default();
        let serves = holder.is_empty() || holder.starts_with(SERVE);
        let patience = match serves {
            true if is_alive(&holder) => Duration::ZERO,
            true => DAEMON_ENDS_WITHIN,
            false => COMMAND_ENDS_WITHIN,
        };
        if started.elapsed() >= patience {
            return Err(LockError::Held(holder));
        }
        if !serves && !reported && started.elapsed() > DAEMON_ENDS_WITHIN {
            tracing::info!(%holder, "waiting for a subcommand that works on the data folder");
            reported = true;
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    // Only for people and for the wait above: a lock without the text is a lock all the same.
    let _ = write_holder(&mut file, work);
    Ok(Lock { _file: file })
}

/// Whether the process that the text names runs, as far as can be seen from here.
fn is_alive(holder: &str) -> bool {
    let id = holder.rsplit(' ').next().and_then(|id| id.parse::<u32>().ok());
    id.is_some_and(|id| Path::new("/proc").join(id.to_string()).exists())
}

fn holder(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.take(HOLDER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}

fn write_holder(file: &mut File, work: &str) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    writeln!(file, "{work}, process {}", std::process::id())
}
