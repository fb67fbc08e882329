//! The daemon's configuration: typed, from flags over the environment over `tally.toml`.
//!
//! Every setting is one row of [`SETTINGS`]: its flag, environment variable, file key, help text, default and parser
//! all come from that row. Reading reports **all** bad settings at once.

mod layers;
mod settings;
mod values;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use ipnet::IpNet;

pub use layers::{Layers, Problem, SettingsError};
pub use settings::{SETTINGS, Scope, Setting};

use crate::core::IpStorage;
pub use crate::secret::Secret;

/// Where the file of settings is looked for when none is named.
pub const FILE_DEFAULT: &str = "tally.toml";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Every setting, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// The public listener: tracking and API.
    pub listen: SocketAddr,
    /// The operators' listener: metrics and health.
    pub ops_listen: SocketAddr,
    /// A ClickHouse server; `None`: the embedded engine.
    pub clickhouse_url: Option<Secret>,
    /// The file that holds the server's password; `None`: the URL has it, or there is none.
    pub clickhouse_password_file: Option<PathBuf>,
    /// Hits a minute per postback token; `None`: no limit.
    pub rate_limit_per_minute: Option<NonZeroU32>,
    /// Visits a minute through an account's links that are recorded; `None`: all.
    pub click_rate_limit_per_minute: Option<NonZeroU32>,
    /// Calls a minute of the API by an account; `None`: no limit.
    pub api_rate_limit_per_minute: Option<NonZeroU32>,
    /// Who may say on whose behalf they call.
    pub trusted_proxies: Vec<IpNet>,
    /// What is kept of a visitor's address.
    pub ip_storage: IpStorage,
    /// Whether visitors are told apart by private addresses too, as in a development network.
    pub match_private_addresses: bool,
    /// How long clicks are kept, in days: so old may a click or a conversion be that is reported late.
    pub click_retention_days: u32,
    /// For how long a conversion may overtake the click that earned it, in seconds.
    pub settle_seconds: u16,
    /// Most open connections on the public listener.
    pub connections_max: usize,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// Largest request body.
    pub body_bytes_max: usize,
    /// Most bytes of log that wait to be inserted.
    pub spool_bytes_max: u64,
    /// Free space below which no hit is taken.
    pub disk_free_bytes_min: u64,
    /// Addresses that postbacks may reach although they are not public.
    pub postback_allow: Vec<IpNet>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged: a level, or directives of `tracing`'s `EnvFilter`.
    pub log_level: String,
    /// Memory that the embedded engine may use; `None`: the engine decides.
    pub clickhouse_memory_bytes_max: Option<u64>,
    /// Threads that serve requests; `None`: one per core.
    pub workers: Option<usize>,
    /// The embedded engine's library; `None`: it is looked for beside the binary.
    pub libchdb: Option<PathBuf>,
}

impl Default for Config {
    /// The defaults of [`SETTINGS`], which a test holds to be these.
    fn default() -> Self {
        let mut config = Self {
            data_dir: PathBuf::new(),
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            ops_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            clickhouse_url: None,
            clickhouse_password_file: None,
            rate_limit_per_minute: None,
            click_rate_limit_per_minute: None,
            api_rate_limit_per_minute: None,
            trusted_proxies: Vec::new(),
            ip_storage: IpStorage::default(),
            match_private_addresses: false,
            click_retention_days: 0,
            settle_seconds: 0,
            connections_max: 0,
            keep_alive: Duration::ZERO,
            body_bytes_max: 0,
            spool_bytes_max: 0,
            disk_free_bytes_min: 0,
            postback_allow: Vec::new(),
            log_format: LogFormat::Text,
            log_level: String::new(),
            clickhouse_memory_bytes_max: None,
            workers: None,
            libchdb: None,
        };
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                let parsed = (setting.apply)(&mut config, default);
                debug_assert!(parsed, "the default of {} must parse", setting.flag);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let config =
            Config { clickhouse_url: Some(Secret::new("http://u:hunter2@db:8123/")), ..Config::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = Config::default();
        assert_eq!(config.data_dir, PathBuf::from("./data"));
        assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(config.ops_listen.to_string(), "127.0.0.1:8081");
        assert_eq!(config.rate_limit_per_minute, NonZeroU32::new(1000));
        assert_eq!(config.body_bytes_max, 64 << 10);
        assert_eq!(config.spool_bytes_max, 8 << 30);
        assert_eq!(config.disk_free_bytes_min, 1 << 30);
        assert_eq!((config.click_retention_days, config.match_private_addresses), (400, false));
    }
}
