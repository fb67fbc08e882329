//! tally: conversion tracking in one binary. Every acknowledged hit, exactly once, provably.
//!
//! # The way of a hit
//!
//! ```text
//! http ─ parse ─ catalog (token → goal) ─ rate limit ─ intake: dedup + wal.append ──fsync of the group──▶ 201 / 200
//!                                                             │
//! wal ─▶ shipper: read ▶ decide: late duplicates, attribution ▶ cut a batch ▶ persist ▶ INSERT with its token ▶ checkpoint
//!                                                                                       │
//!                                                            ClickHouse: raw tables ▶ views ▶ API, Grafana
//! ```
//!
//! # Invariants
//!
//! 1. **A 2xx follows the fsync** of the hit's record. What a kill or a power cut takes away was never
//!    acknowledged.
//! 2. **A duplicate key becomes known with its record, not before.** The in-flight map holds the record's
//!    [`wal::Ticket`]; whoever meets the key waits on that ticket, and if it is lost, so is the key.
//! 3. **The filter only skips work.** 'Never seen' means new; 'maybe' asks the map, then ClickHouse. If
//!    ClickHouse can't answer in time the hit is accepted as unverified and the shipper decides.
//! 4. **A cut batch never changes.** Bytes, id, token and settings are on disk before the first send. Any outcome
//!    but a plain OK is doubtful, and a doubtful batch is looked at before it counts as done.
//! 5. **A log segment goes only when everything in it is settled**: inserted, a duplicate, or dead-lettered.
//! 6. **accepted = inserted + duplicate + dead-lettered + pending**, at all times, for conversions, clicks and
//!    adjustments each; `tally audit` checks it.
//! 7. **Overload is answered, not suffered**: every queue is bounded; past the bound, 503 with `Retry-After`.
//! 8. **One account never sees another**: every query carries the caller's account.
//! 9. **Every thread and task is supervised**: its early end is logged by name and ends the daemon in order.
//! 10. **A token stands for one content for ever**: it is made of the batch's id, which counts on from the last one and is
//!     never clamped, and of the rows.
//! 11. **No clock is believed that jumps**: ids, keys and deletion go by [`clock::BelievedClock`].
//!
//! # Where things are
//!
//! | Module | Does |
//! |---|---|
//! | [`app`] | the parts put together: start, order of ending, what runs in the background |
//! | [`core`] | the domain: ids, money, goals, hits, the log's payload codec, row encoding; no IO, no clock |
//! | [`catalog`] | accounts, keys, goals and links: on disk, read lock-free, copied to ClickHouse |
//! | [`http`] | routes, decoders, the table of errors, answers; knows nothing of the log or of SQL |
//! | [`postback`] | outgoing postbacks: outbox, retries, signatures, the guard of addresses, the log of attempts |
//! | [`account_slots`] | few calls of one kind at once of each account |
//! | [`rate_limit`] | the bucket of each token |
//! | [`clock`] | the time that is believed, and that which deletion goes by |
//! | [`report_slots`] | which account's report runs next |
//! | [`config`], [`cli`], [`telemetry`] | settings, subcommands, log lines and metrics |
//! | [`tasks`] | every thread and task started by name; an early end of one ends the daemon |
//! | [`audit`] | whether every acknowledged conversion is accounted for |
//! | [`erase`] | a person's data removed from the raw tables |
//! | [`reattribute`] | history decided anew, and which run of it is in force |
//! | [`clickhouse`] | the schema, repeatable inserts, key look-ups, reports; knows nothing of the log |
//! | [`shipper`] | log → batch → cut → insert → checkpoint, exactly once; dead letters |
//! | [`past_clicks`] | clicks that are in ClickHouse, in files of its own: found at a cost that does not grow with their number |
//! | [`intake`] | the hot path without HTTP: key, duplicate or not, record, and the gate that answers wait at |
//! | [`dedup`] | filter, in-flight map, coalesced look-ups |
//! | [`embedded`] | the embedded ClickHouse: a supervised child with ClickHouse's HTTP face |
//! | [`wal`] | the append-only log with group commit; knows nothing of hits |

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

#[cfg(test)]
#[macro_use]
mod golden;

pub mod account_slots;
pub mod app;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod clickhouse;
pub mod clock;
pub mod config;
pub mod core;
pub mod dedup;
pub mod durable_file;
pub mod embedded;
pub mod erase;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
pub mod intake;
pub mod past_clicks;
pub mod postback;
pub mod rate_limit;
pub mod reattribute;
pub mod report_slots;
pub mod secret;
pub mod shipper;
pub mod tasks;
pub mod telemetry;
pub mod wal;
