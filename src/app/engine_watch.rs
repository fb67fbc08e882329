//! Whether ClickHouse answers, and reports can be had: statements are run, since a port that is open proves nothing.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    clickhouse::{Database, Failure},
    http::{Degraded, Readiness},
};

const PERIOD: Duration = Duration::from_secs(1);
/// Reports cost more than a bare statement.
const REPORT_PERIOD: Duration = Duration::from_secs(5);
/// A statement that has no answer by then has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// For how long no statement may succeed: a restart of the embedded engine takes less.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// The same for reports.
const NO_REPORT_FOR: Duration = Duration::from_secs(30);

/// Asks until it is dropped. Until the first answer the engine counts as down.
pub(super) async fn watch(database: Database, readiness: Arc<Readiness>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut engine = Watched::new(Degraded::EngineDown, SILENT_FOR, &readiness);
    let mut reports = Watched::new(Degraded::ReportsUnavailable, NO_REPORT_FOR, &readiness);
    let mut asked_for_report = Instant::now();
    loop {
        ticks.tick().await;
        engine.note(within(database.ping()).await);
        // Without an engine or tables there are none, which is said already.
        if readiness.is_degraded(Degraded::EngineDown) || readiness.is_degraded(Degraded::SchemaPending) {
            reports.note(Ok(()));
        } else if asked_for_report.elapsed() >= REPORT_PERIOD {
            asked_for_report = Instant::now();
            reports.note(within(database.probe_reports()).await);
        }
    }
}

async fn within(statement: impl Future<Output = Result<(), Failure>>) -> Result<(), String> {
    match tokio::time::timeout(ANSWER_WITHIN, statement).await {
        Ok(outcome) => outcome.map_err(|failure| failure.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// A reason, and when a statement last succeeded that speaks against it.
struct Watched<'a> {
    reason: Degraded,
    patience: Duration,
    succeeded_at: Instant,
    readiness: &'a Readiness,
}

impl<'a> Watched<'a> {
    fn new(reason: Degraded, patience: Duration, readiness: &'a Readiness) -> Self {
        Self { reason, patience, succeeded_at: Instant::now(), readiness }
    }

    fn note(&mut self, outcome: Result<(), String>) {
        let holds = self.readiness.is_degraded(self.reason);
        let reason = self.reason.as_str();
        match outcome {
            Ok(()) => {
                self.succeeded_at = Instant::now();
                if holds {
                    tracing::info!(reason, "not degraded any more");
                    self.readiness.set_degraded(self.reason, false);
                }
            }
            Err(failure) if !holds && self.succeeded_at.elapsed() >= self.patience => {
                let seconds = self.succeeded_at.elapsed().as_secs();
                tracing::warn!(reason, failure, seconds, "degraded: hits are taken and wait in the log");
                self.readiness.set_degraded(self.reason, true);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_holds_once_nothing_has_succeeded_for_long_enough() {
        let readiness = Readiness::default();
        let mut engine = Watched::new(Degraded::EngineDown, SILENT_FOR, &readiness);
        assert!(readiness.is_degraded(Degraded::EngineDown), "until it has answered");
        engine.note(Ok(()));
        assert!(!readiness.is_degraded(Degraded::EngineDown));
        engine.note(Err("down".into()));
        assert!(!readiness.is_degraded(Degraded::EngineDown), "a restart takes a moment");
        engine.patience = Duration::ZERO;
        engine.note(Err("down".into()));
        assert!(readiness.is_degraded(Degraded::EngineDown));
        engine.note(Ok(()));
        assert!(!readiness.is_degraded(Degraded::EngineDown));
    }
}
