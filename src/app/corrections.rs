//! The subcommands that correct what is known: history decided anew, and a person's data removed.

use std::process::ExitCode;

use super::{
    commands::{CommandError, on_database},
    data_dir::DataDir,
};
use crate::{
    cli::{Reattribute, Who},
    clickhouse::Person,
    clock::Clock as _,
    config::Config,
    core::{AccountId, ClickId, GoalId, RunId},
    erase,
    intake::Visitors,
    reattribute::{self, Request, Shipping},
};

const DAY_MILLIS: i64 = 86_400_000;

/// `tally reattribute`.
pub fn reattribute(config: &Config, action: Reattribute, json: bool) -> Result<ExitCode, CommandError> {
    DataDir::must_exist(&config.data_dir)?;
    let shipping = shipping(config)?;
    on_database(config, "reattribute", async |database| {
        match action {
            Reattribute::List => print!("{}", reattribute::list(&database, json).await?),
            Reattribute::Use(run) => {
                reattribute::put_in_force(&database, RunId(run)).await?;
                eprintln!("Run {run} is in force.");
            }
            Reattribute::Run { window_days, model, since, dry_run } => {
                let request = Request {
                    window_seconds: u32::from(window_days) * 86_400,
                    model,
                    since,
                    settle_millis: i64::from(config.settle_seconds) * 1000,
                    clicks_kept_millis: i64::from(config.click_retention_days) * DAY_MILLIS,
                    put_in_force: !dry_run,
                };
                let wal_dir = config.data_dir.join(super::LOG_FOLDER);
                let (now, note) = (super::time::open(&config.data_dir)?.now(), |note| eprintln!("{note}"));
                let outcome = reattribute::reattribute(
                    &config.data_dir,
                    &wal_dir,
                    &database,
                    &request,
                    shipping,
                    now,
                    note,
                )
                .await?;
                print!("{}", if json { outcome.json() + "\n" } else { outcome.table() });
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `tally erase`.
pub fn erase(config: &Config, who: Who, account: Option<u32>, json: bool) -> Result<ExitCode, CommandError> {
    DataDir::must_exist(&config.data_dir)?;
    let account = account.map(AccountId);
    let visitors = Visitors::read(&config.data_dir)?;
    on_database(config, "erase", async |database| {
        let person = match who {
            Who::Order { id, goal } => Person::Order { id, goal_id: goal.map(GoalId) },
            Who::Click(click) => Person::Click(ClickId(click)),
            Who::VisitorKey(key) => Person::Visitor(vec![key]),
            Who::Visitor { ip, user_agent } => {
                let accounts = match account {
                    Some(account) => vec![account],
                    None => database.load_catalog().await?.accounts.iter().map(|row| row.entry.id).collect(),
                };
                let keys = accounts.into_iter().flat_map(|account| visitors.keys(account, ip, &user_agent));
                Person::Visitor(keys.collect())
            }
        };
        let wal_dir = config.data_dir.join(super::LOG_FOLDER);
        let report = erase::erase(&config.data_dir, &wal_dir, &database, &person, account).await?;
        print!("{}", if json { report.json() + "\n" } else { report.table() });
        Ok(ExitCode::SUCCESS)
    })
}

/// Whether a daemon runs on the folder. To be asked before the folder is taken for a command's own engine.
fn shipping(config: &Config) -> Result<Shipping, CommandError> {
    let runs = DataDir::is_held(&config.data_dir, "reattribute")?;
    Ok(if runs { Shipping::Running } else { Shipping::Stopped })
}
