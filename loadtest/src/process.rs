//! Server processes: start, stop, kill, and what they use, read from `/proc`.

use std::fs;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const POLL_PAUSE: Duration = Duration::from_millis(10);

/// Why a process could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started, signalled or waited for.
    #[error("the server process: {0}")]
    Io(#[from] io::Error),
    /// It is still there.
    #[error("the server did not end within {0:?}")]
    StillRunning(Duration),
}

/// A child process that does not outlive its handle.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Result<Self, ProcessError> {
        Ok(Self { child: command.spawn()? })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Asks it to stop (SIGTERM) and waits.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus, ProcessError> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput);
        kill_process(pid.map_err(io::Error::from)?, Signal::TERM).map_err(io::Error::from)?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(ProcessError::StillRunning(patience));
            }
            sleep(POLL_PAUSE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and an ended child is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time (user and system, all threads) of process `pid` alone.
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = parse_cpu_ticks(&stat)?;
    Some(Duration::from_nanos(ticks.checked_mul(1_000_000_000)? / rustix::param::clock_ticks_per_second()))
}

/// Resident bytes of process `pid`.
#[must_use]
pub fn rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    parse_rss_bytes(&status)
}

/// Direct children of process `pid`.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// CPU time of the children of process `pid`.
#[must_use]
pub fn children_cpu_time(pid: u32) -> Duration {
    children(pid).into_iter().filter_map(cpu_time).sum()
}

/// CPU time that the whole machine has spent on anything.
#[must_use]
pub fn machine_cpu_time() -> Option<Duration> {
    let ticks = parse_machine_ticks(&fs::read_to_string("/proc/stat").ok()?)?;
    Some(Duration::from_nanos(ticks.checked_mul(1_000_000_000)? / rustix::param::clock_ticks_per_second()))
}

/// Waits until `pid` and its children use less than a tenth of a core, at most `patience`; whether they do.
#[must_use]
pub fn settle(pid: u32, patience: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(300);
    let used = || cpu_time(pid).unwrap_or_default() + children_cpu_time(pid);
    let deadline = Instant::now() + patience;
    loop {
        let before = used();
        sleep(LOOK);
        if used().saturating_sub(before) * 10 < LOOK {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// Fields 14 and 15, counted after the name: it may hold blanks and parentheses.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// All of the first line but the fourth and fifth, which are idle time, and what guests have had twice.
fn parse_machine_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8).enumerate();
    fields.filter(|(place, _)| !(3..5).contains(place)).map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

fn parse_rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc_lines() {
        let stat = "12 (a) b) c) S 1 12 12 0 -1 4194304 100 0 0 0 250 75 5 6 20 0 3 0 99 1 2";
        assert_eq!(parse_cpu_ticks(stat), Some(325));
        assert_eq!(parse_machine_ticks("cpu  1 2 3 400 500 6 7 8 9 10\ncpu0 1"), Some(27));
        assert_eq!(parse_rss_bytes("Name:\tx\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        assert!(rss_bytes(std::process::id()).unwrap() > 0);
        assert!(cpu_time(std::process::id()).is_some());
    }

    #[test]
    fn stops_and_kills_a_child() {
        let mut sleeper = Server::start(Command::new("sleep").arg("1000")).unwrap();
        assert!(children(std::process::id()).contains(&sleeper.pid()));
        assert!(sleeper.ended().unwrap().is_none());
        assert!(!sleeper.stop(Duration::from_mins(1)).unwrap().success());
        let mut sleeper = Server::start(Command::new("sleep").arg("1000")).unwrap();
        assert!(!sleeper.kill().unwrap().success());
        assert!(sleeper.ended().unwrap().is_some());
    }
}
