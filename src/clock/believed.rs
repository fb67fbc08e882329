//! The daemon's clock: the rule, both clocks of the system, and the file.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::{
    Clock, DAY_MILLIS, SystemClock, file,
    rule::{Reading, Rule},
};
use crate::{core::UnixMillis, durable_file};

const CLOCK_FILE: &str = "clock.json";
/// Left by `tally clock confirm`: the system's time that the operator saw.
const CONFIRMED_FILE: &str = "clock-confirmed";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How often the file is written: less than a day matters only where the machine was off.
const KEEP_EVERY_MILLIS: i64 = 10 * 60_000;

/// The clock that everything in the daemon is handed. Reading it is one read of a clock, without a lock.
#[derive(Debug)]
pub struct BelievedClock {
    data_dir: PathBuf,
    boot: String,
    /// The believed time less the time since the machine's start.
    offset: AtomicI64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rule: Rule,
    kept_at: Option<i64>,
    reported: bool,
}

/// What looking at the system's clock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Whether it is believed.
    pub believed: bool,
    /// What it shows.
    pub system: UnixMillis,
    /// What the daemon goes by.
    pub now: UnixMillis,
}

/// There is no time to go by.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// A new folder, and a clock that can't be right.
    #[error(
        "the system's clock says {}, which can't be (tally knows the time from {} to {}): set it and start again",
        text(*system), text(super::EARLIEST), text(super::END)
    )]
    Impossible {
        /// What it says.
        system: UnixMillis,
    },
    /// The file is not what a daemon wrote.
    #[error(
        "{path} is damaged: it holds the last known time; restore it from a backup, or remove it if the system's clock is \
         right",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BelievedClock {
    /// Goes on from what the last daemon on the folder kept; `traces` are times at which it wrote other files, for folders
    /// of versions that kept no time. Nothing is written.
    pub fn open(data_dir: &Path, traces: &[UnixMillis]) -> Result<Self, ClockError> {
        let path = data_dir.join(CLOCK_FILE);
        let kept = file::load(&path).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => ClockError::Damaged { path: path.clone() },
            _ => ClockError::Io { path: path.clone(), source },
        })?;
        // Without it every start counts as one after a restart of the machine.
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let now = reading();
        let rule = Rule::start(now, &boot, kept.as_ref(), traces)
            .ok_or(ClockError::Impossible { system: now.wall })?;
        let offset = AtomicI64::new(rule.offset);
        let inner = Mutex::new(Inner { rule, kept_at: None, reported: false });
        Ok(Self { data_dir: data_dir.to_owned(), boot, offset, inner })
    }

    /// Looks at the system's clock, follows it if it is believed, and logs when that changes. To be called every second.
    pub fn observe(&self) -> Observation {
        let now = reading();
        let mut inner = self.inner.lock();
        let mut believed = inner.rule.observe(now);
        if !believed && self.take_confirmation(now) && inner.rule.confirm(now) {
            (believed, inner.reported, inner.kept_at) = (true, false, None);
            tracing::warn!(
                system_clock = text(now.wall),
                "the system clock was confirmed and is believed again"
            );
        }
        self.offset.store(inner.rule.offset, Ordering::Relaxed);
        let observation = Observation { believed, system: now.wall, now: at(inner.rule.offset, now.running) };
        if believed == inner.reported {
            inner.reported = !believed;
            if believed {
                tracing::info!(system_clock = text(now.wall), "the system clock is believed again");
            } else {
                tracing::warn!(
                    system_clock = text(now.wall),
                    expected = text(inner.rule.expected(now)),
                    goes_by = text(observation.now),
                    "the system clock jumped by more than a day and is not believed: hits are taken at the expected time, \
                     nothing is deleted by age; set the clock, or run `tally clock confirm` if it is right"
                );
            }
        }
        observation
    }

    /// Writes the file when it is due. Blocks on the disk. To be called every few seconds.
    pub fn keep(&self) -> io::Result<()> {
        self.keep_if(|now, kept_at| kept_at.is_none_or(|at| now - at >= KEEP_EVERY_MILLIS))
    }

    /// Writes the file, for the next start.
    pub fn keep_now(&self) -> io::Result<()> {
        self.keep_if(|_, _| true)
    }

    /// The time that the deletion of old data goes by; none: the system's clock is not believed, so nothing is deleted.
    pub fn retention_time(&self) -> Option<UnixMillis> {
        let inner = self.inner.lock();
        inner.rule.believed.then_some(inner.rule.retention)
    }

    fn keep_if(&self, due: impl FnOnce(i64, Option<i64>) -> bool) -> io::Result<()> {
        let now = reading();
        let kept = {
            let mut inner = self.inner.lock();
            if !due(now.running, inner.kept_at) {
                return Ok(());
            }
            inner.kept_at = Some(now.running);
            inner.rule.keep(now, &self.boot)
        };
        file::save(&self.data_dir.join(CLOCK_FILE), &kept)
    }

    /// Whether an operator has confirmed what the system's clock shows now. Said once.
    fn take_confirmation(&self, now: Reading) -> bool {
        let path = self.data_dir.join(CONFIRMED_FILE);
        let Ok(confirmed) = std::fs::read_to_string(&path) else { return false };
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "a confirmation of the clock can't be removed");
            return false;
        }
        let confirmed = confirmed.trim().parse::<i64>().ok();
        confirmed.is_some_and(|confirmed| now.wall.0.abs_diff(confirmed) <= DAY_MILLIS.unsigned_abs())
    }
}

