//! The log of attempts on its way to ClickHouse: kept in the outbox until it is there.
//!
//! Lines may be sent twice; each has an id, and of those with one id the table keeps one. That needs no token, so no
//! crash of the engine between the token and the rows can lose any.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Postbacks;
use crate::{
    core::{
        AccountId, ConversionId, GoalId, UnixMillis,
        webhook::{Delivery, DeliveryId},
    },
    tasks,
};

/// How often lines are taken along.
const EVERY: Duration = Duration::from_secs(1);
/// How long until ClickHouse is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Lines in one insert.
const LINES_MAX: usize = 10_000;

/// The log could not be written; it is tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogUnavailable(pub String);

/// Where attempts are kept for people to read.
pub trait DeliveryLog: Send + Sync {
    /// Adds these; may be called again with the same ones.
    fn add(&self, deliveries: &[Delivery]) -> impl Future<Output = Result<(), LogUnavailable>> + Send;
}

/// Some lines, and the number of the last.
#[derive(Debug, Default)]
pub(super) struct Logged {
    pub(super) lines: Vec<Delivery>,
    pub(super) last: u64,
}

/// An attempt on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogLine(pub(super) Delivery);

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct LineV1 {
    id: u128,
    account_id: u32,
    goal_id: u32,
    conversion_id: u128,
    attempt: u8,
    status: Option<u16>,
    error: String,
    latency_ms: u32,
    at_ms: i64,
    next_attempt_at_ms: Option<i64>,
    answer: String,
}

impl LogLine {
    pub(super) fn encode(&self) -> Vec<u8> {
        let line = self.0.clone();
        let line = LineV1 {
            id: line.id.0.as_u128(),
            account_id: line.account_id.0,
            goal_id: line.goal_id.0,
            conversion_id: line.conversion_id.0.as_u128(),
            attempt: line.attempt,
            status: line.status,
            error: line.error,
            latency_ms: line.latency_millis,
            at_ms: line.at.0,
            next_attempt_at_ms: line.next_attempt_at.map(|at| at.0),
            answer: line.answer,
        };
        // Writing to memory has no error to report; short bytes would not decode.
        postcard::to_extend(&line, vec![VERSION]).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, bytes) = bytes.split_first()? else { return None };
        let line: LineV1 = postcard::from_bytes(bytes).ok()?;
        Some(Self(Delivery {
            id: DeliveryId(Uuid::from_u128(line.id)),
            account_id: AccountId(line.account_id),
            goal_id: GoalId(line.goal_id),
            conversion_id: ConversionId(Uuid::from_u128(line.conversion_id)),
            attempt: line.attempt,
            status: line.status,
            error: line.error,
            latency_millis: line.latency_ms,
            at: UnixMillis(line.at_ms),
            next_attempt_at: line.next_attempt_at_ms.map(UnixMillis),
            answer: line.answer,
        }))
    }
}

/// Takes attempts from the outbox to the log until it is told to stop. While the log can't be written they wait.
pub async fn keep_logged(postbacks: Arc<Postbacks>, log: impl DeliveryLog, stop: CancellationToken) {
    let mut failing = false;
    let mut wait = EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = EVERY;
        postbacks.forget_as_asked(&stop).await;
        let logged = match postbacks.outbox.log_lines(LINES_MAX) {
            Ok(logged) => logged,
            Err(error) => {
                tracing::error!(%error, "the log of deliveries can't be read from the outbox");
                continue;
            }
        };
        if logged.lines.is_empty() {
            continue;
        }
        match log.add(&logged.lines).await {
            Ok(()) => {
                failing = false;
                let (postbacks, last) = (postbacks.clone(), logged.last);
                let full = logged.lines.len() >= LINES_MAX;
                let dropped = tasks::blocking(move || postbacks.outbox.drop_log_lines(last)).await;
                if let Err(error) = dropped {
                    tracing::error!(%error, "the log of deliveries can't be taken from the outbox");
                } else if full {
                    wait = Duration::ZERO;
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "the log of deliveries can't be written; trying again");
                }
                failing = true;
                wait = RETRY_AFTER;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::postback) fn delivery(number: u128) -> Delivery {
        Delivery {
            id: DeliveryId(Uuid::from_u128(number)),
            account_id: AccountId(1),
            goal_id: GoalId(3),
            conversion_id: ConversionId(Uuid::from_u128(7)),
            attempt: 2,
            status: None,
            error: "timeout".into(),
            latency_millis: 15_000,
            at: UnixMillis(5),
            next_attempt_at: Some(UnixMillis(6)),
            answer: String::new(),
        }
    }

    /// What a released version wrote is read for ever.
    #[test]
    fn the_format_stays() {
        let line = LogLine(delivery(5));
        assert_golden!("outbox-log-line-1", &line.encode());
        assert_eq!(LogLine::decode(&line.encode()), Some(line));
    }

    #[test]
    fn a_line_reads_back() {
        let line = LogLine(delivery(1));
        assert_eq!(LogLine::decode(&line.encode()), Some(line));
        assert_eq!(LogLine::decode(&[VERSION, 1]), None);
    }
}
