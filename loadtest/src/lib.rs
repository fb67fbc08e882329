//! Load for tally, a ledger of what it acknowledged, and the proof that each of those hits is counted exactly once.
//!
//! This crate knows tally from outside only: its command line, its HTTP surface, the files of its data folder and its
//! `ClickHouse` tables. It must not depend on the tally crate, or it would share the mistakes that it is to find.
//!
//! # How to run it
//!
//! ```text
//! cargo build --release            # the tool is target/release/loadtest
//!
//! # Open loop against a running daemon, 10 % copies and 2 % bad hits, then the proof (exit code 1 if it fails):
//! loadtest run --url http://127.0.0.1:8080 --data-dir data --goals 4 --rate 20000 --seconds 30 --ledger hits.ledger
//! loadtest verify --ledger hits.ledger --data-dir data
//!
//! # With a click for each hit; orders name earlier ones, and the proof covers both:
//! loadtest run --url http://127.0.0.1:8080 --data-dir data --clicks-per-hit 1 --ledger hits.ledger
//!
//! # Against the floor: 64 and 512 connections, and 64 with 16 requests in flight on each:
//! loadtest race --rounds 5 --seconds 3 --json race.json
//! loadtest race --cases 64,512 --tally target/release/tally
//! loadtest race --bare-only        # the bare server against itself: how far apart are equals here?
//!
//! # Twice what it can take, for ten seconds:
//! loadtest overload --seconds 10
//!
//! # A believable past for dashboards to show:
//! loadtest demo --url http://127.0.0.1:8080 --data-dir data
//!
//! loadtest bare --listen 127.0.0.1:9000
//! ```
//!
//! `race` and `overload` start their servers themselves, on free loopback ports, with a data folder under `./target`
//! (which should be on the disk that is to be measured). They report only: a missed bar is no error.
//!
//! # In a test
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use std::{path::Path, thread, time::Duration};
//!
//! use loadtest::clickhouse::ClickHouse;
//! use loadtest::daemon::{Daemon, DaemonOptions};
//! use loadtest::generator::Mix;
//! use loadtest::ledger::Ledger;
//! use loadtest::load::Load;
//! use loadtest::verify::Comparison;
//!
//! let options = DaemonOptions::new(Path::new("target/release/tally"), Path::new("target/crash"))?;
//! let mut daemon = Daemon::start(options)?;
//! daemon.wait_ready(Duration::from_secs(60))?;
//!
//! let (ledger, stop) = (Arc::new(Ledger::memory()), Arc::new(AtomicBool::new(false)));
//! let load = Load {
//!     mix: Mix::with(0.1, 0.02, 0.02),
//!     window: Duration::from_secs(60),
//!     ledger: Some(Arc::clone(&ledger)),
//!     stop: Some(Arc::clone(&stop)),
//!     ..Load::new(daemon.options.listen, daemon.create_goals(4)?)
//! };
//! let running = thread::spawn(move || loadtest::closed_loop::run(&load));
//! daemon.server.kill()?;
//! daemon.restart(Duration::from_secs(60))?;
//! stop.store(true, Ordering::Relaxed);
//! running.join().expect("the load does not panic")?;
//!
//! // Again while `only_missing`: rows take a moment to arrive.
//! let verdict = ClickHouse::new(&daemon.reader_url()?)?.verify(Comparison::new(ledger.entries()))?;
//! assert!(verdict.holds(), "{verdict}");
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! - What is sent: [`generator`] (seeded hits), [`clicks`] between them, and [`request`] (their bytes, rendered ahead of
//!   time).
//! - How: [`client`] (one connection), [`response`] (its answers), [`load`] (threads, shared by both loops),
//!   [`closed_loop`], [`open_loop`] with its [`schedule`].
//! - What came of it: [`report`] (counts, latencies), [`ledger`], [`verify`] (a pure comparison) and its [`verdict`], [`clickhouse`].
//! - Servers: [`process`], [`daemon`], [`bare`], [`rival`].
//! - Measurements: [`race`], [`race_report`], [`overload`].
//!
//! # What holds
//!
//! - Every hit has one outcome, and the ledger one line for it. A lost connection makes its unanswered hits `Unknown`,
//!   never refused: they may have been accepted.
//! - Open-loop latency counts from the scheduled arrival. Nothing a server does makes a hit arrive later.
//! - An exchange costs the client two system calls and no allocation: it shares two cores with what it measures.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a panic is how a test fails"))]

pub mod bare;
pub mod clickhouse;
pub mod clicks;
pub mod client;
pub mod closed_loop;
pub mod daemon;
pub mod demo;
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
pub mod verdict;
pub mod verify;