impl Clock for BelievedClock {
    fn now(&self) -> UnixMillis {
        at(self.offset.load(Ordering::Relaxed), running())
    }
}

/// What a daemon on the folder would make of the system's clock, or makes of it.
pub fn inspect(data_dir: &Path, traces: &[UnixMillis]) -> Result<Observation, ClockError> {
    let clock = BelievedClock::open(data_dir, traces)?;
    let inner = clock.inner.lock();
    let now = reading();
    Ok(Observation {
        believed: inner.rule.believed,
        system: now.wall,
        now: at(inner.rule.offset, now.running),
    })
}

/// Leaves word that the system's clock is right, for the daemon that runs on the folder or the next one.
pub fn confirm(data_dir: &Path) -> Result<UnixMillis, ClockError> {
    let now = reading();
    if !now.is_representable() {
        return Err(ClockError::Impossible { system: now.wall });
    }
    let path = data_dir.join(CONFIRMED_FILE);
    durable_file::replace(&path, format!("{}\n", now.wall.0).as_bytes())
        .map_err(|source| ClockError::Io { path, source })?;
    Ok(now.wall)
}

/// An instant as people write it; of one that no calendar holds, its milliseconds.
#[must_use]
pub fn text(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| format!("{} ms", at.0), |at| format!("{at:.0}"))
}

fn at(offset: i64, running: i64) -> UnixMillis {
    UnixMillis(offset.saturating_add(running))
}

fn reading() -> Reading {
    Reading { wall: SystemClock.now(), running: running() }
}

/// Milliseconds since the machine's start, those in which it slept among them. Nobody sets this clock.
fn running() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(believed: i64, boot: &str, running: i64) -> crate::clock::rule::Kept {
        let believed = UnixMillis(believed);
        crate::clock::rule::Kept {
            boot: boot.into(),
            running,
            believed,
            expected: believed,
            retention: believed,
        }
    }

    #[test]
    fn a_good_clock_is_shown_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = BelievedClock::open(folder.path(), &[]).expect("this machine's clock");
        assert!(clock.observe().believed);
        assert!(clock.now().0.abs_diff(SystemClock.now().0) < 1000);
        assert!(clock.retention_time().is_some());
        clock.keep().expect("kept");
        let path = folder.path().join(CLOCK_FILE);
        let written = std::fs::read(&path).expect("there");
        clock.keep().expect("not due");
        assert_eq!(std::fs::read(&path).expect("there"), written);
        assert!(BelievedClock::open(folder.path(), &[]).expect("again").observe().believed);
    }

    #[test]
    fn a_confirmation_counts_once_and_for_its_own_day() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(CLOCK_FILE);
        let long_ago = SystemClock.now().0 - 100 * DAY_MILLIS;
        file::save(&path, &kept(long_ago, "another", 0)).expect("kept");
        let clock = BelievedClock::open(folder.path(), &[]).expect("opened");
        let seen = clock.observe();
        assert!(!seen.believed && clock.retention_time().is_none());
        assert!(seen.now.0.abs_diff(long_ago) < 60_000, "{seen:?}");
        let stale = SystemClock.now().0 - 2 * DAY_MILLIS;
        std::fs::write(folder.path().join(CONFIRMED_FILE), stale.to_string()).expect("written");
        assert!(!clock.observe().believed);
        confirm(folder.path()).expect("confirmed");
        assert!(clock.observe().believed);
        assert!(!folder.path().join(CONFIRMED_FILE).exists());
        clock.keep().expect("kept at once");
        assert!(inspect(folder.path(), &[]).expect("read").believed);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(CLOCK_FILE), "{}").expect("written");
        let error = BelievedClock::open(folder.path(), &[]).expect_err("damaged").to_string();
        assert!(error.contains(CLOCK_FILE) && error.contains("remove it"), "{error}");
    }

    #[test]
    fn instants_that_no_calendar_holds_have_a_text() {
        assert_eq!(text(UnixMillis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(text(UnixMillis(i64::MAX)), "9223372036854775807 ms");
    }
}
