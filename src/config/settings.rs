//! The table of settings: the one place where a setting is named.

use std::{path::PathBuf, time::Duration};

use super::{Config, LogFormat, Secret, values};
use crate::core::IpStorage;

/// Which subcommands take a setting's flag. Environment and file apply to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that touch data.
    Everywhere,
    /// `serve` and `check`.
    Serving,
}

/// One setting.
pub struct Setting {
    /// The flag without its dashes: `data-dir`.
    pub flag: &'static str,
    /// What stands for the value in the help text.
    pub value_name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What a good value looks like, to complete 'expected …'.
    pub expected: &'static str,
    /// The value where none is given.
    pub default: Option<&'static str>,
    /// Whether its value may hold a password.
    pub secret: bool,
    /// Which subcommands take the flag.
    pub scope: Scope,
    /// Parses the text into the configuration; `false`: the text is not what is expected.
    pub apply: fn(&mut Config, &str) -> bool,
}

impl Setting {
    /// The environment variable: `TALLY_DATA_DIR`.
    #[must_use]
    pub fn env(&self) -> String {
        format!("TALLY_{}", self.flag.replace('-', "_").to_ascii_uppercase())
    }

    /// Whether its flag may stand without a value, which is to say `true`.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        self.default == Some("false")
    }

    /// The key in `tally.toml`: `data_dir`.
    #[must_use]
    pub fn key(&self) -> String {
        self.flag.replace('-', "_")
    }
}

/// Keeps a parsed value, or says that there was none.
fn set<T>(slot: &mut T, parsed: Option<T>) -> bool {
    match parsed {
        Some(value) => {
            *slot = value;
            true
        }
        None => false,
    }
}

