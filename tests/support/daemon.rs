//! The daemon as a process on a folder of its own: started, killed, started again, and its face to the outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loadtest::daemon::{Daemon, DaemonOptions};
use loadtest::generator::Mix;
use loadtest::ledger::Ledger;
use loadtest::load::Load;
use loadtest::report::Report;
use loadtest::request::Goal;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Answer, agent, read};
use super::port::Port;
use super::{DEADLINE, wait_for};

/// A daemon with its folder and ports; both outlive any number of kills.
pub struct Site {
    pub daemon: Daemon,
    folder: TempDir,
    _ports: [Port; 2],
}

impl Site {
    /// A ready daemon on a new folder. `arguments` come after `serve`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::prepared(arguments, |_| ())
    }

    /// The same, after `prepare` was given the path of the data folder.
    pub fn prepared(arguments: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let folder = disk_folder();
        let ports = [Port::reserve(), Port::reserve()];
        let data_dir = folder.path().join("data");
        prepare(&data_dir);
        let program = Path::new(env!("CARGO_BIN_EXE_tally"));
        let mut options = DaemonOptions::new(program, &data_dir).expect("options");
        (options.listen, options.ops_listen) = (ports[0].address(), ports[1].address());
        options.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        options.log = Some(folder.path().join("log"));
        let daemon = Daemon::start(options).expect("started");
        let mut site = Self { daemon, folder, _ports: ports };
        site.daemon.wait_ready(DEADLINE).expect("ready");
        site
    }

    pub fn data_dir(&self) -> &Path {
        &self.daemon.options.data_dir
    }

    pub fn pid(&self) -> u32 {
        self.daemon.server.pid()
    }

    /// What the daemon said so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.daemon.server.kill().expect("killed");
    }

    /// Starts it again on the same folder and ports, and waits until it is ready.
    pub fn restart(&mut self) {
        self.daemon.restart(DEADLINE).expect("ready again");
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.pid()), signal).expect("signalled");
    }

    /// Waits for the end of a daemon that was told to.
    pub fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.daemon.server.ended().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process of the embedded engine.
    pub fn engine_pid(&self) -> Option<u32> {
        loadtest::process::children(self.pid()).first().copied()
    }

    pub fn goals(&self, count: usize) -> Vec<Goal> {
        self.daemon.create_goals(count).expect("goals")
    }

    /// Hits from many connections at full speed until it is stopped, across restarts of the daemon.
    pub fn load(&self, goals: &[Goal], seed: u64, mix: Mix) -> Traffic {
        let (ledger, stop) = (Arc::new(Ledger::memory()), Arc::new(AtomicBool::new(false)));
        let load = Load {
            api_key: Some(loadtest::daemon::api_key(self.data_dir()).expect("a key")),
            mix,
            seed,
            connections: 16,
            window: Duration::from_hours(2),
            ledger: Some(Arc::clone(&ledger)),
            stop: Some(Arc::clone(&stop)),
            ..Load::new(self.daemon.options.listen, goals.to_vec())
        };
        let running = std::thread::spawn(move || loadtest::closed_loop::run(&load).expect("a load"));
        Traffic { ledger, stop, running: Some(running) }
    }

    /// A request to the API with the first key.
    pub fn api(&self, path: &str) -> Value {
        let key = loadtest::daemon::api_key(self.data_dir()).expect("a key");
        let url = format!("http://{}{path}", self.daemon.options.listen);
        let request = agent().get(url).header("Authorization", format!("Bearer {key}"));
        let answer = read(request.call().expect("an answer")).expect("a body");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// One hit.
    pub fn track(&self, goal: &Goal, order_id: &str) -> Answer {
        let url = format!("http://{}/api/conversions/track/{}", self.daemon.options.listen, goal.token);
        let hit = json!({"value": 12.5, "currency": "EUR", "order_id": order_id});
        read(agent().post(url).send_json(hit).expect("an answer")).expect("a body")
    }

    /// What the operators' listener says; `None`: nothing.
    pub fn ops(&self, path: &str) -> Option<Answer> {
        let url = format!("http://{}{path}", self.daemon.options.ops_listen);
        agent().get(url).call().and_then(read).ok()
    }

    /// A metric without labels, as it stands.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let text = self.ops("/metrics")?.text();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until the filter holds every key of ClickHouse, so that a new key is known to be new.
    pub fn wait_warm(&self) {
        wait_for("a warm filter", || self.metric("tally_filter_warm") == Some(1.0));
    }

    /// Waits until that many conversions are in ClickHouse and the daemon will not read them back.
    pub fn wait_inserted(&self, conversions: u64) {
        let wanted = f64::from(u32::try_from(conversions).expect("a test's number"));
        wait_for("the rows", || {
            self.metric("tally_hits_inserted_total{kind=\"conversion\"}") >= Some(wanted)
        });
    }

    /// Waits until ClickHouse has all that was accepted, as of a moment ago: the last hits may be missing.
    pub fn wait_settled(&self) {
        wait_for("an empty spool", || {
            ["conversion", "click", "adjustment"].into_iter().all(|kind| {
                let of = |name| self.metric(&format!("{name}{{kind=\"{kind}\"}}"));
                of("tally_hits_accepted_total").is_some() && of("tally_hits_pending") == Some(0.0)
            })
        });
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the daemon's last words:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A load under way.
pub struct Traffic {
    pub ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    running: Option<JoinHandle<Report>>,
}

impl Traffic {
    /// How many hits have an outcome by now, to the nearest few hundred.
    pub fn noted(&self) -> usize {
        self.ledger.noted()
    }

    /// Waits until that many more hits have an outcome.
    pub fn wait_for_more(&self, hits: usize) {
        let enough = self.noted() + hits;
        wait_for("more hits", || self.noted() >= enough);
    }

    /// Ends the load.
    pub fn finish(mut self) -> (Report, Arc<Ledger>) {
        self.stop.store(true, Ordering::Relaxed);
        let running = self.running.take().expect("it runs");
        (running.join().expect("no panic"), Arc::clone(&self.ledger))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A folder on the disk that is built on: `/tmp` may be memory, where an fsync is nothing.
pub fn disk_folder() -> TempDir {
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&parent).expect("a folder");
    tempfile::tempdir_in(parent).expect("a folder")
}

pub fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed()).expect("a process")
}

/// kill -9 of a process whose handle is busy elsewhere.
pub fn kill(raw: u32) {
    kill_process(pid(raw), Signal::KILL).expect("killed");
}
