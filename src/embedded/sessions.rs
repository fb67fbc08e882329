//! Sessions of the engine: fresh ones, and those that a client names (`session_id`), whose connection is kept
//! between its requests.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::ffi::{Connection, Engine, EngineError, Params};

/// Idle ones beyond this go, the longest idle first; each holds some memory of the engine.
const SESSIONS_MAX: usize = 128;

/// The kept sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    slots: Mutex<HashMap<String, Slot>>,
}

enum Slot {
    Busy,
    Idle { connection: Connection, until: Instant, since: Instant },
}

impl Sessions {
    /// The session of this name, new if there is none; it is given back when the result is dropped.
    ///
    /// `reset` takes back what one request sets, so that it does not reach into the next one.
    pub(crate) fn open(
        &self,
        engine: &Engine,
        id: &str,
        timeout: Duration,
        reset: String,
    ) -> Result<Session<'_>, EngineError> {
        // From here on the name is busy, until the session is dropped or its start fails.
        let connection = self.take(id, Instant::now())?;
        let home = Home { sessions: self, id: id.to_owned(), timeout, reset };
        match connection.map_or_else(|| engine.connect(), Ok) {
            Ok(connection) => Ok(Session { connection: Some(connection), home: Some(home) }),
            Err(error) => {
                self.end(id);
                Err(error)
            }
        }
    }

    /// Closes what timed out.
    pub(crate) fn expire(&self, now: Instant) {
        let expired = drain_expired(&mut self.slots.lock(), now);
        // Closed outside of the lock.
        drop(expired);
    }

    /// Closes all that are idle.
    pub(crate) fn clear(&self) {
        let slots = std::mem::take(&mut *self.slots.lock());
        drop(slots);
    }

    fn take(&self, id: &str, now: Instant) -> Result<Option<Connection>, EngineError> {
        self.expire(now);
        match self.slots.lock().insert(id.to_owned(), Slot::Busy) {
            Some(Slot::Busy) => Err(EngineError(
                "Code: 373. DB::Exception: Session is locked by a concurrent client. (SESSION_IS_LOCKED)"
                    .into(),
            )),
            Some(Slot::Idle { connection, .. }) => Ok(Some(connection)),
            None => Ok(None),
        }
    }

    fn put(&self, id: &str, connection: Connection, timeout: Duration, now: Instant) {
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

    fn end(&self, id: &str) {
        self.slots.lock().remove(id);
    }
}

/// A session for one request; derefs to its connection.
pub(crate) struct Session<'a> {
    /// `None` only in `drop`.
    connection: Option<Connection>,
    home: Option<Home<'a>>,
}

/// Where a kept session goes back to.
struct Home<'a> {
    sessions: &'a Sessions,
    id: String,
    timeout: Duration,
    reset: String,
}

impl Session<'_> {
    /// One that nobody else had and nobody will have.
    pub(crate) fn fresh(engine: &Engine) -> Result<Self, EngineError> {
        Ok(Self { connection: Some(engine.connect()?), home: None })
    }
}

impl Deref for Session<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("taken only in drop")
    }
}

impl DerefMut for Session<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("taken only in drop")
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let (Some(home), Some(mut connection)) = (self.home.take(), self.connection.take()) else { return };
        match command(&mut connection, &home.reset) {
            Ok(()) => home.sessions.put(&home.id, connection, home.timeout, Instant::now()),
            Err(_) => home.sessions.end(&home.id),
        }
    }
}

/// Runs a statement that has no result.
pub(crate) fn command(connection: &mut Connection, sql: &str) -> Result<(), EngineError> {
    connection.query(sql.as_bytes(), "Null", &Params::default()).map(drop)
}

fn drain_expired(slots: &mut HashMap<String, Slot>, now: Instant) -> Vec<Slot> {
    slots
        .extract_if(|_, slot| matches!(slot, Slot::Idle { until, .. } if *until <= now))
        .map(|(_, slot)| slot)
        .collect()
}
