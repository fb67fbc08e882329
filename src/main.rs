//! The `tally` command.

#![deny(clippy::disallowed_methods)]

use std::process::ExitCode;

use tally::{
    app::{self, commands, corrections, keys, log_damage, time},
    cli::{self, Command},
    embedded,
};

fn main() -> ExitCode {
    // What this process and the engine's make is for their user alone: order ids, keys and passwords are in it.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let invocation = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(invocation) => invocation,
        Err(error) => return error.report(),
    };
    for warning in &invocation.warnings {
        eprintln!("tally: {warning}");
    }
    let config = &invocation.config;
    app::raise_limit();
    match invocation.command {
        Command::Serve => finish(app::serve(config)),
        Command::Engine { .. } => embedded::engine_main(),
        Command::Audit { json, ops_url } => end(commands::audit(config, json, ops_url.as_deref())),
        Command::Migrate => end(commands::migrate(config)),
        Command::Check => end(commands::check(config)),
        Command::LogSalvage => end(log_damage::salvage(config)),
        Command::Clock { confirm: false } => end(time::show(config)),
        Command::Clock { confirm: true } => end(time::confirm(config)),
        Command::Repair { losses } => end(commands::repair(config, &losses)),
        Command::Reattribute { action, json } => end(corrections::reattribute(config, action, json)),
        Command::Erase { who, account, json } => end(corrections::erase(config, who, account, json)),
        Command::KeysList { json } => end(keys::list(config, json)),
        Command::KeysRotate => end(keys::rotate(config)),
        Command::DeadLettersList { json } => end(commands::list_dead_letters(config, json)),
        Command::DeadLettersReplay { ids } => end(commands::replay_dead_letters(config, &ids)),
    }
}

fn end(outcome: Result<ExitCode, commands::CommandError>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("tally: {error}");
        ExitCode::FAILURE
    })
}

fn finish<E: std::fmt::Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tally: {error}");
            ExitCode::FAILURE
        }
    }
}
