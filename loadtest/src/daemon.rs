//! A tally daemon as a child process, seen from outside: its command line, its data folder's files, its API.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use crate::process::{ProcessError, Server};
use crate::request::Goal;

/// How to start a daemon.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// The program.
    pub binary: PathBuf,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// The public listener.
    pub listen: SocketAddr,
    /// The operations listener.
    pub ops_listen: SocketAddr,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// Where its output goes; `None` drops it.
    pub log: Option<PathBuf>,
}

impl DaemonOptions {
    /// A daemon without rate limits on free loopback ports.
    pub fn new(binary: &Path, data_dir: &Path) -> Result<Self, DaemonError> {
        Ok(Self {
            binary: binary.to_path_buf(),
            data_dir: data_dir.to_path_buf(),
            listen: free_address()?,
            ops_listen: free_address()?,
            arguments: ["--rate-limit-per-minute", "0", "--click-rate-limit-per-minute", "0"]
                .map(String::from)
                .into(),
            log: None,
        })
    }
}

/// Why a daemon could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file of the data folder, or a port.
    #[error("{what}: {error}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        error: io::Error,
    },
    /// It ended before it was ready.
    #[error("the daemon ended before it was ready: {0}")]
    Ended(std::process::ExitStatus),
    /// It did not become ready.
    #[error("the daemon was not ready within {0:?}")]
    NotReady(Duration),
    /// Its API could not be reached.
    #[error("the daemon's API: {0}")]
    Http(#[from] Box<ureq::Error>),
    /// Its API refused.
    #[error("the daemon answered {status} to a new goal: {text}")]
    Refused {
        /// The status.
        status: u16,
        /// The body.
        text: String,
    },
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    /// Its process.
    pub server: Server,
    /// How it was started; starting it again with the same gives the same daemon.
    pub options: DaemonOptions,
}

impl Daemon {
    /// Starts a daemon; it may not be ready yet.
    pub fn start(options: DaemonOptions) -> Result<Self, DaemonError> {
        let mut command = Command::new(&options.binary);
        command.arg("serve").arg("--data-dir").arg(&options.data_dir);
        command.arg("--listen").arg(options.listen.to_string());
        command.arg("--ops-listen").arg(options.ops_listen.to_string());
        command.args(&options.arguments).stdin(Stdio::null());
        if let Some(log) = &options.log {
            let opened = fs::OpenOptions::new().create(true).append(true).open(log);
            let file = opened.and_then(|file| Ok((file.try_clone()?, file)));
            let (out, err) =
                file.map_err(|error| DaemonError::Io { what: log.display().to_string(), error })?;
            command.stdout(out).stderr(err);
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        Ok(Self { server: Server::start(&mut command)?, options })
    }

    /// Waits until it answers that it is ready.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<(), DaemonError> {
        let deadline = Instant::now() + patience;
        let url = format!("http://{}/readyz", self.options.ops_listen);
        loop {
            if agent().get(&url).call().is_ok_and(|response| response.status() == 200) {
                return Ok(());
            }
            if let Some(status) = self.server.ended()? {
                return Err(DaemonError::Ended(status));
            }
            if Instant::now() >= deadline {
                return Err(DaemonError::NotReady(patience));
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Starts it again after it was stopped or killed.
    pub fn restart(&mut self, patience: Duration) -> Result<(), DaemonError> {
        let options = self.options.clone();
        self.server = Self::start(options)?.server;
        self.wait_ready(patience)
    }

    /// Creates `count` goals.
    pub fn create_goals(&self, count: usize) -> Result<Vec<Goal>, DaemonError> {
        create_goals(&format!("http://{}", self.options.listen), &api_key(&self.options.data_dir)?, count)
    }

    /// `ClickHouse`'s address with the reader's password.
    pub fn reader_url(&self) -> Result<String, DaemonError> {
        reader_url(&self.options.data_dir)
    }
}

/// The first API key of a data folder.
pub fn api_key(data_dir: &Path) -> Result<String, DaemonError> {
    read_trimmed(&data_dir.join("api-key"))
}

/// `ClickHouse`'s address with the reader's password, from a data folder.
pub fn reader_url(data_dir: &Path) -> Result<String, DaemonError> {
    read_trimmed(&data_dir.join("reader.url"))
}

/// Creates `count` goals through the API at `url`.
pub fn create_goals(url: &str, key: &str, count: usize) -> Result<Vec<Goal>, DaemonError> {
    #[derive(Deserialize)]
    struct Created {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        id: u64,
        postback_token: String,
    }
    let endpoint = format!("{}/api/v1/conversions/goals", url.trim_end_matches('/'));
    let agent = agent();
    (0..count)
        .map(|index| {
            let goal = json!({"goal": {"name": format!("Load {index}"), "goal_type": "purchase", "value": 99.00, "currency": "USD"}});
            let request = agent.post(&endpoint).header("Authorization", format!("Bearer {key}"));
            let mut response = request.send_json(goal).map_err(Box::new)?;
            let status = response.status().as_u16();
            if status != 201 {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                return Err(DaemonError::Refused { status, text });
            }
            let created: Created = response.body_mut().read_json().map_err(Box::new)?;
            Ok(Goal { id: created.data.id, token: created.data.postback_token })
        })
        .collect()
}

/// A loopback address whose port was free a moment ago.
pub fn free_address() -> Result<SocketAddr, DaemonError> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map_err(|error| DaemonError::Io { what: "a free port".into(), error })
}

fn agent() -> ureq::Agent {
    let timeout = Some(Duration::from_secs(10));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout).build().into()
}

fn read_trimmed(path: &Path) -> Result<String, DaemonError> {
    let text = fs::read_to_string(path);
    text.map(|text| text.trim().to_owned())
        .map_err(|error| DaemonError::Io { what: path.display().to_string(), error })
}
