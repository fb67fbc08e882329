//! Load for tally.

pub mod bare;
pub mod clickhouse;
pub mod client;
pub mod closed_loop;
pub mod daemon;
pub mod generator;
pub mod ledger;
pub mod load;
pub mod open_loop;
pub mod overload;
pub mod process;
pub mod race;
pub mod race_report;
pub mod report;
pub mod request;
pub mod response;
pub mod rival;
pub mod rng;
pub mod schedule;
pub mod text;
mod timer;
pub mod verify;
