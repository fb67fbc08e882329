//! The command line: which subcommand, with which settings.

mod corrections;
mod repair;

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Arg, ArgAction, ArgMatches, value_parser};

pub use self::{
    corrections::{Reattribute, Who},
    repair::Loss,
};
use self::{
    corrections::{reattribute, who, with_person, with_reattribution},
    repair::{losses, with_losses},
};
use crate::config::{Config, FILE_DEFAULT, Layers, SETTINGS, Scope, Setting, SettingsError};

/// What the caller wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon.
    Serve,
    /// Bring the database's schema up to date.
    Migrate,
    /// Prove that every accepted hit is accounted for.
    Audit {
        /// Machine-readable.
        json: bool,
        /// The operations address of the daemon whose metrics are compared.
        ops_url: Option<String>,
    },
    /// Show the rows that the database refused.
    DeadLettersList {
        /// Machine-readable.
        json: bool,
    },
    /// Send refused rows again.
    DeadLettersReplay {
        /// Which ones; none: all.
        ids: Vec<String>,
    },
    /// Keep what is whole of a log that is damaged.
    LogSalvage,
    /// Show the API keys, without their secrets.
    KeysList {
        /// Machine-readable.
        json: bool,
    },
    /// Give the first key another secret.
    KeysRotate,
    /// Decide history anew, or say which decisions are in force.
    Reattribute {
        /// What to do.
        action: Reattribute,
        /// Machine-readable.
        json: bool,
    },
    /// Remove a person's data from the raw tables.
    Erase {
        /// Whose.
        who: Who,
        /// In which account; none: in all.
        account: Option<u32>,
        /// Machine-readable.
        json: bool,
    },
    /// Say whether the system's clock is believed, or confirm that it is right.
    Clock {
        /// Confirm it.
        confirm: bool,
    },
    /// Check configuration and schema without serving.
    Check,
    /// Say what is wrong with the data folder, and give up what is named.
    Repair {
        /// What is given up.
        losses: Vec<Loss>,
    },
    /// The embedded engine's process; started by the daemon alone.
    Engine {
        /// Its private arguments.
        arguments: Vec<OsString>,
    },
}

/// A subcommand with its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// With which settings.
    pub config: Config,
    /// What the caller should know of the settings.
    pub warnings: Vec<&'static str>,
}

/// The command line can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong usage, or help was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Settings that can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

impl CliError {
    /// Tells the caller, and gives the exit code: 2 for anything wrong, 0 where help was asked for.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Usage(error) => {
                // If not even the terminal can be written to, the exit code still says it.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Self::Settings(error) => {
                eprintln!("tally: {error}");
                ExitCode::from(2)
            }
        }
    }
}

/// Reads command line and environment, both handed in.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, CliError> {
    let matches = command_line().try_get_matches_from(arguments)?;
    let Some((name, matches)) = matches.subcommand() else {
        return Err(command_line()
            .error(clap::error::ErrorKind::MissingSubcommand, "a subcommand is needed")
            .into());
    };
    if name == "engine" {
        let arguments = matches.get_many("arguments").unwrap_or_default().cloned().collect();
        let command = Command::Engine { arguments };
        return Ok(Invocation { command, config: Config::default(), warnings: Vec::new() });
    }
    let (command, matches) = match (name, matches.subcommand()) {
        ("serve", _) => (Command::Serve, matches),
        ("migrate", _) => (Command::Migrate, matches),
        ("audit", _) => {
            let ops_url = matches.get_one("ops-url").cloned();
            (Command::Audit { json: matches.get_flag("json"), ops_url }, matches)
        }
        ("reattribute", _) => {
            (Command::Reattribute { action: reattribute(matches), json: matches.get_flag("json") }, matches)
        }
        ("erase", _) => {
            let (account, json) = (matches.get_one("account").copied(), matches.get_flag("json"));
            (Command::Erase { who: who(matches)?, account, json }, matches)
        }
        ("clock", inner) => {
            (Command::Clock { confirm: inner.is_some() }, inner.map_or(matches, |(_, inner)| inner))
        }
        ("keys", Some(("rotate", inner))) => (Command::KeysRotate, inner),
        ("keys", Some((_, inner))) => (Command::KeysList { json: inner.get_flag("json") }, inner),
        ("repair", _) => (Command::Repair { losses: losses(matches) }, matches),
        ("dead-letters", Some(("replay", inner))) => {
            let ids = inner.get_many("ids").unwrap_or_default().cloned().collect();
            (Command::DeadLettersReplay { ids }, inner)
        }
        ("dead-letters", Some((_, inner))) => {
            (Command::DeadLettersList { json: inner.get_flag("json") }, inner)
        }
        ("log", Some((_, inner))) => (Command::LogSalvage, inner),
        _ => (Command::Check, matches),
    };
    let layers = layers(matches, env);
    let config = layers.read()?;
    let warnings = if layers.shows_password() { vec![PASSWORD_SHOWN] } else { Vec::new() };
    Ok(Invocation { command, config, warnings })
}

