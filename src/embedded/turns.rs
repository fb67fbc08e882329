//! Lets so many threads run at once; the engine itself has no bound on queries (`max_concurrent_queries` is 0).

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A counting semaphore for threads.
pub(crate) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Given back when it is dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { free: Mutex::new(at_once), freed: Condvar::new() }
    }

    /// Waits for a turn; `None` if none came free in time.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<Turn<'_>> {
        let deadline = Instant::now() + timeout;
        let mut free = self.free.lock();
        while *free == 0 {
            if self.freed.wait_until(&mut free, deadline).timed_out() && *free == 0 {
                return None;
            }
        }
        *free -= 1;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_waited_for_and_given_back() {
        let turns = Turns::new(1);
        let first = turns.wait(Duration::ZERO).expect("free");
        assert!(turns.wait(Duration::from_millis(1)).is_none());
        drop(first);
        assert!(turns.wait(Duration::ZERO).is_some());
    }
}
