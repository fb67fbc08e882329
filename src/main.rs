//! The `tally` command.

use std::process::ExitCode;

use tally::{
    app,
    cli::{self, Command},
    embedded,
};

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os(), std::env::vars_os()) {
        Ok(invocation) => invocation,
        Err(error) => return error.report(),
    };
    let config = &invocation.config;
    match invocation.command {
        Command::Serve => finish(app::serve(config)),
        Command::Engine { .. } => embedded::engine_main(),
        _ => ExitCode::FAILURE,
    }
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