/// Every setting there is; at most 25.
pub static SETTINGS: &[Setting] = &[
    Setting {
        flag: "data-dir",
        value_name: "DIR",
        help: "Folder of everything durable: log, catalog, keys, the embedded database",
        expected: "the path of a folder",
        default: Some("./data"),
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| set(&mut config.data_dir, values::path(text)),
    },
    Setting {
        flag: "listen",
        value_name: "ADDR",
        help: "Public address: tracking and API",
        expected: "an address and a port, such as 0.0.0.0:8080 or [::]:8080",
        default: Some("0.0.0.0:8080"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.listen, text.parse().ok()),
    },
    Setting {
        flag: "ops-listen",
        value_name: "ADDR",
        help: "Operators' address: /metrics, /livez, /readyz",
        expected: "an address and a port, such as 127.0.0.1:8081",
        default: Some("127.0.0.1:8081"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.ops_listen, text.parse().ok()),
    },
    Setting {
        flag: "clickhouse-url",
        value_name: "URL",
        help: "ClickHouse server to use instead of the embedded engine",
        expected: "http://[USER[:PASSWORD]@]HOST[:PORT]/[?database=NAME]",
        default: None,
        secret: true,
        scope: Scope::Everywhere,
        apply: |config, text| {
            set(&mut config.clickhouse_url, values::http_url(text).map(|url| Some(Secret::new(url))))
        },
    },
    Setting {
        flag: "clickhouse-password-file",
        value_name: "FILE",
        help: "File that holds the password of clickhouse-url, which command lines would show to everybody",
        expected: "the path of a file",
        default: None,
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| set(&mut config.clickhouse_password_file, values::path(text).map(Some)),
    },
    Setting {
        flag: "rate-limit-per-minute",
        value_name: "N",
        help: "Hits per postback token in any minute; 0: no limit",
        expected: "a whole number, 0 or more",
        default: Some("1000"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            set(&mut config.rate_limit_per_minute, text.parse().ok().map(std::num::NonZeroU32::new))
        },
    },
    Setting {
        flag: "click-rate-limit-per-minute",
        value_name: "N",
        help: "Visits through an account's links in any minute that are recorded; all are redirected; 0: no limit",
        expected: "a whole number, 0 or more",
        default: Some("600000"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            set(&mut config.click_rate_limit_per_minute, text.parse().ok().map(std::num::NonZeroU32::new))
        },
    },
    Setting {
        flag: "api-rate-limit-per-minute",
        value_name: "N",
        help: "Calls of the API by an account in any minute, but for hits and reported clicks; 0: no limit",
        expected: "a whole number, 0 or more",
        default: Some("30000"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            set(&mut config.api_rate_limit_per_minute, text.parse().ok().map(std::num::NonZeroU32::new))
        },
    },
    Setting {
        flag: "trusted-proxies",
        value_name: "CIDR,…",
        help: "Networks whose X-Forwarded-For is believed",
        expected: "addresses or networks, separated by commas, such as 10.0.0.0/8,::1",
        default: Some(""),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.trusted_proxies, values::networks(text)),
    },
    Setting {
        flag: "ip-storage",
        value_name: "MODE",
        help: "What is kept of visitors' addresses: truncated (/24, /48), full or none",
        expected: "truncated, full or none",
        default: Some("truncated"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.ip_storage, IpStorage::parse(text)),
    },
    Setting {
        flag: "match-private-addresses",
        value_name: "BOOL",
        help: "Match visitors by private and carrier-shared addresses too, as for development",
        expected: "true or false",
        default: Some("false"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.match_private_addresses, text.parse().ok()),
    },
    Setting {
        flag: "click-retention-days",
        value_name: "DAYS",
        help: "How long clicks are kept, and how late a click or a conversion may be reported",
        expected: "a whole number from 1 to 3650",
        default: Some("400"),
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| set(&mut config.click_retention_days, values::within(text, 1..=3650)),
    },
    Setting {
        flag: "settle-seconds",
        value_name: "N",
        help: "For how long a conversion that names no known click waits for one that it may have overtaken",
        expected: "a whole number from 0 to 3600",
        default: Some("5"),
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| set(&mut config.settle_seconds, values::within(text, 0..=3600)),
    },
    Setting {
        flag: "connections-max",
        value_name: "N",
        help: "Most open connections on the public address",
        expected: "a whole number from 1 to 1000000",
        default: Some("10000"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.connections_max, values::within(text, 1..=1_000_000)),
    },
    Setting {
        flag: "keep-alive-seconds",
        value_name: "N",
        help: "How long a connection may be idle; longer than a load balancer in front keeps its own",
        expected: "a whole number from 1 to 3600",
        default: Some("75"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            set(&mut config.keep_alive, values::within(text, 1..=3600).map(Duration::from_secs))
        },
    },
    Setting {
        flag: "body-bytes-max",
        value_name: "BYTES",
        help: "Largest request body",
        expected: "a size from 1KiB to 16MiB, such as 65536 or 64KiB",
        default: Some("64KiB"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            let size = values::size(text).filter(|size| (1 << 10..=16 << 20).contains(size));
            set(&mut config.body_bytes_max, size.and_then(|size| usize::try_from(size).ok()))
        },
    },
    Setting {
        flag: "spool-bytes-max",
        value_name: "BYTES",
        help: "Most bytes of log that wait for the database; past it hits are answered 503",
        expected: "a size of at least 16MiB, such as 8GiB",
        default: Some("8GiB"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            set(&mut config.spool_bytes_max, values::size(text).filter(|size| *size >= 16 << 20))
        },
    },
    Setting {
        flag: "disk-free-bytes-min",
        value_name: "BYTES",
        help: "Free disk space below which hits are answered 503",
        expected: "a size, such as 1GiB",
        default: Some("1GiB"),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.disk_free_bytes_min, values::size(text)),
    },
    Setting {
        flag: "postback-allow",
        value_name: "CIDR,…",
        help: "Networks that postbacks may reach although they are not public, by plain http too, as for development",
        expected: "addresses or networks, separated by commas, such as 127.0.0.0/8,::1",
        default: Some(""),
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.postback_allow, values::networks(text)),
    },
    Setting {
        flag: "log-format",
        value_name: "FORMAT",
        help: "How log lines look: json or text",
        expected: "json or text",
        default: Some("text"),
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| {
            let format = match text {
                "json" => Some(LogFormat::Json),
                "text" => Some(LogFormat::Text),
                _ => None,
            };
            set(&mut config.log_format, format)
        },
    },
    Setting {
        flag: "log-level",
        value_name: "LEVEL",
        help: "What is logged: a level, or per module as in info,tally::wal=debug",
        expected: "error, warn, info, debug, trace, or such levels per module",
        default: Some("info"),
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| set(&mut config.log_level, values::log_level(text)),
    },
    Setting {
        flag: "clickhouse-memory-bytes-max",
        value_name: "BYTES",
        help: "Memory that the embedded engine may use",
        expected: "a size of at least 256MiB, such as 2GiB",
        default: None,
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| {
            let size = values::size(text).filter(|size| *size >= 256 << 20);
            set(&mut config.clickhouse_memory_bytes_max, size.map(Some))
        },
    },
    Setting {
        flag: "workers",
        value_name: "N",
        help: "Threads that serve requests; one per core if not given",
        expected: "a whole number from 1 to 1024",
        default: None,
        secret: false,
        scope: Scope::Serving,
        apply: |config, text| set(&mut config.workers, values::within(text, 1..=1024).map(Some)),
    },
    Setting {
        flag: "libchdb",
        value_name: "FILE",
        help: "Library of the embedded engine, if it is not beside the program; an absolute path",
        expected: "the absolute path of libchdb.so, by flag, by environment, or in a file that --config names",
        default: None,
        secret: false,
        scope: Scope::Everywhere,
        apply: |config, text| set(&mut config.libchdb, values::absolute_path(text).map(Some::<PathBuf>)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_few_of_them_and_each_has_its_own_name() {
        assert!(SETTINGS.len() <= 25);
        let mut names: Vec<_> = SETTINGS.iter().map(|setting| setting.flag).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SETTINGS.len());
    }

    #[test]
    fn every_default_parses() {
        for setting in SETTINGS {
            if let Some(default) = setting.default {
                assert!((setting.apply)(&mut Config::default(), default), "{}", setting.flag);
            }
        }
    }

    #[test]
    fn names_follow_the_flag() {
        assert_eq!(SETTINGS[0].env(), "TALLY_DATA_DIR");
        assert_eq!(SETTINGS[0].key(), "data_dir");
    }
}
