//! What an attempt means for its entry: done with, or to be tried again, and its line for the log.

use uuid::{Builder, Uuid};

use super::{
    attempt::Attempted,
    entry::Entry,
    log::LogLine,
    outbox::{After, Outcome},
};
use crate::core::{
    UnixMillis,
    webhook::{Delivery, DeliveryId, Next, Verdict, next, verdict},
};

/// What becomes of an entry, and by which name it is counted.
pub(super) struct Decided {
    pub(super) outcome: Outcome,
    pub(super) verdict: Verdict,
    pub(super) name: &'static str,
}

/// The names that attempts are counted by.
pub(super) const NAMES: [&str; 4] = ["delivered", "failed", "gone", "given_up"];

/// Decides. `jitter` is between 0 and 1.
pub(super) fn decide(
    entry: Entry,
    at: UnixMillis,
    attempted: Attempted,
    now: UnixMillis,
    jitter: f64,
) -> Decided {
    // An answer that broke off does not count: who sent it may not have meant it.
    let whole = attempted.error.is_empty();
    let verdict = match verdict(attempted.status) {
        Verdict::Delivered if !whole => Verdict::Failed,
        verdict => verdict,
    };
    let attempts = entry.attempts.saturating_add(1);
    let again = match verdict {
        Verdict::Delivered => None,
        Verdict::Failed | Verdict::Gone => match next(attempts, jitter, attempted.retry_after) {
            Next::After(millis) => Some(now.plus(millis)),
            Next::GiveUp => None,
        },
    };
    let [delivered, failed, gone, given_up] = NAMES;
    let name = match (verdict, again) {
        (Verdict::Delivered, _) => delivered,
        (Verdict::Gone, _) => gone,
        (Verdict::Failed, Some(_)) => failed,
        (Verdict::Failed, None) => given_up,
    };
    let event = &entry.event;
    let line = Delivery {
        id: DeliveryId(id_of(at)),
        account_id: event.account_id,
        goal_id: event.goal_id,
        conversion_id: event.conversion_id,
        attempt: attempts,
        status: attempted.status,
        error: attempted.error.to_owned(),
        latency_millis: attempted.latency_millis,
        at,
        next_attempt_at: again,
        answer: attempted.answer,
    };
    let after = match again {
        Some(due) => After::Waits(Entry { attempts, due, ..entry }),
        None => After::Done,
    };
    Decided { outcome: Outcome { after, line: LogLine(line) }, verdict, name }
}

/// Version 7, of the time that is handed in.
fn id_of(at: UnixMillis) -> Uuid {
    let millis = u64::try_from(at.0).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}