/// What is said of a password on the command line.
const PASSWORD_SHOWN: &str = "the password in --clickhouse-url can be seen by every user of this machine: use \
    --clickhouse-password-file, or put the address into TALLY_CLICKHOUSE_URL";

fn command_line() -> clap::Command {
    let command = |name: &'static str, about: &'static str| clap::Command::new(name).about(about);
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    let ids = Arg::new("ids").value_name("ID").num_args(0..).help("Which ones; none: all");
    let ops_url = Arg::new("ops-url").long("ops-url").value_name("URL").help(
        "The operations address of the daemon whose metrics are compared [default: where ops-listen says, if a daemon \
         runs on the folder]",
    );
    let arguments = Arg::new("arguments")
        .num_args(0..)
        .allow_hyphen_values(true)
        .trailing_var_arg(true)
        .value_parser(value_parser!(OsString));
    clap::Command::new("tally")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Self-hosted conversion tracking: every acknowledged hit, exactly once")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(with_settings(command("serve", "Run the daemon"), true))
        .subcommand(with_settings(command("migrate", "Bring the database's schema up to date"), false))
        .subcommand(with_settings(
            command("audit", "Prove that every accepted hit is accounted for; exit code 0 only if it is")
                .arg(json())
                .arg(ops_url),
            false,
        ))
        .subcommand(
            command("dead-letters", "Rows that the database refused")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(with_settings(command("list", "Show them").arg(json()), false))
                .subcommand(with_settings(command("replay", "Send them again").arg(ids), false)),
        )
        .subcommand(
            command("log", "The write-ahead log of a stopped daemon")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(with_settings(
                    command(
                        "salvage",
                        "Keep every intact record of a damaged log, and say which are gone; for a start that was refused",
                    ),
                    false,
                )),
        )
        .subcommand(
            command("keys", "API keys, on the folder of a stopped daemon")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(with_settings(
                    command("list", "Show them, without their secrets").arg(json()),
                    false,
                ))
                .subcommand(with_settings(
                    command("rotate", "Give the first key another secret, and write it to DIR/api-key"),
                    false,
                )),
        )
        .subcommand(with_settings(
            with_reattribution(command(
                "reattribute",
                "Decide anew which clicks earned which conversions, beside the decisions that were made",
            ))
            .arg(json()),
            false,
        ))
        .subcommand(with_settings(
            with_person(command(
                "erase",
                "Remove a person's data from the raw tables, and say what was done",
            ))
            .arg(json()),
            false,
        ))
        .subcommand(
            with_settings(command("clock", "Say whether the system clock is believed"), false).subcommand(
                with_settings(command("confirm", "Confirm that the system clock is right"), false),
            ),
        )
        .subcommand(with_settings(
            with_losses(command(
                "repair",
                "Say what is missing or damaged in the data folder (daemon stopped), and go on without what is named",
            )),
            true,
        ))
        .subcommand(with_settings(command("check", "Check configuration and schema, and stop"), true))
        .subcommand(command("engine", "The embedded engine's process").hide(true).arg(arguments))
}

