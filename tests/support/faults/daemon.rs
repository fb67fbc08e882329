//! A tally daemon in a process of its own, with or without an engine, with or without faults.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use loadtest::clickhouse::ClickHouse;
use loadtest::daemon::create_goals;
use loadtest::process::Server;
use loadtest::request::Goal;
use tempfile::TempDir;

use super::shim::Faults;
use super::wire::{Response, ask, post, request};
use super::{DEADLINE, wait_for};

/// Nobody listens there.
pub const NO_CLICKHOUSE: &str = "http://127.0.0.1:1/";

/// How to start a daemon.
#[derive(Default)]
pub struct Start<'a> {
    /// Further flags of `serve`.
    pub flags: &'a [&'a str],
    pub faults: Option<&'a Faults>,
}

/// A running daemon; it dies with its handle.
pub struct Tally {
    pub server: Server,
    pub data_dir: PathBuf,
    /// The public listener.
    pub public: SocketAddr,
    /// The operators' one.
    pub ops: SocketAddr,
    log: PathBuf,
}

/// A folder on a real disk.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

impl Tally {
    /// Starts a daemon and waits until it takes hits, whether its database is up or not.
    pub fn start(data_dir: &Path, how: &Start<'_>) -> Self {
        Self::start_in(data_dir, how, &[])
    }

    /// The same, with environment variables.
    pub fn start_in(data_dir: &Path, how: &Start<'_>, environment: &[(&str, &OsStr)]) -> Self {
        Self::started(data_dir, &mut command(data_dir, how, environment))
    }

    /// The same with a soft and a hard limit of open files.
    pub fn start_limited(data_dir: &Path, how: &Start<'_>, open_files: (u64, u64)) -> Self {
        Self::started(data_dir, &mut limited(&command(data_dir, how, &[]), open_files))
    }

    fn started(data_dir: &Path, command: &mut Command) -> Self {
        let log = log_beside(data_dir);
        let mut server = spawn(command, &log);
        let mut addresses = None;
        wait_for("the daemon's start", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(server.ended().expect("asked").is_none(), "the daemon ended:\n{text}");
            addresses = text.lines().find_map(addresses_in);
            addresses.is_some()
        });
        let (public, ops) = addresses.expect("there");
        Self { server, data_dir: data_dir.to_owned(), public, ops, log }
    }

    /// A daemon without a database: it starts at once, and takes hits all the same.
    pub fn start_alone(data_dir: &Path) -> Self {
        Self::start(data_dir, &Start { flags: &["--clickhouse-url", NO_CLICKHOUSE], ..Start::default() })
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.server.kill().expect("killed");
    }

    /// Waits for the end that it comes to by itself; its exit code and its log.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_for("the daemon's end", || {
            status = self.server.ended().expect("asked");
            status.is_some()
        });
        (status.and_then(|status| status.code()), self.log())
    }

    /// Ends it in order.
    pub fn stop(mut self) -> ExitStatus {
        self.server.stop(DEADLINE).expect("it ends")
    }

    /// All that it has said since its start.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log")
    }

    /// The key of the first start.
    pub fn api_key(&self) -> String {
        fs::read_to_string(self.data_dir.join("api-key")).expect("a key").trim().to_owned()
    }

    pub fn goal(&self) -> Goal {
        create_goals(&format!("http://{}", self.public), &self.api_key(), 1).expect("created").remove(0)
    }

    /// A call of the API with the first key.
    pub fn api(&self, line: &str, body: &str) -> Response {
        self.api_with(&self.api_key(), line, body)
    }

    /// A call of the API with that key.
    pub fn api_with(&self, key: &str, line: &str, body: &str) -> Response {
        ask(self.public, request(line, &[("Authorization", &format!("Bearer {key}"))], body))
    }

    /// One hit in JSON, on a connection of its own.
    pub fn hit(&self, goal: &Goal, json: &str) -> Response {
        ask(self.public, hit(goal, json))
    }

    /// `/readyz`: status, and the reasons against.
    pub fn readiness(&self) -> (u16, Vec<String>) {
        let answer = ask(self.ops, request("GET /readyz", &[], ""));
        let reasons = answer.json()["reasons"].as_array().cloned().unwrap_or_default();
        (answer.status, reasons.iter().filter_map(|reason| reason.as_str().map(str::to_owned)).collect())
    }

    /// What `/readyz` says does not work.
    pub fn degraded(&self) -> Vec<String> {
        let answer = ask(self.ops, request("GET /readyz", &[], ""));
        let reasons = answer.json()["degraded"].as_array().cloned().unwrap_or_default();
        reasons.iter().filter_map(|reason| reason.as_str().map(str::to_owned)).collect()
    }

    pub fn wait_unready(&self, reason: &str) {
        wait_for(reason, || self.readiness() == (503, vec![reason.to_owned()]));
    }

    pub fn wait_ready(&self) {
        wait_for("readiness", || self.readiness() == (200, Vec::new()));
    }

    /// What the operators' listener says.
    pub fn ops_text(&self, path: &str) -> String {
        String::from_utf8(ask(self.ops, request(&format!("GET {path}"), &[], "")).body).expect("text")
    }

    /// A count's value, over all labels; 0 where it was never touched.
    pub fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(ask(self.ops, request("GET /metrics", &[], "")).body).expect("text");
        let value = |line: &str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
            // Counts only: a gauge is written as a float.
            rest.rsplit(' ').next()?.split('.').next()?.parse::<u64>().ok()
        };
        text.lines().filter_map(value).sum()
    }

    /// A writer's way into its engine.
    pub fn clickhouse(&self) -> ClickHouse {
        let url = fs::read_to_string(self.data_dir.join("writer.url")).expect("the writer's URL");
        ClickHouse::new(&url).expect("a URL")
    }

    /// The first line of a query's answer; empty while the engine can't answer.
    pub fn line(&self, sql: &str) -> String {
        let answered = self.clickhouse().lines(sql).ok().and_then(|mut lines| lines.next()?.ok());
        answered.unwrap_or_default()
    }
}

