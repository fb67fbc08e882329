//! Sessions that a client names (`session_id`): a connection to the engine kept between its requests.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ffi::Connection;

/// Idle ones beyond this go, the longest idle first; each holds some memory of the engine.
const SESSIONS_MAX: usize = 128;

/// The kept sessions. Only the writer has any: a reused session could get out of `readonly`.
#[derive(Default)]
pub(crate) struct Sessions {
    slots: Mutex<HashMap<String, Slot>>,
}

enum Slot {
    Busy,
    Idle { connection: Connection, until: Instant, since: Instant },
}

/// Another request of the session is running.
#[derive(Debug)]
pub(crate) struct Locked;

impl Sessions {
    /// Takes the session's connection, `None` if it has none yet; `id` is busy until it is put back or ended.
    pub(crate) fn take(&self, id: &str, now: Instant) -> Result<Option<Connection>, Locked> {
        let mut slots = self.slots.lock();
        let expired = drain_expired(&mut slots, now);
        let taken = match slots.insert(id.to_owned(), Slot::Busy) {
            Some(Slot::Busy) => Err(Locked),
            Some(Slot::Idle { connection, .. }) => Ok(Some(connection)),
            None => Ok(None),
        };
        drop(slots);
        // Closed outside of the lock.
        drop(expired);
        taken
    }

    /// Puts the connection back until it is used again or times out.
    pub(crate) fn put(&self, id: &str, connection: Connection, timeout: Duration, now: Instant) {
        let mut slots = self.slots.lock();
        slots.insert(id.to_owned(), Slot::Idle { connection, until: now + timeout, since: now });
        let mut evicted = None;
        if slots.len() > SESSIONS_MAX {
            let oldest = slots.iter().filter_map(|(id, slot)| match slot {
                Slot::Idle { since, .. } => Some((*since, id.clone())),
                Slot::Busy => None,
            });
            if let Some((_, id)) = oldest.min() {
                evicted = slots.remove(&id);
            }
        }
        drop(slots);
        drop(evicted);
    }

    /// Forgets a session whose connection is lost.
    pub(crate) fn end(&self, id: &str) {
        self.slots.lock().remove(id);
    }

    /// Closes what timed out.
    pub(crate) fn expire(&self, now: Instant) {
        let expired = drain_expired(&mut self.slots.lock(), now);
        drop(expired);
    }

    /// Closes all that are idle.
    pub(crate) fn clear(&self) {
        let slots = std::mem::take(&mut *self.slots.lock());
        drop(slots);
    }
}

fn drain_expired(slots: &mut HashMap<String, Slot>, now: Instant) -> Vec<Slot> {
    slots
        .extract_if(|_, slot| matches!(slot, Slot::Idle { until, .. } if *until <= now))
        .map(|(_, slot)| slot)
        .collect()
}
