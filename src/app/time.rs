//! `tally clock`: what a daemon on the folder makes of the system's clock, and an operator's word that it is right.

use std::{path::Path, process::ExitCode, sync::Arc};

use super::{commands::CommandError, data_dir::DataDir};
use crate::{
    clock::{self, BelievedClock, ClockError},
    config::Config,
    core::UnixMillis,
    intake::ClickIds,
    shipper::{Folder, sealed_at},
};

/// The daemon's clock; where no time was kept yet, it goes by what was written last.
pub(super) fn open(data_dir: &Path) -> Result<Arc<BelievedClock>, ClockError> {
    let clock = BelievedClock::open(data_dir, &traces(data_dir))?;
    clock.observe();
    Ok(Arc::new(clock))
}

/// Keeps the time for the next daemon. The last thing that is done.
pub(super) fn keep(clock: &BelievedClock) {
    if let Err(error) = clock.keep_now() {
        tracing::warn!(%error, "the time could not be written");
    }
}

/// `tally clock`: fails while the system's clock is not believed.
pub fn show(config: &Config) -> Result<ExitCode, CommandError> {
    DataDir::must_exist(&config.data_dir)?;
    let seen = clock::inspect(&config.data_dir, &traces(&config.data_dir))?;
    println!("The system clock says {}.", clock::text(seen.system));
    if seen.believed {
        println!("It is believed.");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "It is not believed: tally goes by {}. Set the clock, or run `tally clock confirm` if it is right.",
        clock::text(seen.now)
    );
    Ok(ExitCode::FAILURE)
}

/// `tally clock confirm`.
pub fn confirm(config: &Config) -> Result<ExitCode, CommandError> {
    DataDir::must_exist(&config.data_dir)?;
    let now = clock::confirm(&config.data_dir)?;
    println!(
        "{} is confirmed as the right time; a running daemon believes it within a second, another one at its start.",
        clock::text(now)
    );
    Ok(ExitCode::SUCCESS)
}

/// When an earlier daemon wrote its files: at its last batch, and, as long as it ran, every half minute. A file that can't
/// be read stops the daemon when it is opened, with its own message.
fn traces(data_dir: &Path) -> Vec<UnixMillis> {
    let checkpoint = Folder::new(data_dir).load_checkpoint().ok();
    let last_batch = checkpoint.map(|checkpoint| sealed_at(checkpoint.settled));
    last_batch.into_iter().chain(ClickIds::leased_at(data_dir)).collect()
}
