//! `tally keys`: for the owner of the data folder, on a stopped one. Beside a running daemon the API does the same.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use serde::Serialize;

use super::{
    banner,
    commands::CommandError,
    data_dir::{DataDir, DataDirError},
};
use crate::{
    catalog::{Catalog, KEY_FILE_NAME},
    clock::SystemClock,
    config::Config,
};

#[derive(Serialize)]
struct KeyJson<'a> {
    id: u32,
    account_id: u32,
    account: &'a str,
    name: &'a str,
    revoked: bool,
}

/// `tally keys list`.
pub fn list(config: &Config, json: bool) -> Result<ExitCode, CommandError> {
    let (_held, catalog) = open(config)?;
    let snapshot = catalog.snapshot();
    let keys = snapshot.all_keys().map(|key| KeyJson {
        id: key.id,
        account_id: key.account_id.0,
        account: snapshot.account(key.account_id).map_or("", |account| account.name.as_str()),
        name: &key.name,
        revoked: key.revoked,
    });
    let keys: Vec<_> = keys.collect();
    if json {
        // These types have no map keys or floats that could fail.
        println!("{}", serde_json::to_string_pretty(&keys).unwrap_or_default());
    } else {
        println!("{:<8}{:<10}{:<26}{:<26}state", "key", "account", "account's name", "key's name");
        for KeyJson { id, account_id, account, name, revoked } in keys {
            let state = if revoked { "revoked" } else { "live" };
            println!("{id:<8}{account_id:<10}{account:<26}{name:<26}{state}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `tally keys rotate`: the first key has another secret, although it was lost or revoked.
pub fn rotate(config: &Config) -> Result<ExitCode, CommandError> {
    let (_held, catalog) = open(config)?;
    let (_, secret) = catalog.recover_first_key()?;
    let path = config.data_dir.join(KEY_FILE_NAME);
    println!("{}", banner::key(&secret, &path, io::stdout().is_terminal()));
    Ok(ExitCode::SUCCESS)
}

fn open(config: &Config) -> Result<(DataDir, Catalog), CommandError> {
    let held = DataDir::take_existing(&config.data_dir, "keys").map_err(|error| match error {
        DataDirError::InUse { .. } => CommandError::KeysInUse,
        other => other.into(),
    })?;
    if !Catalog::exists(&config.data_dir) {
        return Err(CommandError::NoCatalog(config.data_dir.display().to_string()));
    }
    let opened = Catalog::open(&config.data_dir, &SystemClock, None)?;
    Ok((held, opened.catalog))
}