/// Adds the flags of the settings that the subcommand has a use for.
fn with_settings(command: clap::Command, serving: bool) -> clap::Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!("File of settings [env: TALLY_CONFIG] [default: {FILE_DEFAULT} if it exists]"));
    SETTINGS
        .iter()
        .filter(|setting| serving || setting.scope == Scope::Everywhere)
        .fold(command.arg(config), |command, setting| command.arg(flag(setting)))
}

fn flag(setting: &Setting) -> Arg {
    let default = match setting.default {
        Some(default) if !default.is_empty() => format!(" [default: {default}]"),
        _ => String::new(),
    };
    let flag = Arg::new(setting.flag).long(setting.flag).value_name(setting.value_name);
    let flag = if setting.is_switch() {
        flag.num_args(0..=1).require_equals(true).default_missing_value("true")
    } else {
        flag.allow_hyphen_values(true)
    };
    flag.help(format!("{} [env: {}]{default}", setting.help, setting.env()))
}

fn layers(matches: &ArgMatches, env: impl IntoIterator<Item = (OsString, OsString)>) -> Layers {
    let mut env: BTreeMap<String, String> = env
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with("TALLY_"))
        .collect();
    let from_env = env.remove("TALLY_CONFIG").map(PathBuf::from);
    let given = |setting: &'static Setting| {
        let value = matches.try_get_one::<String>(setting.flag).ok().flatten()?;
        Some((setting.flag, value.clone()))
    };
    Layers {
        flags: SETTINGS.iter().filter_map(given).collect(),
        env,
        file: matches.get_one::<PathBuf>("config").cloned().or(from_env),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Model, UnixMillis};

    fn run(line: &str, env: &[(&str, &str)]) -> Result<Invocation, CliError> {
        let arguments = std::iter::once("tally").chain(line.split_whitespace()).map(OsString::from);
        parse(arguments, env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn the_command_line_is_sound() {
        command_line().debug_assert();
    }

    #[test]
    fn every_subcommand_is_understood() {
        let command = |line| run(line, &[]).expect("understood").command;
        assert_eq!(
            command("serve --data-dir /tmp/x --listen 127.0.0.1:1 --ops-listen 127.0.0.1:2"),
            Command::Serve
        );
        assert_eq!(command("migrate"), Command::Migrate);
        let ops_url = Some("http://127.0.0.1:1".to_owned());
        assert_eq!(
            command("audit --json --data-dir x --ops-url http://127.0.0.1:1"),
            Command::Audit { json: true, ops_url }
        );
        assert_eq!(command("audit"), Command::Audit { json: false, ops_url: None });
        assert_eq!(command("dead-letters list"), Command::DeadLettersList { json: false });
        assert_eq!(
            command("dead-letters replay 1 2 --data-dir x"),
            Command::DeadLettersReplay { ids: vec!["1".into(), "2".into()] }
        );
        assert_eq!(command("log salvage --data-dir x"), Command::LogSalvage);
        assert_eq!(command("check"), Command::Check);
        assert_eq!(command("clock --data-dir x"), Command::Clock { confirm: false });
        assert_eq!(command("clock confirm --data-dir x"), Command::Clock { confirm: true });
        assert_eq!(command("keys list --json --data-dir x"), Command::KeysList { json: true });
        assert_eq!(command("keys rotate"), Command::KeysRotate);
        assert_eq!(command("repair --data-dir x"), Command::Repair { losses: Vec::new() });
        assert_eq!(
            command("repair --accept-loss outbox --accept-loss=checkpoint"),
            Command::Repair { losses: vec![Loss::Checkpoint, Loss::Outbox] }
        );
        let run = |model, dry_run| Reattribute::Run {
            window_days: 7,
            model,
            since: UnixMillis(1_793_491_200_000),
            dry_run,
        };
        let reattribute = |action| Command::Reattribute { action, json: false };
        assert_eq!(
            command("reattribute --window-days 7 --since 2026-11-01 --data-dir x"),
            reattribute(run(Model::Last, false))
        );
        assert_eq!(
            command("reattribute --window-days 7 --since 2026-11-01T02:00:00+02:00 --model first --dry-run"),
            reattribute(run(Model::First, true))
        );
        assert_eq!(command("reattribute --use 0"), reattribute(Reattribute::Use(0)));
        assert_eq!(command("reattribute --list"), reattribute(Reattribute::List));
        let erase = |who| Command::Erase { who, account: None, json: false };
        assert_eq!(
            command("erase --order-id A-1 --goal 2 --data-dir x"),
            erase(Who::Order { id: "A-1".into(), goal: Some(2) })
        );
        assert_eq!(command("erase --click-id 789"), erase(Who::Click(789)));
        assert_eq!(command("erase --visitor 17"), erase(Who::VisitorKey(17)));
        let visitor =
            Who::Visitor { ip: "203.0.113.7".parse().expect("an address"), user_agent: "curl/8".into() };
        assert_eq!(
            command("erase --visitor 203.0.113.7 --user-agent curl/8 --account 3 --json"),
            Command::Erase { who: visitor, account: Some(3), json: true }
        );
        let arguments = vec!["--port".into(), "1".into()];
        assert_eq!(command("engine --port 1"), Command::Engine { arguments });
    }

    #[test]
    fn flags_win_over_the_environment() {
        let env = [("TALLY_RATE_LIMIT_PER_MINUTE", "7"), ("TALLY_WORKERS", "3"), ("OTHER", "x")];
        let config = run("serve --rate-limit-per-minute 0", &env).expect("good").config;
        assert_eq!((config.rate_limit_per_minute, config.workers), (None, Some(3)));
    }

    #[test]
    fn a_password_on_the_command_line_is_warned_of() {
        let warned = |line, env: &[(&str, &str)]| !run(line, env).expect("good").warnings.is_empty();
        assert!(warned("serve --clickhouse-url http://u:secret@db/", &[]));
        assert!(warned("audit --clickhouse-url http://db/?password=secret", &[]));
        assert!(!warned("serve --clickhouse-url http://u@db/ --clickhouse-password-file /run/secret", &[]));
        assert!(!warned("serve", &[("TALLY_CLICKHOUSE_URL", "http://u:secret@db/")]));
    }

    #[test]
    fn a_switch_needs_no_value() {
        let on = |line| run(line, &[("TALLY_MATCH_PRIVATE_ADDRESSES", "true")]).expect("good").config;
        assert!(on("serve --match-private-addresses --workers 1").match_private_addresses);
        assert!(on("serve").match_private_addresses);
        assert!(!on("serve --match-private-addresses=false").match_private_addresses);
    }

    #[test]
    fn wrong_usage_and_wrong_settings_are_told_apart() {
        assert!(matches!(run("serve --colour red", &[]), Err(CliError::Usage(_))));
        for line in [
            "",
            "reattribute",
            "reattribute --window-days 7",
            "reattribute --window-days 0 --since 2026-11-01",
            "reattribute --window-days 7 --since yesterday",
            "reattribute --use 1 --list",
            "erase",
            "erase --order-id A --click-id 1",
            "erase --click-id 0",
            "erase --visitor 203.0.113.7",
            "erase --visitor nobody",
        ] {
            assert!(matches!(run(line, &[]), Err(CliError::Usage(_))), "{line}");
        }
        assert!(matches!(run("serve --listen -1", &[]), Err(CliError::Settings(_))));
    }
}