impl Drop for Tally {
    /// A test that failed says what the daemon did last.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the daemon's last lines:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}

/// A hit in JSON.
pub fn hit(goal: &Goal, json: &str) -> Vec<u8> {
    post(&format!("/api/conversions/track/{}", goal.token), "application/json", json)
}

/// Starts a daemon that is expected to refuse; its exit code and what it said.
pub fn refusal(data_dir: &Path, flags: &[&str]) -> (Option<i32>, String) {
    refusal_in(data_dir, flags, &[])
}

/// The same, with environment variables.
pub fn refusal_in(data_dir: &Path, flags: &[&str], environment: &[(&str, &OsStr)]) -> (Option<i32>, String) {
    refusal_of(data_dir, &Start { flags, ..Start::default() }, environment)
}

/// The same, with faults.
pub fn refusal_of(data_dir: &Path, how: &Start<'_>, environment: &[(&str, &OsStr)]) -> (Option<i32>, String) {
    refused(data_dir, &mut command(data_dir, how, environment))
}

/// The same with a soft and a hard limit of open files.
pub fn refusal_limited(data_dir: &Path, open_files: (u64, u64)) -> (Option<i32>, String) {
    refused(data_dir, &mut limited(&command(data_dir, &Start::default(), &[]), open_files))
}

fn refused(data_dir: &Path, command: &mut Command) -> (Option<i32>, String) {
    let log = log_beside(data_dir);
    let mut server = spawn(command, &log);
    let mut status = None;
    wait_for("the daemon's refusal", || {
        status = server.ended().expect("asked");
        status.is_some()
    });
    (status.and_then(|status| status.code()), fs::read_to_string(log).expect("a log"))
}

fn command(data_dir: &Path, how: &Start<'_>, environment: &[(&str, &OsStr)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command.arg("serve").arg("--data-dir").arg(data_dir);
    command.args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log-format", "json"]);
    command.args(["--rate-limit-per-minute", "0", "--disk-free-bytes-min", "1MiB"]).args(how.flags);
    if let Some(faults) = how.faults {
        command.envs(faults.environment());
    }
    command.envs(environment.iter().copied());
    command
}

/// The same command in a shell with these limits.
fn limited(command: &Command, (soft, hard): (u64, u64)) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

fn spawn(command: &mut Command, log: &Path) -> Server {
    let file = fs::File::create(log).expect("a log");
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
    Server::start(command).expect("started")
}

fn log_beside(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.as_os_str().to_owned();
    name.push(".log");
    name.into()
}

fn addresses_in(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let json = serde_json::from_str::<serde_json::Value>(line).ok()?;
    let fields = json.get("fields").unwrap_or(&json);
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some((address("address")?, address("ops")?))
}

/// Long enough for what must not happen to happen.
pub const A_WHILE: Duration = Duration::from_millis(300);
