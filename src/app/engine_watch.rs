//! Whether ClickHouse answers: a statement is run, since a port that is open proves nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clickhouse::{Database, Failure},
    http::{Degraded, Readiness},
};

const PERIOD: Duration = Duration::from_secs(1);
/// A statement that has no answer by then has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// For how long no statement may succeed: a restart of the embedded engine takes less.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// Asks until it is dropped. Until the first answer the engine counts as down.
pub(super) async fn watch(database: Database, readiness: Arc<Readiness>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut answered_at = Instant::now();
    loop {
        ticks.tick().await;
        let failure = match tokio::time::timeout(ANSWER_WITHIN, database.ping()).await {
            Ok(Ok(())) => {
                answered_at = Instant::now();
                if readiness.is_degraded(Degraded::EngineDown) {
                    tracing::info!("ClickHouse answers");
                    readiness.set_degraded(Degraded::EngineDown, false);
                }
                continue;
            }
            Ok(Err(failure)) => Some(failure),
            Err(_) => None,
        };
        let silent_for = answered_at.elapsed();
        if silent_for >= SILENT_FOR && !readiness.is_degraded(Degraded::EngineDown) {
            let reason = failure.as_ref().map_or_else(|| "no answer in time".to_owned(), Failure::to_string);
            tracing::warn!(
                reason,
                seconds = silent_for.as_secs(),
                "ClickHouse does not answer; hits are taken and wait in the log"
            );
            readiness.set_degraded(Degraded::EngineDown, true);
        }
    }
}
