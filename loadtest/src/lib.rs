//! Load for tally.

pub mod bare;
pub mod client;
pub mod closed_loop;
pub mod generator;
pub mod ledger;
pub mod load;
pub mod open_loop;
pub mod process;
pub mod report;
pub mod request;
pub mod response;
pub mod rng;
pub mod schedule;
pub mod text;
mod timer;
